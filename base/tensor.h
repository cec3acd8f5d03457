// SPDX-License-Identifier: Apache-2.0
/**
 * What a tensor is: element type, layout, logical shape. No memory is owned here.
 *
 * The logical shape is always (N, C, H, W); a matrix is (N, C, 1, 1), a vector (C, 1, 1, 1).
 */
#ifndef SH_BASE_TENSOR_H
#define SH_BASE_TENSOR_H

#include <stdint.h>
#include <string.h>

#include "base/status.h"

SH_C_BEGIN

typedef enum sh_dtype { SH_F32, SH_BF16, SH_U8, SH_I32 } sh_dtype;

typedef enum sh_layout {
    SH_NCHW,    /* row-major; also every matrix and vector */
    SH_NHWC,    /* channels innermost */
    SH_NHWC8,   /* [N, H, W, C rounded up to 8]; the padding channels are always zero */
    SH_NCHW16C, /* [N, ceil(C/16), H, W, 16]; the padding channels are always zero */
} sh_layout;

typedef struct sh_tensor_desc {
    sh_dtype dtype;
    sh_layout layout;
    int64_t dims[4]; /* logical N, C, H, W */
} sh_tensor_desc;

/** Bytes of one element. */
static inline size_t sh_dtype_size(sh_dtype dtype)
{
    static const uint8_t size[] = {[SH_F32] = 4, [SH_BF16] = 2, [SH_U8] = 1, [SH_I32] = 4};

    return size[dtype];
}

/** "f32", "bf16", "u8", "i32". */
const char *sh_dtype_name(sh_dtype dtype);

/** "nchw", "nhwc", "nhwc8", "nchw16c". */
const char *sh_layout_name(sh_layout layout);

/** Channels as stored: C, rounded up to 16 in SH_NCHW16C, to 8 in SH_NHWC8. */
static inline int64_t sh_tensor_stored_channels(const sh_tensor_desc *d)
{
    const int64_t block = d->layout == SH_NCHW16C ? 16 : d->layout == SH_NHWC8 ? 8 : 1;

    return (d->dims[1] + block - 1) / block * block;
}

/** Elements as stored, padding included. */
static inline int64_t sh_tensor_stored_elems(const sh_tensor_desc *d)
{
    return d->dims[0] * sh_tensor_stored_channels(d) * d->dims[2] * d->dims[3];
}

/** Bytes as stored, padding included. */
static inline size_t sh_tensor_bytes(const sh_tensor_desc *d)
{
    return (size_t)sh_tensor_stored_elems(d) * sh_dtype_size(d->dtype);
}

/** Position, in elements, of logical element (n, c, h, w). */
static inline int64_t sh_tensor_offset(const sh_tensor_desc *d, int64_t n, int64_t c, int64_t h,
                                       int64_t w)
{
    int64_t C = d->dims[1], H = d->dims[2], W = d->dims[3];

    switch (d->layout) {
    case SH_NHWC:
    case SH_NHWC8: return ((n * H + h) * W + w) * sh_tensor_stored_channels(d) + c;
    case SH_NCHW16C: return (((n * ((C + 15) / 16) + c / 16) * H + h) * W + w) * 16 + c % 16;
    case SH_NCHW: break;
    }
    return ((n * C + c) * H + h) * W + w;
}

/** f32 to bf16, round to nearest even; NaN stays NaN. */
static inline uint16_t sh_bf16_from_f32(float f)
{
    uint32_t u;

    memcpy(&u, &f, 4);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

/** bf16 to f32, exact. */
static inline float sh_bf16_to_f32(uint16_t b)
{
    uint32_t u = (uint32_t)b << 16;
    float f;

    memcpy(&f, &u, 4);
    return f;
}

SH_C_END

#endif
