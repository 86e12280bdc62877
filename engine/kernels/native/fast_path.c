/* `FastPath`: consumes records and, while few are in flight, answers them at once: bytes in, decode, score, encode,
   produce, without Python in between. Whatever has no plain answer (many records, a rejection, an unknown or late
   record, a full queue) is returned as a MessageBatch, for serving/worker.py to answer. What became of the answers is
   reported later, for many at once.

   Why: between two batches of one record the interpreter's code and data have left the caches. What takes Python 10 us
   when it is warm takes 45 at 2,000 records/s (measured).

   Threads: one worker thread owns a FastPath and calls it with the GIL held; `poll` drops the GIL while it waits for
   records only. librdkafka's threads never see it: they write the counters of clients.c, which are read here
   atomically. Owner: delivery/fast_path.py. The rings hold what is in flight between two calls from Python, and nothing
   else does. */
#include "kafka/message_batch.h"
#include "internal_api.h"
#include "rows/results.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    FEW = 32,         /* records that are answered together */
    N_RECORDS = 4096, /* that are on their way, or answered and not told: powers of two */
    N_BATCHES = 2048,
    FIRST_CELL = 3 /* delivery/in_flight_marker.py */
};

typedef struct {
    int64_t behind; /* the offset behind it */
    int64_t timestamp_ms;
    double score;
    unsigned long long mark; /* of its answer among those to its partition */
    int32_t partition;
    uint8_t flagged, dropped; /* dropped: the partition is somebody else's now, its position is not to be committed */
} Record;

/* saker.engine.metrics.counts.ANSWERED */
typedef struct {
    double records, at, decode, score, encode, produce, acknowledge; /* at: seconds since 1970, the others of time */
} Told;

typedef struct {
    uint64_t end; /* behind its last record */
    double since;
    Told told;
} Batch;

typedef struct {
    PyObject_HEAD PyObject *queue, *producer;
    /* NULL and nothing if there is no model for this way */
    PyObject *decoder, *plan, *program, *pieces;
    /* NULL for a model without velocity features. histories: of the partitions that may be answered here */
    PyObject *velocity, *histories;
    ResultPieces result; /* borrows from `pieces` */
    double threshold, late_ms, before_ms, after_ms;
    int64_t most_bytes;
    int needs_key;
    Py_buffer marker; /* cells of saker.engine.delivery.in_flight_marker */
    float *matrix;
    int64_t *inputs;
    double sums[FEW], scores[FEW];
    char *text;
    size_t capacity, ends[FEW];
    /* Counters that only grow: sent, of these acknowledged, of these reported. */
    uint64_t sent, sent_batches, done, done_batches, told, told_batches;
    Record records[N_RECORDS];
    Batch batches[N_BATCHES];
} FastPathObject;

static PyTypeObject *class; /* made once, kept by the module */

static double seconds_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* FastPath(queue, producer) */
static PyObject *fast_path_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"queue", "producer", NULL};
    PyObject *queue, *producer;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OO", names, &queue, &producer)) return NULL;
    if (!is_consumer_queue(queue) || !is_result_producer(producer)) {
        PyErr_SetString(PyExc_TypeError, "expected a ConsumerQueue and a ResultProducer");
        return NULL;
    }
    FastPathObject *self = (FastPathObject *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    self->queue = Py_NewRef(queue);
    self->producer = Py_NewRef(producer);
    return (PyObject *)self;
}

static void drop_model(FastPathObject *self) {
    Py_CLEAR(self->decoder);
    Py_CLEAR(self->plan);
    Py_CLEAR(self->program);
    Py_CLEAR(self->pieces);
    Py_CLEAR(self->velocity);
    Py_CLEAR(self->histories);
    free(self->matrix);
    free(self->inputs);
    self->matrix = NULL;
    self->inputs = NULL;
    if (self->marker.obj != NULL) PyBuffer_Release(&self->marker); /* which makes it NULL */
}

static void fast_path_dealloc(PyObject *object) {
    FastPathObject *self = (FastPathObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    drop_model(self);
    free(self->text);
    Py_XDECREF(self->queue);
    Py_XDECREF(self->producer);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* use_model(model, cells of the marker, late in ms, (most bytes, before and after in ms, needs a key)): model is None,
 * or (decoder, plan, program, threshold, pieces of a result, None or (plan of velocity features, dict of
 * histories)); the last are what the topic of results demands of a record */
static PyObject *fast_path_use_model(PyObject *object, PyObject *arguments) {
    FastPathObject *self = (FastPathObject *)object;
    PyObject *model, *marker, *decoder, *plan, *program, *pieces, *history, *velocity = NULL, *histories = NULL;
    long long most_bytes;
    if (!PyArg_ParseTuple(arguments, "OOd(Lddp)", &model, &marker, &self->late_ms, &most_bytes, &self->before_ms,
                          &self->after_ms, &self->needs_key))
        return NULL;
    self->most_bytes = most_bytes;
    drop_model(self);
    if (model == Py_None) Py_RETURN_NONE;
    double threshold;
    if (!PyArg_ParseTuple(model, "OOOdOO", &decoder, &plan, &program, &threshold, &pieces, &history)) return NULL;
    if (history != Py_None && !PyArg_ParseTuple(history, "OO!", &velocity, &PyDict_Type, &histories)) return NULL;
    if (!result_pieces(pieces, &self->result)) return NULL;
    if (!is_decoder(decoder) || !is_plan(plan) || !is_function(program) ||
        plan_inputs(plan) != decoder_width(decoder) || plan_targets(plan) != 1) {
        PyErr_SetString(PyExc_TypeError,
                        "expected a Decoder, a Plan of its rows and of one sum, and a Program that makes "
                        "one score of it");
        return NULL;
    }
    int n_inputs = decoder_inputs(decoder);
    if (velocity == NULL ? n_inputs != 0 : !is_velocity_plan(velocity, n_inputs, decoder_width(decoder))) {
        PyErr_SetString(PyExc_TypeError, "expected a VelocityPlan of the inputs and rows of the Decoder");
        return NULL;
    }
    if (PyObject_GetBuffer(marker, &self->marker, PyBUF_WRITABLE) != 0) {
        self->marker.obj = NULL;
        return NULL;
    }
    if (self->marker.len < (FIRST_CELL + 2 * FEW) * 8) {
        drop_model(self);
        PyErr_Format(PyExc_ValueError, "expected a marker of %d partitions", FEW);
        return NULL;
    }
    self->matrix = malloc((size_t)decoder_width(decoder) * FEW * sizeof *self->matrix);
    self->inputs = malloc(((size_t)n_inputs * FEW + 1) * sizeof *self->inputs);
    if (self->matrix == NULL || self->inputs == NULL) return PyErr_NoMemory();
    self->threshold = threshold;
    self->velocity = Py_XNewRef(velocity);
    self->histories = Py_XNewRef(histories);
    self->decoder = Py_NewRef(decoder);
    self->plan = Py_NewRef(plan);
    self->program = Py_NewRef(program);
    self->pieces = Py_NewRef(pieces);
    Py_RETURN_NONE;
}

/* As orjson writes it; at most 32 bytes. Returns where it ends, NULL without memory. */
static char *put_score(char *out, double score) {
    char *digits = PyOS_double_to_string(score, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (digits == NULL) {
        PyErr_Clear();
        return NULL;
    }
    char *exponent = strchr(digits, 'e');
    size_t length = exponent != NULL ? (size_t)(exponent - digits) : strlen(digits);
    int power = exponent != NULL ? atoi(exponent + 1) : 0;
    if (power == -5) { /* Python changes over to exponents one power earlier */
        if (score < 0) *out++ = '-';
        memcpy(out, "0.0000", 6);
        out += 6;
        for (size_t i = score < 0; i < length; i++)
            if (digits[i] != '.') *out++ = digits[i];
    } else {
        memcpy(out, digits, length);
        out += length;
        if (exponent != NULL) out += sprintf(out, "e%+d", power);
    }
    PyMem_Free(digits);
    return out;
}

/* print_score(score) -> bytes, for tests */
static PyObject *fast_path_print_score(PyObject *unused, PyObject *number) {
    (void)unused;
    char text[SCORE_BYTES];
    double score = PyFloat_AsDouble(number);
    if (score == -1 && PyErr_Occurred()) return NULL;
    char *end = put_score(text, score);
    return end == NULL ? PyErr_NoMemory() : PyBytes_FromStringAndSize(text, end - text);
}

/* Fills `text` and `ends`; returns 0 without memory. */
static int encode(FastPathObject *self, rd_kafka_message_t *const *messages, const Identifier *ids, size_t n) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    char stamp[TIME_BYTES], digits[SCORE_BYTES];
    const ResultPieces *pieces = &self->result;
    Piece time = time_piece(stamp, pieces->form, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    size_t needed = 0;
    for (size_t i = 0; i < n; i++)
        needed +=
            (size_t)result_size(pieces, (Py_ssize_t)ids[i].length, SCORE_BYTES, self->scores[i] >= self->threshold);
    if (needed > self->capacity) {
        char *larger = realloc(self->text, needed);
        if (larger == NULL) return 0;
        self->text = larger;
        self->capacity = needed;
    }
    char *out = self->text;
    for (size_t i = 0; i < n; i++) {
        Piece id = {decoder_text(self->decoder, messages[i]->payload, &ids[i]), (Py_ssize_t)ids[i].length};
        Piece score = {(const char *)&self->scores[i], sizeof self->scores[i]};
        if (pieces->form == RESULT_JSON) {
            char *end = put_score(digits, self->scores[i]);
            if (end == NULL) return 0;
            score = (Piece){digits, end - digits};
        }
        out = put_result(out, pieces, id, score, self->scores[i] >= self->threshold, time);
        self->ends[i] = (size_t)(out - self->text);
    }
    return 1;
}

/* What is being scored, for the parent of a worker that dies of it. */
static void note(FastPathObject *self, rd_kafka_message_t *const *messages, size_t n) {
    volatile int64_t *cells = self->marker.buf;
    for (size_t i = 0; i < n; i++) {
        cells[FIRST_CELL + 2 * i] = messages[i]->partition;
        cells[FIRST_CELL + 1 + 2 * i] = messages[i]->offset + 1;
    }
    cells[1] = cells[2] = 0;
    cells[0] = (int64_t)n;
}

/* As an integer, whatever it is. */
static int64_t far(double ms) { return ms < -4e18 ? INT64_MIN : ms > 4e18 ? INT64_MAX : (int64_t)ms; }

/* Its schema is not what its value begins with: engine/records/header_ids.py. */
static int has_schema_header(const rd_kafka_message_t *message) {
    const void *value;
    size_t length;
    return message_header(message, "__value_schema_id", &value, &length);
}

/* Fills `scores`, `text` and `ends`, and the batch's times; returns 0 if this is not the way for one of the records. */
static int score(FastPathObject *self, rd_kafka_message_t *const *messages, size_t n, Told *told) {
    Identifier ids[FEW];
    int width = decoder_width(self->decoder), has_ids = decoder_has_ids(self->decoder), kind;
    int n_inputs = decoder_inputs(self->decoder);
    double started = seconds_of(CLOCK_MONOTONIC), now_ms = seconds_of(CLOCK_REALTIME) * 1000;
    double oldest_ms = now_ms - self->late_ms;
    decoder_start(self->decoder);
    Demands demands = {self->most_bytes, far(now_ms - self->before_ms), far(now_ms + self->after_ms), self->needs_key};
    for (size_t i = 0; i < n; i++)
        if (messages[i]->err != 0 || messages[i]->payload == NULL ||
            (double)rdkafka.message_timestamp(messages[i], &kind) < oldest_ms ||
            message_is_beyond(messages[i], &demands) || (has_ids && has_schema_header(messages[i])) ||
            !decoder_read(self->decoder, messages[i]->payload, messages[i]->len, self->matrix + (size_t)width * i,
                          self->inputs + (size_t)n_inputs * i, ids + i))
            return 0;
    /* What is not answered here after all comes again by the worker at once, and then has the same columns. */
    for (size_t i = 0; i < n && self->velocity != NULL; i++)
        if (!velocity_apply_record(self->velocity, self->histories, messages[i]->partition,
                                   self->inputs + (size_t)n_inputs * i, rdkafka.message_timestamp(messages[i], &kind),
                                   messages[i]->offset, self->matrix + (size_t)width * i))
            return 0;
    double decoded = seconds_of(CLOCK_MONOTONIC);
    if (!plan_sum(self->plan, self->matrix, n, self->sums)) return 0;
    program_apply(self->program, self->sums, self->scores, n);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(self->scores[i])) return 0;
    double scored = seconds_of(CLOCK_MONOTONIC);
    if (!encode(self, messages, ids, n)) return 0;
    *told =
        (Told){.decode = decoded - started, .score = scored - decoded, .encode = seconds_of(CLOCK_MONOTONIC) - scored};
    return 1;
}

/* Returns how many of the records, from the first one on, are answered. */
static size_t answer(FastPathObject *self, rd_kafka_message_t *const *messages, size_t n) {
    Batch *batch = self->batches + self->sent_batches % N_BATCHES;
    note(self, messages, n);
    int is_scored = score(self, messages, n, &batch->told);
    double scored = seconds_of(CLOCK_MONOTONIC);
    size_t i = 0;
    for (size_t start = 0; is_scored && i < n; start = self->ends[i++]) {
        const rd_kafka_message_t *message = messages[i];
        if ((uint32_t)message->partition >= MAX_PARTITIONS ||
            result_producer_send(self->producer, message, self->text + start, self->ends[i] - start) != 0)
            break; /* the caller that answers the rest meets the error again, and reports it */
        decoder_count(self->decoder, self->matrix + (size_t)decoder_width(self->decoder) * i,
                      self->inputs + (size_t)decoder_inputs(self->decoder) * i);
        int kind;
        self->records[self->sent++ % N_RECORDS] = (Record){message->offset + 1,
                                                           rdkafka.message_timestamp(message, &kind),
                                                           self->scores[i],
                                                           result_producer_sent(self->producer, message->partition),
                                                           message->partition,
                                                           self->scores[i] >= self->threshold,
                                                           0};
    }
    *(volatile int64_t *)self->marker.buf = 0;
    if (i > 0) {
        batch->since = scored;
        batch->end = self->sent;
        batch->told.records = (double)i;
        batch->told.produce = seconds_of(CLOCK_MONOTONIC) - scored;
        self->sent_batches++;
    }
    return i;
}

/* In the order in which they were sent. Those of dropped partitions, too: as long as librdkafka may write one, no other
   producer may send to its partition. */
static void acknowledge(FastPathObject *self) {
    while (self->done_batches < self->sent_batches) {
        Batch *batch = self->batches + self->done_batches % N_BATCHES;
        for (uint64_t at = self->done; at < batch->end; at++) {
            const Record *record = self->records + at % N_RECORDS;
            if (!result_producer_delivered_count(self->producer, record->partition, record->mark)) return;
        }
        self->done = batch->end;
        self->done_batches++;
        batch->told.at = seconds_of(CLOCK_REALTIME);
        batch->told.acknowledge = seconds_of(CLOCK_MONOTONIC) - batch->since;
    }
}

/* poll(most, wait in ms, few) -> (MessageBatch, [(error code, text)]): what is there now, one record waited for. With a
   model, records that leave no more than `few` in flight are answered, and more are waited for. */
static PyObject *fast_path_poll(PyObject *object, PyObject *arguments) {
    FastPathObject *self = (FastPathObject *)object;
    Py_ssize_t most;
    int wait_ms, few;
    if (!PyArg_ParseTuple(arguments, "nii", &most, &wait_ms, &few)) return NULL;
    MessageBatchObject *batch = consumer_queue_batch(self->queue, most);
    if (batch == NULL) return NULL;
    double deadline = seconds_of(CLOCK_MONOTONIC) + wait_ms / 1000.0;
    for (;;) {
        acknowledge(self);
        double left_ms = (deadline - seconds_of(CLOCK_MONOTONIC)) * 1000;
        /* acknowledgements are looked at each millisecond, for the time that they took */
        int wait = left_ms <= 0 ? 0 : self->sent > self->done || left_ms < 1 ? 1 : (int)left_ms;
        size_t n = consumer_queue_consume(self->queue, batch, (size_t)most, wait);
        if (n > 0) {
            int fits = self->decoder != NULL && n <= FEW &&
                       self->sent - self->done + n <= (uint64_t)(few > 0 ? few : 0) &&
                       self->sent - self->told + n <= N_RECORDS && self->sent_batches - self->told_batches < N_BATCHES;
            size_t answered = fits ? answer(self, batch->messages, n) : 0;
            for (size_t i = 0; i < answered; i++) rdkafka.message_destroy(batch->messages[i]);
            n -= answered;
            memmove(batch->messages, batch->messages + answered, n * sizeof *batch->messages);
        }
        if (n > 0 || left_ms <= 0) return message_batch_with_errors(batch, n);
    }
}

/* in_flight() -> how many records are answered and not acknowledged, as far as one has looked */
static PyObject *fast_path_in_flight(PyObject *object, PyObject *unused) {
    (void)unused;
    FastPathObject *self = (FastPathObject *)object;
    acknowledge(self);
    return PyLong_FromUnsignedLongLong(self->sent - self->done);
}

/* Puts the record's position into a dict unless its partition was dropped; -1 with an exception. */
static int add_position(PyObject *positions, const Record *record) {
    if (record->dropped) return 0;
    PyObject *partition = PyLong_FromLong(record->partition), *behind = PyLong_FromLongLong((long long)record->behind);
    int failed = partition == NULL || behind == NULL || PyDict_SetItem(positions, partition, behind) != 0;
    Py_XDECREF(partition);
    Py_XDECREF(behind);
    return failed ? -1 : 0;
}

/* in_flight_positions() -> {partition: offset behind its last record in flight} */
static PyObject *fast_path_in_flight_positions(PyObject *object, PyObject *unused) {
    (void)unused;
    FastPathObject *self = (FastPathObject *)object;
    PyObject *positions = PyDict_New();
    for (uint64_t at = self->done; positions != NULL && at < self->sent; at++)
        if (add_position(positions, self->records + at % N_RECORDS) != 0) Py_CLEAR(positions);
    return positions;
}

/* drop_partition(partition): it is another consumer's, and nothing of it is to be committed */
static PyObject *fast_path_drop_partition(PyObject *object, PyObject *number) {
    FastPathObject *self = (FastPathObject *)object;
    long partition = PyLong_AsLong(number);
    if (partition == -1 && PyErr_Occurred()) return NULL;
    for (uint64_t at = self->told; at < self->sent; at++)
        if (self->records[at % N_RECORDS].partition == partition) self->records[at % N_RECORDS].dropped = 1;
    Py_RETURN_NONE;
}

/* drain_acknowledged() -> ({partition: offset behind its last acknowledged record}, Told of each batch, of each record
   its timestamp in ms, int64, and score, float64, how many are flagged), of what is acknowledged since the last time.
 */
static PyObject *fast_path_drain_acknowledged(PyObject *object, PyObject *unused) {
    (void)unused;
    FastPathObject *self = (FastPathObject *)object;
    acknowledge(self);
    Py_ssize_t n = (Py_ssize_t)(self->done - self->told),
               n_batches = (Py_ssize_t)(self->done_batches - self->told_batches);
    PyObject *positions = PyDict_New(), *told = PyBytes_FromStringAndSize(NULL, n_batches * (Py_ssize_t)sizeof(Told));
    PyObject *timestamps = PyBytes_FromStringAndSize(NULL, n * 8), *scores = PyBytes_FromStringAndSize(NULL, n * 8);
    int failed = positions == NULL || told == NULL || timestamps == NULL || scores == NULL;
    Py_ssize_t n_flagged = 0;
    for (Py_ssize_t i = 0; !failed && i < n; i++) {
        const Record *record = self->records + (self->told + (uint64_t)i) % N_RECORDS;
        memcpy(PyBytes_AsString(timestamps) + 8 * i, &record->timestamp_ms, 8);
        memcpy(PyBytes_AsString(scores) + 8 * i, &record->score, 8);
        n_flagged += record->flagged;
        failed = add_position(positions, record) != 0;
    }
    for (Py_ssize_t i = 0; !failed && i < n_batches; i++)
        memcpy(PyBytes_AsString(told) + (Py_ssize_t)sizeof(Told) * i,
               &self->batches[(self->told_batches + (uint64_t)i) % N_BATCHES].told, sizeof(Told));
    if (failed) {
        Py_XDECREF(positions);
        Py_XDECREF(told);
        Py_XDECREF(timestamps);
        Py_XDECREF(scores);
        return NULL;
    }
    self->told = self->done;
    self->told_batches = self->done_batches;
    return Py_BuildValue("NNNNn", positions, told, timestamps, scores, n_flagged);
}

static PyMethodDef methods[] = {{"use_model", fast_path_use_model, METH_VARARGS, NULL},
                                {"poll", fast_path_poll, METH_VARARGS, NULL},
                                {"in_flight", fast_path_in_flight, METH_NOARGS, NULL},
                                {"in_flight_positions", fast_path_in_flight_positions, METH_NOARGS, NULL},
                                {"drop_partition", fast_path_drop_partition, METH_O, NULL},
                                {"drain_acknowledged", fast_path_drain_acknowledged, METH_NOARGS, NULL},
                                {"print_score", fast_path_print_score, METH_O | METH_STATIC, NULL},
                                {NULL, NULL, 0, NULL}};
static PyType_Slot slots[] = {
    {Py_tp_new, fast_path_new}, {Py_tp_dealloc, fast_path_dealloc}, {Py_tp_methods, methods}, {0, NULL}};
static PyType_Spec spec = {"saker.engine.kernels._native.FastPath", sizeof(FastPathObject), 0, Py_TPFLAGS_DEFAULT,
                           slots};

PyObject *fast_path_type(void) {
    if (class == NULL) class = (PyTypeObject *)PyType_FromSpec(&spec);
    return Py_XNewRef((PyObject *)class);
}
