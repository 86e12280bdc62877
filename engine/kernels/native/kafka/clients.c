/* The clients that librdkafka announces to this extension, and of each the messages that were delivered.

   The extension is a plugin of librdkafka too (its setting plugin.library.paths): librdkafka calls it while a client is
   made, in the thread that makes it, and when one is destroyed. So the handle of a client is known from librdkafka
   itself, and no memory of confluent_kafka's objects is read. Its interceptor counts acknowledgements: a delivery
   report for each message would be needed otherwise, and confluent_kafka makes Python objects of each.

   Threads: `made` and `last_client` run in the thread that makes a client; `destroyed` in the one that destroys it;
   `note` in librdkafka's threads, for one client one at a time. The list only grows, at its head, by compare-and-swap.
 */
#include "message_batch.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct Client {
    _Atomic(rd_kafka_t *) handle; /* NULL once destroyed: another client may have its address then */
    Deliveries deliveries;
    struct Client *older;
} Client;

/* The newest first; never freed, for librdkafka's threads may note an acknowledgement until a client's very end. */
static _Atomic(Client *) newest;
static _Thread_local rd_kafka_t *last;

static const Client *find(const rd_kafka_t *handle) {
    for (Client *c = atomic_load(&newest); c != NULL; c = c->older)
        if (handle != NULL && atomic_load(&c->handle) == handle) return c;
    return NULL;
}

const Deliveries *deliveries_of(const rd_kafka_t *client) {
    const Client *found = find(client);
    return found == NULL ? NULL : &found->deliveries;
}

rd_kafka_t *client_at(unsigned long long address, int type) {
    rd_kafka_t *client = (rd_kafka_t *)(uintptr_t)address;
    if (find(client) == NULL)
        PyErr_SetString(PyExc_ValueError, "librdkafka knows no such client, or it was made without this plugin");
    else if (rdkafka.type(client) != type)
        PyErr_Format(PyExc_ValueError, "the client is no %s", type == RD_KAFKA_PRODUCER ? "producer" : "consumer");
    else return client;
    return NULL;
}

/* last_client() -> handle of the client that this thread made last, with the plugin; 0 if there is none, or it was
 * asked for already */
PyObject *last_client(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    rd_kafka_t *client = last;
    last = NULL;
    return PyLong_FromUnsignedLongLong((unsigned long long)(uintptr_t)client);
}

/* For each message in the order of its partition, before its delivery is reported. */
static int note(rd_kafka_t *client, rd_kafka_message_t *message, void *opaque) {
    (void)client;
    Deliveries *deliveries = opaque;
    int none = 0;
    if (message->err != 0) atomic_compare_exchange_strong(&deliveries->failure, &none, message->err);
    else if (message->_private == NULL && (uint32_t)message->partition < MAX_PARTITIONS &&
             atomic_load(&deliveries->failure) == 0)
        atomic_fetch_add(deliveries->counts + message->partition,
                         1); /* and none after a failure: the next ones would stand for it */
    return 0;
}

static int destroyed(rd_kafka_t *client, void *opaque) {
    (void)client;
    atomic_store(&((Client *)opaque)->handle, NULL);
    return 0;
}

static int made(rd_kafka_t *client, const rd_kafka_conf_t *conf, void *opaque, char *error, size_t error_size) {
    (void)conf, (void)opaque;
    Client *new = calloc(1, sizeof *new);
    if (new != NULL)
        new->deliveries.counts = calloc(MAX_PARTITIONS, sizeof *new->deliveries.counts); /* pages that are used only */
    int code = -1;
    if (new != NULL && new->deliveries.counts != NULL) {
        code = rdkafka.interceptor_add_on_acknowledgement(client, "saker", note, &new->deliveries);
        if (code == 0) code = rdkafka.interceptor_add_on_destroy(client, "saker", destroyed, new);
    }
    if (code !=
        0) { /* librdkafka gives the client up, so nothing calls back: but memory it may know of is better kept */
        snprintf(error, error_size, "saker: the interceptor was not added");
        return code;
    }
    atomic_store(&new->handle, client);
    new->older = atomic_load(&newest);
    while (!atomic_compare_exchange_weak(&newest, &new->older, new)) {
    }
    last = client;
    return 0;
}

/* What librdkafka calls when a configuration names this plugin. */
__attribute__((visibility("default"))) int conf_init(rd_kafka_conf_t *conf, void **opaque, char *error,
                                                     size_t error_size) {
    (void)opaque;
    if (rdkafka.conf_interceptor_add_on_new != NULL)
        return rdkafka.conf_interceptor_add_on_new(conf, "saker", made, NULL);
    snprintf(error, error_size, "saker: open_librdkafka comes first");
    return -1;
}
