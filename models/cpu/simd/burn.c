// SPDX-License-Identifier: Apache-2.0
/* The fastest that this instruction set multiplies and adds: enough independent chains to fill the
 * pipelines, no memory. */
#include "models/cpu/simd/parts.h"

enum { CHAINS = PARTS == 1 ? 16 : 12 };

static volatile float sink;

double SH_SIMD(burn)(int64_t n, sh_dtype dtype)
{
    vf acc[CHAINS], a = vec_set(0.999f), b = vec_set(1e-3f), sum = {0};

    SH_UNROLL
    for (int i = 0; i < CHAINS; i++) acc[i] = vec_set((float)i);
#ifdef __AVX512BF16__
    if (dtype == SH_BF16) {
        __m512bh x = (__m512bh)(__m512)a, y = (__m512bh)(__m512)b;
        for (int64_t k = 0; k < n; k++) {
            SH_UNROLL
            for (int i = 0; i < CHAINS; i++) acc[i] = (vf)_mm512_dpbf16_ps((__m512)acc[i], x, y);
        }
        for (int i = 0; i < CHAINS; i++) sum += acc[i];
        sink = vec_sum(sum);
        return (double)n * CHAINS * 4 * LANES;
    }
#endif
    (void)dtype;
    for (int64_t k = 0; k < n; k++) {
        SH_UNROLL
        for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * a + b;
    }
    for (int i = 0; i < CHAINS; i++) sum += acc[i];
    sink = vec_sum(sum);
    return (double)n * CHAINS * 2 * LANES;
}

void SH_SIMD(triad)(const float *a, const float *b, float *c, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        vec_stream(c, i, vec_load(a, i, SH_F32) + vec_set(3) * vec_load(b, i, SH_F32), SH_F32);
}
