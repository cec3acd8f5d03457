// SPDX-License-Identifier: Apache-2.0
// prefix: cuda
// library: sh_models_cuda_emulated
/**
 * Whole training steps on a device, here the emulator: how often the host waits for it, and what a
 * step says that goes bad, which is what it says where the host computes.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/cuda/cuda.h"
#include "models/cuda/emulator/order.h"
#include "models/ref/ref.h"
#include "trainer/step.h"

enum { BATCH = 10, SHARDS = 2, SIDE = 6, PIXELS = SIDE * SIDE, N_STEPS = 4, MAX_TEXT = 512 };

static sh_comm *comm;

/** A training with images that are drawn, [BATCH] for each step. */
typedef struct training {
    sh_step *step;
    const sh_backend *backend;
    float *images; /* [BATCH, PIXELS] in memory that is sent to the backend */
    sh_slot_plan slots[BATCH];
} training;

#define must(status) assert_int_equal(status, SH_OK)

static sh_step_config base_config(void)
{
    sh_step_config c = {.height = SIDE,
                        .width = SIDE,
                        .batch = BATCH,
                        .n_shards = SHARDS,
                        .head = {.tap = "cnn1.3", .dim = 4, .normalize = true},
                        .loss = {.kind = SH_LOSS_SEMI_HARD,
                                 .margin = 0.5f,
                                 .reduction = SH_NONZERO_MEAN,
                                 .max_per_label = 4,
                                 .alpha = 2,
                                 .beta = 50,
                                 .base = 0.5f,
                                 .epsilon = 0.1f,
                                 .temperature = 0.1f,
                                 .seed = 3},
                        .optim = {.kind = SH_OPTIM_SGD, .momentum = 0.9f, .ema = 0.9f},
                        .passes = SH_PASSES_ONE,
                        .repeatable = true,
                        .seed = 3};

    must(sh_net_find("siamese_orl", &c.net));
    return c;
}

static void open_training(training *t, const sh_backend *backend, sh_step_config config)
{
    *t = (training){.backend = backend};
    config.backend = backend;
    must(sh_step_create(&config, comm, &t->step));
    must(sh_store_init(sh_step_store(t->step), 7));
    must(sh_optim_start_average(sh_step_optim(t->step)));
    must(sh_backend_alloc_host(backend, BATCH * PIXELS * sizeof(float), (void **)&t->images));
    memset(t->images, 0, BATCH * PIXELS * sizeof(float));
}

static void close_training(training *t)
{
    sh_backend_free_host(t->backend, t->images);
    sh_step_destroy(&t->step);
}

static sh_status input_of(void *context, int shard, sh_input *input)
{
    const training *t = context;
    int64_t begin, end;

    sh_step_slots_of_shard(t->step, shard, &begin, &end);
    *input = (sh_input){.host = t->images + begin * PIXELS};
    return SH_OK;
}

/** Fish and images of one step; labels change with it. */
static void draw(training *t, int64_t number)
{
    for (int i = 0; i < BATCH; i++) {
        int fish = (i + (int)number) % (number % 2 == 0 ? 5 : 3);

        t->slots[i] = (sh_slot_plan){.label = fish, .fish = fish};
        for (int k = 0; k < PIXELS; k++)
            t->images[i * PIXELS + k] =
                sinf((float)(k * (fish + 2) + 13 * i) + 0.1f * (float)(number * k));
    }
}

static sh_status run(training *t, int64_t number, sh_step_stats *stats)
{
    return sh_step_run(t->step, number, 0.05, t->slots, input_of, t, stats);
}

/** Weights and statistics, malloc'd. */
static char *weights_of(const training *t, size_t *n_bytes)
{
    const sh_store *store = sh_step_store(t->step);
    size_t params = (size_t)sh_store_n_params(store) * sizeof(float),
           states = (size_t)sh_store_n_states(store) * sizeof(float);
    char *all = malloc(params + states);

    assert_non_null(all);
    must(t->backend->copy_out(sh_store_params(sh_step_store(t->step)), 0, all, params));
    must(t->backend->copy_out(sh_store_states(sh_step_store(t->step)), 0, all + params, states));
    *n_bytes = params + states;
    return all;
}

/** The settings that differ in how their losses are launched. */
typedef void visitor(const sh_step_config *config);

static void for_each_loss(visitor *visit)
{
    for (int kind = 0; kind <= SH_LOSS_KINDS; kind++) {
        bool classes = kind == SH_LOSS_KINDS || kind == SH_LOSS_MULTI_SIMILARITY;
        sh_step_config c = base_config();

        c.loss.kind = (sh_loss_kind)kind;
        if (kind == SH_LOSS_MULTI_SIMILARITY || kind == SH_LOSS_NT_XENT)
            c.loss.distance = SH_COSINE;
        c.only_classes = kind == SH_LOSS_KINDS;
        c.classification = 0.5f;
        if (classes)
            c.classes =
                (sh_class_config){.kind = SH_CLASS_CROSS_ENTROPY, .n_classes = 6, .n_centres = 1};
        visit(&c);
    }
}

/* ---- waiting ---- */

/** What steps have left behind. */
typedef struct outcome {
    sh_step_stats stats[N_STEPS];
    char *weights;
    size_t n_bytes;
} outcome;

/** Steps that wait once each. From the second on they play n_plays recordings, and launch and copy
 *  nothing else but n_singles times. */
static outcome run_steps(const sh_step_config *config, long n_plays, long n_singles)
{
    training t;
    outcome o;

    open_training(&t, &sh_backend_cuda, *config);
    for (int64_t i = 0; i < N_STEPS; i++) {
        draw(&t, i);
        long waits = sh_emulator_waits(), plays = sh_emulator_plays(),
             singles = sh_emulator_singles();

        must(run(&t, i, &o.stats[i]));
        assert_int_equal(sh_emulator_waits() - waits, 1);
        assert_int_equal(sh_emulator_plays() - plays, i > 0 ? n_plays : 0);
        if (i > 0 && n_plays > 0) assert_int_equal(sh_emulator_singles() - singles, n_singles);
        assert_true(o.stats[i].loss.loss > 0 && o.stats[i].grad_norm > 0);
    }
    o.weights = weights_of(&t, &o.n_bytes);
    close_training(&t);
    return o;
}

static void expect_same(const outcome *a, const outcome *b)
{
    assert_int_equal(a->n_bytes, b->n_bytes);
    assert_memory_equal(a->weights, b->weights, a->n_bytes);
    for (int i = 0; i < N_STEPS; i++) {
        assert_memory_equal(&a->stats[i].loss, &b->stats[i].loss, sizeof(sh_loss_stats));
        assert_memory_equal(&a->stats[i].classes, &b->stats[i].classes, sizeof(sh_class_stats));
        assert_true(a->stats[i].grad_norm == b->stats[i].grad_norm);
    }
}

/* Recordings of two shards: the forward phase of the first; that of the second, the loss, and the
 * backward phase of the first; that of the second; the update. With two passes the forward phases
 * are repeated, each with its backward phase. Singly: a shard's sum is copied, and two buckets are
 * added up. */
enum { ONE_PASS = 4, TWO_PASSES = 5, SUMS = 4 };

static void expect_one_wait(const sh_step_config *given)
{
    sh_step_config config = *given;
    outcome plain = run_steps(&config, 0, 0);

    config.graphs = config.optim.recorded = true;
    outcome recorded = run_steps(&config, ONE_PASS, SUMS);
    config.passes = SH_PASSES_TWO;
    outcome twice = run_steps(&config, TWO_PASSES, SUMS);

    expect_same(&plain, &recorded);
    expect_same(&plain, &twice);
    free(plain.weights);
    free(recorded.weights);
    free(twice.weights);
}

static void step__waits_once_and_is_replayed_whatever_the_loss_is(void **state)
{
    (void)state;
    for_each_loss(expect_one_wait);
}

static void step_of_one_shard__is_two_recordings(void **state)
{
    sh_step_config config = base_config();

    (void)state;
    config.n_shards = 1;
    config.graphs = config.optim.recorded = true;
    free(run_steps(&config, 2, 1).weights);
}

static void step__takes_two_passes_where_the_device_has_no_room_for_one(void **state)
{
    sh_step_config config = base_config();

    (void)state;
    config.graphs = config.optim.recorded = true;
    config.passes = SH_PASSES_AUTO;
    free(run_steps(&config, ONE_PASS, SUMS).weights);
    sh_emulator_set_free_bytes(1 << 12);
    free(run_steps(&config, TWO_PASSES, SUMS).weights);
    sh_emulator_set_free_bytes(SIZE_MAX);
}

/* ---- what a step says ---- */

static void expect_the_losses_of_the_host(const sh_step_config *given)
{
    static const sh_backend *const backends[] = {&sh_backend_ref, &sh_backend_cuda};
    sh_step_stats stats[2];

    for (int b = 0; b < 2; b++) {
        training t;

        open_training(&t, backends[b], *given);
        draw(&t, 0);
        must(run(&t, 0, &stats[b]));
        close_training(&t);
    }
    assert_true(fabs(stats[0].loss.loss - stats[1].loss.loss) <= 1e-5 * stats[0].loss.loss);
    assert_true(fabs(stats[0].grad_norm - stats[1].grad_norm) <= 1e-4 * stats[0].grad_norm);
    assert_int_equal(stats[0].loss.n_pairs, stats[1].loss.n_pairs);
    assert_int_equal(stats[0].loss.n_triplets, stats[1].loss.n_triplets);
    assert_int_equal(stats[0].classes.n_rows, stats[1].classes.n_rows);
    assert_int_equal(stats[0].classes.n_correct, stats[1].classes.n_correct);
}

static void step__has_the_losses_of_the_host(void **state)
{
    (void)state;
    for_each_loss(expect_the_losses_of_the_host);
}

enum { GOOD, NO_EMBEDDING, NO_GRADIENT, NO_LOSS, LARGE_NORM, FAULTS };

/** The third of some steps is bad, or all are; what it says, and the weights behind all of them. */
static char *run_badly(const sh_backend *backend, int fault, char text[MAX_TEXT], size_t *n_bytes)
{
    training t;
    sh_step_config config = base_config();
    sh_step_stats stats;
    char *before, *after;

    if (fault == NO_LOSS) config.loss.margin = INFINITY; /* its gradient is finite */
    if (fault == LARGE_NORM) config.optim.bad_norm = 1e-9;
    config.graphs = config.optim.recorded = true;
    open_training(&t, backend, config);
    for (int64_t i = 0; i < N_STEPS; i++) {
        bool is_bad = (i == 2 && fault != GOOD) || fault >= NO_LOSS;

        draw(&t, i);
        if (is_bad && fault == NO_EMBEDDING) t.images[7 * PIXELS + 5] = INFINITY;
        if (is_bad && fault == NO_GRADIENT) t.images[7 * PIXELS + 5] = NAN; /* ReLU stops it */
        before = weights_of(&t, n_bytes);
        assert_int_equal(run(&t, i, &stats), is_bad ? SH_ERR_MISMATCH : SH_OK);
        assert_int_equal(stats.bad, is_bad);
        if (is_bad) {
            strncpy(text, sh_error_message(), MAX_TEXT - 1);
            sh_error_clear();
            assert_int_equal(stats.bad_slot, fault == NO_EMBEDDING ? 5 : -1);
        }
        after = weights_of(&t, n_bytes);
        assert_int_equal(memcmp(before, after, *n_bytes) == 0, is_bad);
        free(before);
        free(after);
    }
    after = weights_of(&t, n_bytes);
    close_training(&t);
    return after;
}

static void bad_step__changes_nothing_and_says_what_it_says_on_the_host(void **state)
{
    static const char *const words[FAULTS] = {
        "", "the embedding of slot 5 is not finite, in shard 1 (rank 0)",
        "the gradient is not finite, first that of cnn1.1.weight in shard 1 (rank 0)",
        "its loss is not finite", "the norm of its gradient is"};

    (void)state;
    for (int fault = GOOD; fault < FAULTS; fault++) {
        char host[MAX_TEXT] = "", device[MAX_TEXT] = "";
        size_t n_bytes;

        free(run_badly(&sh_backend_ref, fault, host, &n_bytes));
        free(run_badly(&sh_backend_cuda, fault, device, &n_bytes));
        assert_non_null(strstr(device, words[fault]));
        if (fault != LARGE_NORM) assert_string_equal(device, host); /* else it has the norm in it */
    }
}

static int open_comm(void **state)
{
    (void)state;
    return sh_comm_create(1, &comm) == SH_OK ? 0 : -1;
}

static int close_comm(void **state)
{
    (void)state;
    sh_comm_destroy(&comm);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(step__waits_once_and_is_replayed_whatever_the_loss_is),
        cmocka_unit_test(step_of_one_shard__is_two_recordings),
        cmocka_unit_test(step__takes_two_passes_where_the_device_has_no_room_for_one),
        cmocka_unit_test(step__has_the_losses_of_the_host),
        cmocka_unit_test(bad_step__changes_nothing_and_says_what_it_says_on_the_host),
    };

    return cmocka_run_group_tests(tests, open_comm, close_comm);
}
