#include "message_batch.h"
#include "../rows/batch_values.h"

#include <stdlib.h>
#include <string.h>

static PyTypeObject *type; /* of MessageBatch; made once, kept by the module */

int is_message_batch(PyObject *object) { return Py_TYPE(object) == type; }

MessageBatchObject *message_batch_new(PyObject *consumer, PyObject *origin_type, Py_ssize_t room) {
    MessageBatchObject *self = (MessageBatchObject *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    self->consumer = Py_NewRef(consumer);
    self->origin_type = Py_NewRef(origin_type);
    self->messages = malloc(((size_t)room + 1) * sizeof *self->messages);
    if (self->messages == NULL) {
        Py_DECREF((PyObject *)self);
        return (MessageBatchObject *)PyErr_NoMemory();
    }
    return self;
}

PyObject *message_batch_with_errors(MessageBatchObject *batch, size_t n) {
    PyObject *errors = PyList_New(0);
    for (size_t i = 0; i < n; i++) {
        rd_kafka_message_t *message = batch->messages[i];
        if (message->err == 0) {
            batch->messages[batch->n++] = message;
            continue;
        }
        const char *text = message->payload != NULL ? message->payload : "";
        PyObject *pair = errors == NULL ? NULL
                                        : Py_BuildValue("is#", message->err, text,
                                                        (Py_ssize_t)(message->payload != NULL ? message->len : 0));
        if (pair == NULL || PyList_Append(errors, pair) != 0) Py_CLEAR(errors);
        Py_XDECREF(pair);
        rdkafka.message_destroy(message);
    }
    if (errors == NULL) {
        Py_DECREF((PyObject *)batch);
        return NULL;
    }
    return Py_BuildValue("NN", batch, errors);
}

static void message_batch_dealloc(PyObject *object) {
    MessageBatchObject *self = (MessageBatchObject *)object;
    PyTypeObject *of = Py_TYPE(object);
    for (Py_ssize_t i = 0; i < self->n; i++) rdkafka.message_destroy(self->messages[i]);
    free(self->messages);
    Py_XDECREF(self->consumer);
    Py_XDECREF(self->origin_type);
    ((freefunc)PyType_GetSlot(of, Py_tp_free))(object);
    Py_DECREF(of);
}

static const rd_kafka_message_t *message_at(PyObject *object, Py_ssize_t index) {
    MessageBatchObject *self = (MessageBatchObject *)object;
    if (index < 0 || index >= self->n) {
        PyErr_Format(PyExc_IndexError, "there are %zd records, and no record %zd", self->n, index);
        return NULL;
    }
    return self->messages[index];
}

int message_batch_value(PyObject *values, Py_ssize_t index, Value *value) {
    if (!is_message_batch(values)) return 0;
    const rd_kafka_message_t *message = message_at(values, index);
    if (message == NULL) return -1;
    value->bytes = message->payload;
    value->length = (Py_ssize_t)message->len;
    return 1;
}

static Py_ssize_t message_batch_length(PyObject *object) { return ((MessageBatchObject *)object)->n; }

static PyObject *bytes_or_none(const void *bytes, size_t length) {
    return bytes == NULL ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize(bytes, (Py_ssize_t)length);
}

static PyObject *message_batch_item(PyObject *object, Py_ssize_t index) {
    const rd_kafka_message_t *message = message_at(object, index);
    return message == NULL ? NULL : bytes_or_none(message->payload, message->len);
}

static PyObject *headers_of(const rd_kafka_message_t *message) {
    rd_kafka_headers_t *headers;
    if (rdkafka.message_headers(message, &headers) != 0) return Py_NewRef(Py_None);
    PyObject *list = PyList_New(0);
    const char *name;
    const void *value;
    size_t size;
    for (size_t i = 0; list != NULL && rdkafka.header_get_all(headers, i, &name, &value, &size) == 0; i++) {
        /* A name may be any bytes; confluent_kafka writes text only, so others are shown as \xff. */
        PyObject *text = PyUnicode_DecodeUTF8(name, (Py_ssize_t)strlen(name), "backslashreplace");
        PyObject *bytes = text == NULL ? NULL : bytes_or_none(value, size);
        PyObject *pair = bytes == NULL ? NULL : PyTuple_Pack(2, text, bytes);
        Py_XDECREF(text);
        Py_XDECREF(bytes);
        if (pair == NULL || PyList_Append(list, pair) != 0) Py_CLEAR(list);
        Py_XDECREF(pair);
    }
    return list;
}

/* origin(index) -> origin_type(topic, partition, offset, timestamp in ms, key, headers) */
static PyObject *message_batch_origin(PyObject *object, PyObject *arguments) {
    Py_ssize_t index;
    if (!PyArg_ParseTuple(arguments, "n", &index)) return NULL;
    const rd_kafka_message_t *m = message_at(object, index);
    if (m == NULL) return NULL;
    PyObject *key = bytes_or_none(m->key, m->key_len), *headers = key == NULL ? NULL : headers_of(m);
    if (headers == NULL) {
        Py_XDECREF(key);
        return NULL;
    }
    int kind;
    return PyObject_CallFunction(((MessageBatchObject *)object)->origin_type, "siLLNN", rdkafka.topic_name(m->rkt),
                                 (int)m->partition, (long long)m->offset,
                                 (long long)rdkafka.message_timestamp(m, &kind), key, headers);
}

/* positions() -> {(topic, partition): offset behind its last record} */
static PyObject *message_batch_positions(PyObject *object, PyObject *unused) {
    (void)unused;
    MessageBatchObject *self = (MessageBatchObject *)object;
    PyObject *positions = PyDict_New();
    for (Py_ssize_t i = self->n - 1; positions != NULL && i >= 0; i--) {
        const rd_kafka_message_t *m = self->messages[i];
        /* Records of a partition come in runs; of each run only the last one is looked at. */
        if (i < self->n - 1 && m->rkt == self->messages[i + 1]->rkt && m->partition == self->messages[i + 1]->partition)
            continue;
        PyObject *key = Py_BuildValue("si", rdkafka.topic_name(m->rkt), (int)m->partition);
        PyObject *offset = key == NULL ? NULL : PyLong_FromLongLong((long long)m->offset + 1);
        if (offset == NULL || (PyDict_GetItemWithError(positions, key) == NULL &&
                               (PyErr_Occurred() || PyDict_SetItem(positions, key, offset) != 0)))
            Py_CLEAR(positions);
        Py_XDECREF(key);
        Py_XDECREF(offset);
    }
    return positions;
}

/* timestamps(into): int64 (n,) milliseconds since 1970 */
static PyObject *message_batch_timestamps(PyObject *object, PyObject *arguments) {
    MessageBatchObject *self = (MessageBatchObject *)object;
    Py_buffer into;
    if (!PyArg_ParseTuple(arguments, "w*", &into)) return NULL;
    int kind, fits = into.len == self->n * 8;
    for (Py_ssize_t i = 0; fits && i < self->n; i++)
        ((int64_t *)into.buf)[i] = rdkafka.message_timestamp(self->messages[i], &kind);
    PyBuffer_Release(&into);
    if (!fits) {
        PyErr_Format(PyExc_ValueError, "expected room for %zd timestamps", self->n);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* places(partitions, offsets, timestamps): int32, int64, int64 (n,), the last in milliseconds since 1970 */
static PyObject *message_batch_places(PyObject *object, PyObject *arguments) {
    MessageBatchObject *self = (MessageBatchObject *)object;
    Py_buffer partitions, offsets, timestamps;
    if (!PyArg_ParseTuple(arguments, "w*w*w*", &partitions, &offsets, &timestamps)) return NULL;
    int kind, fits = partitions.len == self->n * 4 && offsets.len == self->n * 8 && timestamps.len == self->n * 8;
    for (Py_ssize_t i = 0; fits && i < self->n; i++) {
        const rd_kafka_message_t *message = self->messages[i];
        ((int32_t *)partitions.buf)[i] = message->partition;
        ((int64_t *)offsets.buf)[i] = message->offset;
        ((int64_t *)timestamps.buf)[i] = rdkafka.message_timestamp(message, &kind);
    }
    PyBuffer_Release(&partitions);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&timestamps);
    if (!fits) {
        PyErr_Format(PyExc_ValueError, "expected room for %zd records", self->n);
        return NULL;
    }
    Py_RETURN_NONE;
}

enum { HEADER_BYTES = 10 }; /* engine/kafka/batch.py */

int message_is_beyond(const rd_kafka_message_t *message, const Demands *demands) {
    int kind;
    int64_t timestamp = rdkafka.message_timestamp(message, &kind);
    if (timestamp >= 0 && (timestamp < demands->earliest_ms || timestamp > demands->latest_ms)) return 1;
    if (demands->needs_key && message->key == NULL) return 1;
    int64_t size = (int64_t)(message->len + message->key_len);
    rd_kafka_headers_t *headers;
    if (rdkafka.message_headers(message, &headers) == 0) {
        const char *name;
        const void *value;
        size_t length;
        for (size_t i = 0; rdkafka.header_get_all(headers, i, &name, &value, &length) == 0; i++)
            size += (int64_t)(strlen(name) + length + HEADER_BYTES);
    }
    return size > demands->most_bytes;
}

/* beyond(most bytes, earliest ms, latest ms, needs a key) -> indices */
static PyObject *message_batch_beyond(PyObject *object, PyObject *arguments) {
    MessageBatchObject *self = (MessageBatchObject *)object;
    long long most, earliest, latest;
    int needs_key;
    if (!PyArg_ParseTuple(arguments, "LLLp", &most, &earliest, &latest, &needs_key)) return NULL;
    Demands demands = {most, earliest, latest, needs_key};
    PyObject *found = PyList_New(0);
    for (Py_ssize_t i = 0; found != NULL && i < self->n; i++) {
        if (!message_is_beyond(self->messages[i], &demands)) continue;
        PyObject *index = PyLong_FromSsize_t(i);
        if (index == NULL || PyList_Append(found, index) != 0) Py_CLEAR(found);
        Py_XDECREF(index);
    }
    return found;
}

int message_header(const rd_kafka_message_t *message, const char *wanted, const void **value, size_t *length) {
    rd_kafka_headers_t *headers;
    int found = 0;
    if (rdkafka.message_headers(message, &headers) != 0) return 0;
    const char *name;
    const void *here;
    size_t size;
    for (size_t i = 0; rdkafka.header_get_all(headers, i, &name, &here, &size) == 0; i++)
        if (strcmp(name, wanted) == 0) {
            *value = here;
            *length = size;
            found = 1;
        }
    return found;
}

/* with_header(name) -> [(index, value)] of the records that have it, the last one of several */
static PyObject *message_batch_with_header(PyObject *object, PyObject *arguments) {
    MessageBatchObject *self = (MessageBatchObject *)object;
    const char *name;
    if (!PyArg_ParseTuple(arguments, "s", &name)) return NULL;
    PyObject *found = PyList_New(0);
    for (Py_ssize_t i = 0; found != NULL && i < self->n; i++) {
        const void *value;
        size_t length;
        if (!message_header(self->messages[i], name, &value, &length)) continue;
        PyObject *pair = Py_BuildValue("nN", i, bytes_or_none(value, length));
        if (pair == NULL || PyList_Append(found, pair) != 0) Py_CLEAR(found);
        Py_XDECREF(pair);
    }
    return found;
}

static PyMethodDef methods[] = {{"origin", message_batch_origin, METH_VARARGS, NULL},
                                {"positions", message_batch_positions, METH_NOARGS, NULL},
                                {"timestamps", message_batch_timestamps, METH_VARARGS, NULL},
                                {"places", message_batch_places, METH_VARARGS, NULL},
                                {"with_header", message_batch_with_header, METH_VARARGS, NULL},
                                {"beyond", message_batch_beyond, METH_VARARGS, NULL},
                                {NULL, NULL, 0, NULL}};
static PyType_Slot slots[] = {{Py_tp_dealloc, message_batch_dealloc},
                              {Py_tp_methods, methods},
                              {Py_sq_length, message_batch_length},
                              {Py_sq_item, message_batch_item},
                              {0, NULL}};
static PyType_Spec spec = {"saker.engine.kernels._native.MessageBatch", sizeof(MessageBatchObject), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};

PyObject *message_batch_type(void) {
    if (type == NULL) type = (PyTypeObject *)PyType_FromSpec(&spec);
    return Py_XNewRef((PyObject *)type);
}
