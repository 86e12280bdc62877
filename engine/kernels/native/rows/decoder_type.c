/* Python's view of the row decoder: arguments in, results out. The GIL is kept: a batch takes a fraction of a
   millisecond, and handed-over records need it. */
#include "../internal_api.h"
#include "batch_values.h"
#include "rows.h"
#include <stdlib.h>
#include <string.h>

/* A record above this goes to the reference: offsets in the kernel are 32-bit. */
#define LARGEST_RECORD ((Py_ssize_t)64 << 20)

typedef struct {
    PyObject_HEAD rows_decoder decoder;
    decode_record_function decode_record;
    int busy;
} DecoderObject;

static decode_record_function variant_named(const char *variant) {
#if defined(__x86_64__)
    if (strcmp(variant, "avx512") == 0) return rows_decode_record_avx512;
    if (strcmp(variant, "avx2") == 0) return rows_decode_record_avx2;
#else
    (void)variant;
#endif
    return rows_decode_record_baseline;
}

/* (name, kind, required, column, targets, vocabulary or None, codes, unknown_code); see engine/kernels/row_kernel.py.
 */
static int set_field(field *f, PyObject *description) {
    PyObject *targets, *vocabulary;
    int kind, required, column;
    double unknown_code;
    Py_buffer codes;
    if (!PyArg_ParseTuple(description, "iiiO!O!y*d", &kind, &required, &column, &PyTuple_Type, &targets, &PyTuple_Type,
                          &vocabulary, &codes, &unknown_code))
        return -1;
    f->kind = kind;
    f->required = required;
    f->column = column;
    f->unknown_code = (float)unknown_code;
    f->n_targets = (int32_t)PyTuple_Size(targets);
    f->targets = calloc((size_t)f->n_targets + 1, sizeof *f->targets);
    f->codes = calloc((size_t)codes.len + 4, 1);
    if (f->codes != NULL) memcpy(f->codes, codes.buf, (size_t)codes.len);
    PyBuffer_Release(&codes);
    if (f->targets == NULL || f->codes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (int32_t i = 0; i < f->n_targets; i++) {
        int target_kind, target_column;
        if (!PyArg_ParseTuple(PyTuple_GetItem(targets, i), "ii", &target_kind, &target_column)) return -1;
        f->targets[i] = (target){target_column, target_kind};
    }
    return 0;
}

/* A tuple of bytes objects -> table of text -> position. */
static int build_table(text_table *table, PyObject *texts) {
    Py_ssize_t n = PyTuple_Size(texts);
    const char **pointers = calloc((size_t)n + 1, sizeof *pointers);
    uint32_t *lengths = calloc((size_t)n + 1, sizeof *lengths);
    int result = -1;
    if (pointers == NULL || lengths == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        char *text;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(texts, i), &text, &length) != 0) goto done;
        pointers[i] = text;
        lengths[i] = (uint32_t)length;
    }
    result = text_table_build(table, pointers, lengths, (int32_t)n);
    if (result != 0) PyErr_SetString(PyExc_MemoryError, "no memory for a table of texts");
done:
    free(pointers);
    free(lengths);
    return result;
}

static PyObject *decoder_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"variant", "width", "names", "fields", "identifier_slot", NULL};
    const char *variant;
    int width, identifier_slot;
    PyObject *field_names, *fields;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "siO!O!i", names, &variant, &width, &PyTuple_Type,
                                     &field_names, &PyTuple_Type, &fields, &identifier_slot))
        return NULL;
    if (!runs_variant(variant)) {
        PyErr_Format(PyExc_ValueError, "this processor does not run the variant '%s'", variant);
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    DecoderObject *self = (DecoderObject *)allocate(type, 0);
    if (self == NULL) return NULL;
    rows_decoder *d = &self->decoder;
    self->decode_record = variant_named(variant);
    int32_t n_fields = (int32_t)PyTuple_Size(fields);
    if (rows_init(d, width, n_fields) != 0) {
        PyErr_NoMemory();
        goto failed;
    }
    d->identifier_slot = identifier_slot;
    if (build_table(&d->names, field_names) != 0) goto failed;
    for (int32_t i = 0; i < n_fields; i++) {
        PyObject *description = PyTuple_GetItem(fields, i);
        PyObject *vocabulary = PyTuple_GetItem(description, 4);
        if (vocabulary == NULL || set_field(&d->fields[i], description) != 0) goto failed;
        if (build_table(&d->fields[i].vocabulary, vocabulary) != 0) goto failed;
        d->n_required += (uint32_t)d->fields[i].required;
    }
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

static void decoder_dealloc(PyObject *object) {
    DecoderObject *self = (DecoderObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    rows_free(&self->decoder);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

typedef struct {
    float *row;
    int32_t *source_index;
    int64_t *identifier_start, *identifier_length;
    Py_ssize_t n_accepted, n_handed_over;
} progress;

static void accept(progress *so_far, Py_ssize_t index, int64_t start, int64_t length, int32_t width) {
    so_far->source_index[so_far->n_accepted] = (int32_t)index;
    so_far->identifier_start[so_far->n_accepted] = start;
    so_far->identifier_length[so_far->n_accepted] = length;
    so_far->n_accepted++;
    so_far->row += width;
}

/* hand_over(index, row number) -> (identifier start, its length), or None: rejected. */
static int take_from_reference(progress *so_far, PyObject *hand_over, Py_ssize_t index, int32_t width) {
    PyObject *answer = PyObject_CallFunction(hand_over, "nn", index, so_far->n_accepted);
    if (answer == NULL) return -1;
    so_far->n_handed_over++;
    int result = 0;
    if (answer != Py_None) {
        long long start, length;
        if (PyArg_ParseTuple(answer, "LL", &start, &length)) accept(so_far, index, start, length, width);
        else result = -1;
    }
    Py_DECREF(answer);
    return result;
}

/* on_rejection(index, code, slot or -1, name of an unknown field or None) */
static int reject(PyObject *on_rejection, Py_ssize_t index, const record_result *fault) {
    PyObject *answer = PyObject_CallFunction(on_rejection, "niiy#", index, (int)fault->code, (int)fault->slot,
                                             fault->name, (Py_ssize_t)fault->name_length);
    if (answer == NULL) return -1;
    Py_DECREF(answer);
    return 0;
}

/* on_identifier(index, identifier): for one that is not in the record's bytes as it is in the result */
static int rewritten(PyObject *on_identifier, Py_ssize_t index, record_result *result) {
    PyObject *answer =
        PyObject_CallFunction(on_identifier, "ny#", index, result->identifier, (Py_ssize_t)result->identifier_length);
    if (answer == NULL) return -1;
    Py_DECREF(answer);
    result->identifier_start = 0;
    return 0;
}

typedef struct {
    PyObject *hand_over, *on_rejection, *on_identifier;
} callbacks;

static void count_blank(rows_decoder *d, const float *row) {
    d->n_blank += memcmp(row, d->blank_row, (size_t)d->width * sizeof *row) == 0;
}

static int decode_one(DecoderObject *self, const Value *value, Py_ssize_t index, progress *so_far,
                      const callbacks *python) {
    rows_decoder *d = &self->decoder;
    record_result result = {.code = EMPTY, .slot = -1};
    if (value->length == 0) return reject(python->on_rejection, index, &result);
    if (value->length > LARGEST_RECORD) return take_from_reference(so_far, python->hand_over, index, d->width);
    if (rows_load(d, value->bytes, (size_t)value->length) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    int outcome = self->decode_record(d, (size_t)value->length, so_far->row, &result);
    if (outcome == HAND_OVER) return take_from_reference(so_far, python->hand_over, index, d->width);
    if (outcome == REJECTED) return reject(python->on_rejection, index, &result);
    if (result.identifier != NULL && rewritten(python->on_identifier, index, &result) != 0) return -1;
    count_blank(d, so_far->row);
    accept(so_far, index, (int64_t)result.identifier_start, (int64_t)result.identifier_length, d->width);
    return 0;
}

static PyTypeObject *decoder_class; /* made once, kept by the module */

int is_decoder(PyObject *object) { return Py_TYPE(object) == decoder_class; }

int decoder_width(PyObject *decoder) { return ((DecoderObject *)decoder)->decoder.width; }

void decoder_count(PyObject *decoder, const float *row) { count_blank(&((DecoderObject *)decoder)->decoder, row); }

int decoder_read(PyObject *decoder, const char *record, size_t length, float *row, Identifier *identifier) {
    DecoderObject *self = (DecoderObject *)decoder;
    record_result result = {.code = EMPTY, .slot = -1};
    if (self->busy || length == 0 || length > (size_t)LARGEST_RECORD || rows_load(&self->decoder, record, length) != 0)
        return 0;
    if (self->decode_record(&self->decoder, length, row, &result) != ACCEPTED || result.identifier != NULL) return 0;
    *identifier = (Identifier){(int64_t)result.identifier_start, (int64_t)result.identifier_length};
    return 1;
}

/* decode(values, matrix, source_index, identifier_start, identifier_length, hand_over, on_rejection, on_identifier)
   -> (accepted, handed over). The four buffers are writable and have room for every value. */
static PyObject *decoder_decode(PyObject *object, PyObject *arguments) {
    DecoderObject *self = (DecoderObject *)object;
    PyObject *values, *answer = NULL;
    callbacks python;
    Py_buffer matrix, source_index, start, length;
    if (!PyArg_ParseTuple(arguments, "Ow*w*w*w*OOO", &values, &matrix, &source_index, &start, &length,
                          &python.hand_over, &python.on_rejection, &python.on_identifier))
        return NULL;
    Py_ssize_t n = PySequence_Size(values);
    if (n < 0) {
        /* no sequence */
    } else if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "a decoder decodes one batch at a time");
    } else if (matrix.len < n * self->decoder.width * (Py_ssize_t)sizeof(float) ||
               source_index.len < n * (Py_ssize_t)sizeof(int32_t) || start.len < n * (Py_ssize_t)sizeof(int64_t) ||
               length.len < n * (Py_ssize_t)sizeof(int64_t)) {
        PyErr_SetString(PyExc_ValueError, "a buffer is too small for the batch");
    } else {
        progress so_far = {matrix.buf, source_index.buf, start.buf, length.buf, 0, 0};
        int failed = 0;
        self->busy = 1; /* the callbacks run Python code, which must not come back in here */
        for (Py_ssize_t i = 0; i < n && !failed; i++) {
            Value value;
            failed = value_at(values, i, &value) != 0 || decode_one(self, &value, i, &so_far, &python) != 0;
            Py_XDECREF(value.owner);
        }
        self->busy = 0;
        if (!failed) answer = Py_BuildValue("nn", so_far.n_accepted, so_far.n_handed_over);
    }
    PyBuffer_Release(&matrix);
    PyBuffer_Release(&source_index);
    PyBuffer_Release(&start);
    PyBuffer_Release(&length);
    return answer;
}

static PyObject *decoder_statistics(PyObject *object, PyObject *unused) {
    (void)unused;
    rows_decoder *d = &((DecoderObject *)object)->decoder;
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:i}", "blank", (unsigned long long)d->n_blank, "slow_walks",
                         (unsigned long long)d->n_slow_walks, "learned", (unsigned long long)d->n_learned,
                         "exact_numbers", (unsigned long long)d->n_exact_numbers, "orders", (int)d->n_orders);
}

static PyMethodDef decoder_methods[] = {
    {"decode", decoder_decode, METH_VARARGS, NULL},
    {"statistics", decoder_statistics, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot decoder_slots[] = {
    {Py_tp_new, decoder_new},
    {Py_tp_dealloc, decoder_dealloc},
    {Py_tp_methods, decoder_methods},
    {0, NULL},
};

static PyType_Spec decoder_spec = {"saker.engine.kernels._native.Decoder", sizeof(DecoderObject), 0, Py_TPFLAGS_DEFAULT,
                                   decoder_slots};

PyObject *decoder_type(void) {
    if (decoder_class == NULL) decoder_class = (PyTypeObject *)PyType_FromSpec(&decoder_spec);
    return Py_XNewRef((PyObject *)decoder_class);
}
