/* A snapshot of a state while it is in use, and a state made of one.

   Blocks are in the order of their use, and each use has a higher serial. So what has to be saved is known without a
   mark: the blocks whose serial is at most that of the beginning, and that the walk from the oldest one has not passed.
   A block that is about to change is saved first; it then has a higher serial. */
#include "velocity.h"
#include <stdlib.h>
#include <string.h>

static uint64_t serial_of(const int64_t *block) { return (uint64_t)block[IDENTITY] >> 16; }

static const velocity_key_set *key_set_of(const velocity_plan *plan, const int64_t *block) {
    int64_t number = block[IDENTITY] >> 8 & 0xFF;
    return number < plan->n_key_sets ? &plan->key_sets[number] : NULL;
}

/* How long the block is by the lengths of its lists, of which `room` words may be read; 0: it is none. */
static size_t words_in(const velocity_plan *plan, const int64_t *block, size_t room) {
    const velocity_key_set *k = key_set_of(plan, block);
    if (k == NULL || (size_t)k->lists_word > room) return 0;
    const uint16_t *lengths = (const uint16_t *)(block + k->lengths_word);
    if (block[IDENTITY] & FEW)
        return lengths[0] > k->most_few ? 0 : (size_t)k->lists_word + (size_t)lengths[0] * (size_t)k->few_words;
    size_t n = (size_t)k->lists_word;
    for (int32_t i = 0; i < k->n_groups; i++) {
        const velocity_group *g = &k->groups[i];
        if (lengths[g->first_list] > HOPS) return 0;
        n += (size_t)lengths[g->first_list] * (size_t)g->stride;
        for (int32_t j = 0; j < g->n_distinct; j++) {
            if (lengths[g->first_list + 1 + j] > MOST_DISTINCT) return 0;
            n += lengths[g->first_list + 1 + j];
        }
    }
    return n;
}

/* ---- taking one ---- */

void velocity_snapshot_begin(velocity_state *s) {
    s->saving = 1;
    s->save_failed = 0;
    s->save_next = s->oldest;
    s->save_until = s->serial;
    s->n_saved = 0;
}

/* The word that has the neighbours in the order of use has the length of the block in a snapshot. */
static void save(velocity_state *s, const int64_t *block) {
    size_t n = words_in(s->plan, block, SIZE_MAX), bytes = n * sizeof *block;
    if (s->n_saved + bytes > s->saved_room) {
        size_t room = 2 * s->saved_room + bytes + CHUNK_BYTES;
        char *more = realloc(s->saved, room);
        if (more == NULL) {
            s->saving = 0;
            s->save_failed = 1;
            return;
        }
        s->saved = more;
        s->saved_room = room;
    }
    char *to = s->saved + s->n_saved;
    memcpy(to, block, bytes);
    memcpy(to + ORDER * sizeof *block, &(int64_t){(int64_t)n}, sizeof *block);
    s->n_saved += bytes;
}

/* Saves the block that the walk has come to. */
static void save_next(velocity_state *s) {
    const int64_t *block = velocity_block(s, s->save_next);
    if (serial_of(block) > s->save_until) {
        s->save_next = 0;
        return;
    }
    save(s, block);
    s->save_next = (uint32_t)((uint64_t)block[ORDER] >> 32);
}

void velocity_snapshot_keep(velocity_state *s, uint32_t number) {
    if (!s->saving || s->save_next == 0) return;
    uint64_t serial = serial_of(velocity_block(s, number));
    if (serial > s->save_until || serial < serial_of(velocity_block(s, s->save_next))) return;
    if (number == s->save_next) save_next(s);
    else save(s, velocity_block(s, number));
}

int velocity_snapshot_walk(velocity_state *s, int64_t n_blocks) {
    for (; s->saving && s->save_next != 0 && n_blocks > 0; n_blocks--) save_next(s);
    if (s->save_next == 0) s->saving = 0;
    return s->save_failed ? -1 : 0;
}

/* ---- using one ---- */

int velocity_restore(velocity_state *s, const char *data, size_t length) {
    if (length % sizeof *s->rebuilt != 0) return 1;
    for (size_t room = length / sizeof *s->rebuilt, n; room > 0; room -= n, data += n * sizeof *s->rebuilt) {
        int64_t head[LAST_VALUES];
        if (room < LAST_VALUES) return 1;
        memcpy(head, data, sizeof head);
        n = (size_t)head[ORDER];
        if (n < LAST_VALUES || n > room || n > s->plan->largest_block || (head[0] | head[1]) == 0) return 1;
        memcpy(s->rebuilt, data, n * sizeof *s->rebuilt);
        if (words_in(s->plan, s->rebuilt, n) != n) return 1;
        int result = velocity_insert(s, s->rebuilt, n);
        if (result != 0) return result;
    }
    return 0;
}

typedef struct {
    uint64_t serial;
    uint32_t number;
} used;

static int by_serial(const void *a, const void *b) {
    uint64_t first = ((const used *)a)->serial, second = ((const used *)b)->serial;
    return (first > second) - (first < second);
}

int velocity_restore_end(velocity_state *s, uint64_t serial) {
    used *all = malloc((s->n_keys + 1) * sizeof *all);
    uint32_t *numbers = malloc((s->n_keys + 1) * sizeof *numbers);
    size_t n = 0;
    s->serial = serial;
    for (uint32_t number = s->oldest; all != NULL && numbers != NULL && number != 0;) {
        const int64_t *block = velocity_block(s, number);
        if (serial_of(block) > s->serial) s->serial = serial_of(block);
        all[n++] = (used){serial_of(block), number};
        number = (uint32_t)((uint64_t)block[ORDER] >> 32);
    }
    if (all != NULL && numbers != NULL) {
        qsort(all, n, sizeof *all, by_serial);
        for (size_t i = 0; i < n; i++) numbers[i] = all[i].number;
        velocity_order(s, numbers, n);
    }
    int failed = all == NULL || numbers == NULL;
    free(all);
    free(numbers);
    return failed ? -1 : 0;
}
