// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include "dataio/synth.h"
#include "tests/dataio/make_dataset.h"

static const sh_synth_config small = {.individuals = 9,
                                      .images = 12,
                                      .recordings = 7,
                                      .width = 96,
                                      .height = 48,
                                      .threads = 2,
                                      .seed = 4};

static char folder[256];

static int make_folder(void **state)
{
    (void)state;
    make_temp_folder(folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return sh_file_remove_tree(folder) == SH_OK ? 0 : -1;
}

static void draw__is_a_pure_function_of_seed_and_index(void **state)
{
    sh_image a = {0}, b = {0};
    sh_synth_config config = small;
    size_t n_bytes = 96 * 48 * 3;

    (void)state;
    MUST(sh_synth_draw(&config, 50, &a, NULL));
    config.threads = 1;
    MUST(sh_synth_draw(&config, 51, &b, NULL));
    assert_memory_not_equal(a.pixels, b.pixels, n_bytes);
    MUST(sh_synth_draw(&config, 50, &b, NULL));
    assert_memory_equal(a.pixels, b.pixels, n_bytes);
    config.seed++;
    MUST(sh_synth_draw(&config, 50, &b, NULL));
    assert_memory_not_equal(a.pixels, b.pixels, n_bytes);
    sh_image_clear(&a);
    sh_image_clear(&b);
}

static void truth__puts_each_fish_in_several_recordings_on_both_sides(void **state)
{
    sh_synth_truth truth;
    bool seen[9][7] = {{false}};
    int sides[9][3] = {{0}}, fish_in[7] = {0};

    (void)state;
    for (int64_t i = 0; i < sh_synth_n_images(&small); i++) {
        int fish = -1, recording = -1, frame = -1;
        char side[8];

        MUST(sh_synth_draw(&small, i, NULL, &truth));
        assert_int_equal(
            sscanf(truth.name, "fish%3d_%7[a-z]_rec%2d_%4d.jpg", &fish, side, &recording, &frame),
            4);
        assert_in_range(fish, 0, 8);
        assert_in_range(recording, 0, 6);
        assert_int_equal(frame, truth.frame);
        assert_string_equal(side, truth.side == SH_SIDE_LEFT ? "left" : "right");
        fish_in[recording] += !seen[fish][recording];
        seen[fish][recording] = true;
        sides[fish][truth.side]++;
    }
    for (int f = 0; f < 9; f++) {
        int n = 0;

        for (int r = 0; r < 7; r++) n += seen[f][r];
        assert_int_equal(n, 4);
        assert_int_equal(sides[f][SH_SIDE_LEFT] + sides[f][SH_SIDE_RIGHT], 12);
        assert_true(sides[f][SH_SIDE_LEFT] >= 4 && sides[f][SH_SIDE_RIGHT] >= 4);
    }
    for (int r = 0; r < 7; r++) assert_true(fish_in[r] >= 2);
}

static void write__gives_equal_packs_for_any_threads_and_folders_alike(void **state)
{
    char path[2][300], images[300], name[400];
    const char *paths[] = {path[0]};
    char *bytes[2] = {NULL, NULL};
    size_t n_bytes[2];
    sh_dataset *dataset = NULL;
    uint8_t *crop_bytes = NULL;
    size_t capacity = 0, n_crop_bytes;
    sh_image_format format;

    (void)state;
    snprintf(images, sizeof(images), "%s/images", folder);
    for (int i = 0; i < 2; i++) {
        sh_synth_config config = small;

        config.threads = 1 + 2 * i;
        snprintf(path[i], sizeof(path[i]), "%s/%d.h5", folder, i);
        MUST(sh_synth_write(&config, path[i], i == 0 ? images : NULL));
        MUST(sh_file_get(path[i], 1 << 26, &bytes[i], &n_bytes[i]));
    }
    assert_int_equal(n_bytes[0], n_bytes[1]);
    assert_memory_equal(bytes[0], bytes[1], n_bytes[0]);
    free(bytes[0]);
    free(bytes[1]);

    MUST(sh_dataset_open(paths, 1, &dataset));
    assert_int_equal(sh_dataset_n_crops(dataset), 9 * 12);
    assert_int_equal(sh_dataset_n_individuals(dataset), 9);
    for (int64_t i = 0; i < 9 * 12; i++) {
        const sh_crop *crop = sh_dataset_crop(dataset, i);
        sh_synth_truth truth;

        MUST(sh_synth_draw(&small, i, NULL, &truth));
        assert_string_equal(crop->name, truth.name);
        assert_string_equal(sh_dataset_individual(dataset, crop->individual), truth.individual);
        assert_string_equal(sh_dataset_recording(dataset, crop->recording), truth.recording);
        assert_int_equal(crop->side, truth.side);
        assert_int_equal(crop->time, truth.time);
        MUST(sh_dataset_read(dataset, i, &crop_bytes, &capacity, &n_crop_bytes, &format));
        assert_int_equal(format, SH_IMAGE_JPEG);
        snprintf(name, sizeof(name), "%s/%s", images, crop->name);
        MUST(sh_file_get(name, 1 << 20, &bytes[0], &n_bytes[0]));
        assert_int_equal(n_bytes[0], n_crop_bytes);
        assert_memory_equal(bytes[0], crop_bytes, n_crop_bytes);
        free(bytes[0]);
    }
    free(crop_bytes);
    sh_dataset_close(&dataset);
}

/* Mean hue of an image (shares of its colours, since exposure varies from image to image), which is
 * what a fish must not be known by. */
static void mean_hue(const sh_synth_config *config, int64_t index, double mean[3])
{
    sh_image image = {0};
    int n = config->width * config->height;

    MUST(sh_synth_draw(config, index, &image, NULL));
    mean[0] = mean[1] = mean[2] = 0;
    for (int i = 0; i < 3 * n; i++) mean[i % 3] += image.pixels[i];
    double sum = mean[0] + mean[1] + mean[2];

    for (int c = 0; c < 3; c++) mean[c] /= sum;
    sh_image_clear(&image);
}

static void hue__varies_with_the_recording_more_than_with_the_fish(void **state)
{
    sh_synth_config config = small;
    double within_recording = 0, within_fish = 0;
    int n_recording = 0, n_fish = 0;
    static double colours[60][3];
    static sh_synth_truth truths[60];

    (void)state;
    config.individuals = 30;
    for (int i = 0; i < 60; i++) {
        int64_t index = (int64_t)(i / 2) * config.images + i % 2; /* two recordings of each fish */

        mean_hue(&config, index, colours[i]);
        MUST(sh_synth_draw(&config, index, NULL, &truths[i]));
    }
    for (int i = 0; i < 60; i++)
        for (int j = 0; j < i; j++) {
            bool fish = strcmp(truths[i].individual, truths[j].individual) == 0;
            bool recording = strcmp(truths[i].recording, truths[j].recording) == 0;
            double d = 0;

            for (int c = 0; c < 3; c++) {
                double e = colours[i][c] - colours[j][c];

                d += e * e;
            }
            if (recording && !fish) within_recording += d, n_recording++;
            if (fish && !recording) within_fish += d, n_fish++;
        }
    assert_true(n_recording > 20 && n_fish > 20);
    assert_true(within_recording / n_recording < 0.3 * within_fish / n_fish);
}

static void check__names_what_cannot_be_drawn(void **state)
{
    sh_synth_config config = small;

    (void)state;
    config.individuals = 1;
    assert_int_equal(sh_synth_check(&config), SH_ERR_USAGE);
    config = small;
    config.width = 15;
    assert_int_equal(sh_synth_check(&config), SH_ERR_USAGE);
    config = small;
    config.recordings = 0;
    assert_int_equal(sh_synth_check(&config), SH_ERR_USAGE);
    assert_int_equal(sh_synth_draw(&small, 9 * 12, NULL, NULL), SH_ERR_USAGE);
}

static void draw__copes_with_the_smallest_sets_and_sizes(void **state)
{
    sh_synth_config config = {
        .individuals = 2, .images = 3, .recordings = 1, .width = 16, .height = 16, .threads = 1};
    sh_image image = {0};

    (void)state;
    for (int64_t i = 0; i < 6; i++) {
        sh_synth_truth truth;

        MUST(sh_synth_draw(&config, i, &image, &truth));
        assert_string_equal(truth.recording, "rec00");
    }
    sh_image_clear(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draw__is_a_pure_function_of_seed_and_index),
        cmocka_unit_test(truth__puts_each_fish_in_several_recordings_on_both_sides),
        cmocka_unit_test(write__gives_equal_packs_for_any_threads_and_folders_alike),
        cmocka_unit_test(hue__varies_with_the_recording_more_than_with_the_fish),
        cmocka_unit_test(check__names_what_cannot_be_drawn),
        cmocka_unit_test(draw__copes_with_the_smallest_sets_and_sizes),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
