/* A batch of records as librdkafka handed them out, and what else the parts of this folder share. */
#ifndef SAKER_MESSAGES_H
#define SAKER_MESSAGES_H

#include "../native.h"
#include "librdkafka.h"

#include <stdatomic.h>

/* A sequence of values; gives the records back to librdkafka when it goes. */
typedef struct {
    PyObject_HEAD PyObject *consumer; /* keeps the client alive */
    Py_ssize_t n;
    rd_kafka_message_t **messages;
} MessagesObject;

MessagesObject *messages_new(PyObject *consumer, Py_ssize_t room);
int is_messages(PyObject *object);

/* client.c: the rd_kafka_t of a confluent_kafka Consumer or Producer at `address`, NULL with ValueError if it is none of `type`. */
rd_kafka_t *client_at(unsigned long long address, int type);

/* failures.c: error code of the first message of the client that was not delivered; NULL if it was made without the plugin */
const atomic_int *failure_of(const rd_kafka_t *client);

#endif
