// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "base/tensor.h"
#include "dataio/render.h"
#include "dataio/simd.h"

/* One pixel's stored channels: all 16, or the first 8. Whole vectors or halves are stored, so the
 * padding is zero without a second pass. */
typedef float v16f __attribute__((vector_size(64), aligned(4)));
typedef uint16_t v16u __attribute__((vector_size(32), aligned(2)));

SH_SIMD_CLONES
static void store_plane_bf16(const float *restrict in, int n, uint16_t *restrict out)
{
    for (int x = 0; x < n; x++) out[x] = sh_bf16_from_f32(in[x]);
}

static void store_nchw(const sh_loader_config *c, const float *planes, size_t stride, int y,
                       void *image)
{
    for (int channel = 0; channel < c->channels; channel++) {
        const float *in = planes + (size_t)channel * stride;
        size_t at = ((size_t)channel * (size_t)c->height + (size_t)y) * (size_t)c->width;

        if (c->dtype == SH_F32)
            memcpy((float *)image + at, in, (size_t)c->width * sizeof(float));
        else
            store_plane_bf16(in, c->width, (uint16_t *)image + at);
    }
}

SH_SIMD_CLONES
static void interleave_f32(const float *restrict in, size_t stride, int n, float *restrict out)
{
    for (int x = 0; x < n; x++) {
        out[3 * x] = in[x];
        out[3 * x + 1] = in[stride + x];
        out[3 * x + 2] = in[2 * stride + x];
    }
}

SH_SIMD_CLONES
static void interleave_bf16(const float *restrict in, size_t stride, int n, uint16_t *restrict out)
{
    for (int x = 0; x < n; x++) {
        out[3 * x] = sh_bf16_from_f32(in[x]);
        out[3 * x + 1] = sh_bf16_from_f32(in[stride + x]);
        out[3 * x + 2] = sh_bf16_from_f32(in[2 * stride + x]);
    }
}

static void store_nhwc(const sh_loader_config *c, const float *planes, size_t stride, int y,
                       void *image)
{
    size_t at = (size_t)y * (size_t)c->width * 3;

    if (c->dtype == SH_F32)
        interleave_f32(planes, stride, c->width, (float *)image + at);
    else
        interleave_bf16(planes, stride, c->width, (uint16_t *)image + at);
}

SH_SIMD_CLONES
static void block_f32(const float *restrict in, size_t stride, int channels, int n, int stored,
                      float *restrict out)
{
    const float *green = channels == 3 ? in + stride : NULL;

    for (int x = 0; x < n; x++) {
        v16f v = {in[x], green != NULL ? green[x] : 0, green != NULL ? green[stride + x] : 0};

        if (stored == 16)
            memcpy(out + 16 * (size_t)x, &v, sizeof(v));
        else
            memcpy(out + 8 * (size_t)x, &v, sizeof(v) / 2);
    }
}

SH_SIMD_CLONES
static void block_bf16(const float *restrict in, size_t stride, int channels, int n, int stored,
                       uint16_t *restrict out)
{
    const float *green = channels == 3 ? in + stride : NULL;

    for (int x = 0; x < n; x++) {
        v16u v = {sh_bf16_from_f32(in[x]), green != NULL ? sh_bf16_from_f32(green[x]) : 0,
                  green != NULL ? sh_bf16_from_f32(green[stride + x]) : 0};

        if (stored == 16)
            memcpy(out + 16 * (size_t)x, &v, sizeof(v));
        else
            memcpy(out + 8 * (size_t)x, &v, sizeof(v) / 2);
    }
}

static void store_blocks(const sh_loader_config *c, const float *planes, size_t stride, int y,
                         int stored, void *image)
{
    size_t at = (size_t)y * (size_t)c->width * (size_t)stored;

    if (c->dtype == SH_F32)
        block_f32(planes, stride, c->channels, c->width, stored, (float *)image + at);
    else
        block_bf16(planes, stride, c->channels, c->width, stored, (uint16_t *)image + at);
}

void render_store_row(const sh_loader_config *config, const float *planes, size_t stride, int y,
                      void *pixels, int64_t index)
{
    sh_tensor_desc one = {.dtype = config->dtype,
                          .layout = config->layout,
                          .dims = {1, config->channels, config->height, config->width}};
    void *image = (uint8_t *)pixels + (size_t)index * sh_tensor_bytes(&one);

    if (config->layout == SH_NCHW16C || config->layout == SH_NHWC8)
        store_blocks(config, planes, stride, y, (int)sh_tensor_stored_channels(&one), image);
    else if (config->layout == SH_NHWC && config->channels == 3)
        store_nhwc(config, planes, stride, y, image);
    else /* one channel: NHWC is NCHW */
        store_nchw(config, planes, stride, y, image);
}
