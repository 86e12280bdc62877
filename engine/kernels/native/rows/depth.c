/* How deeply a text nests, where the reference asks: of damaged records in Python it would take forty times as long. */
#include "../native.h"

/* too_deep(data, most) -> where the first bracket is that makes it nest deeper than `most`, -1 if there is none. The
   reference: too_deep in records/json_text.py. The data need not be JSON, but UTF-8. */
PyObject *rows_too_deep(PyObject *module, PyObject *arguments) {
    (void)module;
    const char *text;
    Py_ssize_t length, most, depth = 0;
    if (!PyArg_ParseTuple(arguments, "y#n", &text, &length, &most)) return NULL;
    for (Py_ssize_t i = 0; i < length; i++) {
        if (text[i] == '"') { /* a string that does not end is one, too */
            for (i++; i < length && text[i] != '"'; i++) i += text[i] == '\\';
        } else if (text[i] == '[' || text[i] == '{') {
            if (++depth > most) return PyLong_FromSsize_t(i);
        } else if (text[i] == ']' || text[i] == '}') depth--;
    }
    return PyLong_FromLong(-1);
}
