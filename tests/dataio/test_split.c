// SPDX-License-Identifier: Apache-2.0
#include "dataio/split.h"
#include "tests/dataio/pack_fixture.h"

enum { N_FISH = 12, N_RECORDINGS = 6, N_FRAMES = 3, N_CROPS = N_FISH * N_RECORDINGS * N_FRAMES };

/* Every fish in every recording; recording r at day r; the last crop is unlabelled. Crops stand in
 * the order of `stride` steps, so that two packs of one content differ in order. */
static void make_pack(const char *path, int stride, bool with_recordings)
{
    sh_pack_writer *writer = NULL;
    sh_image image = {0};

    must(sh_pack_writer_create(path, 0, &writer));
    for (int k = 0; k <= N_CROPS; k++) {
        int i = k < N_CROPS ? (int)((long)k * stride % N_CROPS) : N_CROPS;
        int fish = i / (N_RECORDINGS * N_FRAMES), recording = i / N_FRAMES % N_RECORDINGS;
        char name[32], id[16], seq[16];
        sh_labels labels = SH_LABELS_NONE;

        snprintf(name, sizeof(name), "%03d.png", i);
        snprintf(id, sizeof(id), "f%02d", fish);
        snprintf(seq, sizeof(seq), "r%d", recording);
        if (i < N_CROPS) labels.individual = id;
        if (with_recordings) labels.recording = seq;
        labels.time = 86400 * recording;
        labels.split = i % 4;
        fill_image(&image, 3, 3, 1, i);
        must(sh_pack_writer_add_image(writer, name, &labels, &image, SH_IMAGE_RAW, 0));
    }
    must(sh_pack_writer_commit(writer));
    sh_pack_writer_destroy(&writer);
    sh_image_clear(&image);
}

static sh_dataset *open_pack(const char *path)
{
    sh_dataset *d = NULL;

    must(sh_dataset_open(&path, 1, &d));
    return d;
}

static sh_dataset *make_dataset(const char *name, int stride, bool with_recordings)
{
    const char *path = in_folder(name);

    make_pack(path, stride, with_recordings);
    return open_pack(path);
}

/* Part of the unit (an individual's or a recording's id), -1 if it stands in several. */
static void part_of_units(const sh_dataset *d, const sh_split *s, bool recordings, int *parts)
{
    for (int i = 0; i < N_FISH; i++) parts[i] = -2;
    for (int64_t i = 0; i < s->n; i++) {
        const sh_crop *c = sh_dataset_crop(d, i);
        int unit = recordings ? c->recording : c->individual;

        if (c->individual < 0) {
            assert_int_equal(s->part[i], SH_PART_NONE);
            continue;
        }
        parts[unit] = parts[unit] == -2 || parts[unit] == s->part[i] ? s->part[i] : -1;
    }
}

static int count(const int *parts, int n, int part)
{
    int found = 0;

    for (int i = 0; i < n; i++) found += parts[i] == part;
    return found;
}

static void by_individual__no_fish_stands_in_two_parts(void **state)
{
    sh_dataset *d = make_dataset("a.h5", 1, true);
    int seen[N_FISH] = {0};

    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        sh_split s = {0};
        int parts[N_FISH];

        must(sh_split_compute(
            d,
            &(sh_split_config){.by = SH_SPLIT_INDIVIDUAL, .test = 0.25F, .val = 0.2F, .seed = seed},
            &s));
        part_of_units(d, &s, false, parts);
        assert_int_equal(count(parts, N_FISH, SH_PART_TEST), 3);
        assert_int_equal(count(parts, N_FISH, SH_PART_VAL), 2);
        assert_int_equal(count(parts, N_FISH, SH_PART_TRAIN), 7);
        assert_false(s.leaks);
        must(sh_split_verify(&s, d, SH_SPLIT_INDIVIDUAL));
        for (int i = 0; i < N_FISH; i++) seen[i] += parts[i] == SH_PART_TEST;
        sh_split_clear(&s);
    }
    for (int i = 0; i < N_FISH; i++) assert_true(seen[i] > 0 && seen[i] < 20);
    sh_dataset_close(&d);
}

static void folds__test_every_fish_once(void **state)
{
    sh_dataset *d = make_dataset("f.h5", 1, true);
    int tests[N_FISH] = {0};

    (void)state;
    for (int fold = 0; fold < 5; fold++) {
        sh_split s = {0};
        int parts[N_FISH];

        must(sh_split_compute(
            d,
            &(sh_split_config){
                .by = SH_SPLIT_INDIVIDUAL, .val = 0.2F, .seed = 3, .fold = fold, .n_folds = 5},
            &s));
        part_of_units(d, &s, false, parts);
        assert_int_equal(count(parts, N_FISH, -1), 0);
        assert_int_equal(count(parts, N_FISH, SH_PART_VAL), 2);
        for (int i = 0; i < N_FISH; i++) tests[i] += parts[i] == SH_PART_TEST;
        sh_split_clear(&s);
    }
    for (int i = 0; i < N_FISH; i++) assert_int_equal(tests[i], 1);
    sh_dataset_close(&d);
}

static void split__does_not_depend_on_the_order_of_crops(void **state)
{
    static const sh_split_by rules[] = {SH_SPLIT_INDIVIDUAL, SH_SPLIT_RECORDING, SH_SPLIT_TIME,
                                        SH_SPLIT_RANDOM};
    sh_dataset *a = make_dataset("o1.h5", 1, true), *b = make_dataset("o2.h5", 5, true);

    (void)state;
    for (size_t r = 0; r < SH_COUNT(rules); r++) {
        sh_split_config config = {.by = rules[r], .test = 0.3F, .val = 0.2F, .seed = 11};
        sh_split x = {0}, y = {0};

        must(sh_split_compute(a, &config, &x));
        must(sh_split_compute(b, &config, &y));
        for (int64_t i = 0; i < x.n; i++) {
            int64_t k = sh_dataset_find(b, 0, sh_dataset_crop(a, i)->name);

            assert_true(k >= 0);
            assert_int_equal(x.part[i], y.part[k]);
        }
        assert_int_equal(x.leaks, rules[r] == SH_SPLIT_RANDOM);
        sh_split_clear(&x);
        sh_split_clear(&y);
    }
    sh_dataset_close(&a);
    sh_dataset_close(&b);
}

static void by_recording_and_time__keep_recordings_whole(void **state)
{
    sh_dataset *d = make_dataset("r.h5", 1, true);
    sh_split s = {0};
    int parts[N_FISH];

    (void)state;
    must(sh_split_compute(
        d, &(sh_split_config){.by = SH_SPLIT_RECORDING, .test = 0.34F, .val = 0.17F, .seed = 1},
        &s));
    part_of_units(d, &s, true, parts);
    assert_int_equal(count(parts, N_RECORDINGS, SH_PART_TEST), 2);
    assert_int_equal(count(parts, N_RECORDINGS, SH_PART_VAL), 1);
    assert_int_equal(count(parts, N_RECORDINGS, SH_PART_TRAIN), 3);
    sh_split_clear(&s);
    must(sh_split_compute(d, &(sh_split_config){.by = SH_SPLIT_TIME, .test = 0.34F, .val = 0.17F},
                          &s));
    part_of_units(d, &s, true, parts);
    for (int r = 0; r < N_RECORDINGS; r++)
        assert_int_equal(parts[r], r >= 4 ? SH_PART_TEST : r == 3 ? SH_PART_VAL : SH_PART_TRAIN);
    sh_split_clear(&s);
    sh_dataset_close(&d);
}

static void split__that_cannot_be_honest_is_refused(void **state)
{
    static const struct {
        sh_split_config config;
        const char *word;
    } cases[] = {
        {{.by = SH_SPLIT_INDIVIDUAL, .test = 0.05F}, "test part of the split has 1 individual"},
        {{.by = SH_SPLIT_INDIVIDUAL, .test = 0.95F}, "train part"},
        {{.by = SH_SPLIT_INDIVIDUAL, .test = 1.5F}, "shares"},
        {{.by = SH_SPLIT_INDIVIDUAL, .test = -0.1F}, "shares"},
        {{.by = SH_SPLIT_INDIVIDUAL, .test = 0.6F, .val = 0.5F}, "shares"},
        {{.by = SH_SPLIT_INDIVIDUAL, .fold = 3, .n_folds = 3}, "fold"},
        {{.by = SH_SPLIT_TIME, .fold = 0, .n_folds = 3}, "time"},
        {{.by = SH_SPLIT_RECORDING, .test = 0.3F}, "needs recordings"},
    };
    sh_dataset *d = make_dataset("n.h5", 1, false);
    sh_split s = {0};

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++)
        assert_failed(sh_split_compute(d, &cases[i].config, &s), SH_ERR_USAGE, cases[i].word);
    assert_null(s.part);
    sh_dataset_close(&d);
}

static void column__is_taken_as_it_is_and_its_leak_is_found(void **state)
{
    sh_dataset *d = make_dataset("c.h5", 1, true);
    sh_split s = {0};

    (void)state;
    must(sh_split_compute(d, &(sh_split_config){.by = SH_SPLIT_COLUMN}, &s));
    for (int64_t i = 0; i < N_CROPS; i++) assert_int_equal(s.part[i], i % 4);
    assert_true(s.leaks);
    assert_failed(sh_split_verify(&s, d, SH_SPLIT_INDIVIDUAL), SH_ERR_USAGE,
                  "individual f00 stands in two parts");
    must(sh_split_verify(&s, d, SH_SPLIT_COLUMN));
    sh_split_clear(&s);
    sh_dataset_close(&d);
}

static void csv__gives_back_the_split_and_notices_other_data(void **state)
{
    sh_dataset *d = make_dataset("w.h5", 1, true);
    sh_split s = {0}, again = {0};
    char path[512], *text = NULL;
    size_t n = 0;

    (void)state;
    snprintf(path, sizeof(path), "%s", in_folder("split.csv"));
    must(sh_split_compute(
        d, &(sh_split_config){.by = SH_SPLIT_INDIVIDUAL, .test = 0.3F, .val = 0.2F}, &s));
    must(sh_split_write(&s, d, path));
    must(sh_split_read(d, path, &again));
    assert_int_equal(again.n, s.n);
    assert_memory_equal(again.part, s.part, (size_t)s.n);
    assert_int_equal(again.leaks, s.leaks);
    sh_split_clear(&again);
    must(sh_file_get(path, 1 << 20, &text, &n));
    *(strrchr(text, 'n') - 1) = '\0'; /* within the last line's "none" */
    must(sh_file_put(path, text, strlen(text)));
    assert_failed(sh_split_read(d, path, &again), SH_ERR_FORMAT, "part 'n'");
    *(strrchr(text, '\n') + 1) = '\0';
    must(sh_file_put(path, text, strlen(text)));
    assert_failed(sh_split_read(d, path, &again), SH_ERR_MISMATCH, "no line for crop 216.png");
    memcpy(strstr(text, "f05"), "f06", 3);
    must(sh_file_put(path, text, strlen(text)));
    assert_failed(sh_split_read(d, path, &again), SH_ERR_MISMATCH, "'f06' here and 'f05'");
    memcpy(strstr(text, "w.h5"), "v.h5", 4);
    must(sh_file_put(path, text, strlen(text)));
    assert_failed(sh_split_read(d, path, &again), SH_ERR_MISMATCH, "not in the data");
    free(text);
    sh_split_clear(&s);
    sh_dataset_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_individual__no_fish_stands_in_two_parts),
        cmocka_unit_test(folds__test_every_fish_once),
        cmocka_unit_test(split__does_not_depend_on_the_order_of_crops),
        cmocka_unit_test(by_recording_and_time__keep_recordings_whole),
        cmocka_unit_test(split__that_cannot_be_honest_is_refused),
        cmocka_unit_test(column__is_taken_as_it_is_and_its_leak_is_found),
        cmocka_unit_test(csv__gives_back_the_split_and_notices_other_data),
    };

    return cmocka_run_group_tests(tests, set_up_folder, tear_down_folder);
}
