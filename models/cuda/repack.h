// SPDX-License-Identifier: Apache-2.0
/** What is done around a convolution of cuDNN. Pointers are the device's; nothing waits. */
#ifndef SH_MODELS_CUDA_REPACK_H
#define SH_MODELS_CUDA_REPACK_H

#include "models/backend.h"

SH_C_BEGIN

/** Weights w[O][C][taps] in f32, and packed[O][taps][stored] of `dtype`, stored >= C. */
typedef struct sh_packed_weights {
    sh_dtype dtype;
    int64_t O, C, taps, stored;
} sh_packed_weights;

/** packed = w; zero behind C. */
void sh_cuda_pack_weights(const sh_packed_weights *as, void *packed, const float *w);

/** dw = packed, without what is behind C. */
void sh_cuda_unpack_weights(const sh_packed_weights *as, float *dw, const void *packed);

/** y = act(y + bias + residual) of rows of channels; bias [channels] f32 and the residual, shaped
 * as y, may be NULL. */
void sh_cuda_finish_conv(sh_dtype dtype, void *y, const float *bias, const void *residual,
                         int64_t rows, int64_t channels, sh_act act);

/** sums[channels] of x[rows][channels], in f32. */
void sh_cuda_sum_columns(sh_dtype dtype, const void *x, int64_t rows, int64_t channels,
                         void *scratch, float *sums);
size_t sh_cuda_sum_columns_bytes(int64_t rows, int64_t channels);

/** Numbers between -1 and 1 that depend on seed and place. */
void sh_cuda_fill(sh_dtype dtype, void *x, int64_t n, uint32_t seed);

SH_C_END

#endif
