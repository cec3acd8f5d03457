// SPDX-License-Identifier: Apache-2.0
// timeout: 300
/* Whole runs with made-up weights: embedder, evaluation of the split and of other packs, files,
 * comparison, embeddings as HDF5, identification from folders. */
#include <hdf5.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "dataio/csv.h"
#include "dataio/synth.h"
#include "models/weights/weights.h"
#include "trainer/commands.h"
#include "trainer/compare.h"
#include "trainer/device.h"
#include "trainer/embedder.h"
#include "trainer/infer.h"
#include "trainer/report.h"
#include "trainer/run.h"

#define assert_close(a, b, tolerance) assert_true(fabs((a) - (b)) <= (tolerance))

enum { FISH = 12, IMAGES = 6, N = FISH * IMAGES, TEXT = 512 };

static char folder[64], pack[128], other_pack[128], images[128], run_a[128], run_b[128];

static void path_in(const char *parent, const char *name, char out[TEXT])
{
    if (sh_path_join(parent, name, out, TEXT) != SH_OK) fail_msg("%s", sh_error_message());
}

/* What `shoal train` leaves behind, with initial weights of `seed` as the result. */
static sh_status make_run(const char *run, int seed, const char *split_by)
{
    sh_status st = SH_OK;
    char data[TEXT], seeds[TEXT], path[TEXT];
    const char *const assignments[] = {
        data,        seeds,   "size=32", "steps=1", "split.test=0.4", "split.val=0.3",
        "threads=1", split_by};
    const char *paths[] = {pack};
    const sh_backend *backend = NULL;
    char *text = NULL;
    size_t n_bytes = 0;
    sh_dataset *dataset = NULL;
    sh_split split = {0};
    sh_split_config split_config;
    sh_store *store = NULL;
    sh_infer *infer = NULL;
    sh_infer_config infer_config = {.views = 1};
    sh_config *config = malloc(sizeof(*config));

    snprintf(data, TEXT, "data=%s", pack);
    snprintf(seeds, TEXT, "seed=%d", seed);
    SH_TRY(sh_config_load(NULL, assignments, SH_COUNT(assignments), config));
    SH_TRY(sh_file_make_dirs(run));
    SH_TRY(sh_options_write(sh_config_options(), config, &text, &n_bytes));
    path_in(run, "config.yaml", path);
    SH_TRY(sh_file_put(path, text, n_bytes));
    SH_TRY(sh_dataset_open(paths, 1, &dataset));
    split_config = sh_config_split(config);
    split_config.seed = 1; /* both runs ask the same */
    SH_TRY(sh_split_compute(dataset, &split_config, &split));
    path_in(run, "split.csv", path);
    SH_TRY(sh_split_write(&split, dataset, path));

    SH_TRY(sh_config_head(config, &infer_config.head));
    SH_TRY(sh_net_find(config->net, &infer_config.net));
    SH_TRY(sh_config_loader(config, false, &infer_config.loader));
    SH_TRY(sh_device_choose(config, &backend));
    SH_TRY(sh_store_create(backend, &store));
    SH_TRY(sh_infer_create(&infer_config, store, &infer));
    SH_TRY(sh_store_init(store, (uint64_t)seed + 100)); /* other weights than "untrained" */
    path_in(run, "model.safetensors", path);
    SH_TRY(sh_weights_save(path, store, NULL, 0, NULL, NULL));
out:
    free(config);
    free(text);
    sh_infer_destroy(&infer);
    sh_store_destroy(&store);
    sh_split_clear(&split);
    sh_dataset_close(&dataset);
    return st;
}

static int open_world(void **state)
{
    sh_synth_config config = {.individuals = FISH,
                              .images = IMAGES,
                              .recordings = 3,
                              .width = 48,
                              .height = 32,
                              .threads = 2,
                              .seed = 7};

    (void)state;
    strcpy(folder, "/tmp/shoal-test-XXXXXX");
    if (mkdtemp(folder) == NULL) return -1;
    snprintf(pack, sizeof(pack), "%s/crops.h5", folder);
    snprintf(other_pack, sizeof(other_pack), "%s/other.h5", folder);
    snprintf(images, sizeof(images), "%s/images", folder);
    snprintf(run_a, sizeof(run_a), "%s/a", folder);
    snprintf(run_b, sizeof(run_b), "%s/b", folder);
    if (sh_synth_write(&config, pack, NULL) != SH_OK) return -1;
    config.seed = 8; /* other fish of the same names */
    config.individuals = FISH + 3;
    if (sh_synth_write(&config, other_pack, images) != SH_OK) return -1;
    if (make_run(run_a, 1, "split.by=individual") != SH_OK ||
        make_run(run_b, 2, "split.by=individual") != SH_OK) {
        fprintf(stderr, "%s\n", sh_error_message());
        return -1;
    }
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    return sh_file_remove_tree(folder) == SH_OK ? 0 : -1;
}

static void embedder__gives_a_crop_the_same_bytes_in_any_company(void **state)
{
    (void)state;
    const char *paths[] = {pack};
    sh_dataset *dataset = NULL;
    sh_embedder *embedder = NULL, *untrained = NULL;
    int64_t crops[N], one = 37;
    sh_image image = {0};

    assert_int_equal(sh_dataset_open(paths, 1, &dataset), SH_OK);
    assert_int_equal(sh_embedder_create(run_a, false, 2, &embedder), SH_OK);
    assert_int_equal(sh_embedder_create(run_a, true, 2, &untrained), SH_OK);

    int64_t dim = sh_embedder_dim(embedder);
    float *forward = calloc((size_t)(N * dim), sizeof(float));
    float *backward = calloc((size_t)(N * dim), sizeof(float));
    float *alone = calloc((size_t)dim, sizeof(float));

    for (int i = 0; i < N; i++) crops[i] = i;
    assert_int_equal(sh_embedder_run(embedder, dataset, crops, N, NULL, forward), SH_OK);
    for (int i = 0; i < N; i++) crops[i] = N - 1 - i;
    assert_int_equal(sh_embedder_run(embedder, dataset, crops, N, NULL, backward), SH_OK);
    for (int i = 0; i < N; i++)
        assert_memory_equal(forward + i * dim, backward + (N - 1 - i) * dim,
                            (size_t)dim * sizeof(float));
    assert_memory_not_equal(forward, forward + dim, (size_t)dim * sizeof(float));
    assert_int_equal(sh_embedder_run(embedder, dataset, &one, 1, NULL, alone), SH_OK);
    assert_memory_equal(alone, forward + one * dim, (size_t)dim * sizeof(float));
    assert_int_equal(sh_embedder_run(untrained, dataset, &one, 1, NULL, backward), SH_OK);
    assert_memory_not_equal(alone, backward, (size_t)dim * sizeof(float));
    /* a decoded image is the crop that it was decoded from */
    assert_int_equal(sh_dataset_decode(dataset, one, 3, 0, 0, &image), SH_OK);
    assert_int_equal(sh_embedder_run_image(embedder, &image, backward), SH_OK);
    for (int k = 0; k < dim; k++) assert_close(backward[k], alone[k], 1e-4);
    sh_image_clear(&image);
    free(forward);
    free(backward);
    free(alone);
    sh_embedder_destroy(&embedder);
    sh_embedder_destroy(&untrained);
    sh_dataset_close(&dataset);
}

/* Fields of a CSV by column name, of the first row; rows are counted. */
static int64_t count_rows(const char *path, const char *first_column)
{
    sh_csv *csv = NULL;
    char **fields = NULL;
    int n_fields = 0;
    int64_t n = -1;

    assert_int_equal(sh_csv_open(path, ',', &csv), SH_OK);
    do {
        assert_int_equal(sh_csv_next(csv, &fields, &n_fields), SH_OK);
        if (n < 0) assert_string_equal(fields[0], first_column);
        n += n_fields > 0;
    } while (n_fields > 0);
    sh_csv_close(&csv);
    return n;
}

static void eval__writes_figures_queries_and_a_page_that_stands_alone(void **state)
{
    (void)state;
    char *argv[] = {"eval", run_a, "--threads", "2"};
    char path[TEXT];
    json_t *e = NULL;
    char *page = NULL;
    size_t n_bytes = 0;

    assert_int_equal(sh_cmd_eval(4, argv), SH_OK);
    path_in(run_a, "eval", path);
    assert_int_equal(sh_run_get_json(path, "eval.json", &e), SH_OK);

    const json_t *data = json_object_get(e, "data");
    int64_t n_crops = json_integer_value(json_object_get(data, "crops"));

    assert_int_equal(n_crops, 5 * IMAGES); /* 0.4 of 12 individuals, rounded */
    assert_int_equal(json_array_size(json_object_get(e, "stamps")), 0);
    assert_true(json_is_object(json_object_get(e, "threshold")));
    assert_true(json_is_object(json_object_get(e, "unknown")));
    assert_int_equal(json_object_size(json_object_get(e, "floors")), 3);
    path_in(run_a, "eval/queries.csv", path);
    assert_int_equal(count_rows(path, "name"), n_crops);
    path_in(run_a, "eval/mislabels.csv", path);
    assert_true(count_rows(path, "name") >= 0);
    path_in(run_a, "threshold.json", path);
    assert_true(sh_file_exists(path));
    path_in(run_a, "report.html", path);
    assert_int_equal(sh_file_get(path, 64 << 20, &page, &n_bytes), SH_OK);
    assert_non_null(strstr(page, "data:image/jpeg;base64,"));
    assert_non_null(strstr(page, "<svg"));
    assert_non_null(strstr(page, "Configuration"));
    assert_null(strstr(page, "<script"));
    assert_null(strstr(page, "http://"));
    assert_null(strstr(page, "https://"));
    free(page);
    json_decref(e);
}

static void eval__is_the_same_twice_and_chooses_no_second_threshold(void **state)
{
    (void)state;
    const sh_eval_options options = {.run = run_a, .part = SH_PART_TEST, .threads = 1};
    sh_eval_result first = {0}, second = {0};
    sh_thresholds t, again;

    assert_int_equal(sh_eval_run(&options, &first), SH_OK);
    assert_int_equal(sh_thresholds_of_run(run_a, 1, &t), SH_OK);
    assert_int_equal(sh_eval_run(&options, &second), SH_OK);
    assert_int_equal(sh_thresholds_of_run(run_a, 1, &again), SH_OK);
    assert_true(json_equal(first.json, second.json));
    assert_close(t.pair, again.pair, 1e-9 * t.pair);
    sh_eval_result_clear(&first);
    sh_eval_result_clear(&second);
}

static void eval__refuses_crops_that_were_trained_on(void **state)
{
    (void)state;
    const char *same[] = {pack}, *other[] = {other_pack};
    sh_eval_options options = {.run = run_a, .data = same, .n_data = 1, .threads = 2};
    sh_eval_result r = {0};

    /* the run's own pack: what is left is its test part, and nothing of it was seen */
    assert_int_equal(sh_eval_run(&options, &r), SH_OK);
    assert_int_equal(json_array_size(json_object_get(r.json, "refused")), N - 5 * IMAGES);
    assert_int_equal(r.data.n, 5 * IMAGES);
    assert_null(json_object_get(r.json, "seen_individuals"));
    sh_eval_result_clear(&r);
    /* other crops: fish of trained names are told apart from new ones */
    options.data = other;
    assert_int_equal(sh_eval_run(&options, &r), SH_OK);
    assert_int_equal(json_array_size(json_object_get(r.json, "refused")), 0);
    assert_int_equal(r.data.n_individuals, 5 + 3);
    assert_int_equal(
        json_integer_value(json_object_get(
            json_object_get(json_object_get(r.json, "seen_individuals"), "data"), "individuals")),
        FISH - 5);
    sh_eval_result_clear(&r);
}

static void eval__stamps_the_validation_part_and_leaking_splits(void **state)
{
    (void)state;
    sh_eval_options options = {.run = run_a, .part = SH_PART_VAL, .threads = 2};
    sh_eval_result r = {0};

    assert_int_equal(sh_eval_run(&options, &r), SH_OK);
    assert_int_equal(json_array_size(json_object_get(r.json, "stamps")), 1);
    sh_eval_result_clear(&r);

    char run_c[TEXT];
    const char *stamp = NULL;

    path_in(folder, "c", run_c);
    assert_int_equal(make_run(run_c, 3, "split.by=random"), SH_OK);
    options = (sh_eval_options){.run = run_c, .part = SH_PART_TEST, .threads = 2};
    assert_int_equal(sh_eval_run(&options, &r), SH_OK);
    assert_int_equal(json_array_size(json_object_get(r.json, "stamps")), 2);
    stamp = json_string_value(json_array_get(json_object_get(r.json, "stamps"), 0));
    assert_non_null(strstr(stamp, "leaking"));
    stamp = json_string_value(json_array_get(json_object_get(r.json, "stamps"), 1));
    assert_non_null(strstr(stamp, "seen individuals"));
    sh_eval_result_clear(&r);
}

static void eval__of_something_else_says_what_is_missing(void **state)
{
    (void)state;
    char *argv[] = {"eval", folder}, *part[] = {"eval", run_a, "--part", "train"};

    assert_int_equal(sh_cmd_eval(2, argv), SH_ERR_NOT_FOUND);
    assert_non_null(strstr(sh_error_message(), "config.yaml"));
    assert_int_equal(sh_cmd_eval(4, part), SH_ERR_USAGE);
}

static void compare__is_zero_with_itself_and_antisymmetric(void **state)
{
    (void)state;
    char *eval_b[] = {"eval", run_b};
    sh_compare_group a = {0}, b = {0};
    sh_comparison same, forward, backward;

    assert_int_equal(sh_cmd_eval(2, eval_b), SH_OK);
    assert_int_equal(sh_compare_read(run_a, &a), SH_OK);
    assert_int_equal(sh_compare_read(run_b, &b), SH_OK);
    assert_int_equal(sh_compare(&a, &a, 1, &same), SH_OK);
    assert_int_equal(sh_compare(&a, &b, 1, &forward), SH_OK);
    assert_int_equal(sh_compare(&b, &a, 1, &backward), SH_OK);
    assert_close(same.map_difference.mean, 0, 0);
    assert_close(same.map_difference.interval.hi, 0, 0);
    assert_int_equal(same.n_individuals, 5);
    assert_true(forward.map_difference.mean != 0);
    assert_close(forward.map_difference.mean, -backward.map_difference.mean, 1e-12);
    assert_close(forward.map_difference.interval.lo, -backward.map_difference.interval.hi, 1e-9);
    assert_close(forward.map[1] - forward.map[0], forward.map_difference.mean, 1e-9);
    assert_int_equal(forward.map_difference.n_better, backward.map_difference.n_worse);
    sh_compare_group_clear(&a);
    sh_compare_group_clear(&b);
}

static void compare__refuses_other_test_sets_overlapping_folds_and_stale_evaluations(void **state)
{
    (void)state;
    char twice[TEXT], path[TEXT], weights[TEXT];
    sh_compare_group a = {0}, b = {0};
    sh_comparison c;
    char *text = NULL;
    size_t n_bytes = 0;

    snprintf(twice, TEXT, "%s,%s", run_a, run_b);
    assert_int_equal(sh_compare_read(twice, &a), SH_ERR_MISMATCH);
    assert_int_equal(sh_compare_read(run_a, &a), SH_OK);
    assert_int_equal(sh_compare_read(run_b, &b), SH_OK);
    b.queries[3].n_gallery++;
    assert_int_equal(sh_compare(&a, &b, 1, &c), SH_ERR_MISMATCH);
    assert_non_null(strstr(sh_error_message(), "galleries"));
    b.queries[3].n_gallery--;
    b.n--;
    assert_int_equal(sh_compare(&a, &b, 1, &c), SH_ERR_MISMATCH);
    b.n++;
    sh_compare_group_clear(&b);
    sh_compare_group_clear(&a);
    path_in(run_a, "model.safetensors", path);
    path_in(run_b, "model.safetensors", weights);
    assert_int_equal(sh_file_get(path, 1 << 30, &text, &n_bytes), SH_OK);
    assert_int_equal(sh_file_put(weights, text, n_bytes), SH_OK);
    assert_int_equal(sh_compare_read(run_b, &b), SH_ERR_MISMATCH);
    assert_non_null(strstr(sh_error_message(), "again"));
    free(text);
}

static void compare__takes_a_table_of_other_software(void **state)
{
    (void)state;
    static const char table[] = "name,individual,recording,gallery,matches,first_rank,ap\n"
                                "x,1,a,3,1,1,1\ny,1,b,3,1,2,0.5\nz,2,b,3,0,,\n";
    char other[TEXT], eval[TEXT], path[TEXT];
    sh_compare_group g = {0};
    sh_comparison c;

    path_in(folder, "other", other);
    path_in(other, "eval", eval);
    path_in(eval, "queries.csv", path);
    assert_int_equal(sh_file_make_dirs(eval), SH_OK);
    assert_int_equal(sh_file_put(path, table, sizeof(table) - 1), SH_OK);
    assert_int_equal(sh_compare_read(other, &g), SH_OK);
    assert_int_equal(g.n, 3);
    assert_int_equal(sh_compare(&g, &g, 1, &c), SH_OK);
    assert_int_equal(c.n_queries, 2);
    assert_close(c.rank1[0], 0.5, 1e-12);
    assert_close(c.map[0], 0.75, 1e-12);
    sh_compare_group_clear(&g);
}

static void embed__writes_rows_in_pack_order(void **state)
{
    (void)state;
    char out[TEXT];
    char *argv[] = {"embed", run_a, "--data", pack, "-o", out};
    const char *paths[] = {pack};
    sh_dataset *dataset = NULL;
    char *names[N];
    hsize_t dims[2] = {0};

    path_in(folder, "e.h5", out);
    assert_int_equal(sh_cmd_embed(6, argv), SH_OK);
    assert_int_equal(sh_dataset_open(paths, 1, &dataset), SH_OK);

    hid_t file = H5Fopen(out, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t set = H5Dopen2(file, "embedding", H5P_DEFAULT), space = H5Dget_space(set);
    hid_t name = H5Dopen2(file, "name", H5P_DEFAULT), type = H5Dget_type(name);

    assert_int_equal(H5Sget_simple_extent_dims(space, dims, NULL), 2);
    assert_int_equal(dims[0], N);
    assert_true(dims[1] > 0);
    assert_true(H5Dread(name, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, names) >= 0);
    for (int i = 0; i < N; i++) {
        assert_string_equal(names[i], sh_dataset_crop(dataset, i)->name);
        H5free_memory(names[i]);
    }
    assert_true(H5Lexists(file, "individual", H5P_DEFAULT) > 0);
    assert_true(H5Lexists(file, "side", H5P_DEFAULT) > 0);
    assert_true(H5Lexists(file, "recording", H5P_DEFAULT) > 0);
    H5Tclose(type);
    H5Sclose(space);
    H5Dclose(set);
    H5Dclose(name);
    H5Fclose(file);
    sh_dataset_close(&dataset);
}

static void identify__takes_folders_packs_and_images(void **state)
{
    (void)state;
    char out[TEXT], page[TEXT], bad[TEXT];
    char *argv[] = {"identify", run_a, "--gallery", pack, images, "-o", out, "--top", "2"};
    char *by_track[] = {"identify", run_a, "--gallery", pack,   other_pack,
                        images,     "-o",  out,         "--by", "recording"};
    int64_t n_images = (FISH + 3) * IMAGES;

    path_in(folder, "who.csv", out);
    path_in(folder, "who.html", page);
    path_in(images, "not an image.jpg", bad);
    assert_int_equal(sh_file_put(bad, "nothing", 7), SH_OK); /* reported, and the rest goes on */
    assert_int_equal(sh_cmd_identify(9, argv), SH_OK);
    assert_int_equal(count_rows(out, "query"), 2 * n_images);
    assert_true(sh_file_exists(page));
    assert_int_equal(sh_cmd_identify(10, by_track), SH_OK);
    /* five fish for each track: individual x recording of the pack, and the folder as one */
    int64_t n_rows = count_rows(out, "query");

    assert_int_equal(n_rows % 5, 0);
    assert_true(n_rows / 5 > FISH + 3 && n_rows / 5 <= 3 * (FISH + 3) + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embedder__gives_a_crop_the_same_bytes_in_any_company),
        cmocka_unit_test(eval__writes_figures_queries_and_a_page_that_stands_alone),
        cmocka_unit_test(eval__is_the_same_twice_and_chooses_no_second_threshold),
        cmocka_unit_test(eval__refuses_crops_that_were_trained_on),
        cmocka_unit_test(eval__stamps_the_validation_part_and_leaking_splits),
        cmocka_unit_test(eval__of_something_else_says_what_is_missing),
        cmocka_unit_test(compare__is_zero_with_itself_and_antisymmetric),
        cmocka_unit_test(compare__refuses_other_test_sets_overlapping_folds_and_stale_evaluations),
        cmocka_unit_test(compare__takes_a_table_of_other_software),
        cmocka_unit_test(embed__writes_rows_in_pack_order),
        cmocka_unit_test(identify__takes_folders_packs_and_images),
    };

    return cmocka_run_group_tests(tests, open_world, close_world);
}
