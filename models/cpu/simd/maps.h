// SPDX-License-Identifier: Apache-2.0
/**
 * The inner kernels of ops that are neither convolutions nor batch norm, one table per instruction
 * set, reached through sh_cpu_simd.maps. Slabs and vectors as in models/cpu/simd/simd.h. `stream`
 * writes past the caches; the result is then 64-byte aligned.
 */
#ifndef SH_MODELS_CPU_SIMD_MAPS_H
#define SH_MODELS_CPU_SIMD_MAPS_H

#include <stdbool.h>

#include "base/rng.h"
#include "base/tensor.h"

/** A pool over windows of a slab. */
typedef struct sh_cpu_window {
    int64_t side[2], out[2]; /* height, width */
    int kernel[2], stride[2], pad[2];
    bool count_padding;
    bool stream;
    sh_dtype dtype;
} sh_cpu_window;

/** A layer norm of one image: n_blocks slabs. */
typedef struct sh_cpu_layer_norm {
    int64_t n_channels, n_blocks, pixels;
    float eps;
    sh_dtype dtype;
} sh_cpu_layer_norm;

typedef struct sh_cpu_maps {
    /* ---- layout ---- */
    /** A slab's first n_channels as rows of `pixels` elements, one after another. */
    void (*slab_to_rows)(const void *x, sh_dtype from, int64_t pixels, int n_channels, void *rows,
                         sh_dtype to);
    /** The other way; the remaining channels become zero. */
    void (*slab_from_rows)(const void *rows, sh_dtype from, int64_t pixels, int n_channels,
                           void *slab, sh_dtype to);

    /* ---- arrays ---- */
    /** n_bytes a multiple of 32. */
    void (*copy)(const void *x, void *y, size_t n_bytes, bool stream);
    /** y = alpha x + a, or alpha x where a is NULL. */
    void (*scale_add)(float alpha, const void *x, const void *a, void *y, int64_t n, sh_dtype dtype,
                      bool stream);
    /** n elements, every 16 of them one group (the last may be shorter): lane l of group g is
     *  divided by 1 - rate where draw first + g * group_step + l * lane_step of `key` is not below
     *  `rate`, else 0. */
    void (*dropout)(const void *x, void *y, int64_t n, sh_dtype dtype, sh_rng_key key,
                    uint64_t first, uint64_t group_step, uint64_t lane_step, float rate);

    /* ---- slabs ---- */
    /** y = x scale, scale [16]. */
    void (*scale_slab)(const void *x, const float *scale, void *y, int64_t pixels, sh_dtype dtype,
                       bool stream);
    /** dx = dy scale, and sum [16] = sum of dy x. */
    void (*scale_slab_grad)(const void *dy, const void *x, const float *scale, void *dx,
                            int64_t pixels, sh_dtype dtype, bool stream, float *sum);
    /** Windows: the largest or the mean. */
    void (*pool_forward)(const sh_cpu_window *win, bool is_max, const void *x, void *y);
    /** ring: scratch of kernel[0] * side[1] * 16 floats. x only for the largest. */
    void (*pool_backward)(const sh_cpu_window *win, bool is_max, const void *x, const void *dy,
                          void *dx, float *ring);
    /** Of c = max(x, eps): powers [16] = sum c^p, logs [16] = sum c^p ln c. */
    void (*gem_sums)(const void *x, int64_t pixels, sh_dtype dtype, float p, float eps,
                     float *powers, float *logs);
    /** dx = factor c^(p - 1) where x >= eps, else 0. */
    void (*gem_grad)(const void *x, int64_t pixels, sh_dtype dtype, float p, float eps,
                     const float *factor, void *dx);

    /* ---- tokens ---- */
    /** y [1 + pixels][16]: cls, then x, plus a row of pos each; pos_stride floats apart. Of cls and
     *  pos n_channels are read. */
    void (*tokens)(const void *x, const float *cls, const float *pos, int64_t pos_stride,
                   int64_t pixels, int n_channels, void *y, sh_dtype dtype);
    /** sums[p * sums_stride + c], c < n_channels: over images that are image_stride elements apart.
     */
    void (*sum_images)(const void *x, int64_t n_images, int64_t image_stride, int64_t pixels,
                       sh_dtype dtype, int n_channels, float *sums, int64_t sums_stride);

    /* ---- attention: scores are tiles [key blocks][queries][16] of n_keys ---- */
    /** p = exp(scale (s - largest of the query)), 0 beyond n_keys, f32 or bf16; it may be s. Per
     *  query: inverse = 1 / sum of p, lse = ln sum exp(scale s). */
    void (*softmax)(const float *s, int64_t queries, int64_t n_keys, float scale, void *p,
                    sh_dtype dtype, float *inverse, float *lse);
    /** p = exp(scale s - lse), ds = p (dp - dots) scale. */
    void (*softmax_grad)(const float *s, const float *dp, int64_t queries, int64_t n_keys,
                         float scale, const float *lse, const float *dots, void *p, void *ds,
                         sh_dtype dtype);
    /** y [pixels][16] = c times the pixel's factor. */
    void (*scale_pixels)(const float *c, const float *factor, void *y, int64_t pixels,
                         sh_dtype dtype);
    /** dots[pixel] = sum of a b over n_blocks slabs, block_stride elements apart. */
    void (*pixel_dots)(const void *a, const void *b, int64_t n_blocks, int64_t block_stride,
                       int64_t pixels, sh_dtype dtype, float *dots);

    /* ---- layer norm of one image; vectors [16 n_blocks], zero beyond n_channels ---- */
    /** Pixels [begin, end). */
    void (*layer_norm)(const sh_cpu_layer_norm *ln, const void *x, const float *gamma,
                       const float *beta, void *y, int64_t begin, int64_t end);
    /** All pixels; adds to dgamma and dbeta. */
    void (*layer_norm_grad)(const sh_cpu_layer_norm *ln, const void *dy, const void *x,
                            const float *gamma, void *dx, float *dgamma, float *dbeta);
} sh_cpu_maps;

#endif
