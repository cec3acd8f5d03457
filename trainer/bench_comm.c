// SPDX-License-Identifier: Apache-2.0
/* `shoal bench comm`: what ranks cost. Alone or under mpirun: the sum of a gradient-sized vector,
 * exact and fast in alternation, the gathering of embeddings, each beside what the memory of this
 * machine would need for the bytes that must move. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/clock.h"
#include "comm/comm.h"
#include "trainer/bench_comm.h"
#include "trainer/bench_nodes.h"
#include "trainer/commands.h"

enum { MAX_REPEATS = 1000, BUCKET_ELEMS = 512 * 1024, N_WARM_UP = 2 };

typedef struct bench {
    int64_t megabytes, shards, repeats, rows, dim;
    bool json;
    sh_bench_ranks step; /* whole steps instead, where a net is named */
    sh_comm *comm;
    sh_reducer *reducers[2]; /* by sh_reduce_mode */
    int64_t n_elems;
    float *copy_from, *copy_to;
} bench;

/* All times are of the slowest rank, milliseconds, medians over the repeats. */
typedef struct result {
    double exact_ms, fast_ms, exact_over_fast;
    double gather_ms;
    double copy_gb_per_s; /* each rank copying at the same time; read + written */
    double sum_limit_ms, gather_limit_ms;
    double held_mb;
} result;

sh_status sh_bench_comm_slowest(sh_comm *comm, double *seconds)
{
    sh_status st = SH_OK;
    int64_t nanoseconds = (int64_t)(*seconds * 1e9);

    SH_TRY(sh_comm_max(comm, &nanoseconds, 1));
    *seconds = (double)nanoseconds * 1e-9;
out:
    return st;
}

/* Seconds of one sum: all that is not filling the leaves. */
static sh_status time_sum(bench *b, sh_reduce_mode mode, double *seconds)
{
    sh_status st = SH_OK;
    sh_reducer *reducer = b->reducers[mode];
    const float *total = NULL;
    int begin, end;

    sh_shards_of_rank((int)b->shards, sh_comm_size(b->comm), sh_comm_rank(b->comm), &begin, &end);
    *seconds = 0;
    SH_TRY(sh_reducer_begin(reducer));
    for (int s = begin; s < end; s++) {
        float *leaf = sh_reducer_leaf(reducer);

        for (int64_t i = 0; i < b->n_elems; i++) leaf[i] = (float)(s + 1);
        if (s == end - 1) SH_TRY(sh_comm_barrier(b->comm));
        double start = sh_clock_seconds();

        SH_TRY(sh_reducer_leaf_done(reducer));
        if (s == end - 1) SH_TRY(sh_reducer_finish(reducer, &total));
        *seconds += sh_clock_seconds() - start;
    }
    float expected = (float)(b->shards * (b->shards + 1) / 2); /* small integers: exact in f32 */

    SH_CHECK(total[0] == expected && total[b->n_elems - 1] == expected, SH_ERR_INTERNAL,
             "the sum over %lld shards is wrong", (long long)b->shards);
    SH_TRY(sh_bench_comm_slowest(b->comm, seconds));
out:
    return st;
}

static sh_status time_gather(bench *b, float *all, double *seconds)
{
    sh_status st = SH_OK;

    SH_TRY(sh_comm_barrier(b->comm));
    double start = sh_clock_seconds();

    SH_TRY(sh_comm_gather_items(b->comm, b->rows, (size_t)b->dim * sizeof(*all), all));
    *seconds = sh_clock_seconds() - start;
    SH_TRY(sh_bench_comm_slowest(b->comm, seconds));
out:
    return st;
}

/* What the memory does: a copy of the vector, and an addition into it, all ranks at one time. */
static sh_status time_memory(bench *b, double *copy_seconds, double *add_seconds)
{
    sh_status st = SH_OK;

    SH_TRY(sh_comm_barrier(b->comm));
    double start = sh_clock_seconds();

    memcpy(b->copy_to, b->copy_from, (size_t)b->n_elems * sizeof(float));
    *copy_seconds = sh_clock_seconds() - start;
    SH_TRY(sh_bench_comm_slowest(b->comm, copy_seconds));
    start = sh_clock_seconds();
    sh_tree_add(b->copy_to, b->copy_to, b->copy_from, b->n_elems);
    *add_seconds = sh_clock_seconds() - start;
    SH_TRY(sh_bench_comm_slowest(b->comm, add_seconds));
out:
    return st;
}

static sh_status measure(bench *b, result *out)
{
    static double exact[MAX_REPEATS], fast[MAX_REPEATS], ratio[MAX_REPEATS], gather[MAX_REPEATS],
        copy[MAX_REPEATS], add[MAX_REPEATS];
    sh_status st = SH_OK;
    int n = (int)b->repeats, size = sh_comm_size(b->comm);
    float *all = calloc((size_t)(b->rows * b->dim), sizeof(*all));

    SH_CHECK(all != NULL, SH_ERR_NO_MEMORY, "no memory for the embeddings");
    for (int i = -N_WARM_UP; i < n; i++) {
        int at = i < 0 ? 0 : i;

        SH_TRY(time_memory(b, &copy[at], &add[at]));
        SH_TRY(
            time_sum(b, i % 2 ? SH_REDUCE_FAST : SH_REDUCE_EXACT, i % 2 ? &fast[at] : &exact[at]));
        SH_TRY(
            time_sum(b, i % 2 ? SH_REDUCE_EXACT : SH_REDUCE_FAST, i % 2 ? &exact[at] : &fast[at]));
        SH_TRY(time_gather(b, all, &gather[at]));
        ratio[at] = exact[at] / fast[at];
    }
    double copy_seconds = sh_bench_median(copy, n), add_seconds = sh_bench_median(add, n);
    double own_adds = (double)((b->shards + size - 1) / size - 1);
    double others = (double)(size - 1) / size;

    out->exact_ms = 1e3 * sh_bench_median(exact, n);
    out->fast_ms = 1e3 * sh_bench_median(fast, n);
    out->exact_over_fast = sh_bench_median(ratio, n);
    out->gather_ms = 1e3 * sh_bench_median(gather, n);
    out->copy_gb_per_s = 2e-9 * (double)b->n_elems * sizeof(float) / copy_seconds;
    /* Each rank adds its own leaves, receives (size - 1) / size of a vector, adds that, and
     * receives as much again. */
    out->sum_limit_ms = 1e3 * (own_adds * add_seconds + others * (add_seconds + 2 * copy_seconds));
    out->gather_limit_ms =
        1e3 * others * copy_seconds * (double)(b->rows * b->dim) / (double)b->n_elems;
    out->held_mb = 1e-6 * (double)sh_reducer_bytes(b->reducers[SH_REDUCE_EXACT]);
out:
    free(all);
    return st;
}

static sh_status prepare(bench *b)
{
    sh_status st = SH_OK;
    int64_t *bounds = NULL;
    int n_buckets = (int)((b->n_elems + BUCKET_ELEMS - 1) / BUCKET_ELEMS);

    bounds = malloc((size_t)(n_buckets + 1) * sizeof(*bounds));
    b->copy_from = calloc((size_t)b->n_elems, sizeof(float));
    b->copy_to = calloc((size_t)b->n_elems, sizeof(float));
    SH_CHECK(bounds != NULL && b->copy_from != NULL && b->copy_to != NULL, SH_ERR_NO_MEMORY,
             "no memory for a vector of %lld MB", (long long)b->megabytes);
    /* Zero pages that were never written are all one page, which would flatter the copy. */
    memset(b->copy_from, 1, (size_t)b->n_elems * sizeof(float));
    for (int i = 0; i <= n_buckets; i++)
        bounds[i] = i < n_buckets ? (int64_t)i * BUCKET_ELEMS : b->n_elems;
    for (int mode = SH_REDUCE_EXACT; mode <= SH_REDUCE_FAST; mode++)
        SH_TRY(sh_reducer_create(b->comm, NULL, (sh_reduce_mode)mode, (int)b->shards, b->n_elems,
                                 bounds, n_buckets, &b->reducers[mode]));
out:
    free(bounds);
    return st;
}

static void print_result(const bench *b, const result *r)
{
    if (b->json) {
        printf("{\"ranks\": %d, \"shards\": %lld, \"mb\": %lld, \"repeats\": %lld, "
               "\"exact_ms\": %.4f, \"fast_ms\": %.4f, \"exact_over_fast\": %.4f, "
               "\"sum_limit_ms\": %.4f, \"gather_ms\": %.4f, \"gather_limit_ms\": %.4f, "
               "\"copy_gb_per_s\": %.3f, \"held_mb\": %.2f}\n",
               sh_comm_size(b->comm), (long long)b->shards, (long long)b->megabytes,
               (long long)b->repeats, r->exact_ms, r->fast_ms, r->exact_over_fast, r->sum_limit_ms,
               r->gather_ms, r->gather_limit_ms, r->copy_gb_per_s, r->held_mb);
        return;
    }
    printf("%d rank(s), %lld shards, a vector of %lld MB, medians of %lld, slowest rank\n",
           sh_comm_size(b->comm), (long long)b->shards, (long long)b->megabytes,
           (long long)b->repeats);
    printf("  %-28s %9s %9s\n", "", "ms", "limit ms");
    printf("  %-28s %9.3f %9.3f\n", "sum over shards, exact", r->exact_ms, r->sum_limit_ms);
    printf("  %-28s %9.3f %9.3f\n", "sum over shards, fast", r->fast_ms, r->sum_limit_ms);
    printf("  %-28s %9.3f %9.3f\n", "gather embeddings", r->gather_ms, r->gather_limit_ms);
    printf(
        "  exact / fast %.3f (median of pairs); memory copies at %.1f GB/s per rank; exact holds "
        "%.1f MB\n",
        r->exact_over_fast, r->copy_gb_per_s, r->held_mb);
    printf("  limit: the copies and additions that each rank must do, as measured in this run\n");
}

static void clear(bench *b)
{
    sh_reducer_destroy(&b->reducers[SH_REDUCE_EXACT]);
    sh_reducer_destroy(&b->reducers[SH_REDUCE_FAST]);
    free(b->copy_from);
    free(b->copy_to);
}

sh_status sh_bench_comm_sum(sh_comm *comm, int64_t n_elems, int64_t repeats, double *seconds,
                            double *copied_bytes_per_s)
{
    sh_status st = SH_OK;
    bench b = {.comm = comm,
               .n_elems = n_elems,
               .shards = sh_comm_size(comm),
               .repeats = repeats,
               .rows = sh_comm_size(comm),
               .dim = 1};
    result r;

    SH_TRY(prepare(&b));
    SH_TRY(measure(&b, &r));
    *seconds = 1e-3 * r.exact_ms;
    *copied_bytes_per_s = 0.5e9 * r.copy_gb_per_s; /* which counts reading and writing */
out:
    clear(&b);
    return st;
}

static sh_status run_steps(bench *b)
{
    sh_status st = SH_OK;
    sh_bench_ranks_result steps;

    SH_TRY(sh_bench_comm_step(b->comm, &b->step, &steps));
    if (b->step.predict > 0) {
        SH_TRY(sh_bench_comm_predict(b->comm, &b->step, &steps));
    } else if (sh_comm_rank(b->comm) == 0) {
        sh_bench_comm_print_step(sh_comm_size(b->comm), &b->step, &steps);
    }
out:
    return st;
}

static sh_status run(bench *b)
{
    sh_status st = SH_OK;
    result r = {0};

    if (b->step.options.net != NULL) {
        SH_TRY(run_steps(b));
        goto out;
    }
    SH_TRY(prepare(b));
    SH_TRY(measure(b, &r));
    if (sh_comm_rank(b->comm) == 0) print_result(b, &r);
out:
    /* Peers that did not fail stand in another call: end them with the message. */
    if (st != SH_OK && sh_comm_size(b->comm) > 1) sh_comm_abort(b->comm, 1, sh_error_message());
    clear(b);
    return st;
}

sh_status sh_bench_comm(int argc, char **argv)
{
    bench b = {.megabytes = 14,
               .shards = 0,
               .repeats = 20,
               .rows = 8192,
               .dim = 128,
               .step = {.options = {.dtype = "f32", .backend = "cpu", .batch = 64}}};
    const sh_flag flags[] = {
        {"--mb", NULL, SH_FLAG_INT, &b.megabytes, "MB",
         "size of the vector, 10^6 bytes (default 14: MobileNetV2)"},
        {"--shards", NULL, SH_FLAG_INT, &b.shards, "S",
         "shards of a batch (default: one per rank)"},
        {"--rows", NULL, SH_FLAG_INT, &b.rows, "N", "embeddings gathered (default 8192)"},
        {"--dim", NULL, SH_FLAG_INT, &b.dim, "D", "floats of an embedding (default 128)"},
        {"--repeats", NULL, SH_FLAG_INT, &b.repeats, "N", "pairs of sums (default 20)"},
        {"--net", NULL, SH_FLAG_STRING, &b.step.options.net, "NAME",
         "time whole training steps of this network instead"},
        {"--size", NULL, SH_FLAG_INT, &b.step.options.size, "PIXELS",
         "with --net: height and width (default: the net's)"},
        {"--batch", NULL, SH_FLAG_INT, &b.step.options.batch, "N",
         "with --net: images over all ranks, 4 of a fish (default 64)"},
        {"--threads", NULL, SH_FLAG_INT, &b.step.options.threads, "N",
         "with --net: threads per rank (default: the cores granted to it)"},
        {"--dtype", NULL, SH_FLAG_STRING, &b.step.options.dtype, "TYPE",
         "with --net: f32 or bf16 (default f32)"},
        {"--predict", NULL, SH_FLAG_INT, &b.step.predict, "RANKS",
         "with --net: predict steps on up to so many ranks (docs/scaling.md)"},
        {"--link", NULL, SH_FLAG_REAL, &b.step.link_gbit, "GBIT/S",
         "with --predict: of a host's link (default: as measured between hosts)"},
        {"--latency", NULL, SH_FLAG_REAL, &b.step.latency_us, "US",
         "with --predict: of a round of messages (default: as measured)"},
        {"--load-rate", NULL, SH_FLAG_INT, &b.step.load_rate, "N",
         "with --predict: images/s of a rank's loader (shoal bench data)"},
        {"--json", NULL, SH_FLAG_BOOL, &b.json, NULL, "print one JSON object"},
    };
    const sh_cli cli = {
        .usage = "shoal bench comm [--mb 14] [--shards S] [--net NAME [--predict RANKS]]",
        .summary = "Times the sum over shards, exact and fast, and the gathering of embeddings.",
        .flags = flags,
        .n_flags = SH_COUNT(flags),
        .epilogue = "  mpirun -n 2 shoal bench comm --shards 4\n"
                    "  mpirun -n 2 shoal bench comm --net mobilenet_v2 --size 175 --threads 1\n"
                    "  srun -N 2 shoal bench comm --net mobilenet_v2 --predict 64\n",
    };
    sh_status st = SH_OK;
    sh_string_list args = {0};
    bool helped = false;

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    SH_CHECK(b.megabytes >= 1 && b.megabytes <= 4096 && b.repeats >= 1 &&
                 b.repeats <= MAX_REPEATS && b.rows >= 1 && b.dim >= 1 &&
                 b.rows * b.dim <= INT64_C(1) << 30 && b.shards >= 0 && b.shards <= 2048,
             SH_ERR_USAGE,
             "--mb 1 .. 4096, --repeats 1 .. %d, --shards 1 .. 2048, --rows x --dim "
             "at most 2^30",
             MAX_REPEATS);
    SH_TRY(sh_comm_create(0, &b.comm));
    if (b.shards == 0) b.shards = sh_comm_size(b.comm);
    b.n_elems = b.megabytes * 1000000 / (int64_t)sizeof(float);
    b.step.shards = b.shards;
    b.step.repeats = b.repeats;
    b.step.json = b.json;
    SH_TRY(run(&b));
out:
    sh_comm_destroy(&b.comm);
    free(args.items);
    return st;
}
