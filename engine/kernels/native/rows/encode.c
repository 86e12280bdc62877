/* Results to JSON, one line a record:

       {"TransactionID":<id as it was written>,"fraud_score":<shortest float64>,"is_fraud":...,"model":"...","scored_at_ms":...}

   The scores come as text already: orjson prints the whole batch in one call ("[0.1,0.2]"), exactly and faster than any
   code that would be worth owning. Here they are cut apart at the commas and put between the other parts. */
#include "results.h"
#include "batch_values.h"
#include <string.h>

typedef struct {
    const char *text;
    Py_ssize_t length;
} piece;

static char *put(char *out, piece part) {
    memcpy(out, part.text, (size_t)part.length);
    return out + part.length;
}

/* What the identifier of a record is cut out of. */
static int identifier_source(PyObject *values, PyObject *replaced, Py_ssize_t index, Value *value) {
    if (PyDict_Size(replaced) != 0) {
        PyObject *key = PyLong_FromSsize_t(index), *found = key == NULL ? NULL : PyDict_GetItemWithError(replaced, key);
        Py_XDECREF(key);
        if (found != NULL) {
            char *bytes;
            *value = (Value){NULL, NULL, 0}; /* the dictionary keeps it */
            int failed = PyBytes_AsStringAndSize(found, &bytes, &value->length);
            value->bytes = bytes;
            return failed;
        }
        if (PyErr_Occurred()) return -1;
    }
    return value_at(values, index, value);
}

/* encode(values, replaced, indices, starts, lengths, score texts, flags, before the identifier, before the score, four endings)
   -> Lines. replaced: {index: identifier} of those that do not stand in their value. flags: of each record the number of the
   ending that stands after its score. */
PyObject *rows_encode(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *values, *replaced;
    LinesObject *lines = NULL;
    Py_buffer indices, starts, lengths, flags;
    piece scores, head, middle, endings[4];
    if (!PyArg_ParseTuple(arguments, "OO!y*y*y*y#y*y#y#y#y#y#y#", &values, &PyDict_Type, &replaced, &indices, &starts, &lengths,
                          &scores.text, &scores.length, &flags, &head.text, &head.length, &middle.text, &middle.length,
                          &endings[0].text, &endings[0].length, &endings[1].text, &endings[1].length, &endings[2].text,
                          &endings[2].length, &endings[3].text, &endings[3].length))
        return NULL;
    Py_ssize_t n = indices.len / (Py_ssize_t)sizeof(int32_t);
    Py_ssize_t fixed = head.length + middle.length;
    const char *score = scores.text + 1, *scores_end = scores.text + scores.length - 1; /* between the brackets */
    if (starts.len < n * 8 || lengths.len < n * 8 || flags.len < n || scores.length < 2) {
        PyErr_SetString(PyExc_ValueError, "a buffer is too small for the batch");
        goto done;
    }
    lines = lines_new(n);
    for (Py_ssize_t i = 0; lines != NULL && i < n; i++) {
        Value value;
        Py_ssize_t index = ((const int32_t *)indices.buf)[i];
        int64_t start = ((const int64_t *)starts.buf)[i], length = ((const int64_t *)lengths.buf)[i];
        const char *comma = score < scores_end ? memchr(score, ',', (size_t)(scores_end - score)) : NULL;
        piece printed = {score, (comma != NULL ? comma : scores_end) - score};
        if (identifier_source(values, replaced, index, &value) != 0) {
            Py_CLEAR(lines);
            break;
        }
        char *out = NULL;
        uint8_t flag = ((const uint8_t *)flags.buf)[i];
        if (start < 0 || length < 0 || start > value.length || length > value.length - start || printed.length <= 0 || flag > 3)
            PyErr_SetString(PyExc_ValueError, "identifiers, scores or flags do not belong to these values");
        else
            out = lines_room(lines, i, fixed + (Py_ssize_t)length + printed.length + endings[flag].length);
        if (out != NULL) {
            out = put(out, head);
            out = put(out, (piece){value.bytes + start, (Py_ssize_t)length});
            out = put(put(out, middle), printed);
            out = put(out, endings[flag]);
            lines->ends[i] = out - lines->text;
        } else
            Py_CLEAR(lines);
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
