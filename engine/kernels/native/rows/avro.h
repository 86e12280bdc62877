/* Avro records to rows, by a program for each schema. engine/records/avro_program.py writes the programs and says what
   the operations mean; engine/records/avro.py is the reference. Pure C. */
#ifndef AVRO_H
#define AVRO_H

#include "rows.h"

/* class Op in engine/records/avro_program.py */
enum {
    END,
    SKIP_LONGS,
    SKIP_BYTES,
    SKIP_STRINGS,
    SKIP_ENUM,
    OPTIONAL,
    UNION,
    JUMP,
    BLOCKS,
    CALL,
    ELEMENTS,
    KEYS,
    LONG,
    FLOAT,
    DOUBLE,
    BOOL,
    STRING,
    ENUM,
    DECIMAL,
    FAULT,
    /* Written by specialize: a field with one use and nothing to count, and the same behind an OPTIONAL. */
    PLAIN_DOUBLE,
    PLAIN_FLOAT,
    PLAIN_LONG,
    PLAIN_TEXT,
    OPTIONAL_DOUBLE,
    OPTIONAL_FLOAT,
    OPTIONAL_LONG,
    OPTIONAL_TEXT,
    OPTIONAL_BYTES
};

typedef struct {
    int32_t code, a, b, c;
    int32_t levels; /* records around it that have no subprogram of their own */
} avro_operation;

/* Owns all that it points to. Immutable. */
typedef struct {
    avro_operation *operations, *special; /* special: the same, with one operation for what is usual */
    int32_t *places;
    char *texts; /* one after the other, and 16 bytes */
    int32_t *text_ends;
    text_table *keys;   /* of maps: key -> index */
    int32_t **programs; /* of each: place of the program for its value, field or branch */
    int32_t n_keys;
} avro_program;

typedef int (*decode_avro_function)(rows_decoder *, const avro_program *, size_t start, size_t length, float *row,
                                    record_result *);

/* The record in the scratch buffer, from byte `start` on. */
int rows_decode_avro_baseline(rows_decoder *, const avro_program *, size_t, size_t, float *, record_result *);
int rows_decode_avro_avx2(rows_decoder *, const avro_program *, size_t, size_t, float *, record_result *);
int rows_decode_avro_avx512(rows_decoder *, const avro_program *, size_t, size_t, float *, record_result *);

/* Before the first record: makes `special` of n operations; -1 without memory. */
int32_t avro_specialize(const rows_decoder *, avro_program *, int32_t n);
void avro_program_free(avro_program *);

#endif
