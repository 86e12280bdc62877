/* Python's view of the elementwise part of a graph behind the trees: `Program`, immutable, float64 in and out.

   With `single` every result is rounded to float32, and exponentials and logarithms are those of float32: exactly what
   arithmetic in float32 gives, since float64 has more than twice its digits.

   Registers hold CHUNK values each: first the inputs, then the constants, then what each instruction makes. An
   instruction is four int32: operation, and the registers of up to three operands. Conditions are 1.0 and 0.0. */
#include "../internal_api.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 64, MAX_REGISTERS = 64, MAX_ARRAYS = 16 };

/* engine/kernels/onnx_reader/post_transform.py, ELEMENTWISE, in this order */
enum operation {
    ADD,
    SUB,
    MUL,
    DIV,
    NEG,
    EXP,
    LOG,
    SQRT,
    ABS,
    SIGN,
    LESS,
    EQUAL,
    WHERE,
    RECIPROCAL,
    SIGMOID,
    COPY,
    N_OPERATIONS
};

typedef struct {
    int32_t operation, a, b, c;
} Instruction;

typedef struct {
    PyObject_HEAD Instruction *instructions;
    double *constants;
    int32_t *outputs; /* registers */
    int n_inputs, n_constants, n_instructions, n_outputs, single;
} ProgramObject;

typedef double Register[CHUNK];

static PyTypeObject *type; /* of Program; made once, kept by the module */

static void run(Instruction i, Register *r, double *restrict out, int n, int single) {
    const double *a = r[i.a], *b = r[i.b], *c = r[i.c];
#define EACH(expression)                               \
    for (int k = 0; k < n; k++) out[k] = (expression); \
    break
    switch ((enum operation)i.operation) {
    case ADD: EACH(a[k] + b[k]);
    case SUB: EACH(a[k] - b[k]);
    case MUL: EACH(a[k] * b[k]);
    case DIV: EACH(a[k] / b[k]);
    case NEG: EACH(-a[k]);
    case EXP: EACH(single ? expf((float)a[k]) : exp(a[k]));
    case LOG: EACH(single ? logf((float)a[k]) : log(a[k]));
    case SQRT: EACH(sqrt(a[k]));
    case ABS: EACH(fabs(a[k]));
    case SIGN: EACH(a[k] > 0 ? 1.0 : a[k] < 0 ? -1.0 : a[k]); /* NaN and zeros as they are */
    case LESS: EACH(a[k] < b[k]);
    case EQUAL: EACH(a[k] == b[k]);
    case WHERE: EACH(a[k] != 0 ? b[k] : c[k]);
    case RECIPROCAL: EACH(1 / a[k]);
    case SIGMOID: EACH(1 / (1 + exp(-a[k]))); /* in float32 it is composed of the others */
    case COPY: EACH(a[k]);
    case N_OPERATIONS: break;
    }
#undef EACH
    for (int k = 0; single && k < n; k++) out[k] = (float)out[k];
}

/* Program(instructions, constants, outputs, n_inputs, single): int32 (n, 4), float64, int32 registers. */
static PyObject *program_new(PyTypeObject *of, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"instructions", "constants", "outputs", "n_inputs", "single", NULL};
    Py_buffer instructions, constants, outputs;
    int n_inputs, single;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "y*y*y*ip", names, &instructions, &constants, &outputs,
                                     &n_inputs, &single))
        return NULL;
    Py_ssize_t n_instructions = instructions.len / (Py_ssize_t)sizeof(Instruction), n_constants = constants.len / 8,
               n_outputs = outputs.len / 4;
    ProgramObject *self = NULL;
    if (n_inputs < 0 || n_inputs + n_outputs > MAX_ARRAYS || n_inputs + n_constants + n_instructions > MAX_REGISTERS) {
        PyErr_SetString(PyExc_ValueError, "the graph behind the trees is too large");
        goto done;
    }
    self = (ProgramObject *)((allocfunc)PyType_GetSlot(of, Py_tp_alloc))(of, 0);
    if (self == NULL) goto done;
    self->n_inputs = n_inputs;
    self->n_constants = (int)n_constants;
    self->n_instructions = (int)n_instructions;
    self->n_outputs = (int)n_outputs;
    self->single = single;
    self->instructions = malloc((size_t)instructions.len + 1);
    self->constants = malloc((size_t)constants.len + 1);
    self->outputs = malloc((size_t)outputs.len + 1);
    if (!self->instructions || !self->constants || !self->outputs) {
        Py_CLEAR(self);
        PyErr_NoMemory();
        goto done;
    }
    memcpy(self->instructions, instructions.buf, (size_t)instructions.len);
    memcpy(self->constants, constants.buf, (size_t)constants.len);
    memcpy(self->outputs, outputs.buf, (size_t)outputs.len);
    int known = n_inputs + (int)n_constants, right = 1;
    for (int i = 0; i < self->n_instructions; i++, known++) {
        const Instruction *one = self->instructions + i;
        right &= one->operation >= 0 && one->operation < N_OPERATIONS && one->a >= 0 && one->a < known && one->b >= 0 &&
                 one->b < known && one->c >= 0 && one->c < known;
    }
    for (int i = 0; i < self->n_outputs; i++) right &= self->outputs[i] >= 0 && self->outputs[i] < known;
    if (!right) {
        Py_CLEAR(self);
        PyErr_SetString(PyExc_ValueError, "an instruction reads a register that is not set yet");
    }
done:
    PyBuffer_Release(&instructions);
    PyBuffer_Release(&constants);
    PyBuffer_Release(&outputs);
    return (PyObject *)self;
}

static void program_dealloc(PyObject *object) {
    ProgramObject *self = (ProgramObject *)object;
    PyTypeObject *of = Py_TYPE(object);
    free(self->instructions);
    free(self->constants);
    free(self->outputs);
    ((freefunc)PyType_GetSlot(of, Py_tp_free))(object);
    Py_DECREF(of);
}

static void apply(const ProgramObject *self, const double *const *inputs, double *const *outputs, size_t n) {
    Register registers[MAX_REGISTERS];
    int n_known = self->n_inputs + self->n_constants;
    for (int i = 0; i < self->n_constants; i++)
        for (int k = 0; k < CHUNK; k++) registers[self->n_inputs + i][k] = self->constants[i];
    for (size_t at = 0; at < n; at += CHUNK) {
        int many = n - at < CHUNK ? (int)(n - at) : CHUNK;
        for (int i = 0; i < self->n_inputs; i++) memcpy(registers[i], inputs[i] + at, (size_t)many * 8);
        for (int i = 0; i < self->n_instructions; i++)
            run(self->instructions[i], registers, registers[n_known + i], many, self->single);
        for (int i = 0; i < self->n_outputs; i++)
            memcpy(outputs[i] + at, registers[self->outputs[i]], (size_t)many * 8);
    }
}

int is_function(PyObject *object) {
    const ProgramObject *self = (const ProgramObject *)object;
    return Py_TYPE(object) == type && self->n_inputs == 1 && self->n_outputs == 1;
}

void program_apply(PyObject *program, const double *in, double *out, size_t n) {
    apply((const ProgramObject *)program, &in, &out, n);
}

/* run(input, ..., output, ...): float64 arrays of one size each, the outputs writable. */
static PyObject *program_run(PyObject *object, PyObject *arguments) {
    ProgramObject *self = (ProgramObject *)object;
    int n_arrays = self->n_inputs + self->n_outputs, n_got = 0;
    Py_buffer arrays[MAX_ARRAYS];
    PyObject *answer = NULL;
    if (PyTuple_Size(arguments) != n_arrays) {
        PyErr_Format(PyExc_TypeError, "expected %d arrays", n_arrays);
        return NULL;
    }
    for (; n_got < n_arrays; n_got++)
        if (PyObject_GetBuffer(PyTuple_GetItem(arguments, n_got), arrays + n_got,
                               n_got < self->n_inputs ? PyBUF_C_CONTIGUOUS : PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) != 0)
            goto done;
    for (int i = 0; i < n_arrays; i++)
        if (arrays[i].itemsize != 8 || arrays[i].len != arrays[0].len) {
            PyErr_SetString(PyExc_ValueError, "expected float64 arrays of one size");
            goto done;
        }
    const double *inputs[MAX_ARRAYS];
    double *outputs[MAX_ARRAYS];
    for (int i = 0; i < self->n_inputs; i++) inputs[i] = arrays[i].buf;
    for (int i = 0; i < self->n_outputs; i++) outputs[i] = arrays[self->n_inputs + i].buf;
    apply(self, inputs, outputs, (size_t)arrays[0].len / 8);
    answer = Py_NewRef(Py_None);
done:
    for (int i = 0; i < n_got; i++) PyBuffer_Release(arrays + i);
    return answer;
}

static PyMethodDef program_methods[] = {{"run", program_run, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyType_Slot program_slots[] = {
    {Py_tp_new, program_new}, {Py_tp_dealloc, program_dealloc}, {Py_tp_methods, program_methods}, {0, NULL}};
static PyType_Spec program_spec = {"saker.engine.kernels._native.Program", sizeof(ProgramObject), 0, Py_TPFLAGS_DEFAULT,
                                   program_slots};

PyObject *program_type(void) {
    if (type == NULL) type = (PyTypeObject *)PyType_FromSpec(&program_spec);
    return Py_XNewRef((PyObject *)type);
}
