/* The scratch memory of one call: laid out here, for its allocation (plan.c) and its use (score.c). The caller owns it;
 * one call uses it at a time. */
#ifndef SAKER_SCRATCH_H
#define SAKER_SCRATCH_H

#include "plan.h"

enum { TILE = 16 }; /* columns that are transposed together */

typedef struct {
    uint8_t *planes, *slots, *numbers; /* of a block */
    double *sums;
    float *tile;
    uint32_t *keys, *reached;           /* of rows that are walked */
    uint8_t *lane_ranks, *lane_numbers; /* of rows that go tree by tree in lanes */
} Scratch;

/* Points each area into `memory`, which is 64-byte aligned or NULL for the size alone; returns the bytes of all. */
static inline size_t lay_out_scratch(const Plan *plan, unsigned char *memory, Scratch *scratch) {
    size_t at = 0;
#define AREA(NAME, COUNT)                             \
    scratch->NAME = (void *)((uintptr_t)memory + at); \
    at += ((size_t)(COUNT) * sizeof *scratch->NAME + 63) & ~(size_t)63
    AREA(planes, (size_t)plan->n_planes * MAX_ROWS);
    AREA(slots, (size_t)plan->max_slots * MAX_ROWS);
    AREA(numbers, (size_t)plan->max_group_trees * MAX_ROWS);
    AREA(sums, (size_t)plan->n_targets * MAX_ROWS);
    AREA(tile, TILE * MAX_ROWS);
    AREA(keys, (size_t)plan->n_keys * (plan->any_walked ? MAX_ROWS : WALK_ROWS));
    AREA(reached, (size_t)plan->n_trees * WALK_ROWS);
    AREA(lane_ranks, LANE_ROWS * LANE_PLANES);
    AREA(lane_numbers, IN_HAND * LANES * (size_t)plan->n_chunks);
#undef AREA
    return at;
}

#endif
