/* Runs the program of an Avro schema on a record. Compiled once for each instruction set, with -DROWS_VARIANT=<name>.

   The record is in the padded scratch buffer, so a number may be read before it is known whether it is all there: each
   operation ends at or before the end of the record, or the record is malformed. Work is in proportion to the record:
   whatever is read in a loop has at least a byte, and subprograms of what has none are never called. */
#include "avro.h"
#include "values.h"
#include <stdio.h>

/* What a run of a program comes to; the last two end the record. */
enum { DONE, MALFORMED, LEFT_TO_REFERENCE };

typedef struct {
    walk w;
    const avro_program *program;
    char *p;
    uint32_t n_filled;
} avro_run;

/* A number of 1 to 10 bytes with 7 bits each, zigzag. Returns 0 if it is not one of 64 bits. */
static inline int read_long(avro_run *r, int64_t *value) {
    const unsigned char *p = (const unsigned char *)r->p;
    uint64_t n = p[0];
    if (__builtin_expect(n < 0x80, 1)) {
        r->p++;
    } else {
        n &= 0x7F;
        int i = 1;
        for (; p[i] >= 0x80 && i < 9; i++) n |= (uint64_t)(p[i] & 0x7F) << 7 * i;
        if (i == 9 && p[9] > 1) return 0;
        n |= (uint64_t)p[i] << 7 * i;
        r->p += i + 1;
    }
    *value = (int64_t)(n >> 1) ^ -(int64_t)(n & 1);
    return r->p <= r->w.end;
}

/* The bytes of a string, from *text on. */
static inline int read_bytes(avro_run *r, char **text, int64_t *length) {
    if (!read_long(r, length) || *length < 0 || *length > r->w.end - r->p) return 0;
    *text = r->p;
    r->p += *length;
    return 1;
}

static void mark_filled(avro_run *r, int32_t entry) {
    rows_decoder *d = r->w.decoder;
    if (!d->fields[entry].required || d->filled[entry] == d->serial) return;
    d->filled[entry] = d->serial;
    r->n_filled++;
}

/* A number for one use; seconds: of a moment, NULL for what is only a number. Returns 0 if it is the reference's. */
static int use_number(avro_run *r, const field *f, int32_t entry, double value, const double *seconds) {
    if (seconds == NULL || f->kind == FIELD_NUMBER) return store_number(&r->w, f, entry, value);
    for (int32_t i = 0; i < f->n_targets; i++) {
        const target *t = &f->targets[i];
        if (t->kind == TARGET_VALUE) r->w.row[t->column] = (float)value; /* of 64 bits: within float32's range */
        else if (!store_time(&r->w, t, *seconds)) return 0;
    }
    return 1;
}

/* The text of a number, which is in the buffer for texts or of the program, as identifier or category. */
static void use_digits(avro_run *r, const field *f, const char *text, uint32_t length) {
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

static int use_long(avro_run *r, int32_t entry, int64_t value, int32_t unit) {
    static const double per_second[] = {1.0, 1e3, 1e6, 1e9, 1.0};
    double seconds = unit == 4 ? (double)value * 86400.0 : (double)value / per_second[unit];
    for (const field *f = &r->w.decoder->fields[entry]; f != NULL; f = f->also) {
        if (f->kind == FIELD_NUMBER || f->kind == FIELD_DERIVED) {
            if (!use_number(r, f, entry, (double)value, unit ? &seconds : NULL)) return LEFT_TO_REFERENCE;
            continue;
        }
        char digits[64] = {0}, *out = digits + 40; /* zeros on both sides */
        uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
        do *--out = (char)('0' + rest % 10);
        while ((rest /= 10) != 0);
        if (value < 0) *--out = '-';
        use_digits(r, f, out, (uint32_t)(digits + 40 - out));
    }
    mark_filled(r, entry);
    return DONE;
}

static int use_double(avro_run *r, int32_t entry, double value) {
    int is_nan = value != value, is_filled = 0;
    for (const field *f = &r->w.decoder->fields[entry]; f != NULL; f = f->also) {
        if (f->kind == FIELD_IDENTIFIER) {
            note_fault(&r->w, OTHER_TYPE, entry);
        } else if (!is_nan) {
            is_filled = 1;
            if (f->kind == FIELD_TEXT) note_fault(&r->w, OTHER_TYPE, entry);
            else if (!use_number(r, f, entry, value, NULL)) return LEFT_TO_REFERENCE;
        }
    }
    if (is_filled) mark_filled(r, entry);
    return DONE;
}

static int use_boolean(avro_run *r, int32_t entry, int value) {
    for (const field *f = &r->w.decoder->fields[entry]; f != NULL; f = f->also) {
        if (f->kind == FIELD_IDENTIFIER) note_fault(&r->w, BOOLEAN, entry);
        else if (f->kind == FIELD_TEXT) {
            static const char words[2][24] = {"false", "true"};
            r->w.row[f->column] = code_of(f, words[value], value ? 4 : 5);
        } else if (!use_number(r, f, entry, value, NULL)) return LEFT_TO_REFERENCE;
    }
    mark_filled(r, entry);
    return DONE;
}

/* The text as a JSON string, as orjson writes it. Returns 0 if there may be no room. */
static int keep_identifier(avro_run *r, const char *text, size_t length) {
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

/* A text that is a number, or a time. */
static int use_number_text(avro_run *r, const field *f, int32_t entry, const char *text, size_t length) {
    rows_decoder *d = r->w.decoder;
    if (r->w.kept + length + PADDING_AFTER > d->scratch_capacity) return 0;
    char *copy = d->unescaped + r->w.kept; /* what follows the text in the record may be digits */
    memcpy(copy, text, length);
    memset(copy + length, 0, PADDING_AFTER);
    double value;
    return read_number(d, copy, &value) == copy + length ? store_number(&r->w, f, entry, value)
                                                         : store_text(&r->w, f, entry, copy, copy + length);
}

static int use_text(avro_run *r, int32_t entry, const char *text, size_t length) {
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
        else if (!(f->kind == FIELD_IDENTIFIER ? keep_identifier(r, text, length)
                                               : use_number_text(r, f, entry, text, length)))
            return LEFT_TO_REFERENCE;
    }
    if (is_filled) mark_filled(r, entry);
    return DONE;
}

/* A decimal of at most 18 digits; the reference reads longer ones. */
static int use_decimal(avro_run *r, int32_t entry, const char *bytes, int64_t length, int32_t scale) {
    int64_t mantissa = 0;
    if (length > 0 && (bytes[0] & 0x80)) mantissa = -1;
    for (int64_t i = 0; i < length; i++) {
        if (mantissa > INT64_MAX >> 8 || mantissa < INT64_MIN >> 8) return LEFT_TO_REFERENCE;
        mantissa = (int64_t)((uint64_t)mantissa << 8 | (unsigned char)bytes[i]);
    }
    if (mantissa > 999999999999999999 || mantissa < -999999999999999999 || scale > 18) return LEFT_TO_REFERENCE;
    /* As Python's format(.., "f") writes it: a zero has no sign, and all decimals. */
    char text[80] = {0}, *start = text + 16, *out = start;
    uint64_t rest = mantissa < 0 ? (uint64_t)-mantissa : (uint64_t)mantissa, power = 1;
    for (int32_t i = 0; i < scale; i++) power *= 10;
    if (mantissa < 0) *out++ = '-';
    out += sprintf(out, "%llu", (unsigned long long)(rest / power));
    if (scale > 0) out += sprintf(out, ".%0*llu", (int)scale, (unsigned long long)(rest % power));
    double value = 0;
    if (rest < (uint64_t)1 << 53) value = (double)mantissa / (double)power; /* both exact, so it is rounded once */
    else if (!eisel_lemire(rest, -scale, &value)) value = rows_exact_number(start);
    else value = mantissa < 0 ? -value : value;
    for (const field *f = &r->w.decoder->fields[entry]; f != NULL; f = f->also) {
        if (f->kind == FIELD_TEXT || f->kind == FIELD_IDENTIFIER) use_digits(r, f, start, (uint32_t)(out - start));
        else if (!use_number(r, f, entry, value, NULL)) return LEFT_TO_REFERENCE;
    }
    mark_filled(r, entry);
    return DONE;
}

/* The usual operations again, for fields with one use that are not required. Each does its work without a branch that
   depends on the record, and returns 0, with nothing done, for what is not usual. */

/* A number that is there or not: NaN is missing, and is stored as all other missing ones. */
static inline int plain_value(avro_run *r, int32_t column, double value, int is_there) {
    float nearest = (is_there & (value == value)) ? (float)value : __builtin_nanf("");
    if (__builtin_isinf(nearest)) return 0;
    r->w.row[column] = nearest;
    return 1;
}

/* For an OPTIONAL: how many bytes are before the value, and whether there is one. */
static inline int plain_choice(const avro_run *r, int32_t null_index, int *is_there) {
    unsigned char choice = (unsigned char)*r->p;
    *is_there = choice >> 1 != null_index;
    return (choice & ~2) == 0;
}

static inline int plain_double(avro_run *r, int32_t column, int before, int is_there) {
    double value;
    memcpy(&value, r->p + before, 8);
    char *next = r->p + before + 8 * is_there;
    if (next > r->w.end || !plain_value(r, column, value, is_there)) return 0;
    r->p = next;
    return 1;
}

static inline int plain_float(avro_run *r, int32_t column, int before, int is_there) {
    float value;
    memcpy(&value, r->p + before, 4);
    char *next = r->p + before + 4 * is_there;
    if (next > r->w.end || !plain_value(r, column, (double)value, is_there)) return 0;
    r->p = next;
    return 1;
}

/* Of at most 8 bytes. */
static inline int plain_long(avro_run *r, int32_t column, int before, int is_there) {
    uint64_t bytes = load64(r->p + before), stops = ~bytes & 0x8080808080808080u;
    if (stops == 0) return 0;
    uint64_t n = bytes & (stops ^ (stops - 1)) & 0x7F7F7F7F7F7F7F7Fu;
    n = (n & 0x007F007F007F007Fu) | (n & 0x7F007F007F007F00u) >> 1;
    n = (n & 0x00003FFF00003FFFu) | (n & 0x3FFF00003FFF0000u) >> 2;
    n = (n & 0x000000000FFFFFFFu) | (n & 0x0FFFFFFF00000000u) >> 4;
    int64_t value = (int64_t)(n >> 1) ^ -(int64_t)(n & 1);
    char *next = r->p + before + is_there * ((__builtin_ctzll(stops) >> 3) + 1);
    if (next > r->w.end) return 0;
    r->w.row[column] = is_there ? (float)(double)value : __builtin_nanf("");
    r->p = next;
    return 1;
}

/* A category of 1 to 16 bytes in ASCII. (Looking up what is not there, to save the branch, takes longer.) */
static inline int plain_text(avro_run *r, const field *f, int before, int is_there) {
    char *p = r->p + before;
    uint32_t length = (unsigned char)*p >> 1;
    uint64_t low, high;
    if (!is_there) {
        if (p > r->w.end) return 0;
        r->p = p;
        return 1;
    }
    if ((*p & 1) != 0 || length - 1 > 15) return 0;
    short_text_head(p + 1, length, &low, &high);
    if (((low | high) & 0x8080808080808080u) != 0 || p + 1 + length > r->w.end) return 0;
    int32_t found = text_find_hashed(&f->vocabulary, p + 1, length, low, high,
                                     text_hash(p + 1, length, low, high, f->vocabulary.seed));
    r->w.row[f->column] = found < 0 ? f->unknown_code : f->codes[found];
    r->p = p + 1 + length;
    return 1;
}

static int run(avro_run *r, int32_t at, int32_t depth);

/* An item, with the place of its program. */
static inline int run_place(avro_run *r, int32_t place, int32_t depth) {
    return run(r, r->program->places[place], depth);
}

/* A key of a map that is known. */
static void meet(avro_run *r, int32_t entry) {
    rows_decoder *d = r->w.decoder;
    if (d->seen[entry] == d->serial) note_fault(&r->w, REPEATED_KEY, entry);
    d->seen[entry] = d->serial;
}

/* An array or a map: blocks of items. `of` says which. */
static int run_blocks(avro_run *r, const avro_operation *of, int32_t depth) {
    const avro_program *program = r->program;
    const int32_t *pairs = program->places + of->a; /* ELEMENTS */
    int64_t index = 0, count;
    int32_t next = 0;
    if (depth >= MAX_DEPTH) {
        r->w.result->code = TOO_DEEP;
        return MALFORMED;
    }
    for (;;) {
        if (!read_long(r, &count)) return MALFORMED;
        if (count == 0) return DONE;
        if (count < 0) {
            int64_t size;
            if (!read_long(r, &size)) return MALFORMED;
            count = count == INT64_MIN ? INT64_MAX : -count;
        }
        if (of->code == BLOCKS && of->a < 0) continue; /* items without bytes */
        if (count > r->w.end - r->p) return MALFORMED;
        for (; count > 0; count--, index++) {
            int32_t place = of->a;
            char *text;
            int64_t length;
            if ((of->code == KEYS || (of->code == BLOCKS && of->b)) && !read_bytes(r, &text, &length)) return MALFORMED;
            if (of->code == ELEMENTS) {
                int is_known = next < of->b && pairs[2 * next] == index;
                place = is_known ? pairs[2 * next++ + 1] : of->c;
            } else if (of->code == KEYS) {
                int32_t known = text_find(&program->keys[of->a], text, (uint32_t)length);
                place = known < 0 ? of->b : program->programs[of->a][2 * known];
                if (known >= 0) meet(r, program->programs[of->a][2 * known + 1]);
            }
            int outcome = run_place(r, place, depth + 1);
            if (outcome != DONE) return outcome;
        }
    }
}

static int run(avro_run *r, int32_t at, int32_t depth) {
    const avro_program *program = r->program;
    const field *fields = r->w.decoder->fields;
    const char *end = r->w.end;
    for (;; at++) {
        const avro_operation *op = &program->special[at];
        int64_t number;
        char *text;
        int outcome = DONE, is_there;
    again:
        switch (op->code) {
        case OPTIONAL_DOUBLE:
            if (!plain_choice(r, op->a, &is_there) || !plain_double(r, op->c, 1, is_there)) goto general;
            at++;
            continue;
        case OPTIONAL_FLOAT:
            if (!plain_choice(r, op->a, &is_there) || !plain_float(r, op->c, 1, is_there)) goto general;
            at++;
            continue;
        case OPTIONAL_LONG:
            if (!plain_choice(r, op->a, &is_there) || !plain_long(r, op->c, 1, is_there)) goto general;
            at++;
            continue;
        case OPTIONAL_TEXT:
            if (!plain_choice(r, op->a, &is_there) || !plain_text(r, &fields[op->b], 1, is_there)) goto general;
            at++;
            continue;
        case OPTIONAL_BYTES:
            if (!plain_choice(r, op->a, &is_there) || end - r->p - 1 < op->b) goto general;
            r->p += 1 + is_there * op->b;
            at++;
            continue;
        case PLAIN_DOUBLE:
            if (!plain_double(r, op->c, 0, 1)) goto general;
            continue;
        case PLAIN_FLOAT:
            if (!plain_float(r, op->c, 0, 1)) goto general;
            continue;
        case PLAIN_LONG:
            if (!plain_long(r, op->c, 0, 1)) goto general;
            continue;
        case PLAIN_TEXT:
            if (!plain_text(r, &fields[op->a], 0, 1)) goto general;
            continue;
        case END: return DONE;
        case SKIP_LONGS:
            for (int32_t i = 0; i < op->a; i++)
                if (!read_long(r, &number)) return MALFORMED;
            break;
        case SKIP_BYTES:
            if (op->a > end - r->p) return MALFORMED;
            r->p += op->a;
            break;
        case SKIP_STRINGS:
            for (int32_t i = 0; i < op->a; i++)
                if (!read_bytes(r, &text, &number)) return MALFORMED;
            break;
        case SKIP_ENUM:
            if (!read_long(r, &number) || number < 0 || number >= op->a) return MALFORMED;
            break;
        case OPTIONAL:
            if (!read_long(r, &number) || (number & ~1) != 0) return MALFORMED;
            if (number == op->a) at = op->b - 1;
            break;
        case UNION:
            if (!read_long(r, &number) || number < 0 || number >= op->a) return MALFORMED;
            at = program->places[op->b + number] - 1;
            break;
        case JUMP: at = op->a - 1; break;
        case BLOCKS:
        case ELEMENTS:
        case KEYS: outcome = run_blocks(r, op, depth + op->levels); break;
        case CALL:
            if (depth + op->levels >= MAX_DEPTH) {
                r->w.result->code = TOO_DEEP;
                return MALFORMED;
            }
            outcome = run_place(r, op->a, depth + op->levels + 1);
            break;
        case LONG:
            if (!read_long(r, &number)) return MALFORMED;
            outcome = use_long(r, op->a, number, op->b);
            break;
        case FLOAT: {
            float value;
            if (end - r->p < 4) return MALFORMED;
            memcpy(&value, r->p, 4);
            r->p += 4;
            outcome = use_double(r, op->a, (double)value);
            break;
        }
        case DOUBLE: {
            double value;
            if (end - r->p < 8) return MALFORMED;
            memcpy(&value, r->p, 8);
            r->p += 8;
            outcome = use_double(r, op->a, value);
            break;
        }
        case BOOL:
            if (r->p >= end) return MALFORMED;
            outcome = use_boolean(r, op->a, *r->p++ != 0);
            break;
        case STRING:
            if (!read_bytes(r, &text, &number)) return MALFORMED;
            outcome = use_text(r, op->a, text, (size_t)number);
            break;
        case ENUM: {
            if (!read_long(r, &number) || number < 0 || number >= op->c) return MALFORMED;
            int64_t symbol = op->b + number;
            int32_t start = symbol == 0 ? 0 : program->text_ends[symbol - 1];
            outcome = use_text(r, op->a, program->texts + start, (size_t)(program->text_ends[symbol] - start));
            break;
        }
        case DECIMAL:
            if (op->b < 0) {
                if (!read_bytes(r, &text, &number)) return MALFORMED;
            } else {
                if (op->b > end - r->p) return MALFORMED;
                text = r->p;
                number = op->b;
                r->p += number;
            }
            outcome = use_decimal(r, op->a, text, number, op->c);
            break;
        case FAULT: note_fault(&r->w, op->a, op->b); break;
        default: return MALFORMED;
        }
        if (outcome != DONE) return outcome;
        continue;
    general: /* what is not usual, or beyond the end: as the operation says that it stands for */
        op = &program->operations[at];
        goto again;
    }
}

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

int JOIN(rows_decode_avro_, ROWS_VARIANT)(rows_decoder *d, const avro_program *program, size_t start, size_t length,
                                          float *row, record_result *result) {
    char *record = d->scratch + PADDING_BEFORE;
    *result = (record_result){.code = NO_FAULT, .entry = -1};
    avro_run r = {{.decoder = d, .record = record, .end = record + length, .row = row, .result = result},
                  program,
                  record + start,
                  0};
    memcpy(row, d->blank_row, (size_t)d->width * sizeof *row);
    if (++d->serial == 0) {
        memset(d->filled, 0, (size_t)d->n_fields * sizeof *d->filled);
        memset(d->seen, 0, ((size_t)d->n_fields + (size_t)d->n_branches) * sizeof *d->seen);
        d->serial = 1;
    }
    int outcome = run(&r, 0, 0);
    if (outcome == LEFT_TO_REFERENCE) return HAND_OVER;
    if (outcome == MALFORMED || r.p != r.w.end) {
        int is_deep = outcome == MALFORMED && result->code == TOO_DEEP;
        *result = (record_result){.code = is_deep ? TOO_DEEP : NOT_AVRO, .entry = -1};
        return REJECTED;
    }
    if (result->code == NO_FAULT && r.n_filled != d->n_required) note_missing(&r.w);
    return result->code == NO_FAULT ? ACCEPTED : REJECTED;
}
