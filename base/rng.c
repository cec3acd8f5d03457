// SPDX-License-Identifier: Apache-2.0
#include "base/rng_core.h"

#include <math.h>

sh_rng_key sh_rng_make(uint64_t seed, sh_rng_stream stream, uint64_t step, uint64_t slot)
{
    return sh_rng_core_make(seed, stream, step, slot);
}

uint64_t sh_rng_bits(sh_rng_key key, uint64_t element)
{
    return sh_rng_core_bits(key, element);
}

float sh_rng_uniform(sh_rng_key key, uint64_t element)
{
    return sh_rng_core_uniform(key, element);
}

float sh_rng_range(sh_rng_key key, uint64_t element, float lo, float hi)
{
    return lo + (hi - lo) * sh_rng_uniform(key, element);
}

uint64_t sh_rng_below(sh_rng_key key, uint64_t element, uint64_t n)
{
    return sh_rng_core_below(key, element, n);
}

double sh_rng_normal(sh_rng_key key, uint64_t element)
{
    double u = ((double)(sh_rng_bits(key, 2 * element) >> 11) + 1.0) * 0x1p-53;
    double v = (double)(sh_rng_bits(key, 2 * element + 1) >> 11) * 0x1p-53;

    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}

void sh_rng_shuffle(sh_rng_key key, int64_t *indices, int64_t n)
{
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)sh_rng_below(key, (uint64_t)(n - 1 - i), (uint64_t)i + 1);
        int64_t t = indices[i];

        indices[i] = indices[j];
        indices[j] = t;
    }
}
