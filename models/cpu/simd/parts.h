// SPDX-License-Identifier: Apache-2.0
/* What the files of this folder share, and the prototypes that simd/table.c collects. */
#ifndef SH_MODELS_CPU_SIMD_PARTS_H
#define SH_MODELS_CPU_SIMD_PARTS_H

#include "models/cpu/simd/maps.h"
#include "models/cpu/simd/simd.h"
#include "models/cpu/simd/vec.h"

/** Add the sums of `pixels` values, taken around m->shift. */
SH_INLINE void moments_add(sh_cpu_moments *m, vf sum, vf square, int64_t pixels)
{
    vec_store(m->sum, 0, vec_load(m->sum, 0, SH_F32) + sum, SH_F32);
    vec_store(m->square, 0, vec_load(m->square, 0, SH_F32) + square, SH_F32);
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
    X(se_squeeze) X(se_excite) X(se_factor_grad) X(se_grad)
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
