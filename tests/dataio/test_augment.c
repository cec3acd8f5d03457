// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "dataio/loader.h"

enum { MAX_PIXELS = 256 * 256 };

static uint8_t pixels[MAX_PIXELS * 3];
static float planes[3 * MAX_PIXELS], other[3 * MAX_PIXELS];

/* Zero mean and unit std: the input is pixel / 255. */
static sh_loader_config plain(int height, int width)
{
    return (sh_loader_config){.threads = 1,
                              .height = height,
                              .width = width,
                              .channels = 3,
                              .fit = SH_FIT_STRETCH,
                              .std = {1, 1, 1},
                              .seed = 11,
                              .dtype = SH_F32,
                              .layout = SH_NCHW};
}

static sh_image noise_image(int height, int width)
{
    sh_rng_key key = sh_rng_make(1, SH_RNG_TEST, (uint64_t)height, (uint64_t)width);

    for (int i = 0; i < height * width * 3; i++) pixels[i] = (uint8_t)sh_rng_bits(key, (uint64_t)i);
    return (sh_image){.width = width, .height = height, .channels = 3, .pixels = pixels};
}

/* Smooth in x and y, so that interpolation is nearly exact: red rises with x, green with y. */
static sh_image ramp_image(int height, int width)
{
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            pixels[3 * (y * width + x)] = (uint8_t)(x * 200 / width + 20);
            pixels[3 * (y * width + x) + 1] = (uint8_t)(y * 200 / height + 20);
            pixels[3 * (y * width + x) + 2] = 128;
        }
    return (sh_image){.width = width, .height = height, .channels = 3, .pixels = pixels};
}

static void render(const sh_loader_config *c, const sh_image *image, uint64_t draw, float *out)
{
    if (sh_loader_render(c, image, draw, out, 1, 0) != SH_OK) fail_msg("%s", sh_error_message());
}

static float at(const sh_loader_config *c, const float *p, int channel, int y, int x)
{
    return p[(channel * c->height + y) * c->width + x];
}

/* Largest difference over pixels at least `margin` from the border. */
static float difference(const sh_loader_config *c, const float *a, const float *b, int margin)
{
    float most = 0;

    for (int i = 0; i < c->channels; i++)
        for (int y = margin; y < c->height - margin; y++)
            for (int x = margin; x < c->width - margin; x++)
                most = fmaxf(most, fabsf(at(c, a, i, y, x) - at(c, b, i, y, x)));
    return most;
}

static void render__keeps_pixels_of_a_crop_of_the_inputs_size(void **state)
{
    (void)state;
    for (int fit = SH_FIT_LETTERBOX; fit <= SH_FIT_COVER; fit++) {
        sh_loader_config c = plain(37, 53);
        sh_image image = noise_image(37, 53);

        c.fit = (sh_fit)fit;
        c.mean[0] = 0.5f;
        c.std[0] = 0.25f;
        render(&c, &image, 0, planes);
        for (int y = 0; y < 37; y++)
            for (int x = 0; x < 53; x++) {
                const uint8_t *p = pixels + 3 * (y * 53 + x);

                assert_true(fabsf(at(&c, planes, 0, y, x) - ((float)p[0] / 255 - 0.5f) * 4) <
                            1e-5f);
                assert_true(fabsf(at(&c, planes, 1, y, x) - (float)p[1] / 255) < 1e-6f);
                assert_true(fabsf(at(&c, planes, 2, y, x) - (float)p[2] / 255) < 1e-6f);
            }
    }
}

/* The definition, in double precision: each output pixel is the mean of the source under a triangle
 * around its centre, as wide as the output pixel but at least one source pixel each way. */
static double triangle_mean(const sh_image *image, int channel, double cx, double cy, double rx,
                            double ry)
{
    double sum = 0, weights = 0;

    for (int y = 0; y < image->height; y++)
        for (int x = 0; x < image->width; x++) {
            double wx = fmax(0, 1 - fabs(x + 0.5 - cx) / rx),
                   wy = fmax(0, 1 - fabs(y + 0.5 - cy) / ry);

            sum += wx * wy * image->pixels[3 * (y * image->width + x) + channel];
            weights += wx * wy;
        }
    return sum / weights / 255;
}

static void render__resizes_with_a_triangle_filter(void **state)
{
    static const int sizes[][2] = {{100, 80}, {31, 200}, {17, 13}, {7, 90}, {3, 2}, {1, 1}};

    (void)state;
    for (size_t s = 0; s < SH_COUNT(sizes); s++) {
        sh_loader_config c = plain(29, 41);
        sh_image image = noise_image(sizes[s][0], sizes[s][1]);
        double step_x = image.width / 41.0, step_y = image.height / 29.0;

        render(&c, &image, 0, planes);
        for (int i = 0; i < 3; i++)
            for (int y = 0; y < 29; y++)
                for (int x = 0; x < 41; x++) {
                    double expected =
                        triangle_mean(&image, i, (x + 0.5) * step_x, (y + 0.5) * step_y,
                                      fmax(step_x, 1), fmax(step_y, 1));

                    /* The filter ends at whole pixels, as in PIL: its tails may miss up to half
                     * one. */
                    assert_true(fabs(at(&c, planes, i, y, x) - expected) < 2e-3);
                }
    }
}

static void letterbox__pads_with_the_mean_and_centres(void **state)
{
    sh_loader_config c = plain(40, 60);
    sh_image image = ramp_image(20, 20);

    (void)state;
    c.fit = SH_FIT_LETTERBOX;
    for (int i = 0; i < 3; i++) c.mean[i] = 0.9f;
    render(&c, &image, 0, planes);
    for (int i = 0; i < 3; i++)
        for (int y = 0; y < 40; y++)
            for (int x = 0; x < 60; x++)
                assert_int_equal(at(&c, planes, i, y, x) == 0, x < 10 || x >= 50);
}

static void cover__cuts_both_ends_alike(void **state)
{
    sh_loader_config c = plain(40, 40);
    sh_image image = ramp_image(40, 120);
    sh_image middle = {.width = 40, .height = 40, .channels = 3};

    (void)state;
    c.fit = SH_FIT_COVER;
    render(&c, &image, 0, planes);
    middle.pixels = malloc(40 * 40 * 3);
    assert_non_null(middle.pixels);
    for (int y = 0; y < 40; y++) memcpy(middle.pixels + y * 120, pixels + 3 * (y * 120 + 40), 120);
    render(&c, &middle, 0, other);
    assert_true(difference(&c, planes, other, 0) == 0);
    free(middle.pixels);
}

static void flip__mirrors_exactly_when_certain_and_never_when_off(void **state)
{
    (void)state;
    for (int fit = SH_FIT_LETTERBOX; fit <= SH_FIT_COVER; fit++) {
        sh_loader_config c = plain(41, 58); /* odd margins too */
        sh_image image = noise_image(30, 71);

        c.fit = (sh_fit)fit;
        render(&c, &image, 5, planes);
        c.augment.flip = 1;
        for (uint64_t draw = 0; draw < 20; draw++) {
            render(&c, &image, draw, other);
            for (int i = 0; i < 3; i++)
                for (int y = 0; y < 41; y++)
                    for (int x = 0; x < 58; x++)
                        assert_true(fabsf(at(&c, other, i, y, x) - at(&c, planes, i, y, 57 - x)) <
                                    1e-6f);
        }
        c.augment.flip = 0;
        c.augment.flip_vertical = 1;
        render(&c, &image, 5, other);
        for (int y = 0; y < 41; y++)
            for (int x = 0; x < 58; x++)
                assert_true(fabsf(at(&c, other, 1, y, x) - at(&c, planes, 1, 40 - y, x)) < 1e-6f);
    }
}

static void flip__comes_as_often_as_asked(void **state)
{
    sh_loader_config c = plain(4, 4);
    sh_image image = ramp_image(4, 4);
    int flipped = 0;

    (void)state;
    c.augment.flip = 0.3f;
    for (uint64_t draw = 0; draw < 10000; draw++) {
        render(&c, &image, draw, planes);
        flipped += planes[0] > planes[3];
    }
    assert_in_range(flipped, 3000 - 275, 3000 + 275); /* 6 standard deviations */
}

/* A tiny range takes the warp's way through almost the same geometry. */
static void warp__agrees_with_the_resize_where_both_apply(void **state)
{
    static const int sizes[][2] = {{40, 60}, {48, 75}, {20, 30}, {33, 90}};

    (void)state;
    for (size_t s = 0; s < SH_COUNT(sizes); s++) {
        sh_loader_config c = plain(40, 60);
        sh_image image = ramp_image(sizes[s][0], sizes[s][1]);

        render(&c, &image, 0, planes);
        c.augment.rotate = 1e-6f;
        render(&c, &image, 0, other);
        assert_true(difference(&c, planes, other, 2) < 0.012f);
    }
}

static void warp__averages_before_it_minifies(void **state)
{
    sh_loader_config c = plain(32, 32);
    sh_image image = noise_image(192, 192);
    double sum = 0, squares = 0;

    (void)state;
    /* White noise of variance 1/12, averaged over 6 x 6 pixels, keeps 1/36 of it. Plain bilinear
     * sampling would keep more than a quarter. */
    c.augment.rotate = 5;
    render(&c, &image, 3, planes);
    for (int y = 6; y < 26; y++)
        for (int x = 6; x < 26; x++) {
            double v = at(&c, planes, 0, y, x);

            sum += v / 400;
            squares += v * v / 400;
        }
    assert_true(squares - sum * sum < 1.5 / 12 / 36);
    assert_true(fabs(sum - 0.5) < 0.02);
}

/* Angle, zoom and shift, measured from the gradients and the centre of the ramp. */
static void warp__rotates_zooms_and_shifts_within_its_ranges(void **state)
{
    sh_loader_config c = plain(64, 64);
    sh_image image = ramp_image(64, 64);
    float low_angle = 0, high_angle = 0, low_zoom = 1, high_zoom = 1, low_x = 0, high_x = 0;

    (void)state;
    c.augment = (sh_augment){.rotate = 20, .scale = 0.2f, .shift = 0.1f};
    for (uint64_t draw = 0; draw < 300; draw++) {
        render(&c, &image, draw, planes);
        float rx = at(&c, planes, 0, 32, 40) - at(&c, planes, 0, 32, 24);
        float ry = at(&c, planes, 0, 40, 32) - at(&c, planes, 0, 24, 32);
        float angle = atan2f(-ry, rx) * 57.29578f;
        float zoom = 200.0f / 64 / 255 * 16 / hypotf(rx, ry);

        assert_true(fabsf(angle) < 21.5f);
        assert_true(zoom > 0.77f && zoom < 1.24f);
        low_angle = fminf(low_angle, angle);
        high_angle = fmaxf(high_angle, angle);
        low_zoom = fminf(low_zoom, zoom);
        high_zoom = fmaxf(high_zoom, zoom);
    }
    assert_true(low_angle < -18 && high_angle > 18);
    assert_true(low_zoom < 0.84f && high_zoom > 1.16f);

    c.augment = (sh_augment){.shift = 0.1f};
    for (uint64_t draw = 0; draw < 300; draw++) {
        render(&c, &image, draw, planes);
        float shift = (120.0f / 255 - at(&c, planes, 0, 32, 32)) * 255 / 200;

        assert_true(fabsf(shift) < 0.12f);
        low_x = fminf(low_x, shift);
        high_x = fmaxf(high_x, shift);
    }
    assert_true(low_x < -0.08f && high_x > 0.08f);
}

static sh_image flat_image(int r, int g, int b)
{
    for (int i = 0; i < 64; i++) {
        pixels[3 * i] = (uint8_t)r;
        pixels[3 * i + 1] = (uint8_t)g;
        pixels[3 * i + 2] = (uint8_t)b;
    }
    return (sh_image){.width = 8, .height = 8, .channels = 3, .pixels = pixels};
}

static void brightness__scales_and_clamps(void **state)
{
    sh_loader_config c = plain(8, 8);
    sh_image image = flat_image(50, 100, 250);
    float low = 1, high = 1;

    (void)state;
    c.augment.brightness = 0.4f;
    for (uint64_t draw = 0; draw < 200; draw++) {
        render(&c, &image, draw, planes);
        float factor = planes[0] * 255 / 50;

        assert_true(factor > 0.599f && factor < 1.401f);
        assert_true(fabsf(planes[64] * 255 - 100 * factor) < 0.01f);
        assert_true(fabsf(planes[128] - fminf(1, 250 * factor / 255)) < 1e-4f);
        low = fminf(low, factor);
        high = fmaxf(high, factor);
    }
    assert_true(low < 0.65f && high > 1.35f);
}

static void contrast__keeps_the_mean_luma(void **state)
{
    sh_loader_config c = plain(16, 16);
    sh_image image = ramp_image(16, 16);
    double mean[2], spread[2];

    (void)state;
    for (uint64_t draw = 0; draw < 20; draw++) {
        for (int k = 0; k < 2; k++) {
            c.augment.contrast = k == 0 ? 0 : 0.15f; /* nothing clamps */
            render(&c, &image, draw, planes);
            mean[k] = spread[k] = 0;
            for (int i = 0; i < 256; i++) {
                double luma = 0.299 * planes[i] + 0.587 * planes[256 + i] + 0.114 * planes[512 + i];

                mean[k] += luma / 256;
                spread[k] += luma * luma / 256;
            }
            spread[k] = sqrt(spread[k] - mean[k] * mean[k]);
        }
        assert_true(fabs(mean[0] - mean[1]) < 1e-4);
        assert_true(spread[1] > 0.849 * spread[0] && spread[1] < 1.151 * spread[0]);
    }
}

static void hue_and_saturation__leave_grey_alone(void **state)
{
    sh_loader_config c = plain(8, 8);
    sh_image image = flat_image(120, 120, 120);
    float most = 0;

    (void)state;
    c.augment = (sh_augment){.saturation = 0.5f, .hue = 30};
    for (uint64_t draw = 0; draw < 50; draw++) {
        render(&c, &image, draw, planes);
        for (int i = 0; i < 192; i++) assert_true(fabsf(planes[i] - 120.0f / 255) < 1e-5f);
    }
    image = flat_image(140, 110, 100);
    for (uint64_t draw = 0; draw < 50; draw++) {
        render(&c, &image, draw, planes);
        most = fmaxf(most, fabsf(planes[0] - 140.0f / 255));
    }
    assert_true(most > 0.02f);
}

static void erase__blanks_one_rectangle_of_bounded_area(void **state)
{
    sh_loader_config c = plain(64, 64);
    sh_image image = ramp_image(64, 64);
    int n_erased = 0;

    (void)state;
    c.augment.erase = 0.5f;
    for (uint64_t draw = 0; draw < 400; draw++) {
        int x0 = 64, x1 = -1, y0 = 64, y1 = -1, n = 0;

        render(&c, &image, draw, planes);
        for (int y = 0; y < 64; y++)
            for (int x = 0; x < 64; x++) {
                if (at(&c, planes, 2, y, x) != 0) continue;
                x0 = x < x0 ? x : x0;
                x1 = x > x1 ? x : x1;
                y0 = y < y0 ? y : y0;
                y1 = y > y1 ? y : y1;
                n++;
            }
        if (n == 0) continue;
        assert_int_equal(n, (x1 - x0 + 1) * (y1 - y0 + 1));
        assert_in_range(n, 64 * 64 * 2 / 100 - 15, 64 * 64 * 20 / 100 + 30);
        n_erased++;
    }
    assert_in_range(n_erased, 200 - 60, 200 + 60);
}

static void draws__of_one_distortion_do_not_depend_on_the_others(void **state)
{
    sh_loader_config c = plain(8, 8);
    sh_image image = flat_image(50, 60, 70);

    (void)state;
    c.augment.brightness = 0.4f;
    render(&c, &image, 17, planes);
    c.augment.flip = 0.5f;
    c.augment.saturation = 0;
    render(&c, &image, 17, other);
    assert_memory_equal(planes, other, 192 * sizeof(float));
}

static void render__gives_equal_values_in_every_layout_and_type(void **state)
{
    static const sh_layout layouts[] = {SH_NCHW, SH_NHWC, SH_NHWC8, SH_NCHW16C};
    static uint8_t stored[2 * 64 * 64 * 16 * 4];

    (void)state;
    for (int channels = 1; channels <= 3; channels += 2)
        for (size_t l = 0; l < SH_COUNT(layouts); l++)
            for (int dtype = SH_F32; dtype <= SH_BF16; dtype++) {
                sh_loader_config c = plain(31, 43);
                sh_image image = noise_image(50, 40);

                c.channels = image.channels = channels;
                c.fit = SH_FIT_LETTERBOX;
                c.mean[0] = 0.3f;
                c.augment = (sh_augment){.rotate = 15, .brightness = 0.3f, .contrast = 0.2f};
                render(&c, &image, 3, planes);
                c.layout = layouts[l];
                c.dtype = (sh_dtype)dtype;
                sh_tensor_desc d = {c.dtype, c.layout, {2, channels, 31, 43}};

                memset(stored, 0xAA, sizeof(stored));
                assert_int_equal(sh_loader_render(&c, &image, 3, stored, 2, 1), SH_OK);
                for (int i = 0; i < sh_tensor_stored_channels(&d); i++)
                    for (int y = 0; y < 31; y++)
                        for (int x = 0; x < 43; x++) {
                            float expected = i < channels ? at(&c, planes, i, y, x) : 0;
                            int64_t offset = sh_tensor_offset(&d, 1, i, y, x);

                            if (dtype == SH_F32)
                                assert_true(((float *)stored)[offset] == expected);
                            else
                                assert_int_equal(((uint16_t *)stored)[offset],
                                                 sh_bf16_from_f32(expected));
                        }
                /* The neighbour's place is untouched. */
                for (size_t i = 0; i < sh_tensor_bytes(&d) / 2; i++)
                    assert_int_equal(stored[i], 0xAA);
                for (size_t i = sh_tensor_bytes(&d); i < sh_tensor_bytes(&d) + 64; i++)
                    assert_int_equal(stored[i], 0xAA);
            }
}

static void render__refuses_what_it_cannot_serve(void **state)
{
    sh_loader_config c = plain(8, 8);
    sh_image image = flat_image(1, 2, 3);

    (void)state;
    c.std[1] = 0;
    assert_int_equal(sh_loader_render(&c, &image, 0, planes, 1, 0), SH_ERR_USAGE);
    c = plain(0, 8);
    assert_int_equal(sh_loader_render(&c, &image, 0, planes, 1, 0), SH_ERR_USAGE);
    c = plain(8, 8);
    c.augment.scale = 1;
    assert_int_equal(sh_loader_render(&c, &image, 0, planes, 1, 0), SH_ERR_USAGE);
    c = plain(8, 8);
    c.augment.flip = 1.5f;
    assert_int_equal(sh_loader_render(&c, &image, 0, planes, 1, 0), SH_ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(render__keeps_pixels_of_a_crop_of_the_inputs_size),
        cmocka_unit_test(render__resizes_with_a_triangle_filter),
        cmocka_unit_test(letterbox__pads_with_the_mean_and_centres),
        cmocka_unit_test(cover__cuts_both_ends_alike),
        cmocka_unit_test(flip__mirrors_exactly_when_certain_and_never_when_off),
        cmocka_unit_test(flip__comes_as_often_as_asked),
        cmocka_unit_test(warp__agrees_with_the_resize_where_both_apply),
        cmocka_unit_test(warp__averages_before_it_minifies),
        cmocka_unit_test(warp__rotates_zooms_and_shifts_within_its_ranges),
        cmocka_unit_test(brightness__scales_and_clamps),
        cmocka_unit_test(contrast__keeps_the_mean_luma),
        cmocka_unit_test(hue_and_saturation__leave_grey_alone),
        cmocka_unit_test(erase__blanks_one_rectangle_of_bounded_area),
        cmocka_unit_test(draws__of_one_distortion_do_not_depend_on_the_others),
        cmocka_unit_test(render__gives_equal_values_in_every_layout_and_type),
        cmocka_unit_test(render__refuses_what_it_cannot_serve),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
