// SPDX-License-Identifier: Apache-2.0
// timeout: 120
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include <pthread.h>

#include "base/rng.h"
#include "dataio/sampler.h"
#include "tests/dataio/make_dataset.h"

enum { MAX_FISH = 400 };

typedef struct fixture {
    sh_dataset *dataset;
    sh_split split;
    sh_sampler *sampler;
    sh_sampler_config config;
    int64_t n_crops;
} fixture;

static int n_images[MAX_FISH], n_recordings[MAX_FISH];

static fixture open_fixture(int n_fish, bool sides, sh_sampler_config config)
{
    fish_set set = {n_fish, n_images, n_recordings, sides};
    fixture f = {.dataset = make_dataset(&set), .config = config};

    f.split = all_train(f.dataset);
    f.n_crops = f.split.n;
    MUST(sh_sampler_create(&config, f.dataset, &f.split, SH_PART_TRAIN, &f.sampler));
    assert_int_equal(sh_sampler_n_samples(f.sampler), f.n_crops);
    return f;
}

static void close_fixture(fixture *f)
{
    sh_sampler_destroy(&f->sampler);
    sh_split_clear(&f->split);
    sh_dataset_close(&f->dataset);
}

/* Which of n_images[] a crop belongs to. */
static int fish_number(const fixture *f, int64_t crop)
{
    int32_t individual = sh_dataset_crop(f->dataset, crop)->individual;

    return atoi(sh_dataset_individual(f->dataset, individual) + strlen("fish"));
}

static sh_sampler_config pk(int p, int k)
{
    return (sh_sampler_config){
        .sampling = SH_SAMPLING_PK, .batch = p * k, .images_per_individual = k, .seed = 7};
}

/* Sets of fish that training meets, and how their P x K must cope. */
static int uniform_set(void)
{
    for (int i = 0; i < 20; i++) n_images[i] = 12, n_recordings[i] = 3;
    return 20;
}

static int uneven_set(void) /* 1 .. 300 images, 1 .. 5 recordings */
{
    sh_rng_key key = sh_rng_make(1, SH_RNG_TEST, 0, 0);

    for (int i = 0; i < 40; i++) {
        float u = sh_rng_uniform(key, (uint64_t)i);

        n_images[i] = i == 0 ? 300 : i == 1 ? 1 : 1 + (int)(299 * u * u * u * u);
        n_recordings[i] = 1 + (int)sh_rng_below(key, 1000 + (uint64_t)i, 5);
    }
    return 40;
}

static int one_recording_set(void)
{
    for (int i = 0; i < 11; i++) n_images[i] = 3 + 5 * i, n_recordings[i] = 1;
    return 11;
}

static int short_set(void) /* all below K = 4 */
{
    for (int i = 0; i < 50; i++) n_images[i] = 1 + i % 3, n_recordings[i] = 1 + i % 3;
    return 50;
}

static int giant_set(void)
{
    for (int i = 0; i < 30; i++) n_images[i] = i == 4 ? 400 : 2 + i % 4, n_recordings[i] = 2;
    return 30;
}

static int scarce_set(void) /* fewer images than a batch has slots */
{
    for (int i = 0; i < 9; i++) n_images[i] = 2 + i % 2, n_recordings[i] = 2;
    return 9;
}

static int few_fish_set(void)
{
    for (int i = 0; i < 5; i++) n_images[i] = 30 + i, n_recordings[i] = 2;
    return 5;
}

static int (*const sets[])(void) = {uniform_set, uneven_set, one_recording_set,
                                    short_set,   giant_set,  scarce_set};

static void pk_epoch__draws_every_sample_and_counts_repeats(void **state)
{
    (void)state;
    for (size_t s = 0; s < SH_COUNT(sets); s++)
        for (int k = 1; k <= 8; k += k < 4 ? 1 : 4) {
            fixture f = open_fixture(sets[s](), false, pk(8, k));
            int64_t steps = sh_sampler_steps_per_epoch(f.sampler);
            sh_slot_plan slots[64];

            for (int64_t epoch = 0; epoch < 3; epoch++) {
                int64_t *drawn = calloc((size_t)f.n_crops, sizeof(*drawn)), repeats = 0;

                for (int64_t step = epoch * steps; step < (epoch + 1) * steps; step++) {
                    int of_class[50] = {0};

                    sh_sampler_plan(f.sampler, step, slots);
                    for (int i = 0; i < 8 * k; i++) {
                        int64_t crop = slots[i].crop;

                        assert_true(++of_class[slots[i].label] <= k);

                        assert_in_range(crop, 0, f.n_crops - 1);
                        repeats += drawn[crop]++ > 0;
                    }
                }
                for (int64_t i = 0; i < f.n_crops; i++) assert_true(drawn[i] >= 1);
                assert_int_equal(repeats, sh_sampler_repeats_per_epoch(f.sampler));
                free(drawn);
            }
            close_fixture(&f);
        }
}

static void pk_batch__has_p_fish_of_k_distinct_images(void **state)
{
    (void)state;
    fixture f = open_fixture(uniform_set(), false, pk(8, 4));
    sh_slot_plan slots[32];

    /* 12 images make 3 hands of 4, so nothing repeats but what fills the last batch. */
    assert_int_equal(sh_sampler_steps_per_epoch(f.sampler), 8);
    assert_int_equal(sh_sampler_repeats_per_epoch(f.sampler), 8 * 32 - 240);
    for (int64_t step = 0; step < 24; step++) {
        int of_fish[20] = {0}, n_fish = 0;

        sh_sampler_plan(f.sampler, step, slots);
        for (int i = 0; i < 32; i++) {
            const sh_crop *crop = sh_dataset_crop(f.dataset, slots[i].crop);

            for (int j = 0; j < i; j++) assert_int_not_equal(slots[i].crop, slots[j].crop);
            n_fish += of_fish[slots[i].fish]++ == 0;
            assert_int_equal(slots[i].label, slots[i].fish);
            assert_int_equal(crop->individual, slots[i].fish);
        }
        assert_int_equal(n_fish, 8);
        for (int i = 0; i < 20; i++) assert_true(of_fish[i] == 0 || of_fish[i] == 4);
    }
    close_fixture(&f);
}

static void pk_batch__takes_positives_from_different_recordings(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) n_images[i] = 48, n_recordings[i] = 24;
    fixture f = open_fixture(10, false, pk(5, 4));
    sh_slot_plan slots[20];

    for (int64_t step = 0; step < 2 * sh_sampler_steps_per_epoch(f.sampler); step++) {
        sh_sampler_plan(f.sampler, step, slots);
        for (int i = 0; i < 20; i++)
            for (int j = 0; j < i; j++) {
                if (slots[i].fish != slots[j].fish) continue;
                assert_int_not_equal(sh_dataset_crop(f.dataset, slots[i].crop)->recording,
                                     sh_dataset_crop(f.dataset, slots[j].crop)->recording);
            }
    }
    close_fixture(&f);
}

static void pk_batch__takes_at_most_half_a_hand_from_one_recording(void **state)
{
    (void)state;
    for (int i = 0; i < 12; i++) n_images[i] = 30 + i, n_recordings[i] = 2;
    fixture f = open_fixture(12, false, pk(6, 4));
    sh_slot_plan slots[24];

    for (int64_t step = 0; step < 2 * sh_sampler_steps_per_epoch(f.sampler); step++) {
        sh_sampler_plan(f.sampler, step, slots);
        for (int i = 0; i < 24; i++) {
            int same = 0;

            for (int j = 0; j < 24; j++)
                same += slots[i].fish == slots[j].fish &&
                        sh_dataset_crop(f.dataset, slots[i].crop)->recording ==
                            sh_dataset_crop(f.dataset, slots[j].crop)->recording;
            assert_int_equal(same, 2);
        }
    }
    close_fixture(&f);
}

static void pk_short_fish__give_all_they_have_at_once(void **state)
{
    (void)state;
    fixture f = open_fixture(short_set(), false, pk(8, 4));
    int64_t steps = sh_sampler_steps_per_epoch(f.sampler);
    int together = 0, whole = 0;
    sh_slot_plan slots[32];

    /* 99 images fill 3 batches and begin a fourth. */
    assert_int_equal(steps, 4);
    for (int64_t step = 0; step < 10 * steps; step++) {
        int of_fish[50] = {0};

        sh_sampler_plan(f.sampler, step, slots);
        for (int i = 0; i < 32; i++) of_fish[fish_number(&f, slots[i].crop)]++;
        for (int i = 0; i < 50; i++) {
            if (of_fish[i] == 0) continue;
            together++;
            whole += of_fish[i] == n_images[i];
            assert_true(of_fish[i] <= n_images[i]);
        }
    }
    /* At most one fish per batch is split, and it comes in two parts. */
    assert_true(together - whole <= 2 * 10 * (int)steps);
    assert_true(whole > together * 3 / 4);
    close_fixture(&f);
}

static void pk_repeats__fall_on_all_samples_alike(void **state)
{
    (void)state;
    /* 10 images of one recording: hands of 4 repeat 2 images each epoch. */
    for (int i = 0; i < 8; i++) n_images[i] = 10, n_recordings[i] = 1;
    fixture f = open_fixture(8, false, pk(8, 4));
    int64_t steps = sh_sampler_steps_per_epoch(f.sampler);
    int drawn[80] = {0};
    sh_slot_plan slots[32];

    assert_int_equal(steps, 3);
    for (int64_t step = 0; step < 400 * steps; step++) {
        sh_sampler_plan(f.sampler, step, slots);
        for (int i = 0; i < 32; i++) drawn[slots[i].crop]++;
    }
    /* 480 expected; binomial with p = 0.2 over 400 epochs: 8 standard deviations are 64. */
    for (int i = 0; i < 80; i++) assert_in_range(drawn[i], 480 - 64, 480 + 64);
    close_fixture(&f);
}

static void pk_fish__meet_all_others(void **state)
{
    (void)state;
    fixture f = open_fixture(uniform_set(), false, pk(8, 4));
    int met[20][20] = {{0}};
    sh_slot_plan slots[32];

    for (int64_t step = 0; step < 400; step++) {
        sh_sampler_plan(f.sampler, step, slots);
        for (int i = 0; i < 32; i++)
            for (int j = 0; j < 32; j++) met[slots[i].fish][slots[j].fish]++;
    }
    /* 400 batches * P (P - 1) / (20 * 19) pairs of fish * K * K images = 943 expected. */
    for (int i = 0; i < 20; i++)
        for (int j = 0; j < 20; j++)
            if (i != j) assert_in_range(met[i][j], 943 * 3 / 5, 943 * 7 / 5);
    close_fixture(&f);
}

typedef struct reader {
    const fixture *f;
    const sh_slot_plan *expected;
    int64_t n_steps, from;
    bool equal;
} reader;

/* Plans all steps, beginning at another one in each thread, forth and back over epoch borders. */
static void *read_plans(void *argument)
{
    reader *r = argument;
    int64_t batch = r->f->config.batch;
    sh_slot_plan slots[64];

    r->equal = true;
    for (int64_t i = 0; i < r->n_steps; i++) {
        int64_t step = (r->from + i * 7919) % r->n_steps;

        sh_sampler_plan(r->f->sampler, step, slots);
        r->equal &= memcmp(slots, r->expected + step * batch, sizeof(*slots) * (size_t)batch) == 0;
    }
    return NULL;
}

static void plan__is_a_pure_function_of_seed_and_step(void **state)
{
    static const sh_sampling kinds[] = {SH_SAMPLING_PK, SH_SAMPLING_EPOCH, SH_SAMPLING_PAIRS};

    (void)state;
    for (size_t s = 0; s < SH_COUNT(kinds); s++) {
        sh_sampler_config config = pk(8, 4);

        config.sampling = kinds[s];
        fixture f = open_fixture(uneven_set(), false, config);
        int64_t n_steps = 3 * sh_sampler_steps_per_epoch(f.sampler) + 1;
        sh_slot_plan *expected = calloc((size_t)n_steps * 32, sizeof(*expected));
        sh_slot_plan slots[32];
        sh_sampler *other = NULL;
        reader readers[4];
        pthread_t threads[4];

        for (int64_t step = 0; step < n_steps; step++)
            sh_sampler_plan(f.sampler, step, expected + step * 32);
        for (int i = 0; i < 4; i++) {
            readers[i] = (reader){.f = &f, .expected = expected, .n_steps = n_steps, .from = i * 3};
            assert_int_equal(pthread_create(&threads[i], NULL, read_plans, &readers[i]), 0);
        }
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
        for (int i = 0; i < 4; i++) assert_true(readers[i].equal);

        /* A restarted run asks a new sampler for any step first. */
        MUST(sh_sampler_create(&config, f.dataset, &f.split, SH_PART_TRAIN, &other));
        for (int64_t step = n_steps - 1; step >= 0; step -= 5) {
            sh_sampler_plan(other, step, slots);
            assert_memory_equal(slots, expected + step * 32, sizeof(slots));
        }
        sh_sampler_destroy(&other);
        config.seed++;
        MUST(sh_sampler_create(&config, f.dataset, &f.split, SH_PART_TRAIN, &other));
        sh_sampler_plan(other, 0, slots);
        assert_memory_not_equal(slots, expected, sizeof(slots));
        sh_sampler_destroy(&other);
        free(expected);
        close_fixture(&f);
    }
}

static int compare_u64(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

/* The ledger of a run that is cut after any step and goes on with a new sampler: no slot lost, none
 * used twice, and (EPOCH) no sample of an epoch either. */
static void plan__loses_and_repeats_no_slot_when_resumed(void **state)
{
    sh_sampler_config config = {.sampling = SH_SAMPLING_EPOCH, .batch = 32, .seed = 3};
    enum { STEPS = 40 };
    uint64_t ledger[STEPS * 32];
    int n = 0;

    (void)state;
    fixture f = open_fixture(few_fish_set(), false, config); /* 160 images: 5 steps an epoch */
    int drawn[160] = {0};

    for (int64_t step = 0; step < STEPS;) {
        sh_sampler *resumed = NULL;
        int64_t until = step + 1 + step % 4;

        MUST(sh_sampler_create(&config, f.dataset, &f.split, SH_PART_TRAIN, &resumed));
        for (; step < until && step < STEPS; step++) {
            sh_slot_plan slots[32];

            sh_sampler_plan(resumed, step, slots);
            for (int i = 0; i < 32; i++) {
                ledger[n++] = slots[i].draw;
                drawn[slots[i].crop]++;
            }
        }
        sh_sampler_destroy(&resumed);
    }
    qsort(ledger, (size_t)n, sizeof(*ledger), compare_u64);
    for (int i = 1; i < n; i++) assert_true(ledger[i - 1] < ledger[i]);
    assert_int_equal(n, STEPS * 32);
    for (int i = 0; i < 160; i++) assert_int_equal(drawn[i], STEPS * 32 / 160);
    close_fixture(&f);
}

static void epoch_batches__cross_epoch_borders(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) n_images[i] = 7 + i, n_recordings[i] = 1;
    /* 24 samples; batches of 10 and of 50, more than an epoch. */
    for (int64_t batch = 10; batch <= 50; batch += 40) {
        sh_sampler_config config = {.sampling = SH_SAMPLING_EPOCH, .batch = batch, .seed = 3};
        fixture f = open_fixture(3, false, config);
        int drawn[24] = {0}, in_order = 0;

        assert_int_equal(sh_sampler_repeats_per_epoch(f.sampler), 0);
        assert_int_equal(sh_sampler_steps_per_epoch(f.sampler), batch == 10 ? 3 : 1);
        for (int64_t step = 0, n = 0; step < 12; step++) {
            sh_slot_plan slots[50];

            sh_sampler_plan(f.sampler, step, slots);
            for (int i = 0; i < batch; i++, n++) {
                assert_int_equal(drawn[slots[i].crop], n / 24);
                drawn[slots[i].crop]++;
                in_order += slots[i].crop == n % 24;
            }
        }
        assert_true(in_order < 12 * (int)batch / 4); /* shuffled: about 1 in 24 by chance */
        close_fixture(&f);
    }
}

static void pairs__are_same_or_different_by_a_fair_coin(void **state)
{
    sh_sampler_config config = {.sampling = SH_SAMPLING_PAIRS, .batch = 64, .seed = 3};
    int n_same = 0, n_itself = 0, first_of[160] = {0};

    (void)state;
    fixture f = open_fixture(few_fish_set(), false, config);
    assert_int_equal(sh_sampler_steps_per_epoch(f.sampler), 160 / 32);
    for (int64_t step = 0; step < 500; step++) {
        sh_slot_plan slots[64];

        sh_sampler_plan(f.sampler, step, slots);
        for (int i = 0; i < 64; i += 2) {
            n_same += slots[i].label == slots[i + 1].label;
            n_itself += slots[i].crop == slots[i + 1].crop;
            first_of[slots[i].crop]++;
        }
    }
    /* 16000 coins: 8000, standard deviation 63. Itself: half of them, 1 in 32. */
    assert_in_range(n_same, 8000 - 400, 8000 + 400);
    assert_in_range(n_itself, 250 - 100, 250 + 100);
    for (int i = 0; i < 160; i++) assert_in_range(first_of[i], 100 - 60, 100 + 60);
    close_fixture(&f);
}

static void side_is_class__gives_each_side_a_label_and_keeps_the_fish(void **state)
{
    sh_sampler_config config = pk(8, 4);
    int label_of[20][3];

    (void)state;
    config.side_is_class = true;
    fixture f = open_fixture(uniform_set(), true, config);
    assert_int_equal(sh_sampler_n_classes(f.sampler), 40);
    memset(label_of, 0xFF, sizeof(label_of));
    for (int64_t step = 0; step < 20; step++) {
        sh_slot_plan slots[32];

        sh_sampler_plan(f.sampler, step, slots);
        for (int i = 0; i < 32; i++) {
            const sh_crop *crop = sh_dataset_crop(f.dataset, slots[i].crop);
            int *label = &label_of[crop->individual][crop->side];

            assert_int_equal(slots[i].fish, crop->individual);
            assert_in_range(slots[i].label, 0, 39);
            if (*label < 0) *label = slots[i].label;
            assert_int_equal(slots[i].label, *label);
        }
    }
    for (int i = 0; i < 20; i++)
        assert_int_not_equal(label_of[i][SH_SIDE_LEFT], label_of[i][SH_SIDE_RIGHT]);
    close_fixture(&f);

    config.sampling = SH_SAMPLING_PAIRS;
    f = open_fixture(uniform_set(), true, config);
    for (int64_t step = 0; step < 200; step++) {
        sh_slot_plan slots[32];

        sh_sampler_plan(f.sampler, step, slots);
        for (int i = 0; i < 32; i += 2) /* opposite sides of one fish are no pair at all */
            assert_true(slots[i].label == slots[i + 1].label || slots[i].fish != slots[i + 1].fish);
    }
    close_fixture(&f);
}

static void create__refuses_what_cannot_be_sampled(void **state)
{
    sh_sampler *sampler = NULL;
    sh_sampler_config config = pk(8, 4);

    (void)state;
    n_images[0] = 9;
    n_recordings[0] = 2;
    fish_set set = {1, n_images, n_recordings, false};
    sh_dataset *dataset = make_dataset(&set);
    sh_split split = all_train(dataset);

    assert_int_equal(sh_sampler_create(&config, dataset, &split, SH_PART_TRAIN, &sampler),
                     SH_ERR_USAGE);
    assert_non_null(strstr(sh_error_message(), "9 crops of 1 individual"));
    assert_int_equal(sh_sampler_create(&config, dataset, &split, SH_PART_VAL, &sampler),
                     SH_ERR_USAGE);
    sh_split_clear(&split);
    sh_dataset_close(&dataset);

    set.n_fish = few_fish_set();
    dataset = make_dataset(&set);
    split = all_train(dataset);
    config.images_per_individual = 5;
    assert_int_equal(sh_sampler_create(&config, dataset, &split, SH_PART_TRAIN, &sampler),
                     SH_ERR_USAGE);
    assert_non_null(strstr(sh_error_message(), "32 is not P * K"));
    config.images_per_individual = 4;
    assert_int_equal(sh_sampler_create(&config, dataset, &split, SH_PART_TRAIN, &sampler),
                     SH_ERR_USAGE);
    assert_non_null(
        strstr(sh_error_message(), "batches of 8 individuals, but the train part has 5"));
    config = (sh_sampler_config){.sampling = SH_SAMPLING_PAIRS, .batch = 7};
    assert_int_equal(sh_sampler_create(&config, dataset, &split, SH_PART_TRAIN, &sampler),
                     SH_ERR_USAGE);
    assert_null(sampler);
    sh_split_clear(&split);
    sh_dataset_close(&dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pk_epoch__draws_every_sample_and_counts_repeats),
        cmocka_unit_test(pk_batch__has_p_fish_of_k_distinct_images),
        cmocka_unit_test(pk_batch__takes_positives_from_different_recordings),
        cmocka_unit_test(pk_batch__takes_at_most_half_a_hand_from_one_recording),
        cmocka_unit_test(pk_short_fish__give_all_they_have_at_once),
        cmocka_unit_test(pk_repeats__fall_on_all_samples_alike),
        cmocka_unit_test(pk_fish__meet_all_others),
        cmocka_unit_test(plan__is_a_pure_function_of_seed_and_step),
        cmocka_unit_test(plan__loses_and_repeats_no_slot_when_resumed),
        cmocka_unit_test(epoch_batches__cross_epoch_borders),
        cmocka_unit_test(pairs__are_same_or_different_by_a_fair_coin),
        cmocka_unit_test(side_is_class__gives_each_side_a_label_and_keeps_the_fish),
        cmocka_unit_test(create__refuses_what_cannot_be_sampled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
