// SPDX-License-Identifier: Apache-2.0
/* Sums and scalings of whole arrays and of slabs. */
#include "models/cpu/simd/math.h"
#include "models/cpu/simd/part.h"
#include "models/cpu/simd/parts.h"

void SH_SIMD(copy)(const void *x, void *y, size_t n_bytes, bool stream)
{
#if defined(__AVX512F__) || defined(SH_AVX2)
    /* No more at a time: slabs of bf16 begin at multiples of 32 bytes. */
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
        vec_put(v, i, y, stream, dtype);
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
    vf s[PARTS];

    vec_load_parts(scale, s);
    for (int64_t i = 0; i < pixels * BLOCK; i += BLOCK) {
        SH_UNROLL
        for (int k = 0; k < PARTS; k++)
            vec_put(vec_load(x, i + k * LANES, dtype) * s[k], i + k * LANES, y, stream, dtype);
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

/* n vectors from the pixel at element i on, each to its strand. */
SH_INLINE void scale_grad(const void *dy, const void *x, const vf *scale, void *dx, int64_t i,
                          const int n, vf *strands, const bool stream, const sh_dtype dtype)
{
    SH_UNROLL
    for (int k = 0; k < n; k++) {
        vf d = vec_load(dy, i + k * LANES, dtype);
        strands[k] += d * vec_load(x, i + k * LANES, dtype);
        vec_put(d * scale[k % PARTS], i + k * LANES, dx, stream, dtype);
    }
}

SH_INLINE void scale_slab_grad(const void *dy, const void *x, const float *scale, void *dx,
                               int64_t pixels, float *sum, const bool stream, const sh_dtype dtype)
{
    vf s[PARTS], strands[STRANDS] = {{0}};
    int64_t i = 0;

    vec_load_parts(scale, s);
    for (; i + STRANDS * LANES <= pixels * BLOCK; i += STRANDS * LANES)
        scale_grad(dy, x, s, dx, i, STRANDS, strands, stream, dtype);
    for (; i < pixels * BLOCK; i += BLOCK)
        scale_grad(dy, x, s, dx, i, PARTS, strands, stream, dtype);
    strands_store(sum, strands, STRANDS);
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

/* Of a block's first n channels those of the part that begins at channel `first`. */
SH_INLINE int channels_from(int n, int first)
{
    int left = n - first;

    return left < 0 ? 0 : left < LANES ? left : LANES;
}

void SH_SIMD(tokens)(const void *x, const float *cls, const float *pos, int64_t pos_stride,
                     int64_t pixels, int n_channels, void *y, sh_dtype dtype)
{
    for (int64_t t = 0; t <= pixels; t++, pos += pos_stride) {
        for (int k = 0; k < BLOCK; k += LANES) {
            int n = channels_from(n_channels, k);
            vf v =
                t == 0 ? vec_load_part(cls, k, n, SH_F32) : vec_load(x, (t - 1) * BLOCK + k, dtype);
            vec_store(y, t * BLOCK + k, v + vec_load_part(pos, k, n, SH_F32), dtype);
        }
    }
}

void SH_SIMD(sum_images)(const void *x, int64_t n_images, int64_t image_stride, int64_t pixels,
                         sh_dtype dtype, int n_channels, float *sums, int64_t sums_stride)
{
    for (int64_t p = 0; p < pixels; p++) {
        for (int k = 0; k < BLOCK; k += LANES) {
            vf s = {0};
            for (int64_t n = 0; n < n_images; n++)
                s += vec_load(x, n * image_stride + p * BLOCK + k, dtype);
            vec_store_part(sums, p * sums_stride + k, channels_from(n_channels, k), s, SH_F32);
        }
    }
}

/* ---- generalised mean ---- */

void SH_SIMD(gem_sums)(const void *x, int64_t pixels, sh_dtype dtype, float p, float eps,
                       float *powers, float *logs)
{
    for (int k = 0; k < BLOCK; k += LANES) {
        vf sum = {0}, weighted = {0};
        for (int64_t i = 0; i < pixels; i++) {
            vf ln = vec_log(vec_max(vec_load(x, i * BLOCK + k, dtype), vec_set(eps)));
            vf power = vec_exp(vec_max(vec_set(-87), vec_min(vec_set(87), vec_set(p) * ln)));
            sum += power;
            weighted += power * ln;
        }
        vec_store(powers, k, sum, SH_F32);
        vec_store(logs, k, weighted, SH_F32);
    }
}

void SH_SIMD(gem_grad)(const void *x, int64_t pixels, sh_dtype dtype, float p, float eps,
                       const float *factor, void *dx)
{
    vf f[PARTS], lowest = vec_set(eps);

    vec_load_parts(factor, f);
    for (int64_t i = 0; i < pixels * BLOCK; i += BLOCK) {
        SH_UNROLL
        for (int k = 0; k < PARTS; k++) {
            vf v = vec_load(x, i + k * LANES, dtype);
            vf slope = f[k] * vec_pow(vec_max(v, lowest), vec_set(p - 1));
            vec_store(dx, i + k * LANES, vec_keep(v >= lowest, slope), dtype);
        }
    }
}
