/* The tables of a Protocol Buffers message: which values need no cell, and their memory. */
#include "protobuf.h"
#include "table.h"
#include <stdlib.h>

/* May a value of this kind go to the column of its field as it is read? */
static int is_plain(const field *f, int32_t kind) {
    if (f->required || f->also != NULL) return 0;
    if (f->kind == FIELD_TEXT) return kind == PROTO_TEXT;
    return f->kind == FIELD_NUMBER && kind <= PROTO_BOOL;
}

static int index_actions(proto_program *p, int32_t n_tables) {
    p->dense = malloc((size_t)n_tables * (LAST_DENSE + 1) * sizeof *p->dense);
    if (p->dense == NULL) return -1;
    memset(p->dense, -1, (size_t)n_tables * (LAST_DENSE + 1) * sizeof *p->dense);
    for (int32_t t = 0; t < n_tables; t++)
        for (int32_t i = 0; i < p->tables[t].n_actions; i++) {
            int32_t action = p->tables[t].first_action + i, number = p->actions[action].number;
            if (number >= 0 && number <= LAST_DENSE) p->dense[t * (LAST_DENSE + 1) + number] = action;
        }
    return 0;
}

int protobuf_specialize(const rows_decoder *d, proto_program *p, int32_t n_tables, int32_t n_actions) {
    p->blank_row = malloc((size_t)d->width * sizeof *p->blank_row);
    if (p->blank_row == NULL || index_actions(p, n_tables) != 0) return -1;
    memcpy(p->blank_row, d->blank_row, (size_t)d->width * sizeof *p->blank_row);
    for (int32_t i = 0; i < n_actions; i++) {
        proto_action *a = &p->actions[i];
        proto_final *final = a->column < 0 ? NULL : &p->finals[a->column];
        a->column = -1;
        if (final == NULL || !is_plain(&d->fields[final->slot], final->kind)) continue;
        const field *f = &d->fields[final->slot];
        a->column = f->column;
        a->first_pair = final->slot;
        if (!final->has_presence) {
            static const char nothing[16] = "";
            int32_t found = f->kind == FIELD_TEXT ? text_find(&f->vocabulary, nothing, 0) : -1;
            if (f->kind == FIELD_NUMBER) p->blank_row[f->column] = 0;
            else if (found >= 0) p->blank_row[f->column] = f->codes[found];
        }
        final->slot = ~final->slot;
    }
    p->n_all = p->n_finals;
    p->all = malloc((size_t)(p->n_all + 1) * sizeof *p->all);
    if (p->all == NULL) return -1;
    memcpy(p->all, p->finals, (size_t)p->n_all * sizeof *p->all);
    int32_t n = 0;
    for (int32_t i = 0; i < p->n_finals; i++)
        if (p->finals[i].slot >= 0) p->finals[n++] = p->finals[i];
    p->n_finals = n;
    return 0;
}

void proto_program_free(proto_program *p) {
    for (int32_t i = 0; i < p->n_keys; i++) text_table_free(&p->keys[i]);
    free(p->keys);
    free(p->tables);
    free(p->actions);
    free(p->finals);
    free(p->all);
    free(p->dense);
    free(p->places);
    free(p->texts);
    free(p->text_ends);
    free(p->blank_row);
}
