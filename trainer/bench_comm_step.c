// SPDX-License-Identifier: Apache-2.0
/* Whole training steps over ranks: `shoal bench comm --net ...`, which scripts/compare-ranks drives
 * with several ranks of one thread and one rank of several. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "trainer/bench_comm.h"
#include "trainer/bench_nodes.h"

enum { MAX_STEPS = 1000, WARM_UP = 2 };
enum { FORWARD, BACKWARD, REDUCE, UPDATE, N_PARTS };

typedef struct bench {
    sh_bench_ranks *config;
    sh_comm *comm;
    sh_step *steps[2]; /* by sh_reduce_mode; FAST only with several ranks */
    int n_modes;
    sh_bench_batch images;
    int64_t n_run[2];
} bench;

static sh_status create_steps(bench *b)
{
    sh_status st = SH_OK;
    sh_step_config config;

    SH_TRY(sh_bench_step_config(&b->config->options, &config));
    config.n_shards = (int)b->config->shards;
    for (int mode = 0; mode < b->n_modes; mode++) {
        config.reduce = (sh_reduce_mode)mode;
        SH_TRY(sh_step_create(&config, b->comm, &b->steps[mode]));
        SH_TRY(sh_store_init(sh_step_store(b->steps[mode]), 1));
    }
    SH_TRY(sh_bench_batch_make(b->steps[0], &b->images));
out:
    return st;
}

static sh_status time_step(bench *b, int mode, double *seconds, sh_step_stats *stats)
{
    sh_status st = SH_OK;

    SH_TRY(sh_comm_barrier(b->comm));
    double start = sh_clock_seconds();

    SH_TRY(sh_step_run(b->steps[mode], b->n_run[mode]++, 1e-4, b->images.slots,
                       sh_bench_batch_pixels, &b->images, stats));
    *seconds = sh_clock_seconds() - start;
    SH_TRY(sh_bench_comm_slowest(b->comm, seconds));
out:
    return st;
}

static sh_status measure(bench *b, sh_bench_ranks_result *out)
{
    static double seconds[2][MAX_STEPS], ratio[MAX_STEPS], parts[N_PARTS][MAX_STEPS];
    sh_status st = SH_OK;
    int n = (int)b->config->repeats;

    for (int i = -WARM_UP; i < n; i++) {
        int at = i < 0 ? 0 : i;

        for (int turn = 0; turn < b->n_modes; turn++) {
            int mode = b->n_modes == 2 ? (i + turn) & 1 : 0;
            sh_step_stats stats;

            SH_TRY(time_step(b, mode, &seconds[mode][at], &stats));
            if (mode != SH_REDUCE_EXACT) continue;
            parts[FORWARD][at] = stats.seconds_forward;
            parts[BACKWARD][at] = stats.seconds_backward;
            parts[REDUCE][at] = stats.seconds_reduce;
            parts[UPDATE][at] = stats.seconds_update;
        }
        if (b->n_modes == 1) seconds[SH_REDUCE_FAST][at] = seconds[SH_REDUCE_EXACT][at];
        ratio[at] = seconds[SH_REDUCE_EXACT][at] / seconds[SH_REDUCE_FAST][at];
    }
    *out = (sh_bench_ranks_result){.exact = sh_bench_median(seconds[SH_REDUCE_EXACT], n),
                                   .fast = sh_bench_median(seconds[SH_REDUCE_FAST], n),
                                   .exact_over_fast = sh_bench_median(ratio, n),
                                   .forward = sh_bench_median(parts[FORWARD], n),
                                   .backward = sh_bench_median(parts[BACKWARD], n),
                                   .reduce = sh_bench_median(parts[REDUCE], n),
                                   .update = sh_bench_median(parts[UPDATE], n)};
    sh_step_exchanged(b->steps[SH_REDUCE_EXACT], &out->n_elems, &out->n_buckets);
out:
    return st;
}

sh_status sh_bench_comm_step(sh_comm *comm, sh_bench_ranks *config, sh_bench_ranks_result *out)
{
    sh_status st = SH_OK;
    bench b = {.config = config, .comm = comm, .n_modes = sh_comm_size(comm) > 1 ? 2 : 1};

    if (config->options.threads == 0) config->options.threads = sh_comm_cores_per_rank(comm);
    SH_CHECK(config->shards <= config->options.batch && config->repeats <= MAX_STEPS, SH_ERR_USAGE,
             "--shards: at most --batch; --repeats: at most %d", MAX_STEPS);
    SH_TRY(create_steps(&b));
    SH_TRY(measure(&b, out));
out:
    sh_step_destroy(&b.steps[SH_REDUCE_EXACT]);
    sh_step_destroy(&b.steps[SH_REDUCE_FAST]);
    sh_bench_batch_clear(&b.images);
    return st;
}

void sh_bench_comm_print_step(int n_ranks, const sh_bench_ranks *config,
                              const sh_bench_ranks_result *r)
{
    const sh_bench_options *o = &config->options;
    double per_image = 1e3 / (double)o->batch;

    if (config->json) {
        printf("{\"ranks\": %d, \"threads\": %lld, \"shards\": %lld, \"batch\": %lld, "
               "\"net\": \"%s\", \"dtype\": \"%s\", \"ms_per_image\": %.4f, "
               "\"fast_ms_per_image\": %.4f, \"exact_over_fast\": %.5f, \"reduce_ms\": %.3f, "
               "\"update_ms\": %.3f}\n",
               n_ranks, (long long)o->threads, (long long)config->shards, (long long)o->batch,
               o->net, o->dtype, r->exact * per_image, r->fast * per_image, r->exact_over_fast,
               r->reduce * 1e3, r->update * 1e3);
        return;
    }
    printf(
        "%s, %s, batch %lld in %lld shards, %d rank(s) x %lld thread(s), medians of %lld steps\n",
        o->net, o->dtype, (long long)o->batch, (long long)config->shards, n_ranks,
        (long long)o->threads, (long long)config->repeats);
    printf("  step, exact sum  %9.3f ms/image (waiting for the sum %.2f ms a step, update %.2f)\n",
           r->exact * per_image, r->reduce * 1e3, r->update * 1e3);
    if (n_ranks > 1)
        printf("  step, fast sum   %9.3f ms/image; exact / fast %.4f (median of pairs)\n",
               r->fast * per_image, r->exact_over_fast);
}
