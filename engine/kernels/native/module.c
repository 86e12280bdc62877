/* saker.engine.kernels._native: the types of the parts, and which variants the processor runs. */
#include "native.h"
#include "rows/table.h"
#include "siphash.h"
#include <string.h>

static PyObject *native_variants(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    static const char *const all[] = {"avx512", "avx2", "baseline"};
    PyObject *supported = PyList_New(0);
    for (size_t i = 0; supported != NULL && i < sizeof all / sizeof *all; i++) {
        if (!runs_variant(all[i])) continue;
        PyObject *name = PyUnicode_FromString(all[i]);
        if (name == NULL || PyList_Append(supported, name) != 0) Py_CLEAR(supported);
        Py_XDECREF(name);
    }
    return supported;
}

static int add_type(PyObject *module, const char *name, PyObject *type) {
    int result = type == NULL ? -1 : PyModule_AddObjectRef(module, name, type);
    Py_XDECREF(type);
    return result;
}

/* From os.urandom, as Python's own hashes. The tables of decoders depend on the key, so it is never changed. */
static int init_hash_key(void) {
    static int done;
    if (done) return 0;
    PyObject *os = PyImport_ImportModule("os");
    PyObject *bytes = os == NULL ? NULL : PyObject_CallMethod(os, "urandom", "i", (int)(3 * sizeof(uint64_t)));
    char *start = bytes == NULL ? NULL : PyBytes_AsString(bytes);
    if (start != NULL) {
        uint64_t key[3];
        memcpy(key, start, sizeof key);
        text_hash_init(key);
        done = 1;
    }
    Py_XDECREF(bytes);
    Py_XDECREF(os);
    return done ? 0 : -1;
}

static PyObject *hash_key(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return Py_BuildValue("(KKK)", (unsigned long long)text_hash_key[0], (unsigned long long)text_hash_key[1],
                         (unsigned long long)text_hash_key[2]);
}

/* identity(key, type and what distinguishes a value from others of it) -> 16 bytes */
static PyObject *identity(PyObject *module, PyObject *arguments) {
    (void)module;
    const char *key_bytes, *data;
    Py_ssize_t key_length, length;
    uint64_t key[2], hash[2];
    if (!PyArg_ParseTuple(arguments, "y#y#", &key_bytes, &key_length, &data, &length)) return NULL;
    if (key_length != sizeof key || length < 1) {
        PyErr_SetString(PyExc_ValueError, "expected a key of 16 bytes, and the type of the value");
        return NULL;
    }
    memcpy(key, key_bytes, sizeof key);
    identity_of(key, data[0], data + 1, (size_t)length - 1, hash);
    return PyBytes_FromStringAndSize((const char *)hash, sizeof hash);
}

static int native_exec(PyObject *module) {
    if (init_hash_key() != 0) return -1;
    static const struct {
        const char *name;
        PyObject *(*type)(void);
    } types[] = {{"Plan", plan_type},
                 {"Program", program_type},
                 {"Decoder", decoder_type},
                 {"Results", results_type},
                 {"MessageBatch", message_batch_type},
                 {"ConsumerQueue", consumer_queue_type},
                 {"ResultProducer", result_producer_type},
                 {"VelocityPlan", velocity_plan_type},
                 {"VelocityState", velocity_state_type},
                 {"FastPath", fast_path_type}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (add_type(module, types[i].name, types[i].type()) != 0) return -1;
    return 0;
}

static PyMethodDef native_methods[] = {
    {"variants", native_variants, METH_NOARGS, "Names of the variants that this processor runs, the fastest first."},
    {"encode", rows_encode, METH_VARARGS, "See saker.engine.records.encode."},
    {"too_deep", rows_too_deep, METH_VARARGS, "See saker.engine.records.json_text."},
    {"velocity_apply", velocity_apply_batch, METH_VARARGS, "See saker.engine.kernels.velocity_kernel."},
    {"identity", identity, METH_VARARGS, "See saker.engine.kernels.identity."},
    {"hash_key", hash_key, METH_NOARGS,
     "Of the decoders' tables of texts, for tests: with it keys can be made to collide."},
    {"open_librdkafka", open_librdkafka, METH_O, "See saker.engine.kafka.librdkafka_handle."},
    {"last_client", last_client, METH_NOARGS, "See saker.engine.kafka.librdkafka_handle."},
    {NULL, NULL, 0, NULL},
};
static PyModuleDef_Slot native_slots[] = {{Py_mod_exec, native_exec}, {0, NULL}};
static PyModuleDef native_module = {PyModuleDef_HEAD_INIT,
                                    "_native",
                                    "Trees, rows and results, compiled.",
                                    0,
                                    native_methods,
                                    native_slots,
                                    NULL,
                                    NULL,
                                    NULL};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&native_module); }
