// SPDX-License-Identifier: Apache-2.0
/* Sums and scalings of whole arrays and of slabs. */
#include "models/cpu/simd/math.h"
#include "models/cpu/simd/part.h"
#include "models/cpu/simd/parts.h"

void SH_SIMD(copy)(const void *x, void *y, size_t n_bytes, bool stream)
{
#ifdef __AVX512F__
    /* Half a register at a time: slabs of bf16 begin at multiples of 32 bytes. */
    for (size_t i = 0; stream && i < n_bytes; i += 32)
        _mm256_stream_si256((__m256i *)((char *)y + i),
                            _mm256_loadu_si256((const __m256i *)((const char *)x + i)));
    if (stream) return;
#else
    (void)stream;
#endif
    memcpy(y, x, n_bytes);
}

SH_INLINE void scale_add(float alpha, const void *x, const void *a, void *y, int64_t n,
                         const bool stream, const sh_dtype dtype)
{
    vf scale = vec_set(alpha);
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        vf v = vec_load(x, i, dtype) * scale;
        if (a) v += vec_load(a, i, dtype);
        if (stream)
            vec_stream(y, i, v, dtype);
        else
            vec_store(y, i, v, dtype);
    }
    if (i == n) return;
    vf v = vec_load_part(x, i, n - i, dtype) * scale;
    if (a) v += vec_load_part(a, i, n - i, dtype);
    vec_store_part(y, i, n - i, v, dtype);
}

void SH_SIMD(scale_add)(float alpha, const void *x, const void *a, void *y, int64_t n,
                        sh_dtype dtype, bool stream)
{
    if (dtype == SH_BF16 && stream)
        scale_add(alpha, x, a, y, n, true, SH_BF16);
    else if (dtype == SH_BF16)
        scale_add(alpha, x, a, y, n, false, SH_BF16);
    else if (stream)
        scale_add(alpha, x, a, y, n, true, SH_F32);
    else
        scale_add(alpha, x, a, y, n, false, SH_F32);
}

SH_INLINE void scale_slab(const void *x, const float *scale, void *y, int64_t pixels,
                          const bool stream, const sh_dtype dtype)
{
    vf s = vec_load(scale, 0, SH_F32);

    for (int64_t i = 0; i < pixels * LANES; i += LANES) {
        vf v = vec_load(x, i, dtype) * s;
        if (stream)
            vec_stream(y, i, v, dtype);
        else
            vec_store(y, i, v, dtype);
    }
}

void SH_SIMD(scale_slab)(const void *x, const float *scale, void *y, int64_t pixels, sh_dtype dtype,
                         bool stream)
{
    if (dtype == SH_BF16 && stream)
        scale_slab(x, scale, y, pixels, true, SH_BF16);
    else if (dtype == SH_BF16)
        scale_slab(x, scale, y, pixels, false, SH_BF16);
    else if (stream)
        scale_slab(x, scale, y, pixels, true, SH_F32);
    else
        scale_slab(x, scale, y, pixels, false, SH_F32);
}

enum { STRANDS = 4 };

SH_INLINE void scale_pixel_grad(const void *dy, const void *x, vf scale, void *dx, int64_t p,
                                vf *sum, const bool stream, const sh_dtype dtype)
{
    vf d = vec_load(dy, p * LANES, dtype);

    *sum += d * vec_load(x, p * LANES, dtype);
    if (stream)
        vec_stream(dx, p * LANES, d * scale, dtype);
    else
        vec_store(dx, p * LANES, d * scale, dtype);
}

SH_INLINE void scale_slab_grad(const void *dy, const void *x, const float *scale, void *dx,
                               int64_t pixels, float *sum, const bool stream, const sh_dtype dtype)
{
    vf s = vec_load(scale, 0, SH_F32), strand[STRANDS] = {{0}};
    int64_t p = 0;

    for (; p + STRANDS <= pixels; p += STRANDS) {
        SH_UNROLL
        for (int i = 0; i < STRANDS; i++)
            scale_pixel_grad(dy, x, s, dx, p + i, &strand[i], stream, dtype);
    }
    for (; p < pixels; p++) scale_pixel_grad(dy, x, s, dx, p, &strand[0], stream, dtype);
    vec_store(sum, 0, (strand[0] + strand[1]) + (strand[2] + strand[3]), SH_F32);
}

void SH_SIMD(scale_slab_grad)(const void *dy, const void *x, const float *scale, void *dx,
                              int64_t pixels, sh_dtype dtype, bool stream, float *sum)
{
    if (dtype == SH_BF16 && stream)
        scale_slab_grad(dy, x, scale, dx, pixels, sum, true, SH_BF16);
    else if (dtype == SH_BF16)
        scale_slab_grad(dy, x, scale, dx, pixels, sum, false, SH_BF16);
    else if (stream)
        scale_slab_grad(dy, x, scale, dx, pixels, sum, true, SH_F32);
    else
        scale_slab_grad(dy, x, scale, dx, pixels, sum, false, SH_F32);
}

/* ---- tokens ---- */

void SH_SIMD(tokens)(const void *x, const float *cls, const float *pos, int64_t pos_stride,
                     int64_t pixels, int n_channels, void *y, sh_dtype dtype)
{
    for (int64_t t = 0; t <= pixels; t++, pos += pos_stride) {
        vf v = t == 0 ? vec_load_part(cls, 0, n_channels, SH_F32)
                      : vec_load(x, (t - 1) * LANES, dtype);
        vec_store(y, t * LANES, v + vec_load_part(pos, 0, n_channels, SH_F32), dtype);
    }
}

void SH_SIMD(sum_images)(const void *x, int64_t n_images, int64_t image_stride, int64_t pixels,
                         sh_dtype dtype, int n_channels, float *sums, int64_t sums_stride)
{
    for (int64_t p = 0; p < pixels; p++) {
        vf s = {0};
        for (int64_t n = 0; n < n_images; n++)
            s += vec_load(x, n * image_stride + p * LANES, dtype);
        vec_store_part(sums, p * sums_stride, n_channels, s, SH_F32);
    }
}

/* ---- generalised mean ---- */

void SH_SIMD(gem_sums)(const void *x, int64_t pixels, sh_dtype dtype, float p, float eps,
                       float *powers, float *logs)
{
    vf sum = {0}, weighted = {0};

    for (int64_t i = 0; i < pixels; i++) {
        vf ln = vec_log(vec_max(vec_load(x, i * LANES, dtype), vec_set(eps)));
        vf power = vec_exp(vec_max(vec_set(-87), vec_min(vec_set(87), vec_set(p) * ln)));
        sum += power;
        weighted += power * ln;
    }
    vec_store(powers, 0, sum, SH_F32);
    vec_store(logs, 0, weighted, SH_F32);
}

void SH_SIMD(gem_grad)(const void *x, int64_t pixels, sh_dtype dtype, float p, float eps,
                       const float *factor, void *dx)
{
    vf f = vec_load(factor, 0, SH_F32), lowest = vec_set(eps);

    for (int64_t i = 0; i < pixels; i++) {
        vf v = vec_load(x, i * LANES, dtype);
        vf slope = f * vec_pow(vec_max(v, lowest), vec_set(p - 1));
        vec_store(dx, i * LANES, vec_keep(v >= lowest, slope), dtype);
    }
}
