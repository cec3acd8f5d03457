// SPDX-License-Identifier: Apache-2.0
/* `shoal bench train`: what loading costs a real run. An experiment is trained for some steps with
 * its own data, and the same step is timed on images that stand in memory, in turn, so that both
 * see the machine alike. With a loader that takes nothing but its own core time, an image takes
 *
 *     step + loader core time / cores
 *
 * and the share of that which training reaches is printed: the median of the rounds, with the
 * order statistics that hold the true median in 95 of 100 cases. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cli.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/file.h"
#include "trainer/bench_nodes.h"
#include "trainer/commands.h"
#include "trainer/experiment.h"
#include "trainer/train.h"

enum { PATH_BYTES = 1024 };

typedef struct bench {
    int64_t steps, rounds;
    bool json;
    sh_comm *comm;
    sh_config config;
    sh_session session;
} bench;

typedef struct result {
    int64_t batch;
    int cores;
    double train_ms, step_ms, load_core_ms; /* per image */
    double cached;                          /* share of the crops taken from the cache */
    double share, low, high;                /* of the rate without any loss */
} result;

static sh_status configure(const sh_string_list *words, bench *b)
{
    sh_status st = SH_OK;
    sh_experiment experiment = {0};

    SH_TRY(sh_experiment_parse(words, NULL, &experiment));
    SH_TRY(sh_experiment_load(&experiment, &b->config));
out:
    sh_experiment_clear(&experiment);
    return st;
}

/* The session's own step on the batch that was loaded last, seconds a step. */
static sh_status time_steps(bench *b, double *seconds)
{
    sh_status st = SH_OK;
    sh_session *s = &b->session;
    double start = sh_clock_seconds();
    const sh_slot_plan *slots = sh_batches_begin(s->batches, s->progress.step);

    for (int64_t i = 0; i < b->steps; i++) {
        int64_t step = s->progress.step + i;
        sh_step_stats stats;

        SH_TRY(sh_step_run(s->step, step, sh_config_learning_rate(&s->config, step), slots,
                           sh_batches_input, s->batches, &stats));
    }
    *seconds = (sh_clock_seconds() - start) / (double)b->steps;
out:
    return st;
}

/* One after the other, so that what the machine loses to others is lost to both. */
static sh_status measure_round(bench *b, const result *r, double *train_ms, double *step_ms,
                               double *load_core_ms)
{
    sh_status st = SH_OK;
    sh_session *s = &b->session;
    sh_loader_stats before = {0}, after;
    double seconds = 0;

    if (s->batches != NULL) {
        SH_TRY(sh_batches_settle(s->batches));
        sh_batches_get_stats(s->batches, &before);
    }
    SH_TRY(sh_train_steps(s, b->steps, &seconds));
    SH_TRY(sh_batches_settle(s->batches));
    sh_batches_get_stats(s->batches, &after);
    *train_ms = 1e3 * seconds / (double)r->batch;
    *load_core_ms =
        1e3 * (after.busy_seconds - before.busy_seconds) / (double)(after.n_crops - before.n_crops);
    SH_TRY(time_steps(b, &seconds));
    *step_ms = 1e3 * seconds / (double)r->batch;
out:
    return st;
}

/* Ranks (from 0) of the ordered values that bound the median at 95 %: a normal approximation of
 * the binomial law; with few rounds, the extremes. */
static void median_bounds(int64_t n, int64_t *low, int64_t *high)
{
    double half = 1.96 * sqrt((double)n) / 2;

    *low = (int64_t)floor((double)n / 2 - half);
    *low = *low < 0 ? 0 : *low;
    *high = n - 1 - *low;
}

static sh_status measure(bench *b, result *r)
{
    sh_status st = SH_OK;
    int n = (int)b->rounds;
    int64_t low, high;
    double *train_ms = calloc((size_t)n * 4, sizeof(double));
    double *step_ms = train_ms + n, *load_core_ms = step_ms + n, *share = load_core_ms + n;
    sh_loader_stats loaded;

    SH_CHECK(train_ms != NULL, SH_ERR_NO_MEMORY, "rounds");
    r->batch = sh_config_batch(&b->config);
    r->cores = b->config.threads > 0 ? (int)b->config.threads : sh_cpu_cores_granted();
    for (int i = -1; i < n; i++) { /* the first round warms up */
        int k = i < 0 ? 0 : i;

        SH_TRY(measure_round(b, r, &train_ms[k], &step_ms[k], &load_core_ms[k]));
        share[k] = (step_ms[k] + load_core_ms[k] / r->cores) / train_ms[k];
    }
    SH_TRY(sh_batches_settle(b->session.batches));
    sh_batches_get_stats(b->session.batches, &loaded);
    r->cached = (double)loaded.n_cached / (double)loaded.n_crops;
    r->train_ms = sh_bench_median(train_ms, n);
    r->step_ms = sh_bench_median(step_ms, n);
    r->load_core_ms = sh_bench_median(load_core_ms, n);
    r->share = sh_bench_median(share, n); /* orders them */
    median_bounds(n, &low, &high);
    r->low = share[low];
    r->high = share[high];
out:
    free(train_ms);
    return st;
}

static void print_result(const bench *b, const result *r)
{
    if (b->json) {
        printf("{\"bench\": \"train\", \"steps\": %lld, \"rounds\": %lld, \"batch\": %lld, "
               "\"cores\": %d, "
               "\"train_ms_per_image\": %.4f, \"step_ms_per_image\": %.4f, "
               "\"loader_core_ms_per_image\": %.4f, \"cached_share\": %.4f, \"share\": %.4f, "
               "\"interval\": [%.4f, %.4f]}\n",
               (long long)b->steps, (long long)b->rounds, (long long)r->batch, r->cores,
               r->train_ms, r->step_ms, r->load_core_ms, r->cached, r->share, r->low, r->high);
        return;
    }
    printf("medians of %lld rounds of %lld + %lld steps of %lld images, %d core%s\n",
           (long long)b->rounds, (long long)b->steps, (long long)b->steps, (long long)r->batch,
           r->cores, r->cores == 1 ? "" : "s");
    printf("training, end to end         %8.3f ms/image  (%.1f images/s)\n", r->train_ms,
           1e3 / r->train_ms);
    printf("the step alone               %8.3f ms/image\n", r->step_ms);
    printf("loader, core time            %8.3f ms/image  (%.0f %% of crops from the cache)\n",
           r->load_core_ms, 100 * r->cached);
    printf("step + core time / cores     %8.3f ms/image: training reaches %.3f [%.3f, %.3f] of "
           "that rate\n",
           r->step_ms + r->load_core_ms / r->cores, r->share, r->low, r->high);
}

static sh_status run(bench *b)
{
    sh_status st = SH_OK;
    const char *base = getenv("TMPDIR");
    char folder[PATH_BYTES / 2], path[PATH_BYTES];
    bool made = false;
    result r = {0};

    snprintf(folder, sizeof(folder), "%s/shoal-bench-XXXXXX", base != NULL ? base : "/tmp");
    made = mkdtemp(folder) != NULL;
    SH_CHECK(made, SH_ERR_IO, "cannot make a folder %s: set TMPDIR", folder);
    SH_TRY(sh_path_join(folder, "run", path, sizeof(path)));
    SH_TRY(sh_comm_create(1, &b->comm));
    SH_TRY(sh_session_open(b->comm, path, &b->config, &b->session));
    st = measure(b, &r);
    sh_session_close(&b->session);
    SH_TRY(st);
    print_result(b, &r);
out:
    sh_comm_destroy(&b->comm);
    if (made) {
        sh_status removed = sh_file_remove_tree(folder);

        st = st == SH_OK ? removed : st;
    }
    return st;
}

sh_status sh_bench_train(int argc, char **argv)
{
    sh_status st = SH_OK;
    bench *b = NULL;
    sh_string_list words = {0};
    int64_t steps = 5, rounds = 12;
    bool json = false, helped = false;
    const sh_flag flags[] = {
        {"--steps", NULL, SH_FLAG_INT, &steps, "N", "steps of each kind in a round (default 5)"},
        {"--rounds", NULL, SH_FLAG_INT, &rounds, "N",
         "training and steps in memory, in turn (default 12)"},
        {"--json", NULL, SH_FLAG_BOOL, &json, NULL, "one JSON object instead of the table"},
    };
    const sh_cli cli = {.usage = "shoal bench train EXPERIMENT.yaml [--steps N] [--rounds N] "
                                 "[--json] [key=value]...",
                        .summary = "Train for some steps and compare the rate with that of the "
                                   "step alone and the loader's core time, in turn.",
                        .flags = flags,
                        .n_flags = (int)SH_COUNT(flags),
                        .max_args = -1};

    SH_TRY(sh_cli_parse(&cli, argc, argv, &words, &helped));
    if (helped) goto out;
    SH_CHECK(steps > 0, SH_ERR_USAGE, "--steps %lld: at least 1", (long long)steps);
    SH_CHECK(rounds > 0 && rounds <= 10000, SH_ERR_USAGE, "--rounds %lld: 1 to 10000",
             (long long)rounds);
    b = calloc(1, sizeof(*b));
    SH_CHECK(b != NULL, SH_ERR_NO_MEMORY, "bench");
    b->steps = steps;
    b->rounds = rounds;
    b->json = json;
    SH_TRY(configure(&words, b));
    SH_TRY(run(b));
out:
    free(b);
    free(words.items);
    return st;
}
