// SPDX-License-Identifier: Apache-2.0
/* `shoal bench comm --net NAME --predict RANKS`: measure the constants of the model of a step on
 * this job's ranks, print them and what the model says for other numbers of ranks: of one batch
 * over more and more ranks, and of a batch that grows with them. */
#include <math.h>
#include <stdio.h>

#include "trainer/bench_comm.h"
#include "trainer/scaling.h"

enum {
    SMALL_ELEMS = 1024,
    DIM = 128, /* what the head of a bench's step has */
    MINED_FISH = 256,
    MINED_IMAGES = 8,
};

/* The link and the latency, from a small and a large sum over hosts: what the large one
 * takes beyond the latency and its additions is the link. */
static sh_status measure_network(sh_comm *comm, int64_t repeats, sh_scaling *s)
{
    sh_status st = SH_OK;
    int size = sh_comm_size(comm), local = sh_comm_local_size(comm);
    double small, large, unused;
    sh_scaling plain = *s;
    sh_scaling_step step;

    SH_TRY(sh_bench_comm_sum(comm, SMALL_ELEMS, repeats, &small, &unused));
    SH_TRY(sh_bench_comm_sum(comm, s->n_elems, repeats, &large, &s->memory_bytes_per_s));
    SH_CHECK(s->link_bytes_per_s > 0 || local < size, SH_ERR_USAGE,
             "all %d rank(s) are on one host: start one on each of several hosts, or say what "
             "network to predict for: --link GBIT/S --latency US",
             size);
    if (s->latency_seconds == 0 && size > 1) s->latency_seconds = small / 2;
    if (s->link_bytes_per_s > 0) goto out;
    plain.n_shards = size;
    plain.latency_seconds = s->latency_seconds;
    plain.memory_bytes_per_s = s->memory_bytes_per_s;
    plain.link_bytes_per_s = INFINITY;
    sh_scaling_predict(&plain, size, &step);
    double bytes = 2.0 * local * (size - local) / size * sizeof(float) * (double)s->n_elems;

    s->link_bytes_per_s = bytes / fmax(large - step.sum_exact, large / 20);
out:
    return st;
}

/* What is not the network's: computing and updating from the steps, mining from a batch of its own,
 * since that of the steps is too small to be timed. */
static sh_status measure_constants(sh_comm *comm, const sh_bench_ranks *c,
                                   const sh_bench_ranks_result *steps, sh_scaling *out)
{
    sh_status st = SH_OK;
    int size = sh_comm_size(comm);
    int64_t most_shards = (c->shards + size - 1) / size;
    double images = (double)(c->options.batch * most_shards) / (double)c->shards;

    *out = (sh_scaling){.batch = c->options.batch,
                        .n_shards = (int)c->shards,
                        .dim = DIM,
                        .n_elems = steps->n_elems,
                        .n_buckets = steps->n_buckets,
                        .ranks_per_host = sh_comm_local_size(comm),
                        .image_seconds = (steps->forward + steps->backward) / images,
                        .backward_share = steps->backward / (steps->forward + steps->backward),
                        .update_seconds = steps->update,
                        .load_seconds = c->load_rate > 0 ? 1.0 / (double)c->load_rate : 0,
                        .link_bytes_per_s = c->link_gbit * 1e9 / 8,
                        .latency_seconds = c->latency_us * 1e-6};
    SH_TRY(sh_bench_mining_seconds(NULL, MINED_FISH, MINED_IMAGES, c->options.threads, DIM,
                                   &out->pair_seconds));
    out->pair_seconds /= (double)(MINED_FISH * MINED_IMAGES) * (MINED_FISH * MINED_IMAGES);
    SH_TRY(sh_bench_comm_slowest(comm, &out->pair_seconds));
    SH_TRY(measure_network(comm, c->repeats, out));
out:
    return st;
}

/* ---- printing ---- */

/* The job of n ranks: the batch that there is, or one that grows with the ranks. */
static sh_scaling job_of(const sh_scaling *s, int n_ranks, bool growing)
{
    sh_scaling job = *s;

    if (growing) {
        job.batch *= n_ranks;
        job.n_shards *= n_ranks;
    }
    return job;
}

static double speed_up(const sh_scaling *s, int n_ranks, bool growing, double seconds)
{
    sh_scaling_step one;

    sh_scaling_predict(s, 1, &one);
    return one.exact / seconds * (growing ? n_ranks : 1);
}

static void print_row(const sh_scaling *s, int n_ranks, bool growing, bool json)
{
    sh_scaling job = job_of(s, n_ranks, growing);
    sh_scaling_step p;

    sh_scaling_predict(&job, n_ranks, &p);
    double gain = speed_up(s, n_ranks, growing, p.exact);

    if (json) {
        printf("%s{\"ranks\": %d, \"batch\": %lld, \"compute_ms\": %.3f, \"sum_exact_ms\": %.3f, "
               "\"sum_fast_ms\": %.3f, \"wait_exact_ms\": %.3f, \"wait_fast_ms\": %.3f, "
               "\"gather_ms\": %.3f, \"mining_ms\": %.3f, \"input_ms\": %.3f, \"exact_ms\": %.3f, "
               "\"fast_ms\": %.3f, \"speed_up\": %.3f}",
               n_ranks > 1 ? ", " : "", n_ranks, (long long)job.batch, 1e3 * p.compute,
               1e3 * p.sum_exact, 1e3 * p.sum_fast, 1e3 * p.wait_exact, 1e3 * p.wait_fast,
               1e3 * p.gather, 1e3 * p.mining, 1e3 * p.input, 1e3 * p.exact, 1e3 * p.fast, gain);
        return;
    }
    printf("  %5d %7lld %9.1f %9.1f %9.1f %9.1f %9.1f %8.1f %8.1f %9.1f %9.1f %9.1f %8.2f\n",
           n_ranks, (long long)job.batch, 1e3 * p.compute, 1e3 * p.sum_exact, 1e3 * p.wait_exact,
           1e3 * p.sum_fast, 1e3 * p.wait_fast, 1e3 * p.gather, 1e3 * p.mining, 1e3 * p.input,
           1e3 * p.exact, 1e3 * p.fast, gain);
}

static const struct {
    const char *what;
    size_t offset;
} parts[] = {{"waiting for the exact sum", offsetof(sh_scaling_step, wait_exact)},
             {"waiting for the fast sum", offsetof(sh_scaling_step, wait_fast)},
             {"gathering embeddings", offsetof(sh_scaling_step, gather)},
             {"mining", offsetof(sh_scaling_step, mining)},
             {"input", offsetof(sh_scaling_step, input)}};

/* From which number of ranks on a part takes longer than computing. */
static void print_takeovers(const sh_scaling *s, int n_most, bool growing)
{
    for (size_t i = 0; i < SH_COUNT(parts); i++) {
        int n = 1;

        for (; n <= n_most; n++) {
            sh_scaling job = job_of(s, n, growing);
            sh_scaling_step p;

            sh_scaling_predict(&job, n, &p);
            if (*(const double *)(const void *)((const char *)&p + parts[i].offset) > p.compute)
                break;
        }
        if (n <= n_most)
            printf("  %s takes longer than computing from %d rank(s) on\n", parts[i].what, n);
    }
}

static void print_table(const sh_scaling *s, int n_most, bool growing, bool json)
{
    if (json) {
        printf("\"%s\": [", growing ? "growing" : "fixed");
    } else {
        printf("\n%s, ms a step:\n", growing ? "batch and shards grow with the ranks"
                                             : "the same batch and shards over more ranks");
        printf("  %5s %7s %9s %9s %9s %9s %9s %8s %8s %9s %9s %9s %8s\n", "ranks", "batch",
               "compute", "exact sum", "waiting", "fast sum", "waiting", "gather", "mining",
               "input", "step", "fast step", "speed-up");
    }
    for (int n = 1; n <= n_most; n *= 2) print_row(s, n, growing, json);
    if (json) {
        printf("]");
    } else {
        print_takeovers(s, n_most, growing);
    }
}

static void print_prediction(const sh_scaling *s, const sh_bench_ranks *c, int n_ranks)
{
    int n_fixed = (int)(c->predict < c->shards ? c->predict : c->shards);

    printf(c->json
               ? "{\"ranks\": %d, \"ranks_per_host\": %d, \"image_ms\": %.4f, "
                 "\"backward_share\": %.3f, \"update_ms\": %.3f, \"mining_pair_ns\": %.4f, "
                 "\"elems\": %lld, \"buckets\": %d, \"link_gbit\": %.4f, "
                 "\"latency_us\": %.2f, \"memory_gb_per_s\": %.3f, "
               : "measured on %d rank(s), %d a host: %.2f ms/image (%.2f of it backward), update "
                 "%.2f ms, mining %.3f ns a pair,\n%lld floats summed in %d bucket(s); link %.3f "
                 "Gbit/s, latency %.1f us, memory %.1f GB/s\n",
           n_ranks, s->ranks_per_host, 1e3 * s->image_seconds, s->backward_share,
           1e3 * s->update_seconds, 1e9 * s->pair_seconds, (long long)s->n_elems, s->n_buckets,
           8e-9 * s->link_bytes_per_s, 1e6 * s->latency_seconds, 1e-9 * s->memory_bytes_per_s);
    print_table(s, n_fixed, false, c->json);
    if (c->json) printf(", ");
    print_table(s, (int)c->predict, true, c->json);
    if (c->json) printf("}\n");
}

sh_status sh_bench_comm_predict(sh_comm *comm, const sh_bench_ranks *config,
                                const sh_bench_ranks_result *steps)
{
    sh_status st = SH_OK;
    sh_scaling s;

    SH_CHECK(config->predict <= 4096 && config->link_gbit >= 0 && config->latency_us >= 0 &&
                 config->load_rate >= 0 && config->predict * config->shards < 1 << 20,
             SH_ERR_USAGE,
             "--predict: at most 4096 ranks, and 2^20 shards of all of them; --link, --latency and "
             "--load-rate are not negative");
    SH_TRY(measure_constants(comm, config, steps, &s));
    if (sh_comm_rank(comm) == 0) print_prediction(&s, config, sh_comm_size(comm));
out:
    return st;
}
