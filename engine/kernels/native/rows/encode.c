/* Results of a batch: the scores come as text already, for orjson prints the whole batch in one call ("[0.1,0.2]"),
   exactly and faster than any code that would be worth owning. Here they are cut apart at the commas and put between
   the other pieces (results.h). */
#include "results.h"
#include "batch_values.h"

/* encode(values, texts, indices, starts, lengths, score texts, flags, pieces, (time, time of a late one)) -> Results.
   texts: of identifiers that are not in their value as they are to be written; their start is below 0. flags, bits of
   each record: 1 for fraud, 2 for late. */
PyObject *rows_encode(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *values, *pieces_object;
    ResultsObject *lines = NULL;
    Py_buffer indices, starts, lengths, flags;
    Piece texts, scores, times[2];
    ResultPieces pieces;
    if (!PyArg_ParseTuple(arguments, "Oy#y*y*y*y#y*O(y#y#)", &values, &texts.text, &texts.length, &indices, &starts,
                          &lengths, &scores.text, &scores.length, &flags, &pieces_object, &times[0].text,
                          &times[0].length, &times[1].text, &times[1].length))
        return NULL;
    if (!result_pieces(pieces_object, &pieces)) goto done;
    Py_ssize_t n = indices.len / (Py_ssize_t)sizeof(int32_t);
    const char *score = scores.text + 1, *scores_end = scores.text + scores.length - 1; /* between the brackets */
    if (starts.len < n * 8 || lengths.len < n * 8 || flags.len < n || scores.length < 2) {
        PyErr_SetString(PyExc_ValueError, "a buffer is too small for the batch");
        goto done;
    }
    lines = results_new(n);
    for (Py_ssize_t i = 0; lines != NULL && i < n; i++) {
        Value value;
        Py_ssize_t index = ((const int32_t *)indices.buf)[i];
        int64_t start = ((const int64_t *)starts.buf)[i], length = ((const int64_t *)lengths.buf)[i];
        const char *comma = score < scores_end ? memchr(score, ',', (size_t)(scores_end - score)) : NULL;
        Piece printed = {score, (comma != NULL ? comma : scores_end) - score};
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
        else
            out = results_room(
                lines, i, result_size(&pieces, (Py_ssize_t)length, printed.length, flag & 1, times[flag >> 1].length));
        if (out != NULL) {
            Piece id = {value.bytes + start, (Py_ssize_t)length};
            lines->ends[i] = put_result(out, &pieces, id, printed, flag & 1, times[flag >> 1]) - lines->text;
        } else Py_CLEAR(lines);
        Py_XDECREF(value.owner);
        score = comma != NULL ? comma + 1 : scores_end;
    }
done:
    PyBuffer_Release(&indices);
    PyBuffer_Release(&starts);
    PyBuffer_Release(&lengths);
    PyBuffer_Release(&flags);
    return (PyObject *)lines;
}
