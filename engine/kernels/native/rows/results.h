/* The results of a batch in one buffer: `Lines`, a sequence of bytes. */
#ifndef SAKER_LINES_H
#define SAKER_LINES_H

#include "../native.h"
#include <stdint.h>

typedef struct {
    PyObject_HEAD Py_ssize_t n;
    int64_t *ends; /* of each line in `text` */
    char *text;
    Py_ssize_t capacity;
} LinesObject;

LinesObject *lines_new(Py_ssize_t n);                       /* n empty lines, to be filled in turn */
char *lines_room(LinesObject *lines, Py_ssize_t at, Py_ssize_t size); /* for line `at`, NULL with MemoryError */
int is_lines(PyObject *object);

static inline Py_ssize_t line_start(const LinesObject *lines, Py_ssize_t at) { return at == 0 ? 0 : (Py_ssize_t)lines->ends[at - 1]; }

#endif
