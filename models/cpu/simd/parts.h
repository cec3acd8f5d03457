// SPDX-License-Identifier: Apache-2.0
/* What the files of this folder share, and the prototypes that simd/table.c collects. */
#ifndef SH_MODELS_CPU_SIMD_PARTS_H
#define SH_MODELS_CPU_SIMD_PARTS_H

#include "models/cpu/simd/maps.h"
#include "models/cpu/simd/simd.h"
#include "models/cpu/simd/vec.h"

/* Sums run in strands that the compiler keeps in registers, whatever the number of pixels. Vector v
 * of a slab goes to strand v % STRANDS, a strand for part v % PARTS. */
enum { STRANDS = 4 };

/** Of n strands those of one part, added pairwise. */
SH_INLINE vf strands_sum(const vf *s, const int n, const int part)
{
    switch (n / PARTS) {
    case 1: return s[part];
    case 2: return s[part] + s[part + PARTS];
    default: return (s[0] + s[1]) + (s[2] + s[3]);
    }
}

/** The sums [16] of n strands. */
SH_INLINE void strands_store(float *sums, const vf *s, const int n)
{
    SH_UNROLL
    for (int k = 0; k < PARTS; k++) vec_store(sums, k * LANES, strands_sum(s, n, k), SH_F32);
}

/** Add n strands to sums [16]. */
SH_INLINE void strands_add(float *sums, const vf *s, const int n)
{
    SH_UNROLL
    for (int k = 0; k < PARTS; k++)
        vec_store(sums, k * LANES, vec_load(sums, k * LANES, SH_F32) + strands_sum(s, n, k),
                  SH_F32);
}

/** Add the sums of `pixels` values, taken around m->shift. */
SH_INLINE void moments_add(sh_cpu_moments *m, const vf *sum, const vf *square, const int n,
                           int64_t pixels)
{
    strands_add(m->sum, sum, n);
    strands_add(m->square, square, n);
    m->count += pixels;
}

/* One declaration per slot of sh_cpu_simd, of the slot's own type. */
/* clang-format off */
#define SH_SIMD_SLOTS(X) \
    X(burn) X(triad) X(cast) X(add) X(act) \
    X(act_grad) X(dot) X(axpy) X(moments) \
    X(bn_apply) X(bn_grad_reduce) X(bn_grad_apply) X(pool) \
    X(fill) X(dw_rows) X(dw_forward) X(dw_backward) \
    X(tile_load) X(tile_load_grad) X(tile_pair) X(pack) \
    X(panel_blocks) X(tile_product) X(tile_outer) X(product_tiles) \
    X(outer_tiles) X(tile_store) X(tile_store_grad) \
    X(se_squeeze) X(se_excite) X(se_factor_grad) X(se_grad) \
    X(winograd_load) X(winograd_load_grad) X(winograd_store) \
    X(winograd_pack) X(winograd_unpack)
/* clang-format on */
#define SH_SIMD_DECLARE(slot) extern __typeof__(*((sh_cpu_simd *)0)->slot) SH_SIMD(slot);
SH_SIMD_SLOTS(SH_SIMD_DECLARE)

/* The same for sh_cpu_maps. */
/* clang-format off */
#define SH_MAPS_SLOTS(X) \
    X(slab_to_rows) X(slab_from_rows) X(copy) X(scale_add) \
    X(dropout) X(scale_slab) X(scale_slab_grad) \
    X(pool_forward) X(pool_backward) X(gem_sums) \
    X(gem_grad) X(tokens) X(sum_images) X(layer_norm) \
    X(layer_norm_grad) X(softmax) X(softmax_grad) \
    X(scale_pixels) X(pixel_dots)
/* clang-format on */
#define SH_MAPS_DECLARE(slot) extern __typeof__(*((sh_cpu_maps *)0)->slot) SH_SIMD(slot);
SH_MAPS_SLOTS(SH_MAPS_DECLARE)

#endif
