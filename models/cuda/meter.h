// SPDX-License-Identifier: Apache-2.0
/** Measuring a device (models/meter.h), and what of its memory this process holds. */
#ifndef SH_MODELS_CUDA_METER_H
#define SH_MODELS_CUDA_METER_H

#include "models/meter.h"

SH_C_BEGIN

extern const sh_meter sh_cuda_meter;

/** Note an allocation, known by its address, and its end; of what was not noted there is none. */
void sh_cuda_count_alloc(const void *memory, size_t n_bytes);
void sh_cuda_count_free(const void *memory);

/* Kernels (peaks.cu). Vectors of n floats, n a multiple of SH_STREAM_PIECE. */
enum { SH_STREAM_PIECE = 1 << 14, SH_STREAM_SHARE = SH_STREAM_PIECE / 8 };

/** Read a; sums [n / SH_STREAM_SHARE], each of so many floats. */
SH_MUST_CHECK sh_status sh_cuda_read_stream(const float *a, int64_t n, float *sums);

/** c = a + scale b. */
SH_MUST_CHECK sh_status sh_cuda_triad(float *c, const float *a, const float *b, float scale,
                                      int64_t n);

SH_C_END

#endif
