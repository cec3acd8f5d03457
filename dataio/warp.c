// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dataio/resize.h"
#include "dataio/simd.h"

static const uint32_t OPAQUE = 0xFF000000u;

static uint32_t average_block(const sh_image *image, int x0, int y0, int x1, int y1)
{
    uint32_t sum[3] = {0, 0, 0}, n = (uint32_t)((x1 - x0) * (y1 - y0));
    int channels = image->channels;

    for (int y = y0; y < y1; y++) {
        const uint8_t *p = image->pixels + ((size_t)y * image->width + x0) * channels;

        for (int x = x0; x < x1; x++, p += channels)
            for (int c = 0; c < channels; c++) sum[c] += p[c];
    }
    for (int c = 0; c < channels; c++) sum[c] = (sum[c] + n / 2) / n;
    return OPAQUE | sum[2] << 16 | sum[1] << 8 | sum[0];
}

static void copy_row(const uint8_t *restrict in, int channels, int n, uint32_t *restrict out)
{
    if (channels == 1)
        for (int x = 0; x < n; x++) out[x] = OPAQUE | in[x];
    else
        for (int x = 0; x < n; x++)
            out[x] =
                OPAQUE | (uint32_t)in[3 * x + 2] << 16 | (uint32_t)in[3 * x + 1] << 8 | in[3 * x];
}

sh_status warp_source_load(warp_source *source, const sh_image *image, int block_x, int block_y)
{
    sh_status st = SH_OK;
    int width = (image->width + block_x - 1) / block_x;
    int height = (image->height + block_y - 1) / block_y;
    size_t stride = (size_t)width + 3, n = stride * ((size_t)height + 3);

    if (n > source->capacity) {
        warp_source_clear(source);
        source->pixels = malloc(n * sizeof(*source->pixels));
        SH_CHECK(source->pixels != NULL, SH_ERR_NO_MEMORY, "crop of %d x %d", width, height);
        source->capacity = n;
    }
    source->width = width;
    source->height = height;
    source->block_x = block_x;
    source->block_y = block_y;
    memset(source->pixels, 0, stride * sizeof(uint32_t));
    memset(source->pixels + stride * ((size_t)height + 1), 0, 2 * stride * sizeof(uint32_t));
    for (int y = 0; y < height; y++) {
        uint32_t *row = source->pixels + stride * ((size_t)y + 1);

        row[0] = row[width + 1] = row[width + 2] = 0;
        if (block_x == 1 && block_y == 1) {
            copy_row(image->pixels + (size_t)y * image->width * image->channels, image->channels,
                     width, row + 1);
            continue;
        }
        int y0 = y * block_y, y1 = y0 + block_y < image->height ? y0 + block_y : image->height;

        for (int x = 0; x < width; x++) {
            int x0 = x * block_x, x1 = x0 + block_x < image->width ? x0 + block_x : image->width;

            row[x + 1] = average_block(image, x0, y0, x1, y1);
        }
    }
out:
    return st;
}

void warp_source_clear(warp_source *source)
{
    free(source->pixels);
    *source = (warp_source){0};
}

static inline float clamp_to(float x, float hi)
{
    x = x > 0 ? x : 0;
    return x < hi ? x : hi;
}

/* One byte of four neighbours, interpolated. */
static inline float interpolate(uint32_t p00, uint32_t p01, uint32_t p10, uint32_t p11, int shift,
                                float fx, float fy)
{
    float v00 = (float)(int32_t)(p00 >> shift & 255), v01 = (float)(int32_t)(p01 >> shift & 255);
    float v10 = (float)(int32_t)(p10 >> shift & 255), v11 = (float)(int32_t)(p11 >> shift & 255);
    float top = v00 + fx * (v01 - v00), bottom = v10 + fx * (v11 - v10);

    return (top + fy * (bottom - top)) * (1.0f / 255.0f);
}

/* The crop begins at (1, 1) of the bordered image, hence positions are kept one higher. */
SH_SIMD_CLONES
static void warp_rgb(const warp_source *source, float from_x, float from_y, float step_x,
                     float step_y, int n, float *restrict planes, size_t stride)
{
    const uint32_t *restrict pixels = source->pixels;
    int pitch = source->width + 3;
    float max_x = (float)(source->width + 1), max_y = (float)(source->height + 1);

    for (int x = 0; x < n; x++) {
        float sx = clamp_to(from_x + 1 + (float)x * step_x, max_x);
        float sy = clamp_to(from_y + 1 + (float)x * step_y, max_y);
        int ix = (int)sx, iy = (int)sy;
        float fx = sx - (float)ix, fy = sy - (float)iy;
        int at = iy * pitch + ix;
        uint32_t p00 = pixels[at], p01 = pixels[at + 1];
        uint32_t p10 = pixels[at + pitch], p11 = pixels[at + pitch + 1];

        planes[x] = interpolate(p00, p01, p10, p11, 0, fx, fy);
        planes[stride + x] = interpolate(p00, p01, p10, p11, 8, fx, fy);
        planes[2 * stride + x] = interpolate(p00, p01, p10, p11, 16, fx, fy);
        planes[3 * stride + x] = interpolate(p00, p01, p10, p11, 24, fx, fy);
    }
}

SH_SIMD_CLONES
static void warp_grey(const warp_source *source, float from_x, float from_y, float step_x,
                      float step_y, int n, float *restrict planes, size_t stride)
{
    const uint32_t *restrict pixels = source->pixels;
    int pitch = source->width + 3;
    float max_x = (float)(source->width + 1), max_y = (float)(source->height + 1);

    for (int x = 0; x < n; x++) {
        float sx = clamp_to(from_x + 1 + (float)x * step_x, max_x);
        float sy = clamp_to(from_y + 1 + (float)x * step_y, max_y);
        int ix = (int)sx, iy = (int)sy;
        float fx = sx - (float)ix, fy = sy - (float)iy;
        int at = iy * pitch + ix;
        uint32_t p00 = pixels[at], p01 = pixels[at + 1];
        uint32_t p10 = pixels[at + pitch], p11 = pixels[at + pitch + 1];

        planes[x] = interpolate(p00, p01, p10, p11, 0, fx, fy);
        planes[3 * stride + x] = interpolate(p00, p01, p10, p11, 24, fx, fy);
    }
}

void warp_row(const warp_source *source, int channels, float from_x, float from_y, float step_x,
              float step_y, int n, float *planes, size_t stride)
{
    if (channels == 3)
        warp_rgb(source, from_x, from_y, step_x, step_y, n, planes, stride);
    else
        warp_grey(source, from_x, from_y, step_x, step_y, n, planes, stride);
}
