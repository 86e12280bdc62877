/* `Taker`: takes records from a queue of its own, to which partitions of a confluent_kafka Consumer are forwarded.

   Rebalances, commits and errors of the group stay on the consumer's own queue, whose callbacks only confluent_kafka may serve:
   somebody has to go on polling the consumer. */
#include "messages.h"

typedef struct {
    PyObject_HEAD PyObject *consumer;
    rd_kafka_t *client;
    rd_kafka_queue_t *queue;
} TakerObject;

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

/* take(most, wait in ms) -> (Messages, [(error code, text)]): what is there now, one record waited for. */
static PyObject *taker_take(PyObject *object, PyObject *arguments) {
    TakerObject *self = (TakerObject *)object;
    Py_ssize_t most;
    int wait_ms;
    if (!PyArg_ParseTuple(arguments, "ni", &most, &wait_ms)) return NULL;
    if (self->queue == NULL || most < 1) {
        PyErr_SetString(PyExc_ValueError, "expected an open taker and room for a record");
        return NULL;
    }
    MessagesObject *taken = messages_new(self->consumer, most);
    PyObject *errors = taken == NULL ? NULL : PyList_New(0);
    if (errors == NULL) {
        Py_XDECREF((PyObject *)taken);
        return NULL;
    }
    ssize_t n, more = 0;
    Py_BEGIN_ALLOW_THREADS
    /* With room for several it would wait until all of them are there. */
    n = rdkafka.consume_batch_queue(self->queue, wait_ms, taken->messages, 1);
    if (n > 0 && most > 1) more = rdkafka.consume_batch_queue(self->queue, 0, taken->messages + 1, (size_t)most - 1);
    Py_END_ALLOW_THREADS
    n = (n > 0 ? n : 0) + (more > 0 ? more : 0);
    for (ssize_t i = 0; i < n; i++) {
        rd_kafka_message_t *message = taken->messages[i];
        if (message->err == 0) {
            taken->messages[taken->n++] = message;
            continue;
        }
        PyObject *pair = errors == NULL ? NULL : Py_BuildValue("is#", message->err, message->payload != NULL ? (const char *)message->payload : "", (Py_ssize_t)(message->payload != NULL ? message->len : 0));
        if (pair == NULL || PyList_Append(errors, pair) != 0) Py_CLEAR(errors);
        Py_XDECREF(pair);
        rdkafka.message_destroy(message);
    }
    if (errors == NULL) {
        Py_DECREF((PyObject *)taken);
        return NULL;
    }
    return Py_BuildValue("NN", taken, errors);
}

static PyMethodDef methods[] = {{"forward", taker_forward, METH_VARARGS, NULL},
                                {"take", taker_take, METH_VARARGS, NULL},
                                {"close", taker_close, METH_NOARGS, NULL},
                                {NULL, NULL, 0, NULL}};
static PyType_Slot slots[] = {{Py_tp_new, taker_new}, {Py_tp_dealloc, taker_dealloc}, {Py_tp_methods, methods}, {0, NULL}};
static PyType_Spec spec = {"engine.kernels._native.Taker", sizeof(TakerObject), 0, Py_TPFLAGS_DEFAULT, slots};

PyObject *taker_type(void) { return PyType_FromSpec(&spec); }
