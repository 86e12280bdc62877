/* Results of a batch. For JSON the scores come as text already, for orjson prints the whole batch in one call
   ("[0.1,0.2]"), exactly and faster than any code that would be worth owning. Here they are cut apart at the commas and
   put between the other pieces (results.h). */
#include "results.h"
#include "batch_values.h"

/* The next score of `*from`, which ends before `end`. */
static Piece next_score(const char **from, const char *end, ResultForm form) {
    const char *start = *from, *comma = NULL;
    if (form != RESULT_JSON) {
        *from = start + sizeof(double);
        return (Piece){start, end - start >= (Py_ssize_t)sizeof(double) ? (Py_ssize_t)sizeof(double) : 0};
    }
    if (start < end) comma = memchr(start, ',', (size_t)(end - start));
    *from = comma != NULL ? comma + 1 : end;
    return (Piece){start, (comma != NULL ? comma : end) - start};
}

/* encode(values, texts, indices, starts, lengths, scores, flags, pieces, time in ms) -> Results.
   texts: of identifiers that are not in their value as they are to be written; their start is below 0. scores: a JSON
   list, or float64. flags, bits of each record: 1 for fraud, 2 for late. */
PyObject *rows_encode(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *values, *pieces_object;
    ResultsObject *lines = NULL;
    Py_buffer indices, starts, lengths, flags;
    Piece texts, scores;
    long long now_ms;
    ResultPieces pieces;
    if (!PyArg_ParseTuple(arguments, "Oy#y*y*y*y#y*OL", &values, &texts.text, &texts.length, &indices, &starts,
                          &lengths, &scores.text, &scores.length, &flags, &pieces_object, &now_ms))
        return NULL;
    if (!result_pieces(pieces_object, &pieces)) goto done;
    Py_ssize_t n = indices.len / (Py_ssize_t)sizeof(int32_t);
    int is_json = pieces.form == RESULT_JSON;
    if (starts.len < n * 8 || lengths.len < n * 8 || flags.len < n || scores.length < (is_json ? 2 : n * 8) ||
        now_ms < 0) {
        PyErr_SetString(PyExc_ValueError, "a buffer is too small for the batch, or the time is below 0");
        goto done;
    }
    char room[TIME_BYTES];
    Piece time = time_piece(room, pieces.form, now_ms);
    const char *score = scores.text + is_json, *scores_end = scores.text + scores.length - is_json;
    lines = results_new(n);
    for (Py_ssize_t i = 0; lines != NULL && i < n; i++) {
        Value value;
        Py_ssize_t index = ((const int32_t *)indices.buf)[i];
        int64_t start = ((const int64_t *)starts.buf)[i], length = ((const int64_t *)lengths.buf)[i];
        Piece printed = next_score(&score, scores_end, pieces.form);
        if (start < 0) {
            value = (Value){NULL, texts.text, texts.length};
            start = ~start;
        } else if (value_at(values, index, &value) != 0) {
            Py_CLEAR(lines);
            break;
        }
        char *out = NULL;
        uint8_t flag = ((const uint8_t *)flags.buf)[i];
        if (start < 0 || length < 0 || start > value.length || length > value.length - start || printed.length <= 0 ||
            flag > 3)
            PyErr_SetString(PyExc_ValueError, "identifiers, scores or flags do not belong to these values");
        else out = results_room(lines, i, result_size(&pieces, (Py_ssize_t)length, printed.length, flag));
        if (out != NULL) {
            Piece id = {value.bytes + start, (Py_ssize_t)length};
            lines->ends[i] = put_result(out, &pieces, id, printed, flag, time) - lines->text;
        } else Py_CLEAR(lines);
        Py_XDECREF(value.owner);
    }
done:
    PyBuffer_Release(&indices);
    PyBuffer_Release(&starts);
    PyBuffer_Release(&lengths);
    PyBuffer_Release(&flags);
    return (PyObject *)lines;
}
