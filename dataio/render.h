// SPDX-License-Identifier: Apache-2.0
/** Inside the loader: one decoded crop into its place in the network's input. */
#ifndef SH_DATAIO_RENDER_H
#define SH_DATAIO_RENDER_H

#include <stdatomic.h>

#include "base/parcel.h"
#include "dataio/augment.h"
#include "dataio/resize.h"

/** Memory of one thread, reused from crop to crop; zero it before the first. */
typedef struct renderer {
    resize_axis x, y;
    warp_source source;
    float *line;   /* resize_row's scratch */
    float *planes; /* [RENDER_BAND][ROW_PLANES][width, rounded up] */
    size_t line_capacity, planes_capacity;
    double warp_seconds, colour_seconds, store_seconds; /* wall time, added up */
} renderer;

/** Rows that pass each stage together: few enough for the cache, many enough to time a stage. */
enum { RENDER_BAND = 8 };

/** Fit, distort, colour, normalise and store `image` as number `index` of the batch at pixels. The
 *  bytes depend on config, image and draw alone. */
SH_MUST_CHECK sh_status render_crop(renderer *r, const sh_loader_config *config,
                                    const sh_image *image, uint64_t draw, void *pixels,
                                    int64_t index);
void renderer_clear(renderer *r);

/** Refuse sizes, channels, types and ranges that render_crop cannot serve. */
SH_MUST_CHECK sh_status render_check_config(const sh_loader_config *config);

/** All that is fixed for one crop before its rows are made. */
typedef struct render_plan {
    augment_draw draw;
    bool warp;
    augment_affine affine; /* warp: of the source, reduced by blocks */
    int block_x, block_y;  /* crop pixels per source pixel, averaged */
    int x0, y0, x1, y1;    /* otherwise: input pixels that the crop covers */
    bool has_colour;
    augment_colour colour;
} render_plan;

/** What `draw` makes of `image`; where nothing warps, r->x and r->y are its weights. */
SH_MUST_CHECK sh_status render_plan_crop(renderer *r, const sh_loader_config *config,
                                         const sh_image *image, uint64_t draw, render_plan *plan);

/* ---- the same for a device (base/parcel.h) ---- */

/** Bytes that a parcel of n images needs at most. A crop whose pixels, averaged by blocks, and
 *  weights need more room than the image in f32 is rendered here. */
int64_t render_parcel_bytes(const sh_loader_config *config, int64_t n);

/** Begin a parcel of n images, all of them blank. */
void render_parcel_begin(const sh_loader_config *config, int64_t n, sh_parcel *parcel);

/** Make `image` number `index` of the parcel. Threads may do so at once: *n_bytes, at first
 *  sh_parcel_head_bytes, is what of the parcel is taken. The image that a device renders depends on
 *  config, image and draw alone; where its pixels lie does not. */
SH_MUST_CHECK sh_status render_pack_crop(renderer *r, const sh_loader_config *config,
                                         const sh_image *image, uint64_t draw, sh_parcel *parcel,
                                         _Atomic int64_t *n_bytes, int64_t index);

/** Sum of each channel's bytes. */
void render_sum_channels(const sh_image *image, uint64_t sums[3]);

/** Write a row of normalised planes (as resize.h) into row y of image `index`; padding channels of
 *  NCHW16C and NHWC8 become zero. */
void render_store_row(const sh_loader_config *config, const float *planes, size_t stride, int y,
                      void *pixels, int64_t index);

#endif
