/* Where the histories of keys are: blocks in chunks, found by hash, in order of use. What is dropped when the limit is
   reached depends on the records alone. */
#include "velocity.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_BYTES ((size_t)2 << 20)
#define CHUNKS_TOGETHER 2
enum { FIRST_SLOT_BITS = 10, MOST_SLOT_BITS = 31 };

/* Sizes of blocks in units, ascending: a block is at most a quarter larger than needed. */
#define N_CLASSES 60
static uint16_t class_units[N_CLASSES];

static void make_classes(void) {
    uint32_t units = 1;
    for (int i = 0; i < N_CLASSES; i++) {
        class_units[i] = (uint16_t)units;
        uint32_t step = units < 8 ? 1 : units / 4;
        units = units + step > CHUNK_BYTES / UNIT_BYTES ? CHUNK_BYTES / UNIT_BYTES : units + step;
    }
}

static int class_of(size_t words) {
    size_t units = (words * 8 + UNIT_BYTES - 1) / UNIT_BYTES;
    int low = 0, high = N_CLASSES - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (class_units[middle] >= units) high = middle;
        else low = middle + 1;
    }
    return low;
}

static int block_class(const int64_t *block) { return (int)(block[IDENTITY] & ~FEW & 0xFF); }

size_t velocity_room(const int64_t *block) { return (size_t)class_units[block_class(block)] * UNIT_BYTES / 8; }

/* What a block and its place in the table take. */
static uint64_t bytes_of(int class) { return (uint64_t)class_units[class] * UNIT_BYTES + sizeof(uint64_t); }

/* Memory of zeros, in large pages where there are such: the state is read at random, so most of its pages would have to
   be looked up. */
static void *huge(size_t bytes) {
    void *memory;
    if (posix_memalign(&memory, bytes < HUGE_BYTES ? 64 : HUGE_BYTES, bytes) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    if (bytes >= HUGE_BYTES) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return memory;
}

static void *huge_zeros(size_t bytes) {
    void *memory = huge(bytes);
    return memory == NULL ? NULL : memset(memory, 0, bytes);
}

int velocity_state_init(velocity_state *s, const velocity_plan *plan, uint64_t limit) {
    make_classes();
    memset(s, 0, sizeof *s);
    s->plan = plan;
    s->limit = limit;
    s->next_unit = 1;
    s->slot_bits = FIRST_SLOT_BITS;
    s->slots = huge_zeros(sizeof *s->slots << s->slot_bits);
    s->rebuilt = malloc((plan->largest_block + 1) * sizeof *s->rebuilt);
    s->other = malloc((plan->largest_block + 1) * sizeof *s->other);
    s->inputs = calloc((size_t)plan->n_words + 1, sizeof *s->inputs);
    s->sums = malloc(((size_t)plan->most_columns + 1) * sizeof *s->sums);
    float *columns = malloc(sizeof *columns * N_REMEMBERED * ((size_t)plan->n_outputs + 1));
    if (!s->slots || !s->rebuilt || !s->other || !s->inputs || !s->sums || !columns) {
        free(columns);
        return -1;
    }
    for (int i = 0; i < N_REMEMBERED; i++) s->remembered[i] = (remembered){-1, columns + (size_t)i * plan->n_outputs};
    return 0;
}

void velocity_state_free(velocity_state *s) {
    for (uint32_t i = 0; i < s->n_chunks; i += CHUNKS_TOGETHER) free(s->chunks[i]);
    free(s->chunks);
    free(s->slots);
    free(s->saved);
    free(s->rebuilt);
    free(s->other);
    free(s->inputs);
    free(s->sums);
    free(s->remembered[0].columns);
    memset(s, 0, sizeof *s);
}

/* ---- blocks ---- */

static int add_chunks(velocity_state *s) {
    if (s->n_chunks >= UINT32_MAX / (CHUNK_BYTES / UNIT_BYTES) - CHUNKS_TOGETHER) return -1;
    char **more = realloc(s->chunks, (s->n_chunks + CHUNKS_TOGETHER) * sizeof *more);
    if (more == NULL) return -1;
    s->chunks = more;
    char *memory = huge(CHUNKS_TOGETHER * CHUNK_BYTES);
    if (memory == NULL) return -1;
    for (int i = 0; i < CHUNKS_TOGETHER; i++) s->chunks[s->n_chunks++] = memory + (size_t)i * CHUNK_BYTES;
    return 0;
}

/* A block of the class, without content; 0 without memory. */
static uint32_t take_block(velocity_state *s, int class) {
    const uint32_t units = CHUNK_BYTES / UNIT_BYTES;
    uint32_t number = s->free_blocks[class];
    if (number != 0) {
        s->free_blocks[class] = (uint32_t)velocity_block(s, number)[0];
        return number;
    }
    if (s->next_unit % units + class_units[class] > units)
        s->next_unit += units - s->next_unit % units; /* the rest is lost */
    if (s->next_unit >= s->n_chunks * units && add_chunks(s) != 0) return 0;
    number = s->next_unit;
    s->next_unit += class_units[class];
    return number;
}

static void give_block(velocity_state *s, uint32_t number, int class) {
    velocity_block(s, number)[0] = s->free_blocks[class];
    s->free_blocks[class] = number;
}

/* ---- the table ---- */

static uint64_t tag_of(const uint64_t hash[2]) { return hash[0] >> 32; }

static size_t home_of(const velocity_state *s, uint64_t tag) { return (size_t)(tag >> (32 - s->slot_bits)); }

/* The slot of the key, or the empty one where it would be. */
static size_t slot_of(const velocity_state *s, const velocity_key *key) {
    uint64_t tag = tag_of(key->hash);
    size_t mask = ((size_t)1 << s->slot_bits) - 1, at = home_of(s, tag);
    for (; s->slots[at] != 0; at = (at + 1) & mask) {
        if (s->slots[at] >> 32 != tag) continue;
        const int64_t *block = velocity_block(s, (uint32_t)s->slots[at]);
        if (memcmp(block, key->hash, sizeof key->hash) == 0) break;
    }
    return at;
}

uint32_t velocity_find(const velocity_state *s, const velocity_key *key) { return (uint32_t)s->slots[slot_of(s, key)]; }

void velocity_prefetch_slot(const velocity_state *s, const velocity_key *key) {
    __builtin_prefetch(&s->slots[home_of(s, tag_of(key->hash))]);
}

void velocity_prefetch_block(const velocity_state *s, const velocity_key *key) {
    uint64_t tag = tag_of(key->hash);
    size_t mask = ((size_t)1 << s->slot_bits) - 1, at = home_of(s, tag);
    for (int i = 0; i < 8 && s->slots[at] != 0; i++, at = (at + 1) & mask)
        if (s->slots[at] >> 32 == tag) {
            const char *block = (const char *)velocity_block(s, (uint32_t)s->slots[at]);
            for (int line = 0; line < 5; line++) __builtin_prefetch(block + 64 * line, 1);
            return;
        }
}

void velocity_prefetch_neighbours(const velocity_state *s, const velocity_key *key) {
    uint32_t number = velocity_find(s, key);
    if (number == 0) return;
    uint64_t order = (uint64_t)velocity_block(s, number)[ORDER];
    if ((uint32_t)order != 0) __builtin_prefetch(velocity_block(s, (uint32_t)order), 1);
    if (order >> 32 != 0) __builtin_prefetch(velocity_block(s, (uint32_t)(order >> 32)), 1);
}

/* Those behind it move up, if they belong before it. */
static void remove_slot(velocity_state *s, size_t at) {
    size_t mask = ((size_t)1 << s->slot_bits) - 1;
    for (size_t next = (at + 1) & mask; s->slots[next] != 0; next = (next + 1) & mask) {
        size_t home = home_of(s, s->slots[next] >> 32);
        if (((next - home) & mask) < ((next - at) & mask)) continue;
        s->slots[at] = s->slots[next];
        at = next;
    }
    s->slots[at] = 0;
}

/* Room for one more key: the table is at most seven eighths full. Homes are the upper bits of the hash, so its order
   stays, and both tables are walked from one end to the other. -1 without memory. */
static int make_room(velocity_state *s) {
    if (s->n_keys < ((uint64_t)7 << s->slot_bits) / 8) return 0;
    if (s->slot_bits == MOST_SLOT_BITS) return -1;
    size_t n = (size_t)1 << s->slot_bits;
    uint64_t *old = s->slots, *larger = huge_zeros(2 * n * sizeof *larger);
    if (larger == NULL) return -1;
    s->slots = larger;
    s->slot_bits++;
    for (size_t from = 0; from < n; from++) {
        if (old[from] == 0) continue;
        size_t at = home_of(s, old[from] >> 32);
        while (larger[at] != 0) at = (at + 1) & (2 * n - 1);
        larger[at] = old[from];
    }
    free(old);
    return 0;
}

/* ---- order of use ---- */

static uint32_t previous_of(const int64_t *block) { return (uint32_t)block[ORDER]; } /* used before it */
static uint32_t next_of(const int64_t *block) { return (uint32_t)((uint64_t)block[ORDER] >> 32); }
static void set_order(int64_t *block, uint32_t previous, uint32_t next) {
    block[ORDER] = (int64_t)((uint64_t)next << 32 | previous);
}

static void unlink_block(velocity_state *s, uint32_t number) {
    const int64_t *block = velocity_block(s, number);
    uint32_t previous = previous_of(block), next = next_of(block);
    if (previous != 0) set_order(velocity_block(s, previous), previous_of(velocity_block(s, previous)), next);
    else s->oldest = next;
    if (next != 0) set_order(velocity_block(s, next), previous, next_of(velocity_block(s, next)));
    else s->newest = previous;
}

static void link_newest(velocity_state *s, uint32_t number) {
    if (s->newest != 0) {
        int64_t *newest = velocity_block(s, s->newest);
        set_order(newest, previous_of(newest), number);
    } else s->oldest = number;
    set_order(velocity_block(s, number), s->newest, 0);
    s->newest = number;
}

static void set_identity(velocity_state *s, int64_t *block, int class) {
    block[IDENTITY] = (int64_t)(s->serial << 16 | ((uint64_t)block[IDENTITY] & (0xFF00 | FEW)) | (uint64_t)class);
}

void velocity_touch(velocity_state *s, uint32_t number) {
    if (s->newest != number) {
        unlink_block(s, number);
        link_newest(s, number);
    }
    int64_t *block = velocity_block(s, number);
    set_identity(s, block, block_class(block));
}

/* ---- keys ---- */

static void drop(velocity_state *s, uint32_t number) {
    velocity_snapshot_keep(s, number);
    const int64_t *block = velocity_block(s, number);
    velocity_key key;
    memcpy(key.hash, block, sizeof key.hash);
    remove_slot(s, slot_of(s, &key));
    unlink_block(s, number);
    int class = block_class(block);
    s->used -= bytes_of(class);
    s->n_keys--;
    give_block(s, number, class);
}

uint32_t velocity_store(velocity_state *s, uint32_t number, const int64_t *words, size_t n) {
    int class = class_of(n), had = number == 0 ? -1 : block_class(velocity_block(s, number));
    /* A block that is a little too large stays where it is. */
    if (number != 0 && class <= had && class + 3 > had) {
        int64_t *block = velocity_block(s, number);
        block[IDENTITY] = (block[IDENTITY] & ~(int64_t)FEW) | (words[IDENTITY] & FEW);
        memcpy(block + NEWEST_TIME, words + NEWEST_TIME, (n - NEWEST_TIME) * sizeof *words);
        velocity_touch(s, number);
        return number;
    }
    uint32_t moved = take_block(s, class);
    if (moved == 0) return 0;
    velocity_key key;
    memcpy(key.hash, words, sizeof key.hash);
    if (number == 0 && make_room(s) != 0) {
        give_block(s, moved, class);
        return 0;
    }
    size_t slot = slot_of(s, &key);
    if (number != 0) {
        unlink_block(s, number);
        s->used -= bytes_of(had);
        give_block(s, number, had);
    } else s->n_keys++;
    s->used += bytes_of(class);
    s->slots[slot] = tag_of(key.hash) << 32 | moved;
    int64_t *block = velocity_block(s, moved);
    memcpy(block, words, n * sizeof *words);
    set_identity(s, block, class);
    link_newest(s, moved);
    return moved;
}

int velocity_insert(velocity_state *s, const int64_t *words, size_t n) {
    velocity_key key;
    memcpy(key.hash, words, sizeof key.hash);
    /* It has the room that it had, on which the limit depends. */
    int class = block_class(words);
    if (class < class_of(n) || class >= N_CLASSES || velocity_find(s, &key) != 0) return 1;
    uint32_t number = take_block(s, class);
    if (number == 0 || make_room(s) != 0) return -1;
    s->slots[slot_of(s, &key)] = tag_of(key.hash) << 32 | number;
    s->n_keys++;
    s->used += bytes_of(class);
    int64_t *block = velocity_block(s, number);
    memcpy(block, words, n * sizeof *words);
    link_newest(s, number);
    return 0;
}

void velocity_order(velocity_state *s, const uint32_t *numbers, size_t n) {
    s->oldest = s->newest = 0;
    for (size_t i = 0; i < n; i++) link_newest(s, numbers[i]);
}

void velocity_keep_limit(velocity_state *s, int64_t now_ms) {
    while (s->used > s->limit && s->oldest != s->newest) {
        const int64_t *block = velocity_block(s, s->oldest);
        const velocity_key_set *k = &s->plan->key_sets[block[IDENTITY] >> 8 & 0xFF];
        s->evicted_live += block[NEWEST_TIME] + k->longest_ms > now_ms;
        s->evicted++;
        drop(s, s->oldest);
    }
}
