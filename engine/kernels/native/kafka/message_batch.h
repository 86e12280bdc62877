/* A batch of records as librdkafka handed them out, and what else the parts of this folder share.

   Threads: a MessageBatch never changes once Python has it, so its records may be read without the GIL while somebody
   holds a reference. Functions that take a PyObject are called with the GIL held, unless they say otherwise. */
#ifndef SAKER_MESSAGE_BATCH_H
#define SAKER_MESSAGE_BATCH_H

#include "../native.h"
#include "librdkafka.h"

#include <stdatomic.h>

/* A sequence of values; gives the records back to librdkafka when it goes. */
typedef struct {
    PyObject_HEAD PyObject *consumer; /* keeps the client alive */
    PyObject *origin_type;            /* called with an origin's six fields */
    Py_ssize_t n;
    rd_kafka_message_t **messages;
} MessageBatchObject;

MessageBatchObject *message_batch_new(PyObject *consumer, PyObject *origin_type, Py_ssize_t room);
/* (batch, [(error code, text)]) of its first n messages, where errors are among the records; the reference to `batch`
 * goes over. */
PyObject *message_batch_with_errors(MessageBatchObject *batch, size_t n);
int is_message_batch(PyObject *object);

/* What is demanded of a record: engine/kafka/batch.py, `ConsumedBatch.beyond`. No GIL needed. */
typedef struct {
    int64_t most_bytes, earliest_ms, latest_ms;
    int needs_key;
} Demands;
/* Whether it has a header of this name, and the value of the last one. No GIL needed. */
int message_header(const rd_kafka_message_t *message, const char *wanted, const void **value, size_t *length);
int message_is_beyond(const rd_kafka_message_t *message, const Demands *demands);

enum { RD_KAFKA_PRODUCER = 0, RD_KAFKA_CONSUMER = 1 };
/* clients.c: the rd_kafka_t at `address`, which must be one that librdkafka itself announced and has not destroyed;
   NULL with ValueError if there is none of this type. Nothing at the address is read before that is known. */
rd_kafka_t *client_at(unsigned long long address, int type);

enum { MAX_PARTITIONS = 1 << 16 };

/* Of a client: error code of its first message that was not delivered, 0 so far; and how many of a `ResultProducer`'s
   messages were delivered to each partition, in their order. librdkafka's threads write, any thread reads. */
typedef struct {
    atomic_int failure;
    atomic_ullong *counts;
} Deliveries;

/* clients.c; NULL if the client was made without the plugin */
const Deliveries *deliveries_of(const rd_kafka_t *client);

/* consumer_queue.c; a batch to consume into, NULL with ValueError if the queue is closed; how many messages came, with
   the GIL dropped meanwhile: what is there at once after the first record, which alone is waited for. */
int is_consumer_queue(PyObject *object);
MessageBatchObject *consumer_queue_batch(PyObject *queue, Py_ssize_t most);
size_t consumer_queue_consume(PyObject *queue, MessageBatchObject *batch, size_t most, int wait_ms);

/* result_producer.c: produces the answer to a record, 0 or librdkafka's error code (no GIL needed; one thread at a
   time); how many were sent to a partition; whether the first `count` to it are delivered. */
int is_result_producer(PyObject *object);
int result_producer_send(PyObject *producer, const rd_kafka_message_t *record, char *line, size_t length);
unsigned long long result_producer_sent(PyObject *producer, int32_t partition);
int result_producer_delivered_count(PyObject *producer, int32_t partition, unsigned long long count);

#endif
