#include "messages.h"
#include "../rows/batch_values.h"

#include <stdlib.h>

static PyTypeObject *type; /* of Messages; made once, kept by the module */

int is_messages(PyObject *object) { return Py_TYPE(object) == type; }

MessagesObject *messages_new(PyObject *consumer, Py_ssize_t room) {
    MessagesObject *self = (MessagesObject *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    self->consumer = Py_NewRef(consumer);
    self->messages = malloc(((size_t)room + 1) * sizeof *self->messages);
    if (self->messages == NULL) {
        Py_DECREF((PyObject *)self);
        return (MessagesObject *)PyErr_NoMemory();
    }
    return self;
}

static void messages_dealloc(PyObject *object) {
    MessagesObject *self = (MessagesObject *)object;
    PyTypeObject *of = Py_TYPE(object);
    for (Py_ssize_t i = 0; i < self->n; i++) rdkafka.message_destroy(self->messages[i]);
    free(self->messages);
    Py_XDECREF(self->consumer);
    ((freefunc)PyType_GetSlot(of, Py_tp_free))(object);
    Py_DECREF(of);
}

static const rd_kafka_message_t *message_at(PyObject *object, Py_ssize_t index) {
    MessagesObject *self = (MessagesObject *)object;
    if (index < 0 || index >= self->n) {
        PyErr_Format(PyExc_IndexError, "there are %zd records, and no record %zd", self->n, index);
        return NULL;
    }
    return self->messages[index];
}

int messages_value(PyObject *values, Py_ssize_t index, Value *value) {
    if (!is_messages(values)) return 0;
    const rd_kafka_message_t *message = message_at(values, index);
    if (message == NULL) return -1;
    value->bytes = message->payload;
    value->length = (Py_ssize_t)message->len;
    return 1;
}

static Py_ssize_t messages_length(PyObject *object) { return ((MessagesObject *)object)->n; }

static PyObject *bytes_or_none(const void *bytes, size_t length) {
    return bytes == NULL ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize(bytes, (Py_ssize_t)length);
}

static PyObject *messages_item(PyObject *object, Py_ssize_t index) {
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
        PyObject *bytes = bytes_or_none(value, size), *pair = bytes == NULL ? NULL : Py_BuildValue("sN", name, bytes);
        if (pair == NULL || PyList_Append(list, pair) != 0) Py_CLEAR(list);
        Py_XDECREF(pair);
    }
    return list;
}

/* origin(index) -> (topic, partition, offset, timestamp in ms, key, headers) */
static PyObject *messages_origin(PyObject *object, PyObject *arguments) {
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
    return Py_BuildValue("siLLNN", rdkafka.topic_name(m->rkt), (int)m->partition, (long long)m->offset,
                         (long long)rdkafka.message_timestamp(m, &kind), key, headers);
}

/* positions() -> {(topic, partition): offset behind its last record} */
static PyObject *messages_positions(PyObject *object, PyObject *unused) {
    (void)unused;
    MessagesObject *self = (MessagesObject *)object;
    PyObject *positions = PyDict_New();
    for (Py_ssize_t i = self->n - 1; positions != NULL && i >= 0; i--) {
        const rd_kafka_message_t *m = self->messages[i];
        /* Records of a partition come in runs; of each run only the last one is looked at. */
        if (i < self->n - 1 && m->rkt == self->messages[i + 1]->rkt && m->partition == self->messages[i + 1]->partition) continue;
        PyObject *key = Py_BuildValue("si", rdkafka.topic_name(m->rkt), (int)m->partition);
        PyObject *offset = key == NULL ? NULL : PyLong_FromLongLong((long long)m->offset + 1);
        if (offset == NULL || (PyDict_GetItemWithError(positions, key) == NULL && (PyErr_Occurred() || PyDict_SetItem(positions, key, offset) != 0)))
            Py_CLEAR(positions);
        Py_XDECREF(key);
        Py_XDECREF(offset);
    }
    return positions;
}

/* timestamps(into): int64 (n,) milliseconds since 1970 */
static PyObject *messages_timestamps(PyObject *object, PyObject *arguments) {
    MessagesObject *self = (MessagesObject *)object;
    Py_buffer into;
    if (!PyArg_ParseTuple(arguments, "w*", &into)) return NULL;
    int kind, fits = into.len == self->n * 8;
    for (Py_ssize_t i = 0; fits && i < self->n; i++) ((int64_t *)into.buf)[i] = rdkafka.message_timestamp(self->messages[i], &kind);
    PyBuffer_Release(&into);
    if (!fits) {
        PyErr_Format(PyExc_ValueError, "expected room for %zd timestamps", self->n);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"origin", messages_origin, METH_VARARGS, NULL},
                                {"positions", messages_positions, METH_NOARGS, NULL},
                                {"timestamps", messages_timestamps, METH_VARARGS, NULL},
                                {NULL, NULL, 0, NULL}};
static PyType_Slot slots[] = {{Py_tp_dealloc, messages_dealloc}, {Py_tp_methods, methods}, {Py_sq_length, messages_length},
                              {Py_sq_item, messages_item}, {0, NULL}};
static PyType_Spec spec = {"saker.engine.kernels._native.Messages", sizeof(MessagesObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};

PyObject *messages_type(void) {
    if (type == NULL) type = (PyTypeObject *)PyType_FromSpec(&spec);
    return Py_XNewRef((PyObject *)type);
}
