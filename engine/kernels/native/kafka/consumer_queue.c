/* `Taker`: a queue of its own, to which partitions of a confluent_kafka Consumer are forwarded; ../fast_path.c takes from it.

   Rebalances, commits and errors of the group stay on the consumer's own queue, whose callbacks only confluent_kafka may serve:
   somebody has to go on polling the consumer. */
#include "messages.h"

typedef struct {
    PyObject_HEAD PyObject *consumer;
    rd_kafka_t *client;
    rd_kafka_queue_t *queue;
} TakerObject;

static PyTypeObject *class; /* made once, kept by the module */

/* Taker(consumer, address of its rd_kafka_t) */
static PyObject *taker_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"consumer", "address", NULL};
    PyObject *consumer;
    unsigned long long address;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OK", names, &consumer, &address)) return NULL;
    rd_kafka_t *client = client_at(address, 1);
    if (client == NULL) return NULL;
    TakerObject *self = (TakerObject *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    self->consumer = Py_NewRef(consumer);
    self->client = client;
    self->queue = rdkafka.queue_new(client);
    return (PyObject *)self;
}

/* Before the consumer is closed: a client does not end while somebody holds a queue of it. */
static PyObject *taker_close(PyObject *object, PyObject *unused) {
    (void)unused;
    TakerObject *self = (TakerObject *)object;
    if (self->queue != NULL) rdkafka.queue_destroy(self->queue);
    self->queue = NULL;
    Py_RETURN_NONE;
}

static void taker_dealloc(PyObject *object) {
    TakerObject *self = (TakerObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->queue != NULL) rdkafka.queue_destroy(self->queue);
    Py_XDECREF(self->consumer);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* forward(topic, partition): its records come here from now on, also after it was taken away and given back */
static PyObject *taker_forward(PyObject *object, PyObject *arguments) {
    TakerObject *self = (TakerObject *)object;
    const char *topic;
    int partition;
    if (!PyArg_ParseTuple(arguments, "si", &topic, &partition)) return NULL;
    rd_kafka_queue_t *queue = rdkafka.queue_get_partition(self->client, topic, partition);
    if (queue == NULL || self->queue == NULL) {
        PyErr_Format(PyExc_ValueError, "partition %d of %s has no queue", partition, topic);
        return NULL;
    }
    rdkafka.queue_forward(queue, self->queue);
    rdkafka.queue_destroy(queue);
    Py_RETURN_NONE;
}

int is_taker(PyObject *object) { return Py_TYPE(object) == class; }

int taker_is_open(PyObject *taker) { return ((TakerObject *)taker)->queue != NULL; }

PyObject *taker_consumer(PyObject *taker) { return ((TakerObject *)taker)->consumer; }

size_t taker_consume(PyObject *taker, rd_kafka_message_t **into, size_t most, int wait_ms) {
    rd_kafka_queue_t *queue = ((TakerObject *)taker)->queue;
    /* With room for several it would wait until all of them are there. */
    if (rdkafka.consume_batch_queue(queue, wait_ms, into, 1) < 1) return 0;
    ssize_t more = most > 1 ? rdkafka.consume_batch_queue(queue, 0, into + 1, most - 1) : 0;
    return more > 0 ? 1 + (size_t)more : 1;
}

static PyMethodDef methods[] = {{"forward", taker_forward, METH_VARARGS, NULL},
                                {"close", taker_close, METH_NOARGS, NULL},
                                {NULL, NULL, 0, NULL}};
static PyType_Slot slots[] = {{Py_tp_new, taker_new}, {Py_tp_dealloc, taker_dealloc}, {Py_tp_methods, methods}, {0, NULL}};
static PyType_Spec spec = {"saker.engine.kernels._native.Taker", sizeof(TakerObject), 0, Py_TPFLAGS_DEFAULT, slots};

PyObject *taker_type(void) {
    if (class == NULL) class = (PyTypeObject *)PyType_FromSpec(&spec);
    return Py_XNewRef((PyObject *)class);
}
