// SPDX-License-Identifier: Apache-2.0
/** The kernels of tile.h for 512-bit vectors: the two hot ones by hand, the rest from tile_body.h.
 */
#include "models/loss/tile.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "models/loss/internal.h"

#define TILE_NAME(name) avx512_##name
#define TILE_LABEL "avx512"
#define TILE_TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#define TILE_HAND_WRITTEN

enum { VECTORS = SH_TILE_COLS / SH_LANES };

TILE_TARGET static void avx512_distances(const sh_packed *p, int64_t row, int64_t panel, float *out,
                                         int64_t stride)
{
    const float *a = p->panels + row / SH_TILE_COLS * p->dim * SH_TILE_COLS + row % SH_TILE_COLS;
    const float *b = p->panels + panel * p->dim * SH_TILE_COLS;
    const float *norms = p->norms + panel * SH_TILE_COLS;
    __m512 acc[SH_TILE_ROWS][VECTORS];

    for (int r = 0; r < SH_TILE_ROWS; r++)
        for (int v = 0; v < VECTORS; v++) acc[r][v] = _mm512_setzero_ps();
    for (int64_t k = 0; k < p->dim; k++, a += SH_TILE_COLS, b += SH_TILE_COLS) {
        __m512 b0 = _mm512_load_ps(b), b1 = _mm512_load_ps(b + 16), b2 = _mm512_load_ps(b + 32);

        for (int r = 0; r < SH_TILE_ROWS; r++) {
            __m512 own = _mm512_set1_ps(a[r]);

            acc[r][0] = _mm512_fmadd_ps(own, b0, acc[r][0]);
            acc[r][1] = _mm512_fmadd_ps(own, b1, acc[r][1]);
            acc[r][2] = _mm512_fmadd_ps(own, b2, acc[r][2]);
        }
    }
    for (int r = 0; r < SH_TILE_ROWS; r++)
        for (int v = 0; v < VECTORS; v++) {
            __m512 sum = _mm512_add_ps(_mm512_set1_ps(p->norms[row + r]),
                                       _mm512_load_ps(norms + v * SH_LANES));
            __m512 d2 = _mm512_fmadd_ps(_mm512_set1_ps(-2), acc[r][v], sum);

            /* max returns its second operand where one is NaN: padding stays NaN. */
            d2 = _mm512_max_ps(_mm512_setzero_ps(), d2);
            _mm512_storeu_ps(out + r * stride + v * SH_LANES, d2);
        }
}

TILE_TARGET static void avx512_select(const float *d, int64_t n, int32_t first, const float *above,
                                      int64_t n_above, sh_lanes *nearest, sh_lanes *farthest)
{
    static const int32_t iota[SH_LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    __m512i start = _mm512_add_epi32(_mm512_loadu_si512(iota), _mm512_set1_epi32(first));
    __m512i step = _mm512_set1_epi32(SH_LANES);
    __m512 best = _mm512_loadu_ps(farthest->value);
    __m512i where = _mm512_loadu_si512(farthest->index), column = start;

    for (int64_t j = 0; j < n; j += SH_LANES, column = _mm512_add_epi32(column, step)) {
        __m512 x = _mm512_loadu_ps(d + j);
        __mmask16 better = _mm512_cmp_ps_mask(x, best, _CMP_GT_OQ);

        best = _mm512_mask_mov_ps(best, better, x);
        where = _mm512_mask_mov_epi32(where, better, column);
    }
    _mm512_storeu_ps(farthest->value, best);
    _mm512_storeu_si512(farthest->index, where);
    for (int64_t q = 0; q < n_above; q++) {
        __m512 floor = _mm512_set1_ps(above[q]);

        best = _mm512_loadu_ps(nearest[q].value);
        where = _mm512_loadu_si512(nearest[q].index);
        column = start;
        for (int64_t j = 0; j < n; j += SH_LANES, column = _mm512_add_epi32(column, step)) {
            __m512 x = _mm512_loadu_ps(d + j);
            __mmask16 better = _mm512_cmp_ps_mask(x, best, _CMP_LT_OQ);

            better = _mm512_mask_cmp_ps_mask(better, x, floor, _CMP_GT_OQ);
            best = _mm512_mask_mov_ps(best, better, x);
            where = _mm512_mask_mov_epi32(where, better, column);
        }
        _mm512_storeu_ps(nearest[q].value, best);
        _mm512_storeu_si512(nearest[q].index, where);
    }
}

static int64_t avx512_count(const float *d, int64_t n, float positive, const sh_gap_rule *rule);
static void avx512_gaps(const float *d, int64_t n, float positive, const sh_gap_rule *rule,
                        sh_gap_sum *sum);
static void avx512_weigh(const float *d, int64_t n, const float *positive, int step,
                         const sh_gap_rule *rule, float *weight);
static void avx512_pull(float *g, const float *x, int64_t dim, int64_t row, const int32_t *others,
                        const float *coefficients, int64_t n_terms);

#include "models/loss/tile_body.h"

TILE_TARGET static inline __mmask16 fitting(__m512 gap, const sh_gap_rule *rule)
{
    __mmask16 fits = _mm512_cmp_ps_mask(gap, _mm512_set1_ps(rule->above), _CMP_GT_OQ);

    return _mm512_mask_cmp_ps_mask(fits, gap, _mm512_set1_ps(rule->upto), _CMP_LE_OQ);
}

TILE_TARGET static int64_t avx512_count(const float *d, int64_t n, float positive,
                                        const sh_gap_rule *rule)
{
    __m512i total = _mm512_setzero_si512(), one = _mm512_set1_epi32(1);

    for (int64_t j = 0; j < n; j += SH_LANES) {
        __m512 gap = _mm512_sub_ps(_mm512_loadu_ps(d + j), _mm512_set1_ps(positive));

        total = _mm512_mask_add_epi32(total, fitting(gap, rule), total, one);
    }
    return _mm512_reduce_add_epi32(total);
}

TILE_TARGET static void avx512_gaps(const float *d, int64_t n, float positive,
                                    const sh_gap_rule *rule, sh_gap_sum *sum)
{
    __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
    __m512i n_triplets = _mm512_setzero_si512(), n_active = n_triplets;
    __m512i one = _mm512_set1_epi32(1);
    double loss[SH_LANES], weight[SH_LANES] = {0};

    if (rule->soft) {
        avx512_gaps_soft(d, n, positive, rule, sum);
        return;
    }
    for (int64_t j = 0; j < n; j += SH_LANES) {
        __m512 gap = _mm512_sub_ps(_mm512_loadu_ps(d + j), _mm512_set1_ps(positive));
        __m512 cost = _mm512_sub_ps(_mm512_set1_ps(rule->margin), gap);
        __mmask16 fits = fitting(gap, rule);
        __mmask16 active = _mm512_mask_cmp_ps_mask(fits, cost, _mm512_setzero_ps(), _CMP_GT_OQ);

        cost = _mm512_maskz_mov_ps(active, cost);
        low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(cost)));
        high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(cost, 1)));
        n_triplets = _mm512_mask_add_epi32(n_triplets, fits, n_triplets, one);
        n_active = _mm512_mask_add_epi32(n_active, active, n_active, one);
    }
    _mm512_storeu_pd(loss, low);
    _mm512_storeu_pd(loss + SH_LANES / 2, high);
    avx512_add_lanes(loss, weight, sum);
    sum->n_triplets = _mm512_reduce_add_epi32(n_triplets);
    sum->n_active = _mm512_reduce_add_epi32(n_active);
    sum->weight = sum->n_active;
}

TILE_TARGET static void avx512_weigh(const float *d, int64_t n, const float *positive, int step,
                                     const sh_gap_rule *rule, float *weight)
{
    __m512 one = _mm512_set1_ps(1), margin = _mm512_set1_ps(rule->margin);

    if (rule->soft) {
        avx512_weigh_soft(d, n, positive, step, rule, weight);
        return;
    }
    for (int64_t j = 0; j < n; j += SH_LANES) {
        __m512 own = step ? _mm512_loadu_ps(positive + j) : _mm512_set1_ps(positive[0]);
        __m512 gap = _mm512_sub_ps(_mm512_loadu_ps(d + j), own), sum = _mm512_loadu_ps(weight + j);
        __mmask16 active = fitting(gap, rule);

        active = _mm512_mask_cmp_ps_mask(active, _mm512_sub_ps(margin, gap), _mm512_setzero_ps(),
                                         _CMP_GT_OQ);
        _mm512_storeu_ps(weight + j, _mm512_mask_add_ps(sum, active, sum, one));
    }
}

/* Product and sum are rounded apart, as in the plain kernel. */
TILE_TARGET static void avx512_pull(float *g, const float *x, int64_t dim, int64_t row,
                                    const int32_t *others, const float *coefficients,
                                    int64_t n_terms)
{
    enum { DEPTH = 4 }; /* vectors that stay in registers over all terms */

    for (int64_t k = 0; k < dim; k += DEPTH * SH_LANES) {
        __m512 acc[DEPTH], own[DEPTH];
        __mmask16 mask[DEPTH];

        for (int v = 0; v < DEPTH; v++) {
            int64_t left = dim - k - v * SH_LANES;

            mask[v] = (__mmask16)(left >= SH_LANES ? 0xFFFF : left > 0 ? (1 << left) - 1 : 0);
            acc[v] = _mm512_maskz_loadu_ps(mask[v], g + k + v * SH_LANES);
            own[v] = _mm512_maskz_loadu_ps(mask[v], x + row * dim + k + v * SH_LANES);
        }
        for (int64_t t = 0; t < n_terms; t++) {
            const float *other = x + others[t] * dim + k;
            __m512 coefficient = _mm512_set1_ps(coefficients[t]);

            for (int v = 0; v < DEPTH; v++) {
                __m512 there = _mm512_maskz_loadu_ps(mask[v], other + v * SH_LANES);
                __m512 pulled = _mm512_mul_ps(coefficient, _mm512_sub_ps(own[v], there));

                acc[v] = _mm512_add_ps(acc[v], pulled);
            }
        }
        for (int v = 0; v < DEPTH; v++)
            _mm512_mask_storeu_ps(g + k + v * SH_LANES, mask[v], acc[v]);
    }
}

const sh_tile_kernels *sh_tile_kernels_avx512(void)
{
    bool all = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("fma");

    return all ? &avx512_kernels : NULL;
}
#else
const sh_tile_kernels *sh_tile_kernels_avx512(void)
{
    return NULL;
}
#endif
