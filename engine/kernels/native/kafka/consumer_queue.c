/* `ConsumerQueue`: a separate queue, to which partitions of a confluent_kafka Consumer are forwarded.

   Rebalances, commits and errors of the group stay on the consumer's own queue, whose callbacks only confluent_kafka
   may serve: the owner has to keep polling the consumer.

   Threads: every function here is called with the GIL held, by any thread. `consumer_queue_consume` alone drops the
   GIL, around librdkafka's calls. `close` may therefore come while another thread consumes: the queue is destroyed by
   whoever uses it last, and `users` and `queue` change only under the GIL. */
#include "message_batch.h"

typedef struct {
    PyObject_HEAD PyObject *consumer, *origin_type;
    rd_kafka_t *client;
    rd_kafka_queue_t *queue; /* NULL once closed */
    int users;               /* calls that have dropped the GIL while they consume */
} ConsumerQueueObject;

static PyTypeObject *class; /* made once, kept by the module */

/* ConsumerQueue(consumer, address of its rd_kafka_t, type of an origin) */
static PyObject *consumer_queue_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"consumer", "handle", "origin_type", NULL};
    PyObject *consumer, *origin_type;
    unsigned long long address;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OKO", names, &consumer, &address, &origin_type)) return NULL;
    rd_kafka_t *client = client_at(address, RD_KAFKA_CONSUMER);
    if (client == NULL) return NULL;
    ConsumerQueueObject *self = (ConsumerQueueObject *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    self->consumer = Py_NewRef(consumer);
    self->origin_type = Py_NewRef(origin_type);
    self->client = client;
    self->queue = rdkafka.queue_new(client);
    return (PyObject *)self;
}

static void destroy_queue(rd_kafka_queue_t *queue) {
    if (queue != NULL) rdkafka.queue_destroy(queue);
}

/* Before the consumer is closed: a client does not end while somebody holds a queue of it. */
static PyObject *consumer_queue_close(PyObject *object, PyObject *unused) {
    (void)unused;
    ConsumerQueueObject *self = (ConsumerQueueObject *)object;
    rd_kafka_queue_t *queue = self->queue;
    self->queue = NULL;
    if (self->users == 0) destroy_queue(queue); /* else the last user does it */
    Py_RETURN_NONE;
}

static void consumer_queue_dealloc(PyObject *object) {
    ConsumerQueueObject *self = (ConsumerQueueObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    destroy_queue(self->queue); /* a consumer holds a reference, so there is none */
    Py_XDECREF(self->consumer);
    Py_XDECREF(self->origin_type);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* attach(topic, partition): its records come here from now on, also after it was taken away and given back */
static PyObject *consumer_queue_attach(PyObject *object, PyObject *arguments) {
    ConsumerQueueObject *self = (ConsumerQueueObject *)object;
    const char *topic;
    int partition;
    if (!PyArg_ParseTuple(arguments, "si", &topic, &partition)) return NULL;
    rd_kafka_queue_t *queue = self->queue == NULL ? NULL : rdkafka.queue_get_partition(self->client, topic, partition);
    if (queue == NULL) {
        PyErr_Format(PyExc_ValueError, "partition %d of %s has no queue", partition, topic);
        return NULL;
    }
    rdkafka.queue_forward(queue, self->queue);
    rdkafka.queue_destroy(queue);
    Py_RETURN_NONE;
}

int is_consumer_queue(PyObject *object) { return Py_TYPE(object) == class; }

MessageBatchObject *consumer_queue_batch(PyObject *object, Py_ssize_t most) {
    ConsumerQueueObject *self = (ConsumerQueueObject *)object;
    if (self->queue == NULL || most < 1) {
        PyErr_SetString(PyExc_ValueError, "expected an open ConsumerQueue and room for a record");
        return NULL;
    }
    return message_batch_new(self->consumer, self->origin_type, most);
}

size_t consumer_queue_consume(PyObject *object, MessageBatchObject *batch, size_t most, int wait_ms) {
    ConsumerQueueObject *self = (ConsumerQueueObject *)object;
    rd_kafka_queue_t *queue = self->queue;
    if (queue == NULL) return 0; /* closed since the batch was made */
    ssize_t first, more = 0;
    self->users++;
    Py_BEGIN_ALLOW_THREADS
        /* With room for several it would wait until all of them are there. */
        first = rdkafka.consume_batch_queue(queue, wait_ms, batch->messages, 1);
        if (first == 1 && most > 1) more = rdkafka.consume_batch_queue(queue, 0, batch->messages + 1, most - 1);
    Py_END_ALLOW_THREADS
    if (--self->users == 0 && self->queue == NULL) destroy_queue(queue);
    return (first == 1 ? 1 : 0) + (more > 0 ? (size_t)more : 0);
}

/* poll(most, wait in ms) -> (MessageBatch, [(error code, text)]): what is there now, one record waited for */
static PyObject *consumer_queue_poll(PyObject *object, PyObject *arguments) {
    Py_ssize_t most;
    int wait_ms;
    if (!PyArg_ParseTuple(arguments, "ni", &most, &wait_ms)) return NULL;
    MessageBatchObject *batch = consumer_queue_batch(object, most);
    return batch == NULL
               ? NULL
               : message_batch_with_errors(batch, consumer_queue_consume(object, batch, (size_t)most, wait_ms));
}

static PyMethodDef methods[] = {{"attach", consumer_queue_attach, METH_VARARGS, NULL},
                                {"poll", consumer_queue_poll, METH_VARARGS, NULL},
                                {"close", consumer_queue_close, METH_NOARGS, NULL},
                                {NULL, NULL, 0, NULL}};
static PyType_Slot slots[] = {
    {Py_tp_new, consumer_queue_new}, {Py_tp_dealloc, consumer_queue_dealloc}, {Py_tp_methods, methods}, {0, NULL}};
static PyType_Spec spec = {"saker.engine.kernels._native.ConsumerQueue", sizeof(ConsumerQueueObject), 0,
                           Py_TPFLAGS_DEFAULT, slots};

PyObject *consumer_queue_type(void) {
    if (class == NULL) class = (PyTypeObject *)PyType_FromSpec(&spec);
    return Py_XNewRef((PyObject *)class);
}
