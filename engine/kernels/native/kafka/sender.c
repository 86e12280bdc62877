/* `Sender`: produces the results of a batch on a confluent_kafka Producer, each with the key, partition, timestamp and headers of
   its record. No delivery report is asked for: confluent_kafka's callback steps over messages without its own opaque value. What
   fails is noted by failures.c. */
#include "../lines.h"
#include "messages.h"

typedef struct {
    PyObject_HEAD PyObject *producer;
    rd_kafka_t *client;
    rd_kafka_topic_t *topic;
    const atomic_int *failure;
} SenderObject;

/* Sender(producer, address of its rd_kafka_t, topic) */
static PyObject *sender_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"producer", "address", "topic", NULL};
    PyObject *producer;
    unsigned long long address;
    const char *topic;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OKs", names, &producer, &address, &topic)) return NULL;
    rd_kafka_t *client = client_at(address, 0);
    if (client == NULL) return NULL;
    SenderObject *self = (SenderObject *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    self->producer = Py_NewRef(producer);
    self->client = client;
    self->topic = rdkafka.topic_new(client, topic, NULL);
    self->failure = failure_of(client);
    if (self->topic == NULL || self->failure == NULL) {
        Py_DECREF((PyObject *)self);
        PyErr_Format(PyExc_ValueError, "librdkafka does not take topic %s, or was set up without the plugin", topic);
        return NULL;
    }
    return (PyObject *)self;
}

static void sender_dealloc(PyObject *object) {
    SenderObject *self = (SenderObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->topic != NULL) rdkafka.topic_destroy(self->topic);
    Py_XDECREF(self->producer);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* 0, or librdkafka's error code */
static int send_one(const SenderObject *self, const rd_kafka_message_t *record, char *line, size_t length) {
    int kind;
    int64_t timestamp = rdkafka.message_timestamp(record, &kind);
    rd_kafka_headers_t *headers = NULL;
    if (rdkafka.message_headers(record, &headers) != 0) headers = NULL;
    rd_kafka_vu_t arguments[] = {
        {VTYPE_RKT, {.rkt = self->topic}},
        {VTYPE_PARTITION, {.i32 = record->partition}},
        {VTYPE_VALUE, {.mem = {line, length}}},
        {VTYPE_KEY, {.mem = {record->key, record->key_len}}},
        {VTYPE_TIMESTAMP, {.i64 = timestamp > 0 ? timestamp : 0}},
        {VTYPE_MSGFLAGS, {.i = MSG_F_COPY}},
        {VTYPE_HEADERS, {.headers = NULL}},
    };
    size_t n = sizeof arguments / sizeof *arguments - 1;
    if (headers != NULL) arguments[n++].u.headers = headers = rdkafka.headers_copy(headers);
    rd_kafka_error_t *error = rdkafka.produceva(self->client, arguments, n);
    if (error == NULL) return 0;
    if (headers != NULL) rdkafka.headers_destroy(headers); /* taken over only where it worked */
    int code = rdkafka.error_code(error);
    rdkafka.error_destroy(error);
    return code;
}

/* send(messages, indices, lines, left out, first) -> (next, error code): from place `first` of `indices` on, but for the places in
   `left out` (int32, ascending), until all are sent, the queue is full (next < n, 0) or there is an error. */
static PyObject *sender_send(PyObject *object, PyObject *arguments) {
    SenderObject *self = (SenderObject *)object;
    PyObject *messages_object, *lines_object;
    Py_buffer indices, left_out;
    Py_ssize_t first;
    if (!PyArg_ParseTuple(arguments, "Oy*Oy*n", &messages_object, &indices, &lines_object, &left_out, &first)) return NULL;
    PyObject *answer = NULL;
    Py_ssize_t n = indices.len / 4, n_left_out = left_out.len / 4, next_left_out = 0, place = first;
    const int32_t *at = indices.buf, *out = left_out.buf;
    MessagesObject *messages = (MessagesObject *)messages_object;
    LinesObject *lines = (LinesObject *)lines_object;
    int fits = is_messages(messages_object) && is_lines(lines_object) && lines->n == n && first >= 0;
    for (Py_ssize_t i = 0; fits && i < n; i++) fits = at[i] >= 0 && at[i] < messages->n;
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "expected Messages, the indices of some of them, and Lines, one for each index");
        goto done;
    }
    int error = 0;
    Py_BEGIN_ALLOW_THREADS
    while (next_left_out < n_left_out && out[next_left_out] < first) next_left_out++;
    for (; place < n && error == 0; place++) {
        if (next_left_out < n_left_out && out[next_left_out] == place) {
            next_left_out++;
            continue;
        }
        Py_ssize_t start = line_start(lines, place);
        error = send_one(self, messages->messages[at[place]], lines->text + start, (size_t)(lines->ends[place] - start));
    }
    Py_END_ALLOW_THREADS
    if (error != 0) place--;
    answer = Py_BuildValue("ni", place, error == ERR__QUEUE_FULL ? 0 : error);
done:
    PyBuffer_Release(&indices);
    PyBuffer_Release(&left_out);
    return answer;
}

/* failure() -> error code of the first message that was not delivered, or 0 */
static PyObject *sender_failure(PyObject *object, PyObject *unused) {
    (void)unused;
    return PyLong_FromLong(atomic_load(((SenderObject *)object)->failure));
}

static PyMethodDef methods[] = {
    {"send", sender_send, METH_VARARGS, NULL}, {"failure", sender_failure, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyType_Slot slots[] = {{Py_tp_new, sender_new}, {Py_tp_dealloc, sender_dealloc}, {Py_tp_methods, methods}, {0, NULL}};
static PyType_Spec spec = {"engine.kernels._native.Sender", sizeof(SenderObject), 0, Py_TPFLAGS_DEFAULT, slots};

PyObject *sender_type(void) { return PyType_FromSpec(&spec); }
