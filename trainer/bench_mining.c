// SPDX-License-Identifier: Apache-2.0
/* `shoal bench mining`: one step of mining, loss and gradient over a batch of P x K embeddings, on
 * one rank, per kind of loss, beside what this processor needs for the same multiplications; or in
 * a device's memory, for the kinds that it has kernels for. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/rng.h"
#include "models/cpu/peaks.h"
#include "models/loss/loss.h"
#include "trainer/bench_comm.h"
#include "trainer/commands.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { MAX_KINDS = 9, CHAINS = 12 };

typedef struct bench {
    int64_t p, k, dim, threads, repeats, n;
    const char *distance_name, *kind_name, *device_name;
    const sh_backend *device; /* NULL: this processor */
    bool json;
    sh_distance distance;
    double peak_gflops;   /* all threads, f32 multiply-add; 0: not measured on this processor */
    double copy_gb_per_s; /* one thread, read + written */
    float *embeddings, *grad;
    int32_t *labels;
} bench;

typedef struct result {
    const char *kind;
    double choose_ms, apply_ms, total_ms; /* minima over the repeats */
    double gflop, limit_ms;               /* limit: the larger of multiplications and bytes */
    double held_mb;
    sh_loss_stats stats;
} result;

static const char *const distance_names[] = {
    [SH_EUCLIDEAN] = "euclidean", [SH_SQUARED] = "squared", [SH_COSINE] = "cosine"};

/* Multi-similarity and NT-Xent take cosines whatever --distance says. */
static const sh_loss_kind bench_kinds[] = {
    SH_LOSS_SEMI_HARD,        SH_LOSS_BATCH_HARD,    SH_LOSS_ALGORITHM1,
    SH_LOSS_BATCH_ALL,        SH_LOSS_PML_SEMI_HARD, SH_LOSS_PML_HARD,
    SH_LOSS_MULTI_SIMILARITY, SH_LOSS_NT_XENT,       SH_LOSS_CONTRASTIVE_ALL};

/* ---- the machine ---- */

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static float chains_avx512(int64_t n)
{
    __m512 acc[CHAINS], factor = _mm512_set1_ps(0.999f), sum = _mm512_setzero_ps();

    for (int c = 0; c < CHAINS; c++) acc[c] = _mm512_set1_ps((float)c);
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < CHAINS; c++) acc[c] = _mm512_fmadd_ps(acc[c], factor, factor);
    for (int c = 0; c < CHAINS; c++) sum = _mm512_add_ps(sum, acc[c]);
    return _mm512_reduce_add_ps(sum);
}

__attribute__((target("avx2,fma"))) static float chains_avx2(int64_t n)
{
    __m256 acc[CHAINS], factor = _mm256_set1_ps(0.999f), sum = _mm256_setzero_ps();

    for (int c = 0; c < CHAINS; c++) acc[c] = _mm256_set1_ps((float)c);
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < CHAINS; c++) acc[c] = _mm256_fmadd_ps(acc[c], factor, factor);
    for (int c = 0; c < CHAINS; c++) sum = _mm256_add_ps(sum, acc[c]);
    return _mm256_cvtss_f32(sum);
}
#endif

/* Best of several, all threads at work at the same time. */
static double measure_peak_gflops(int threads)
{
    double best = 0;
    int lanes = 0;
    volatile float sink = 0;
    int64_t n = 1 << 19;

#if defined(__x86_64__)
    lanes = __builtin_cpu_supports("avx512f")                                 ? 16
            : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 8
                                                                              : 0;
    for (int repeat = 0; repeat < 20 && lanes > 0; repeat++) {
        float sum = 0;
        double start = sh_clock_seconds();

#pragma omp parallel num_threads(threads) reduction(+ : sum)
        sum += lanes == 16 ? chains_avx512(n) : chains_avx2(n);
        double gflops =
            2e-9 * (double)(n * CHAINS * lanes * threads) / (sh_clock_seconds() - start);

        sink += sum;
        best = fmax(best, gflops);
    }
#endif
    (void)sink;
    return best;
}

static double measure_copy_gb_per_s(const bench *b)
{
    size_t n_bytes = (size_t)(b->n * b->dim) * sizeof(float);
    double best = INFINITY;

    for (int repeat = 0; repeat < 10; repeat++) {
        double start = sh_clock_seconds();

        memcpy(b->grad, b->embeddings, n_bytes);
        best = fmin(best, sh_clock_seconds() - start);
    }
    return 2e-9 * (double)n_bytes / best;
}

/* ---- the batch ---- */

/* Unit rows around one centre per fish, fish by fish in turn, as an untrained network has them. */
static void fill_batch(bench *b)
{
    sh_rng_key rows = sh_rng_make(1, SH_RNG_TEST, 0, 0), fish = sh_rng_make(1, SH_RNG_TEST, 0, 1);

#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < b->n; i++) {
        float *x = b->embeddings + i * b->dim;
        double sum = 0;

        b->labels[i] = (int32_t)(i % b->p);
        for (int64_t k = 0; k < b->dim; k++) {
            double centre = sh_rng_normal(fish, (uint64_t)(b->labels[i] * b->dim + k));

            x[k] = (float)(sh_rng_normal(rows, (uint64_t)(i * b->dim + k)) + 0.5 * centre);
            sum += (double)x[k] * x[k];
        }
        for (int64_t k = 0; k < b->dim; k++) x[k] = (float)(x[k] / sqrt(sum));
    }
}

/* ---- measuring ---- */

/* What a loss reads and writes, in the memory that it works in. */
typedef struct operand {
    const sh_backend *device; /* NULL: the host's memory */
    sh_buffer *buffer;
    void *memory;
} operand;

static sh_status operand_make(const bench *b, const void *content, size_t n_bytes, operand *out)
{
    sh_status st = SH_OK;

    *out = (operand){.device = b->device};
    if (b->device != NULL) {
        SH_TRY(b->device->alloc(n_bytes, &out->buffer));
        if (content != NULL) SH_TRY(b->device->copy_in(out->buffer, 0, content, n_bytes));
        out->memory = b->device->device_ptr(out->buffer, 0);
        goto out;
    }
    out->memory = malloc(n_bytes + 1);
    SH_CHECK(out->memory != NULL, SH_ERR_NO_MEMORY, "%zu bytes", n_bytes);
    if (content != NULL) memcpy(out->memory, content, n_bytes);
out:
    return st;
}

static void operand_clear(operand *o)
{
    if (o->device != NULL)
        o->device->free(&o->buffer);
    else
        free(o->memory);
}

static sh_status operand_read(const operand *o, size_t n_bytes, void *content)
{
    if (o->device != NULL) return o->device->copy_out(o->buffer, 0, content, n_bytes);
    memcpy(content, o->memory, n_bytes);
    return SH_OK;
}

static sh_status measure(bench *b, sh_loss_kind kind, result *out)
{
    sh_status st = SH_OK;
    sh_loss *loss = NULL;
    operand embeddings = {0}, choices = {0}, stats = {0}, grad = {0};
    const sh_meter *meter = b->device != NULL ? sh_meter_of(b->device) : &sh_cpu_meter;
    sh_watch *watch = NULL;
    bool cosine = kind == SH_LOSS_MULTI_SIMILARITY || kind == SH_LOSS_NT_XENT;
    sh_loss_config config = {.kind = kind,
                             .distance = cosine ? SH_COSINE : b->distance,
                             .margin = kind == SH_LOSS_CONTRASTIVE_ALL ? 1 : 0.2f,
                             .max_per_label = b->k,
                             .alpha = 2,
                             .beta = 50,
                             .base = 0.5f,
                             .epsilon = 0.1f,
                             .temperature = 0.07f};
    size_t batch_bytes = (size_t)(b->n * b->dim) * sizeof(float);

    SH_TRY(sh_loss_create(&config, b->device, b->n, b->dim, &loss));
    size_t choice_bytes = (size_t)b->n * sh_loss_choice_bytes(loss);

    SH_TRY(operand_make(b, b->embeddings, batch_bytes, &embeddings));
    SH_TRY(operand_make(b, NULL, choice_bytes, &choices));
    SH_TRY(operand_make(b, NULL, sizeof(out->stats), &stats));
    SH_TRY(operand_make(b, NULL, batch_bytes, &grad));
    sh_loss_batch batch = {.embeddings = embeddings.memory,
                           .labels = b->labels,
                           .fish = b->labels,
                           .n = b->n,
                           .dim = b->dim};

    *out = (result){.kind = sh_loss_kind_name(kind),
                    .choose_ms = INFINITY,
                    .apply_ms = INFINITY,
                    .total_ms = INFINITY};
    SH_TRY(meter->watch_create(3, &watch));
    for (int64_t repeat = 0; repeat <= b->repeats; repeat++) { /* the first warms up */
        double choose = 0, apply = 0;

        SH_TRY(meter->watch_put(watch, 0));
        SH_TRY(sh_loss_begin(loss, &batch));
        SH_TRY(sh_loss_choose(loss, &batch, 0, b->n, choices.memory));
        SH_TRY(meter->watch_put(watch, 1));
        SH_TRY(sh_loss_apply(loss, &batch, choices.memory, 0, b->n, stats.memory, grad.memory));
        SH_TRY(meter->watch_put(watch, 2));
        SH_TRY(operand_read(&stats, sizeof(out->stats), &out->stats));
        SH_TRY(meter->watch_read(watch, 0, 1, &choose));
        SH_TRY(meter->watch_read(watch, 1, 2, &apply));
        if (repeat == 0) continue;
        out->choose_ms = fmin(out->choose_ms, 1e3 * choose);
        out->apply_ms = fmin(out->apply_ms, 1e3 * apply);
        out->total_ms = fmin(out->total_ms, 1e3 * (choose + apply));
    }
    /* All distances once; embeddings and choices in, choices and gradient out. */
    out->gflop = 2e-9 * (double)b->n * (double)b->n * (double)b->dim;
    if (b->peak_gflops > 0) out->limit_ms = 1e3 * out->gflop / b->peak_gflops;
    if (b->copy_gb_per_s > 0)
        out->limit_ms =
            fmax(out->limit_ms, 2e-6 * (double)(batch_bytes + choice_bytes) / b->copy_gb_per_s);
    out->held_mb = 1e-6 * (double)(sh_loss_bytes(loss) + choice_bytes + 2 * batch_bytes);
out:
    meter->watch_destroy(&watch);
    operand_clear(&embeddings);
    operand_clear(&choices);
    operand_clear(&stats);
    operand_clear(&grad);
    sh_loss_destroy(&loss);
    return st;
}

static void print_json(const bench *b, const result *results, int n_results)
{
    printf("{\"device\": \"%s\", \"n\": %lld, \"p\": %lld, \"k\": %lld, \"dim\": %lld, "
           "\"threads\": %lld, "
           "\"distance\": \"%s\", \"peak_gflops\": %.1f, \"peak_resident_mb\": %.1f, \"kinds\": [",
           b->device_name, (long long)b->n, (long long)b->p, (long long)b->k, (long long)b->dim,
           (long long)b->threads, b->distance_name, b->peak_gflops,
           1e-6 * (double)sh_cpu_peak_resident_bytes());
    for (int i = 0; i < n_results; i++) {
        const result *r = &results[i];

        printf("%s{\"kind\": \"%s\", \"ms\": %.3f, \"choose_ms\": %.3f, \"apply_ms\": %.3f, "
               "\"limit_ms\": %.3f, \"of_limit\": %.3f, \"held_mb\": %.2f, \"loss\": %.9g, "
               "\"n_triplets\": %lld, \"n_active\": %lld}",
               i > 0 ? ", " : "", r->kind, r->total_ms, r->choose_ms, r->apply_ms, r->limit_ms,
               r->limit_ms / r->total_ms, r->held_mb, r->stats.loss, (long long)r->stats.n_triplets,
               (long long)r->stats.n_active);
    }
    printf("]}\n");
}

static void print_table(const bench *b, const result *results, int n_results)
{
    printf("%lld embeddings = %lld fish x %lld, %lld dimensions, %s, %s, %lld thread(s), minima of "
           "%lld\n",
           (long long)b->n, (long long)b->p, (long long)b->k, (long long)b->dim, b->distance_name,
           b->device_name, (long long)b->threads, (long long)b->repeats);
    printf("  %-16s %9s %9s %9s %9s %8s %8s %12s %12s\n", "kind", "ms", "choose", "apply", "limit",
           "of limit", "MB", "triplets", "active");
    for (int i = 0; i < n_results; i++) {
        const result *r = &results[i];

        printf("  %-16s %9.2f %9.2f %9.2f %9.2f %8.2f %8.1f %12lld %12lld\n", r->kind, r->total_ms,
               r->choose_ms, r->apply_ms, r->limit_ms, r->limit_ms / r->total_ms, r->held_mb,
               (long long)r->stats.n_triplets, (long long)r->stats.n_active);
    }
    if (b->device != NULL) return;
    printf("  limit: all distances once (%.1f GFLOP) at the %.0f GFLOP/s of f32 multiply-add that "
           "%lld thread(s)\n  reach in this run, or embeddings, choices and gradient at %.1f GB/s. "
           "Resident at most: %.1f MB.\n",
           results[0].gflop, b->peak_gflops, (long long)b->threads, b->copy_gb_per_s,
           1e-6 * (double)sh_cpu_peak_resident_bytes());
}

static sh_status make_batch(bench *b)
{
    sh_status st = SH_OK;

    b->n = b->p * b->k;
    b->embeddings = malloc((size_t)(b->n * b->dim) * sizeof(float));
    b->grad = malloc((size_t)(b->n * b->dim) * sizeof(float));
    b->labels = malloc((size_t)b->n * sizeof(int32_t));
    SH_CHECK(b->embeddings != NULL && b->grad != NULL && b->labels != NULL, SH_ERR_NO_MEMORY,
             "no memory for %lld embeddings", (long long)b->n);
    omp_set_num_threads((int)b->threads);
    fill_batch(b);
out:
    return st;
}

static void clear_batch(bench *b)
{
    free(b->embeddings);
    free(b->grad);
    free(b->labels);
}

sh_status sh_bench_mining_seconds(const sh_backend *device, int64_t n_fish, int64_t n_images,
                                  int64_t threads, int64_t dim, double *seconds)
{
    sh_status st = SH_OK;
    bench b = {.p = n_fish,
               .k = n_images,
               .dim = dim,
               .threads = threads,
               .repeats = 3,
               .device = device,
               .distance = SH_EUCLIDEAN};
    result r;

    SH_TRY(make_batch(&b));
    SH_TRY(measure(&b, SH_LOSS_SEMI_HARD, &r));
    *seconds = 1e-3 * r.total_ms;
out:
    clear_batch(&b);
    return st;
}

static sh_status run(bench *b)
{
    sh_status st = SH_OK;
    result results[MAX_KINDS];
    int n_results = 0, distance = -1;
    const sh_backend *device = NULL;

    for (int i = 0; i < (int)SH_COUNT(distance_names); i++)
        if (strcmp(b->distance_name, distance_names[i]) == 0) distance = i;
    SH_CHECK(distance >= 0, SH_ERR_USAGE, "--distance euclidean, squared or cosine, not \"%s\"",
             b->distance_name);
    b->distance = (sh_distance)distance;
    SH_TRY(sh_backend_find(b->device_name, &device));
    if (device->loss != NULL) b->device = device;
    SH_TRY(make_batch(b));
    if (b->device == NULL) {
        b->peak_gflops = measure_peak_gflops((int)b->threads);
        b->copy_gb_per_s = measure_copy_gb_per_s(b);
    }
    for (size_t i = 0; i < SH_COUNT(bench_kinds); i++) {
        const char *name = sh_loss_kind_name(bench_kinds[i]);

        if (strcmp(b->kind_name, "all") != 0 && strcmp(b->kind_name, name) != 0) continue;
        SH_TRY(measure(b, bench_kinds[i], &results[n_results]));
        n_results++;
    }
    SH_CHECK(n_results > 0, SH_ERR_USAGE,
             "--kind all, semi-hard, batch-hard, algorithm1, batch-all, pml-semi-hard, pml-hard, "
             "multi-similarity, nt-xent or contrastive-all, not \"%s\"",
             b->kind_name);
    if (b->json) {
        print_json(b, results, n_results);
    } else {
        print_table(b, results, n_results);
    }
out:
    return st;
}

sh_status sh_bench_mining(int argc, char **argv)
{
    bench b = {.p = 1024,
               .k = 8,
               .dim = 128,
               .threads = sh_cpu_cores_granted(),
               .repeats = 5,
               .distance_name = "euclidean",
               .kind_name = "all",
               .device_name = "cpu"};
    const sh_flag flags[] = {
        {"--p", NULL, SH_FLAG_INT, &b.p, "P", "fish (default 1024)"},
        {"--k", NULL, SH_FLAG_INT, &b.k, "K", "images of each (default 8)"},
        {"--dim", NULL, SH_FLAG_INT, &b.dim, "D", "floats of an embedding (default 128)"},
        {"--distance", NULL, SH_FLAG_STRING, &b.distance_name, "NAME",
         "euclidean (default), squared or cosine"},
        {"--kind", NULL, SH_FLAG_STRING, &b.kind_name, "NAME",
         "one kind of loss, or all (default)"},
        {"--device", NULL, SH_FLAG_STRING, &b.device_name, "NAME",
         "cpu (default), or cuda: the kinds that it has kernels for"},
        {"--threads", NULL, SH_FLAG_INT, &b.threads, "N", "threads (default: cores granted)"},
        {"--repeats", NULL, SH_FLAG_INT, &b.repeats, "N", "timed repeats (default 5)"},
        {"--json", NULL, SH_FLAG_BOOL, &b.json, NULL, "print one JSON object"},
    };
    const sh_cli cli = {
        .usage = "shoal bench mining [--p 1024] [--k 8] [--dim 128] [--distance euclidean]",
        .summary = "Times mining, loss and gradient over a whole batch of embeddings.",
        .flags = flags,
        .n_flags = SH_COUNT(flags),
        .epilogue = "  shoal bench mining --kind semi-hard --threads 2 --json\n",
    };
    sh_status st = SH_OK;
    sh_string_list args = {0};
    bool helped = false;

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    SH_CHECK(b.p >= 1 && b.k >= 1 && b.dim >= 1 && b.p <= 65536 && b.k <= 65536 &&
                 b.p * b.k <= 65536 && b.dim <= 65536 && b.threads >= 1 && b.threads <= 1024 &&
                 b.repeats >= 1,
             SH_ERR_USAGE, "--p x --k 1 .. 65536, --dim 1 .. 65536, --threads 1 .. 1024");
    SH_TRY(run(&b));
out:
    clear_batch(&b);
    free(args.items);
    return st;
}
