/* Counts the messages of each client that were delivered, and notes the first one that was not.

   The extension is a plugin of librdkafka too (its setting plugin.library.paths): interceptors can be added only while a client is
   made. Without it a delivery report for each message would be needed, and confluent_kafka makes Python objects of each. */
#include "messages.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct Client {
    const rd_kafka_t *client;
    Deliveries deliveries;
    struct Client *older;
} Client;

/* One for each client that was made with the plugin, the newest first; never freed, for nobody tells when a client's threads end. */
static _Atomic(Client *) newest;

const Deliveries *deliveries_of(const rd_kafka_t *client) {
    for (Client *c = atomic_load(&newest); c != NULL; c = c->older)
        if (c->client == client) return &c->deliveries;
    return NULL;
}

/* Called by librdkafka's threads, for each message in the order of its partition, before its delivery is reported. */
static int note(rd_kafka_t *client, rd_kafka_message_t *message, void *opaque) {
    (void)client;
    Deliveries *deliveries = opaque;
    int none = 0;
    if (message->err != 0)
        atomic_compare_exchange_strong(&deliveries->failure, &none, message->err);
    else if (message->_private == NULL && (uint32_t)message->partition < MAX_PARTITIONS && atomic_load(&deliveries->failure) == 0)
        atomic_fetch_add(deliveries->counts + message->partition, 1); /* and none behind a failure: the next ones would stand for it */
    return 0;
}

static int made(rd_kafka_t *client, const rd_kafka_conf_t *conf, void *opaque, char *error, size_t error_size) {
    (void)conf, (void)opaque;
    Client *new = calloc(1, sizeof *new);
    if (new != NULL) new->deliveries.counts = calloc(MAX_PARTITIONS, sizeof *new->deliveries.counts); /* pages that are used only */
    int code = -1;
    if (new != NULL && new->deliveries.counts != NULL)
        code = rdkafka.interceptor_add_on_acknowledgement(client, "saker", note, &new->deliveries);
    if (code != 0) {
        snprintf(error, error_size, "saker: the interceptor was not added");
        if (new != NULL) free(new->deliveries.counts);
        free(new);
        return code;
    }
    new->client = client;
    new->older = atomic_load(&newest);
    while (!atomic_compare_exchange_weak(&newest, &new->older, new)) {
    }
    return 0;
}

/* What librdkafka calls when a configuration names this plugin. */
__attribute__((visibility("default"))) int conf_init(rd_kafka_conf_t *conf, void **opaque, char *error, size_t error_size) {
    (void)opaque;
    if (rdkafka.conf_interceptor_add_on_new != NULL) return rdkafka.conf_interceptor_add_on_new(conf, "saker", made, NULL);
    snprintf(error, error_size, "saker: open_librdkafka comes first");
    return -1;
}
