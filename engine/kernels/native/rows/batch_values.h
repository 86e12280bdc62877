/* The values of a batch, whatever sequence they are: a list of bytes, or `MessageBatch` as they lie in librdkafka's
 * buffers. */
#ifndef SAKER_VALUES_H
#define SAKER_VALUES_H

#include "../native.h"

typedef struct {
    PyObject *owner;   /* to be released, may be NULL */
    const char *bytes; /* NULL: a record without a value */
    Py_ssize_t length;
} Value;

/* kafka/messages.c: fills `value` and returns 1 if `values` are MessageBatch, 0 if not, -1 with an exception for a
 * wrong index. */
int message_batch_value(PyObject *values, Py_ssize_t index, Value *value);

/* Returns -1 with an exception (IndexError; TypeError for what is neither bytes nor None). */
static inline int value_at(PyObject *values, Py_ssize_t index, Value *value) {
    *value = (Value){NULL, NULL, 0};
    int found = message_batch_value(values, index, value);
    if (found != 0) return found < 0 ? -1 : 0;
    value->owner = PySequence_GetItem(values, index);
    if (value->owner == NULL) return -1;
    if (value->owner == Py_None) return 0;
    char *bytes;
    if (PyBytes_AsStringAndSize(value->owner, &bytes, &value->length) != 0) {
        Py_CLEAR(value->owner);
        return -1;
    }
    value->bytes = bytes;
    return 0;
}

#endif
