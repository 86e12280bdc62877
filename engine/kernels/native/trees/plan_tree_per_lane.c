/* The treelets once more, a tree in each byte of a vector: for a few rows, where a test of a whole block is mostly
 * unused. */
#include <math.h>

#include "builder.h"

/* Where the tests of each slot of a group lie. */
typedef struct {
    const Tests *tests;
    unsigned n, n_numeric;
} Slot;

static void find_slots(const Plan *plan, const Group *group, Slot *slots) {
    const Tests *tests = plan->tests + group->first_slot;
    for (uint32_t i = 0; i < group->n_runs; i++) {
        const Run *run = plan->runs + group->first_run + i;
        const unsigned n = (unsigned)run->n_numeric + run->n_set;
        for (uint32_t t = 0; t < run->n_treelets; t++, slots++, tests++) *slots = (Slot){tests, n, run->n_numeric};
    }
}

static void place_tree(const Plan *plan, const Tree *tree, const Slot *slots, LaneStep *steps, unsigned lane) {
    for (uint32_t s = 0; s < tree->n_steps; s++) {
        const Step *step = plan->steps + tree->first_step + s;
        Slot slot = slots[step->slot / EIGHTS];
        LaneStep *out = steps + s;
        out->entry[lane] = step->entry[0];
        for (int e = 0; e < MAX_EXITS; e++) out->offset[e][lane] = step->offset[e];
        for (unsigned j = 0; j < slot.n; j++) {
            out->plane[j][lane] = (uint8_t)(slot.tests->plane[j] / EIGHTS);
            out->plane_bit8[j] |= (uint64_t)(slot.tests->plane[j] / EIGHTS >> 8) << lane;
            out->of_set[j] |= (uint64_t)(j >= slot.n_numeric) << lane;
            out->code[j][lane] = slot.tests->code[j];
            out->clear[j][lane] = slot.tests->clear[j];
        }
        if (slot.n > out->n_tests) out->n_tests = slot.n;
    }
}

static int add_sixteenths(Builder *b) {
    Plan *plan = b->plan;
    if (!(plan->sixteenths = aligned_alloc(64, ((size_t)plan->n_rankers + 1) * 16 * sizeof(float))))
        return fail(b, OUT_OF_MEMORY);
    for (uint32_t i = 0; i < plan->n_rankers; i++) {
        const Ranker *ranker = plan->rankers + i;
        for (uint32_t k = 0; k < 16; k++)
            plan->sixteenths[16 * i + k] =
                16 * k + 15 < 1u << ranker->levels ? plan->sorted[ranker->sorted + 16 * k + 15] : INFINITY;
    }
    return 1;
}

int add_lanes(Builder *b) {
    Plan *plan = b->plan;
    if (plan->any_walked || plan->n_planes > LANE_PLANES) return 1;
    if (!add_sixteenths(b)) return 0;
    plan->n_chunks = (plan->n_trees + LANES - 1) / LANES;
    if (!(plan->chunk_steps = calloc(plan->n_chunks, sizeof *plan->chunk_steps))) return fail(b, OUT_OF_MEMORY);
    for (uint32_t t = 0; t < plan->n_trees; t++)
        if (plan->trees[t].n_steps > plan->chunk_steps[t / LANES])
            plan->chunk_steps[t / LANES] = plan->trees[t].n_steps;
    for (uint32_t c = 0; c < plan->n_chunks; c++) plan->n_lane_steps += plan->chunk_steps[c];
    size_t bytes = ((size_t)plan->n_lane_steps + 1) * sizeof(LaneStep);
    Slot *slots = malloc(((size_t)plan->max_slots + 1) * sizeof *slots);
    if (!slots || !(plan->lane_steps = aligned_alloc(64, bytes))) {
        free(slots);
        return fail(b, OUT_OF_MEMORY);
    }
    memset(plan->lane_steps, 0,
           bytes); /* a lane without a tree, or past its last treelet, clears nothing and moves by nothing */
    LaneStep *steps = plan->lane_steps;
    for (uint32_t g = 0; g < plan->n_groups; g++) {
        const Group *group = plan->groups + g;
        find_slots(plan, group, slots);
        for (uint32_t t = group->first_tree; t < group->first_tree + group->n_trees; t++) {
            place_tree(plan, plan->trees + t, slots, steps, t % LANES);
            if (t % LANES == LANES - 1) steps += plan->chunk_steps[t / LANES];
        }
    }
    free(slots);
    return 1;
}
