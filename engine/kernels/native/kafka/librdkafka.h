/* The part of librdkafka's public interface that the two hot calls use, as its rdkafka.h declares it. confluent-kafka's
 * wheel carries the library and no header; the functions are looked up in the copy that is loaded already. */
#ifndef SAKER_LIBRDKAFKA_H
#define SAKER_LIBRDKAFKA_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct rd_kafka_s rd_kafka_t;
typedef struct rd_kafka_conf_s rd_kafka_conf_t;
typedef struct rd_kafka_topic_s rd_kafka_topic_t;
typedef struct rd_kafka_queue_s rd_kafka_queue_t;
typedef struct rd_kafka_headers_s rd_kafka_headers_t;
typedef struct rd_kafka_error_s rd_kafka_error_t;

typedef struct {
    int err;
    rd_kafka_topic_t *rkt;
    int32_t partition;
    void *payload; /* of an error its text */
    size_t len;
    void *key;
    size_t key_len;
    int64_t offset;
    void *_private;
} rd_kafka_message_t;

enum {
    VTYPE_RKT = 2,
    VTYPE_PARTITION = 3,
    VTYPE_VALUE = 4,
    VTYPE_KEY = 5,
    VTYPE_MSGFLAGS = 7,
    VTYPE_TIMESTAMP = 8,
    VTYPE_HEADERS = 10
};
enum { MSG_F_COPY = 2 };
enum { ERR__QUEUE_FULL = -184 };

typedef struct {
    int vtype;
    union {
        rd_kafka_topic_t *rkt;
        int i;
        int32_t i32;
        int64_t i64;
        struct {
            void *ptr;
            size_t size;
        } mem;
        rd_kafka_headers_t *headers;
        char pad[64];
    } u;
} rd_kafka_vu_t;

typedef int on_new(rd_kafka_t *, const rd_kafka_conf_t *, void *, char *, size_t);
typedef int on_destroy(rd_kafka_t *, void *);
typedef int on_acknowledgement(rd_kafka_t *, rd_kafka_message_t *, void *);

/* name, result, arguments */
#define LIBRDKAFKA(FUNCTION)                                                                                      \
    FUNCTION(type, int, (const rd_kafka_t *))                                                                     \
    FUNCTION(queue_new, rd_kafka_queue_t *, (rd_kafka_t *))                                                       \
    FUNCTION(queue_destroy, void, (rd_kafka_queue_t *))                                                           \
    FUNCTION(queue_get_partition, rd_kafka_queue_t *, (rd_kafka_t *, const char *, int32_t))                      \
    FUNCTION(queue_forward, void, (rd_kafka_queue_t *, rd_kafka_queue_t *))                                       \
    FUNCTION(consume_batch_queue, ssize_t, (rd_kafka_queue_t *, int, rd_kafka_message_t **, size_t))              \
    FUNCTION(message_destroy, void, (rd_kafka_message_t *))                                                       \
    FUNCTION(message_timestamp, int64_t, (const rd_kafka_message_t *, int *))                                     \
    FUNCTION(message_headers, int, (const rd_kafka_message_t *, rd_kafka_headers_t **))                           \
    FUNCTION(headers_copy, rd_kafka_headers_t *, (const rd_kafka_headers_t *))                                    \
    FUNCTION(headers_destroy, void, (rd_kafka_headers_t *))                                                       \
    FUNCTION(header_get_all, int, (const rd_kafka_headers_t *, size_t, const char **, const void **, size_t *))   \
    FUNCTION(topic_new, rd_kafka_topic_t *, (rd_kafka_t *, const char *, void *))                                 \
    FUNCTION(topic_destroy, void, (rd_kafka_topic_t *))                                                           \
    FUNCTION(topic_name, const char *, (const rd_kafka_topic_t *))                                                \
    FUNCTION(produceva, rd_kafka_error_t *, (rd_kafka_t *, const rd_kafka_vu_t *, size_t))                        \
    FUNCTION(conf_interceptor_add_on_new, int, (rd_kafka_conf_t *, const char *, on_new *, void *))               \
    FUNCTION(interceptor_add_on_acknowledgement, int, (rd_kafka_t *, const char *, on_acknowledgement *, void *)) \
    FUNCTION(interceptor_add_on_destroy, int, (rd_kafka_t *, const char *, on_destroy *, void *))                 \
    FUNCTION(error_code, int, (const rd_kafka_error_t *))                                                         \
    FUNCTION(error_destroy, void, (rd_kafka_error_t *))

#define DECLARE(name, result, arguments) result(*name) arguments;
typedef struct {
    LIBRDKAFKA(DECLARE)
} Librdkafka;
#undef DECLARE

extern Librdkafka rdkafka; /* library.c; filled by open_librdkafka */

#endif
