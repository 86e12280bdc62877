/* Rows to planes: a block of rows turned to columns, ranked or looked up, a byte for each row. */
#ifndef SAKER_PLANES_H
#define SAKER_PLANES_H

#include "bin_search.h"

enum {
#if defined(__AVX2__) && !HAS_AVX512
    FILL = 32, /* rows that are ranked at once */
#else
    FILL = 16,
#endif
};

/* Columns first..first+15 of the `n` rows of a block: tile[c][r], a column is `rows` long; columns past the last
 * feature and rows from n to `filled` are 0. */
#if HAS_AVX512
INLINE void transpose16(__m512 *r) {
    __m512 t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

static void read_tile(const float *x, size_t n_features, unsigned n, unsigned rows, unsigned filled, unsigned first,
                      float *tile) {
    unsigned width = n_features - first < TILE ? (unsigned)(n_features - first) : TILE;
    __mmask16 present = (__mmask16)((1u << width) - 1);
    for (unsigned r = 0; r < filled; r += 16) {
        __m512 v[16];
#pragma GCC unroll 16
        for (unsigned i = 0; i < 16; i++)
            v[i] = r + i < n ? _mm512_maskz_loadu_ps(present, x + (r + i) * n_features + first) : _mm512_setzero_ps();
        transpose16(v);
#pragma GCC unroll 16
        for (unsigned i = 0; i < 16; i++) _mm512_store_ps(tile + i * rows + r, v[i]);
    }
}
#else
static void read_tile(const float *x, size_t n_features, unsigned n, unsigned rows, unsigned filled, unsigned first,
                      float *tile) {
    unsigned width = n_features - first < TILE ? (unsigned)(n_features - first) : TILE;
    for (unsigned c = 0; c < width; c++) {
        for (unsigned r = 0; r < n; r++) tile[c * rows + r] = x[r * n_features + first + c];
        for (unsigned r = n; r < filled; r++) tile[c * rows + r] = 0;
    }
}
#endif

/* The row of Plan.set_bits for value x: 0 in no set, 1 NaN, 2.. the values. */
INLINE uint32_t set_row(const Plan *plan, const Sets *sets, float x) {
    if (x != x) return 1;
    if (sets->direct >= 0) {
        if (!(x >= 0 && x < (float)sets->direct_size)) return 0;
        uint32_t i = (uint32_t)x;
        return (float)i == x ? plan->set_direct[(uint32_t)sets->direct + i] : 0;
    }
    const float *values = plan->set_values + sets->first_value;
    uint32_t low = 0, high = sets->n_values;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (values[middle] < x) low = middle + 1;
        else high = middle;
    }
    return low < sets->n_values && values[low] == x ? low + 2 : 0;
}

/* 16 rows of 16 bytes to 16 columns: four rounds of dealing the first half and the second half together. */
typedef uint8_t Sixteen __attribute__((vector_size(16)));

INLINE void transpose16_bytes(Sixteen *v) {
    for (int round = 0; round < 4; round++) {
        Sixteen t[16];
        for (int i = 0; i < 8; i++) {
            t[2 * i] = __builtin_shufflevector(v[i], v[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            t[2 * i + 1] =
                __builtin_shufflevector(v[i], v[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        for (int i = 0; i < 16; i++) v[i] = t[i];
    }
}

/* The planes of one feature's sets: each row's bits, turned from row-wise to plane-wise. A row of bits is read 16 bytes
 * at a time, past its end (SET_PADDING). */
static void fill_set_planes(const Plan *plan, const Sets *sets, const float *x, unsigned n, unsigned rows,
                            uint8_t *planes) {
    for (unsigned r = 0; r < n; r += 16) {
        const uint8_t *bits[16];
        for (unsigned i = 0; i < 16; i++) {
            uint32_t row = r + i < n ? set_row(plan, sets, x[(r + i) * (size_t)plan->n_features + sets->feature]) : 0;
            bits[i] = plan->set_bits + sets->first_bits + (size_t)row * sets->n_bytes;
        }
        for (unsigned j = 0; j < sets->n_bytes; j += 16) {
            Sixteen v[16];
            for (unsigned i = 0; i < 16; i++) memcpy(v + i, bits[i] + j, 16);
            transpose16_bytes(v);
            unsigned width = sets->n_bytes - j < 16 ? sets->n_bytes - j : 16;
            for (unsigned i = 0; i < width; i++) memcpy(planes + (size_t)(sets->plane + j + i) * rows + r, v + i, 16);
        }
    }
}

/* Planes are filled as far as there are rows. What lies past them is left over from another block and gives sums that
 * nothing reads: any bytes are ranks of some row, so they lead to some leaf. */
static void fill_planes(const Plan *plan, const float *x, unsigned n, unsigned rows, uint8_t *planes, float *tile) {
    unsigned filled = (n + FILL - 1) / FILL * FILL, at = 0;
    while (at < plan->n_rankers) {
        unsigned first = plan->rankers[at].feature;
        read_tile(x, plan->n_features, n, rows, filled, first, tile);
        for (; at < plan->n_rankers && plan->rankers[at].feature < first + TILE; at++) {
            const Ranker *ranker = plan->rankers + at;
            rank_column(plan, ranker, tile + (ranker->feature - first) * rows, filled,
                        ranker->nan_true_plane < 0 ? NULL : planes + (size_t)ranker->nan_true_plane * rows,
                        ranker->nan_false_plane < 0 ? NULL : planes + (size_t)ranker->nan_false_plane * rows);
        }
    }
    for (unsigned i = 0; i < plan->n_sets; i++) fill_set_planes(plan, plan->sets + i, x, n, rows, planes);
}

#endif
