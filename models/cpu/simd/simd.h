// SPDX-License-Identifier: Apache-2.0
/**
 * The serial inner kernels of the CPU backend, one table of them per instruction set. Files of
 * models/cpu divide an op into pieces, deal these to threads and combine what they return.
 *
 * A *slab* is one image's block of 16 channels in SH_NCHW16C: [pixels][16]. Vectors of 16 floats
 * belong to the block's channels; those of padding channels are zero, which keeps padding zero.
 * In a *tile*, several blocks follow one another: [blocks][pixels][16], f32, or bf16 where said.
 */
#ifndef SH_MODELS_CPU_SIMD_SIMD_H
#define SH_MODELS_CPU_SIMD_SIMD_H

#include <stdbool.h>

#include "base/tensor.h"
#include "models/cpu/simd/maps.h"
#include "models/ops.h"

/** Per channel: act(x * scale + shift), act being a clamp to [lo, hi] (infinite: no bound), or a
 *  curve. */
typedef struct sh_cpu_affine {
    const float *scale, *shift; /* [16 * blocks]; scale NULL: x as it is */
    float lo, hi;
    sh_act curve; /* instead of the clamp: SH_ACT_SILU, in batch norms alone also HARD_SWISH;
                     SH_ACT_NONE: none */
} sh_cpu_affine;

/** Running sums of one channel block around a shift that keeps squares from cancelling. */
typedef struct sh_cpu_moments {
    float shift[16], sum[16], square[16];
    int64_t count; /* 0: shift is still to be taken from the first pixel */
} sh_cpu_moments;

/** Sums that batch norm's gradient needs, for one channel block. */
typedef struct sh_cpu_grad_sums {
    float g[16];  /* sum of g */
    float gx[16]; /* sum of g (x - mean) */
} sh_cpu_grad_sums;

/** dx = a g + b x + c per channel: batch norm's gradient once its sums are known. */
typedef struct sh_cpu_bn_grad {
    const float *a, *b, *c; /* [16 * blocks] */
} sh_cpu_bn_grad;

/** What the next tile will read, fetched into the second-level cache while this one multiplies: a
 *  list of pieces, walked a few cache lines at a time. */
typedef struct sh_cpu_ahead {
    struct {
        const char *at;
        int64_t n_bytes;
    } * pieces;
    int64_t n_pieces, piece, offset; /* where the walk stands */
    int64_t lines;                   /* at a time */
} sh_cpu_ahead;

/** What a convolution's sum becomes when it is stored: act(c + bias + residual), act as in
 *  sh_cpu_affine. */
typedef struct sh_cpu_finish {
    const float *bias;    /* vectors of the first block, or NULL */
    const void *residual; /* where y's first pixel is, of y's dtype and strides; or NULL */
    float lo, hi;
    bool silu;
} sh_cpu_finish;

/** Where a product goes when it need not pass through scratch: to slabs, from registers, with the
 *  moments of what is stored, or as a gradient masked by norm's activation at x and summed. */
typedef struct sh_cpu_direct {
    void *y;        /* first pixel of the tile in the panel's first block; NULL: to scratch */
    int64_t stride; /* elements from block to block, of y and of x */
    bool stream;
    sh_cpu_finish finish;    /* without sums */
    sh_cpu_moments *moments; /* of the panel's blocks, or NULL; of c + bias alone */
    sh_cpu_grad_sums *sums;  /* the same; NULL: no mask either */
    const void *x;
    sh_cpu_affine norm; /* vectors of the panel's first block, as is mean */
    const float *mean;
} sh_cpu_direct;

/** A depthwise convolution of one slab. */
typedef struct sh_cpu_dw {
    sh_dtype dtype;
    int64_t h, w, oh, ow;
    int kh, kw, stride[2], dilation[2], pad[2]; /* top and left */
    bool stream;                                /* write results past the caches */
    sh_cpu_affine norm;   /* applied to x on load; vectors of this slab's block */
    sh_cpu_finish finish; /* of y, forward; without residual */
} sh_cpu_dw;

/** A map cut into tiles for Winograd's F(2x2, 3x3): tile t reads the 4x4 pixels from row
 *  2 (t / tiles_x) - pad[0] and column 2 (t % tiles_x) - pad[1] on, and gives 2x2 results. */
typedef struct sh_cpu_winograd {
    int64_t h, w, oh, ow, tiles_x;
    int pad[2];  /* top and left */
    bool stream; /* write results past the caches */
} sh_cpu_winograd;

typedef struct sh_cpu_simd {
    const char *name;
    const sh_cpu_maps *maps;
    bool dot_bf16; /* tiles of bf16 products may be bf16; else they are always f32 */

    /** n rounds of multiply-adds in registers, for measuring peak; returns their operations, a
     *  multiply-add counting as two. */
    double (*burn)(int64_t n, sh_dtype dtype);
    /** c = a + 3 b past the caches, for measuring bandwidth; n a multiple of 16. */
    void (*triad)(const float *a, const float *b, float *c, int64_t n);

    /* ---- maps over n elements at any alignment ---- */
    void (*cast)(const void *x, sh_dtype from, void *y, sh_dtype to, int64_t n);
    void (*add)(const void *a, const void *b, void *y, int64_t n, sh_dtype dtype);
    void (*act)(const void *x, void *y, int64_t n, sh_dtype dtype, int act);
    void (*act_grad)(const void *dy, const void *y, void *dx, int64_t n, sh_dtype dtype, int act);
    float (*dot)(const void *a, sh_dtype a_dtype, const float *b, int64_t n);
    /** y += alpha x */
    void (*axpy)(float alpha, const void *x, sh_dtype dtype, float *y, int64_t n);

    /* ---- slabs ---- */
    void (*moments)(const void *x, int64_t pixels, sh_dtype dtype, sh_cpu_moments *m);
    /** stream: results that do not replace an operand are written past the caches. */
    void (*bn_apply)(const void *x, const void *residual, void *y, int64_t pixels, sh_dtype dtype,
                     const sh_cpu_affine *norm, bool stream);
    /** g = dy where the activation (from y, or recomputed from x) passes it. */
    void (*bn_grad_reduce)(const void *dy, const void *x, const void *y, int64_t pixels,
                           sh_dtype dtype, const sh_cpu_affine *norm, const float *mean,
                           sh_cpu_grad_sums *sums);
    void (*bn_grad_apply)(const void *dy, const void *x, const void *y, void *dx, void *dresidual,
                          int64_t pixels, sh_dtype dtype, const sh_cpu_affine *norm,
                          const sh_cpu_bn_grad *grad, bool stream);
    void (*pool)(const void *x, int64_t pixels, sh_dtype dtype, float *sum);
    /** Squeeze and excitation of a = what norm makes of x; factors, sums and shares are [16].
     *  sum = sum of a */
    void (*se_squeeze)(const void *x, int64_t pixels, sh_dtype dtype, const sh_cpu_affine *norm,
                       float *sum);
    /** y = a factor */
    void (*se_excite)(const void *x, const float *factor, void *y, int64_t pixels, sh_dtype dtype,
                      const sh_cpu_affine *norm, bool stream);
    /** sum = sum of dy a */
    void (*se_factor_grad)(const void *dy, const void *x, int64_t pixels, sh_dtype dtype,
                           const sh_cpu_affine *norm, float *sum);
    /** g = (dy factor + share) times norm's slope at x, summed as it was stored. */
    void (*se_grad)(const void *dy, const void *x, const float *factor, const float *share, void *g,
                    int64_t pixels, sh_dtype dtype, const sh_cpu_affine *norm, const float *mean,
                    bool stream, sh_cpu_grad_sums *sums);
    void (*fill)(const float *value, void *y, int64_t pixels, sh_dtype dtype);

    /* ---- depthwise convolution; rows is scratch of dw_rows(dw) floats ---- */
    int64_t (*dw_rows)(const sh_cpu_dw *dw);
    /** weights [kh kw][16]. moments may be NULL; with them y is the plain sum. */
    void (*dw_forward)(const sh_cpu_dw *dw, const void *x, const float *weights, void *y,
                       sh_cpu_moments *moments, float *rows);
    /** Adds to dweights [kh kw][16] (NULL: not wanted); writes dx (NULL: not wanted). The gradient
     * of y is g, or where grad is given a g + b y + c. With sums, dx is masked by norm's activation
     *  and summed. mean belongs to norm. */
    void (*dw_backward)(const sh_cpu_dw *dw, const void *g, const void *y,
                        const sh_cpu_bn_grad *grad, const void *x, const float *weights,
                        float *dweights, void *dx, const float *mean, sh_cpu_grad_sums *sums,
                        float *rows);

    /* ---- pointwise convolution: products of tiles ---- */
    /** Slab pixels to a block of a tile: normalised, as f32, or bf16 where `to` says. */
    void (*tile_load)(const void *x, sh_dtype from, int64_t pixels, const sh_cpu_affine *norm,
                      void *tile, sh_dtype to);
    /** The same for a gradient: a g + b y + c. */
    void (*tile_load_grad)(const void *g, const void *y, sh_dtype from, int64_t pixels,
                           const sh_cpu_bn_grad *grad, void *tile, sh_dtype to);
    /** Pairs of pixels interleaved, [pixels / 2][16][2] bf16, an odd last one paired with 0. */
    void (*tile_pair)(const void *tile, int64_t pixels, void *pairs);
    /** Weights w[out][k], at strides, as the panel that starts at output block `first`. `packed`
     *  holds all panels: n_out times n_k elements, each rounded up to 16, padding zero. */
    void (*pack)(const float *w, int64_t n_out, int64_t n_k, int64_t out_stride, int64_t k_stride,
                 int64_t first, void *packed, sh_dtype dtype);
    /** Blocks of the panel that starts at block `first` of n_blocks. */
    int (*panel_blocks)(int64_t first, int64_t n_blocks);
    /** c [panel blocks][pixels][16] f32 = tile a (block stride a_stride, n_k channels) times one
     *  panel; or to `direct`, whose tensors are then of `dtype`, and c is scratch. */
    void (*tile_product)(const void *a, int64_t a_stride, int64_t n_k, const void *panel,
                         int n_blocks, int64_t pixels, float *c, const sh_cpu_direct *direct,
                         sh_dtype dtype, sh_cpu_ahead *ahead);
    /** dw [out blocks][16 in_blocks][16] += x^T dy over pixels (bf16: tiles of pairs). */
    void (*tile_outer)(const void *x, int64_t x_stride, int64_t in_blocks, const void *dy,
                       int64_t dy_stride, int64_t out_blocks, int64_t pixels, float *dw,
                       sh_dtype dtype, sh_cpu_ahead *ahead);
    /** How often a product, and an outer product, of this size fetch ahead. */
    int64_t (*product_tiles)(int64_t pixels, int64_t n_blocks);
    int64_t (*outer_tiles)(int64_t pixels, int64_t in_blocks, int64_t out_blocks, sh_dtype dtype);
    /* ---- 3x3 convolution by Winograd's F(2x2, 3x3): the products of tiles above, at each of 16
     * positions; `stride` is that of positions, in floats ---- */
    /** n tiles of a slab, from tile `first` on, to to[16][n][16]. */
    void (*winograd_load)(const sh_cpu_winograd *c, const float *x, int64_t first, int64_t n,
                          float *to, int64_t stride);
    /** The same for the gradient of a slab of results. */
    void (*winograd_load_grad)(const sh_cpu_winograd *c, const float *dy, int64_t first, int64_t n,
                               float *to, int64_t stride);
    /** The products from[16][n][16] of n tiles to a slab, finished (without residual). */
    void (*winograd_store)(const sh_cpu_winograd *c, const float *from, int64_t stride,
                           int64_t first, int64_t n, const sh_cpu_finish *finish, float *y);
    /** As `pack`, of weights w[out][k][3][3], for each position; turned: by half a turn. */
    void (*winograd_pack)(const float *w, int64_t n_out, int64_t n_k, int64_t out_stride,
                          int64_t k_stride, bool turned, int64_t first, float *packed,
                          int64_t stride);
    /** Summed products of x and dy, [16][16 outputs], to the gradient of nine taps, [9][16]. */
    void (*winograd_unpack)(const float *products, int64_t stride, float *taps);
    /** A block of c to a slab, finished; or with moments, which are of what was stored, c + bias.
     */
    void (*tile_store)(const float *c, int64_t pixels, const sh_cpu_finish *finish, void *y,
                       sh_dtype dtype, bool stream, sh_cpu_moments *moments);
    /** A block of a gradient to a slab: masked by norm's activation at x and summed. */
    void (*tile_store_grad)(const float *c, int64_t pixels, const void *x, void *dx, sh_dtype dtype,
                            bool stream, const sh_cpu_affine *norm, const float *mean,
                            sh_cpu_grad_sums *sums);
} sh_cpu_simd;

/** The fastest table that this processor runs; SHOAL_CPU_ISA names a slower one. Never NULL. */
const sh_cpu_simd *sh_cpu_simd_get(void);

#endif
