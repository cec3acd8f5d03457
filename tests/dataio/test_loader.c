// SPDX-License-Identifier: Apache-2.0
// timeout: 120
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <math.h>

#include "base/rng.h"
#include "dataio/loader.h"
#include "tests/dataio/make_dataset.h"

enum { N_CROPS = 48, HEIGHT = 40, WIDTH = 72, IMAGE_FLOATS = 3 * HEIGHT * WIDTH };

static sh_dataset *dataset;

static int make_pack(void **state)
{
    sh_synth_config config = {
        .individuals = 6, .images = 8, .recordings = 3, .width = 160, .height = 96, .threads = 1};

    (void)state;
    dataset = make_synth_dataset(&config);
    assert_int_equal(sh_dataset_n_crops(dataset), N_CROPS);
    return 0;
}

static int close_pack(void **state)
{
    (void)state;
    sh_dataset_close(&dataset);
    return 0;
}

static sh_loader_config training(int threads)
{
    return (sh_loader_config){
        .threads = threads,
        .height = HEIGHT,
        .width = WIDTH,
        .channels = 3,
        .fit = SH_FIT_LETTERBOX,
        .mean = {0.485f, 0.456f, 0.406f},
        .std = {0.229f, 0.224f, 0.225f},
        .augment = {10, 0.05f, 0.1f, 0.2f, 0.2f, 0.2f, 10, 0.5f, 0, 0.3f},
        .seed = 5,
        .dtype = SH_F32,
        .layout = SH_NCHW,
    };
}

/* Slot i of the reference shows crop i % N_CROPS under draw 1000 + i. */
static void fill_slots(sh_slot_plan *slots, int n)
{
    for (int i = 0; i < n; i++)
        slots[i] = (sh_slot_plan){.crop = i % N_CROPS, .draw = 1000 + (uint64_t)i};
}

static void load(sh_loader *loader, const sh_slot_plan *slots, int n, float *out)
{
    MUST(sh_loader_request(loader, slots, n, out));
    MUST(sh_loader_wait(loader));
}

static void load__gives_equal_bytes_for_any_threads_order_and_cache(void **state)
{
    enum { N = 2 * N_CROPS };
    static const size_t caches[] = {0, 200000, 1 << 30};
    size_t n_bytes = (size_t)N * IMAGE_FLOATS * sizeof(float);
    float *expected = malloc(n_bytes), *got = malloc(n_bytes);
    sh_slot_plan slots[N], shuffled[N];
    int64_t order[N];

    (void)state;
    assert_true(expected != NULL && got != NULL);
    fill_slots(slots, N);
    for (int i = 0; i < N; i++) {
        sh_image image = {0};
        sh_loader_config config = training(1);
        const sh_crop *crop = sh_dataset_crop(dataset, slots[i].crop);
        int min_width, min_height;

        sh_loader_decode_size(&config, crop->width, crop->height, &min_width, &min_height);
        MUST(sh_dataset_decode(dataset, slots[i].crop, 3, min_width, min_height, &image));
        MUST(sh_loader_render(&config, &image, slots[i].draw, expected, N, i));
        sh_image_clear(&image);
    }
    for (int i = 1; i < N; i++) /* the test would be hollow if all images were alike */
        assert_memory_not_equal(expected, expected + i * IMAGE_FLOATS, IMAGE_FLOATS * 4);
    for (int threads = 1; threads <= 4; threads++)
        for (size_t c = 0; c < SH_COUNT(caches); c++) {
            sh_loader_config config = training(threads);
            sh_loader *loader = NULL;

            config.cache_bytes = caches[c];
            MUST(sh_loader_create(&config, dataset, &loader));
            memset(got, 0xFF, n_bytes);
            for (int i = 0; i < N; i++) order[i] = i;
            sh_rng_shuffle(sh_rng_make(3, SH_RNG_TEST, (uint64_t)threads, c), order, N);
            for (int i = 0; i < N; i++) shuffled[i] = slots[order[i]];
            load(loader, shuffled, N, got);
            for (int i = 0; i < N; i++)
                assert_memory_equal(got + i * IMAGE_FLOATS, expected + order[i] * IMAGE_FLOATS,
                                    IMAGE_FLOATS * sizeof(float));
            sh_loader_destroy(&loader);
        }
    free(expected);
    free(got);
}

static void requests__finish_in_order_each_in_its_place(void **state)
{
    enum { N_REQUESTS = 12 };
    sh_loader_config config = training(3);
    sh_loader *loader = NULL;
    sh_slot_plan slots[N_CROPS];
    float *all = malloc((size_t)N_CROPS * IMAGE_FLOATS * sizeof(float));
    float *got = malloc((size_t)N_CROPS * IMAGE_FLOATS * sizeof(float));

    (void)state;
    assert_true(all != NULL && got != NULL);
    fill_slots(slots, N_CROPS);
    MUST(sh_loader_create(&config, dataset, &loader));
    load(loader, slots, N_CROPS, all);
    for (int round = 0; round < 3; round++) {
        memset(got, 0xFF, (size_t)N_CROPS * IMAGE_FLOATS * sizeof(float));
        for (int i = 0; i < N_REQUESTS; i++)
            MUST(sh_loader_request(loader, slots + 4 * i, 4, got + 4 * i * IMAGE_FLOATS));
        for (int i = 0; i < N_REQUESTS; i++) {
            MUST(sh_loader_wait(loader));
            assert_memory_equal(got + 4 * i * IMAGE_FLOATS, all + 4 * i * IMAGE_FLOATS,
                                4 * IMAGE_FLOATS * sizeof(float));
        }
    }
    sh_loader_stats stats;

    sh_loader_get_stats(loader, &stats);
    assert_int_equal(stats.n_crops, 4 * N_CROPS);
    assert_true(stats.busy_seconds > 0 && stats.decode_seconds > 0 && stats.warp_seconds > 0);
    assert_int_equal(sh_loader_wait(loader), SH_ERR_INTERNAL); /* nothing is under way */
    sh_loader_destroy(&loader);
    free(all);
    free(got);
}

/* What a device is told of image i, and its pixels, wherever in the parcel they are. */
static sh_parcel_image image_of(const sh_parcel *parcel, int i, const uint8_t **pixels)
{
    sh_parcel_image image = ((const sh_parcel_image *)(parcel + 1))[i];

    *pixels = (const uint8_t *)parcel + image.pixels;
    image.pixels = 0;
    return image;
}

static void parcels__hold_equal_images_for_any_threads_and_cache(void **state)
{
    sh_loader_config config = training(1);
    size_t room = sh_loader_parcel_bytes(&config, N_CROPS);
    sh_parcel *expected = calloc(1, room), *got = calloc(1, room);
    sh_slot_plan slots[N_CROPS];

    (void)state;
    assert_true(expected != NULL && got != NULL);
    fill_slots(slots, N_CROPS);
    config.parcels = true;
    for (int threads = 1; threads <= 3; threads++)
        for (int pass = 0; pass < 2; pass++) {
            sh_parcel *parcel = threads == 1 && pass == 0 ? expected : got;
            sh_loader *loader = NULL;

            config.threads = threads;
            config.cache_bytes = pass == 0 ? 0 : 1 << 30;
            MUST(sh_loader_create(&config, dataset, &loader));
            assert_false(sh_loader_is_ready(loader));
            for (int i = 0; i <= pass; i++) {
                MUST(sh_loader_request(loader, slots, N_CROPS, parcel));
                MUST(sh_loader_wait(loader));
            }
            sh_loader_destroy(&loader);
            assert_int_equal(parcel->n_images, N_CROPS);
            assert_true(parcel->n_bytes > N_CROPS * 80 * 48 * 3);
            assert_true((size_t)parcel->n_bytes < room); /* bytes of pixels, not of f32 */
            for (int i = 0; i < N_CROPS; i++) {
                const uint8_t *pixels[2];
                sh_parcel_image a = image_of(expected, i, &pixels[0]);
                sh_parcel_image b = image_of(parcel, i, &pixels[1]);

                assert_memory_equal(&a, &b, sizeof(a));
                assert_int_equal(a.kind, SH_PARCEL_WARP);
                assert_memory_equal(pixels[0], pixels[1], (size_t)a.width * a.height * 3);
            }
        }
    free(expected);
    free(got);
}

static void destroy__gives_up_requests_under_way(void **state)
{
    sh_loader_config config = training(2);
    sh_slot_plan slots[N_CROPS];
    float *out = malloc((size_t)N_CROPS * IMAGE_FLOATS * sizeof(float));

    (void)state;
    assert_non_null(out);
    fill_slots(slots, N_CROPS);
    for (int i = 0; i < 20; i++) {
        sh_loader *loader = NULL;

        MUST(sh_loader_create(&config, dataset, &loader));
        MUST(sh_loader_request(loader, slots, N_CROPS, out));
        MUST(sh_loader_request(loader, slots, N_CROPS / 2, out));
        sh_loader_destroy(&loader);
        assert_null(loader);
    }
    free(out);
}

static void cache__serves_a_crop_after_its_first_use_within_its_bytes(void **state)
{
    sh_loader_config config = training(2);
    sh_slot_plan slots[N_CROPS];
    sh_loader_stats stats;
    float *out = malloc((size_t)N_CROPS * IMAGE_FLOATS * sizeof(float));
    size_t crop_bytes = 80 * 48 * 3; /* 1.1 * 67 x 1.1 * 40 are needed: decoded at half size */

    (void)state;
    assert_non_null(out);
    fill_slots(slots, N_CROPS);
    for (size_t room = 0; room <= N_CROPS; room += N_CROPS / 2) {
        sh_loader *loader = NULL;

        config.cache_bytes = room * crop_bytes;
        config.threads = 1;
        MUST(sh_loader_create(&config, dataset, &loader));
        load(loader, slots, N_CROPS, out);
        load(loader, slots, N_CROPS, out);
        sh_loader_get_stats(loader, &stats);
        assert_int_equal(stats.n_cached, room);
        sh_loader_destroy(&loader);
    }
    free(out);
}

static void decode_size__never_makes_the_input_coarser(void **state)
{
    sh_loader_config config = training(1);

    (void)state;
    for (int fit = SH_FIT_LETTERBOX; fit <= SH_FIT_COVER; fit++)
        for (int width = 1; width < 3000; width = width * 3 / 2 + 1)
            for (int height = 1; height < 3000; height = height * 3 / 2 + 1) {
                float x = (float)WIDTH / (float)width, y = (float)HEIGHT / (float)height;
                float least = fminf(x, y), most = fmaxf(x, y);
                int min_width, min_height;

                config.fit = (sh_fit)fit;
                sh_loader_decode_size(&config, width, height, &min_width, &min_height);
                if (fit != SH_FIT_STRETCH) x = y = fit == SH_FIT_COVER ? most : least;
                /* zoomed by up to 1.1, a source pixel is still no larger than an input pixel */
                assert_true((float)min_width >= 1.0999f * x * (float)width);
                assert_true((float)min_height >= 1.0999f * y * (float)height);
            }
}

/* Overwrite the middle of the largest file in the folder. */
static void damage_pack(const char *path)
{
    int fd = open(path, O_RDWR);
    off_t size = lseek(fd, 0, SEEK_END);
    uint8_t junk[64];

    assert_true(fd >= 0);
    memset(junk, 0x5A, sizeof(junk));
    for (off_t at = size / 4; at < size * 3 / 4; at += 1024)
        assert_int_equal(pwrite(fd, junk, sizeof(junk), at), sizeof(junk));
    close(fd);
}

static void wait__names_pack_and_crop_that_cannot_be_read(void **state)
{
    sh_synth_config synth = {
        .individuals = 4, .images = 8, .recordings = 3, .width = 160, .height = 96, .threads = 1};
    sh_loader_config config = training(2);
    sh_loader *loader = NULL;
    sh_dataset *damaged = NULL;
    char folder[256], path[300];
    const char *paths[] = {path};
    sh_slot_plan slots[32];
    float *out = malloc((size_t)32 * IMAGE_FLOATS * sizeof(float));
    int failed = -1;

    (void)state;
    assert_non_null(out);
    make_temp_folder(folder);
    snprintf(path, sizeof(path), "%s/damaged.h5", folder);
    MUST(sh_synth_write(&synth, path, NULL));
    MUST(sh_dataset_open(paths, 1, &damaged));
    damage_pack(path);
    fill_slots(slots, 32);
    MUST(sh_loader_create(&config, damaged, &loader));
    for (int i = 0; i < 32 && failed < 0; i++) {
        MUST(sh_loader_request(loader, &slots[i], 1, out));
        if (sh_loader_wait(loader) != SH_OK) failed = i;
    }
    assert_true(failed >= 0);
    assert_non_null(strstr(sh_error_message(), "damaged.h5"));
    assert_non_null(strstr(sh_error_message(), sh_dataset_crop(damaged, failed)->name));
    /* In a larger request the first image that failed is named, whatever thread met it. */
    MUST(sh_loader_request(loader, slots, 32, out));
    assert_int_equal(sh_loader_wait(loader), SH_ERR_FORMAT);
    assert_non_null(strstr(sh_error_message(), sh_dataset_crop(damaged, failed)->name));
    sh_loader_destroy(&loader);
    sh_dataset_close(&damaged);
    MUST(sh_file_remove_tree(folder));
    free(out);
}

static void fit_part__takes_small_crops_out_of_the_part_alone(void **state)
{
    sh_loader_config config = training(1);
    sh_split split = all_train(dataset);
    sh_fit_counts counts;

    (void)state;
    split.part[0] = SH_PART_VAL;
    config.min_side = 96;
    sh_loader_fit_part(&config, dataset, SH_PART_TRAIN, &split, &counts);
    assert_int_equal(counts.n_small, 0);
    assert_int_equal(counts.n_crops, N_CROPS - 1);
    assert_int_equal(counts.n_enlarged, 0);
    assert_int_equal(counts.n_bytes, (N_CROPS - 1) * 80 * 48 * 3); /* decoded at half size */
    config.min_side = 97;
    sh_loader_fit_part(&config, dataset, SH_PART_TRAIN, &split, &counts);
    assert_int_equal(counts.n_small, N_CROPS - 1);
    assert_int_equal(counts.n_crops, 0);
    assert_int_equal(split.part[0], SH_PART_VAL);
    for (int i = 1; i < N_CROPS; i++) assert_int_equal(split.part[i], SH_PART_NONE);
    sh_split_clear(&split);
}

/* Real crops of many shapes: everything is finite, and no image is blank. */
static void load__copes_with_real_crops(void **state)
{
    const char *data = getenv("SHOAL_DATA"), *source = getenv("SHOAL_SOURCE");
    char path[600], name[1100];
    sh_loader_config config = training(1);
    float *out = malloc(IMAGE_FLOATS * sizeof(float));
    int n = 0;

    (void)state;
    assert_non_null(out);
    if (data != NULL)
        snprintf(path, sizeof(path), "%s/fs48_train/gt_bbox_train", data);
    else
        snprintf(path, sizeof(path), "%s/../shared/data/fs48_train/gt_bbox_train",
                 source != NULL ? source : ".");
    DIR *dir = opendir(path);

    if (dir == NULL) {
        free(out);
        print_message("no real images at %s: set SHOAL_DATA\n", path);
        skip();
    }
    for (struct dirent *e = readdir(dir); e != NULL && n < 200; e = readdir(dir)) {
        char *bytes = NULL;
        size_t n_bytes = 0;
        sh_image image = {0};
        double sum = 0, squares = 0;

        if (strstr(e->d_name, ".jpg") == NULL) continue;
        snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
        MUST(sh_file_get(name, 1 << 26, &bytes, &n_bytes));
        MUST(sh_image_decode(bytes, n_bytes, e->d_name, 3, 0, 0, &image));
        MUST(sh_loader_render(&config, &image, (uint64_t)n, out, 1, 0));
        for (int i = 0; i < IMAGE_FLOATS; i++) {
            assert_true(isfinite(out[i]) && fabsf(out[i]) < 3);
            sum += out[i];
            squares += out[i] * out[i];
        }
        assert_true(squares / IMAGE_FLOATS - pow(sum / IMAGE_FLOATS, 2) > 1e-3);
        sh_image_clear(&image);
        free(bytes);
        n++;
    }
    closedir(dir);
    free(out);
    assert_true(n > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load__gives_equal_bytes_for_any_threads_order_and_cache),
        cmocka_unit_test(requests__finish_in_order_each_in_its_place),
        cmocka_unit_test(parcels__hold_equal_images_for_any_threads_and_cache),
        cmocka_unit_test(destroy__gives_up_requests_under_way),
        cmocka_unit_test(cache__serves_a_crop_after_its_first_use_within_its_bytes),
        cmocka_unit_test(decode_size__never_makes_the_input_coarser),
        cmocka_unit_test(wait__names_pack_and_crop_that_cannot_be_read),
        cmocka_unit_test(fit_part__takes_small_crops_out_of_the_part_alone),
        cmocka_unit_test(load__copes_with_real_crops),
    };

    return cmocka_run_group_tests(tests, make_pack, close_pack);
}
