/* Python's view of the row decoder: arguments in, results out. The GIL is kept: a batch takes a fraction of a
   millisecond, and handed-over records need it. */
#include "../internal_api.h"
#include "avro.h"
#include "batch_values.h"
#include "protobuf.h"
#include <stdlib.h>
#include <string.h>

/* A record above this goes to the reference: offsets in the kernel are 32-bit. */
#define LARGEST_RECORD ((Py_ssize_t)64 << 20)

/* How records are written, and what is before them. */
enum { JSON, JSON_WITH_ID, AVRO, AVRO_WITH_ID, PROTOBUF, PROTOBUF_WITH_ID };
#define ID_BYTES 5 /* Confluent's wire format: a zero, and the id of the schema in 4 bytes */

/* How to read one kind of message of a schema: that at `path`, which is before the record where records have ids. */
#define LONGEST_PATH 8
typedef struct {
    int32_t path[LONGEST_PATH], n_path;
    proto_program program;
} message_program;

/* A schema of a registry. Records of one that is not usable are the reference's, which rejects them. */
typedef struct {
    uint32_t id;
    int is_known, is_usable, is_forgotten; /* is_known: the place is taken */
    avro_program program;
    message_program *messages;
    int32_t n_messages;
} schema;

typedef struct {
    decode_record_function json;
    decode_avro_function avro;
    decode_protobuf_function protobuf;
} variant_functions;

typedef struct {
    PyObject_HEAD rows_decoder decoder;
    variant_functions decode;
    int format, busy;
    schema *schemas; /* open addressing, at most half full */
    uint32_t n_schemas, schema_mask;
    char *texts; /* identifiers of a batch that are not in their records as results have them */
    size_t texts_length, texts_capacity;
} DecoderObject;

/* Returns where the text starts among the texts of this batch, as a negative number (~start), or 0 without memory. */
static int64_t keep_text(DecoderObject *self, const char *text, size_t length) {
    size_t needed = self->texts_length + length;
    if (needed > self->texts_capacity) {
        char *larger = realloc(self->texts, 2 * needed + 4096);
        if (larger == NULL) return 0;
        self->texts = larger;
        self->texts_capacity = 2 * needed + 4096;
    }
    memcpy(self->texts + self->texts_length, text, length);
    int64_t start = (int64_t)self->texts_length;
    self->texts_length = needed;
    return ~start;
}

static variant_functions variant_named(const char *variant) {
#if defined(__x86_64__)
    if (strcmp(variant, "avx512") == 0)
        return (variant_functions){rows_decode_record_avx512, rows_decode_avro_avx512, rows_decode_protobuf_avx512};
    if (strcmp(variant, "avx2") == 0)
        return (variant_functions){rows_decode_record_avx2, rows_decode_avro_avx2, rows_decode_protobuf_avx2};
#else
    (void)variant;
#endif
    return (variant_functions){rows_decode_record_baseline, rows_decode_avro_baseline, rows_decode_protobuf_baseline};
}

/* A tuple of bytes objects -> table of text -> position. */
static int build_table(text_table *table, PyObject *texts) {
    Py_ssize_t n = PyTuple_Size(texts);
    const char **pointers = calloc((size_t)n + 1, sizeof *pointers);
    uint32_t *lengths = calloc((size_t)n + 1, sizeof *lengths);
    int result = -1;
    if (pointers == NULL || lengths == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        char *text;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(texts, i), &text, &length) != 0) goto done;
        pointers[i] = text;
        lengths[i] = (uint32_t)length;
    }
    result = text_table_build(table, pointers, lengths, (int32_t)n);
    if (result != 0) PyErr_SetString(PyExc_MemoryError, "no memory for a table of texts");
done:
    free(pointers);
    free(lengths);
    return result;
}

/* (kind, column, targets, vocabulary, codes, unknown_code); see engine/kernels/row_kernel.py */
static int set_use(field *f, PyObject *description) {
    PyObject *targets, *vocabulary;
    int kind, column;
    double unknown_code;
    Py_buffer codes;
    if (!PyArg_ParseTuple(description, "iiO!O!y*d", &kind, &column, &PyTuple_Type, &targets, &PyTuple_Type, &vocabulary,
                          &codes, &unknown_code))
        return -1;
    f->kind = kind;
    f->column = column;
    f->unknown_code = (float)unknown_code;
    f->n_targets = (int32_t)PyTuple_Size(targets);
    f->targets = calloc((size_t)f->n_targets + 1, sizeof *f->targets);
    f->codes = calloc((size_t)codes.len + 4, 1);
    if (f->codes != NULL) memcpy(f->codes, codes.buf, (size_t)codes.len);
    PyBuffer_Release(&codes);
    if (f->targets == NULL || f->codes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (int32_t i = 0; i < f->n_targets; i++) {
        int target_kind, target_column;
        double per_second;
        if (!PyArg_ParseTuple(PyTuple_GetItem(targets, i), "iid", &target_kind, &target_column, &per_second)) return -1;
        f->targets[i] = (target){target_column, target_kind, per_second};
    }
    return build_table(&f->vocabulary, vocabulary);
}

/* (required, uses) */
static int set_field(field *f, PyObject *description) {
    PyObject *uses;
    int required;
    if (!PyArg_ParseTuple(description, "iO!", &required, &PyTuple_Type, &uses)) return -1;
    Py_ssize_t n = PyTuple_Size(uses);
    field **next = &f;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (i > 0 && (*next = calloc(1, sizeof **next)) == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        (*next)->required = required;
        if (set_use(*next, PyTuple_GetItem(uses, i)) != 0) return -1;
        next = &(*next)->also;
    }
    f->step_kind = n > 1 ? FIELD_SHARED : f->kind;
    return 0;
}

/* A tuple of integers -> array; NULL with an exception. */
static int32_t *int_array(PyObject *numbers) {
    Py_ssize_t n = PyTuple_Size(numbers);
    int32_t *array = calloc((size_t)n + 1, sizeof *array);
    if (array == NULL) PyErr_NoMemory();
    for (Py_ssize_t i = 0; array != NULL && i < n; i++) {
        array[i] = (int32_t)PyLong_AsLong(PyTuple_GetItem(numbers, i));
        if (PyErr_Occurred()) {
            free(array);
            array = NULL;
        }
    }
    return array;
}

/* (is it an array, has it required fields, what it is in, keys or indices, entries) */
static int set_branch(branch *b, PyObject *description) {
    PyObject *keys, *entries;
    int is_array, has_required, parent;
    if (!PyArg_ParseTuple(description, "ppiO!O!", &is_array, &has_required, &parent, &PyTuple_Type, &keys,
                          &PyTuple_Type, &entries))
        return -1;
    *b = (branch){.is_array = is_array, .has_required = has_required, .parent = parent};
    b->n_children = (int32_t)PyTuple_Size(keys);
    b->entries = int_array(entries);
    if (b->entries == NULL) return -1;
    if (!is_array) return build_table(&b->names, keys);
    b->indices = int_array(keys);
    return b->indices == NULL ? -1 : 0;
}

static PyObject *decoder_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"variant",       "width",    "branches", "fields",   "identifier_slot",
                            "record_format", "n_inputs", "n_values", "hash_key", NULL};
    const char *variant, *hash_key = NULL;
    int width, identifier_slot, format = JSON, n_inputs = 0, n_values = 0;
    Py_ssize_t key_length = 0;
    PyObject *branches, *fields;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "siO!O!i|iiiy#", names, &variant, &width, &PyTuple_Type,
                                     &branches, &PyTuple_Type, &fields, &identifier_slot, &format, &n_inputs, &n_values,
                                     &hash_key, &key_length))
        return NULL;
    if (n_inputs > 0 && key_length != sizeof(uint64_t[2])) {
        PyErr_SetString(PyExc_ValueError, "expected a hash key of 16 bytes");
        return NULL;
    }
    if (!runs_variant(variant)) {
        PyErr_Format(PyExc_ValueError, "this processor does not run the variant '%s'", variant);
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    DecoderObject *self = (DecoderObject *)allocate(type, 0);
    if (self == NULL) return NULL;
    rows_decoder *d = &self->decoder;
    self->decode = variant_named(variant);
    self->format = format;
    int32_t n_fields = (int32_t)PyTuple_Size(fields), n_branches = (int32_t)PyTuple_Size(branches);
    if (rows_init(d, width, n_fields, n_branches, n_inputs, n_values) != 0) {
        PyErr_NoMemory();
        goto failed;
    }
    d->identifier_slot = identifier_slot;
    if (n_inputs > 0) memcpy(d->hash_key, hash_key, sizeof d->hash_key);
    for (int32_t i = 0; i < n_branches; i++)
        if (set_branch(&d->branches[i], PyTuple_GetItem(branches, i)) != 0) goto failed;
    for (int32_t i = 0; i < n_fields; i++) {
        if (set_field(&d->fields[i], PyTuple_GetItem(fields, i)) != 0) goto failed;
        d->n_required += (uint32_t)d->fields[i].required;
    }
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

static void schema_free(schema *s) {
    avro_program_free(&s->program);
    for (int32_t i = 0; i < s->n_messages; i++) proto_program_free(&s->messages[i].program);
    free(s->messages);
    s->messages = NULL;
    s->n_messages = 0;
}

static void decoder_dealloc(PyObject *object) {
    DecoderObject *self = (DecoderObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    rows_free(&self->decoder);
    free(self->texts);
    for (uint32_t i = 0; self->schemas != NULL && i <= self->schema_mask; i++) schema_free(&self->schemas[i]);
    free(self->schemas);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

typedef struct {
    float *row;
    int64_t *inputs;
    int32_t *source_index;
    int64_t *identifier_start, *identifier_length;
    Py_ssize_t n_accepted, n_handed_over;
} progress;

static void accept(progress *so_far, Py_ssize_t index, int64_t start, int64_t length, const rows_decoder *d) {
    so_far->source_index[so_far->n_accepted] = (int32_t)index;
    so_far->identifier_start[so_far->n_accepted] = start;
    so_far->identifier_length[so_far->n_accepted] = length;
    so_far->n_accepted++;
    so_far->row += d->width;
    so_far->inputs += d->n_inputs;
}

typedef struct {
    PyObject *hand_over, *on_rejection;
} callbacks;

/* Accepts a record whose identifier results have in this text. */
static int accept_text(DecoderObject *self, progress *so_far, Py_ssize_t index, const char *text, size_t length) {
    int64_t start = keep_text(self, text, length);
    if (start == 0) {
        PyErr_NoMemory();
        return -1;
    }
    accept(so_far, index, start, (int64_t)length, &self->decoder);
    return 0;
}

/* hand_over(index, row number) -> identifier, or None: rejected. */
static int take_from_reference(DecoderObject *self, progress *so_far, PyObject *hand_over, Py_ssize_t index) {
    PyObject *answer = PyObject_CallFunction(hand_over, "nn", index, so_far->n_accepted);
    if (answer == NULL) return -1;
    so_far->n_handed_over++;
    int result = 0;
    if (answer != Py_None) {
        char *text;
        Py_ssize_t length;
        result = PyBytes_AsStringAndSize(answer, &text, &length);
        if (result == 0) result = accept_text(self, so_far, index, text, (size_t)length);
    }
    Py_DECREF(answer);
    return result;
}

/* on_rejection(index, code, entry or -1, branch and name of an unknown field or None) */
static int reject(PyObject *on_rejection, Py_ssize_t index, const record_result *fault) {
    PyObject *answer = PyObject_CallFunction(on_rejection, "niiiy#", index, (int)fault->code, (int)fault->entry,
                                             (int)fault->branch, fault->name, (Py_ssize_t)fault->name_length);
    if (answer == NULL) return -1;
    Py_DECREF(answer);
    return 0;
}

static void count_blank(rows_decoder *d, const float *row, const int64_t *inputs) {
    d->n_blank += memcmp(row, d->blank_row, (size_t)d->width * sizeof *row) == 0 &&
                  (d->n_inputs == 0 || memcmp(inputs, d->blank_inputs, (size_t)d->n_inputs * sizeof *inputs) == 0);
}

/* ---- schemas ---- */

/* Where the id is in the table, or would be; NULL without a table. */
static schema *schema_place(const DecoderObject *self, uint32_t id) {
    if (self->schemas == NULL) return NULL;
    uint32_t at = id * 0x9E3779B1u & self->schema_mask; /* ids are the registry's, not the senders' */
    while (self->schemas[at].is_known && self->schemas[at].id != id) at = (at + 1) & self->schema_mask;
    return &self->schemas[at];
}

static int grow_schemas(DecoderObject *self) {
    uint32_t old_mask = self->schema_mask, mask = self->schemas == NULL ? 15 : 2 * old_mask + 1;
    schema *old = self->schemas, *larger = calloc((size_t)mask + 1, sizeof *larger);
    if (larger == NULL) return -1;
    self->schemas = larger;
    self->schema_mask = mask;
    for (uint32_t i = 0; old != NULL && i <= old_mask; i++)
        if (old[i].is_known) *schema_place(self, old[i].id) = old[i];
    free(old);
    return 0;
}

static int has_ids(const DecoderObject *self) {
    return self->format == JSON_WITH_ID || self->format == AVRO_WITH_ID || self->format == PROTOBUF_WITH_ID;
}

/* The id before a record, 0 for records without; -1 if it is not there. */
static int64_t id_of(const DecoderObject *self, const char *record, size_t length) {
    if (!has_ids(self)) return 0;
    if (length < ID_BYTES || record[0] != 0) return -1;
    const unsigned char *p = (const unsigned char *)record + 1;
    return (int64_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

/* A copy of a buffer, and `more` bytes of zeros. NULL with an exception. */
static void *copy_of(const Py_buffer *buffer, size_t more) {
    char *copy = calloc((size_t)buffer->len + more + 1, 1);
    if (copy == NULL) PyErr_NoMemory();
    else memcpy(copy, buffer->buf, (size_t)buffer->len);
    return copy;
}

/* (operations, places, texts, where each text ends, ((keys, their programs), ...)); see records/avro_program.py */
static int set_program(const rows_decoder *d, avro_program *program, PyObject *description) {
    Py_buffer operations, places, texts, ends;
    PyObject *keys;
    if (!PyArg_ParseTuple(description, "y*y*y*y*O!", &operations, &places, &texts, &ends, &PyTuple_Type, &keys))
        return -1;
    Py_ssize_t n = PyTuple_Size(keys);
    int result = -1;
    program->operations = copy_of(&operations, 0);
    program->places = copy_of(&places, 0);
    program->texts = copy_of(&texts, 16);
    program->text_ends = copy_of(&ends, 0);
    program->keys = calloc((size_t)n + 1, sizeof *program->keys);
    program->programs = calloc((size_t)n + 1, sizeof *program->programs);
    if (!program->operations || !program->places || !program->texts || !program->text_ends) goto done;
    int32_t n_operations = (int32_t)(operations.len / (Py_ssize_t)sizeof(avro_operation));
    if (program->keys == NULL || program->programs == NULL || avro_specialize(d, program, n_operations) != 0) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *texts_of_keys, *places_of_keys;
        if (!PyArg_ParseTuple(PyTuple_GetItem(keys, i), "O!O!", &PyTuple_Type, &texts_of_keys, &PyTuple_Type,
                              &places_of_keys))
            goto done;
        program->n_keys = (int32_t)i + 1;
        if (build_table(&program->keys[i], texts_of_keys) != 0) goto done;
        program->programs[i] = int_array(places_of_keys);
        if (program->programs[i] == NULL) goto done;
    }
    result = 0;
done:
    PyBuffer_Release(&operations);
    PyBuffer_Release(&places);
    PyBuffer_Release(&texts);
    PyBuffer_Release(&ends);
    return result;
}

/* (path, tables, actions, finals, places, texts, where each text ends, keys of each map, cells); see
   records/protobuf_tables.py */
static int set_message(const rows_decoder *d, message_program *m, PyObject *description) {
    proto_program *p = &m->program;
    Py_buffer tables, actions, finals, places, texts, ends;
    PyObject *path, *keys;
    if (!PyArg_ParseTuple(description, "O!(y*y*y*y*y*y*O!i)", &PyTuple_Type, &path, &tables, &actions, &finals, &places,
                          &texts, &ends, &PyTuple_Type, &keys, &p->n_cells))
        return -1;
    Py_ssize_t n = PyTuple_Size(keys);
    int result = -1;
    m->n_path = (int32_t)PyTuple_Size(path);
    int32_t *steps = m->n_path <= LONGEST_PATH ? int_array(path) : NULL;
    p->tables = copy_of(&tables, 0);
    p->actions = copy_of(&actions, 0);
    p->finals = copy_of(&finals, 0);
    p->n_finals = (int32_t)(finals.len / (Py_ssize_t)sizeof(proto_final));
    p->places = copy_of(&places, 0);
    p->texts = copy_of(&texts, 16);
    p->text_ends = copy_of(&ends, 0);
    p->keys = calloc((size_t)n + 1, sizeof *p->keys);
    if (!steps || !p->tables || !p->actions || !p->finals || !p->places || !p->texts || !p->text_ends || !p->keys ||
        protobuf_specialize(d, p, (int32_t)(tables.len / (Py_ssize_t)sizeof(proto_table)),
                            (int32_t)(actions.len / (Py_ssize_t)sizeof(proto_action))) != 0) {
        if (!PyErr_Occurred()) PyErr_NoMemory();
        goto done;
    }
    memcpy(m->path, steps, (size_t)m->n_path * sizeof *steps);
    for (Py_ssize_t i = 0; i < n; i++) {
        p->n_keys = (int32_t)i + 1;
        if (build_table(&p->keys[i], PyTuple_GetItem(keys, i)) != 0) goto done;
    }
    result = 0;
done:
    free(steps);
    PyBuffer_Release(&tables);
    PyBuffer_Release(&actions);
    PyBuffer_Release(&finals);
    PyBuffer_Release(&places);
    PyBuffer_Release(&texts);
    PyBuffer_Release(&ends);
    return result;
}

/* As many cells as the program needs. */
static int grow_cells(rows_decoder *d, int32_t n) {
    if (n <= d->n_cells) return 0;
    proto_cell *larger = realloc(d->cells, (size_t)n * sizeof *larger);
    if (larger == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memset(larger + d->n_cells, 0, (size_t)(n - d->n_cells) * sizeof *larger);
    d->cells = larger;
    d->n_cells = n;
    return 0;
}

static int set_messages(DecoderObject *self, schema *made, PyObject *descriptions) {
    Py_ssize_t n = PyTuple_Size(descriptions);
    made->messages = n < 0 ? NULL : calloc((size_t)n + 1, sizeof *made->messages);
    if (made->messages == NULL) {
        if (!PyErr_Occurred()) PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        made->n_messages = (int32_t)i + 1;
        if (set_message(&self->decoder, &made->messages[i], PyTuple_GetItem(descriptions, i)) != 0) return -1;
        if (grow_cells(&self->decoder, made->messages[i].program.n_cells) != 0) return -1;
    }
    return 0;
}

/* add_schema(id, program; or for JSON whether its records are read; or None: it is to be asked for again) */
static PyObject *decoder_add_schema(PyObject *object, PyObject *arguments) {
    DecoderObject *self = (DecoderObject *)object;
    unsigned int id;
    PyObject *description;
    if (!PyArg_ParseTuple(arguments, "IO", &id, &description)) return NULL;
    if ((self->schemas == NULL || 2 * (self->n_schemas + 1) > self->schema_mask) && grow_schemas(self) != 0)
        return PyErr_NoMemory();
    schema made = {.id = id, .is_known = 1};
    if (description == Py_None) {
        made.is_forgotten = 1;
    } else if (description == Py_True) {
        made.is_usable = 1;
    } else if (description != Py_False) {
        int is_protobuf = self->format == PROTOBUF || self->format == PROTOBUF_WITH_ID;
        if ((is_protobuf ? set_messages(self, &made, description)
                         : set_program(&self->decoder, &made.program, description)) != 0) {
            schema_free(&made);
            return NULL;
        }
        made.is_usable = 1;
    }
    schema *place = schema_place(self, id);
    schema_free(place);
    self->n_schemas += !place->is_known;
    *place = made;
    Py_RETURN_NONE;
}

/* unknown_schemas(values) -> [(index, id)] of the records whose schema is not known */
static PyObject *decoder_unknown_schemas(PyObject *object, PyObject *values) {
    const DecoderObject *self = (const DecoderObject *)object;
    Py_ssize_t n = PySequence_Size(values);
    PyObject *found = n < 0 ? NULL : PyList_New(0);
    for (Py_ssize_t i = 0; found != NULL && i < n; i++) {
        Value value;
        int failed = value_at(values, i, &value);
        int64_t id = failed ? -1 : id_of(self, value.bytes, (size_t)value.length);
        const schema *known = id < 0 ? NULL : schema_place(self, (uint32_t)id);
        if (id >= 0 && (known == NULL || !known->is_known || known->is_forgotten)) {
            PyObject *pair = Py_BuildValue("nL", i, (long long)id);
            failed = pair == NULL || PyList_Append(found, pair) != 0;
            Py_XDECREF(pair);
        }
        Py_XDECREF(value.owner);
        if (failed) Py_CLEAR(found);
    }
    return found;
}

/* ---- records ---- */

/* A number of the list that says which message of its schema a record is; 0 if it is not there. */
static int read_index(const unsigned char **p, const unsigned char *end, int64_t *index) {
    uint64_t n = 0;
    for (int shift = 0; shift < 35; shift += 7) {
        if (*p == end) return 0;
        n |= (uint64_t)(**p & 0x7F) << shift;
        if (*(*p)++ < 0x80) {
            *index = (int64_t)(n >> 1) ^ -(int64_t)(n & 1);
            return 1;
        }
    }
    return 0;
}

/* The program of the message that a record is, and in *start where the message starts; NULL if it is the reference's.
 */
static const proto_program *program_of_message(const DecoderObject *self, const schema *of, const char *record,
                                               size_t length, size_t *start) {
    if (self->format == PROTOBUF) {
        *start = 0;
        return &of->messages[0].program;
    }
    const unsigned char *p = (const unsigned char *)record + ID_BYTES, *end = (const unsigned char *)record + length;
    int32_t path[LONGEST_PATH] = {0};
    int64_t n, step;
    if (!read_index(&p, end, &n) || n < 0 || n > LONGEST_PATH) return NULL;
    for (int64_t i = 0; i < n; i++) {
        if (!read_index(&p, end, &step) || step != (int32_t)step) return NULL;
        path[i] = (int32_t)step;
    }
    if (n == 0) n = 1; /* short for the first message of the file */
    *start = (size_t)(p - (const unsigned char *)record);
    for (int32_t i = 0; i < of->n_messages; i++)
        if (of->messages[i].n_path == n && memcmp(of->messages[i].path, path, (size_t)n * sizeof *path) == 0)
            return &of->messages[i].program;
    return NULL;
}

/* One that is neither empty nor too large; without memory -1. */
static int read_record(DecoderObject *self, const char *record, size_t length, float *row, record_result *result) {
    rows_decoder *d = &self->decoder;
    int64_t id = id_of(self, record, length);
    if (id < 0) {
        *result = (record_result){.code = NOT_FRAMED, .entry = -1};
        return REJECTED;
    }
    const schema *of = self->format == JSON ? NULL : schema_place(self, (uint32_t)id);
    if (self->format != JSON && (of == NULL || !of->is_usable)) return HAND_OVER;
    if (self->format == AVRO || self->format == AVRO_WITH_ID) {
        if (rows_load(d, record, length) != 0) return -1;
        return self->decode.avro(d, &of->program, self->format == AVRO ? 0 : ID_BYTES, length, row, result);
    }
    if (self->format == PROTOBUF || self->format == PROTOBUF_WITH_ID) {
        size_t start;
        const proto_program *program = program_of_message(self, of, record, length, &start);
        if (program == NULL) return HAND_OVER;
        if (rows_load(d, record, length) != 0) return -1;
        return self->decode.protobuf(d, program, start, length, row, result);
    }
    size_t before = self->format == JSON ? 0 : ID_BYTES;
    if (length == before) return HAND_OVER;
    if (rows_load(d, record + before, length - before) != 0) return -1;
    int outcome = self->decode.json(d, length - before, row, result);
    result->identifier_start += before;
    return outcome;
}

static int decode_one(DecoderObject *self, const Value *value, Py_ssize_t index, progress *so_far,
                      const callbacks *python) {
    rows_decoder *d = &self->decoder;
    record_result result = {.code = EMPTY, .entry = -1};
    if (value->length == 0) return reject(python->on_rejection, index, &result);
    if (value->length > LARGEST_RECORD) return take_from_reference(self, so_far, python->hand_over, index);
    d->inputs = so_far->inputs;
    switch (read_record(self, value->bytes, (size_t)value->length, so_far->row, &result)) {
    case HAND_OVER: return take_from_reference(self, so_far, python->hand_over, index);
    case REJECTED: return reject(python->on_rejection, index, &result);
    case ACCEPTED: break;
    default: PyErr_NoMemory(); return -1;
    }
    count_blank(d, so_far->row, so_far->inputs);
    if (result.identifier != NULL) return accept_text(self, so_far, index, result.identifier, result.identifier_length);
    accept(so_far, index, (int64_t)result.identifier_start, (int64_t)result.identifier_length, d);
    return 0;
}

static PyTypeObject *decoder_class; /* made once, kept by the module */

int is_decoder(PyObject *object) { return Py_TYPE(object) == decoder_class; }

int decoder_width(PyObject *decoder) { return ((DecoderObject *)decoder)->decoder.width; }

int decoder_inputs(PyObject *decoder) { return ((DecoderObject *)decoder)->decoder.n_inputs; }

int decoder_has_ids(PyObject *decoder) { return has_ids((DecoderObject *)decoder); }

void decoder_count(PyObject *decoder, const float *row, const int64_t *inputs) {
    count_blank(&((DecoderObject *)decoder)->decoder, row, inputs);
}

void decoder_start(PyObject *decoder) { ((DecoderObject *)decoder)->texts_length = 0; }

const char *decoder_text(PyObject *decoder, const char *record, const Identifier *identifier) {
    return identifier->start < 0 ? ((DecoderObject *)decoder)->texts + ~identifier->start : record + identifier->start;
}

int decoder_read(PyObject *decoder, const char *record, size_t length, float *row, int64_t *inputs,
                 Identifier *identifier) {
    DecoderObject *self = (DecoderObject *)decoder;
    record_result result = {.code = EMPTY, .entry = -1};
    if (self->busy || length == 0 || length > (size_t)LARGEST_RECORD) return 0;
    self->decoder.inputs = inputs;
    if (read_record(self, record, length, row, &result) != ACCEPTED) return 0;
    *identifier = (Identifier){(int64_t)result.identifier_start, (int64_t)result.identifier_length};
    if (result.identifier == NULL) return 1;
    identifier->start = keep_text(self, result.identifier, result.identifier_length);
    return identifier->start != 0;
}

/* decode(values, matrix, source_index, identifier_start, identifier_length, inputs, hand_over, on_rejection)
   -> (accepted, handed over, texts). The five buffers are writable and have room for every value. */
static PyObject *decoder_decode(PyObject *object, PyObject *arguments) {
    DecoderObject *self = (DecoderObject *)object;
    PyObject *values, *answer = NULL;
    callbacks python;
    Py_buffer matrix, source_index, start, length, inputs;
    if (!PyArg_ParseTuple(arguments, "Ow*w*w*w*w*OO", &values, &matrix, &source_index, &start, &length, &inputs,
                          &python.hand_over, &python.on_rejection))
        return NULL;
    Py_ssize_t n = PySequence_Size(values);
    if (n < 0) {
        /* no sequence */
    } else if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "a decoder decodes one batch at a time");
    } else if (matrix.len < n * self->decoder.width * (Py_ssize_t)sizeof(float) ||
               source_index.len < n * (Py_ssize_t)sizeof(int32_t) || start.len < n * (Py_ssize_t)sizeof(int64_t) ||
               length.len < n * (Py_ssize_t)sizeof(int64_t) ||
               inputs.len < n * self->decoder.n_inputs * (Py_ssize_t)sizeof(int64_t)) {
        PyErr_SetString(PyExc_ValueError, "a buffer is too small for the batch");
    } else {
        progress so_far = {matrix.buf, inputs.buf, source_index.buf, start.buf, length.buf, 0, 0};
        int failed = 0;
        self->busy = 1; /* the callbacks run Python code, which must not come back in here */
        self->texts_length = 0;
        for (Py_ssize_t i = 0; i < n && !failed; i++) {
            Value value;
            failed = value_at(values, i, &value) != 0 || decode_one(self, &value, i, &so_far, &python) != 0;
            Py_XDECREF(value.owner);
        }
        self->busy = 0;
        if (!failed)
            answer = Py_BuildValue("nny#", so_far.n_accepted, so_far.n_handed_over,
                                   self->texts_length == 0 ? "" : self->texts, (Py_ssize_t)self->texts_length);
    }
    PyBuffer_Release(&matrix);
    PyBuffer_Release(&source_index);
    PyBuffer_Release(&start);
    PyBuffer_Release(&length);
    PyBuffer_Release(&inputs);
    return answer;
}

static PyObject *decoder_statistics(PyObject *object, PyObject *unused) {
    (void)unused;
    rows_decoder *d = &((DecoderObject *)object)->decoder;
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:i}", "blank", (unsigned long long)d->n_blank, "slow_walks",
                         (unsigned long long)d->n_slow_walks, "learned", (unsigned long long)d->n_learned,
                         "exact_numbers", (unsigned long long)d->n_exact_numbers, "orders", (int)d->n_orders);
}

static PyMethodDef decoder_methods[] = {
    {"decode", decoder_decode, METH_VARARGS, NULL},
    {"add_schema", decoder_add_schema, METH_VARARGS, NULL},
    {"unknown_schemas", decoder_unknown_schemas, METH_O, NULL},
    {"statistics", decoder_statistics, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot decoder_slots[] = {
    {Py_tp_new, decoder_new},
    {Py_tp_dealloc, decoder_dealloc},
    {Py_tp_methods, decoder_methods},
    {0, NULL},
};

static PyType_Spec decoder_spec = {"saker.engine.kernels._native.Decoder", sizeof(DecoderObject), 0, Py_TPFLAGS_DEFAULT,
                                   decoder_slots};

PyObject *decoder_type(void) {
    if (decoder_class == NULL) decoder_class = (PyTypeObject *)PyType_FromSpec(&decoder_spec);
    return Py_XNewRef((PyObject *)decoder_class);
}
