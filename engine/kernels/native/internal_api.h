/* What one type does with another, without Python in between. It has checked what they are when they were handed over.
 */
#ifndef SAKER_PARTS_H
#define SAKER_PARTS_H

#include "native.h"
#include <stddef.h>
#include <stdint.h>

/* rows/decoder_type.c */
typedef struct {
    int64_t start, length; /* in the record's bytes; of a text that the decoder keeps ~start */
} Identifier;
int is_decoder(PyObject *object);
int decoder_width(PyObject *decoder);
/* Words that a record has for velocity features. */
int decoder_inputs(PyObject *decoder);
/* Whether each record names its schema. */
int decoder_has_ids(PyObject *decoder);
/* Before the records of a batch: the texts of earlier ones are dropped. */
void decoder_start(PyObject *decoder);
/* Where the identifier of a record is, until the decoder reads another. */
const char *decoder_text(PyObject *decoder, const char *record, const Identifier *identifier);
/* Fills a row and the inputs and returns 1, or returns 0: the record is not one that is accepted here, for whatever
   reason. */
int decoder_read(PyObject *decoder, const char *record, size_t length, float *row, int64_t *inputs,
                 Identifier *identifier);
/* A row that decoder_read made is answered: only then its record counts as decoded here. */
void decoder_count(PyObject *decoder, const float *row, const int64_t *inputs);

/* trees/plan_type.c; x: C-contiguous (n, inputs). Returns 0 without memory. */
int is_plan(PyObject *object);
int plan_inputs(PyObject *plan);
int plan_targets(PyObject *plan);
int plan_sum(PyObject *plan, const float *x, size_t n, double *sums);

/* velocity/velocity_type.c; whether it is a plan for `words` inputs of a record, and for rows of this width */
int is_velocity_plan(PyObject *object, int words, int width);
/* Fills the columns of a record by the history of its partition, which then has the record. states: a dict. Returns 0
   where that cannot be. */
int velocity_apply_record(PyObject *plan, PyObject *states, int32_t partition, const int64_t *inputs,
                          int64_t timestamp_ms, int64_t offset, float *row);

/* trees/elementwise_program.c; a function is a program of one input and one output */
int is_function(PyObject *object);
void program_apply(PyObject *program, const double *in, double *out, size_t n);

#endif
