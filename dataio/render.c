// SPDX-License-Identifier: Apache-2.0
#include "dataio/render.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dataio/simd.h"

/* Bilinear interpolation reads two source pixels per axis; beyond this many per input pixel some
 * would never be looked at, so blocks of the crop are averaged first. */
static const float MAX_FOOTPRINT = 1.5f;
enum { MAX_BLOCK = 256 }; /* sums of larger blocks might overflow */

sh_status render_check_config(const sh_loader_config *c)
{
    sh_status st = SH_OK;
    const sh_augment *a = &c->augment;

    SH_CHECK(c->height > 0 && c->width > 0 && c->height <= SH_IMAGE_MAX_SIDE &&
                 c->width <= SH_IMAGE_MAX_SIDE,
             SH_ERR_USAGE, "an input of %d x %d pixels", c->height, c->width);
    SH_CHECK(c->channels == 1 || c->channels == 3, SH_ERR_USAGE,
             "an input of %d channels, not 1 or 3", c->channels);
    SH_CHECK(c->dtype == SH_F32 || c->dtype == SH_BF16, SH_ERR_USAGE,
             "images cannot be loaded as %s", sh_dtype_name(c->dtype));
    for (int i = 0; i < c->channels; i++)
        SH_CHECK(c->std[i] > 0, SH_ERR_USAGE, "std of channel %d is %g, not positive", i,
                 (double)c->std[i]);
    SH_CHECK(a->scale >= 0 && a->scale < 1, SH_ERR_USAGE,
             "augment scale %g: zoom in [1 - scale, 1 + scale] takes 0 <= scale < 1",
             (double)a->scale);
    SH_CHECK(a->flip >= 0 && a->flip <= 1 && a->flip_vertical >= 0 && a->flip_vertical <= 1 &&
                 a->erase >= 0 && a->erase <= 1,
             SH_ERR_USAGE, "flip %g, flip_vertical %g and erase %g are probabilities, 0 to 1",
             (double)a->flip, (double)a->flip_vertical, (double)a->erase);
out:
    return st;
}

SH_SIMD_CLONES
static void sum_row(const uint8_t *restrict row, int channels, int n, uint32_t sums[3])
{
    uint32_t a = 0, b = 0, c = 0;

    if (channels == 1)
        for (int x = 0; x < n; x++) a += row[x];
    else
        for (int x = 0; x < n; x++) {
            a += row[3 * x];
            b += row[3 * x + 1];
            c += row[3 * x + 2];
        }
    sums[0] = a;
    sums[1] = b;
    sums[2] = c;
}

void render_sum_channels(const sh_image *image, uint64_t sums[3])
{
    sums[0] = sums[1] = sums[2] = 0;
    for (int y = 0; y < image->height; y++) {
        uint32_t row[3];

        sum_row(image->pixels + (size_t)y * image->width * image->channels, image->channels,
                image->width, row);
        for (int c = 0; c < 3; c++) sums[c] += row[c];
    }
}

static sh_status reserve(float **data, size_t *capacity, size_t n)
{
    sh_status st = SH_OK;

    if (n <= *capacity) goto out;
    free(*data);
    *capacity = 0;
    *data = aligned_alloc(64, SH_SIMD_ROUND_UP(n) * sizeof(**data));
    SH_CHECK(*data != NULL, SH_ERR_NO_MEMORY, "%zu floats of image rows", n);
    *capacity = n;
out:
    return st;
}

/* Only fitted: where the crop lies in the input, and the weights of both axes. */
static sh_status plan_resize(renderer *r, const sh_loader_config *c, const sh_image *image,
                             render_plan *plan)
{
    sh_status st = SH_OK;
    float scale_x, scale_y, lo_x = 0, lo_y = 0;
    int width = c->width, height = c->height;

    augment_fit_scale(c, image->width, image->height, &scale_x, &scale_y);
    if (c->fit == SH_FIT_LETTERBOX) {
        width = (int)fmaxf(1, fminf((float)width, rintf((float)image->width * scale_x)));
        height = (int)fmaxf(1, fminf((float)height, rintf((float)image->height * scale_y)));
    }
    if (c->fit == SH_FIT_COVER) {
        lo_x = fmaxf(0, ((float)image->width - (float)width / scale_x) / 2);
        lo_y = fmaxf(0, ((float)image->height - (float)height / scale_y) / 2);
    }
    /* A flip mirrors the whole input: an odd margin changes sides with it. */
    plan->x0 = (c->width - width + (plan->draw.flip ? 1 : 0)) / 2;
    plan->y0 = (c->height - height + (plan->draw.flip_vertical ? 1 : 0)) / 2;
    plan->x1 = plan->x0 + width;
    plan->y1 = plan->y0 + height;
    SH_TRY(resize_axis_plan(&r->x, image->width, lo_x, (float)image->width - lo_x, width,
                            plan->draw.flip));
    SH_TRY(resize_axis_plan(&r->y, image->height, lo_y, (float)image->height - lo_y, height,
                            plan->draw.flip_vertical));
out:
    return st;
}

static int choose_block(float footprint)
{
    if (footprint <= MAX_FOOTPRINT) return 1;
    return footprint < MAX_BLOCK ? (int)(footprint + 0.5f) : MAX_BLOCK;
}

static void plan_warp(const sh_loader_config *c, const sh_image *image, render_plan *plan)
{
    augment_affine *a = &plan->affine;

    augment_make_affine(c, &plan->draw, image->width, image->height, a);
    plan->block_x = choose_block(a->footprint_x);
    plan->block_y = choose_block(a->footprint_y);
    for (int i = 0; i < 3; i++) {
        float centre = i == 2 ? 0.5f : 0; /* pixel centres do not scale with the pixels */

        a->matrix[0][i] = (a->matrix[0][i] + centre) / (float)plan->block_x - centre;
        a->matrix[1][i] = (a->matrix[1][i] + centre) / (float)plan->block_y - centre;
    }
}

sh_status render_plan_crop(renderer *r, const sh_loader_config *c, const sh_image *image,
                           uint64_t draw, render_plan *plan)
{
    sh_status st = SH_OK;

    SH_CHECK(image->channels == c->channels && image->width > 0 && image->height > 0,
             SH_ERR_INTERNAL, "image of %d x %d x %d for an input of %d channels", image->height,
             image->width, image->channels, c->channels);
    *plan = (render_plan){.warp = augment_has_geometry(&c->augment),
                          .block_x = 1,
                          .block_y = 1,
                          .has_colour = augment_has_colour(&c->augment)};
    augment_make_draw(c, draw, &plan->draw);
    if (plan->has_colour) {
        uint64_t sums[3] = {0, 0, 0};
        float mean[3];

        if (c->augment.contrast != 0) render_sum_channels(image, sums);
        for (int i = 0; i < 3; i++)
            mean[i] = (float)((double)sums[i] / 255 / image->width / image->height);
        augment_make_colour(&plan->draw, c->channels, mean, &plan->colour);
    }
    if (plan->warp)
        plan_warp(c, image, plan);
    else
        SH_TRY(plan_resize(r, c, image, plan));
out:
    return st;
}

/* What the rows are made of. */
static sh_status load_source(renderer *r, const sh_image *image, const render_plan *plan)
{
    if (plan->warp) return warp_source_load(&r->source, image, plan->block_x, plan->block_y);
    return reserve(&r->line, &r->line_capacity, 6 * SH_SIMD_ROUND_UP(image->width + r->x.taps));
}

static void make_row(renderer *r, const sh_loader_config *c, const sh_image *image,
                     const render_plan *plan, int y, float *planes, size_t stride)
{
    if (plan->warp) {
        const augment_affine *a = &plan->affine;

        warp_row(&r->source, c->channels, a->matrix[0][1] * (float)y + a->matrix[0][2],
                 a->matrix[1][1] * (float)y + a->matrix[1][2], a->matrix[0][0], a->matrix[1][0],
                 c->width, planes, stride);
        return;
    }
    memset(planes, 0, ROW_PLANES * stride * sizeof(*planes));
    if (y < plan->y0 || y >= plan->y1) return;
    resize_row(image, &r->x, &r->y, y - plan->y0, r->line, planes + plan->x0, stride);
    for (int x = plan->x0; x < plan->x1; x++) planes[ROW_COVERAGE * stride + x] = 1;
}

SH_SIMD_CLONES
static void colour_rgb(const augment_colour *restrict m, float *restrict planes, size_t stride,
                       int n)
{
    const float m00 = m->matrix[0][0], m01 = m->matrix[0][1], m02 = m->matrix[0][2];
    const float m10 = m->matrix[1][0], m11 = m->matrix[1][1], m12 = m->matrix[1][2];
    const float m20 = m->matrix[2][0], m21 = m->matrix[2][1], m22 = m->matrix[2][2];
    const float o0 = m->offset[0], o1 = m->offset[1], o2 = m->offset[2];

    for (int x = 0; x < n; x++) {
        float r = planes[x], g = planes[stride + x], b = planes[2 * stride + x];
        float cover = planes[3 * stride + x];
        float r1 = m00 * r + m01 * g + m02 * b + o0 * cover;
        float g1 = m10 * r + m11 * g + m12 * b + o1 * cover;
        float b1 = m20 * r + m21 * g + m22 * b + o2 * cover;

        r1 = r1 > 0 ? r1 : 0;
        g1 = g1 > 0 ? g1 : 0;
        b1 = b1 > 0 ? b1 : 0;
        planes[x] = r1 < cover ? r1 : cover;
        planes[stride + x] = g1 < cover ? g1 : cover;
        planes[2 * stride + x] = b1 < cover ? b1 : cover;
    }
}

SH_SIMD_CLONES
static void colour_grey(float gain, float offset, float *restrict grey, const float *restrict cover,
                        int n)
{
    for (int x = 0; x < n; x++) {
        float v = gain * grey[x] + offset * cover[x];

        v = v > 0 ? v : 0;
        grey[x] = v < cover[x] ? v : cover[x];
    }
}

/* Where nothing is covered this gives (0 - 0) / std = 0: padding is the mean colour. */
SH_SIMD_CLONES
static void normalise(float *restrict plane, const float *restrict cover, float mean, float scale,
                      int n)
{
    for (int x = 0; x < n; x++) plane[x] = (plane[x] - mean * cover[x]) * scale;
}

static void colour_row(const sh_loader_config *c, const render_plan *plan, int y, float *planes,
                       size_t stride)
{
    const augment_draw *d = &plan->draw;
    const float *cover = planes + ROW_COVERAGE * stride;
    bool erased = y >= d->erase_y0 && y < d->erase_y1 && d->erase_x0 < d->erase_x1;

    if (plan->has_colour && c->channels == 3)
        colour_rgb(&plan->colour, planes, stride, c->width);
    else if (plan->has_colour)
        colour_grey(plan->colour.matrix[0][0], plan->colour.offset[0], planes, cover, c->width);
    for (int i = 0; i < c->channels; i++) {
        float *plane = planes + (size_t)i * stride;

        normalise(plane, cover, c->mean[i], 1 / c->std[i], c->width);
        if (erased)
            memset(plane + d->erase_x0, 0, (size_t)(d->erase_x1 - d->erase_x0) * sizeof(*plane));
    }
}

sh_status render_crop(renderer *r, const sh_loader_config *config, const sh_image *image,
                      uint64_t draw, void *pixels, int64_t index)
{
    sh_status st = SH_OK;
    render_plan plan;
    size_t stride = SH_SIMD_ROUND_UP(config->width), row = ROW_PLANES * stride;
    double now = sh_clock_seconds();

    SH_TRY(reserve(&r->planes, &r->planes_capacity, RENDER_BAND * row));
    SH_TRY(render_plan_crop(r, config, image, draw, &plan));
    SH_TRY(load_source(r, image, &plan));
    for (int y0 = 0; y0 < config->height; y0 += RENDER_BAND) {
        int n = config->height - y0 < RENDER_BAND ? config->height - y0 : RENDER_BAND;

        for (int i = 0; i < n; i++)
            make_row(r, config, image, &plan, y0 + i, r->planes + (size_t)i * row, stride);
        double warped = sh_clock_seconds();

        for (int i = 0; i < n; i++)
            colour_row(config, &plan, y0 + i, r->planes + (size_t)i * row, stride);
        double coloured = sh_clock_seconds();

        for (int i = 0; i < n; i++)
            render_store_row(config, r->planes + (size_t)i * row, stride, y0 + i, pixels, index);
        double stored = sh_clock_seconds();

        r->warp_seconds += warped - now;
        r->colour_seconds += coloured - warped;
        r->store_seconds += stored - coloured;
        now = stored;
    }
out:
    return st;
}

void renderer_clear(renderer *r)
{
    resize_axis_clear(&r->x);
    resize_axis_clear(&r->y);
    warp_source_clear(&r->source);
    free(r->line);
    free(r->planes);
    *r = (renderer){0};
}
