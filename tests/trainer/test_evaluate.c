// SPDX-License-Identifier: Apache-2.0
// timeout: 120
/* Sections of an evaluation over made-up embeddings of synthetic crops: who counts, what is stated.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "dataio/pack.h"
#include "dataio/split.h"
#include "dataio/synth.h"
#include "trainer/evaluate.h"
#include "trainer/html.h"
#include "trainer/identify.h"

#define assert_close(a, b, tolerance) assert_true(fabs((a) - (b)) <= (tolerance))

enum { FISH = 9, IMAGES = 8, N = FISH * IMAGES, DIM = 16 };

typedef struct world {
    char folder[64], pack[128];
    sh_dataset *dataset;
    sh_eval_data data;
    int64_t crops[N];
} world;

static world w;

static int open_world(void **state)
{
    const sh_synth_config config = {.individuals = FISH,
                                    .images = IMAGES,
                                    .recordings = 4,
                                    .width = 48,
                                    .height = 32,
                                    .threads = 2,
                                    .seed = 5};
    const char *path = w.pack;

    (void)state;
    strcpy(w.folder, "/tmp/shoal-test-XXXXXX");
    if (mkdtemp(w.folder) == NULL) return -1;
    snprintf(w.pack, sizeof(w.pack), "%s/crops.h5", w.folder);
    if (sh_synth_write(&config, w.pack, NULL) != SH_OK) return -1;
    if (sh_dataset_open(&path, 1, &w.dataset) != SH_OK) return -1;
    for (int i = 0; i < N; i++) w.crops[i] = i;
    return sh_eval_data_create(w.dataset, w.crops, N, &w.data) == SH_OK ? 0 : -1;
}

static int close_world(void **state)
{
    (void)state;
    sh_eval_data_clear(&w.data);
    sh_dataset_close(&w.dataset);
    return sh_file_remove_tree(w.folder) == SH_OK ? 0 : -1;
}

/* A corner of its own for each fish, and noise of this size. */
static void make_embeddings(float noise, float *out)
{
    for (int i = 0; i < N; i++) {
        sh_rng_key key = sh_rng_make(1, SH_RNG_TEST, 3, (uint64_t)i);

        for (int k = 0; k < DIM; k++)
            out[i * DIM + k] =
                (float)(w.data.individual[i] == k) + noise * (float)sh_rng_normal(key, (uint64_t)k);
    }
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void data__numbers_individuals_and_tracks_densely(void **state)
{
    (void)state;
    assert_int_equal(w.data.n, N);
    assert_int_equal(w.data.n_individuals, FISH);
    assert_int_equal(w.data.n_recordings, 4);
    assert_true(w.data.has_sides && w.data.has_times && !w.data.within_recording);
    assert_true(w.data.n_tracks > FISH && w.data.n_tracks <= 4 * FISH);
    for (int i = 0; i < N; i++) {
        assert_true(w.data.track[i] >= 0 && w.data.track[i] < w.data.n_tracks);
        for (int k = 0; k < i; k++) {
            bool same = w.data.individual[i] == w.data.individual[k] &&
                        w.data.recording[i] == w.data.recording[k];

            assert_int_equal(same, w.data.track[i] == w.data.track[k]);
        }
    }
}

static void select__leaves_out_unlabelled_crops_and_other_parts(void **state)
{
    (void)state;
    uint8_t part[N];
    int64_t *crops = NULL, n = 0;

    for (int i = 0; i < N; i++) part[i] = i % 3 == 0 ? SH_PART_TEST : SH_PART_TRAIN;
    assert_int_equal(sh_eval_select(w.dataset, part, SH_PART_TEST, &crops, &n), SH_OK);
    assert_int_equal(n, (N + 2) / 3);
    for (int64_t i = 0; i < n; i++) assert_int_equal(crops[i] % 3, 0);
    free(crops);
}

static void validate__equals_the_headline_of_the_evaluation(void **state)
{
    (void)state;
    float e[N * DIM];
    sh_query queries[N];
    sh_validation v;
    json_t *id = NULL, *verification = NULL;

    make_embeddings(0.5f, e);

    sh_eval_set set = sh_eval_data_set(&w.data, e, DIM);

    assert_int_equal(sh_validate(w.dataset, w.crops, N, e, DIM, &v), SH_OK);
    assert_int_equal(sh_retrieve(&set, &(sh_gallery_rule){0}, queries), SH_OK);
    assert_int_equal(sh_eval_identification(&w.data, queries, 1, &id, NULL), SH_OK);
    assert_int_equal(sh_eval_verification(&w.data, &set, 1, &verification), SH_OK);

    const json_t *fish = json_object_get(id, "per_individual");
    const json_t *balanced = json_object_get(verification, "per_individual");
    const json_t *interval = json_object_get(fish, "rank1_interval");

    assert_true(v.rank1 > 0.2 && v.rank1 < 1 && v.auc > 0.6 && v.auc < 1);
    assert_close(v.rank1, number(fish, "rank1"), 1e-12);
    assert_close(v.map, number(fish, "map"), 1e-12);
    assert_close(v.auc, number(balanced, "auc"), 1e-12);
    assert_true(json_number_value(json_array_get(interval, 0)) < v.rank1);
    assert_true(json_number_value(json_array_get(interval, 1)) > v.rank1);
    /* 36 pairs of individuals: one in a hundred cannot be estimated, one in ten can */
    const json_t *rates = json_object_get(balanced, "tpr_at_fpr");

    assert_true(json_is_false(json_object_get(json_array_get(rates, 2), "estimable")));
    assert_true(json_is_true(json_object_get(json_array_get(rates, 3), "estimable")));
    json_decref(id);
    json_decref(verification);
}

static void leaking_curve__is_above_the_honest_one_where_tracks_are_near_duplicates(void **state)
{
    (void)state;
    float e[N * DIM];
    json_t *v = NULL;

    make_embeddings(0.8f, e);
    for (int i = 0; i < N; i++) /* images of a track are all but equal */
        for (int k = 0; k < i; k++)
            if (w.data.track[k] == w.data.track[i])
                memcpy(&e[i * DIM], &e[k * DIM], DIM * sizeof(float));

    sh_eval_set set = sh_eval_data_set(&w.data, e, DIM);

    assert_int_equal(sh_eval_verification(&w.data, &set, 1, &v), SH_OK);
    assert_true(number(json_object_get(v, "all_pairs_leaking"), "auc") >
                number(json_object_get(v, "per_image_pair"), "auc") + 0.05);
    json_decref(v);
}

static void thresholds__keep_the_rate_where_they_were_chosen(void **state)
{
    (void)state;
    float e[N * DIM];
    sh_query queries[N];
    sh_thresholds t;
    json_t *realised = NULL;
    double false_matches[FISH] = {0}, mean = 0;

    make_embeddings(0.4f, e);

    sh_eval_set set = sh_eval_data_set(&w.data, e, DIM);

    assert_int_equal(sh_thresholds_choose(&set, 0.05, &t), SH_OK);
    assert_int_equal(t.n_individuals, FISH);
    assert_int_equal(t.n_pairs_of_individuals, FISH * (FISH - 1) / 2);
    assert_true(t.accept <= t.reject);
    assert_int_equal(sh_retrieve(&set, &(sh_gallery_rule){0}, queries), SH_OK);
    assert_int_equal(sh_eval_thresholds(&set, queries, &t, &realised), SH_OK);
    assert_true(number(realised, "false_matches") <= 0.05);
    assert_close(number(realised, "misses"), t.pair_misses, 1e-9);
    assert_close(number(realised, "search_right") + number(realised, "search_wrong") +
                     number(realised, "search_look") + number(realised, "search_refused"),
                 1, 1e-9);
    for (int i = 0; i < N; i++)
        false_matches[w.data.individual[i]] +=
            (double)(queries[i].wrong_distance <= t.accept) / IMAGES;
    for (int f = 0; f < FISH; f++) mean += false_matches[f] / FISH;
    assert_true(mean <= 0.05 + 1e-12);
    json_decref(realised);
}

static void thresholds__are_refused_without_a_second_recording(void **state)
{
    (void)state;
    float e[N * DIM];
    sh_thresholds t;
    int32_t one[N] = {0};

    make_embeddings(0.4f, e);

    sh_eval_set set = sh_eval_data_set(&w.data, e, DIM);

    set.recording = one;
    assert_int_equal(sh_thresholds_choose(&set, 0.05, &t), SH_ERR_NOT_FOUND);
}

static void unknown__is_told_apart_by_clean_embeddings_and_not_by_noise(void **state)
{
    (void)state;
    float e[N * DIM];
    sh_thresholds t;
    json_t *clean = NULL, *noise = NULL;

    make_embeddings(0.02f, e);

    sh_eval_set set = sh_eval_data_set(&w.data, e, DIM);

    assert_int_equal(sh_thresholds_choose(&set, 0.01, &t), SH_OK);
    assert_int_equal(sh_eval_unknown(&set, &t, 1, &clean), SH_OK);
    assert_close(number(clean, "detection_auc"), 1, 1e-12);
    assert_close(number(json_object_get(clean, "false_matches"), "value"), 0, 0);
    assert_close(number(json_object_get(clean, "wrong_fish"), "value"), 0, 0);
    assert_true(number(json_object_get(clean, "misses"), "value") <= SH_THRESHOLD_MISSES + 1e-9);
    assert_int_equal(json_integer_value(json_object_get(clean, "unknown_searches")), N);
    assert_int_equal(json_integer_value(json_object_get(clean, "known_searches")), 2 * N);
    make_embeddings(50, e);
    assert_int_equal(sh_eval_unknown(&set, NULL, 1, &noise), SH_OK);
    assert_close(number(noise, "detection_auc"), 0.5, 0.15);
    assert_null(json_object_get(noise, "false_matches"));
    json_decref(clean);
    json_decref(noise);
}

static void floor__of_chance_needs_no_embeddings_and_lies_below_good_ones(void **state)
{
    (void)state;
    float e[N * DIM];
    json_t *chance = NULL, *good = NULL;

    make_embeddings(0.01f, e);
    assert_int_equal(sh_eval_floor(&w.data, NULL, 0, &chance), SH_OK);
    assert_int_equal(sh_eval_floor(&w.data, e, DIM, &good), SH_OK);
    assert_true(number(chance, "rank1") > 0.02 && number(chance, "rank1") < 0.2);
    assert_close(number(chance, "auc"), 0.5, 0);
    assert_close(number(good, "rank1"), 1, 0);
    assert_close(number(good, "auc"), 1, 1e-12); /* weights are rounded */
    json_decref(chance);
    json_decref(good);
}

static void sections__cover_sides_time_and_gallery(void **state)
{
    (void)state;
    float e[N * DIM];
    sh_query queries[N];
    json_t *sides = NULL, *time = NULL, *gallery = NULL;
    size_t i;
    const json_t *entry;
    int64_t n_timed = 0;

    make_embeddings(0.01f, e);

    sh_eval_set set = sh_eval_data_set(&w.data, e, DIM);

    assert_int_equal(sh_retrieve(&set, &(sh_gallery_rule){0}, queries), SH_OK);
    assert_int_equal(sh_eval_sides(&w.data, &set, &sides), SH_OK);
    assert_close(number(json_object_get(sides, "same_side"), "rank1"), 1, 0);
    assert_close(number(json_object_get(sides, "cross_side"), "rank1"), 1, 0);
    assert_int_equal(sh_eval_time(&w.data, queries, &time), SH_OK);
    json_array_foreach(time, i, entry)
    {
        n_timed += json_integer_value(json_object_get(entry, "queries"));
    }
    assert_true(n_timed >= N);
    assert_int_equal(sh_eval_gallery(&w.data, queries, &gallery), SH_OK);
    entry = json_array_get(gallery, json_array_size(gallery) - 1);
    assert_int_equal(json_integer_value(json_object_get(entry, "individuals")), FISH);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(gallery, 0), "individuals")),
                     2);
    json_decref(sides);
    json_decref(time);
    json_decref(gallery);
}

static void individuals__name_the_fish_that_one_is_taken_for(void **state)
{
    (void)state;
    float e[N * DIM];
    sh_query queries[N];
    sh_rank_scores each[FISH];
    json_t *id = NULL, *list = NULL;

    make_embeddings(0.01f, e);
    for (int i = 0; i < N; i++) /* fish 2 looks like fish 4, differently in each image */
        if (w.data.individual[i] == 2) {
            e[i * DIM + 2] = (float)(3 * w.data.recording[i]);
            e[i * DIM + 4] = 1;
        }

    sh_eval_set set = sh_eval_data_set(&w.data, e, DIM);

    assert_int_equal(sh_retrieve(&set, &(sh_gallery_rule){0}, queries), SH_OK);
    assert_int_equal(sh_eval_identification(&w.data, queries, 1, &id, each), SH_OK);
    assert_int_equal(sh_eval_individuals(&w.data, queries, each, &list), SH_OK);
    assert_int_equal(json_array_size(list), FISH);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 2), "taken_for")),
                        sh_eval_data_name(&w.data, 4));
    assert_null(json_object_get(json_array_get(list, 0), "taken_for"));
    assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "crops")), IMAGES);
    json_decref(id);
    json_decref(list);
}

static void identify__answers_per_image_and_per_track(void **state)
{
    (void)state;
    float e[N * DIM], queries[3 * DIM] = {0};
    int32_t alone[3] = {0, 1, 2}, together[3] = {0, 0, 1};
    sh_identity by_image = {0}, by_track = {0};
    sh_thresholds t = {.accept = 0.3, .reject = 0.9};

    make_embeddings(0.01f, e);
    queries[0 * DIM + 5] = 1;    /* clearly fish 5 */
    queries[1 * DIM + 5] = 0.4f; /* rather fish 5, some of 6 */
    queries[1 * DIM + 6] = 0.3f;
    queries[2 * DIM + 15] = 4; /* nobody */
    w.data.embeddings = e;
    w.data.dim = DIM;

    sh_identify_input in = {.gallery = &w.data,
                            .queries = queries,
                            .track = alone,
                            .n_queries = 3,
                            .top = 4,
                            .thresholds = &t};

    assert_int_equal(sh_identify(&in, &by_image), SH_OK);
    in.track = together;
    assert_int_equal(sh_identify(&in, &by_track), SH_OK);
    w.data.embeddings = NULL;
    assert_int_equal(by_image.n, 3);
    assert_int_equal(by_image.answers[0].verdict, SH_VERDICT_KNOWN);
    assert_int_equal(by_image.answers[1].verdict, SH_VERDICT_LOOK);
    assert_int_equal(by_image.answers[2].verdict, SH_VERDICT_UNKNOWN);
    assert_int_equal(by_image.answers[0].n_matches, 4);
    assert_int_equal(by_image.matches[0].individual, 5);
    assert_int_equal(by_image.matches[4].individual, 5);
    assert_int_equal(by_image.matches[5].individual, 6);
    for (int k = 1; k < 4; k++)
        assert_true(by_image.matches[k].distance >= by_image.matches[k - 1].distance);
    assert_int_equal(w.data.individual[by_image.matches[0].gallery_row], 5);
    /* a track: the mean of its images' distances; its nearest image is named */
    assert_int_equal(by_track.n, 2);
    assert_int_equal(by_track.answers[0].n_images, 2);
    assert_int_equal(by_track.matches[0].individual, 5);
    assert_close(by_track.matches[0].distance,
                 (by_image.matches[0].distance + by_image.matches[4].distance) / 2, 1e-6);
    assert_int_equal(by_track.matches[0].query_row, 0);
    assert_int_equal(sh_verdict_of(0, NULL), SH_VERDICT_LOOK);
    sh_identity_clear(&by_image);
    sh_identity_clear(&by_track);
}

static void identify__counts_images_that_the_gallery_holds(void **state)
{
    (void)state;
    float e[N * DIM], queries[3 * DIM];
    int32_t track[3] = {0, 0, 1};
    sh_identity id = {0};

    make_embeddings(0.01f, e);
    memcpy(queries, e, sizeof(queries));
    queries[1 * DIM] += 0.001f; /* another picture of the same fish */
    w.data.embeddings = e;
    w.data.dim = DIM;

    sh_identify_input in = {
        .gallery = &w.data, .queries = queries, .track = track, .n_queries = 3, .top = 1};

    assert_int_equal(sh_identify(&in, &id), SH_OK);
    w.data.embeddings = NULL;
    assert_int_equal(id.answers[0].n_repeats, 1);
    assert_int_equal(id.answers[1].n_repeats, 1);
    sh_identity_clear(&id);
}

static void identify__lists_no_more_fish_than_there_are(void **state)
{
    (void)state;
    float e[N * DIM], query[DIM] = {0};
    int32_t track = 0;
    sh_identity id = {0};

    make_embeddings(0.01f, e);
    w.data.embeddings = e;
    w.data.dim = DIM;
    assert_int_equal(
        sh_identify(
            &(sh_identify_input){
                .gallery = &w.data, .queries = query, .track = &track, .n_queries = 1, .top = 50},
            &id),
        SH_OK);
    assert_int_equal(id.answers[0].n_matches, FISH);
    query[3] = NAN;
    sh_identity_clear(&id);
    assert_int_equal(
        sh_identify(
            &(sh_identify_input){
                .gallery = &w.data, .queries = query, .track = &track, .n_queries = 1, .top = 5},
            &id),
        SH_ERR_FORMAT);
    w.data.embeddings = NULL;
}

static void data__without_recordings_is_marked_as_within_recording(void **state)
{
    (void)state;
    char path[160];
    const char *paths[] = {path};
    sh_pack_writer *writer = NULL;
    sh_dataset *dataset = NULL;
    sh_eval_data data = {0};
    uint8_t pixels[8 * 8 * 3];
    sh_image image = {.width = 8, .height = 8, .channels = 3, .pixels = pixels};
    int64_t crops[6];

    snprintf(path, sizeof(path), "%s/plain.h5", w.folder);
    assert_int_equal(sh_pack_writer_create(path, 0, &writer), SH_OK);
    for (int i = 0; i < 6; i++) {
        char name[16], fish[16];
        sh_labels labels = SH_LABELS_NONE;

        crops[i] = i;
        memset(pixels, 40 * i, sizeof(pixels));
        snprintf(name, sizeof(name), "%d.png", i);
        snprintf(fish, sizeof(fish), "f%d", i / 2);
        labels.individual = i < 5 ? fish : NULL; /* the last one is nobody we know */
        assert_int_equal(sh_pack_writer_add_image(writer, name, &labels, &image, SH_IMAGE_PNG, 0),
                         SH_OK);
    }
    assert_int_equal(sh_pack_writer_commit(writer), SH_OK);
    sh_pack_writer_destroy(&writer);
    assert_int_equal(sh_dataset_open(paths, 1, &dataset), SH_OK);
    assert_int_equal(sh_eval_data_create(dataset, crops, 6, &data), SH_OK);
    assert_int_equal(data.n, 5);
    assert_true(data.within_recording && !data.has_sides && !data.has_times);

    float e[5 * 2] = {0, 0, 0, 1, 5, 0, 5, 1, 9, 9};
    sh_eval_set set = sh_eval_data_set(&data, e, 2);
    sh_query q[5];
    json_t *none = NULL;

    assert_int_equal(sh_retrieve(&set, &(sh_gallery_rule){0}, q), SH_OK);
    assert_int_equal(q[0].first_rank, 1);
    assert_int_equal(q[4].n_matches, 0);
    assert_int_equal(sh_eval_sides(&data, &set, &none), SH_OK);
    assert_true(json_is_null(none));
    json_decref(none);
    sh_eval_data_clear(&data);
    sh_dataset_close(&dataset);
}

static void data__counts_one_photograph_once(void **state)
{
    (void)state;
    char path[160];
    const char *paths[] = {path};
    sh_pack_writer *writer = NULL;
    sh_dataset *dataset = NULL;
    sh_eval_data data = {0};
    uint8_t pixels[8 * 8 * 3];
    sh_image image = {.width = 8, .height = 8, .channels = 3, .pixels = pixels};
    int64_t crops[6] = {0, 1, 2, 3, 4, 5};
    /* fish a: one picture in two recordings, and another; fish b: the picture of a, and its own */
    static const char *const fish[] = {"a", "a", "a", "b", "b", "b"};
    static const int picture[] = {1, 1, 2, 1, 3, 4};
    float e[6] = {0, 0, 7, 0, 1.2f, 2};
    sh_validation v;

    snprintf(path, sizeof(path), "%s/twice.h5", w.folder);
    assert_int_equal(sh_pack_writer_create(path, 0, &writer), SH_OK);
    for (int i = 0; i < 6; i++) {
        char name[16], recording[16];
        sh_labels labels = SH_LABELS_NONE;

        memset(pixels, 40 * picture[i], sizeof(pixels));
        snprintf(name, sizeof(name), "%d.png", i);
        snprintf(recording, sizeof(recording), "r%d", i % 3);
        labels.individual = fish[i];
        labels.recording = recording;
        assert_int_equal(sh_pack_writer_add_image(writer, name, &labels, &image, SH_IMAGE_PNG, 0),
                         SH_OK);
    }
    assert_int_equal(sh_pack_writer_commit(writer), SH_OK);
    sh_pack_writer_destroy(&writer);
    assert_int_equal(sh_dataset_open(paths, 1, &dataset), SH_OK);
    assert_int_equal(sh_eval_data_create(dataset, crops, 6, &data), SH_OK);
    assert_int_equal(data.n, 5);
    assert_int_equal(data.n_duplicates, 1);
    assert_int_equal(data.duplicates[0], 1);
    assert_int_equal(data.rows[1], 2);
    /* with the duplicate, crop 0 would have found itself at distance 0 */
    assert_int_equal(sh_validate(dataset, crops, 6, e, 1, &v), SH_OK);
    assert_int_equal(v.n_queries, 5);
    assert_close(v.rank1, (0 + 2.0 / 3) / 2, 1e-12);
    sh_eval_data_clear(&data);
    sh_dataset_close(&dataset);
}

static void html__escapes_whatever_comes_from_outside(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    sh_html_text(f, "<img src=x onerror='a()'>&\"\x01");
    sh_html_text(f, NULL);
    sh_html_number(f, NAN, 2);
    fclose(f);
    assert_string_equal(text, "&lt;img src=x onerror=&#39;a()&#39;&gt;&amp;&quot;&ndash;");
    free(text);
}

static void chart__draws_gaps_and_nothing_at_all(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    double x[] = {1, 2, 3, 4}, y[] = {0.5, NAN, 0.25, 1};
    sh_series series = {"s", x, y, 4};
    sh_chart chart = {
        .title = "<t>", .x_label = "x", .y_label = "y", .series = &series, .n_series = 1};

    sh_html_chart(f, &chart);
    series.n = 0;
    sh_html_chart(f, &chart);
    series.n = 1; /* one point */
    sh_html_chart(f, &chart);
    fclose(f);
    assert_non_null(strstr(text, "&lt;t&gt;"));
    assert_null(strstr(text, "<t>"));
    assert_non_null(strstr(text, "no points"));
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data__numbers_individuals_and_tracks_densely),
        cmocka_unit_test(select__leaves_out_unlabelled_crops_and_other_parts),
        cmocka_unit_test(validate__equals_the_headline_of_the_evaluation),
        cmocka_unit_test(leaking_curve__is_above_the_honest_one_where_tracks_are_near_duplicates),
        cmocka_unit_test(thresholds__keep_the_rate_where_they_were_chosen),
        cmocka_unit_test(thresholds__are_refused_without_a_second_recording),
        cmocka_unit_test(unknown__is_told_apart_by_clean_embeddings_and_not_by_noise),
        cmocka_unit_test(floor__of_chance_needs_no_embeddings_and_lies_below_good_ones),
        cmocka_unit_test(sections__cover_sides_time_and_gallery),
        cmocka_unit_test(individuals__name_the_fish_that_one_is_taken_for),
        cmocka_unit_test(identify__answers_per_image_and_per_track),
        cmocka_unit_test(identify__counts_images_that_the_gallery_holds),
        cmocka_unit_test(identify__lists_no_more_fish_than_there_are),
        cmocka_unit_test(data__without_recordings_is_marked_as_within_recording),
        cmocka_unit_test(data__counts_one_photograph_once),
        cmocka_unit_test(html__escapes_whatever_comes_from_outside),
        cmocka_unit_test(chart__draws_gaps_and_nothing_at_all),
    };

    return cmocka_run_group_tests(tests, open_world, close_world);
}
