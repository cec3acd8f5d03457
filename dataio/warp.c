// SPDX-License-Identifier: Apache-2.0
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "dataio/resize.h"
#include "dataio/simd.h"

static const uint32_t OPAQUE = 0xFF000000u;

SH_SIMD_CLONES
static void add_bytes(const uint8_t *restrict in, int n, uint32_t *restrict sums)
{
    for (int i = 0; i < n; i++) sums[i] += in[i];
}

/* Means of blocks of one output row; the last block of a row may be narrower. sums: of the columns,
 * [width * channels], over n_rows rows. In floats, since dividing integers takes longer than all
 * the rest; sums of a block stay below 2^24 up to 256 x 256 pixels, where rounding no longer
 * matters. */
static void average_columns(const uint32_t *restrict sums, int width, int channels, int block_x,
                            int n_rows, uint32_t *restrict out)
{
    for (int x0 = 0; x0 < width; x0 += block_x) {
        int x1 = x0 + block_x < width ? x0 + block_x : width;
        float scale = 1.0f / (float)((x1 - x0) * n_rows);
        uint32_t sum[3] = {0, 0, 0};

        if (channels == 1)
            for (int x = x0; x < x1; x++) sum[0] += sums[x];
        else
            for (int x = x0; x < x1; x++) {
                sum[0] += sums[3 * x];
                sum[1] += sums[3 * x + 1];
                sum[2] += sums[3 * x + 2];
            }
        uint32_t pixel = OPAQUE;

        for (int c = 0; c < 3; c++)
            pixel |= (uint32_t)(int)((float)(int)sum[c] * scale + 0.5f) << 8 * c;
        *out++ = pixel;
    }
}

static void average_row(const sh_image *image, int y, const warp_source *source, uint32_t *out)
{
    int y0 = y * source->block_y;
    int y1 = y0 + source->block_y < image->height ? y0 + source->block_y : image->height;
    int n = image->width * image->channels;

    memset(source->sums, 0, (size_t)n * sizeof(*source->sums));
    for (int row = y0; row < y1; row++)
        add_bytes(image->pixels + (size_t)row * (size_t)n, n, source->sums);
    average_columns(source->sums, image->width, image->channels, source->block_x, y1 - y0, out);
}

static void copy_row(const uint8_t *restrict in, int channels, int n, uint32_t *restrict out)
{
    if (channels == 1) {
        for (int x = 0; x < n; x++) out[x] = OPAQUE | in[x];
        return;
    }
    /* Four bytes at once, of which the last is the next pixel's; there is none after the last
     * pixel. */
    for (int x = 0; x < n - 1; x++) {
        uint32_t four;

        memcpy(&four, in + 3 * x, sizeof(four));
        out[x] = OPAQUE | le32toh(four);
    }
    in += 3 * (n - 1);
    out[n - 1] = OPAQUE | (uint32_t)in[2] << 16 | (uint32_t)in[1] << 8 | in[0];
}

static sh_status reserve(warp_source *source, size_t n_pixels, size_t n_sums)
{
    sh_status st = SH_OK;

    if (n_pixels <= source->capacity && n_sums <= source->sums_capacity) goto out;
    warp_source_clear(source);
    source->pixels = malloc(n_pixels * sizeof(*source->pixels));
    source->sums = malloc(n_sums * sizeof(*source->sums));
    SH_CHECK(source->pixels != NULL && source->sums != NULL, SH_ERR_NO_MEMORY, "crop of %zu pixels",
             n_pixels);
    source->capacity = n_pixels;
    source->sums_capacity = n_sums;
out:
    return st;
}

sh_status warp_source_load(warp_source *source, const sh_image *image, int block_x, int block_y)
{
    sh_status st = SH_OK;
    int width = (image->width + block_x - 1) / block_x;
    int height = (image->height + block_y - 1) / block_y;
    size_t stride = (size_t)width + 3, row_bytes = (size_t)image->width * (size_t)image->channels;

    SH_TRY(reserve(source, stride * ((size_t)height + 3), row_bytes));
    source->width = width;
    source->height = height;
    source->block_x = block_x;
    source->block_y = block_y;
    memset(source->pixels, 0, stride * sizeof(uint32_t));
    memset(source->pixels + stride * ((size_t)height + 1), 0, 2 * stride * sizeof(uint32_t));
    for (int y = 0; y < height; y++) {
        uint32_t *row = source->pixels + stride * ((size_t)y + 1);

        row[0] = row[width + 1] = row[width + 2] = 0;
        if (block_x == 1 && block_y == 1)
            copy_row(image->pixels + (size_t)y * row_bytes, image->channels, width, row + 1);
        else
            average_row(image, y, source, row + 1);
    }
out:
    return st;
}

static void drop_coverage(const uint32_t *restrict in, int channels, int n, uint8_t *restrict out)
{
    for (int x = 0; x < n; x++)
        for (int c = 0; c < channels; c++) *out++ = (uint8_t)(in[x] >> 8 * c);
}

sh_status warp_reduce(warp_source *source, const sh_image *image, int block_x, int block_y,
                      uint8_t *out)
{
    sh_status st = SH_OK;
    int width = (image->width + block_x - 1) / block_x;
    int height = (image->height + block_y - 1) / block_y;
    size_t in_bytes = (size_t)image->width * (size_t)image->channels;
    size_t row_bytes = (size_t)width * (size_t)image->channels;

    SH_TRY(reserve(source, (size_t)width, in_bytes));
    source->block_x = block_x;
    source->block_y = block_y;
    if (block_x == 1 && block_y == 1) {
        memcpy(out, image->pixels, (size_t)height * row_bytes);
        goto out;
    }
    for (int y = 0; y < height; y++) {
        average_row(image, y, source, source->pixels);
        drop_coverage(source->pixels, image->channels, width, out + (size_t)y * row_bytes);
    }
out:
    return st;
}

void warp_source_clear(warp_source *source)
{
    free(source->pixels);
    free(source->sums);
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
