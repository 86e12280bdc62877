/* A few rows, one by one, through the treelets of 64 trees at once: a tree in each byte of a vector. A row's ranks are
 * a table in registers, in which each tree looks up the planes of its tests. */
#ifndef SAKER_LANES_H
#define SAKER_LANES_H

#include "bins.h"

#if HAS_AVX512
/* How many of sixteen are less. */
INLINE unsigned count_below(const float *sixteen, __m512 value) {
    return (unsigned)__builtin_popcount(_mm512_cmp_ps_mask(_mm512_load_ps(sixteen), value, _CMP_LT_OQ));
}

/* The bytes of a row at all planes: of sixteen thresholds at a time the last one is compared, then those of the sixteen
 * in which the value lies. */
static void rank_row(const Plan *plan, const float *x, uint8_t *ranks) {
    for (unsigned i = 0; i < plan->n_rankers; i++) {
        const Ranker *ranker = plan->rankers + i;
        const float value = x[ranker->feature];
        const __m512 all = _mm512_set1_ps(value);
        const float *sorted = plan->sorted + ranker->sorted;
        unsigned rank = 0;
        if (ranker->levels > 4) rank = 16 * count_below(plan->sixteenths + 16 * i, all);
        rank += count_below(sorted + rank, all);
        const uint8_t byte = (uint8_t)(127 - rank);
        if (ranker->nan_true_plane >= 0) ranks[ranker->nan_true_plane] = byte;
        if (ranker->nan_false_plane >= 0) ranks[ranker->nan_false_plane] = value != value ? 0x80 : byte;
    }
    for (unsigned i = 0; i < plan->n_sets; i++) {
        const Sets *sets = plan->sets + i;
        const uint32_t row = set_row(plan, sets, x[sets->feature]);
        memcpy(ranks + sets->plane, plan->set_bits + sets->first_bits + (size_t)row * sets->n_bytes, sets->n_bytes);
    }
}

INLINE __m512i ranks_at_pair(const __m512i *tables, __m512i plane, __mmask64 bit7) {
    __m512i lower = _mm512_permutex2var_epi8(tables[0], plane, tables[1]);
    return _mm512_mask_blend_epi8(bit7, lower, _mm512_permutex2var_epi8(tables[2], plane, tables[3]));
}

/* Ranks at planes of up to nine bits, of which the upper two are bit7 and bit8: a permute looks up in a pair of tables.
 */
INLINE __m512i ranks_at(const __m512i *tables, unsigned n_tables, __m512i plane, __mmask64 bit7, __mmask64 bit8) {
    if (n_tables == 2) return _mm512_permutex2var_epi8(tables[0], plane, tables[1]);
    __m512i lower = ranks_at_pair(tables, plane, bit7);
    return n_tables == 4 ? lower : _mm512_mask_blend_epi8(bit8, lower, ranks_at_pair(tables + 4, plane, bit7));
}

/* offset[exit] of each byte, where exit is the number of the lowest bit of `exits` that is set: a choice of two, three
 * times. */
INLINE __m512i offsets_at(const LaneStep *step, __m512i exits) {
    __m512i exit = _mm512_popcnt_epi8(_mm512_andnot_si512(exits, _mm512_add_epi8(exits, _mm512_set1_epi8(-1))));
    __m512i chosen[MAX_EXITS];
    for (unsigned e = 0; e < MAX_EXITS; e++) chosen[e] = _mm512_load_si512(step->offset[e]);
    for (unsigned bit = 0, left = MAX_EXITS / 2; left > 0; bit++, left /= 2) {
        __mmask64 set = _mm512_test_epi8_mask(exit, _mm512_set1_epi8((char)(1 << bit)));
        for (unsigned i = 0; i < left; i++) chosen[i] = _mm512_mask_blend_epi8(set, chosen[2 * i], chosen[2 * i + 1]);
    }
    return chosen[0];
}

/* The leaf numbers of `rows` rows: ranks and numbers of a row lie LANE_PLANES and n_chunks * LANES bytes behind those
 * of the one before. */
INLINE void follow_lanes(const Plan *plan, const uint8_t *ranks, uint8_t *numbers, unsigned rows, unsigned n_tables) {
    __m512i tables[IN_HAND][LANE_PLANES / 64];
    for (unsigned r = 0; r < rows; r++)
        for (unsigned i = 0; i < n_tables; i++) tables[r][i] = _mm512_load_si512(ranks + r * LANE_PLANES + i * 64);
    const LaneStep *step = plan->lane_steps;
    for (unsigned c = 0; c < plan->n_chunks; c++) {
        __m512i number[IN_HAND];
        for (unsigned r = 0; r < rows; r++) number[r] = _mm512_setzero_si512();
        for (const LaneStep *end = step + plan->chunk_steps[c]; step < end; step++) {
            __m512i exits[IN_HAND];
            for (unsigned r = 0; r < rows; r++) exits[r] = _mm512_set1_epi8(-1);
            for (unsigned j = 0; j < step->n_tests; j++) {
                __m512i plane = _mm512_load_si512(step->plane[j]), code = _mm512_load_si512(step->code[j]);
                __m512i clear = _mm512_load_si512(step->clear[j]);
                __mmask64 bit7 = _mm512_movepi8_mask(plane), bit8 = step->plane_bit8[j];
                __mmask64 of_set = step->of_set[j];
                for (unsigned r = 0; r < rows; r++) {
                    __m512i byte = ranks_at(tables[r], n_tables, plane, bit7, bit8);
                    __mmask64 out = _mm512_cmpgt_epi8_mask(code, byte);
                    if (of_set) out = (out & ~of_set) | _mm512_mask_testn_epi8_mask(of_set, byte, code);
                    exits[r] = _mm512_andnot_si512(_mm512_maskz_mov_epi8(out, clear), exits[r]);
                }
            }
            __m512i entry = _mm512_load_si512(step->entry);
            for (unsigned r = 0; r < rows; r++) {
                __mmask64 here = _mm512_cmpeq_epi8_mask(number[r], entry);
                number[r] = _mm512_mask_add_epi8(number[r], here, number[r], offsets_at(step, exits[r]));
            }
        }
        for (unsigned r = 0; r < rows; r++)
            _mm512_store_si512(numbers + ((size_t)r * plan->n_chunks + c) * LANES, number[r]);
    }
}

/* A function each, so that tables are registers and loops over rows unrolled. */
#define FOLLOW_LANES(ROWS, TABLES)                                                                               \
    static __attribute__((noinline)) void follow_lanes_##ROWS##_##TABLES(const Plan *plan, const uint8_t *ranks, \
                                                                         uint8_t *numbers) {                     \
        follow_lanes(plan, ranks, numbers, ROWS, TABLES);                                                        \
    }
FOLLOW_LANES(1, 2)
FOLLOW_LANES(1, 4)
FOLLOW_LANES(1, 8)
FOLLOW_LANES(4, 2)
FOLLOW_LANES(4, 4)
FOLLOW_LANES(2, 8)

typedef struct {
    void (*one)(const Plan *, const uint8_t *, uint8_t *), (*some)(const Plan *, const uint8_t *, uint8_t *);
    unsigned rows; /* of `some` */
} Follow;

static Follow follow_of(const Plan *plan) {
    if (plan->n_planes <= 128) return (Follow){follow_lanes_1_2, follow_lanes_4_2, 4};
    if (plan->n_planes <= 256) return (Follow){follow_lanes_1_4, follow_lanes_4_4, 4};
    return (Follow){follow_lanes_1_8, follow_lanes_2_8, 2};
}

/* `rows` sums at once, of which n are wanted: an addition waits for the previous one, not for its neighbours. */
INLINE void sum_lanes(const Plan *plan, const uint8_t *numbers, unsigned rows, unsigned n, double *out, int single) {
    const size_t stride = (size_t)plan->n_chunks * LANES;
    if (plan->n_targets == 1) {
        double sum[IN_HAND] = {0};
        for (unsigned t = 0; t < plan->n_trees; t++) {
            const double *leaf = plan->leaf + plan->trees[t].leaf;
            for (unsigned r = 0; r < rows; r++) sum[r] = plus(sum[r], leaf[numbers[r * stride + t]], single);
        }
        memcpy(out, sum, n * sizeof *sum);
    } else {
        memset(out, 0, (size_t)n * plan->n_targets * sizeof *out);
        for (unsigned r = 0; r < n; r++, numbers += stride)
            for (unsigned t = 0; t < plan->n_trees; t++) {
                double *sum = out + r * plan->n_targets + plan->trees[t].target;
                *sum = plus(*sum, plan->leaf[plan->trees[t].leaf + numbers[t]], single);
            }
    }
}

/* The same of LANE_ROWS rows, by planes as blocks have them: as quick for all as rank_row is for some four. */
static void rank_rows(const Plan *plan, const float *x, unsigned n, const Scratch *scratch) {
    fill_planes(plan, x, n, LANE_ROWS, scratch->planes, scratch->tile);
    for (unsigned p = 0; p < plan->n_planes; p += 16) {
        Sixteen v[16];
        memcpy(v, scratch->planes + (size_t)p * LANE_ROWS, sizeof v);
        transpose16_bytes(v);
        for (unsigned r = 0; r < n; r++) memcpy(scratch->lane_ranks + r * LANE_PLANES + p, v + r, 16);
    }
}

/* At most LANE_ROWS rows. */
static void score_lanes(const Plan *plan, const float *x, unsigned n, double *out, const Scratch *scratch) {
    if (n < IN_HAND)
        for (unsigned r = 0; r < n; r++)
            rank_row(plan, x + (size_t)r * plan->n_features, scratch->lane_ranks + r * LANE_PLANES);
    else rank_rows(plan, x, n, scratch);
    const Follow follow = follow_of(plan);
    for (unsigned r = 0; r < n; r += follow.rows) {
        const unsigned rows = n - r < follow.rows ? n - r : follow.rows;
        const uint8_t *ranks = scratch->lane_ranks + r * LANE_PLANES;
        double *sums = out + (size_t)r * plan->n_targets;
        if (rows == 1) {
            follow.one(plan, ranks, scratch->lane_numbers);
            if (plan->single) sum_lanes(plan, scratch->lane_numbers, 1, 1, sums, 1);
            else sum_lanes(plan, scratch->lane_numbers, 1, 1, sums, 0);
        } else { /* what is past the last row leads to some leaf, whose value is not read */
            follow.some(plan, ranks, scratch->lane_numbers);
            if (plan->single) sum_lanes(plan, scratch->lane_numbers, follow.rows, rows, sums, 1);
            else sum_lanes(plan, scratch->lane_numbers, follow.rows, rows, sums, 0);
        }
    }
    for (size_t i = 0; i < (size_t)n * plan->n_targets; i++) out[i] = averaged(plan, out[i]);
}
#endif

#endif
