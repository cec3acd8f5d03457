// SPDX-License-Identifier: Apache-2.0
/** Images that a device renders out of parcels against those that the host renders: the same bytes.
 *  For the emulator (test_cuda_render.c) and for devices (test_render_device.c). */
#ifndef TESTS_MODELS_RENDER_ON_DEVICE_H
#define TESTS_MODELS_RENDER_ON_DEVICE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "dataio/render.h"
#include "models/backend.h"

enum { N_IMAGES = 5, HEIGHT = 23, WIDTH = 37, GUARD_BYTES = 64 };

static const sh_backend *device_backend; /* whose device renders */

static int n_kinds[3]; /* images of each sh_parcel_kind so far */

/* From smaller than the input to where pixels are averaged by blocks; the last is long and thin. */
static const struct {
    int width, height;
} sizes[N_IMAGES] = {{1, 1}, {13, 29}, {41, 27}, {90, 71}, {301, 18}};

static sh_image noise_image(int i, int channels)
{
    size_t n = (size_t)sizes[i].width * (size_t)sizes[i].height * (size_t)channels;
    sh_rng_key key = sh_rng_make(1, SH_RNG_TEST, (uint64_t)i, (uint64_t)channels);
    sh_image image = {sizes[i].width, sizes[i].height, channels, malloc(n), n};

    assert_non_null(image.pixels);
    for (size_t k = 0; k < n; k++) image.pixels[k] = (uint8_t)sh_rng_bits(key, k);
    return image;
}

/* A parcel of all images, each under its own draw. */
static sh_parcel *pack_all(const sh_loader_config *config, const sh_image *images, uint64_t draw)
{
    int64_t room = render_parcel_bytes(config, N_IMAGES);
    size_t n_bytes = (size_t)(room / 64 + 1) * 64 + GUARD_BYTES;
    uint8_t *memory = aligned_alloc(64, n_bytes);
    sh_parcel *parcel = (sh_parcel *)(void *)memory;
    _Atomic int64_t used;
    renderer r = {0};

    assert_non_null(memory);
    memset(memory, 0xAA, n_bytes);
    render_parcel_begin(config, N_IMAGES, parcel);
    atomic_init(&used, parcel->n_bytes);
    for (int k = 0; k < N_IMAGES; k++) {
        int i = (k * 3 + 2) % N_IMAGES; /* in another order than theirs */

        assert_int_equal(
            render_pack_crop(&r, config, &images[i], draw + (uint64_t)i, parcel, &used, i), SH_OK);
        n_kinds[((const sh_parcel_image *)(parcel + 1))[i].kind]++;
    }
    assert_true(used <= room);
    for (size_t k = (size_t)used; k < n_bytes; k++) assert_int_equal(memory[k], 0xAA);
    parcel->n_bytes = used;
    renderer_clear(&r);
    return parcel;
}

/* Rendered by the device, as training does it. */
static void render_there(const sh_parcel *parcel, const sh_tensor_desc *desc, void *out)
{
    const sh_device *device = device_backend->device;
    size_t n_bytes = (size_t)parcel->n_bytes;
    void *sent = NULL, *there = NULL;
    sh_buffer *images = NULL;
    sh_mark *arrived = NULL;

    assert_int_equal(device->alloc_host(n_bytes, &sent), SH_OK);
    assert_int_equal(device->alloc(n_bytes, &there), SH_OK);
    assert_int_equal(device_backend->alloc(sh_tensor_bytes(desc), &images), SH_OK);
    memset(out, 0xFF, sh_tensor_bytes(desc));
    assert_int_equal(device_backend->copy_in(images, 0, out, sh_tensor_bytes(desc)), SH_OK);
    memcpy(sent, parcel, n_bytes);
    assert_int_equal(device->send(SH_QUEUE_INPUT, there, sent, n_bytes), SH_OK);
    assert_int_equal(device->mark_create(&arrived), SH_OK);
    assert_int_equal(device->mark_put(arrived, SH_QUEUE_INPUT), SH_OK);
    assert_int_equal(device->follow(SH_QUEUE_COMPUTE, arrived), SH_OK);
    assert_int_equal(
        device->render(SH_QUEUE_COMPUTE, there, desc, device_backend->device_ptr(images, 0)),
        SH_OK);
    assert_int_equal(device_backend->copy_out(images, 0, out, sh_tensor_bytes(desc)), SH_OK);
    assert_int_equal(device->mark_wait(arrived), SH_OK);
    device->mark_destroy(&arrived);
    device_backend->free(&images);
    device->free(there);
    device->free_host(sent);
}

static void check(sh_loader_config config, sh_dtype dtype, sh_layout layout)
{
    sh_tensor_desc desc = {dtype, layout, {N_IMAGES, config.channels, HEIGHT, WIDTH}};
    size_t n_bytes = sh_tensor_bytes(&desc);
    uint8_t *expected = malloc(n_bytes), *got = malloc(n_bytes);
    sh_image images[N_IMAGES];
    renderer r = {0};

    assert_true(expected != NULL && got != NULL);
    for (int i = 0; i < N_IMAGES; i++) images[i] = noise_image(i, config.channels);
    for (uint64_t draw = 0; draw < 40; draw += 20) {
        sh_parcel *parcel = pack_all(&config, images, draw);

        config.dtype = dtype;
        config.layout = layout;
        for (int i = 0; i < N_IMAGES; i++)
            assert_int_equal(render_crop(&r, &config, &images[i], draw + (uint64_t)i, expected, i),
                             SH_OK);
        render_there(parcel, &desc, got);
        assert_memory_equal(got, expected, n_bytes);
        free(parcel);
    }
    for (int i = 0; i < N_IMAGES; i++) sh_image_clear(&images[i]);
    renderer_clear(&r);
    free(expected);
    free(got);
}

static const sh_augment augments[] = {
    {0}, /* as in evaluation */
    {.flip = 0.5f, .flip_vertical = 0.5f, .erase = 0.5f},
    {.rotate = 10,
     .shift = 0.05f,
     .scale = 0.1f,
     .brightness = 0.2f,
     .contrast = 0.2f,
     .saturation = 0.1f}, /* the default */
    {.brightness = 0.4f, .contrast = 0.9f, .saturation = 0.8f, .hue = 90},
    {.rotate = 180, .shift = 0.4f, .scale = 0.6f, .hue = 20, .flip = 0.5f, .erase = 1},
};

static void check_rendering(void)
{
    for (int fit = SH_FIT_LETTERBOX; fit <= SH_FIT_COVER; fit++)
        for (int channels = 1; channels <= 3; channels += 2)
            for (size_t a = 0; a < SH_COUNT(augments); a++) {
                sh_loader_config config = {.height = HEIGHT,
                                           .width = WIDTH,
                                           .channels = channels,
                                           .fit = (sh_fit)fit,
                                           .mean = {0.485f, 0.456f, 0.406f},
                                           .std = {0.229f, 0.224f, 0.225f},
                                           .augment = augments[a],
                                           .seed = 5};

                check(config, a % 2 == 0 ? SH_F32 : SH_BF16, SH_NHWC);
                if (channels == 3) check(config, a % 2 == 0 ? SH_BF16 : SH_F32, SH_NHWC);
                if (channels == 3) check(config, SH_BF16, SH_NHWC8);
            }
    for (int kind = 0; kind < 3; kind++) assert_true(n_kinds[kind] > 10);
}

#endif
