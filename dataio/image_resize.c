// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <string.h>

#include "dataio/image_codec.h"
#include "dataio/resize.h"
#include "dataio/simd.h"

sh_hash128 sh_image_hash(const sh_image *image)
{
    size_t n = (size_t)image->width * (size_t)image->height * (size_t)image->channels;
    sh_hash128 pixels = sh_hash_content(image->pixels, n);
    uint64_t all[5] = {(uint64_t)image->width, (uint64_t)image->height, (uint64_t)image->channels,
                       pixels.hi, pixels.lo};

    return sh_hash_content(all, sizeof(all));
}

sh_status sh_image_cut(const sh_image *image, int x, int y, int width, int height, sh_image *out)
{
    sh_status st = SH_OK;
    size_t c = (size_t)image->channels;

    SH_CHECK(x >= 0 && y >= 0 && width > 0 && height > 0 && width <= image->width - x &&
                 height <= image->height - y,
             SH_ERR_USAGE, "a box of %d x %d at (%d, %d) lies outside an image of %d x %d", width,
             height, x, y, image->width, image->height);
    SH_TRY(sh_image_reserve(out, width, height, image->channels));
    for (int row = 0; row < height; row++)
        memcpy(out->pixels + (size_t)row * (size_t)width * c,
               image->pixels + ((size_t)(y + row) * (size_t)image->width + (size_t)x) * c,
               (size_t)width * c);
out:
    return st;
}

sh_status sh_image_resize(const sh_image *image, int width, int height, sh_image *out)
{
    sh_status st = SH_OK;
    resize_axis across = {0}, down = {0};
    size_t stride = (size_t)width, channels = (size_t)image->channels;
    float *line = NULL, *planes = malloc(channels * stride * sizeof(*planes));

    SH_TRY(resize_axis_plan(&across, image->width, 0, (float)image->width, width, 0));
    SH_TRY(resize_axis_plan(&down, image->height, 0, (float)image->height, height, 0));
    line = malloc(6 * SH_SIMD_ROUND_UP(image->width + across.taps) * sizeof(*line));
    SH_CHECK(planes != NULL && line != NULL, SH_ERR_NO_MEMORY, "scaling an image to %d x %d", width,
             height);
    SH_TRY(sh_image_reserve(out, width, height, image->channels));
    for (int y = 0; y < height; y++) {
        uint8_t *row = out->pixels + (size_t)y * stride * channels;

        resize_row(image, &across, &down, y, line, planes, stride);
        for (size_t i = 0; i < stride * channels; i++)
            row[i] = (uint8_t)(255 * planes[i % channels * stride + i / channels] + 0.5F);
    }
out:
    resize_axis_clear(&across);
    resize_axis_clear(&down);
    free(line);
    free(planes);
    return st;
}
