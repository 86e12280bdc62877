/* Python's view of velocity features: plans, states, and a batch of records applied to the states of their partitions.
   The GIL is kept: a batch takes a fraction of a millisecond. */
#include "../internal_api.h"
#include "velocity.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    PyObject_HEAD velocity_plan plan;
} PlanObject;

typedef struct {
    PyObject_HEAD PyObject *plan; /* whose memory `state` points to */
    velocity_state state;
} StateObject;

static PyTypeObject *plan_class, *state_class; /* made once, kept by the module */

/* ---- plans ---- */

static void free_plan(velocity_plan *p) {
    for (int32_t i = 0; p->key_sets != NULL && i < p->n_key_sets; i++) {
        velocity_key_set *k = &p->key_sets[i];
        for (int32_t j = 0; k->groups != NULL && j < k->n_groups; j++) {
            free(k->groups[j].columns);
            free(k->groups[j].distinct);
            free(k->groups[j].distinct_few);
        }
        free(k->groups);
        free(k->last);
        free(k->few_inputs);
    }
    free(p->key_sets);
    free(p->outputs);
}

/* Memory for the items of a tuple; NULL with an exception. */
static void *items(PyObject *tuple, size_t size, int32_t *n) {
    *n = (int32_t)PyTuple_Size(tuple);
    void *memory = *n < 0 ? NULL : calloc((size_t)*n + 1, size);
    if (memory == NULL && !PyErr_Occurred()) PyErr_NoMemory();
    return memory;
}

/* ((word, needs, power), ...) */
static velocity_column *read_columns(PyObject *tuple, int32_t *n) {
    velocity_column *columns = items(tuple, sizeof *columns, n);
    for (int32_t i = 0; columns != NULL && i < *n; i++)
        if (!PyArg_ParseTuple(PyTuple_GetItem(tuple, i), "iid", &columns[i].input, &columns[i].needs,
                              &columns[i].power)) {
            free(columns);
            columns = NULL;
        }
    return columns;
}

/* (hop_ms, columns, words of distinct values) */
static int read_group(velocity_group *g, PyObject *description) {
    PyObject *columns, *distinct;
    long long hop_ms;
    if (!PyArg_ParseTuple(description, "LO!O!", &hop_ms, &PyTuple_Type, &columns, &PyTuple_Type, &distinct)) return -1;
    g->hop_ms = hop_ms;
    g->columns = read_columns(columns, &g->n_columns);
    g->distinct = items(distinct, sizeof *g->distinct, &g->n_distinct);
    if (g->columns == NULL || g->distinct == NULL) return -1;
    g->stride = 1;
    for (int32_t i = 0; i < g->n_columns; i++) {
        velocity_column *c = &g->columns[i];
        c->word = g->stride;
        g->stride += words_of(c->needs);
    }
    for (int32_t i = 0; i < g->n_distinct; i++) g->distinct[i] = (int32_t)PyLong_AsLong(PyTuple_GetItem(distinct, i));
    return PyErr_Occurred() ? -1 : 0;
}

/* Where an input is among those of one of few records, which it is from now on. */
static int32_t place_of(velocity_key_set *k, int32_t input) {
    for (int32_t i = 1; i < k->few_words; i++)
        if (k->few_inputs[i - 1] == input) return i;
    k->few_inputs[k->few_words - 1] = input;
    return k->few_words++;
}

/* What is kept of one of few records: the values first, then the identities. */
static int lay_out_few(velocity_key_set *k) {
    int32_t most = 0;
    for (int32_t i = 0; i < k->n_groups; i++) most += k->groups[i].n_columns + k->groups[i].n_distinct;
    k->few_inputs = calloc((size_t)most + 1, sizeof *k->few_inputs);
    if (k->few_inputs == NULL) return -1;
    k->few_words = 1;
    for (int32_t i = 0; i < k->n_groups; i++)
        for (int32_t j = 0; j < k->groups[i].n_columns; j++)
            k->groups[i].columns[j].few = place_of(k, k->groups[i].columns[j].input);
    k->n_few_values = k->few_words - 1;
    for (int32_t i = 0; i < k->n_groups; i++) {
        velocity_group *g = &k->groups[i];
        g->distinct_few = calloc((size_t)g->n_distinct + 1, sizeof *g->distinct_few);
        if (g->distinct_few == NULL) return -1;
        for (int32_t j = 0; j < g->n_distinct; j++) g->distinct_few[j] = place_of(k, g->distinct[j]);
    }
    k->most_few = FEW_WORDS / k->few_words < 1 ? 1 : FEW_WORDS / k->few_words;
    if (k->most_few > MOST_FEW) k->most_few = MOST_FEW;
    return 0;
}

/* (words of the parts, groups, last values) */
static int read_key_set(velocity_plan *p, velocity_key_set *k, PyObject *description) {
    PyObject *parts, *groups, *last;
    if (!PyArg_ParseTuple(description, "O!O!O!", &PyTuple_Type, &parts, &PyTuple_Type, &groups, &PyTuple_Type, &last))
        return -1;
    k->n_parts = (int32_t)PyTuple_Size(parts);
    if (k->n_parts < 1 || k->n_parts > MAX_PARTS) {
        PyErr_SetString(PyExc_ValueError, "expected a key of 1 to 8 parts");
        return -1;
    }
    for (int32_t i = 0; i < k->n_parts; i++) k->parts[i] = (int32_t)PyLong_AsLong(PyTuple_GetItem(parts, i));
    k->groups = items(groups, sizeof *k->groups, &k->n_groups);
    k->last = read_columns(last, &k->n_last);
    if (k->groups == NULL || k->last == NULL || PyErr_Occurred()) return -1;
    size_t largest = 0;
    for (int32_t i = 0; i < k->n_groups; i++) {
        velocity_group *g = &k->groups[i];
        if (read_group(g, PyTuple_GetItem(groups, i)) != 0) return -1;
        g->first_list = k->n_lists;
        k->n_lists += 1 + g->n_distinct;
        largest += HOPS * (size_t)g->stride + MOST_DISTINCT * (size_t)g->n_distinct;
        if (g->hop_ms * HOPS > k->longest_ms) k->longest_ms = g->hop_ms * HOPS;
        if (k->longest_ms > p->longest_ms) p->longest_ms = k->longest_ms;
        if (g->n_columns > p->most_columns) p->most_columns = g->n_columns;
    }
    k->lengths_word = LAST_VALUES + 2 * k->n_last;
    k->lists_word = k->lengths_word + (k->n_lists + 3) / 4;
    if (lay_out_few(k) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    size_t few = (size_t)k->most_few * (size_t)k->few_words;
    largest = (largest > few ? largest : few) + (size_t)k->lists_word;
    if (largest * sizeof(int64_t) > CHUNK_BYTES) {
        PyErr_SetString(PyExc_ValueError, "a key could have more than 1 MiB");
        return -1;
    }
    if (largest > p->largest_block) p->largest_block = largest;
    return 0;
}

static int read_outputs(velocity_plan *p, PyObject *tuple) {
    p->outputs = items(tuple, sizeof *p->outputs, &p->n_outputs);
    for (int32_t i = 0; p->outputs != NULL && i < p->n_outputs; i++) {
        velocity_output *o = &p->outputs[i];
        if (!PyArg_ParseTuple(PyTuple_GetItem(tuple, i), "iiiiiid", &o->column, &o->function, &o->key_set, &o->group,
                              &o->item, &o->input, &o->power))
            return -1;
        if (o->key_set < 0 || o->key_set >= p->n_key_sets || o->column < 0 || o->column >= p->width || o->group < 0 ||
            o->group >= p->key_sets[o->key_set].n_groups) {
            PyErr_SetString(PyExc_ValueError, "an output is not within its plan");
            return -1;
        }
        velocity_key_set *k = &p->key_sets[o->key_set];
        if (k->n_outputs++ == 0) k->first_output = i;
    }
    return p->outputs == NULL ? -1 : 0;
}

/* VelocityPlan(words, width, has_time, key_sets, outputs, hash_key, definition); see engine/kernels/velocity_kernel.py
 */
static PyObject *plan_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"n_words", "width", "has_time", "key_sets", "outputs", "hash_key", "definition", NULL};
    PyObject *key_sets, *outputs;
    int n_words, width, has_time;
    const char *hash_key, *definition;
    Py_ssize_t key_length, definition_length;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "iipO!O!y#y#", names, &n_words, &width, &has_time,
                                     &PyTuple_Type, &key_sets, &PyTuple_Type, &outputs, &hash_key, &key_length,
                                     &definition, &definition_length))
        return NULL;
    PlanObject *self = (PlanObject *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    velocity_plan *p = &self->plan;
    p->n_words = n_words;
    p->width = width;
    p->has_time = has_time;
    if (key_length != sizeof p->hash_key || definition_length != sizeof p->definition ||
        PyTuple_Size(key_sets) > MAX_KEY_SETS) {
        PyErr_SetString(PyExc_ValueError,
                        "expected a hash key of 16 bytes, a definition of 32, and at most 256 key sets");
        goto failed;
    }
    memcpy(p->hash_key, hash_key, sizeof p->hash_key);
    memcpy(p->definition, definition, sizeof p->definition);
    p->key_sets = items(key_sets, sizeof *p->key_sets, &p->n_key_sets);
    if (p->key_sets == NULL) goto failed;
    for (int32_t i = 0; i < p->n_key_sets; i++)
        if (read_key_set(p, &p->key_sets[i], PyTuple_GetItem(key_sets, i)) != 0) goto failed;
    if (read_outputs(p, outputs) != 0) goto failed;
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

static void plan_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    free_plan(&((PlanObject *)object)->plan);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* ---- states ---- */

/* VelocityState(plan, limit in bytes, next offset, complete from in ms) */
static PyObject *state_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"plan", "limit", "next_offset", "complete_from_ms", NULL};
    PyObject *plan;
    unsigned long long limit;
    long long next_offset = 0, complete_from_ms = INT64_MIN;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!K|LL", names, plan_class, &plan, &limit, &next_offset,
                                     &complete_from_ms))
        return NULL;
    StateObject *self = (StateObject *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    self->plan = Py_NewRef(plan);
    if (velocity_state_init(&self->state, &((PlanObject *)plan)->plan, limit) != 0) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->state.next_offset = next_offset;
    self->state.complete_from_ms = complete_from_ms;
    return (PyObject *)self;
}

static void state_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    StateObject *self = (StateObject *)object;
    velocity_state_free(&self->state);
    Py_XDECREF(self->plan);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *state_statistics(PyObject *object, PyObject *unused) {
    (void)unused;
    const velocity_state *s = &((StateObject *)object)->state;
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:L,s:L}", "keys", (unsigned long long)s->n_keys, "bytes",
                         (unsigned long long)s->used, "evicted", (unsigned long long)s->evicted, "evicted_live",
                         (unsigned long long)s->evicted_live, "without_time", (unsigned long long)s->without_time,
                         "incomplete", (unsigned long long)s->incomplete, "serial", (unsigned long long)s->serial,
                         "next_offset", (long long)s->next_offset, "complete_from_ms", (long long)s->complete_from_ms);
}

/* begin_snapshot(): of the state as it is now */
static PyObject *state_begin_snapshot(PyObject *object, PyObject *unused) {
    (void)unused;
    velocity_snapshot_begin(&((StateObject *)object)->state);
    Py_RETURN_NONE;
}

/* snapshot_part(most blocks) -> bytes, b"" after the last one */
static PyObject *state_snapshot_part(PyObject *object, PyObject *most) {
    velocity_state *s = &((StateObject *)object)->state;
    long blocks = PyLong_AsLong(most);
    if (blocks == -1 && PyErr_Occurred()) return NULL;
    if (velocity_snapshot_walk(s, blocks) != 0) return PyErr_NoMemory();
    PyObject *part = PyBytes_FromStringAndSize(s->saved, (Py_ssize_t)s->n_saved);
    s->n_saved = 0;
    return part;
}

/* restore(part of a snapshot); ValueError if it is not one of a state of this plan */
static PyObject *state_restore(PyObject *object, PyObject *part) {
    char *data;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(part, &data, &length) != 0) return NULL;
    switch (velocity_restore(&((StateObject *)object)->state, data, (size_t)length)) {
    case 0: Py_RETURN_NONE;
    case -1: return PyErr_NoMemory();
    default: PyErr_SetString(PyExc_ValueError, "not a part of a snapshot"); return NULL;
    }
}

/* end_restore(serial, evicted, evicted live, without time, incomplete): after the last part */
static PyObject *state_end_restore(PyObject *object, PyObject *arguments) {
    velocity_state *s = &((StateObject *)object)->state;
    unsigned long long serial, evicted, evicted_live, without_time, incomplete;
    if (!PyArg_ParseTuple(arguments, "KKKKK", &serial, &evicted, &evicted_live, &without_time, &incomplete))
        return NULL;
    s->evicted = evicted;
    s->evicted_live = evicted_live;
    s->without_time = without_time;
    s->incomplete = incomplete;
    if (velocity_restore_end(s, serial) == 0) Py_RETURN_NONE;
    return PyErr_NoMemory();
}

/* The columns of a record that came a moment ago: 1, or 0 if they are not known any more. */
static int recall(const velocity_plan *plan, const velocity_state *s, int64_t offset, float *row) {
    for (int i = 0; i < N_REMEMBERED; i++) {
        if (s->remembered[i].offset != offset) continue;
        for (int32_t j = 0; j < plan->n_outputs; j++) row[plan->outputs[j].column] = s->remembered[i].columns[j];
        return 1;
    }
    return 0;
}

static void remember(const velocity_plan *plan, velocity_state *s, int64_t offset, const float *row) {
    remembered *r = &s->remembered[s->n_remembered++ % N_REMEMBERED];
    r->offset = offset;
    for (int32_t j = 0; j < plan->n_outputs; j++) r->columns[j] = row[plan->outputs[j].column];
    s->next_offset = offset + 1;
}

enum { APPLIED, AGAIN, NO_MEMORY };

/* offset < 0: the record has none. */
static int apply_one(const velocity_plan *plan, velocity_state *s, const int64_t *inputs, const velocity_key *keys,
                     int64_t timestamp_ms, int64_t offset, float *row) {
    if (offset >= 0 && offset < s->next_offset) return recall(plan, s, offset, row) ? APPLIED : AGAIN;
    if (velocity_apply(plan, s, inputs, keys, timestamp_ms, row) != 0) return NO_MEMORY;
    if (offset >= 0) remember(plan, s, offset, row);
    return APPLIED;
}

/* NULL without an exception: there is none. */
static velocity_state *state_of(PyObject *states, int32_t partition, const velocity_plan *plan) {
    PyObject *number = PyLong_FromLong(partition);
    PyObject *state = number == NULL ? NULL : PyDict_GetItemWithError(states, number);
    Py_XDECREF(number);
    if (state == NULL) return NULL;
    if (Py_TYPE(state) == state_class) {
        velocity_state *found = &((StateObject *)state)->state;
        static const uint8_t none[sizeof plan->definition];
        if (found->plan == plan || (memcmp(plan->definition, none, sizeof none) != 0 &&
                                    memcmp(plan->definition, found->plan->definition, sizeof none) == 0))
            return found;
    }
    PyErr_SetString(PyExc_TypeError, "expected a VelocityState of this plan");
    return NULL;
}

int is_velocity_plan(PyObject *object, int words, int width) {
    return Py_TYPE(object) == plan_class && ((PlanObject *)object)->plan.n_words == words &&
           ((PlanObject *)object)->plan.width == width;
}

int velocity_apply_record(PyObject *plan_object, PyObject *states, int32_t partition, const int64_t *inputs,
                          int64_t timestamp_ms, int64_t offset, float *row) {
    const velocity_plan *plan = &((PlanObject *)plan_object)->plan;
    velocity_key keys[MAX_KEY_SETS];
    velocity_state *state = state_of(states, partition, plan);
    if (state == NULL) {
        PyErr_Clear();
        return 0;
    }
    velocity_keys(plan, inputs, keys);
    return apply_one(plan, state, inputs, keys, timestamp_ms, offset, row) == APPLIED;
}

#define AHEAD 16 /* records whose memory is fetched before it is needed */

typedef struct {
    PyObject *states;
    const int32_t *partitions, *indices; /* of each record of the batch; of each row its record */
    const int64_t *inputs, *timestamps, *offsets;
    float *matrix;
    Py_ssize_t n;
} batch;

static Py_ssize_t record_of(const batch *b, Py_ssize_t row) { return b->indices == NULL ? row : b->indices[row]; }

static int apply_rows(const batch *b, const velocity_plan *plan, velocity_key *keys) {
    size_t n_keys = (size_t)plan->n_key_sets;
    velocity_state *states[AHEAD], *state = NULL;
    int32_t known = -1; /* the partition of `state`: records of a partition come in runs */
    for (Py_ssize_t first = 0; first < b->n; first += AHEAD) {
        Py_ssize_t n = b->n - first < AHEAD ? b->n - first : AHEAD;
        for (Py_ssize_t i = 0; i < n; i++) {
            int32_t partition = b->partitions == NULL ? 0 : b->partitions[record_of(b, first + i)];
            if (state == NULL || partition != known) state = state_of(b->states, known = partition, plan);
            if (state == NULL) {
                if (!PyErr_Occurred()) PyErr_Format(PyExc_LookupError, "partition %d has no history", (int)partition);
                return -1;
            }
            states[i] = state;
            velocity_keys(plan, b->inputs + (first + i) * plan->n_words, keys + (size_t)i * n_keys);
            for (size_t j = 0; j < n_keys; j++) velocity_prefetch_slot(states[i], &keys[(size_t)i * n_keys + j]);
        }
        for (Py_ssize_t i = 0; i < n; i++)
            for (size_t j = 0; j < n_keys; j++) velocity_prefetch_block(states[i], &keys[(size_t)i * n_keys + j]);
        for (Py_ssize_t i = 0; i < n; i++)
            for (size_t j = 0; j < n_keys; j++) velocity_prefetch_neighbours(states[i], &keys[(size_t)i * n_keys + j]);
        for (Py_ssize_t i = 0; i < n; i++) {
            Py_ssize_t row = first + i, record = record_of(b, row);
            switch (apply_one(plan, states[i], b->inputs + row * plan->n_words, keys + (size_t)i * n_keys,
                              b->timestamps == NULL ? -1 : b->timestamps[record],
                              b->offsets == NULL ? -1 : b->offsets[record], b->matrix + row * plan->width)) {
            case APPLIED: break;
            case NO_MEMORY: PyErr_NoMemory(); return -1;
            default:
                PyErr_Format(PyExc_LookupError, "offset %lld is before %lld, up to which the state has the records",
                             (long long)b->offsets[record], (long long)states[i]->next_offset);
                return -1;
            }
        }
    }
    return 0;
}

/* A buffer with room for n items, or None; -1 with an exception. */
static int optional_buffer(PyObject *object, Py_ssize_t item, Py_ssize_t n, Py_buffer *buffer) {
    if (object == Py_None) return 0;
    if (PyObject_GetBuffer(object, buffer, PyBUF_SIMPLE) != 0) return -1;
    if (buffer->len >= n * item) return 0;
    PyErr_SetString(PyExc_ValueError, "a buffer is too small for the batch");
    return -1;
}

/* apply(plan, states, inputs, matrix, records, partitions, indices, timestamps, offsets): the rows of accepted records,
   in order. records: how many the batch has, for which `partitions`, `timestamps` and `offsets` are; these may be None.
 */
PyObject *velocity_apply_batch(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *plan, *states, *objects[4], *answer = NULL;
    Py_buffer inputs, matrix, buffers[4] = {{0}};
    Py_ssize_t n_records;
    if (!PyArg_ParseTuple(arguments, "O!O!y*w*nOOOO", plan_class, &plan, &PyDict_Type, &states, &inputs, &matrix,
                          &n_records, &objects[0], &objects[1], &objects[2], &objects[3]))
        return NULL;
    const velocity_plan *p = &((PlanObject *)plan)->plan;
    velocity_key *keys = malloc(AHEAD * ((size_t)p->n_key_sets + 1) * sizeof *keys);
    Py_ssize_t n = inputs.len / ((Py_ssize_t)sizeof(int64_t) * p->n_words);
    static const Py_ssize_t sizes[4] = {sizeof(int32_t), sizeof(int32_t), sizeof(int64_t), sizeof(int64_t)};
    int failed = keys == NULL;
    if (failed) PyErr_NoMemory();
    for (int i = 0; i < 4 && !failed; i++)
        failed = optional_buffer(objects[i], sizes[i], i == 1 ? n : n_records, &buffers[i]) != 0;
    if (!failed && matrix.len < n * p->width * (Py_ssize_t)sizeof(float)) {
        PyErr_SetString(PyExc_ValueError, "the matrix is too small for the batch");
        failed = 1;
    }
    const int32_t *indices = buffers[1].buf;
    for (Py_ssize_t i = 0; i < n && !failed; i++)
        if (indices != NULL ? indices[i] < 0 || indices[i] >= n_records : i >= n_records) {
            PyErr_SetString(PyExc_IndexError, "a row has no record");
            failed = 1;
        }
    if (!failed) {
        batch b = {states, buffers[0].buf, indices, inputs.buf, buffers[2].buf, buffers[3].buf, matrix.buf, n};
        if (apply_rows(&b, p, keys) == 0) answer = Py_NewRef(Py_None);
    }
    for (int i = 0; i < 4; i++)
        if (buffers[i].obj != NULL) PyBuffer_Release(&buffers[i]);
    PyBuffer_Release(&inputs);
    PyBuffer_Release(&matrix);
    free(keys);
    return answer;
}

static PyType_Slot plan_slots[] = {{Py_tp_new, plan_new}, {Py_tp_dealloc, plan_dealloc}, {0, NULL}};
static PyType_Spec plan_spec = {"saker.engine.kernels._native.VelocityPlan", sizeof(PlanObject), 0, Py_TPFLAGS_DEFAULT,
                                plan_slots};

static PyMethodDef state_methods[] = {
    {"statistics", state_statistics, METH_NOARGS, NULL},    {"begin_snapshot", state_begin_snapshot, METH_NOARGS, NULL},
    {"snapshot_part", state_snapshot_part, METH_O, NULL},   {"restore", state_restore, METH_O, NULL},
    {"end_restore", state_end_restore, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyType_Slot state_slots[] = {
    {Py_tp_new, state_new}, {Py_tp_dealloc, state_dealloc}, {Py_tp_methods, state_methods}, {0, NULL}};
static PyType_Spec state_spec = {"saker.engine.kernels._native.VelocityState", sizeof(StateObject), 0,
                                 Py_TPFLAGS_DEFAULT, state_slots};

PyObject *velocity_plan_type(void) {
    if (plan_class == NULL) plan_class = (PyTypeObject *)PyType_FromSpec(&plan_spec);
    return Py_XNewRef((PyObject *)plan_class);
}

PyObject *velocity_state_type(void) {
    if (state_class == NULL) state_class = (PyTypeObject *)PyType_FromSpec(&state_spec);
    return Py_XNewRef((PyObject *)state_class);
}
