// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "base/clock.h"
#include "dataio/render.h"

static int64_t round_up(int64_t n_bytes)
{
    return (n_bytes + SH_PARCEL_ALIGN - 1) / SH_PARCEL_ALIGN * SH_PARCEL_ALIGN;
}

/* Of an image in f32, as the device would have it. */
static int64_t ready_bytes(const sh_loader_config *c)
{
    return (int64_t)c->height * c->width * c->channels * (int64_t)sizeof(float);
}

int64_t render_parcel_bytes(const sh_loader_config *config, int64_t n)
{
    return sh_parcel_head_bytes(n) + n * round_up(ready_bytes(config));
}

static sh_parcel_image *images_of(sh_parcel *parcel)
{
    return (sh_parcel_image *)(parcel + 1);
}

/* Of no width: nothing is covered, and all is the mean colour. */
void render_parcel_begin(const sh_loader_config *config, int64_t n, sh_parcel *parcel)
{
    *parcel = (sh_parcel){.n_bytes = sh_parcel_head_bytes(n), .n_images = n};
    memset(parcel + 1, 0, (size_t)n * sizeof(sh_parcel_image));
    for (int i = 0; i < config->channels; i++) {
        parcel->mean[i] = config->mean[i];
        parcel->scale[i] = 1 / config->std[i];
    }
}

static int64_t axis_bytes(const resize_axis *axis)
{
    return round_up((int64_t)axis->n * (int64_t)sizeof(int32_t) +
                    (int64_t)axis->n * axis->taps * (int64_t)sizeof(float));
}

static void put_axis(const resize_axis *axis, float divisor, uint8_t *at)
{
    int64_t n_weights = (int64_t)axis->n * axis->taps;
    int32_t *start = (int32_t *)(void *)at;
    float *weight = (float *)(void *)(start + axis->n);

    for (int i = 0; i < axis->n; i++) start[i] = axis->start[i];
    for (int64_t i = 0; i < n_weights; i++) weight[i] = axis->weight[i] / divisor;
}

static void describe(const sh_loader_config *c, const render_plan *plan, sh_parcel_image *out)
{
    const augment_draw *d = &plan->draw;

    out->kind = plan->warp ? SH_PARCEL_WARP : SH_PARCEL_RESIZE;
    memcpy(out->matrix, plan->affine.matrix, sizeof(out->matrix));
    out->x0 = plan->x0;
    out->y0 = plan->y0;
    out->x1 = plan->x1;
    out->y1 = plan->y1;
    out->has_colour = plan->has_colour;
    for (int i = 0; i < c->channels; i++) {
        memcpy(out->colour[i], plan->colour.matrix[i], sizeof(plan->colour.matrix[i]));
        out->colour[i][3] = plan->colour.offset[i];
    }
    out->erase_x0 = d->erase_x0;
    out->erase_y0 = d->erase_y0;
    out->erase_x1 = d->erase_x1;
    out->erase_y1 = d->erase_y1;
}

/* Room in the parcel; there is enough for all images. */
static int64_t take(_Atomic int64_t *n_bytes, int64_t wanted)
{
    return atomic_fetch_add_explicit(n_bytes, wanted, memory_order_relaxed);
}

static sh_status pack_ready(renderer *r, const sh_loader_config *config, const sh_image *image,
                            uint64_t draw, uint8_t *memory, _Atomic int64_t *n_bytes,
                            sh_parcel_image *out)
{
    sh_loader_config ready = *config;

    ready.dtype = SH_F32;
    ready.layout = SH_NHWC;
    out->kind = SH_PARCEL_READY;
    out->pixels = take(n_bytes, round_up(ready_bytes(config)));
    return render_crop(r, &ready, image, draw, memory + out->pixels, 0);
}

sh_status render_pack_crop(renderer *r, const sh_loader_config *config, const sh_image *image,
                           uint64_t draw, sh_parcel *parcel, _Atomic int64_t *n_bytes,
                           int64_t index)
{
    sh_status st = SH_OK;
    sh_parcel_image made = {0};
    render_plan plan;
    uint8_t *memory = (uint8_t *)parcel;
    double start = sh_clock_seconds();

    SH_TRY(render_plan_crop(r, config, image, draw, &plan));
    made.width = (image->width + plan.block_x - 1) / plan.block_x;
    made.height = (image->height + plan.block_y - 1) / plan.block_y;
    int64_t pixel_bytes = round_up((int64_t)made.width * made.height * config->channels);
    int64_t x_bytes = plan.warp ? 0 : axis_bytes(&r->x),
            y_bytes = plan.warp ? 0 : axis_bytes(&r->y);

    if (pixel_bytes + x_bytes + y_bytes > round_up(ready_bytes(config))) {
        SH_TRY(pack_ready(r, config, image, draw, memory, n_bytes, &made));
    } else {
        describe(config, &plan, &made);
        made.pixels = take(n_bytes, pixel_bytes + x_bytes + y_bytes);
        SH_TRY(warp_reduce(&r->source, image, plan.block_x, plan.block_y, memory + made.pixels));
        if (!plan.warp) {
            made.x = (sh_parcel_axis){made.pixels + pixel_bytes, r->x.taps};
            made.y = (sh_parcel_axis){made.x.at + x_bytes, r->y.taps};
            put_axis(&r->x, 1, memory + made.x.at);
            put_axis(&r->y, 255, memory + made.y.at);
        }
        r->store_seconds += sh_clock_seconds() - start;
    }
    images_of(parcel)[index] = made;
out:
    return st;
}
