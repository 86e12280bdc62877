/* The results of a batch in one buffer: `Results`, a sequence of bytes; and the one place in C that puts a result's
   JSON together:

       {"TransactionID":<id as it was written>,"fraud_score":<shortest
   float64>,"is_fraud":...,"model":"...","scored_at_ms":...}

   records/encode.py makes the constant pieces and is the reference.

   Threads: `Results` is filled under the GIL and never changes once Python has it; it may then be read without the GIL
   while somebody holds a reference. */
#ifndef SAKER_RESULTS_H
#define SAKER_RESULTS_H

#include "../native.h"
#include <stdint.h>
#include <string.h>

typedef struct {
    PyObject_HEAD Py_ssize_t n;
    int64_t *ends; /* of each line in `text` */
    char *text;
    Py_ssize_t capacity;
} ResultsObject;

ResultsObject *results_new(Py_ssize_t n);                                   /* n empty lines, to be filled in turn */
char *results_room(ResultsObject *results, Py_ssize_t at, Py_ssize_t size); /* for line `at`, NULL with MemoryError */
int is_results(PyObject *object);

static inline Py_ssize_t result_start(const ResultsObject *results, Py_ssize_t at) {
    return at == 0 ? 0 : (Py_ssize_t)results->ends[at - 1];
}

typedef struct {
    const char *text;
    Py_ssize_t length;
} Piece;

/* Of a model: before the identifier, before the score, and after it up to the time, by whether it is fraud. */
typedef struct {
    Piece before_id, before_score, after_score[2];
} ResultPieces;

/* From a tuple of four bytes, which has to outlive the pieces; 0 with an exception. */
int result_pieces(PyObject *tuple, ResultPieces *pieces);

static inline Py_ssize_t result_size(const ResultPieces *pieces, Py_ssize_t id, Py_ssize_t score, int is_fraud,
                                     Py_ssize_t time) {
    return pieces->before_id.length + id + pieces->before_score.length + score + pieces->after_score[is_fraud].length +
           time;
}

static inline char *put_piece(char *out, Piece piece) {
    memcpy(out, piece.text, (size_t)piece.length);
    return out + piece.length;
}

/* time: the time and the end of the object. Writes `result_size` bytes and returns where they end. */
static inline char *put_result(char *out, const ResultPieces *pieces, Piece id, Piece score, int is_fraud, Piece time) {
    out = put_piece(put_piece(out, pieces->before_id), id);
    out = put_piece(put_piece(out, pieces->before_score), score);
    return put_piece(put_piece(out, pieces->after_score[is_fraud]), time);
}

#endif
