/* The native row decoder: types shared by its parts. Pure C, no Python: decoder_type.c and encode.c know Python.

   One decoder is built from one contract, is used by one thread, and owns everything that it points to.

       record (bytes) --copy--> scratch, padded --parse.c--> one float32 row, or a rejection, or "hand over"
                                                  |    ^
                                     what was seen|    |the expected order of the keys
                                                  +-> learn.c

   The copy into a padded scratch buffer (2 % of the time) is what makes every read safe: the padding is zero bytes,
   which no JSON token contains, so each scan stops there and no loop tests for the end of the record. */
#ifndef ROWS_H
#define ROWS_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that may be read (and are zero) after a record, and written before it. */
#define PADDING_AFTER 64
#define PADDING_BEFORE 64

#define MAX_DEPTH 64 /* engine/records/rejection.py; a nesting is tracked in the bits of one word */

/* What is done with a value. FIELD_KEY: its identity is an input of velocity features. The last four are kinds of steps
   only: a field with several readers, an object on a path and its end, and an array on a path. */
enum field_kind {
    FIELD_UNKNOWN,
    FIELD_NUMBER,
    FIELD_TEXT,
    FIELD_IDENTIFIER,
    FIELD_DERIVED,
    FIELD_KEY,
    FIELD_SHARED,
    FIELD_OPEN,
    FIELD_CLOSE,
    FIELD_ARRAY
};

/* What one column, or input of velocity features (the last two), takes from a number or a time; only FIELD_DERIVED
   fields have more than the plain value. */
enum target_kind {
    TARGET_VALUE,
    TARGET_HOUR_OF_DAY,
    TARGET_DAY_OF_WEEK,
    TARGET_SECONDS,
    TARGET_INPUT_VALUE,
    TARGET_INPUT_TIME
};

/* In the order of BY_NUMBER in engine/records/rejection.py. The other faults are found by the reference only. */
enum fault {
    EMPTY,
    BOOLEAN,
    NESTED,
    NOT_A_NUMBER,
    OUT_OF_RANGE,
    REPEATED_KEY,
    MISSING_REQUIRED,
    MISSING_IDENTIFIER,
    NOT_A_TIME,
    NOT_AN_OBJECT,
    NOT_AN_ARRAY,
    OTHER_TYPE,
    NOT_TEXT,
    NOT_AVRO,
    TOO_DEEP,
    NOT_FRAMED,
    NOT_PROTOBUF,
    NO_FAULT = -1
};

enum outcome { ACCEPTED, REJECTED, HAND_OVER };

/* Text -> number, built once, never changed: a perfect hash (hash and displace), so a lookup is one probe. */
typedef struct {
    uint64_t low, high; /* the first 16 bytes, zero-padded */
    const char *text;   /* all of it, for texts longer than 16 bytes */
    uint32_t length;
    int32_t value; /* -1: no text here */
} text_entry;

typedef struct {
    text_entry *entries;
    uint16_t *displacements;
    char *texts;
    uint64_t seed;
    uint32_t entry_mask, bucket_mask;
} text_table;

typedef struct {
    int32_t column;    /* or word of the inputs */
    int32_t kind;      /* enum target_kind */
    double per_second; /* of a time that is a number */
} target;

typedef struct field {
    int32_t kind;      /* enum field_kind, up to FIELD_KEY */
    int32_t step_kind; /* the same, or FIELD_SHARED */
    int32_t required;
    int32_t column;    /* FIELD_NUMBER and FIELD_TEXT; FIELD_KEY: the first of two words of the inputs */
    int32_t n_targets; /* FIELD_DERIVED */
    target *targets;
    text_table vocabulary; /* FIELD_TEXT: text -> index into codes */
    float *codes;
    float unknown_code;
    struct field *also; /* another use of the same value, or NULL */
} field;

/* An object or array that paths go through; number 0 is the record. What is in it has an entry: the index of a field,
   n_fields plus the number of a branch, or -1. */
typedef struct {
    int32_t is_array, has_required;
    int32_t parent;
    int32_t n_children;
    text_table names; /* of an object: key -> index into entries */
    int32_t *indices; /* of an array: ascending, those of the elements in entries */
    int32_t *entries;
} branch;

/* For a number of `length` bytes with its point at `point` (none: point == length): which byte goes to which lane so
   that the digits end in lane 15. [length][point][lane], filled by rows_init. */
extern uint8_t rows_digit_shuffles[16][16][16];

/* One key of a learned order, or the end of an object on a path. `token` is what is between two values: separator, key,
   colon, white space; the first key of an object has the separator of the second. The token of an end is its brace. */
#define TOKEN_BYTES 32
typedef struct {
    uint32_t token_bits; /* one bit for each byte of a token of at most TOKEN_BYTES */
    int32_t token_length;
    int32_t entry; /* as in a branch; n_fields + n_branches + its number for the end of one */
    union {
        int32_t column;
        int32_t close; /* FIELD_OPEN: the step that ends it */
    };
    int32_t outer; /* FIELD_OPEN: the step that opened what it is in, -1 for the record */
    uint8_t kind;
    uint8_t required;
    uint8_t key_at;           /* in the token */
    uint32_t required_before; /* required fields among the steps before this one */
    char *long_token;         /* the whole token if it is longer than TOKEN_BYTES */
} step;

/* What a step is, for learning. */
typedef struct {
    uint64_t name_hash; /* of the name without escapes */
    int32_t branch;     /* what it is in */
} step_identity;

typedef struct {
    char (*tokens)[TOKEN_BYTES];
    step *steps;
    step_identity *identities;
    int32_t n_steps;
    int32_t *position; /* entry -> step, -1 if the order lacks it */
    char separator[TOKEN_BYTES];
    int32_t separator_length;
    uint32_t n_required;
    int32_t credit; /* how often it may still fail in a row before it is tried only now and then */
} key_order;

#define MAX_ORDERS 4

/* One key as met by the slow walk, for learning. Offsets are into the scratch buffer. */
typedef struct {
    uint64_t name_hash;
    uint32_t token_start, key_start, value_start; /* the first key of an object: token_start == key_start */
    int32_t entry, branch;                        /* what it is, what it is in */
} trace_entry;

#define MAX_TRACE 8192
#define UNKNOWN_TABLE 8192     /* of the keys of a record that no schema knows, at first: a power of two */
#define MOST_UNKNOWN (1 << 20) /* places; a record with more than half as many such keys is the reference's */
#define MAX_PROBES 256         /* in that table; hashes are keyed, so only chance could need more */

typedef struct {
    uint64_t hash;
    const char *text; /* in the scratch buffer or, without its escapes, in the other one */
    uint32_t serial, length;
    int32_t branch;
} unknown_key;

/* A value of a Protocol Buffers message, or the place of a text in the record; of the record with that serial. */
typedef struct {
    uint64_t bits;
    uint32_t length, serial;
} proto_cell;

typedef struct rows_decoder {
    int32_t width, n_fields, n_branches;
    field *fields;
    branch *branches;
    int32_t identifier_slot;
    uint32_t n_required; /* fields, the identifier included */
    float *blank_row;    /* NaN everywhere */

    /* Of the record that is read, for velocity features: words that the caller owns (engine/velocity.py, Layout). */
    int64_t *inputs, *blank_inputs;
    int32_t n_inputs;
    uint64_t hash_key[2];

    key_order orders[MAX_ORDERS];
    int32_t order_ranks[MAX_ORDERS]; /* indices of orders, most recently useful first */
    int32_t n_orders;
    uint32_t misses, patience, hits; /* see rows_after_slow_walk */

    uint32_t serial; /* of the slow walk: what carries it in `seen` or `filled` was met in this record */
    uint32_t *seen, *filled;
    trace_entry *trace;
    unknown_key *unknown_keys; /* at most half full */
    uint32_t unknown_capacity; /* a power of two */

    proto_cell *cells;
    int32_t n_cells;

    char *scratch; /* PADDING_BEFORE, record, PADDING_AFTER */
    char *unescaped;
    size_t scratch_capacity;

    uint64_t n_blank;                                  /* accepted records that have no feature at all */
    uint64_t n_exact_numbers, n_slow_walks, n_learned; /* for tests and metrics */
} rows_decoder;

typedef struct {
    size_t identifier_start, identifier_length; /* in the record's bytes, quotes included */
    const char *identifier; /* NULL, or the same without needless escapes; valid until the next record is loaded */
    int32_t code;           /* enum fault, of the first fault in document order */
    int32_t entry;          /* of the field or branch at fault, -1 if the contract does not know it */
    int32_t branch;         /* then what it is in, */
    const char *name;       /* and its name, without escapes; valid until the next record is loaded */
    uint32_t name_length;
    uint32_t n_steps;  /* that the slow walk made; the first MAX_TRACE are in the trace */
    int32_t learnable; /* whether an ordered walk can do the same */
    uint32_t non_ascii;
} record_result;

typedef int (*decode_record_function)(rows_decoder *, size_t length, float *row, record_result *);

/* Reads the record in the scratch buffer. parse.c, compiled once for each instruction set. */
int rows_decode_record_baseline(rows_decoder *, size_t, float *, record_result *);
int rows_decode_record_avx2(rows_decoder *, size_t, float *, record_result *);
int rows_decode_record_avx512(rows_decoder *, size_t, float *, record_result *);

/* decoder.c. Functions that allocate return 0 on success and -1 without memory. */
int rows_init(rows_decoder *, int32_t width, int32_t n_fields, int32_t n_branches, int32_t n_inputs, int32_t n_values);
/* Correctly rounded conversion of a NUL-terminated JSON number that the fast ways leave; infinity on overflow. */
double rows_exact_number(const char *text);
void rows_free(rows_decoder *);
/* Twice as many places for unknown keys, with those of this record; -1 without memory, or at the most that may be. */
int rows_grow_unknown_keys(rows_decoder *);
/* As few as at first, and none taken; where there is no memory for it, nothing changes. */
void rows_shrink_unknown_keys(rows_decoder *);
/* A new number for what a record meets; the stamps of all earlier records are different. */
void rows_next_serial(rows_decoder *);
int rows_load(rows_decoder *, const char *record, size_t length); /* copies it into the scratch buffer */

/* table.c. text_hash_init: once for the process, before any table is built; the hashes of all tables depend on the key,
   so no sender can choose keys that collide. */
void text_hash_init(const uint64_t key[3]);
int text_table_build(text_table *, const char *const *texts, const uint32_t *lengths, int32_t n);
void text_table_free(text_table *);
uint64_t text_hash_long(const char *text, uint32_t length, uint64_t seed);

/* learn.c */
void rows_after_slow_walk(rows_decoder *, const record_result *);
void rows_after_ordered_walk(rows_decoder *, int32_t rank, int32_t detours);
void key_order_free(key_order *);

#endif
