/* Results to JSON, one bytes object a record:

       {"TransactionID":<id as it was written>,"fraud_score":<shortest float64>,"is_fraud":...,"model":"...","scored_at_ms":...}

   The scores come as text already: orjson prints the whole batch in one call ("[0.1,0.2]"), exactly and faster than any
   code that would be worth owning. Here they are cut apart at the commas and put between the other parts. */
#include "../native.h"
#include <stdint.h>
#include <string.h>

typedef struct {
    const char *text;
    Py_ssize_t length;
} piece;

static char *put(char *out, piece part) {
    memcpy(out, part.text, (size_t)part.length);
    return out + part.length;
}

/* encode(values, source_index, identifier_start, identifier_length, score texts, flags, before the identifier, before the
   score, after a score that is fraud, after one that is not) -> list of bytes */
PyObject *rows_encode(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *values, *results = NULL;
    Py_buffer source_index, starts, lengths, flags;
    piece scores, head, middle, fraud, genuine;
    char *buffer = NULL;
    if (!PyArg_ParseTuple(arguments, "O!y*y*y*y#y*y#y#y#y#", &PyList_Type, &values, &source_index, &starts, &lengths,
                          &scores.text, &scores.length, &flags, &head.text, &head.length, &middle.text, &middle.length,
                          &fraud.text, &fraud.length, &genuine.text, &genuine.length))
        return NULL;
    Py_ssize_t n = source_index.len / (Py_ssize_t)sizeof(int32_t), capacity = 0;
    Py_ssize_t fixed = head.length + middle.length + (fraud.length > genuine.length ? fraud.length : genuine.length);
    const char *score = scores.text + 1, *scores_end = scores.text + scores.length - 1; /* between the brackets */
    if (starts.len < n * 8 || lengths.len < n * 8 || flags.len < n || scores.length < 2) {
        PyErr_SetString(PyExc_ValueError, "a buffer is too small for the batch");
        goto done;
    }
    results = PyList_New(n);
    for (Py_ssize_t i = 0; results != NULL && i < n; i++) {
        char *bytes;
        Py_ssize_t size;
        PyObject *value = PyList_GetItem(values, ((const int32_t *)source_index.buf)[i]), *line = NULL;
        int64_t start = ((const int64_t *)starts.buf)[i], length = ((const int64_t *)lengths.buf)[i];
        const char *comma = score < scores_end ? memchr(score, ',', (size_t)(scores_end - score)) : NULL;
        piece printed = {score, (comma != NULL ? comma : scores_end) - score};
        if (value == NULL || PyBytes_AsStringAndSize(value, &bytes, &size) != 0) goto failed;
        if (start < 0 || length < 0 || start > size || length > size - start || printed.length <= 0) {
            PyErr_SetString(PyExc_ValueError, "identifiers or scores do not belong to these values");
            goto failed;
        }
        Py_ssize_t needed = fixed + (Py_ssize_t)length + printed.length;
        if (needed > capacity) {
            capacity = needed + 256;
            char *larger = PyMem_Realloc(buffer, (size_t)capacity);
            if (larger == NULL) {
                PyErr_NoMemory();
                goto failed;
            }
            buffer = larger;
        }
        char *out = put(buffer, head);
        out = put(out, (piece){bytes + start, (Py_ssize_t)length});
        out = put(put(out, middle), printed);
        out = put(out, ((const char *)flags.buf)[i] ? fraud : genuine);
        line = PyBytes_FromStringAndSize(buffer, out - buffer);
        if (line == NULL || PyList_SetItem(results, i, line) != 0) goto failed;
        score = comma != NULL ? comma + 1 : scores_end;
        continue;
    failed:
        Py_CLEAR(results);
    }
done:
    PyMem_Free(buffer);
    PyBuffer_Release(&source_index);
    PyBuffer_Release(&starts);
    PyBuffer_Release(&lengths);
    PyBuffer_Release(&flags);
    return results;
}
