/* `ResultProducer`: produces the results of a batch on a confluent_kafka Producer, each with the key, partition,
   timestamp and headers of its record. No delivery report is asked for: confluent_kafka's callback steps over messages
   without its own opaque value. clients.c counts them.

   Threads: one worker thread owns a ResultProducer. `send` drops the GIL while it produces: only records, results and
   librdkafka are touched then. Acknowledgements are counted by librdkafka's threads and read here atomically. */
#include "../rows/results.h"
#include "message_batch.h"

#include <stdlib.h>

typedef struct {
    PyObject_HEAD PyObject *producer;
    rd_kafka_t *client;
    rd_kafka_topic_t *topic;
    const Deliveries *deliveries;
    unsigned long long *sent; /* to each partition */
} ResultProducerObject;

/* When a batch is delivered: once this many records of the partition are. */
typedef struct {
    unsigned long long count;
    int32_t partition, unused;
} Mark;

/* ResultProducer(producer, address of its rd_kafka_t, topic) */
static PyObject *result_producer_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"producer", "handle", "topic", NULL};
    PyObject *producer;
    unsigned long long address;
    const char *topic;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OKs", names, &producer, &address, &topic)) return NULL;
    rd_kafka_t *client = client_at(address, RD_KAFKA_PRODUCER);
    if (client == NULL) return NULL;
    ResultProducerObject *self = (ResultProducerObject *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    self->producer = Py_NewRef(producer);
    self->client = client;
    self->topic = rdkafka.topic_new(client, topic, NULL);
    self->deliveries = deliveries_of(client);
    self->sent = calloc(MAX_PARTITIONS, sizeof *self->sent);
    if (self->topic == NULL || self->deliveries == NULL || self->sent == NULL) {
        Py_DECREF((PyObject *)self);
        PyErr_Format(PyExc_ValueError, "librdkafka does not take topic %s, or was set up without the plugin", topic);
        return NULL;
    }
    return (PyObject *)self;
}

static void result_producer_dealloc(PyObject *object) {
    ResultProducerObject *self = (ResultProducerObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->topic != NULL) rdkafka.topic_destroy(self->topic);
    Py_XDECREF(self->producer);
    free(self->sent);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* 0, or librdkafka's error code */
static int send_one(const ResultProducerObject *self, const rd_kafka_message_t *record, char *line, size_t length) {
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

static PyTypeObject *class; /* made once, kept by the module */

int is_result_producer(PyObject *object) { return Py_TYPE(object) == class; }

int result_producer_send(PyObject *result_producer, const rd_kafka_message_t *record, char *line, size_t length) {
    ResultProducerObject *self = (ResultProducerObject *)result_producer;
    int code = send_one(self, record, line, length);
    if (code == 0) self->sent[record->partition]++;
    return code;
}

unsigned long long result_producer_sent(PyObject *result_producer, int32_t partition) {
    return ((ResultProducerObject *)result_producer)->sent[partition];
}

int result_producer_delivered_count(PyObject *result_producer, int32_t partition, unsigned long long count) {
    return atomic_load(((ResultProducerObject *)result_producer)->deliveries->counts + partition) >= count;
}

/* What `delivered` is to be asked for the records at indices `at`, all of which are sent; they come in runs of a
 * partition. */
static PyObject *mark_of(const ResultProducerObject *self, MessageBatchObject *messages, const int32_t *at,
                         Py_ssize_t n) {
    Py_ssize_t n_marks = 0;
    for (int pass = 0;; pass++) {
        PyObject *marks = pass ? PyBytes_FromStringAndSize(NULL, n_marks * (Py_ssize_t)sizeof(Mark)) : NULL;
        if (pass && marks == NULL) return NULL;
        Mark *out = pass ? (Mark *)(void *)PyBytes_AsString(marks) : NULL;
        n_marks = 0;
        for (Py_ssize_t i = 0; i < n; i++) {
            int32_t partition = messages->messages[at[i]]->partition;
            if (i + 1 < n && messages->messages[at[i + 1]]->partition == partition) continue;
            if (pass) out[n_marks] = (Mark){self->sent[partition], partition, 0};
            n_marks++;
        }
        if (pass) return marks;
    }
}

/* send(messages, indices, lines, first) -> (next, error code, mark): from place `first` of `indices` on, until all are
   sent, the queue is full (next < n, 0) or there is an error. mark: for `delivered`, when all are sent, else None. */
static PyObject *result_producer_send_batch(PyObject *object, PyObject *arguments) {
    ResultProducerObject *self = (ResultProducerObject *)object;
    PyObject *messages_object, *lines_object;
    Py_buffer indices;
    Py_ssize_t first;
    if (!PyArg_ParseTuple(arguments, "Oy*On", &messages_object, &indices, &lines_object, &first)) return NULL;
    PyObject *answer = NULL;
    Py_ssize_t n = indices.len / 4, place = first;
    const int32_t *at = indices.buf;
    MessageBatchObject *messages = (MessageBatchObject *)messages_object;
    ResultsObject *lines = (ResultsObject *)lines_object;
    int fits = is_message_batch(messages_object) && is_results(lines_object) && lines->n == n && first >= 0;
    for (Py_ssize_t i = 0; fits && i < n; i++)
        fits = at[i] >= 0 && at[i] < messages->n && (uint32_t)messages->messages[at[i]]->partition < MAX_PARTITIONS;
    if (!fits) {
        PyErr_Format(PyExc_ValueError,
                     "expected MessageBatch, the indices of some of them, and Results, one for each index, and "
                     "partitions below %d",
                     MAX_PARTITIONS);
        goto done;
    }
    int error = 0;
    Py_BEGIN_ALLOW_THREADS
        for (; place < n; place++) {
            const rd_kafka_message_t *record = messages->messages[at[place]];
            Py_ssize_t start = result_start(lines, place);
            if ((error = result_producer_send(object, record, lines->text + start,
                                              (size_t)(lines->ends[place] - start))) != 0)
                break;
        }
    Py_END_ALLOW_THREADS
    PyObject *mark = place == n ? mark_of(self, messages, at, n) : Py_NewRef(Py_None);
    if (mark != NULL) answer = Py_BuildValue("niN", place, error == ERR__QUEUE_FULL ? 0 : error, mark);
done:
    PyBuffer_Release(&indices);
    return answer;
}

/* delivered(mark) -> whether all that it stands for are */
static PyObject *result_producer_delivered(PyObject *object, PyObject *arguments) {
    Py_buffer marks;
    if (!PyArg_ParseTuple(arguments, "y*", &marks)) return NULL;
    const Mark *mark = marks.buf;
    int all = marks.len % (Py_ssize_t)sizeof *mark == 0;
    for (Py_ssize_t i = 0; all && i < marks.len / (Py_ssize_t)sizeof *mark; i++)
        all = (uint32_t)mark[i].partition < MAX_PARTITIONS &&
              result_producer_delivered_count(object, mark[i].partition, mark[i].count);
    PyBuffer_Release(&marks);
    return PyBool_FromLong(all);
}

/* failure() -> error code of the first message that was not delivered, or 0 */
static PyObject *result_producer_failure(PyObject *object, PyObject *unused) {
    (void)unused;
    return PyLong_FromLong(atomic_load(&((ResultProducerObject *)object)->deliveries->failure));
}

static PyMethodDef methods[] = {{"send", result_producer_send_batch, METH_VARARGS, NULL},
                                {"delivered", result_producer_delivered, METH_VARARGS, NULL},
                                {"failure", result_producer_failure, METH_NOARGS, NULL},
                                {NULL, NULL, 0, NULL}};
static PyType_Slot slots[] = {
    {Py_tp_new, result_producer_new}, {Py_tp_dealloc, result_producer_dealloc}, {Py_tp_methods, methods}, {0, NULL}};
static PyType_Spec spec = {"saker.engine.kernels._native.ResultProducer", sizeof(ResultProducerObject), 0,
                           Py_TPFLAGS_DEFAULT, slots};

PyObject *result_producer_type(void) {
    if (class == NULL) class = (PyTypeObject *)PyType_FromSpec(&spec);
    return Py_XNewRef((PyObject *)class);
}
