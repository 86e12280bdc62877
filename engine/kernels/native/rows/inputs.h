/* What a record has for velocity features: identities (kernels/identity.py), numbers, and its time in ms. */
#ifndef INPUTS_H
#define INPUTS_H

#include "../siphash.h"
#include "walk.h"
#include <math.h>

#define FAR_MS 4611686018427387904.0 /* 2**62: farther away than any time that counts */

static inline void store_identity(walk *w, const field *f, char type, const void *data, size_t length) {
    uint64_t hash[2];
    identity_of(w->decoder->hash_key, type, data, length, hash);
    memcpy(w->decoder->inputs + f->column, hash, sizeof hash);
}

static inline void store_whole_identity(walk *w, const field *f, uint64_t size, int is_negative) {
    char bytes[9] = {is_negative && size != 0 ? '-' : '+'};
    memcpy(bytes + 1, &size, 8);
    store_identity(w, f, 'n', bytes, sizeof bytes);
}

/* Of a number that is not NaN. */
static inline void store_double_identity(walk *w, const field *f, double value) {
    double size = fabs(value);
    if (size < 18446744073709551616.0 && floor(size) == size) store_whole_identity(w, f, (uint64_t)size, value < 0);
    else store_identity(w, f, 'f', &value, sizeof value);
}

/* Of the JSON number [text, end): exact if it is written as a whole number below 2**64, with or without a fraction of
   zeros, else as the float64. What is behind `end` is no part of a number. */
static void store_number_identity(walk *w, const field *f, char *text, const char *end) {
    const char *p = text + (*text == '-');
    uint64_t size = 0;
    for (; p < end && is_digit(*p); p++)
        if (__builtin_mul_overflow(size, 10u, &size) || __builtin_add_overflow(size, (uint64_t)(*p - '0'), &size))
            break;
    if (p < end && *p == '.') {
        do p++;
        while (p < end && *p == '0');
    }
    if (p == end) {
        store_whole_identity(w, f, size, *text == '-');
        return;
    }
    double value;
    (void)read_number(w->decoder, text, &value);
    store_double_identity(w, f, value);
}

static inline void store_boolean_identity(walk *w, const field *f, int value) {
    char byte = (char)value;
    store_identity(w, f, 'b', &byte, 1);
}

static inline void store_input_value(walk *w, const target *t, double value) {
    memcpy(w->decoder->inputs + t->column, &value, sizeof value);
}

static inline void store_input_time(walk *w, const target *t, double seconds) {
    double ms = seconds * 1000.0;
    w->decoder->inputs[t->column] = fabs(ms) < FAR_MS ? (int64_t)rint(ms) : INT64_MIN;
}

#endif
