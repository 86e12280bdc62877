/* Velocity features: the history of each key of a partition, and what a record gets of it. The definition is
   docs/explanation/velocity.md, its reference engine/history/reference.py. Pure C, no Python: velocity_type.c knows it.

   A plan is built from one layout (engine/velocity.py), and immutable. A state is the history of one partition. Both
   are used by one thread at a time.

       inputs of a record --key of each key set--> block of the key --functions--> columns of the row
                                                        |
                                                        +<-- the record, for later ones

   A block holds all that is known of a key, in words of 64 bits:

       hash (2) | previous, next in order of use | serial, key set, size class | newest time | last time
       | of each last value: value, time | lengths of the lists (16 bits each) | lists, one behind the other

   A list is the hops of a group (ascending; each an entry of `stride` words), or the values that a `distinct` counts
   (one word each: 58 bits of the hash, 6 of the hop).

   Most keys have few records. Their block has the records themselves in place of the lists, up to `most_few`, each with
   its time and those of its inputs that are needed (FEW in the word of the serial; the first length is their number).
   That takes a fifth of the memory, and is read and written faster. The features are the same. */
#ifndef VELOCITY_H
#define VELOCITY_H

#include <stddef.h>
#include <stdint.h>

#define HOPS 60
#define MOST_DISTINCT 255
#define MAX_PARTS 8
#define MAX_KEY_SETS 256
#define MAX_LISTS 1024
#define LATEST_MS 4102444800000 /* the end of 2099 */
#define AHEAD_MS 3600000
#define LARGEST_VALUE 9007199254740992.0 /* 2**53 */
#define CHUNK_BYTES ((size_t)1 << 20)    /* the largest block */
#define UNIT_BYTES 32                    /* of which blocks are made */
#define MOST_FEW 16
#define FEW_WORDS 96 /* of all of them, at most */
#define FEW 0x80
#define N_REMEMBERED 64 /* records whose columns are kept, for one that comes again at once */

/* Words of a block behind the hash. */
enum { ORDER = 2, IDENTITY, NEWEST_TIME, LAST_TIME, LAST_VALUES };

enum velocity_function { COUNT, SUM, MEAN, STD, MIN, MAX, LAST, DISTINCT, SECONDS_SINCE_LAST, RATIO_TO_MEAN, ZSCORE };

/* What is kept of a value in a hop (engine/velocity.py, NEEDS), and the words that it takes. */
enum { NEEDS_SUM = 1, NEEDS_SQUARES = 2, NEEDS_EXTREMES = 4 };

/* Where the extremes are among the words of a value in an entry, and how many words it has. */
static inline int32_t extremes_at(int32_t needs) {
    return ((needs & NEEDS_SUM) ? 2 : 0) + ((needs & NEEDS_SQUARES) ? 3 : 0);
}
static inline int32_t words_of(int32_t needs) { return extremes_at(needs) + ((needs & NEEDS_EXTREMES) ? 2 : 0); }

typedef struct {
    int32_t input, needs; /* input: word of the record */
    int32_t word;         /* of an entry */
    int32_t few;          /* of one of few records */
    double power;         /* 10**scale */
} velocity_column;

typedef struct {
    int64_t hop_ms;
    int32_t n_columns, n_distinct, stride;
    velocity_column *columns;
    int32_t *distinct; /* words of the record */
    int32_t *distinct_few;
    int32_t first_list; /* its hops; the lists of `distinct` follow */
} velocity_group;

typedef struct {
    int32_t n_parts, n_groups, n_last, n_lists;
    int32_t first_output, n_outputs;
    int32_t parts[MAX_PARTS]; /* words of the record */
    velocity_group *groups;
    velocity_column *last;
    int32_t lengths_word, lists_word; /* of the block */
    int64_t longest_ms;
    /* Of one of few records: its words, behind the time the inputs that they are of, and which of them are identities.
     */
    int32_t few_words, most_few, n_few_values;
    int32_t *few_inputs;
} velocity_key_set;

typedef struct {
    int32_t column, function, key_set, group, item, input;
    double power;
} velocity_output;

typedef struct {
    unsigned __int128 low;
    uint64_t high;
} wide;

/* Of a value in a history. */
typedef struct {
    int64_t n;
    __int128 sum;
    wide squares;
    int64_t smallest, largest;
} velocity_sums;

typedef struct {
    int32_t n_words, width, has_time; /* of the inputs, of the matrix, whether the records have a time */
    int32_t n_key_sets, n_outputs, most_columns;
    velocity_key_set *key_sets;
    velocity_output *outputs; /* those of a key set together, and within it those of a group */
    size_t largest_block;     /* words */
    uint64_t hash_key[2];     /* of keys of several parts */
    int64_t longest_ms;
    uint8_t definition[32]; /* zeros: none. Plans with the same one differ in their columns at most */
} velocity_plan;

typedef struct {
    int64_t offset;
    float *columns;
} remembered;

typedef struct {
    const velocity_plan *plan;
    /* blocks: by number, in units of UNIT_BYTES; 0 is none */
    char **chunks;
    uint32_t n_chunks, next_unit;
    uint32_t free_blocks[64];
    uint32_t newest, oldest; /* in order of use */
    /* open addressing: the number of a block, and above it 32 bits of its hash, whose upper bits say where it belongs
     */
    uint64_t *slots;
    int slot_bits;
    uint64_t serial; /* of the record: each use of a block has a higher one */
    uint64_t n_keys, used, limit;
    uint64_t evicted, evicted_live, without_time, incomplete;
    /* Records from this event time on are known; before it there may have been others. */
    int64_t complete_from_ms;
    int64_t next_offset;
    remembered remembered[N_REMEMBERED];
    uint32_t n_remembered;
    /* A snapshot that is being taken (snapshot.c): whether, the next block to save, the last serial that belongs to it,
       and what is saved and not handed out. */
    int saving, save_failed;
    uint32_t save_next;
    uint64_t save_until;
    char *saved;
    size_t n_saved, saved_room;
    /* scratch: two blocks, and the inputs of a record */
    int64_t *rebuilt, *other, *inputs;
    velocity_sums *sums;
} velocity_state;

typedef struct {
    uint64_t hash[2]; /* zeros: the key is missing */
} velocity_key;

static inline int64_t *velocity_block(const velocity_state *s, uint32_t number) {
    const uint32_t units = CHUNK_BYTES / UNIT_BYTES;
    return (int64_t *)(void *)(s->chunks[number / units] + (size_t)(number % units) * UNIT_BYTES);
}

/* state.c. Functions that allocate return 0, or -1 without memory. */
int velocity_state_init(velocity_state *, const velocity_plan *, uint64_t limit);
void velocity_state_free(velocity_state *);
/* The block of a key, 0 if it has none. */
uint32_t velocity_find(const velocity_state *, const velocity_key *);
void velocity_prefetch_slot(const velocity_state *, const velocity_key *);
void velocity_prefetch_block(const velocity_state *, const velocity_key *);
void velocity_prefetch_neighbours(const velocity_state *, const velocity_key *);
/* How many words fit into the block. */
size_t velocity_room(const int64_t *block);
/* Stores n words as the block of their hash: in `number`, or elsewhere, or (number 0) as a new one. It is then the
   newest. Returns its number, 0 without memory. */
uint32_t velocity_store(velocity_state *, uint32_t number, const int64_t *words, size_t n);
void velocity_touch(velocity_state *, uint32_t number);
/* Drops the keys that were not used for the most records until the limit is kept, but never the newest. now_ms: of the
   record, by which a key counts as live or not. */
void velocity_keep_limit(velocity_state *, int64_t now_ms);

/* Stores n words of a former block as a new one. Returns 0, -1 without memory, 1 if its key is there, or it is no
 * block. */
int velocity_insert(velocity_state *, const int64_t *words, size_t n);
/* Puts the blocks into this order of use, from the oldest one on. */
void velocity_order(velocity_state *, const uint32_t *numbers, size_t n);

/* snapshot.c: the state as it was at `begin`, taken in parts while it is in use. Walk saves that many further blocks,
   and returns -1 if memory was missing: there is no snapshot then. Nothing saved after a walk: it was all. */
void velocity_snapshot_begin(velocity_state *);
void velocity_snapshot_keep(velocity_state *, uint32_t number); /* before a block changes */
int velocity_snapshot_walk(velocity_state *, int64_t n_blocks);
/* Into an empty state. Returns 0, -1 without memory, 1 if these are not blocks of its plan. */
int velocity_restore(velocity_state *, const char *data, size_t length);
int velocity_restore_end(velocity_state *, uint64_t serial);

/* apply.c. The plan has the definition of the state's own. `inputs` of one record; timestamp_ms < 0: it has none.
   Returns 0, or -1 without memory. */
void velocity_keys(const velocity_plan *, const int64_t *inputs, velocity_key *keys);
int velocity_apply(const velocity_plan *, velocity_state *, const int64_t *inputs, const velocity_key *keys,
                   int64_t timestamp_ms, float *row);

#endif
