/* The program of an Avro schema: its usual operations, and its memory. */
#include "avro.h"
#include <stdlib.h>
#include <string.h>

/* The operation that `op` is for these fields. */
static int32_t plain_code(const rows_decoder *d, const avro_operation *op) {
    if (op->code < LONG || op->code > ENUM) return -1;
    const field *f = &d->fields[op->a];
    if (f->required || f->also != NULL) return -1;
    if (f->kind == FIELD_TEXT) return op->code == STRING ? PLAIN_TEXT : -1;
    if (f->kind != FIELD_NUMBER) return -1;
    return op->code == DOUBLE ? PLAIN_DOUBLE : op->code == FLOAT ? PLAIN_FLOAT : op->code == LONG ? PLAIN_LONG : -1;
}

int32_t avro_specialize(const rows_decoder *d, avro_program *program, int32_t n) {
    program->special = malloc((size_t)n * sizeof *program->special);
    if (program->special == NULL) return -1;
    for (int32_t i = n - 1; i >= 0; i--) {
        const avro_operation *op = &program->operations[i];
        avro_operation *special = &program->special[i];
        *special = *op;
        if (op->code == OPTIONAL && op->b == i + 2) { /* one operation between it and what is behind */
            const avro_operation *inner = &program->operations[i + 1];
            int32_t code = plain_code(d, inner);
            if (code >= 0) *special = (avro_operation){code - PLAIN_DOUBLE + OPTIONAL_DOUBLE, op->a, inner->a, 0, 0};
            else if (inner->code == SKIP_BYTES) *special = (avro_operation){OPTIONAL_BYTES, op->a, inner->a, 0, 0};
            if (special->code >= OPTIONAL_DOUBLE && special->code <= OPTIONAL_LONG)
                special->c = d->fields[inner->a].column;
        } else if (plain_code(d, op) >= 0) {
            special->code = plain_code(d, op);
            special->c = d->fields[op->a].column;
        }
    }
    return 0;
}

void avro_program_free(avro_program *program) {
    for (int32_t i = 0; i < program->n_keys; i++) {
        text_table_free(&program->keys[i]);
        free(program->programs[i]);
    }
    free(program->keys);
    free(program->programs);
    free(program->operations);
    free(program->special);
    free(program->places);
    free(program->texts);
    free(program->text_ends);
    memset(program, 0, sizeof *program);
}
