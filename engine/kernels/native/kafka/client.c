/* The copy of librdkafka that confluent-kafka has loaded, and a look at whether an address is one of its clients. */
#include "messages.h"

#include <dlfcn.h>
#include <string.h>

Librdkafka rdkafka;
static int opened;

/* open_librdkafka(path): look the functions up; raises OSError if one is missing. */
PyObject *open_librdkafka(PyObject *module, PyObject *path) {
    (void)module;
    const char *name = PyUnicode_AsUTF8AndSize(path, NULL);
    if (name == NULL) return NULL;
    void *library = dlopen(name, RTLD_NOW | RTLD_NOLOAD);
    const char *missing = library == NULL ? "it is not loaded" : NULL;
    Librdkafka found;
    memset(&found, 0, sizeof found);
#define LOOK_UP(function, result, arguments)                                                    \
    if (missing == NULL) {                                                                      \
        void *symbol = dlsym(library, "rd_kafka_" #function);                                   \
        memcpy(&found.function, &symbol, sizeof symbol);                                        \
        if (symbol == NULL) missing = "it lacks rd_kafka_" #function;                           \
    }
    LIBRDKAFKA(LOOK_UP)
#undef LOOK_UP
    if (missing != NULL) {
        PyErr_Format(PyExc_OSError, "%s: %s", name, missing);
        return NULL;
    }
    rdkafka = found;
    opened = 1;
    Py_RETURN_NONE;
}

rd_kafka_t *client_at(unsigned long long address, int type) {
    rd_kafka_t *client = (rd_kafka_t *)(uintptr_t)address;
    if (!opened || client == NULL) {
        PyErr_SetString(PyExc_ValueError, "there is no client: open_librdkafka comes first");
        return NULL;
    }
    const char *name = rdkafka.name(client);
    if (rdkafka.type(client) != type || strstr(name, type == 0 ? "#producer-" : "#consumer-") == NULL) {
        PyErr_Format(PyExc_ValueError, "the client is no %s", type == 0 ? "producer" : "consumer");
        return NULL;
    }
    return client;
}
