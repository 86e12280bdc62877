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

enum { MAX_PARTITIONS = 1 << 16 };

/* Of a client: error code of its first message that was not delivered, 0 so far; and how many of a `Sender`'s messages were delivered
   to each partition, in their order. */
typedef struct {
    atomic_int failure;
    atomic_ullong *counts;
} Deliveries;

/* consumer_queue.c; consume: as rd_kafka_consume_batch_queue, but what is there at once behind the first record. */
int is_taker(PyObject *object);
int taker_is_open(PyObject *taker);
PyObject *taker_consumer(PyObject *taker);
size_t taker_consume(PyObject *taker, rd_kafka_message_t **into, size_t most, int wait_ms);

/* result_producer.c: produces the answer to a record, 0 or librdkafka's error code; whether the first `count` to a partition are delivered. */
int is_sender(PyObject *object);
int sender_answer(PyObject *sender, const rd_kafka_message_t *record, char *line, size_t length);
unsigned long long sender_sent(PyObject *sender, int32_t partition);
int sender_delivered_count(PyObject *sender, int32_t partition, unsigned long long count);

/* deliveries.c; NULL if the client was made without the plugin */
const Deliveries *deliveries_of(const rd_kafka_t *client);

#endif
