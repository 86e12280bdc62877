/* Runs the program of an Avro schema on a record. Compiled once for each instruction set, with -DROWS_VARIANT=<name>.

   The record is in the padded scratch buffer, so a number may be read before it is known whether it is all there: each
   operation ends at or before the end of the record, or the record is malformed. Work is in proportion to the record:
   whatever is read in a loop has at least a byte, and subprograms of what has none are never called. */
#include "avro.h"
#include "uses.h"

/* A number of 1 to 10 bytes with 7 bits each, zigzag. Returns 0 if it is not one of 64 bits. */
static inline int read_long(binary_run *r, int64_t *value) {
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
static inline int read_bytes(binary_run *r, char **text, int64_t *length) {
    if (!read_long(r, length) || *length < 0 || *length > r->w.end - r->p) return 0;
    *text = r->p;
    r->p += *length;
    return 1;
}

/* The usual operations again, for fields with one use that are not required. Each does its work without a branch that
   depends on the record, and returns 0, with nothing done, for what is not usual. */

/* A number that is there or not: NaN is missing, and is stored as all other missing ones. */
static inline int plain_value(binary_run *r, int32_t column, double value, int is_there) {
    float nearest = (is_there & (value == value)) ? (float)value : __builtin_nanf("");
    if (__builtin_isinf(nearest)) return 0;
    r->w.row[column] = nearest;
    return 1;
}

/* For an OPTIONAL: how many bytes are before the value, and whether there is one. */
static inline int plain_choice(const binary_run *r, int32_t null_index, int *is_there) {
    unsigned char choice = (unsigned char)*r->p;
    *is_there = choice >> 1 != null_index;
    return (choice & ~2) == 0;
}

static inline int plain_double(binary_run *r, int32_t column, int before, int is_there) {
    double value;
    memcpy(&value, r->p + before, 8);
    char *next = r->p + before + 8 * is_there;
    if (next > r->w.end || !plain_value(r, column, value, is_there)) return 0;
    r->p = next;
    return 1;
}

static inline int plain_float(binary_run *r, int32_t column, int before, int is_there) {
    float value;
    memcpy(&value, r->p + before, 4);
    char *next = r->p + before + 4 * is_there;
    if (next > r->w.end || !plain_value(r, column, (double)value, is_there)) return 0;
    r->p = next;
    return 1;
}

/* Of at most 8 bytes. */
static inline int plain_long(binary_run *r, int32_t column, int before, int is_there) {
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
static inline int plain_text(binary_run *r, const field *f, int before, int is_there) {
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

static int run(binary_run *r, int32_t at, int32_t depth);

/* An item, with the place of its program. */
static inline int run_place(binary_run *r, int32_t place, int32_t depth) {
    return run(r, ((const avro_program *)r->program)->places[place], depth);
}

/* A key of a map that is known. */
static void meet(binary_run *r, int32_t entry) {
    rows_decoder *d = r->w.decoder;
    if (d->seen[entry] == d->serial) note_fault(&r->w, REPEATED_KEY, entry);
    d->seen[entry] = d->serial;
}

/* An array or a map: blocks of items. `of` says which. */
static int run_blocks(binary_run *r, const avro_operation *of, int32_t depth) {
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

static int run(binary_run *r, int32_t at, int32_t depth) {
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
    binary_run r = start_run(d, program, start, length, row, d->blank_row, result);
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
