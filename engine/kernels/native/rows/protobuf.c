/* Reads a Protocol Buffers message by tables. Compiled once for each instruction set, with -DROWS_VARIANT=<name>.

   First the message is read, and each value that is needed kept in a cell, as upb keeps it in a message: a later value
   replaces an earlier one, messages are merged, a member of a oneof ends the others. A cell holds a value of this
   record if it carries the decoder's serial number. Then the cells are used in the order of the contract.

   The record is in the padded scratch buffer: a number may be read before it is known whether it is all there. */
#include "protobuf.h"
#include "uses.h"

#define DEEPEST 100 /* messages and groups; upb's limit */

static inline const proto_program *program_of(const binary_run *r) { return r->program; }

/* At most 10 bytes; what is beyond 64 bits is lost, as in upb. */
static inline int read_varint(binary_run *r, const char *end, uint64_t *value) {
    const unsigned char *p = (const unsigned char *)r->p;
    uint64_t n = p[0];
    if (__builtin_expect(n < 0x80, 1)) {
        r->p++;
    } else {
        n &= 0x7F;
        int i = 1;
        for (;; i++) {
            if (i == 10) return 0;
            n |= (uint64_t)(p[i] & 0x7F) << (7 * i & 63);
            if (p[i] < 0x80) break;
        }
        r->p += i + 1;
    }
    *value = n;
    return r->p <= end;
}

/* A tag, of at most 5 bytes and 32 bits; in an unknown group also one of the number 0, as in upb. */
static inline int read_any_tag(binary_run *r, const char *end, uint32_t *tag) {
    const char *start = r->p;
    uint64_t value;
    if (!read_varint(r, end, &value) || r->p - start > 5 || value > UINT32_MAX) return 0;
    *tag = (uint32_t)value;
    return 1;
}

static inline int read_tag(binary_run *r, const char *end, uint32_t *tag) {
    return read_any_tag(r, end, tag) && *tag >> 3 != 0;
}

static inline int read_size(binary_run *r, const char *end, int64_t *size) {
    const char *start = r->p;
    uint64_t value;
    if (!read_varint(r, end, &value) || r->p - start > 5 || value > INT32_MAX || (int64_t)value > end - r->p) return 0;
    *size = (int64_t)value;
    return 1;
}

/* An unknown field behind its tag. */
static int skip_field(binary_run *r, const char *end, uint32_t tag, int depth) {
    uint64_t number;
    int64_t size;
    switch (tag & 7) {
    case 0: return read_varint(r, end, &number);
    case 1: r->p += 8; return r->p <= end;
    case 2:
        if (!read_size(r, end, &size)) return 0;
        r->p += size;
        return 1;
    case 3:
        if (depth >= DEEPEST) return 0;
        for (uint32_t inner; r->p < end;) {
            if (!read_any_tag(r, end, &inner)) return 0;
            if ((inner & 7) == 4) return inner >> 3 == tag >> 3;
            if (!skip_field(r, end, inner, depth + 1)) return 0;
        }
        return 0;
    case 5: r->p += 4; return r->p <= end;
    default: return 0;
    }
}

static inline const proto_action *action_of(const proto_program *program, int32_t table, uint32_t number) {
    if (__builtin_expect(number <= LAST_DENSE, 1)) {
        int32_t action = program->dense[(size_t)table * (LAST_DENSE + 1) + number];
        return action < 0 ? NULL : &program->actions[action];
    }
    const proto_action *actions = program->actions + program->tables[table].first_action;
    uint32_t n = (uint32_t)program->tables[table].n_actions, low = 0, high = n;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if ((uint32_t)actions[middle].number < number) low = middle + 1;
        else high = middle;
    }
    return low < n && (uint32_t)actions[low].number == number ? &actions[low] : NULL;
}

static inline proto_cell *cell_of(binary_run *r, int32_t cell) { return &r->w.decoder->cells[cell]; }

static inline int is_there(const binary_run *r, int32_t cell) {
    return r->w.decoder->cells[cell].serial == r->w.decoder->serial;
}

static void clear(binary_run *r, int32_t first, int32_t n) {
    const int32_t *cells = program_of(r)->places + first;
    for (int32_t i = 0; i < n; i++) cell_of(r, cells[i])->serial = 0;
}

static void keep(binary_run *r, int32_t cell, uint64_t bits, int64_t length) {
    *cell_of(r, cell) = (proto_cell){bits, (uint32_t)length, r->w.decoder->serial};
}

/* Where a number is among ascending ones; -1 if it is not. */
static int32_t place_of(const int32_t *numbers, int32_t n, int32_t number) {
    int32_t low = 0, high = n;
    while (low < high) {
        int32_t middle = (low + high) / 2;
        if (numbers[middle] < number) low = middle + 1;
        else high = middle;
    }
    return low < n && numbers[low] == number ? low : -1;
}

/* Is the number one of a closed enum? (Of no numbers: the enum is open.) */
static int is_value(const binary_run *r, int32_t first, int32_t n, int32_t number) {
    return n == 0 || place_of(program_of(r)->places + first, n, number) >= 0;
}

static int wire_of(int32_t kind) {
    switch (kind) {
    case PROTO_DOUBLE:
    case PROTO_FIXED64:
    case PROTO_SFIXED64: return 1;
    case PROTO_FLOAT:
    case PROTO_FIXED32:
    case PROTO_SFIXED32: return 5;
    case PROTO_STRING:
    case PROTO_TEXT:
    case PROTO_BYTES:
    case PROTO_MESSAGE: return 2;
    default: return 0;
    }
}

/* The bits of a value that is no message, of a string where it is in the record; 0 if it is malformed. */
static inline int read_scalar(binary_run *r, const char *end, int32_t kind, uint64_t *bits, int64_t *length) {
    *length = 0;
    switch (wire_of(kind)) {
    case 0: return read_varint(r, end, bits);
    case 1:
        if (end - r->p < 8) return 0;
        *bits = load64(r->p);
        r->p += 8;
        return 1;
    case 5: {
        uint32_t word;
        if (end - r->p < 4) return 0;
        memcpy(&word, r->p, 4);
        *bits = word;
        r->p += 4;
        return 1;
    }
    default:
        if (!read_size(r, end, length)) return 0;
        *bits = (uint64_t)(r->p - r->w.record);
        const unsigned char *text = (const unsigned char *)r->p;
        r->p += *length;
        return kind != PROTO_TEXT || valid_utf8(text, text + *length);
    }
}

static int read_message(binary_run *r, int32_t table, const char *end, int depth);

/* The pair of an element's index, if one is needed: pairs are in the order of their indices. */
static const int32_t *pair_of(const binary_run *r, const proto_action *a, uint64_t index) {
    const int32_t *pairs = program_of(r)->places + a->first_pair;
    for (int32_t i = 0; i < a->n_pairs; i++, pairs += PAIR)
        if ((uint64_t)pairs[0] == index) return pairs;
    return NULL;
}

/* The index of the next element of an array. */
static uint64_t next_index(binary_run *r, int32_t cell) {
    proto_cell *count = cell_of(r, cell);
    if (count->serial != r->w.decoder->serial) *count = (proto_cell){0, 0, r->w.decoder->serial};
    return count->bits++;
}

static int read_element(binary_run *r, const proto_action *a, const char *end, int depth) {
    if (a->element == PROTO_MESSAGE) {
        int64_t size;
        if (!read_size(r, end, &size)) return 0;
        const int32_t *pair = pair_of(r, a, next_index(r, a->cell));
        if (pair != NULL) keep(r, pair[1], 0, 0);
        return read_message(r, pair == NULL ? a->table : pair[2], r->p + size, depth + 1);
    }
    uint64_t bits;
    int64_t length;
    if (!read_scalar(r, end, a->element, &bits, &length)) return 0;
    if (a->element == PROTO_ENUM && !is_value(r, a->first_number, a->n_numbers, (int32_t)bits)) return 1;
    const int32_t *pair = pair_of(r, a, next_index(r, a->cell));
    if (pair != NULL) keep(r, pair[1], bits, length);
    return 1;
}

static int read_elements(binary_run *r, const proto_action *a, const char *end, uint32_t tag, int depth) {
    if ((tag & 7) == (uint32_t)wire_of(a->element)) return read_element(r, a, end, depth);
    int64_t size; /* packed: only what is no string and no message */
    if (!read_size(r, end, &size)) return 0;
    const char *last = r->p + size;
    while (r->p < last)
        if (!read_element(r, a, last, depth)) return 0;
    return r->p == last;
}

/* The text of a key, as the paths of a contract have it. */
static const char *key_text(const binary_run *r, int32_t kind, uint64_t bits, int64_t length, char digits[64],
                            uint32_t *text_length) {
    if (kind == PROTO_STRING || kind == PROTO_TEXT) {
        *text_length = (uint32_t)length;
        return r->w.record + bits;
    }
    memset(digits, 0, 64);
    if (kind == PROTO_BOOL) {
        strcpy(digits, bits ? "true" : "false");
        *text_length = bits ? 4 : 5;
        return digits;
    }
    switch (kind) {
    case PROTO_INT32:
    case PROTO_SFIXED32: bits = (uint64_t)(int64_t)(int32_t)bits; break;
    case PROTO_UINT32:
    case PROTO_FIXED32: bits = (uint32_t)bits; break;
    case PROTO_SINT32: bits = (uint64_t)(int64_t)((int32_t)((uint32_t)bits >> 1) ^ -(int32_t)(bits & 1)); break;
    case PROTO_SINT64: bits = (bits >> 1) ^ -(bits & 1); break;
    default: break;
    }
    int is_unsigned = kind == PROTO_UINT32 || kind == PROTO_FIXED32 || kind == PROTO_UINT64 || kind == PROTO_FIXED64;
    *text_length = (uint32_t)(is_unsigned ? sprintf(digits, "%llu", (unsigned long long)bits)
                                          : sprintf(digits, "%lld", (long long)bits));
    return digits;
}

/* An entry of a map: a message of key and value, the last of each counts; messages as values are merged. A key that was
   there before gets the new value. */
static int read_entry(binary_run *r, const proto_action *a, const char *end, int depth) {
    char *start = r->p, digits[64];
    uint64_t key = 0, bits = 0;
    int64_t key_length = 0, length = 0;
    uint32_t tag;
    if (depth >= DEEPEST) return 0;
    int has_key = 0, is_unknown = 0; /* to upb, an entry with an unknown field is one */
    /* Once for the key and to see that all is well, once for the value. */
    while (r->p < end) {
        if (!read_tag(r, end, &tag)) return 0;
        int is_key = tag == (1u << 3 | (uint32_t)wire_of(a->key)),
            is_value_field = tag == (2u << 3 | (uint32_t)wire_of(a->element));
        if (is_key) {
            if (!read_scalar(r, end, a->key, &key, &key_length)) return 0;
            has_key = 1;
        } else if (is_value_field && a->element == PROTO_MESSAGE) {
            int64_t size;
            if (!read_size(r, end, &size)) return 0;
            if (!read_message(r, a->table, r->p + size, depth + 1)) return 0;
        } else if (is_value_field) {
            if (!read_scalar(r, end, a->element, &bits, &length)) return 0;
            if (a->element == PROTO_ENUM) is_unknown |= !is_value(r, a->first_number, a->n_numbers, (int32_t)bits);
        } else {
            if (!skip_field(r, end, tag, depth)) return 0;
            is_unknown = 1;
        }
    }
    if (is_unknown) return 1;
    uint32_t text_length;
    if (!has_key) key = (uint64_t)(r->p - r->w.record);
    if (!has_key && a->key != PROTO_STRING && a->key != PROTO_TEXT) key = 0;
    const char *text = key_text(r, a->key, key, key_length, digits, &text_length);
    int32_t known = text_find(&program_of(r)->keys[a->keys], text, text_length);
    if (known < 0) return 1;
    const int32_t *pair = program_of(r)->places + a->first_pair + PAIR * known;
    clear(r, pair[3], pair[4]);
    keep(r, pair[1], bits, length);
    if (a->element != PROTO_MESSAGE) return 1;
    for (r->p = start; r->p < end;) {
        int64_t size;
        if (!read_tag(r, end, &tag)) return 0;
        if (tag != (2u << 3 | 2)) {
            if (!skip_field(r, end, tag, depth)) return 0;
            continue;
        }
        if (!read_size(r, end, &size) || !read_message(r, pair[2], r->p + size, depth + 1)) return 0;
    }
    return 1;
}

/* A field that is needed, or a member of a oneof. */
static int read_field(binary_run *r, const proto_action *a, const char *end, uint32_t tag, int depth) {
    if (a->kind == PROTO_ELEMENTS) return read_elements(r, a, end, tag, depth);
    if (a->kind == PROTO_MAP || a->kind == PROTO_MESSAGE) {
        int64_t size;
        if (!read_size(r, end, &size)) return 0;
        if (a->n_clear) clear(r, a->first_clear, a->n_clear);
        if (a->kind == PROTO_MESSAGE) keep(r, a->cell, 0, 0);
        const char *inner = r->p + size;
        return a->kind == PROTO_MAP ? read_entry(r, a, inner, depth + 1) : read_message(r, a->table, inner, depth + 1);
    }
    uint64_t bits;
    int64_t length;
    if (!read_scalar(r, end, a->kind, &bits, &length)) return 0;
    if (a->kind == PROTO_ENUM && !is_value(r, a->first_number, a->n_numbers, (int32_t)bits)) return 1;
    if (a->n_clear) clear(r, a->first_clear, a->n_clear);
    keep(r, a->cell, bits, length);
    return 1;
}

/* The number that the bits of a value are. */
static inline double number_of(int32_t kind, uint64_t bits) {
    double real;
    float single;
    uint32_t word = (uint32_t)bits;
    switch (kind) {
    case PROTO_DOUBLE: memcpy(&real, &bits, 8); return real;
    case PROTO_FLOAT: memcpy(&single, &word, 4); return (double)single;
    case PROTO_INT32:
    case PROTO_SFIXED32: return (double)(int32_t)bits;
    case PROTO_INT64:
    case PROTO_SFIXED64: return (double)(int64_t)bits;
    case PROTO_UINT32:
    case PROTO_FIXED32: return (double)word;
    case PROTO_UINT64:
    case PROTO_FIXED64: return (double)bits;
    case PROTO_SINT32: return (double)((int32_t)(word >> 1) ^ -(int32_t)(word & 1));
    case PROTO_SINT64: return (double)((int64_t)(bits >> 1) ^ -(int64_t)(bits & 1));
    default: return bits != 0;
    }
}

/* A number that goes to its column at once. Whether one beyond float32 stays there, and which fault comes first, shows
   at the end. */
static inline void put_number(binary_run *r, const proto_action *a, uint64_t bits) {
    double value = number_of(a->kind, bits);
    float nearest = value == value ? (float)value : __builtin_nanf("");
    r->is_odd |= __builtin_isinf(nearest) != 0;
    r->w.row[a->column] = nearest;
}

/* A category that goes to its column at once. */
static inline void put_text(binary_run *r, const proto_action *a, const char *text, uint32_t length) {
    const field *f = &r->w.decoder->fields[a->first_pair];
    int32_t found = text_find(&f->vocabulary, text, length);
    r->w.row[a->column] = found < 0 ? f->unknown_code : f->codes[found];
}

/* The same of 1 to 16 bytes in ASCII, the usual case. */
static inline int put_short_text(binary_run *r, const proto_action *a, const char *text, int64_t length) {
    uint64_t low, high;
    if ((uint64_t)length - 1 > 15) return 0;
    short_text_head(text, (uint32_t)length, &low, &high);
    if (((low | high) & 0x8080808080808080u) != 0) return 0;
    const field *f = &r->w.decoder->fields[a->first_pair];
    int32_t found = text_find_hashed(&f->vocabulary, text, (uint32_t)length, low, high,
                                     text_hash(text, (uint32_t)length, low, high, f->vocabulary.seed));
    r->w.row[a->column] = found < 0 ? f->unknown_code : f->codes[found];
    return 1;
}

static int read_message(binary_run *r, int32_t table, const char *end, int depth) {
    const proto_program *program = program_of(r);
    proto_cell *cells = r->w.decoder->cells;
    uint32_t serial = r->w.decoder->serial;
    if (depth > DEEPEST) return 0;
    while (r->p < end) {
        const unsigned char *p = (const unsigned char *)r->p;
        uint32_t tag = p[0];
        if (tag < 0x80 && tag >= 8) {
            r->p++;
        } else if (tag >= 0x80 && p[1] < 0x80 && p[1] > 0) {
            tag = (tag & 0x7F) | (uint32_t)p[1] << 7;
            r->p += 2;
        } else if (!read_tag(r, end, &tag)) return 0;
        const proto_action *a = action_of(program, table, tag >> 3);
        uint32_t wire = tag & 7;
        int is_packed = a != NULL && a->kind == PROTO_ELEMENTS && wire == 2 && a->wire != 2;
        if (a == NULL || (wire != (uint32_t)a->wire && !is_packed)) {
            if (r->p > end || !skip_field(r, end, tag, depth)) return 0;
            continue;
        }
        if (a->n_clear != 0 || a->kind > PROTO_TEXT) {
            if (r->p > end || !read_field(r, a, end, tag, depth)) return 0;
            continue;
        }
        uint64_t bits;
        int64_t size = 0;
        if (wire == 1) {
            bits = load64(r->p);
            r->p += 8;
        } else if (wire == 2) {
            if (r->p > end || !read_size(r, end, &size)) return 0;
            const char *text = r->p;
            bits = (uint64_t)(text - r->w.record);
            r->p += size;
            if (a->column >= 0 && put_short_text(r, a, text, size)) continue;
            if (a->kind == PROTO_TEXT && !valid_utf8((const unsigned char *)text, (const unsigned char *)r->p))
                return 0;
            if (a->column >= 0) {
                put_text(r, a, text, (uint32_t)size);
                continue;
            }
        } else if (wire == 5) {
            bits = (uint32_t)load64(r->p);
            r->p += 4;
        } else if (!read_varint(r, end, &bits)) return 0;
        if (a->column >= 0) put_number(r, a, bits);
        else cells[a->cell] = (proto_cell){bits, (uint32_t)size, serial};
    }
    return r->p == end;
}

static int use_signed(binary_run *r, int32_t slot, int64_t value) {
    return use_whole(r, slot, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, value < 0, NULL);
}

static int use_enum(binary_run *r, const proto_final *f, int32_t number) {
    const proto_program *program = program_of(r);
    int32_t place = place_of(program->places + f->first_number, f->n_numbers, number);
    if (place < 0) return use_signed(r, f->slot, number);
    int32_t text = f->first_text + place, start = text == 0 ? 0 : program->text_ends[text - 1];
    return use_text(r, f->slot, program->texts + start, (size_t)(program->text_ends[text] - start));
}

static int use_time(binary_run *r, const proto_final *f, uint64_t seconds) {
    int32_t nanos = is_there(r, f->first_number) ? (int32_t)cell_of(r, f->first_number)->bits : 0;
    double value = (double)(int64_t)seconds + (double)nanos / 1e9;
    for (const field *one = &r->w.decoder->fields[f->slot]; one != NULL; one = one->also) {
        if (one->kind == FIELD_NUMBER || one->kind == FIELD_DERIVED) {
            use_number(r, one, f->slot, value, &value);
        } else note_fault(&r->w, OTHER_TYPE, f->slot);
    }
    mark_filled(r, f->slot);
    return DONE;
}

static int use_final(binary_run *r, const proto_final *f) {
    if (f->inside >= 0 && !is_there(r, f->inside)) return DONE;
    const proto_cell *cell = cell_of(r, f->cell);
    int has_value = is_there(r, f->cell);
    if (!has_value && f->has_presence) return DONE;
    uint64_t bits = has_value ? cell->bits : 0;
    switch (f->kind) {
    case PROTO_DOUBLE: {
        double value;
        memcpy(&value, &bits, 8);
        return use_double(r, f->slot, value);
    }
    case PROTO_FLOAT: {
        float value;
        uint32_t word = (uint32_t)bits;
        memcpy(&value, &word, 4);
        return use_double(r, f->slot, (double)value);
    }
    case PROTO_INT32:
    case PROTO_SFIXED32: return use_signed(r, f->slot, (int32_t)bits);
    case PROTO_INT64:
    case PROTO_SFIXED64: return use_signed(r, f->slot, (int64_t)bits);
    case PROTO_SINT32: return use_signed(r, f->slot, (int32_t)((uint32_t)bits >> 1) ^ -(int32_t)(bits & 1));
    case PROTO_SINT64: return use_signed(r, f->slot, (int64_t)((bits >> 1) ^ -(bits & 1)));
    case PROTO_UINT32:
    case PROTO_FIXED32: return use_whole(r, f->slot, (uint32_t)bits, 0, NULL);
    case PROTO_UINT64:
    case PROTO_FIXED64: return use_whole(r, f->slot, bits, 0, NULL);
    case PROTO_BOOL: return use_boolean(r, f->slot, bits != 0);
    case PROTO_STRING:
    case PROTO_TEXT: return use_text(r, f->slot, r->w.record + bits, has_value ? cell->length : 0);
    case PROTO_ENUM: return use_enum(r, f, (int32_t)bits);
    case PROTO_TIME: return use_time(r, f, bits);
    default: return LEFT_TO_REFERENCE;
    }
}

/* The same, or a look at a value that went to its column already. */
static int use_any(binary_run *r, const proto_final *f) {
    if (f->slot >= 0) return use_final(r, f);
    int32_t slot = ~f->slot;
    if (__builtin_isinf(r->w.row[r->w.decoder->fields[slot].column])) note_fault(&r->w, OUT_OF_RANGE, slot);
    return DONE;
}

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

int JOIN(rows_decode_protobuf_, ROWS_VARIANT)(rows_decoder *d, const proto_program *program, size_t start,
                                              size_t length, float *row, record_result *result) {
    binary_run r = start_run(d, program, start, length, row, program->blank_row, result);
    if (!read_message(&r, 0, r.w.end, 0)) {
        *result = (record_result){.code = NOT_PROTOBUF, .entry = -1};
        return REJECTED;
    }
    if (r.is_odd) {
        for (int32_t i = 0; i < program->n_all; i++)
            if (use_any(&r, &program->all[i]) != DONE) return HAND_OVER;
    } else
        for (int32_t i = 0; i < program->n_finals; i++)
            if (use_final(&r, &program->finals[i]) != DONE) return HAND_OVER;
    if (result->code == NO_FAULT && r.n_filled != d->n_required) note_missing(&r.w);
    return result->code == NO_FAULT ? ACCEPTED : REJECTED;
}
