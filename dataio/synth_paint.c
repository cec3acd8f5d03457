// SPDX-License-Identifier: Apache-2.0
/*
 * Painting one scene. A pattern texture is laid out along the straight fish; every point of the
 * image, four per pixel, is taken back into fish coordinates and looked up there. Ground, weed and
 * water follow per pixel, then what the camera does: blur, noise, eight bits.
 */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "dataio/synth_scene.h"

enum { TEXTURE_U = 256, TEXTURE_V = 96, N_PROFILE = 128, SUBPIXELS = 2 };

/* Outline and shading of the straight fish, in fish lengths. */
typedef struct body {
    float profile[N_PROFILE + 1]; /* half height at u */
    float dorsal[N_PROFILE + 1];  /* height of the fin on the back */
    const float *pattern;         /* [TEXTURE_V][TEXTURE_U] darkness */
} body;

size_t synth_scratch_floats(int width, int height)
{
    return TEXTURE_U * TEXTURE_V + 2 * 3 * (size_t)width * (size_t)height;
}

static float clamp01(float x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

static float mix(float a, float b, float t)
{
    return a + (b - a) * t;
}

static float smooth(float lo, float hi, float x)
{
    float t = clamp01((x - lo) / (hi - lo));

    return t * t * (3 - 2 * t);
}

static void darken(float *pattern, int i, float amount)
{
    if (amount > pattern[i]) pattern[i] = amount;
}

static void paint_spot(const synth_spot *s, float *pattern)
{
    float reach = 1.25f; /* soft edge, in radii */
    int u0 = (int)((s->u - reach * s->radius_u) * TEXTURE_U);
    int u1 = (int)((s->u + reach * s->radius_u) * TEXTURE_U) + 1;
    int v0 = (int)((s->v - reach * s->radius_v + 1) / 2 * TEXTURE_V);
    int v1 = (int)((s->v + reach * s->radius_v + 1) / 2 * TEXTURE_V) + 1;

    for (int v = v0 < 0 ? 0 : v0; v < TEXTURE_V && v <= v1; v++)
        for (int u = u0 < 0 ? 0 : u0; u < TEXTURE_U && u <= u1; u++) {
            float du = ((u + 0.5f) / TEXTURE_U - s->u) / s->radius_u;
            float dv = ((v + 0.5f) * 2 / TEXTURE_V - 1 - s->v) / s->radius_v;

            darken(pattern, v * TEXTURE_U + u,
                   s->strength * (1 - smooth(0.75f, reach, sqrtf(du * du + dv * dv))));
        }
}

static void paint_pattern(const synth_fish *fish, float *pattern)
{
    memset(pattern, 0, TEXTURE_U * TEXTURE_V * sizeof(*pattern));
    for (int v = 0; v < TEXTURE_V; v++)
        for (int i = 0; i < fish->n_bars; i++) {
            const synth_bar *bar = &fish->bars[i];
            float height = (v + 0.5f) * 2 / TEXTURE_V - 1;
            float fade = 1 - smooth(0.2f, 0.9f, height); /* bars end on the flank */
            float centre = bar->u + bar->slant * height;
            int u0 = (int)((centre - 1.6f * bar->width) * TEXTURE_U);
            int u1 = (int)((centre + 1.6f * bar->width) * TEXTURE_U) + 1;

            for (int u = u0 < 0 ? 0 : u0; u < TEXTURE_U && u <= u1; u++) {
                float distance = fabsf((u + 0.5f) / TEXTURE_U - centre) / bar->width;

                darken(pattern, v * TEXTURE_U + u,
                       bar->strength * fade * (1 - smooth(0.6f, 1.6f, distance)));
            }
        }
    for (int i = 0; i < fish->n_spots + fish->n_specks; i++) paint_spot(&fish->spots[i], pattern);
}

static void shape_body(float depth, body *b)
{
    for (int i = 0; i <= N_PROFILE; i++) {
        float u = (float)i / N_PROFILE;
        float trunk = u < 0.82f ? powf(sinf(3.14159265f * powf(u / 0.82f, 0.65f)), 0.8f) : 0;
        float tail = 0.24f + 0.75f * smooth(0.80f, 0.98f, u);

        b->profile[i] = depth * (u > 0.5f && tail > trunk ? tail : trunk);
        b->dorsal[i] = depth * 0.45f * smooth(0.28f, 0.36f, u) * (1 - smooth(0.45f, 0.68f, u));
    }
}

static float look_up(const float *table, float u)
{
    float at = u * N_PROFILE;
    int i = (int)at;

    return i >= N_PROFILE ? table[N_PROFILE] : mix(table[i], table[i + 1], at - (float)i);
}

/* Colour of the fish at u, and y (in fish lengths from its middle line); false: not the fish. */
static bool sample_fish(const body *b, const synth_fish *fish, float u, float y, float colour[3])
{
    if (u < 0 || u >= 1) return false;
    float half = look_up(b->profile, u);
    float v = y / (half + 1e-6f);
    bool fin = u > 0.82f;

    if (v > 1 || v < -1) {
        if (y > 0 || -y > half + look_up(b->dorsal, u)) return false;
        v = -1;
        fin = true;
    }
    if (u > 0.94f + 0.06f * fabsf(v)) return false; /* the tail's fork */

    float shade = smooth(-0.5f, 0.8f, v);
    int tu = (int)(u * TEXTURE_U), tv = (int)((v + 1) / 2 * (TEXTURE_V - 1));
    float dark = b->pattern[tv * TEXTURE_U + tu] * (fin ? 0.4f : 1.0f);
    float round = 1 - 0.28f * v * v; /* a body turns away from the light at its edges */
    float eye_x = (u - 0.085f) / 0.020f, eye_y = (y + 0.030f) / 0.020f;
    float eye = eye_x * eye_x + eye_y * eye_y;

    for (int i = 0; i < 3; i++) {
        float base =
            fin ? 0.75f * fish->back[i] + 0.12f : mix(fish->back[i], fish->belly[i], shade);

        colour[i] = base * round * (1 - 0.8f * dark);
        if (eye < 1) colour[i] = eye < 0.4f ? 0.03f : 0.75f;
    }
    return true;
}

/* Value noise: hashed corners of a unit grid, smoothly interpolated. */
static float corner(uint64_t seed, int x, int y)
{
    uint64_t h = seed ^ ((uint64_t)(uint32_t)x * 0x9E3779B97F4A7C15u) ^
                 ((uint64_t)(uint32_t)y * 0xC2B2AE3D27D4EB4Fu);

    h = (h ^ (h >> 29)) * 0xBF58476D1CE4E5B9u;
    return (float)((h ^ (h >> 32)) & 0xFFFF) * (1.0f / 65535);
}

static float ground_noise(uint64_t seed, float x, float y)
{
    float fx = floorf(x), fy = floorf(y);
    int ix = (int)fx, iy = (int)fy;
    float tx = x - fx, ty = y - fy;

    tx = tx * tx * (3 - 2 * tx);
    ty = ty * ty * (3 - 2 * ty);
    return mix(mix(corner(seed, ix, iy), corner(seed, ix + 1, iy), tx),
               mix(corner(seed, ix, iy + 1), corner(seed, ix + 1, iy + 1), tx), ty);
}

static void paint_ground(const synth_scene *s, int width, int height, float *canvas)
{
    const synth_water *w = &s->water;
    float cell = w->grain * (float)width;

    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            float gx = s->pose.ground_x + (float)x / cell, gy = s->pose.ground_y + (float)y / cell;
            float n = 0.6f * ground_noise(w->ground_seed, gx, gy) +
                      0.4f * ground_noise(w->ground_seed + 1, 3.1f * gx, 3.1f * gy);
            float t = clamp01(0.5f + (n - 0.5f) * 2 * w->roughness);

            for (int i = 0; i < 3; i++)
                canvas[3 * (y * width + x) + i] =
                    mix(w->ground_dark[i], w->ground[i], t) * 0.7f + w->colour[i] * 0.3f;
        }
}

static void paint_fish(const synth_scene *s, const body *b, int width, int height, float *canvas)
{
    const synth_pose *p = &s->pose;
    float length = p->length * (float)width;
    float cosine = cosf(p->angle) / length, sine = sinf(p->angle) / length;
    float facing = s->side == SH_SIDE_LEFT ? 1.0f : -1.0f;
    float middle_x = (0.5f + p->x) * (float)width, middle_y = (0.5f + p->y) * (float)height;

    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            float sum[3] = {0, 0, 0};
            int n = 0;

            for (int k = 0; k < SUBPIXELS * SUBPIXELS; k++) {
                float dx = (float)x + (k % SUBPIXELS + 0.5f) / SUBPIXELS - middle_x;
                float dy = (float)y + (k / SUBPIXELS + 0.5f) / SUBPIXELS - middle_y;
                float along = facing * (dx * cosine + dy * sine) / p->foreshorten;
                float across = dy * cosine - dx * sine - p->bend * (along - 0.1f) * (along - 0.1f);
                float colour[3];

                if (!sample_fish(b, &s->fish, along + 0.5f, across, colour)) continue;
                for (int i = 0; i < 3; i++) sum[i] += colour[i];
                n++;
            }
            float *out = canvas + 3 * (y * width + x);
            float share = (float)n / (SUBPIXELS * SUBPIXELS);

            for (int i = 0; i < 3; i++)
                out[i] = out[i] * (1 - share) + sum[i] / (SUBPIXELS * SUBPIXELS);
        }
}

static void paint_weed(const synth_pose *p, int width, int height, float *canvas)
{
    if (!p->weed) return;
    for (int y = 0; y < height; y++) {
        float at = (float)y / (float)height - 0.5f;
        float centre =
            (0.5f + p->weed_x + p->weed_slant * at * 0.5f + 0.02f * sinf(9 * at)) * (float)width;
        float half = p->weed_width * (float)width;

        for (int x = 0; x < width; x++) {
            float cover = clamp01(half - fabsf((float)x + 0.5f - centre) + 0.5f);

            for (int i = 0; i < 3; i++) {
                float *out = &canvas[3 * (y * width + x) + i];

                *out = mix(*out, p->weed_colour[i], cover);
            }
        }
    }
}

static void light_water(const synth_scene *s, int width, int height, float *canvas)
{
    const synth_water *w = &s->water;

    for (int y = 0; y < height; y++) {
        float level = s->pose.exposure * (1 + w->gradient * (1 - 2 * (float)y / (float)height));

        for (int x = 0; x < width; x++)
            for (int i = 0; i < 3; i++) {
                float *out = &canvas[3 * (y * width + x) + i];

                *out = mix(*out * w->light[i], w->colour[i], w->turbidity) * level;
            }
    }
}

/* Three-tap blur along one axis; the border repeats. */
static void blur_axis(const float *in, int n_lines, int line_step, int n, int step, float amount,
                      float *out)
{
    for (int line = 0; line < n_lines; line++)
        for (int i = 0; i < n; i++) {
            int before = i > 0 ? i - 1 : 0, after = i < n - 1 ? i + 1 : i;
            const float *row = in + line * line_step;

            for (int c = 0; c < 3; c++)
                out[line * line_step + i * step + c] =
                    amount * (row[before * step + c] + row[after * step + c]) +
                    (1 - 2 * amount) * row[i * step + c];
        }
}

static void expose(const synth_scene *s, const float *canvas, sh_image *image)
{
    sh_rng_key key = sh_rng_make(s->pose.noise_seed, SH_RNG_SYNTH, 0, 0);
    size_t n = (size_t)image->width * (size_t)image->height;

    for (size_t at = 0; at < n; at++) {
        uint64_t bits = sh_rng_bits(key, at);

        for (int i = 0; i < 3; i++, bits >>= 20) {
            /* Two uniform numbers: triangular noise of standard deviation 418 / 1024. */
            float noise = ((float)(bits & 1023) + (float)(bits >> 10 & 1023)) / 1024 - 1;
            float value = canvas[3 * at + (size_t)i] + 2.45f * s->water.noise * noise;

            image->pixels[3 * at + (size_t)i] = (uint8_t)(clamp01(value) * 255 + 0.5f);
        }
    }
}

void synth_paint(const synth_scene *scene, sh_image *image, float *scratch)
{
    int width = image->width, height = image->height;
    float *pattern = scratch, *canvas = pattern + TEXTURE_U * TEXTURE_V;
    float *other = canvas + 3 * (size_t)width * (size_t)height;
    body b = {.pattern = pattern};

    paint_pattern(&scene->fish, pattern);
    shape_body(scene->fish.depth, &b);
    paint_ground(scene, width, height, canvas);
    paint_fish(scene, &b, width, height, canvas);
    paint_weed(&scene->pose, width, height, canvas);
    light_water(scene, width, height, canvas);
    blur_axis(canvas, height, 3 * width, width, 3, scene->water.blur, other);
    blur_axis(other, width, 3, height, 3 * width, scene->water.blur, canvas);
    expose(scene, canvas, image);
}
