// SPDX-License-Identifier: Apache-2.0
/** Maps as images of pixels, for ops with figures per image and channel. */
#ifndef SH_MODELS_CUDA_IMAGES_H
#define SH_MODELS_CUDA_IMAGES_H

#include "models/cuda/device.h"
#include "models/cuda/node.h"

/** One block does one image's pixels: blockIdx.y is the image. */
struct image_rows {
    int64_t n_images, C, n_pixels;
};

static inline image_rows image_rows_of(const sh_tensor_desc *d)
{
    return image_rows{d->dims[0], d->dims[1], pixels_of(d)};
}

static inline const char *why_not_images(const sh_node_desc *desc)
{
    if (desc->in[0]->dims[0] > SH_MAX_GRID_Y) return "too many images";
    return why_not_rows(desc);
}

/** Element of channel c0 in pixel p of this block's image. */
__device__ static inline int64_t pixel_at(const image_rows &m, int64_t p, int64_t c0)
{
    return (blockIdx.y * m.n_pixels + p) * m.C + c0;
}

#endif
