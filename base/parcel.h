// SPDX-License-Identifier: Apache-2.0
/**
 * Images on their way to a device: a parcel is one piece of memory with what the images of a batch
 * are made of - decoded pixels, and a few numbers per image. dataio fills it, trainer carries it
 * over, and the device renders it (base/device.h).
 *
 * All that takes a draw, a sine or a double has been worked out by dataio. What is left is f32
 * arithmetic over each input pixel; with every operation rounded by itself, in the order given
 * here, a device makes the bytes that the host makes (dataio/render.h):
 *
 *   warp     four source pixels v around the position (sx, sy), clamped to the crop and a border of
 *            one transparent pixel: top = v00 + fx (v01 - v00), bottom likewise, then
 *            (top + fy (bottom - top)) (1 / 255). Coverage is the same of 255 inside the crop, 0
 *            outside
 *   resize   sum over the taps of x, in order, of weight times the sum over the taps of y, in
 *            order, of weight times byte; weights that are 0 left out. Coverage is 1 inside
 *            [x0, x1) x [y0, y1); 0 outside, as is everything else there
 *   colour   m0 r + m1 g + m2 b + m3 coverage from left to right, clamped to 0 .. coverage; of grey
 *            images m0 grey + m3 coverage
 *   then     (value - mean coverage) scale, and 0 in the erased rectangle
 */
#ifndef SH_BASE_PARCEL_H
#define SH_BASE_PARCEL_H

#include <stdint.h>

typedef enum sh_parcel_kind {
    SH_PARCEL_WARP,
    SH_PARCEL_RESIZE,
    SH_PARCEL_READY, /* the host has done it all */
} sh_parcel_kind;

/** Weights of one axis of n input pixels; pixel i reads `taps` source pixels from start[i] on. The
 *  memory at `at`, from the parcel's first byte: int32 start[n], then float weight[taps][n]. */
typedef struct sh_parcel_axis {
    int64_t at;
    int64_t taps;
} sh_parcel_axis;

/** Without gaps between its members: equal images are equal bytes. */
typedef struct sh_parcel_image {
    int32_t kind;          /* sh_parcel_kind */
    int32_t width, height; /* of the source */
    int32_t has_colour;
    int64_t pixels;      /* where it begins, from the parcel's first byte:
                            uint8 [height, width, channels]; of images that are ready, float
                            [input's height, width, channels] */
    float matrix[2][3];  /* warp: source position of (x, y, 1), both counted at pixel centres */
    sh_parcel_axis x, y; /* resize; the weights of y are divided by 255 */
    int32_t x0, y0, x1, y1;
    float colour[3][4];
    int32_t erase_x0, erase_y0, erase_x1, erase_y1; /* x0 == x1: nothing */
} sh_parcel_image;

/** What a parcel begins with; the images' numbers follow, then what they point to. */
typedef struct sh_parcel {
    int64_t n_bytes; /* of all of it */
    int64_t n_images;
    float mean[3], scale[3];
} sh_parcel;

enum { SH_PARCEL_ALIGN = 16 }; /* bytes: where pixels and weights may begin */

/** Bytes before the first pixel. */
static inline int64_t sh_parcel_head_bytes(int64_t n_images)
{
    int64_t n_bytes = (int64_t)sizeof(sh_parcel) + n_images * (int64_t)sizeof(sh_parcel_image);

    return (n_bytes + SH_PARCEL_ALIGN - 1) / SH_PARCEL_ALIGN * SH_PARCEL_ALIGN;
}

#endif
