// SPDX-License-Identifier: Apache-2.0
/** Inside the loader: one decoded crop into its place in the network's input. */
#ifndef SH_DATAIO_RENDER_H
#define SH_DATAIO_RENDER_H

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

/** Sum of each channel's bytes. */
void render_sum_channels(const sh_image *image, uint64_t sums[3]);

/** Write a row of normalised planes (as resize.h) into row y of image `index`; padding channels of
 *  NCHW16C become zero. */
void render_store_row(const sh_loader_config *config, const float *planes, size_t stride, int y,
                      void *pixels, int64_t index);

#endif
