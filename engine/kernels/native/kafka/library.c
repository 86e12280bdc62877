/* The copy of librdkafka that confluent-kafka has loaded.

   Threads: `open_librdkafka` fills the table once, under the GIL, before any client is made; afterwards it is only
   read. */
#include "message_batch.h"

#include <dlfcn.h>
#include <string.h>

Librdkafka rdkafka;

/* open_librdkafka(path): look the functions up in the loaded library at `path` and in those that it needs; raises
 * OSError if one is missing. */
PyObject *open_librdkafka(PyObject *module, PyObject *path) {
    (void)module;
    const char *name = PyUnicode_AsUTF8AndSize(path, NULL);
    if (name == NULL) return NULL;
    void *library = dlopen(name, RTLD_NOW | RTLD_NOLOAD);
    const char *missing = library == NULL ? "it is not loaded" : NULL;
    Librdkafka found;
    memset(&found, 0, sizeof found);
#define LOOK_UP(function, result, arguments)                          \
    if (missing == NULL) {                                            \
        void *symbol = dlsym(library, "rd_kafka_" #function);         \
        memcpy(&found.function, &symbol, sizeof symbol);              \
        if (symbol == NULL) missing = "it lacks rd_kafka_" #function; \
    }
    LIBRDKAFKA(LOOK_UP)
#undef LOOK_UP
    if (library != NULL) dlclose(library); /* it stays loaded: only the reference of this look-up goes */
    if (missing != NULL) {
        PyErr_Format(PyExc_OSError, "%s: %s", name, missing);
        return NULL;
    }
    rdkafka = found;
    Py_RETURN_NONE;
}
