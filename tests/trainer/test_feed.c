// SPDX-License-Identifier: Apache-2.0
// prefix: cuda
// library: sh_models_cuda_emulated
/** Images on their way into a network: the same bytes through a device, on the emulator, as through
 *  the host, whatever is asked for, sent and waited for in which order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include "dataio/make_dataset.h"
#include "models/cuda/cuda.h"
#include "models/cuda/emulator/order.h"
#include "trainer/feed.h"

enum { N_CROPS = 12, SIDE = 24, N_PLACES = 3, MAX_IMAGES = 5, N_BLOCKS = 8 };

static sh_dataset *dataset;

static int make_pack(void **state)
{
    sh_synth_config config = {
        .individuals = 3, .images = 4, .recordings = 2, .width = 80, .height = 48, .threads = 1};

    (void)state;
    dataset = make_synth_dataset(&config);
    return 0;
}

static int close_pack(void **state)
{
    (void)state;
    sh_dataset_close(&dataset);
    return 0;
}

/* Places of different sizes, as shards are. */
static int64_t images_of(int place)
{
    return MAX_IMAGES - place % 2;
}

static sh_feed *open_feed(const sh_backend *backend, sh_tensor_desc *blocks)
{
    sh_feed *feed = NULL;
    sh_feed_config config = {.backend = backend,
                             .dataset = dataset,
                             .loader = {.threads = 2,
                                        .height = SIDE,
                                        .width = SIDE,
                                        .channels = 3,
                                        .mean = {0.5f, 0.4f, 0.3f},
                                        .std = {0.2f, 0.3f, 0.4f},
                                        .augment = {.rotate = 10, .contrast = 0.2f, .erase = 0.3f},
                                        .seed = 3,
                                        .cache_bytes = 1 << 20},
                             .blocks = blocks,
                             .n_places = N_PLACES};

    for (int i = 0; i < N_PLACES; i++)
        blocks[i] = (sh_tensor_desc){SH_BF16, SH_NHWC, {images_of(i), 3, SIDE, SIDE}};
    MUST(sh_feed_create(&config, &feed));
    return feed;
}

static void ask(sh_feed *feed, int block)
{
    sh_slot_plan slots[MAX_IMAGES];

    for (int i = 0; i < MAX_IMAGES; i++)
        slots[i] = (sh_slot_plan){.crop = (block * 5 + i) % N_CROPS,
                                  .draw = (uint64_t)(block * MAX_IMAGES + i)};
    MUST(sh_feed_request(feed, block % N_PLACES, slots));
}

/* The images of each block, as [N_BLOCKS][a block], through a backend. eager: what is loaded is
 * sent at once; again: a place is waited for twice, as by a second pass. */
static uint16_t *images_through(const sh_backend *backend, bool eager, bool again)
{
    sh_tensor_desc blocks[N_PLACES];
    sh_feed *feed = open_feed(backend, blocks);
    size_t stride = sh_tensor_bytes(&blocks[0]);
    uint8_t *all = calloc(N_BLOCKS, stride);

    assert_non_null(all);
    for (int b = 0; b < N_PLACES; b++) ask(feed, b);
    for (int b = 0; b < N_BLOCKS; b++) {
        sh_input input;

        if (b == 4) MUST(sh_feed_settle(feed));
        for (int pass = 0; pass <= again; pass++) {
            MUST(sh_feed_wait(feed, b % N_PLACES, &input));
            if (eager) MUST(sh_feed_send(feed));
        }
        if (backend->device == NULL) {
            assert_null(input.parcel);
            memcpy(all + (size_t)b * stride, input.host, sh_tensor_bytes(&blocks[b % N_PLACES]));
        } else {
            assert_null(input.host);
            MUST(backend->device->render(SH_QUEUE_COMPUTE, input.parcel, &blocks[b % N_PLACES],
                                         all + (size_t)b * stride));
        }
        if (b + N_PLACES < N_BLOCKS) ask(feed, b + N_PLACES);
    }
    assert_null(sh_emulator_fault());
    sh_loader_stats stats;

    sh_feed_get_stats(feed, &stats);
    assert_true(stats.n_crops >= N_BLOCKS * (MAX_IMAGES - 1) && stats.n_cached > 0);
    sh_feed_destroy(&feed);
    return (uint16_t *)(void *)all;
}

static void feed__has_the_same_images_through_a_device(void **state)
{
    const sh_backend *host = NULL;
    const size_t n_bytes = (size_t)N_BLOCKS * MAX_IMAGES * SIDE * SIDE * 3 * sizeof(uint16_t);

    (void)state;
    MUST(sh_backend_find("cpu", &host));
    sh_backend plain = *host;

    assert_null(plain.device);
    uint16_t *expected = images_through(&plain, false, false);

    for (int i = 1; i < N_BLOCKS; i++) /* or the equality below would mean little */
        assert_memory_not_equal(expected, expected + i * MAX_IMAGES * SIDE * SIDE * 3, 1000);
    for (int how = 0; how < 4; how++) {
        uint16_t *got = images_through(&sh_backend_cuda, how & 1, how & 2);

        assert_memory_equal(got, expected, n_bytes);
        free(got);
    }
    free(expected);
}

static void feed__refuses_to_wait_for_what_nobody_asked_for(void **state)
{
    sh_tensor_desc blocks[N_PLACES];
    sh_feed *feed = open_feed(&sh_backend_cuda, blocks);
    sh_input input;

    (void)state;
    assert_int_equal(sh_feed_wait(feed, 0, &input), SH_ERR_INTERNAL);
    ask(feed, 0);
    sh_feed_destroy(&feed); /* with a request under way */
    assert_null(feed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(feed__has_the_same_images_through_a_device),
        cmocka_unit_test(feed__refuses_to_wait_for_what_nobody_asked_for),
    };

    return cmocka_run_group_tests(tests, make_pack, close_pack);
}
