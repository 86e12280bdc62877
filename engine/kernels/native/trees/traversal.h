/* The other way through a tree, for a few rows or many leaves: from node to node, several trees (or rows) at once. */
#ifndef SAKER_WALK_H
#define SAKER_WALK_H

#include "leaf_sums.h"
#include "bins.h"

/* Order of the floats as unsigned integers, from 1 to 0xfffffffe; NaN is not asked for here. -0.0 comes right below
 * 0.0, which changes no comparison, since a threshold of -0.0 has the key of 0.0 (order_key). */
INLINE uint32_t key_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

/* A step is two loads that depend on each other, a compare and an add with carry; walking several trees (or rows) at
 * once hides the latency. */
INLINE size_t step(const WalkNode *walk, size_t at, const uint32_t *keys) {
    const WalkNode *node = walk + at;
    return at + node->next + (node->key < keys[node->slot]);
}

typedef uint32_t Eight __attribute__((vector_size(32)));

static void fill_keys(const Plan *plan, const float *x, uint32_t *keys) {
    keys[0] = 0;
    for (unsigned i = 0; i < plan->n_key_sources; i++) {
        KeySource source = plan->key_sources[i];
        float value = x[source.feature];
        uint32_t key = key_of(value);
        int missing = value != value;
        if (source.nan_true_key >= 0) keys[source.nan_true_key] = missing ? 0 : key;
        if (source.nan_false_key >= 0) keys[source.nan_false_key] = missing ? UINT32_MAX : key;
    }
    for (unsigned i = 0; i < plan->n_sets; i++) {
        const Sets *sets = plan->sets + i;
        const uint8_t *bits =
            plan->set_bits + sets->first_bits + (size_t)set_row(plan, sets, x[sets->feature]) * sets->n_bytes;
        uint32_t *key = keys + sets->key;
        for (unsigned j = 0; j < sets->n_bytes; j++, key += 8) {
            static const Eight each = {1, 2, 4, 8, 16, 32, 64, 128};
            Eight absent = (Eight)((((Eight){0} + bits[j]) & each) == 0); /* a member has key 0, which goes true */
            memcpy(key, &absent, sizeof absent);
        }
    }
}

/* The sums of n rows whose leaves are `reached`, in the order of the trees. */
INLINE void sum_walked(const Plan *plan, unsigned n, double *out, const uint32_t *reached, int single) {
    const double *value = plan->leaf;
    for (unsigned r = 0; r < n; r++, reached += plan->n_trees, out += plan->n_targets) {
        if (plan->n_targets == 1) {
            double sum = 0;
            for (unsigned t = 0; t < plan->n_trees; t++) sum = plus(sum, value[reached[t]], single);
            out[0] = sum;
        } else {
            for (unsigned t = 0; t < plan->n_targets; t++) out[t] = 0;
            for (unsigned t = 0; t < plan->n_trees; t++) {
                double *sum = out + plan->trees[t].target;
                *sum = plus(*sum, value[reached[t]], single);
            }
        }
        for (unsigned t = 0; t < plan->n_targets; t++) out[t] = averaged(plan, out[t]);
    }
}

/* A few rows (at most WALK_ROWS) through all the trees. Group by group and not row by row, so that a group's nodes are
 * read from memory once. `reached` holds the place of each row's leaf in each tree, since the trees are not walked in
 * their order. */
static void walk_rows(const Plan *plan, const float *x, unsigned n, double *out, uint32_t *keys, uint32_t *reached) {
    for (unsigned r = 0; r < n; r++) fill_keys(plan, x + (size_t)r * plan->n_features, keys + (size_t)r * plan->n_keys);
    const WalkNode *walk = plan->walk;
    const uint32_t *order = plan->walk_order, *root = plan->walk_root;
    for (unsigned g = 0; g < plan->n_walk_groups; g++, order += WALK_WIDTH, root += WALK_WIDTH) {
        for (unsigned k = 0; k < WALK_WIDTH; k++)
            __builtin_prefetch(walk + root[WALK_WIDTH + k]); /* the next group's first lines */
        const uint32_t *key = keys;
        uint32_t *leaf = reached;
        for (unsigned r = 0; r < n; r++, key += plan->n_keys, leaf += plan->n_trees) {
            size_t at[WALK_WIDTH];
            for (unsigned k = 0; k < WALK_WIDTH; k++) at[k] = root[k];
            for (unsigned depth = plan->walk_depth[g]; depth > 0; depth--)
#pragma GCC unroll 32
                for (unsigned k = 0; k < WALK_WIDTH; k++) at[k] = step(walk, at[k], key);
            for (unsigned k = 0; k < WALK_WIDTH; k++) leaf[order[k]] = walk[at[k]].key;
        }
    }
    if (plan->single) sum_walked(plan, n, out, reached, 1);
    else sum_walked(plan, n, out, reached, 0);
}

/* One tree for the rows of a block. */
static void walk_tree(const Plan *plan, const Tree *tree, const uint32_t *keys, double *sum, unsigned n) {
    const WalkNode *walk = plan->walk;
    for (unsigned first = 0; first < n; first += WALK_WIDTH) {
        unsigned width = n - first < WALK_WIDTH ? n - first : WALK_WIDTH;
        size_t at[WALK_WIDTH];
        const uint32_t *key[WALK_WIDTH];
        for (unsigned k = 0; k < WALK_WIDTH; k++) {
            at[k] = tree->walk;
            key[k] = keys + (size_t)(first + (k < width ? k : 0)) * plan->n_keys;
        }
        for (unsigned depth = tree->depth; depth > 0; depth--)
#pragma GCC unroll 32
            for (unsigned k = 0; k < WALK_WIDTH; k++) at[k] = step(walk, at[k], key[k]);
        for (unsigned k = 0; k < width; k++)
            sum[sum_place(first + k)] = plus(sum[sum_place(first + k)], plan->leaf[walk[at[k]].key], plan->single);
    }
}

#endif
