// SPDX-License-Identifier: Apache-2.0
/** Inside the loader: two ways from a decoded crop to rows of the network's input. sh_image_resize
 *  takes the first as well. */
#ifndef SH_DATAIO_RESIZE_H
#define SH_DATAIO_RESIZE_H

#include <stdint.h>

#include "base/status.h"
#include "dataio/image.h"

/** One row of the input before normalisation, as planes: red (or grey), green, blue, coverage; all
 *  in 0 .. 1, colours multiplied by coverage. Coverage is 0 where the crop does not reach. */
enum { ROW_PLANES = 4, ROW_COVERAGE = 3 };

/* ---- Separable resampling, for crops that are only fitted (and flipped) ---- */

/** Output pixel i is the sum over k < taps of weight[k * n + i] times source pixel start[i] + k. */
typedef struct resize_axis {
    int n, taps;
    int *start;
    float *weight;
    size_t capacity; /* elements at weight; start holds as many */
} resize_axis;

/** Antialiased bilinear: a triangle as wide as the output pixel (at least one source pixel each
 * way), cut off at the source's border and normalised, as PIL's BILINEAR does; without its rounding
 *  to bytes between the axes.
 *  lo, hi  part of the source that the n outputs cover, in source pixels; may be fractional
 *  flip    reverse the order of the outputs */
SH_MUST_CHECK sh_status resize_axis_plan(resize_axis *axis, int src_n, float lo, float hi, int n,
                                         int flip);
void resize_axis_clear(resize_axis *axis);

/** Row `y` of the resized image into planes [channels][stride], from column 0 on. `line` is scratch
 *  of 2 * 3 * (width + x->taps) floats, rounded up to cache lines. */
void resize_row(const sh_image *image, const resize_axis *x, const resize_axis *y_axis, int y,
                float *line, float *planes, size_t stride);

/* ---- Inverse-mapped affine warp ---- */

/** A crop as 32-bit pixels (red, green, blue, 255) with a border of transparent ones, reduced by
 *  averaging blocks so that bilinear interpolation does not alias. */
typedef struct warp_source {
    uint32_t *pixels;               /* [height + 3][width + 3]; the crop begins at (1, 1) */
    uint32_t *sums;                 /* scratch: one row's sums over a block's rows */
    size_t capacity, sums_capacity; /* elements */
    int width, height;              /* without border */
    int block_x, block_y;           /* crop pixels per source pixel */
} warp_source;

SH_MUST_CHECK sh_status warp_source_load(warp_source *source, const sh_image *image, int block_x,
                                         int block_y);
void warp_source_clear(warp_source *source);

/** The reduced pixels alone, [height, width, channels], without border, to `out`; of *source only
 *  the scratch is used. */
SH_MUST_CHECK sh_status warp_reduce(warp_source *source, const sh_image *image, int block_x,
                                    int block_y, uint8_t *out);

/** Row of n input pixels; pixel x reads the source at (from_x + x * step_x, from_y + x * step_y),
 *  counted at pixel centres. Outside, coverage falls to 0 within one pixel. */
void warp_row(const warp_source *source, int channels, float from_x, float from_y, float step_x,
              float step_y, int n, float *planes, size_t stride);

#endif
