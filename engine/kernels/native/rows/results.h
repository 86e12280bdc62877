/* The results of a batch in one buffer: `Results`, a sequence of bytes; and the one place in C that puts a result
   together, from left to right in every form:

       JSON      {"TransactionID":<as written>,"fraud_score":<shortest float64>,"is_fraud":...,"scored_at_ms":...}
       Avro      0, schema id | length, text | 8 bytes | is_fraud, model | zigzag varint | late
       Protobuf  the same with tags, and a varint for the time

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

typedef enum { RESULT_JSON, RESULT_AVRO, RESULT_PROTOBUF } ResultForm;

/* Of a model: before the identifier, before the score, after it up to the time, by whether it is fraud, and after the
   time, by whether the record is late. */
typedef struct {
    Piece before_id, before_score, after_score[2], after_time[2];
    ResultForm form;
} ResultPieces;

/* Of identifiers and scores of any form; and with the last piece of a result. */
enum { LENGTH_BYTES = 10, TIME_BYTES = 20, SCORE_BYTES = 32 };

/* From a tuple of six bytes and the form, which has to outlive the pieces; 0 with an exception. */
int result_pieces(PyObject *tuple, ResultPieces *pieces);

/* At most so many bytes. id, score: as in `put_result`. */
static inline Py_ssize_t result_size(const ResultPieces *pieces, Py_ssize_t id, Py_ssize_t score, int flags) {
    return pieces->before_id.length + LENGTH_BYTES + id + pieces->before_score.length + score +
           pieces->after_score[flags & 1].length + TIME_BYTES + pieces->after_time[flags >> 1].length;
}

static inline char *put_piece(char *out, Piece piece) {
    memcpy(out, piece.text, (size_t)piece.length);
    return out + piece.length;
}

/* A time as the results of a batch have it, at most TIME_BYTES. */
Piece time_piece(char *room, ResultForm form, int64_t ms);

/* The identifier's text after its length, for Avro and Protobuf. */
char *put_identifier(char *out, ResultForm form, Piece json);

/* id: as JSON. score: as JSON, or its 8 bytes. flags: 1 for fraud, 2 for late. Writes at most `result_size` bytes and
   returns where they end. */
static inline char *put_result(char *out, const ResultPieces *pieces, Piece id, Piece score, int flags, Piece time) {
    out = put_piece(out, pieces->before_id);
    out = pieces->form == RESULT_JSON ? put_piece(out, id) : put_identifier(out, pieces->form, id);
    out = put_piece(put_piece(out, pieces->before_score), score);
    out = put_piece(put_piece(out, pieces->after_score[flags & 1]), time);
    return put_piece(out, pieces->after_time[flags >> 1]);
}

#endif
