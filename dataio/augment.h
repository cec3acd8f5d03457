// SPDX-License-Identifier: Apache-2.0
/** Inside the loader: what the draws of one slot mean, as geometry, colour and an erased rectangle.
 */
#ifndef SH_DATAIO_AUGMENT_H
#define SH_DATAIO_AUGMENT_H

#include "dataio/loader.h"

/** One crop's distortion. Each number has its own draw, so that switching one distortion on leaves
 *  the others as they were. */
typedef struct augment_draw {
    float angle;   /* radians, anticlockwise */
    float shift_x; /* of the input's width */
    float shift_y; /* of the input's height */
    float zoom;
    bool flip, flip_vertical;
    float brightness, contrast, saturation;     /* factors */
    float hue;                                  /* radians */
    int erase_x0, erase_y0, erase_x1, erase_y1; /* input pixels; x0 == x1: nothing */
} augment_draw;

void augment_make_draw(const sh_loader_config *config, uint64_t draw, augment_draw *out);

/** Does the configuration move pixels in other ways than by fitting and flipping? */
bool augment_has_geometry(const sh_augment *a);
bool augment_has_colour(const sh_augment *a);

/** out = M in + offset over RGB in 0 .. 1; for one channel M[0][0] and offset[0] alone. */
typedef struct augment_colour {
    float matrix[3][3], offset[3];
} augment_colour;

/** Brightness, then contrast around the crop's mean luma, saturation and hue (a rotation about the
 *  grey axis): all affine, so one matrix; the result is clamped once.
 *  mean  of the crop's pixels, 0 .. 1 */
void augment_make_colour(const augment_draw *d, int channels, const float mean[3],
                         augment_colour *out);

/** Source position = matrix (input pixel's index, 1), both counted at pixel centres.
 *  footprint: source pixels that one input pixel spans along each source axis. */
typedef struct augment_affine {
    float matrix[2][3];
    float footprint_x, footprint_y;
} augment_affine;

void augment_make_affine(const sh_loader_config *config, const augment_draw *d, int src_width,
                         int src_height, augment_affine *out);

/** How far the fit scales each axis, before augmentation. */
void augment_fit_scale(const sh_loader_config *config, int src_width, int src_height,
                       float *scale_x, float *scale_y);

#endif
