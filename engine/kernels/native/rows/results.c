#include "results.h"
#include "escapes.h"
#include <stdio.h>

static PyTypeObject *type; /* of Results; made once, kept by the module */

int is_results(PyObject *object) { return Py_TYPE(object) == type; }

int result_pieces(PyObject *tuple, ResultPieces *pieces) {
    Piece *id = &pieces->before_id, *score = &pieces->before_score;
    Piece *after = pieces->after_score, *end = pieces->after_time;
    int form;
    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "expected the pieces of a result as a tuple of six bytes and its form");
        return 0;
    }
    if (!PyArg_ParseTuple(tuple, "y#y#y#y#y#y#i", &id->text, &id->length, &score->text, &score->length, &after[0].text,
                          &after[0].length, &after[1].text, &after[1].length, &end[0].text, &end[0].length,
                          &end[1].text, &end[1].length, &form))
        return 0;
    if (form < RESULT_JSON || form > RESULT_PROTOBUF) {
        PyErr_Format(PyExc_ValueError, "a result has no form %d", form);
        return 0;
    }
    pieces->form = (ResultForm)form;
    return 1;
}

static char *put_varint(char *out, uint64_t number) {
    for (; number >= 0x80; number >>= 7) *out++ = (char)(number | 0x80);
    *out++ = (char)number;
    return out;
}

/* Avro's zigzag of a number that is not below 0 doubles it. */
static uint64_t zigzag(ResultForm form, uint64_t number) { return form == RESULT_AVRO ? number << 1 : number; }

Piece time_piece(char *room, ResultForm form, int64_t ms) {
    if (form == RESULT_JSON) return (Piece){room, snprintf(room, TIME_BYTES, "%lld", (long long)ms)};
    return (Piece){room, put_varint(room, zigzag(form, (uint64_t)ms)) - room};
}

char *put_identifier(char *out, ResultForm form, Piece json) {
    if (json.length >= 2 && json.text[0] == '"') json = (Piece){json.text + 1, json.length - 2};
    char *p = (char *)json.text, *end = p + json.length;
    if (memchr(p, '\\', (size_t)json.length) == NULL)
        return put_piece(put_varint(out, zigzag(form, (uint64_t)json.length)), json);
    /* Written behind the room of the longest length, and moved to the end of its own. */
    char *text = out + LENGTH_BYTES, *to = text;
    while (p != NULL && p < end) {
        if (*p != '\\') {
            *to++ = *p++;
            continue;
        }
        int32_t code = 0;
        p = read_escape(p, &code);
        if (p != NULL) to = put_utf8(to, code);
    }
    out = put_varint(out, zigzag(form, (uint64_t)(to - text)));
    memmove(out, text, (size_t)(to - text));
    return out + (to - text);
}

ResultsObject *results_new(Py_ssize_t n) {
    ResultsObject *self = (ResultsObject *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    self->n = n;
    self->ends = PyMem_Calloc((size_t)n + 1, sizeof *self->ends);
    if (self->ends == NULL) {
        Py_DECREF((PyObject *)self);
        return (ResultsObject *)PyErr_NoMemory();
    }
    return self;
}

char *results_room(ResultsObject *lines, Py_ssize_t at, Py_ssize_t size) {
    Py_ssize_t start = result_start(lines, at), needed = start + size;
    if (needed > lines->capacity) {
        Py_ssize_t capacity = needed + size * (lines->n - at) / 2 + 256;
        char *larger = PyMem_Realloc(lines->text, (size_t)capacity);
        if (larger == NULL) return (char *)PyErr_NoMemory();
        lines->text = larger;
        lines->capacity = capacity;
    }
    return lines->text + start;
}

static void lines_dealloc(PyObject *object) {
    ResultsObject *self = (ResultsObject *)object;
    PyTypeObject *of = Py_TYPE(object);
    PyMem_Free(self->ends);
    PyMem_Free(self->text);
    ((freefunc)PyType_GetSlot(of, Py_tp_free))(object);
    Py_DECREF(of);
}

static Py_ssize_t lines_length(PyObject *object) { return ((ResultsObject *)object)->n; }

static PyObject *lines_item(PyObject *object, Py_ssize_t index) {
    ResultsObject *self = (ResultsObject *)object;
    if (index < 0 || index >= self->n) {
        PyErr_Format(PyExc_IndexError, "there are %zd results, and no result %zd", self->n, index);
        return NULL;
    }
    Py_ssize_t start = result_start(self, index);
    return PyBytes_FromStringAndSize(self->text + start, (Py_ssize_t)self->ends[index] - start);
}

static PyType_Slot slots[] = {
    {Py_tp_dealloc, lines_dealloc}, {Py_sq_length, lines_length}, {Py_sq_item, lines_item}, {0, NULL}};
static PyType_Spec spec = {"saker.engine.kernels._native.Results", sizeof(ResultsObject), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};

PyObject *results_type(void) {
    if (type == NULL) type = (PyTypeObject *)PyType_FromSpec(&spec);
    return Py_XNewRef((PyObject *)type);
}
