// SPDX-License-Identifier: Apache-2.0
// prefix: cuda
// library: sh_models_cuda_emulated
/** Embeddings on a device, here the emulator, by recordings of the kernels and without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "models/cuda/cuda.h"
#include "models/cuda/emulator/order.h"
#include "trainer/infer.h"

enum { SIDE = 6, DIM = 4, N_CROPS = 5, N_WEIGHTS = 2 };

#define MUST(call) assert_int_equal(call, SH_OK)

/** Crops one after another, with other weights half-way; out [N_WEIGHTS, N_CROPS, DIM]. */
static void embed(bool graphs, int views, float *out)
{
    sh_store *store = NULL;
    sh_infer *infer = NULL;
    sh_infer_config config = {
        .head = {.tap = "cnn1.3", .dim = DIM, .normalize = true},
        .views = views,
        .graphs = graphs,
        .loader = {.threads = 1, .height = SIDE, .width = SIDE, .channels = 1, .std = {1, 1, 1}}};

    MUST(sh_net_find("siamese_orl", &config.net));
    MUST(sh_store_create(&sh_backend_cuda, &store));
    MUST(sh_infer_create(&config, store, &infer));
    for (int w = 0; w < N_WEIGHTS; w++) {
        MUST(sh_store_init(store, (uint64_t)w));
        sh_infer_refresh(infer);
        for (int i = 0; i < N_CROPS; i++) {
            uint8_t pixels[SIDE * SIDE];
            const sh_image image = {SIDE, SIDE, 1, pixels, 0};

            for (int k = 0; k < SIDE * SIDE; k++) pixels[k] = (uint8_t)(k * k * (i + 3));
            MUST(sh_infer_run_image(infer, &image, out + (w * N_CROPS + i) * DIM));
        }
    }
    sh_infer_destroy(&infer);
    sh_store_destroy(&store);
}

static void blocks__are_replayed_from_the_second_on_with_the_same_bytes(void **state)
{
    (void)state;
    for (int views = 1; views <= 2; views++) {
        float plain[N_WEIGHTS * N_CROPS * DIM], recorded[N_WEIGHTS * N_CROPS * DIM];
        long before = sh_emulator_plays();

        embed(false, views, plain);
        assert_int_equal(sh_emulator_plays(), before);
        embed(true, views, recorded);
        assert_int_equal(sh_emulator_plays(), before + N_WEIGHTS * N_CROPS * views - 1);
        assert_memory_equal(recorded, plain, sizeof(plain));
        for (int i = 1; i < N_WEIGHTS * N_CROPS; i++)
            assert_memory_not_equal(plain, plain + i * DIM, DIM * sizeof(float));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks__are_replayed_from_the_second_on_with_the_same_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
