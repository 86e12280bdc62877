/* What the parts of the extension share: CPython's limited API of 3.11, so that one binary serves every later version,
 * and each part's entry points. Include it before anything else. */
#ifndef SAKER_NATIVE_H
#define SAKER_NATIVE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

/* cpu.c: may the variant "avx512", "avx2" or "baseline" run here? Unknown names may not. */
int runs_variant(const char *variant);
/* Whether as many vectors of 512 bits are worked on at a time as of 256. */
int full_512(void);

PyObject *plan_type(void);          /* trees/plan_type.c */
PyObject *program_type(void);       /* trees/elementwise_program.c */
PyObject *results_type(void);       /* rows/results.c */
PyObject *decoder_type(void);       /* rows/decoder_type.c */
PyObject *message_batch_type(void); /* kafka/ */
PyObject *consumer_queue_type(void);
PyObject *result_producer_type(void);
PyObject *velocity_plan_type(void); /* velocity/velocity_type.c */
PyObject *velocity_state_type(void);
PyObject *velocity_apply_batch(PyObject *module, PyObject *arguments);
PyObject *fast_path_type(void);                                 /* fast_path.c */
PyObject *rows_encode(PyObject *module, PyObject *arguments);   /* rows/encode.c */
PyObject *rows_too_deep(PyObject *module, PyObject *arguments); /* rows/depth.c */
PyObject *open_librdkafka(PyObject *module, PyObject *path);    /* kafka/library.c */
PyObject *last_client(PyObject *module, PyObject *unused);      /* kafka/clients.c */

#endif
