/* What values of binary records are used for: a value of each type to the columns of its field. Included by avro.c and
   protobuf.c. */
#ifndef USES_H
#define USES_H

#include "values.h"
#include <stdio.h>

/* What reading a part of a record comes to; the last two end the record. */
enum { DONE, MALFORMED, LEFT_TO_REFERENCE };

/* One record that is being read. */
typedef struct {
    walk w;
    const void *program;
    char *p;
    uint32_t n_filled;
    int is_odd; /* a value that went to its column at once may be beyond float32 */
} binary_run;

/* Begins the record in the scratch buffer, at its byte `start`, with a row of what is missing. */
static inline binary_run start_run(rows_decoder *d, const void *program, size_t start, size_t length, float *row,
                                   const float *blank_row, record_result *result) {
    char *record = d->scratch + PADDING_BEFORE;
    *result = (record_result){.code = NO_FAULT, .entry = -1};
    memcpy(row, blank_row, (size_t)d->width * sizeof *row);
    rows_next_serial(d);
    blank_inputs(d);
    return (binary_run){
        .w = {.decoder = d, .record = record, .end = record + length, .row = row, .result = result},
        .program = program,
        .p = record + start,
    };
}

static void mark_filled(binary_run *r, int32_t entry) {
    rows_decoder *d = r->w.decoder;
    if (!d->fields[entry].required || d->filled[entry] == d->serial) return;
    d->filled[entry] = d->serial;
    r->n_filled++;
}

/* A number for one use; seconds: of a moment, NULL for what is only a number. */
static void use_number(binary_run *r, const field *f, int32_t entry, double value, const double *seconds) {
    if (seconds == NULL || f->kind == FIELD_NUMBER) {
        store_number(&r->w, f, entry, value);
        return;
    }
    for (int32_t i = 0; i < f->n_targets; i++) {
        const target *t = &f->targets[i];
        if (t->kind == TARGET_VALUE) r->w.row[t->column] = (float)value; /* of 64 bits: within float32's range */
        else if (t->kind == TARGET_INPUT_VALUE) store_input_value(&r->w, t, value);
        else store_time(&r->w, t, *seconds);
    }
}

/* The text of a number, which is in the buffer for texts or of the program, as identifier or category. */
static void use_digits(binary_run *r, const field *f, const char *text, uint32_t length) {
    if (f->kind == FIELD_TEXT) {
        r->w.row[f->column] = code_of_number(f, text, text + length);
        return;
    }
    char *kept = r->w.decoder->unescaped + r->w.kept;
    memmove(kept, text, length);
    r->w.result->identifier = kept;
    r->w.result->identifier_length = length;
    r->w.kept += length;
}

/* A whole number of at most 64 bits, with its sign. seconds: of a moment, else NULL. */
static int use_whole(binary_run *r, int32_t entry, uint64_t size, int is_negative, const double *seconds) {
    double value = is_negative ? -(double)size : (double)size;
    for (const field *f = &r->w.decoder->fields[entry]; f != NULL; f = f->also) {
        if (f->kind == FIELD_NUMBER || f->kind == FIELD_DERIVED) {
            use_number(r, f, entry, value, seconds);
            continue;
        }
        if (f->kind == FIELD_KEY) {
            store_whole_identity(&r->w, f, size, is_negative);
            continue;
        }
        char digits[64] = {0}, *out = digits + 40; /* zeros on both sides */
        uint64_t rest = size;
        do *--out = (char)('0' + rest % 10);
        while ((rest /= 10) != 0);
        if (is_negative) *--out = '-';
        use_digits(r, f, out, (uint32_t)(digits + 40 - out));
    }
    mark_filled(r, entry);
    return DONE;
}

/* unit: class Op in engine/records/avro_program.py says what it means */
static int use_long(binary_run *r, int32_t entry, int64_t value, int32_t unit) {
    static const double per_second[] = {1.0, 1e3, 1e6, 1e9, 1.0};
    double seconds = unit == 4 ? (double)value * 86400.0 : (double)value / per_second[unit];
    uint64_t size = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    return use_whole(r, entry, size, value < 0, unit ? &seconds : NULL);
}

static int use_double(binary_run *r, int32_t entry, double value) {
    int is_nan = value != value, is_filled = 0;
    for (const field *f = &r->w.decoder->fields[entry]; f != NULL; f = f->also) {
        if (f->kind == FIELD_IDENTIFIER) {
            note_fault(&r->w, OTHER_TYPE, entry);
        } else if (!is_nan) {
            is_filled = 1;
            if (f->kind == FIELD_TEXT) note_fault(&r->w, OTHER_TYPE, entry);
            else if (f->kind == FIELD_KEY) store_double_identity(&r->w, f, value);
            else use_number(r, f, entry, value, NULL);
        }
    }
    if (is_filled) mark_filled(r, entry);
    return DONE;
}

static int use_boolean(binary_run *r, int32_t entry, int value) {
    for (const field *f = &r->w.decoder->fields[entry]; f != NULL; f = f->also) {
        if (f->kind == FIELD_IDENTIFIER) note_fault(&r->w, BOOLEAN, entry);
        else if (f->kind == FIELD_TEXT) {
            static const char words[2][24] = {"false", "true"};
            r->w.row[f->column] = code_of(f, words[value], value ? 4 : 5);
        } else if (f->kind == FIELD_KEY) store_boolean_identity(&r->w, f, value);
        else use_number(r, f, entry, value, NULL);
    }
    mark_filled(r, entry);
    return DONE;
}

/* The text as a JSON string, as orjson writes it. Returns 0 if there may be no room. */
static int keep_identifier(binary_run *r, const char *text, size_t length) {
    rows_decoder *d = r->w.decoder;
    char *start = d->unescaped + r->w.kept, *out = start;
    if (r->w.kept + 6 * length + 2 > d->scratch_capacity) return 0;
    *out++ = '"';
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x80) *out++ = (char)c;
        else out = put_escaped(out, c);
    }
    *out++ = '"';
    r->w.result->identifier = start;
    r->w.result->identifier_length = (size_t)(out - start);
    r->w.kept += (size_t)(out - start);
    return 1;
}

/* A text that is a number, or a time; 0 if there may be no room. */
static int use_number_text(binary_run *r, const field *f, int32_t entry, const char *text, size_t length) {
    rows_decoder *d = r->w.decoder;
    if (r->w.kept + length + PADDING_AFTER > d->scratch_capacity) return 0;
    char *copy = d->unescaped + r->w.kept; /* what follows the text in the record may be digits */
    memcpy(copy, text, length);
    memset(copy + length, 0, PADDING_AFTER);
    double value;
    if (read_number(d, copy, &value) == copy + length) store_number(&r->w, f, entry, value);
    else store_text(&r->w, f, entry, copy, copy + length);
    return 1;
}

static int use_text(binary_run *r, int32_t entry, const char *text, size_t length) {
    const unsigned char *first = (const unsigned char *)text;
    if (!valid_utf8(first, first + length)) {
        note_fault(&r->w, NOT_TEXT, entry);
        return DONE;
    }
    int is_filled = 0;
    for (const field *f = &r->w.decoder->fields[entry]; f != NULL; f = f->also) {
        if (length == 0 && (f->kind != FIELD_TEXT || text_find(&f->vocabulary, text, 0) < 0)) continue;
        is_filled = 1;
        if (f->kind == FIELD_TEXT) r->w.row[f->column] = code_of(f, text, (uint32_t)length);
        else if (f->kind == FIELD_KEY) store_identity(&r->w, f, 't', text, length);
        else if (!(f->kind == FIELD_IDENTIFIER ? keep_identifier(r, text, length)
                                               : use_number_text(r, f, entry, text, length)))
            return LEFT_TO_REFERENCE;
    }
    if (is_filled) mark_filled(r, entry);
    return DONE;
}

/* The longest decimal that is read (154 digits), and the longest text of one: a scale is at most MAX_SCALE. */
#define DECIMAL_BYTES 64
#define MAX_SCALE 200

/* The digits of a number in two's complement, big endian, before `end`; returns their first. The bytes are consumed. */
static char *decimal_digits(unsigned char *bytes, int64_t length, int is_negative, char *end) {
    for (int64_t i = length - 1, carry = 1; is_negative && i >= 0; i--) {
        carry += (unsigned char)~bytes[i];
        bytes[i] = (unsigned char)carry;
        carry >>= 8;
    }
    for (int64_t first = 0; first < length;) { /* divided by 10**9 until nothing is left */
        uint64_t rest = 0;
        for (int64_t i = first; i < length; i++) {
            rest = rest << 8 | bytes[i];
            bytes[i] = (unsigned char)(rest / 1000000000u);
            rest %= 1000000000u;
        }
        while (first < length && bytes[first] == 0) first++;
        for (int i = 0; i < 9 && (first < length || rest != 0); i++, rest /= 10) *--end = (char)('0' + rest % 10);
    }
    return end;
}

/* A decimal. One that is longer than it should ever be is as far away as infinity. */
static int use_decimal(binary_run *r, int32_t entry, const char *bytes, int64_t length, int32_t scale) {
    if (length > DECIMAL_BYTES || scale > MAX_SCALE) return use_double(r, entry, __builtin_inf());
    int is_negative = length > 0 && (bytes[0] & 0x80);
    unsigned char copy[DECIMAL_BYTES];
    char text[2 * MAX_SCALE + 256] = {0}, *end = text + sizeof text - 24; /* zeros on both sides */
    memcpy(copy, bytes, (size_t)length);
    /* As Python's format(.., "f") writes it: at least one digit before the point, and all behind it. */
    char *start = decimal_digits(copy, length, is_negative, end);
    while (end - start < scale + 1) *--start = '0';
    if (scale > 0) {
        memmove(start - 1, start, (size_t)(end - start - scale));
        start--;
        end[-scale - 1] = '.';
    }
    if (is_negative) *--start = '-';
    double value = 0;
    if (r->w.kept + (size_t)(end - start) > r->w.decoder->scratch_capacity) return LEFT_TO_REFERENCE;
    if (read_number(r->w.decoder, start, &value) != end) return LEFT_TO_REFERENCE;
    for (const field *f = &r->w.decoder->fields[entry]; f != NULL; f = f->also) {
        if (f->kind == FIELD_TEXT || f->kind == FIELD_IDENTIFIER) use_digits(r, f, start, (uint32_t)(end - start));
        else if (f->kind == FIELD_KEY) store_number_identity(&r->w, f, start, end);
        else use_number(r, f, entry, value, NULL);
    }
    mark_filled(r, entry);
    return DONE;
}

#endif
