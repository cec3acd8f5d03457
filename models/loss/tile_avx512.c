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

#include "models/loss/tile_body.h"

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
