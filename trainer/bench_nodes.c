// SPDX-License-Identifier: Apache-2.0
#include "trainer/bench_nodes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

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
        bool is_image = info.in0.layout == SH_NCHW && info.in0.dims[1] <= 4;
        seconds += (is_image ? 2 : 3) * larger(info.flops / flops_per_second, memory);
    }
    return seconds;
}

/* Times of one run: the clock is read after every node. */
typedef struct stamps {
    double *seconds; /* [n_nodes] of this run */
    double last;
} stamps;

static sh_status stamp(void *context, int node)
{
    stamps *s = context;
    double now = sh_clock_seconds();

    s->seconds[node] = now - s->last;
    s->last = now;
    return SH_OK;
}

static sh_status time_runs(sh_program *program, const sh_run_args *args, int n_runs,
                           double *seconds)
{
    sh_status st = SH_OK;
    sh_run_args timed = *args;
    stamps s;

    timed.recorded = false; /* each node by itself */
    timed.after_node = stamp;
    timed.context = &s;
    for (int r = 0; r < n_runs; r++) {
        s.seconds = seconds + (ptrdiff_t)r * sh_program_n_nodes(program);
        s.last = sh_clock_seconds();
        SH_TRY(sh_program_run(program, SH_PHASE_FORWARD, &timed));
        if (timed.reduce == NULL) continue; /* inference */
        s.last = sh_clock_seconds();
        SH_TRY(sh_program_run(program, SH_PHASE_BACKWARD, &timed));
    }
out:
    return st;
}

static sh_status time_cold(sh_program *program, const sh_run_args *args, int n_cold,
                           double *seconds)
{
    sh_status st = SH_OK;
    int n = sh_program_n_nodes(program);
    sh_cpu_flush *flush = NULL;

    SH_TRY(sh_cpu_flush_create(&flush));
    for (int r = 0; r < n_cold; r++) {
        for (int i = 0; i < n; i++) {
            sh_cpu_flush_run(flush);
            double start = sh_clock_seconds();
            SH_TRY(sh_program_run_node(program, i, args));
            seconds[(ptrdiff_t)r * n + i] = sh_clock_seconds() - start;
        }
    }
out:
    sh_cpu_flush_destroy(&flush);
    return st;
}

/* Median over runs of each node; seconds [n_runs][n_nodes]. */
static double median_of_node(const double *seconds, int n_runs, int n_nodes, int node,
                             double *values)
{
    for (int r = 0; r < n_runs; r++) values[r] = seconds[(ptrdiff_t)r * n_nodes + node];
    return sh_bench_median(values, n_runs);
}

sh_status sh_bench_nodes(sh_program *program, const sh_run_args *args, const sh_cpu_peaks *peaks,
                         sh_dtype dtype, int n_runs, int n_cold, sh_bench_node **out)
{
    sh_status st = SH_OK;
    int n = sh_program_n_nodes(program), n_most = n_runs > n_cold ? n_runs : n_cold;
    double peak = dtype == SH_BF16 ? peaks->bf16_flops : peaks->f32_flops;
    sh_bench_node *nodes = calloc((size_t)n, sizeof(*nodes));
    double *warm = calloc((size_t)n * (size_t)n_runs, sizeof(*warm));
    double *cold = calloc((size_t)n * (size_t)n_cold, sizeof(*cold));
    double *values = calloc((size_t)n_most, sizeof(*values));

    SH_CHECK(nodes && warm && cold && values, SH_ERR_NO_MEMORY, "times of %d nodes", n);
    SH_TRY(time_runs(program, args, n_runs, warm));
    SH_TRY(time_cold(program, args, n_cold, cold));
    for (int i = 0; i < n; i++) {
        sh_bench_node *node = &nodes[i];
        sh_program_node_info(program, i, &node->info);
        node->seconds = median_of_node(warm, n_runs, n, i, values);
        node->cold_seconds = median_of_node(cold, n_cold, n, i, values);
        double bytes = node->info.bytes > SH_BENCH_CACHED_BYTES ? node->info.bytes : 0;
        node->limit_seconds = larger(node->info.flops / peak, bytes / peaks->bytes);
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
