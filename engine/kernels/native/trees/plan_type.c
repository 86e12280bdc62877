/* Python's view of the tree kernel: `Plan`, an immutable object that holds a laid-out ensemble and scores float32 rows.

   Threads: any thread may call `score`, several at once. It is called with the GIL held and drops it while it scores;
   the arrays are held by their buffers meanwhile. The scratch memory of the plan serves one call at a time, behind an
   atomic flag; a concurrent call allocates its own. `plan_sum` is called with the GIL held and keeps it. The
   constructor drops the GIL while it lays the ensemble out. */
#include "../internal_api.h"

#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"

/* ---- variants */

typedef struct {
    const char *name;
    ScoreFunction *score;
    /* What things cost, in steps of a walk: a test of a smallest block; a step of LANES trees, a row of several; the
     * same and a column's rank for a row alone. */
    float test, lane_step, lane_step_alone, lane_rank_alone;
} Variant;

#if defined(__x86_64__)
ScoreFunction score_avx512, score_avx2, score_baseline;

static const Variant variants[] = {{"avx512", score_avx512, 1.1f, 16.0f, 30.0f, 4.0f},
                                   {"avx2", score_avx2, 1.75f, 0, 0, 0},
                                   {"baseline", score_baseline, 6.3f, 0, 0, 0}};
#else
ScoreFunction score_baseline;
static const Variant variants[] = {{"baseline", score_baseline, 2.0f, 0, 0, 0}};
#endif
enum { N_VARIANTS = sizeof variants / sizeof *variants };

/* ---- columns */

enum { PLAIN, BAND, CATEGORY }; /* engine/kernels/onnx_reader/input_columns.py */

/* A column of the trees' matrix that is not the input's own. */
typedef struct {
    uint32_t column, source, kind;
} Special;

typedef struct {
    uint32_t n_input, n_columns, n_special;
    float low, high; /* the band: what counts as missing */
    Special *special;
} Columns;

/* NULL special and n_special 0 where the trees read the input as it is. Returns 0 and sets an exception if the
 * description is wrong. */
static int columns_read(Columns *columns, const Py_buffer *source, const Py_buffer *kind) {
    const int32_t *from = source->buf;
    const uint8_t *what = kind->buf;
    if (source->len != (Py_ssize_t)columns->n_columns * 4 || kind->len != (Py_ssize_t)columns->n_columns ||
        columns->n_input > columns->n_columns) {
        PyErr_SetString(PyExc_ValueError,
                        "source, kind: expected one of each for every column, and no fewer columns than the input has");
        return 0;
    }
    columns->special = calloc((size_t)columns->n_columns + 1, sizeof *columns->special);
    if (!columns->special) {
        PyErr_NoMemory();
        return 0;
    }
    for (uint32_t c = 0; c < columns->n_columns; c++) {
        if (from[c] < 0 || (uint32_t)from[c] >= columns->n_input || what[c] > CATEGORY ||
            (c < columns->n_input && (uint32_t)from[c] != c)) {
            PyErr_Format(PyExc_ValueError, "column %u: no such source or kind", c);
            return 0;
        }
        if (c >= columns->n_input || what[c] != PLAIN)
            columns->special[columns->n_special++] = (Special){c, (uint32_t)from[c], what[c]};
    }
    return 1;
}

static void columns_fill(const Columns *columns, const float *x, size_t n, float *out) {
    for (size_t row = 0; row < n; row++, x += columns->n_input, out += columns->n_columns) {
        memcpy(out, x, columns->n_input * sizeof *x);
        for (uint32_t i = 0; i < columns->n_special; i++) {
            const Special s = columns->special[i];
            const float value = x[s.source];
            out[s.column] = s.kind == CATEGORY                                                  ? truncf(value)
                            : s.kind == BAND && value >= columns->low && value <= columns->high ? NAN
                                                                                                : value;
        }
    }
}

/* ---- Plan */

typedef struct {
    PyObject ob_base;
    Plan *plan;
    Columns columns;
    const Variant *variant;
    Ways ways;
    size_t scratch_bytes, filled;
    unsigned char *scratch;
    atomic_flag scratch_busy; /* the scratch serves one call at a time; a concurrent call brings its own */
} PlanObject;

typedef struct {
    Py_buffer view;
    const char *name;
    size_t item;
} Array;

static int take(Array *array, size_t expected) {
    if ((size_t)array->view.len == expected * array->item) return 1;
    PyErr_Format(PyExc_ValueError, "%s: expected %zu items of %zu bytes, got %zd bytes", array->name, expected,
                 array->item, array->view.len);
    return 0;
}

static unsigned below_a_block(float rows) { return rows < 31 ? (unsigned)rows : 31; }

/* Each way up to as many rows as it is the cheapest for. */
static void choose_limits(Ways *ways, const Plan *plan, const Variant *variant) {
    float block = variant->test * (float)plan->n_tests, walk = (float)plan->n_walk_steps;
    /* A test costs each row of a full block 0.55 of what it costs in a smallest one. With many leaves, and no vectors
     * that look up bytes, walking is the cheapest however many rows there are. */
    int always = walk < 0.55f * block / 32 || (plan->any_walked && plan->n_tests == 0);
    if ((size_t)plan->n_walk_nodes * sizeof(WalkNode) >
        (1u << 20)) /* past the second cache a step takes longer, a test does not */
        walk /= 0.75f;
    ways->walk_limit = always ? UINT_MAX : walk > 0 ? below_a_block(block / walk) : 1;
    if (!plan->lane_steps) return;
    float steps = (float)plan->n_lane_steps;
    float alone = variant->lane_step_alone * steps + variant->lane_rank_alone * (float)plan->n_rankers;
    const int eight_tables = plan->n_planes > 256; /* then two rows are in hand (tree_per_lane.h), otherwise four */
    /* measured: sets are looked up in addition to the ranks, and lanes have 512 bits also where blocks do better with
     * less */
    float each = variant->lane_step * ((eight_tables ? 1.4f : 1.0f) + (plan->n_sets ? 0.65f : 0.0f)) /
                 (ways->wide ? 1.0f : 0.73f);
    ways->lanes_limit = steps > 0 ? below_a_block(block / (each * steps)) & (eight_tables ? ~1u : ~3u) : 0;
    if (alone < walk * (float)ways->walk_limit) ways->walk_limit = (unsigned)(alone / walk);
}

static PyObject *plan_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {
        "n_features",      "n_targets",      "average",      "single",      "root",       "feature",
        "nan_true",        "threshold",      "set",          "yes",         "no",         "leaf_value",
        "leaf_target",     "set_feature",    "set_n_values", "set_count",   "set_values", "set_bits",
        "n_input",         "source",         "kind",         "low",         "high",       "isa",
        "slots_per_group", "rows_per_block", "walk_limit",   "lanes_limit", "wide",       NULL};
    enum {
        ROOT,
        FEATURE,
        NAN_TRUE,
        THRESHOLD,
        SET,
        YES,
        NO,
        LEAF_VALUE,
        LEAF_TARGET,
        SET_FEATURE,
        SET_N_VALUES,
        SET_COUNT,
        SET_VALUES,
        SET_BITS,
        N
    };
    Array a[N] = {
        {.name = "root", .item = 4},        {.name = "feature", .item = 4},      {.name = "nan_true", .item = 1},
        {.name = "threshold", .item = 4},   {.name = "set", .item = 4},          {.name = "yes", .item = 4},
        {.name = "no", .item = 4},          {.name = "leaf_value", .item = 8},   {.name = "leaf_target", .item = 4},
        {.name = "set_feature", .item = 4}, {.name = "set_n_values", .item = 4}, {.name = "set_count", .item = 4},
        {.name = "set_values", .item = 4},  {.name = "set_bits", .item = 1}};
    unsigned n_features, n_targets, slots = 0, rows = 0;
    int average, single, walk_limit = -1, lanes_limit = -1, wide = -1;
    const char *isa = NULL;
    Columns columns = {0};
    Py_buffer source_of, kind_of;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "IIppy*y*y*y*y*y*y*y*y*y*y*y*y*y*Iy*y*ff|zIIiii:Plan", names, &n_features, &n_targets,
            &average, &single, &a[0].view, &a[1].view, &a[2].view, &a[3].view, &a[4].view, &a[5].view, &a[6].view,
            &a[7].view, &a[8].view, &a[9].view, &a[10].view, &a[11].view, &a[12].view, &a[13].view, &columns.n_input,
            &source_of, &kind_of, &columns.low, &columns.high, &isa, &slots, &rows, &walk_limit, &lanes_limit, &wide))
        return NULL;
    PlanObject *self = NULL;
    const Variant *variant = NULL;
    for (int i = 0; i < N_VARIANTS && !variant; i++)
        if (runs_variant(variants[i].name) && (!isa || !strcmp(isa, variants[i].name))) variant = variants + i;
    if (!variant) {
        PyErr_Format(PyExc_ValueError, "isa: this machine does not run '%s'", isa);
        goto done;
    }
    size_t n_nodes = (size_t)a[FEATURE].view.len / 4, n_leaves = (size_t)a[LEAF_VALUE].view.len / 8,
           n_sets = (size_t)a[SET_FEATURE].view.len / 4;
    size_t n_trees = (size_t)a[ROOT].view.len / 4, n_values = (size_t)a[SET_VALUES].view.len / 4,
           n_bits = (size_t)a[SET_BITS].view.len;
    size_t expected[N] = {n_trees,  n_nodes,  n_nodes, n_nodes, n_nodes, n_nodes,  n_nodes,
                          n_leaves, n_leaves, n_sets,  n_sets,  n_sets,  n_values, n_bits};
    for (int i = 0; i < N; i++)
        if (!take(a + i, expected[i])) goto done;
    if (n_nodes > INT32_MAX / 2 || n_leaves > INT32_MAX / 2 || n_trees > INT32_MAX / 2 || n_features > INT32_MAX / 2 ||
        n_targets > 65536) {
        PyErr_SetString(PyExc_ValueError, "the ensemble is too large");
        goto done;
    }
    Source source = {.n_features = n_features,
                     .n_targets = n_targets,
                     .n_trees = (uint32_t)n_trees,
                     .n_nodes = (uint32_t)n_nodes,
                     .n_leaves = (uint32_t)n_leaves,
                     .n_sets = (uint32_t)n_sets,
                     .average = average,
                     .single = single,
                     .lanes = variant->lane_step > 0,
                     .root = a[ROOT].view.buf,
                     .feature = a[FEATURE].view.buf,
                     .nan_true = a[NAN_TRUE].view.buf,
                     .threshold = a[THRESHOLD].view.buf,
                     .set = a[SET].view.buf,
                     .yes = a[YES].view.buf,
                     .no = a[NO].view.buf,
                     .leaf_value = a[LEAF_VALUE].view.buf,
                     .leaf_target = a[LEAF_TARGET].view.buf,
                     .set_feature = a[SET_FEATURE].view.buf,
                     .set_n_values = a[SET_N_VALUES].view.buf,
                     .set_count = a[SET_COUNT].view.buf,
                     .set_values = a[SET_VALUES].view.buf,
                     .set_bits = a[SET_BITS].view.buf,
                     .n_set_values = n_values,
                     .n_set_bits = n_bits};
    if (rows && rows != 32 && rows != 64 && rows != 128 && rows != 256) {
        PyErr_SetString(PyExc_ValueError, "rows_per_block: expected 32, 64, 128 or 256");
        goto done;
    }
    columns.n_columns = n_features;
    if (!columns_read(&columns, &source_of, &kind_of)) goto done;
    const char *error = NULL;
    Plan *plan;
    Py_BEGIN_ALLOW_THREADS
        plan = plan_build(&source, slots ? slots : 512, &error);
    Py_END_ALLOW_THREADS
    if (!plan) {
        PyErr_SetString(PyExc_ValueError, error);
        goto done;
    }
    size_t scratch_bytes = (plan_scratch_bytes(plan) + 63) & ~(size_t)63;
    size_t filled = scratch_bytes; /* where the columns of a block lie, if they have to be made */
    if (columns.n_special) scratch_bytes += (MAX_ROWS * sizeof(float) * columns.n_columns + 63) & ~(size_t)63;
    unsigned char *scratch = aligned_alloc(64, scratch_bytes);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    self = scratch ? (PlanObject *)allocate(type, 0) : (PlanObject *)PyErr_NoMemory();
    if (!self) {
        free(scratch);
        plan_free(plan);
        goto done;
    }
    self->plan = plan;
    self->columns = columns;
    columns.special = NULL; /* it is the object's now */
    self->filled = filled;
    self->variant = variant;
    const int has_512 = variant->lane_step > 0;
    self->ways.wide = has_512 && (wide >= 0 ? wide > 0 : full_512());
    /* the widest block amortises a node best until its planes crowd the caches: 14 % on 864 planes, nothing on 575;
       where treelets of AVX-512 have 256 bits 6 % on 400 without sets, the other way 4 % on 575 with sets */
    const unsigned many = has_512 && !self->ways.wide && !plan->n_sets ? 320 : 640;
    self->ways.rows_per_block = rows ? rows : plan->n_planes > many ? 128 : 256;
    choose_limits(&self->ways, plan, variant);
    if (walk_limit >= 0) self->ways.walk_limit = (unsigned)walk_limit;
    if (lanes_limit >= 0 && plan->lane_steps) self->ways.lanes_limit = (unsigned)lanes_limit;
    self->scratch = scratch;
    self->scratch_bytes = scratch_bytes;
    atomic_flag_clear(&self->scratch_busy);
done:
    free(columns.special);
    PyBuffer_Release(&source_of);
    PyBuffer_Release(&kind_of);
    for (int i = 0; i < N; i++) PyBuffer_Release(&a[i].view);
    return (PyObject *)self;
}

static void plan_dealloc(PyObject *object) {
    PlanObject *self = (PlanObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    plan_free(self->plan);
    free(self->columns.special);
    free(self->scratch);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* A C-contiguous two-dimensional view of `format` items. */
static int view_matrix(PyObject *object, Py_buffer *view, const char *name, char format, Py_ssize_t columns,
                       int writable) {
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) < 0)
        return 0;
    const char *got = view->format ? view->format : "B";
    if (*got == '=' || *got == '<' || *got == '@') got++;
    if (got[0] != format || got[1]) {
        PyErr_Format(PyExc_TypeError, "%s: expected %s, got an array of format '%s'", name,
                     format == 'f' ? "float32" : "float64", view->format);
    } else if (view->ndim != 2 || view->shape[1] != columns) {
        PyErr_Format(PyExc_ValueError, "%s: expected shape (n, %zd), got %d dimension(s)%s", name, columns, view->ndim,
                     view->ndim == 2 ? " and another number of columns" : "");
    } else if (((uintptr_t)view->buf) % (format == 'f' ? 4 : 8)) {
        PyErr_Format(PyExc_ValueError, "%s: the array is not aligned", name);
    } else {
        return 1;
    }
    PyBuffer_Release(view);
    return 0;
}

static void score_rows(const PlanObject *self, const float *x, size_t n, double *out, unsigned char *scratch) {
    const Columns *columns = &self->columns;
    if (!columns->n_special) {
        self->variant->score(self->plan, x, n, out, scratch, self->ways);
        return;
    }
    float *filled = (float *)(void *)(scratch + self->filled);
    for (size_t start = 0; start < n; start += MAX_ROWS) {
        size_t rows = n - start < MAX_ROWS ? n - start : MAX_ROWS;
        columns_fill(columns, x + start * columns->n_input, rows, filled);
        self->variant->score(self->plan, filled, rows, out + start * self->plan->n_targets, scratch, self->ways);
    }
}

PyDoc_STRVAR(score_doc, "score(x, out, program=None, /)\n--\n\nSums the leaf values of float32 x (n, features) into "
                        "float64 out (n, targets), or, of one "
                        "target, what the program makes of each sum. Releases the GIL.");

static PyTypeObject *plan_class; /* made once, kept by the module */

/* Returns 0 without memory. */
static int sum_rows(PlanObject *self, const float *x, size_t n, double *out) {
    int own = atomic_flag_test_and_set(&self->scratch_busy);
    unsigned char *scratch = own ? aligned_alloc(64, self->scratch_bytes) : self->scratch;
    if (scratch) score_rows(self, x, n, out, scratch);
    if (own) free(scratch);
    else atomic_flag_clear(&self->scratch_busy);
    return scratch != NULL;
}

int is_plan(PyObject *object) { return Py_TYPE(object) == plan_class; }

int plan_inputs(PyObject *plan) { return (int)((PlanObject *)plan)->columns.n_input; }

int plan_targets(PyObject *plan) { return (int)((PlanObject *)plan)->plan->n_targets; }

int plan_sum(PyObject *plan, const float *x, size_t n, double *sums) {
    return sum_rows((PlanObject *)plan, x, n, sums);
}

static PyObject *plan_score(PyObject *object, PyObject *args) {
    PlanObject *self = (PlanObject *)object;
    PyObject *x_object, *out_object, *program = Py_None;
    Py_buffer x, out;
    if (!PyArg_ParseTuple(args, "OO|O:score", &x_object, &out_object, &program)) return NULL;
    const int has_program = program != Py_None;
    if (has_program && (!is_function(program) || self->plan->n_targets != 1)) {
        PyErr_SetString(PyExc_TypeError,
                        "program: expected one that makes a number of a number, and an ensemble of one target");
        return NULL;
    }
    if (!view_matrix(x_object, &x, "x", 'f', self->columns.n_input, 0)) return NULL;
    if (!view_matrix(out_object, &out, "out", 'd', self->plan->n_targets, 1)) {
        PyBuffer_Release(&x);
        return NULL;
    }
    int failed = 0;
    if (out.shape[0] != x.shape[0]) {
        PyErr_Format(PyExc_ValueError, "out: expected %zd rows, got %zd", x.shape[0], out.shape[0]);
        failed = 1;
    } else if (x.shape[0]) {
        Py_BEGIN_ALLOW_THREADS
            failed = !sum_rows(self, x.buf, (size_t)x.shape[0], out.buf);
            if (has_program && !failed) program_apply(program, out.buf, out.buf, (size_t)x.shape[0]);
        Py_END_ALLOW_THREADS
        if (failed) PyErr_NoMemory();
    }
    PyBuffer_Release(&x);
    PyBuffer_Release(&out);
    if (failed) return NULL;
    Py_INCREF(Py_None);
    return Py_None;
}

static PyObject *plan_isa(PyObject *object, void *unused) {
    (void)unused;
    return PyUnicode_FromString(((PlanObject *)object)->variant->name);
}

static PyObject *plan_ways(PyObject *object, void *unused) {
    (void)unused;
    const Ways *ways = &((PlanObject *)object)->ways;
    return Py_BuildValue("(IIII)", ways->rows_per_block, ways->walk_limit, ways->lanes_limit, ways->wide);
}

static PyObject *plan_costs(PyObject *object, void *unused) {
    (void)unused;
    const Plan *plan = ((PlanObject *)object)->plan;
    return Py_BuildValue("(IIII)", plan->n_tests, plan->n_walk_steps, plan->n_lane_steps, plan->n_rankers);
}

static PyMethodDef plan_methods[] = {{"score", plan_score, METH_VARARGS, score_doc}, {NULL, NULL, 0, NULL}};
static PyGetSetDef plan_getset[] = {
    {"isa", plan_isa, NULL, "name of the variant that runs", NULL},
    {"ways", plan_ways, NULL, "rows of a block, and up to how many are walked, or go in lanes", NULL},
    {"costs", plan_costs, NULL, "tests of a block, steps of a walked row, lane steps of a row, and rankers", NULL},
    {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot plan_slots[] = {{Py_tp_new, plan_new},
                                   {Py_tp_dealloc, plan_dealloc},
                                   {Py_tp_methods, plan_methods},
                                   {Py_tp_getset, plan_getset},
                                   {Py_tp_doc, "A tree ensemble laid out for scoring."},
                                   {0, NULL}};
static PyType_Spec plan_spec = {"saker.engine.kernels._native.Plan", sizeof(PlanObject), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, plan_slots};

PyObject *plan_type(void) {
    if (plan_class == NULL) plan_class = (PyTypeObject *)PyType_FromSpec(&plan_spec);
    return Py_XNewRef((PyObject *)plan_class);
}
