#include "results.h"

static PyTypeObject *type; /* of Results; made once, kept by the module */

int is_results(PyObject *object) { return Py_TYPE(object) == type; }

int result_pieces(PyObject *tuple, ResultPieces *pieces) {
    Piece *id = &pieces->before_id, *score = &pieces->before_score, *after = pieces->after_score;
    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "expected the pieces of a result as a tuple of four bytes");
        return 0;
    }
    return PyArg_ParseTuple(tuple, "y#y#y#y#", &id->text, &id->length, &score->text, &score->length, &after[0].text,
                            &after[0].length, &after[1].text, &after[1].length);
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
