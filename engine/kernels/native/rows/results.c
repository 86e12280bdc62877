#include "results.h"

static PyTypeObject *type; /* of Lines; made once, kept by the module */

int is_lines(PyObject *object) { return Py_TYPE(object) == type; }

LinesObject *lines_new(Py_ssize_t n) {
    LinesObject *self = (LinesObject *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    self->n = n;
    self->ends = PyMem_Calloc((size_t)n + 1, sizeof *self->ends);
    if (self->ends == NULL) {
        Py_DECREF((PyObject *)self);
        return (LinesObject *)PyErr_NoMemory();
    }
    return self;
}

char *lines_room(LinesObject *lines, Py_ssize_t at, Py_ssize_t size) {
    Py_ssize_t start = line_start(lines, at), needed = start + size;
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
    LinesObject *self = (LinesObject *)object;
    PyTypeObject *of = Py_TYPE(object);
    PyMem_Free(self->ends);
    PyMem_Free(self->text);
    ((freefunc)PyType_GetSlot(of, Py_tp_free))(object);
    Py_DECREF(of);
}

static Py_ssize_t lines_length(PyObject *object) { return ((LinesObject *)object)->n; }

static PyObject *lines_item(PyObject *object, Py_ssize_t index) {
    LinesObject *self = (LinesObject *)object;
    if (index < 0 || index >= self->n) {
        PyErr_Format(PyExc_IndexError, "there are %zd results, and no result %zd", self->n, index);
        return NULL;
    }
    Py_ssize_t start = line_start(self, index);
    return PyBytes_FromStringAndSize(self->text + start, (Py_ssize_t)self->ends[index] - start);
}

static PyType_Slot slots[] = {{Py_tp_dealloc, lines_dealloc}, {Py_sq_length, lines_length}, {Py_sq_item, lines_item}, {0, NULL}};
static PyType_Spec spec = {"saker.engine.kernels._native.Lines", sizeof(LinesObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};

PyObject *lines_type(void) {
    if (type == NULL) type = (PyTypeObject *)PyType_FromSpec(&spec);
    return Py_XNewRef((PyObject *)type);
}
