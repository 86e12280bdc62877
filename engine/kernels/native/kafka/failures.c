/* Notes the first message of a client, whoever produced it, that was not delivered.

   The extension is a plugin of librdkafka too (its setting plugin.library.paths): interceptors can be added only while a client is
   made. Without it a delivery report for each message would be needed, and confluent_kafka makes Python objects of each. */
#include "messages.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct Failures {
    const rd_kafka_t *client;
    atomic_int first; /* error code, 0 so far */
    struct Failures *older;
} Failures;

/* One for each client that was made with the plugin, the newest first; never freed, for nobody tells when a client's threads end. */
static _Atomic(Failures *) newest;

const atomic_int *failure_of(const rd_kafka_t *client) {
    for (Failures *f = atomic_load(&newest); f != NULL; f = f->older)
        if (f->client == client) return &f->first;
    return NULL;
}

/* Called by librdkafka's threads, for each message in the order of its partition, before its delivery is reported. */
static int note(rd_kafka_t *client, rd_kafka_message_t *message, void *opaque) {
    (void)client;
    int none = 0;
    if (message->err != 0) atomic_compare_exchange_strong(&((Failures *)opaque)->first, &none, message->err);
    return 0;
}

static int made(rd_kafka_t *client, const rd_kafka_conf_t *conf, void *opaque, char *error, size_t error_size) {
    (void)conf, (void)opaque;
    Failures *failures = calloc(1, sizeof *failures);
    int code = failures == NULL ? -1 : rdkafka.interceptor_add_on_acknowledgement(client, "saker", note, failures);
    if (code != 0) {
        snprintf(error, error_size, "saker: the interceptor was not added");
        free(failures);
        return code;
    }
    failures->client = client;
    failures->older = atomic_load(&newest);
    while (!atomic_compare_exchange_weak(&newest, &failures->older, failures)) {
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
