// SPDX-License-Identifier: Apache-2.0
#include "trainer/bench_nodes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double sh_bench_median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof(*values), compare_doubles);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static double tensor_bytes(const sh_tensor_desc *d)
{
    double n = 1;

    for (int i = 0; i < 4; i++) n *= (double)d->dims[i];
    return n * (double)sh_dtype_size(d->dtype);
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

void sh_bench_print_node_head(void)
{
    printf("%-14s %-34s %-26s %-24s %8s %8s %6s", "op", "of", "kernel", "input", "ms", "cold ms",
           "share");
}

void sh_bench_print_node(const sh_bench_node *node)
{
    const sh_node_info *f = &node->info;
    char shape[64];

    snprintf(shape, sizeof(shape), "%lldx%lldx%lldx%lld", (long long)f->in0.dims[0],
             (long long)f->in0.dims[1], (long long)f->in0.dims[2], (long long)f->in0.dims[3]);
    printf("%-14s %-34.34s %-26.26s %-24s %8.3f %8.3f %5.0f%%", f->op, f->label, f->kernel, shape,
           node->seconds * 1e3, node->cold_seconds * 1e3,
           100 * node->limit_seconds / node->seconds);
}

void sh_bench_print_node_json(const sh_bench_node *node)
{
    const sh_node_info *f = &node->info;

    printf("{\"phase\": \"%s\", \"op\": \"%s\", \"of\": \"%s\", \"kernel\": \"%s\", \"input\": "
           "[%lld, %lld, %lld, %lld], \"ms\": %.5f, \"cold_ms\": %.5f, \"limit_ms\": %.5f, "
           "\"flops\": %.6g, \"bytes\": %.6g}",
           f->phase == SH_PHASE_FORWARD ? "forward" : "backward", f->op, f->label, f->kernel,
           (long long)f->in0.dims[0], (long long)f->in0.dims[1], (long long)f->in0.dims[2],
           (long long)f->in0.dims[3], node->seconds * 1e3, node->cold_seconds * 1e3,
           node->limit_seconds * 1e3, f->flops, f->bytes);
}

double sh_bench_roofline(const sh_program *program, sh_dtype dtype, double flops_per_second,
                         double bytes_per_second)
{
    double seconds = 0;

    (void)dtype;
    for (int i = 0; i < sh_program_n_nodes(program); i++) {
        sh_node_info info;
        sh_program_node_info(program, i, &info);
        if (info.phase != SH_PHASE_FORWARD || strcmp(info.op, "conv") != 0) continue;
        double bytes = tensor_bytes(&info.in0) + tensor_bytes(&info.out0);
        double memory = bytes > SH_BENCH_CACHED_BYTES ? bytes / bytes_per_second : 0;
        bool is_image = info.in0.dims[1] <= 4;
        seconds += (is_image ? 2 : 3) * larger(info.flops / flops_per_second, memory);
    }
    return seconds;
}

/* Points of one run: one after every node, and one at the beginning of each phase. */
typedef struct stamps {
    const sh_meter *meter;
    sh_watch *watch;
    int *from; /* [n_nodes] the point before each node's own; -1: it has not run */
    int last;
} stamps;

static sh_status stamp(void *context, int node)
{
    stamps *s = context;

    s->from[node] = s->last;
    s->last = node;
    return s->meter->watch_put(s->watch, node);
}

static sh_status run_phase(sh_program *program, sh_phase phase, const sh_run_args *args, stamps *s,
                           int first)
{
    sh_status st = SH_OK;

    s->last = first;
    SH_TRY(s->meter->watch_put(s->watch, first));
    SH_TRY(sh_program_run(program, phase, args));
out:
    return st;
}

/* One run; seconds [n_nodes] */
static sh_status time_run(sh_program *program, const sh_run_args *args, stamps *s, double *seconds)
{
    sh_status st = SH_OK;
    int n = sh_program_n_nodes(program);

    for (int i = 0; i < n; i++) s->from[i] = -1;
    SH_TRY(run_phase(program, SH_PHASE_FORWARD, args, s, n));
    if (args->reduce != NULL) /* it trains */
        SH_TRY(run_phase(program, SH_PHASE_BACKWARD, args, s, n + 1));
    for (int i = 0; i < n; i++)
        if (s->from[i] >= 0) SH_TRY(s->meter->watch_read(s->watch, s->from[i], i, &seconds[i]));
out:
    return st;
}

static sh_status time_runs(sh_program *program, const sh_run_args *args, const sh_meter *meter,
                           int n_runs, double *seconds)
{
    sh_status st = SH_OK;
    int n = sh_program_n_nodes(program);
    stamps s = {.meter = meter, .from = calloc((size_t)n, sizeof(*s.from))};
    sh_run_args timed = *args;

    SH_CHECK(s.from != NULL, SH_ERR_NO_MEMORY, "times of %d nodes", n);
    SH_TRY(meter->watch_create(n + 2, &s.watch));
    timed.recorded = false; /* each node by itself */
    timed.after_node = stamp;
    timed.context = &s;
    for (int r = 0; r < n_runs; r++)
        SH_TRY(time_run(program, &timed, &s, seconds + (ptrdiff_t)r * n));
out:
    meter->watch_destroy(&s.watch);
    free(s.from);
    return st;
}

/* What is timed singly. */
typedef struct single {
    sh_program *program;
    const sh_run_args *args;
    const sh_meter *meter;
    sh_flush *flush;
    sh_watch *watch;
} single;

/* node: -1: nothing */
static sh_status time_single(const single *s, int node, double *seconds)
{
    sh_status st = SH_OK;

    SH_TRY(s->meter->flush_run(s->flush));
    SH_TRY(s->meter->watch_put(s->watch, 0));
    if (node >= 0) SH_TRY(sh_program_run_node(s->program, node, s->args));
    SH_TRY(s->meter->watch_put(s->watch, 1));
    SH_TRY(s->meter->watch_read(s->watch, 0, 1, seconds));
out:
    return st;
}

/* A device takes microseconds from one point to the next even when there is nothing between them,
 * which would add up over the nodes: they are taken off. */
static sh_status time_cold(sh_program *program, const sh_run_args *args, const sh_meter *meter,
                           int n_cold, double *seconds)
{
    enum { N_EMPTY = 9 };
    sh_status st = SH_OK;
    int n = sh_program_n_nodes(program);
    single s = {.program = program, .args = args, .meter = meter};
    double empty[N_EMPTY];

    SH_TRY(meter->flush_create(&s.flush));
    SH_TRY(meter->watch_create(2, &s.watch));
    for (int i = 0; i < N_EMPTY; i++) SH_TRY(time_single(&s, -1, &empty[i]));
    double nothing = sh_bench_median(empty, N_EMPTY);

    for (int r = 0; r < n_cold; r++) {
        for (int i = 0; i < n; i++) {
            double *at = &seconds[(ptrdiff_t)r * n + i];

            SH_TRY(time_single(&s, i, at));
            *at = larger(*at - nothing, 0);
        }
    }
out:
    meter->watch_destroy(&s.watch);
    meter->flush_destroy(&s.flush);
    return st;
}

/* Median over runs of each node; seconds [n_runs][n_nodes]. */
static double median_of_node(const double *seconds, int n_runs, int n_nodes, int node,
                             double *values)
{
    for (int r = 0; r < n_runs; r++) values[r] = seconds[(ptrdiff_t)r * n_nodes + node];
    return sh_bench_median(values, n_runs);
}

sh_status sh_bench_nodes(sh_program *program, const sh_run_args *args, const sh_meter *meter,
                         const sh_peaks *peaks, sh_dtype dtype, int n_runs, int n_cold,
                         sh_bench_node **out)
{
    sh_status st = SH_OK;
    int n = sh_program_n_nodes(program), n_most = n_runs > n_cold ? n_runs : n_cold;
    double peak = dtype == SH_BF16 ? peaks->bf16_flops : peaks->f32_flops;
    sh_bench_node *nodes = calloc((size_t)n, sizeof(*nodes));
    double *warm = calloc((size_t)n * (size_t)n_runs, sizeof(*warm));
    double *cold = calloc((size_t)n * (size_t)n_cold, sizeof(*cold));
    double *values = calloc((size_t)n_most, sizeof(*values));

    SH_CHECK(nodes && warm && cold && values, SH_ERR_NO_MEMORY, "times of %d nodes", n);
    SH_TRY(time_runs(program, args, meter, n_runs, warm));
    SH_TRY(time_cold(program, args, meter, n_cold, cold));
    for (int i = 0; i < n; i++) {
        sh_bench_node *node = &nodes[i];
        sh_program_node_info(program, i, &node->info);
        node->seconds = median_of_node(warm, n_runs, n, i, values);
        node->cold_seconds = median_of_node(cold, n_cold, n, i, values);
        double bytes = node->info.bytes > SH_BENCH_CACHED_BYTES ? node->info.bytes : 0;
        node->limit_seconds = larger(peak > 0 ? node->info.flops / peak : 0, bytes / peaks->bytes);
    }
    *out = nodes;
    nodes = NULL;
out:
    free(nodes);
    free(warm);
    free(cold);
    free(values);
    return st;
}
