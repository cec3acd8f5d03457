// SPDX-License-Identifier: Apache-2.0
#include "dataio/augment.h"

#include <math.h>

#include "base/rng.h"

/* Element numbers of the draws: part of what a seed means, never renumber. */
enum {
    DRAW_ROTATE,
    DRAW_SHIFT_X,
    DRAW_SHIFT_Y,
    DRAW_SCALE,
    DRAW_FLIP,
    DRAW_FLIP_VERTICAL,
    DRAW_BRIGHTNESS,
    DRAW_CONTRAST,
    DRAW_SATURATION,
    DRAW_HUE,
    DRAW_ERASE,
    DRAW_ERASE_AREA,
    DRAW_ERASE_ASPECT,
    DRAW_ERASE_X,
    DRAW_ERASE_Y,
};

static const float PI = 3.14159265358979f;
static const float LUMA[3] = {0.299f, 0.587f, 0.114f};
static const float ERASE_MIN = 0.02f, ERASE_MAX = 0.20f; /* of the area */
static const float ERASE_ASPECT = 3.0f;                  /* between 1 / this and this */

bool augment_has_geometry(const sh_augment *a)
{
    return a->rotate != 0 || a->shift != 0 || a->scale != 0;
}

bool augment_has_colour(const sh_augment *a)
{
    return a->brightness != 0 || a->contrast != 0 || a->saturation != 0 || a->hue != 0;
}

static float spread(sh_rng_key key, int element, float range)
{
    return range == 0 ? 0 : sh_rng_range(key, (uint64_t)element, -range, range);
}

static bool coin(sh_rng_key key, int element, float probability)
{
    return sh_rng_uniform(key, (uint64_t)element) < probability;
}

static void draw_erased(const sh_loader_config *c, sh_rng_key key, augment_draw *out)
{
    float area = sh_rng_range(key, DRAW_ERASE_AREA, ERASE_MIN, ERASE_MAX);
    float aspect = expf(spread(key, DRAW_ERASE_ASPECT, logf(ERASE_ASPECT)));
    float pixels = area * (float)c->width * (float)c->height;
    int width = (int)lrintf(sqrtf(pixels * aspect)), height = (int)lrintf(sqrtf(pixels / aspect));

    width = width < 1 ? 1 : width > c->width ? c->width : width;
    height = height < 1 ? 1 : height > c->height ? c->height : height;
    out->erase_x0 = (int)sh_rng_below(key, DRAW_ERASE_X, (uint64_t)(c->width - width + 1));
    out->erase_y0 = (int)sh_rng_below(key, DRAW_ERASE_Y, (uint64_t)(c->height - height + 1));
    out->erase_x1 = out->erase_x0 + width;
    out->erase_y1 = out->erase_y0 + height;
}

void augment_make_draw(const sh_loader_config *config, uint64_t draw, augment_draw *out)
{
    const sh_augment *a = &config->augment;
    sh_rng_key key = sh_rng_make(config->seed, SH_RNG_AUGMENT, draw, 0);

    *out = (augment_draw){
        .angle = spread(key, DRAW_ROTATE, a->rotate) * PI / 180,
        .shift_x = spread(key, DRAW_SHIFT_X, a->shift),
        .shift_y = spread(key, DRAW_SHIFT_Y, a->shift),
        .zoom = 1 + spread(key, DRAW_SCALE, a->scale),
        .flip = coin(key, DRAW_FLIP, a->flip),
        .flip_vertical = coin(key, DRAW_FLIP_VERTICAL, a->flip_vertical),
        .brightness = 1 + spread(key, DRAW_BRIGHTNESS, a->brightness),
        .contrast = 1 + spread(key, DRAW_CONTRAST, a->contrast),
        .saturation = 1 + spread(key, DRAW_SATURATION, a->saturation),
        .hue = spread(key, DRAW_HUE, a->hue) * PI / 180,
    };
    if (coin(key, DRAW_ERASE, a->erase)) draw_erased(config, key, out);
}

/* m = left m, offset = left offset. */
static void apply_matrix(const float left[3][3], augment_colour *c)
{
    augment_colour before = *c;

    for (int i = 0; i < 3; i++) {
        c->offset[i] = 0;
        for (int j = 0; j < 3; j++) {
            c->offset[i] += left[i][j] * before.offset[j];
            c->matrix[i][j] = 0;
            for (int k = 0; k < 3; k++) c->matrix[i][j] += left[i][k] * before.matrix[k][j];
        }
    }
}

void augment_make_colour(const augment_draw *d, int channels, const float mean[3],
                         augment_colour *out)
{
    float luma =
        channels == 1 ? mean[0] : LUMA[0] * mean[0] + LUMA[1] * mean[1] + LUMA[2] * mean[2];
    float gain = d->brightness * d->contrast;

    *out = (augment_colour){0};
    for (int i = 0; i < 3; i++) {
        out->matrix[i][i] = gain;
        out->offset[i] = (1 - d->contrast) * d->brightness * luma;
    }
    if (channels == 1) return;

    float saturate[3][3], rotate[3][3];
    float cosine = cosf(d->hue), sine = sinf(d->hue) / sqrtf(3);

    /* Rodrigues' rotation about (1, 1, 1) / sqrt(3). */
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            int turn = (j - i + 3) % 3; /* 1: next channel, 2: the one before */

            saturate[i][j] = (1 - d->saturation) * LUMA[j] + (i == j ? d->saturation : 0);
            rotate[i][j] = (1 - cosine) / 3 + (turn == 0 ? cosine : turn == 1 ? -sine : sine);
        }
    apply_matrix(saturate, out);
    apply_matrix(rotate, out);
}

void augment_fit_scale(const sh_loader_config *config, int src_width, int src_height,
                       float *scale_x, float *scale_y)
{
    float x = (float)config->width / (float)src_width;
    float y = (float)config->height / (float)src_height;

    if (config->fit == SH_FIT_LETTERBOX) x = y = x < y ? x : y;
    if (config->fit == SH_FIT_COVER) x = y = x > y ? x : y;
    *scale_x = x;
    *scale_y = y;
}

void augment_make_affine(const sh_loader_config *config, const augment_draw *d, int src_width,
                         int src_height, augment_affine *out)
{
    float scale_x, scale_y;

    /* Input to source: about the input's centre undo the shift, the rotation, the zoom with the
     * fit, and the flips; then about the source's centre. */
    augment_fit_scale(config, src_width, src_height, &scale_x, &scale_y);
    float inv_x = (d->flip ? -1.0f : 1.0f) / (scale_x * d->zoom);
    float inv_y = (d->flip_vertical ? -1.0f : 1.0f) / (scale_y * d->zoom);
    float cosine = cosf(d->angle), sine = sinf(d->angle);
    float m[2][2] = {{cosine * inv_x, -sine * inv_x}, {sine * inv_y, cosine * inv_y}};
    float centre_x = (0.5f + d->shift_x) * (float)config->width - 0.5f;
    float centre_y = (0.5f + d->shift_y) * (float)config->height - 0.5f;

    for (int i = 0; i < 2; i++) {
        float src_centre = ((float)(i == 0 ? src_width : src_height) - 1) / 2;

        out->matrix[i][0] = m[i][0];
        out->matrix[i][1] = m[i][1];
        out->matrix[i][2] = src_centre - m[i][0] * centre_x - m[i][1] * centre_y;
    }
    out->footprint_x = sqrtf(m[0][0] * m[0][0] + m[0][1] * m[0][1]);
    out->footprint_y = sqrtf(m[1][0] * m[1][0] + m[1][1] * m[1][1]);
}
