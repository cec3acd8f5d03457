// SPDX-License-Identifier: Apache-2.0
#include "dataio/synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "dataio/image_codec.h"
#include "dataio/synth_scene.h"

/* What a key's `step` says the draws are for; part of what a seed means, never renumber. */
enum { KEY_FISH, KEY_LEFT, KEY_RIGHT, KEY_RECORDING, KEY_IMAGE, KEY_VISITS };

enum { VISITS = 4 };
static const int64_t FIRST_DAY = 1714521600, DAYS_APART = 9,
                     SECONDS_PER_DAY = 86400; /* 2024-05-01 */

/* Draws of one key, taken in order. */
typedef struct dice {
    sh_rng_key key;
    uint64_t n;
} dice;

static dice throw_for(const sh_synth_config *c, int what, int64_t which)
{
    return (dice){.key = sh_rng_make(c->seed, SH_RNG_SYNTH, (uint64_t)what, (uint64_t)which)};
}

static float range(dice *d, float lo, float hi)
{
    return sh_rng_range(d->key, d->n++, lo, hi);
}

static int below(dice *d, int n)
{
    return (int)sh_rng_below(d->key, d->n++, (uint64_t)n);
}

static void range3(dice *d, const float lo[3], const float hi[3], float out[3])
{
    for (int i = 0; i < 3; i++) out[i] = range(d, lo[i], hi[i]);
}

sh_status sh_synth_check(const sh_synth_config *c)
{
    sh_status st = SH_OK;

    SH_CHECK(c->individuals >= 2 && c->individuals <= 99999, SH_ERR_USAGE,
             "%d individuals: 2 to 99999 can be drawn", c->individuals);
    SH_CHECK(c->images >= 1 && c->images <= 9999, SH_ERR_USAGE,
             "%d images of each individual: 1 to 9999 can be drawn", c->images);
    SH_CHECK(c->recordings >= 1 && c->recordings <= 999, SH_ERR_USAGE,
             "%d recordings: 1 to 999 can be drawn", c->recordings);
    SH_CHECK(c->width >= 16 && c->width <= 2048 && c->height >= 16 && c->height <= 2048,
             SH_ERR_USAGE, "crops of %d x %d pixels: 16 to 2048 can be drawn", c->width, c->height);
    SH_CHECK(c->threads >= 1 && c->threads <= 256, SH_ERR_USAGE, "%d threads", c->threads);
out:
    return st;
}

int64_t sh_synth_n_images(const sh_synth_config *config)
{
    return (int64_t)config->individuals * config->images;
}

static void make_bars(dice *d, synth_fish *fish)
{
    float width = range(d, 0.010f, 0.040f), strength = range(d, 0.45f, 0.9f);
    float slant = range(d, -0.06f, 0.06f);

    fish->n_bars = below(d, SYNTH_MAX_BARS + 1);
    for (int i = 0; i < fish->n_bars; i++)
        fish->bars[i] = (synth_bar){.u = range(d, 0.18f, 0.80f),
                                    .width = width * range(d, 0.8f, 1.2f),
                                    .slant = slant,
                                    .strength = strength};
}

/* What both sides share. Colours differ little between fish, much less than light and water differ
 * between recordings; the style of the pattern differs much. */
static void make_body(dice *d, synth_fish *fish)
{
    static const float back_lo[] = {0.36f, 0.35f, 0.28f}, back_hi[] = {0.40f, 0.39f, 0.32f};
    static const float belly_lo[] = {0.74f, 0.70f, 0.60f}, belly_hi[] = {0.80f, 0.76f, 0.66f};

    fish->depth = range(d, 0.145f, 0.180f);
    range3(d, back_lo, back_hi, fish->back);
    range3(d, belly_lo, belly_hi, fish->belly);
    make_bars(d, fish);
    fish->spot_radius = 0.012f * powf(3.5f, range(d, 0, 1));
    fish->n_specks = below(d, SYNTH_SPECKS + 1);
    /* Many small spots or few large ones cover about as much. */
    float cover = range(d, 0.008f, 0.030f) / (fish->spot_radius * fish->spot_radius);

    fish->n_spots = cover > SYNTH_MAX_SPOTS ? SYNTH_MAX_SPOTS : (int)cover;
    fish->low = range(d, -0.2f, 0.8f);
}

/* One side's own: where the spots and specks of its style lie. */
static void make_spots(dice *d, synth_fish *fish)
{
    for (int i = 0; i < fish->n_spots + fish->n_specks; i++) {
        bool spot = i < fish->n_spots;
        float radius = spot ? fish->spot_radius * range(d, 0.75f, 1.25f) : range(d, 0.003f, 0.007f);

        /* v counts in body depths, about 1/6 of the length. */
        fish->spots[i] = (synth_spot){.u = range(d, 0.14f, 0.84f),
                                      .v = range(d, -0.9f, fish->low),
                                      .radius_u = radius * range(d, 0.85f, 1.2f),
                                      .radius_v = radius * 5.5f,
                                      .strength = spot ? range(d, 0.75f, 1.0f) : 0.6f};
    }
}

static void make_water(dice *d, synth_water *water)
{
    static const float colour_lo[] = {0.18f, 0.34f, 0.32f}, colour_hi[] = {0.38f, 0.54f, 0.56f};
    static const float light_lo[] = {0.78f, 0.86f, 0.80f}, light_hi[] = {1.16f, 1.14f, 1.16f};
    static const float ground_lo[] = {0.34f, 0.34f, 0.28f}, ground_hi[] = {0.62f, 0.60f, 0.52f};

    range3(d, colour_lo, colour_hi, water->colour);
    range3(d, light_lo, light_hi, water->light);
    range3(d, ground_lo, ground_hi, water->ground);
    float dark = range(d, 0.5f, 0.85f);

    for (int i = 0; i < 3; i++) water->ground_dark[i] = dark * water->ground[i];
    water->turbidity = range(d, 0.0f, 0.30f);
    water->gradient = range(d, -0.2f, 0.2f);
    water->roughness = range(d, 0.2f, 0.7f);
    water->grain = range(d, 0.06f, 0.30f);
    water->blur = range(d, 0.0f, 0.20f);
    water->noise = range(d, 0.004f, 0.02f);
    water->ground_seed = sh_rng_bits(d->key, d->n++);
}

static void make_pose(dice *d, synth_pose *pose)
{
    static const float weed_lo[] = {0.05f, 0.18f, 0.03f}, weed_hi[] = {0.30f, 0.45f, 0.20f};

    pose->angle = range(d, -0.20f, 0.20f);
    pose->bend = range(d, -0.12f, 0.12f);
    pose->length = range(d, 0.82f, 0.98f);
    pose->x = range(d, -0.04f, 0.04f);
    pose->y = range(d, -0.06f, 0.06f);
    pose->foreshorten = range(d, 0.88f, 1.0f);
    pose->exposure = range(d, 0.85f, 1.15f);
    pose->ground_x = range(d, 0, 1000);
    pose->ground_y = range(d, 0, 1000);
    pose->weed = range(d, 0, 1) < 0.2f;
    pose->weed_x = range(d, -0.4f, 0.4f);
    pose->weed_slant = range(d, -0.6f, 0.6f);
    pose->weed_width = range(d, 0.01f, 0.035f);
    range3(d, weed_lo, weed_hi, pose->weed_colour);
    pose->noise_seed = sh_rng_bits(d->key, d->n++);
}

/* The recording of visit `visit` of an individual: its first draws of a shuffled list of all. */
static int visited_recording(const sh_synth_config *c, int64_t individual, int visit)
{
    dice d = throw_for(c, KEY_VISITS, individual);
    int taken[VISITS];

    for (int i = 0; i <= visit; i++) {
        int pick = below(&d, c->recordings - i);

        /* The pick-th of those not taken; `taken` is kept ascending for that. */
        int at = 0;

        for (; at < i && taken[at] <= pick; at++) pick++;
        if (i == visit) return pick;
        for (int j = i; j > at; j--) taken[j] = taken[j - 1];
        taken[at] = pick;
    }
    return 0;
}

void synth_make_scene(const sh_synth_config *c, int64_t index, synth_scene *scene,
                      sh_synth_truth *truth)
{
    int64_t individual = index / c->images;
    int image = (int)(index % c->images);
    int visits = c->recordings < VISITS ? c->recordings : VISITS;
    int recording = visited_recording(c, individual, image % visits);
    sh_side side = image / visits % 2 == 0 ? SH_SIDE_LEFT : SH_SIDE_RIGHT;

    if (scene != NULL) {
        dice body = throw_for(c, KEY_FISH, individual);
        dice spots = throw_for(c, side == SH_SIDE_LEFT ? KEY_LEFT : KEY_RIGHT, individual);
        dice water = throw_for(c, KEY_RECORDING, recording);
        dice pose = throw_for(c, KEY_IMAGE, index);

        scene->side = side;
        make_body(&body, &scene->fish);
        make_spots(&spots, &scene->fish);
        make_water(&water, &scene->water);
        make_pose(&pose, &scene->pose);
    }
    if (truth != NULL) {
        *truth = (sh_synth_truth){.side = side,
                                  .frame = image,
                                  .time = FIRST_DAY + recording * DAYS_APART * SECONDS_PER_DAY};
        snprintf(truth->individual, sizeof(truth->individual), "fish%03d", (int)individual);
        snprintf(truth->recording, sizeof(truth->recording), "rec%02d", recording);
        snprintf(truth->camera, sizeof(truth->camera), "cam%d", recording % 3);
        snprintf(truth->name, sizeof(truth->name), "%s_%s_%s_%04d.jpg", truth->individual,
                 side == SH_SIDE_LEFT ? "left" : "right", truth->recording, image);
    }
}

sh_status sh_synth_draw(const sh_synth_config *config, int64_t index, sh_image *image,
                        sh_synth_truth *truth)
{
    sh_status st = SH_OK;
    float *scratch = NULL;
    synth_scene *scene = NULL;

    SH_TRY(sh_synth_check(config));
    SH_CHECK(index >= 0 && index < sh_synth_n_images(config), SH_ERR_USAGE, "image %lld of %lld",
             (long long)index, (long long)sh_synth_n_images(config));
    if (image != NULL) {
        scratch = malloc(synth_scratch_floats(config->width, config->height) * sizeof(*scratch));
        scene = malloc(sizeof(*scene));
        SH_CHECK(scratch != NULL && scene != NULL, SH_ERR_NO_MEMORY, "a drawing of %d x %d",
                 config->width, config->height);
        SH_TRY(sh_image_reserve(image, config->width, config->height, 3));
    }
    synth_make_scene(config, index, scene, truth);
    if (image != NULL) synth_paint(scene, image, scratch);
out:
    free(scratch);
    free(scene);
    return st;
}
