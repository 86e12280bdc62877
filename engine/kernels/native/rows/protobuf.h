/* Protocol Buffers to rows, by tables for each schema. engine/records/protobuf_tables.py makes the tables;
   engine/records/protobuf.py is the reference. Pure C. */
#ifndef PROTOBUF_H
#define PROTOBUF_H

#include "rows.h"

enum proto_kind {
    PROTO_DOUBLE,
    PROTO_FLOAT,
    PROTO_INT64,
    PROTO_UINT64,
    PROTO_INT32,
    PROTO_UINT32,
    PROTO_SINT32,
    PROTO_SINT64,
    PROTO_FIXED32,
    PROTO_FIXED64,
    PROTO_SFIXED32,
    PROTO_SFIXED64,
    PROTO_BOOL,
    PROTO_STRING,
    PROTO_TEXT, /* a string that must be UTF-8 */
    PROTO_BYTES,
    PROTO_ENUM,
    PROTO_TIME,
    PROTO_MESSAGE,
    PROTO_ELEMENTS,
    PROTO_MAP
};

/* Actions are sorted by their numbers. */
#define LAST_DENSE 255
typedef struct {
    int32_t first_action, n_actions;
} proto_table;

/* What is done with a field; the order of class _Action. column: from Python a final; then of a value that goes to its
   column at once that column, and `first_pair` its field of the decoder; otherwise -1. */
typedef struct {
    int32_t number, wire, kind, cell, table, first_pair, n_pairs, first_clear, n_clear, element, first_number,
        n_numbers, key, keys, column;
} proto_action;

/* How a cell is used. TIME: `first_number` is the cell of the nanoseconds. */
typedef struct {
    int32_t slot, kind, cell, inside, has_presence, first_number, n_numbers, first_text;
} proto_final;

#define PAIR 5 /* index or place of the key, cell, table, first cell to clear, how many */

/* Owns all that it points to. Immutable. */
typedef struct {
    proto_table *tables;
    proto_action *actions;
    proto_final *finals, *all; /* all: with those of values that go to their columns at once, whose slot is ~slot */
    int32_t *dense;            /* of each table the actions of the numbers 0 to LAST_DENSE, -1 for none */
    int32_t *places;
    char *texts; /* one after the other, and 16 bytes */
    int32_t *text_ends;
    text_table *keys;
    float *blank_row; /* with the defaults of values that go to their columns at once */
    int32_t n_finals, n_all, n_keys, n_cells;
} proto_program;

/* Before the first record: which values go to their columns at once; -1 without memory. */
int protobuf_specialize(const rows_decoder *, proto_program *, int32_t n_tables, int32_t n_actions);
void proto_program_free(proto_program *);

typedef int (*decode_protobuf_function)(rows_decoder *, const proto_program *, size_t start, size_t length, float *row,
                                        record_result *);

/* The record in the scratch buffer, from byte `start` on. The decoder has n_cells cells. */
int rows_decode_protobuf_baseline(rows_decoder *, const proto_program *, size_t, size_t, float *, record_result *);
int rows_decode_protobuf_avx2(rows_decoder *, const proto_program *, size_t, size_t, float *, record_result *);
int rows_decode_protobuf_avx512(rows_decoder *, const proto_program *, size_t, size_t, float *, record_result *);

#endif
