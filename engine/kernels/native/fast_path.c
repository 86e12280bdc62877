/* `Express`: takes records and, while few are on their way, answers them at once: bytes in, decode, score, encode, produce, without
   Python in between. Whatever is not plainly answered so (many records, a rejection, an unknown or late one, a full queue) is handed out
   as `Messages`, for saker.engine.serving.worker to answer. What the answers were is told later, for many at once.

   Between two batches of one record the interpreter's code and data have left the caches: what takes it 10 us when it is warm takes
   45 at 2,000 records/s (measured). */
#include "kafka/messages.h"
#include "internal_api.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    FEW = 32,          /* records that are answered together */
    N_RECORDS = 4096,  /* that are on their way, or answered and not told: powers of two */
    N_BATCHES = 2048,
    ID_AND_NUMBER = 64 /* the longest score and time, and more */
};

typedef struct {
    int64_t behind; /* the offset behind it */
    int64_t timestamp_ms;
    double score;
    unsigned long long mark; /* of its answer among those to its partition */
    int32_t partition;       /* -1: somebody else's now, not to be committed */
    int32_t flagged;
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
    const char *text;
    Py_ssize_t length;
} Piece;

typedef struct {
    PyObject_HEAD PyObject *taker, *sender;
    /* NULL and nothing if there is no model for this way */
    PyObject *decoder, *plan, *program, *pieces;
    Piece head, middle, endings[2]; /* of `pieces` */
    double threshold, late_ms;
    Py_buffer journal; /* saker.engine.serving.poison_records.Journal's cells */
    float *matrix;
    double sums[FEW], scores[FEW];
    char *text;
    size_t capacity, ends[FEW];
    /* Counters that only grow: what is sent, what of it is acknowledged, what of that is told. */
    uint64_t sent, sent_batches, done, done_batches, told, told_batches;
    Record records[N_RECORDS];
    Batch batches[N_BATCHES];
} ExpressObject;

static PyTypeObject *class; /* made once, kept by the module */

static double seconds_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Express(taker, sender) */
static PyObject *express_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"taker", "sender", NULL};
    PyObject *taker, *sender;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OO", names, &taker, &sender)) return NULL;
    if (!is_taker(taker) || !is_sender(sender)) {
        PyErr_SetString(PyExc_TypeError, "expected a Taker and a Sender");
        return NULL;
    }
    ExpressObject *self = (ExpressObject *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    self->taker = Py_NewRef(taker);
    self->sender = Py_NewRef(sender);
    return (PyObject *)self;
}

static void drop_model(ExpressObject *self) {
    Py_CLEAR(self->decoder);
    Py_CLEAR(self->plan);
    Py_CLEAR(self->program);
    Py_CLEAR(self->pieces);
    free(self->matrix);
    self->matrix = NULL;
    if (self->journal.obj != NULL) PyBuffer_Release(&self->journal); /* which makes it NULL */
}

static void express_dealloc(PyObject *object) {
    ExpressObject *self = (ExpressObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    drop_model(self);
    free(self->text);
    Py_XDECREF(self->taker);
    Py_XDECREF(self->sender);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* use(model, journal, late in ms): None, or (decoder, plan, program, threshold, (before the identifier, before the score, two endings up to the time)) */
static PyObject *express_use(PyObject *object, PyObject *arguments) {
    ExpressObject *self = (ExpressObject *)object;
    PyObject *model, *journal, *decoder, *plan, *program, *pieces;
    if (!PyArg_ParseTuple(arguments, "OOd", &model, &journal, &self->late_ms)) return NULL;
    drop_model(self);
    if (model == Py_None) Py_RETURN_NONE;
    double threshold;
    if (!PyArg_ParseTuple(model, "OOOdO!", &decoder, &plan, &program, &threshold, &PyTuple_Type, &pieces)) return NULL;
    if (!PyArg_ParseTuple(pieces, "y#y#y#y#", &self->head.text, &self->head.length, &self->middle.text, &self->middle.length,
                          &self->endings[0].text, &self->endings[0].length, &self->endings[1].text, &self->endings[1].length))
        return NULL;
    if (!is_decoder(decoder) || !is_plan(plan) || !is_function(program) ||
        plan_inputs(plan) != decoder_width(decoder) || plan_targets(plan) != 1) {
        PyErr_SetString(PyExc_TypeError, "expected a Decoder, a Plan of its rows and of one sum, and a Program that makes one score of it");
        return NULL;
    }
    if (PyObject_GetBuffer(journal, &self->journal, PyBUF_WRITABLE) != 0) {
        self->journal.obj = NULL;
        return NULL;
    }
    if (self->journal.len < (2 + 2 * FEW) * 8) {
        drop_model(self);
        PyErr_Format(PyExc_ValueError, "expected a journal of %d partitions", FEW);
        return NULL;
    }
    self->matrix = malloc((size_t)decoder_width(decoder) * FEW * sizeof *self->matrix);
    if (self->matrix == NULL) return PyErr_NoMemory();
    self->threshold = threshold;
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
static PyObject *express_print_score(PyObject *unused, PyObject *number) {
    (void)unused;
    char text[ID_AND_NUMBER];
    double score = PyFloat_AsDouble(number);
    if (score == -1 && PyErr_Occurred()) return NULL;
    char *end = put_score(text, score);
    return end == NULL ? PyErr_NoMemory() : PyBytes_FromStringAndSize(text, end - text);
}

static char *put(char *out, const char *text, size_t length) {
    memcpy(out, text, length);
    return out + length;
}

/* As saker.engine.records.encode does. Returns 0 without memory. */
static int encode(ExpressObject *self, rd_kafka_message_t *const *messages, const Identifier *ids, size_t n) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    char stamp[32];
    size_t stamp_length = (size_t)snprintf(stamp, sizeof stamp, "%lld}", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000), needed = 0;
    for (size_t i = 0; i < n; i++)
        needed += (size_t)(self->head.length + ids[i].length + self->middle.length + self->endings[0].length + self->endings[1].length) + ID_AND_NUMBER;
    if (needed > self->capacity) {
        char *larger = realloc(self->text, needed);
        if (larger == NULL) return 0;
        self->text = larger;
        self->capacity = needed;
    }
    char *out = self->text;
    for (size_t i = 0; i < n; i++) {
        const Piece *ending = self->endings + (self->scores[i] >= self->threshold);
        out = put(out, self->head.text, (size_t)self->head.length);
        out = put(out, (const char *)messages[i]->payload + ids[i].start, (size_t)ids[i].length);
        out = put(out, self->middle.text, (size_t)self->middle.length);
        out = put_score(out, self->scores[i]);
        if (out == NULL) return 0;
        out = put(out, ending->text, (size_t)ending->length);
        out = put(out, stamp, stamp_length);
        self->ends[i] = (size_t)(out - self->text);
    }
    return 1;
}

/* What is being scored, for the parent of a worker that dies of it. */
static void note(ExpressObject *self, rd_kafka_message_t *const *messages, size_t n) {
    volatile int64_t *cells = self->journal.buf;
    for (size_t i = 0; i < n; i++) {
        cells[2 + 2 * i] = messages[i]->partition;
        cells[3 + 2 * i] = messages[i]->offset + 1;
    }
    cells[1] = 0;
    cells[0] = (int64_t)n;
}

/* Fills `scores`, `text` and `ends`, and the batch's times; returns 0 if this is not the way for one of the records. */
static int score(ExpressObject *self, rd_kafka_message_t *const *messages, size_t n, Told *told) {
    Identifier ids[FEW];
    int width = decoder_width(self->decoder), kind;
    double started = seconds_of(CLOCK_MONOTONIC), oldest_ms = seconds_of(CLOCK_REALTIME) * 1000 - self->late_ms;
    for (size_t i = 0; i < n; i++)
        if (messages[i]->err != 0 || messages[i]->payload == NULL || (double)rdkafka.message_timestamp(messages[i], &kind) < oldest_ms ||
            !decoder_read(self->decoder, messages[i]->payload, messages[i]->len, self->matrix + (size_t)width * i, ids + i))
            return 0;
    double decoded = seconds_of(CLOCK_MONOTONIC);
    if (!plan_sum(self->plan, self->matrix, n, self->sums)) return 0;
    program_apply(self->program, self->sums, self->scores, n);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(self->scores[i])) return 0;
    double scored = seconds_of(CLOCK_MONOTONIC);
    if (!encode(self, messages, ids, n)) return 0;
    *told = (Told){.decode = decoded - started, .score = scored - decoded, .encode = seconds_of(CLOCK_MONOTONIC) - scored};
    return 1;
}

/* Returns how many of the records, from the first one on, are answered. */
static size_t answer(ExpressObject *self, rd_kafka_message_t *const *messages, size_t n) {
    Batch *batch = self->batches + self->sent_batches % N_BATCHES;
    note(self, messages, n);
    int is_scored = score(self, messages, n, &batch->told);
    *(volatile int64_t *)self->journal.buf = 0;
    if (!is_scored) return 0;
    double scored = seconds_of(CLOCK_MONOTONIC);
    size_t i = 0;
    for (size_t start = 0; i < n; start = self->ends[i++]) {
        const rd_kafka_message_t *message = messages[i];
        if ((uint32_t)message->partition >= MAX_PARTITIONS || sender_answer(self->sender, message, self->text + start, self->ends[i] - start) != 0)
            break; /* who answers the rest meets the error again, and tells it */
        int kind;
        self->records[self->sent++ % N_RECORDS] = (Record){message->offset + 1, rdkafka.message_timestamp(message, &kind), self->scores[i],
                                                           sender_sent(self->sender, message->partition), message->partition,
                                                           self->scores[i] >= self->threshold};
    }
    if (i > 0) {
        batch->since = scored;
        batch->end = self->sent;
        batch->told.records = (double)i;
        batch->told.produce = seconds_of(CLOCK_MONOTONIC) - scored;
        self->sent_batches++;
    }
    return i;
}

/* In the order in which they were sent. */
static void acknowledge(ExpressObject *self) {
    while (self->done_batches < self->sent_batches) {
        Batch *batch = self->batches + self->done_batches % N_BATCHES;
        for (uint64_t at = self->done; at < batch->end; at++) {
            const Record *record = self->records + at % N_RECORDS;
            if (record->partition >= 0 && !sender_delivered_count(self->sender, record->partition, record->mark)) return;
        }
        self->done = batch->end;
        self->done_batches++;
        batch->told.at = seconds_of(CLOCK_REALTIME);
        batch->told.acknowledge = seconds_of(CLOCK_MONOTONIC) - batch->since;
    }
}

/* (Messages, [(error code, text)]) of n messages that were taken; errors stand among the records. */
static PyObject *handed_out(MessagesObject *taken, size_t n) {
    PyObject *errors = PyList_New(0);
    for (size_t i = 0; i < n; i++) {
        rd_kafka_message_t *message = taken->messages[i];
        if (message->err == 0) {
            taken->messages[taken->n++] = message;
            continue;
        }
        const char *text = message->payload != NULL ? message->payload : "";
        PyObject *pair = errors == NULL ? NULL : Py_BuildValue("is#", message->err, text, (Py_ssize_t)(message->payload != NULL ? message->len : 0));
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

/* take(most, wait in ms, few) -> (Messages, [(error code, text)]): what is there now, one record waited for. With a model, what makes no
   more than `few` on their way is answered, and more waited for. */
static PyObject *express_take(PyObject *object, PyObject *arguments) {
    ExpressObject *self = (ExpressObject *)object;
    Py_ssize_t most;
    int wait_ms, few;
    if (!PyArg_ParseTuple(arguments, "nii", &most, &wait_ms, &few)) return NULL;
    if (!taker_is_open(self->taker) || most < 1) {
        PyErr_SetString(PyExc_ValueError, "expected an open taker and room for a record");
        return NULL;
    }
    MessagesObject *taken = messages_new(taker_consumer(self->taker), most);
    if (taken == NULL) return NULL;
    double deadline = seconds_of(CLOCK_MONOTONIC) + wait_ms / 1000.0;
    for (;;) {
        acknowledge(self);
        double left_ms = (deadline - seconds_of(CLOCK_MONOTONIC)) * 1000;
        /* acknowledgements are looked at each millisecond, for the time that they took */
        int wait = left_ms <= 0 ? 0 : self->sent > self->done || left_ms < 1 ? 1 : (int)left_ms;
        size_t n;
        Py_BEGIN_ALLOW_THREADS
        n = taker_consume(self->taker, taken->messages, (size_t)most, wait);
        Py_END_ALLOW_THREADS
        if (n > 0) {
            int fits = self->decoder != NULL && n <= FEW && self->sent - self->done + n <= (uint64_t)(few > 0 ? few : 0) &&
                       self->sent - self->told + n <= N_RECORDS && self->sent_batches - self->told_batches < N_BATCHES;
            size_t answered = fits ? answer(self, taken->messages, n) : 0;
            for (size_t i = 0; i < answered; i++) rdkafka.message_destroy(taken->messages[i]);
            n -= answered;
            memmove(taken->messages, taken->messages + answered, n * sizeof *taken->messages);
        }
        if (n > 0 || left_ms <= 0) return handed_out(taken, n);
    }
}

/* in_flight() -> how many records are answered and not acknowledged, as far as one has looked */
static PyObject *express_in_flight(PyObject *object, PyObject *unused) {
    (void)unused;
    ExpressObject *self = (ExpressObject *)object;
    acknowledge(self);
    return PyLong_FromUnsignedLongLong(self->sent - self->done);
}

/* forget(partition): it is somebody else's, and nothing of it is to be committed */
static PyObject *express_forget(PyObject *object, PyObject *number) {
    ExpressObject *self = (ExpressObject *)object;
    long partition = PyLong_AsLong(number);
    if (partition == -1 && PyErr_Occurred()) return NULL;
    for (uint64_t at = self->told; at < self->sent; at++)
        if (self->records[at % N_RECORDS].partition == partition) self->records[at % N_RECORDS].partition = -1;
    Py_RETURN_NONE;
}

/* tell() -> ({partition: offset behind its last acknowledged record}, Told of each batch, of each record its timestamp in ms, int64, and
   score, float64, how many are flagged), of what is acknowledged since the last time. */
static PyObject *express_tell(PyObject *object, PyObject *unused) {
    (void)unused;
    ExpressObject *self = (ExpressObject *)object;
    acknowledge(self);
    Py_ssize_t n = (Py_ssize_t)(self->done - self->told), n_batches = (Py_ssize_t)(self->done_batches - self->told_batches);
    PyObject *positions = PyDict_New(), *told = PyBytes_FromStringAndSize(NULL, n_batches * (Py_ssize_t)sizeof(Told));
    PyObject *timestamps = PyBytes_FromStringAndSize(NULL, n * 8), *scores = PyBytes_FromStringAndSize(NULL, n * 8);
    int failed = positions == NULL || told == NULL || timestamps == NULL || scores == NULL;
    Py_ssize_t n_flagged = 0;
    for (Py_ssize_t i = 0; !failed && i < n; i++) {
        const Record *record = self->records + (self->told + (uint64_t)i) % N_RECORDS;
        memcpy(PyBytes_AsString(timestamps) + 8 * i, &record->timestamp_ms, 8);
        memcpy(PyBytes_AsString(scores) + 8 * i, &record->score, 8);
        n_flagged += record->flagged;
        if (record->partition < 0) continue;
        PyObject *partition = PyLong_FromLong(record->partition), *behind = PyLong_FromLongLong((long long)record->behind);
        failed = partition == NULL || behind == NULL || PyDict_SetItem(positions, partition, behind) != 0;
        Py_XDECREF(partition);
        Py_XDECREF(behind);
    }
    for (Py_ssize_t i = 0; !failed && i < n_batches; i++)
        memcpy(PyBytes_AsString(told) + (Py_ssize_t)sizeof(Told) * i, &self->batches[(self->told_batches + (uint64_t)i) % N_BATCHES].told, sizeof(Told));
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

static PyMethodDef methods[] = {{"use", express_use, METH_VARARGS, NULL},
                                {"take", express_take, METH_VARARGS, NULL},
                                {"in_flight", express_in_flight, METH_NOARGS, NULL},
                                {"forget", express_forget, METH_O, NULL},
                                {"tell", express_tell, METH_NOARGS, NULL},
                                {"print_score", express_print_score, METH_O | METH_STATIC, NULL},
                                {NULL, NULL, 0, NULL}};
static PyType_Slot slots[] = {{Py_tp_new, express_new}, {Py_tp_dealloc, express_dealloc}, {Py_tp_methods, methods}, {0, NULL}};
static PyType_Spec spec = {"saker.engine.kernels._native.Express", sizeof(ExpressObject), 0, Py_TPFLAGS_DEFAULT, slots};

PyObject *express_type(void) {
    if (class == NULL) class = (PyTypeObject *)PyType_FromSpec(&spec);
    return Py_XNewRef((PyObject *)class);
}
