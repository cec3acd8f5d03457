// SPDX-License-Identifier: Apache-2.0
/* Inference over a store with random weights: what views of a crop do to its embedding. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "trainer/infer.h"

enum { SIDE = 32, DIM = 16 };

#define MUST(call) assert_int_equal(call, SH_OK)

typedef struct fixture {
    sh_store *store;
    sh_infer *infer;
} fixture;

static fixture open_fixture(int views)
{
    fixture f = {0};
    const sh_backend *backend = NULL;
    sh_infer_config config = {
        .dtype = SH_F32,
        .head = {.dim = DIM, .normalize = true},
        .views = views,
        .loader = {.threads = 1, .height = SIDE, .width = SIDE, .channels = 3}};

    MUST(sh_net_find("mobilenet_v2", &config.net));
    memcpy(config.loader.mean, config.net->mean, sizeof(config.loader.mean));
    memcpy(config.loader.std, config.net->std, sizeof(config.loader.std));
    MUST(sh_backend_find("cpu", &backend));
    MUST(sh_store_create(backend, &f.store));
    MUST(sh_infer_create(&config, f.store, &f.infer));
    MUST(sh_store_init(f.store, 1));
    return f;
}

static void close_fixture(fixture *f)
{
    sh_infer_destroy(&f->infer);
    sh_store_destroy(&f->store);
}

/* Noise, mirrored left to right, upside down, or both. */
static void embed(const fixture *f, bool mirrored, bool upside_down, float out[DIM])
{
    uint8_t pixels[SIDE * SIDE * 3];
    sh_rng_key key = sh_rng_make(1, SH_RNG_TEST, 0, 0);

    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            for (int c = 0; c < 3; c++) {
                int from_y = upside_down ? SIDE - 1 - y : y, from_x = mirrored ? SIDE - 1 - x : x;

                pixels[3 * (y * SIDE + x) + c] =
                    (uint8_t)sh_rng_bits(key, (uint64_t)(3 * (from_y * SIDE + from_x) + c));
            }
    const sh_image image = {.width = SIDE, .height = SIDE, .channels = 3, .pixels = pixels};

    MUST(sh_infer_run_image(f->infer, &image, out));
}

static float distance(const float *a, const float *b)
{
    float sum = 0;

    for (int i = 0; i < DIM; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrtf(sum);
}

static void views__make_embeddings_blind_to_their_flips(void **state)
{
    (void)state;
    for (int views = 1; views <= 4; views *= 2) {
        fixture f = open_fixture(views);
        float plain[DIM], mirrored[DIM], turned[DIM], zero[DIM] = {0};

        embed(&f, false, false, plain);
        embed(&f, true, false, mirrored);
        embed(&f, true, true, turned);
        assert_true(fabsf(distance(plain, zero) - 1) < 1e-5f);
        assert_true((distance(plain, mirrored) < 1e-6f) == (views >= 2));
        assert_true((distance(plain, turned) < 1e-6f) == (views == 4));
        close_fixture(&f);
    }
}

static void refresh__takes_weights_that_changed_since_the_first_run(void **state)
{
    fixture f = open_fixture(1), other = open_fixture(1);
    float first[DIM], taken[DIM], expected[DIM];

    (void)state;
    MUST(sh_store_init(other.store, 2));
    embed(&other, false, false, expected);
    embed(&f, false, false, first);
    MUST(sh_store_init(f.store, 2));
    sh_infer_refresh(f.infer);
    embed(&f, false, false, taken);
    assert_memory_equal(taken, expected, sizeof(expected));
    assert_true(distance(first, expected) > 1e-3f);
    close_fixture(&other);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refresh__takes_weights_that_changed_since_the_first_run),
        cmocka_unit_test(views__make_embeddings_blind_to_their_flips),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
