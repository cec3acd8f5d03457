// SPDX-License-Identifier: Apache-2.0
/*
 * `shoal bench ops`: the distinct nodes of a network's training program, each with its rate and its
 * share of what arithmetic or memory allows, within a run and singly with cold caches.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/cpu.h"
#include "trainer/bench_batch.h"
#include "trainer/bench_nodes.h"
#include "trainer/commands.h"

enum { N_RUNS = 9, N_COLD = 3 };

typedef struct bench {
    sh_bench_options options;
    bool json;

    const sh_backend *backend;
    sh_dtype dtype;
    sh_store *store;
    sh_program *program;
    sh_buffer *arena, *reduce, *scalars;
    sh_peaks peaks;
} bench;

static sh_status build(bench *b)
{
    sh_status st = SH_OK;
    sh_step_config step;
    sh_value cotangent;

    SH_TRY(sh_bench_network(&b->options, &step));
    b->backend = step.backend;
    b->dtype = step.dtype;
    SH_TRY(sh_store_create(b->backend, &b->store));
    const sh_program_config config = {.backend = b->backend,
                                      .store = b->store,
                                      .dtype = b->dtype,
                                      .training = true,
                                      .share = 1,
                                      .prefix = ""};
    SH_TRY(sh_program_create(&config, &b->program));
    sh_value image = sh_program_input(
        b->program, "image",
        (const int64_t[4]){step.batch, step.net->in_channels, step.height, step.width});
    sh_value features = sh_net_embedding(b->program, step.net, image, &step.head);
    sh_value output = sh_program_output(b->program, "embedding", features);
    SH_TRY(sh_program_differentiate(b->program, output, SH_NO_VALUE, &cotangent, NULL));
    SH_TRY(sh_store_allocate(b->store));
    SH_TRY(sh_store_init(b->store, 1));
    SH_TRY(sh_program_plan(b->program));
    SH_TRY(b->backend->alloc(sh_program_arena_bytes(b->program), &b->arena));
    int64_t n_reduce = sh_store_n_params(b->store) + sh_store_n_states(b->store);
    SH_TRY(b->backend->alloc((size_t)n_reduce * sizeof(float), &b->reduce));
    SH_TRY(b->backend->alloc(sizeof(sh_run_scalars), &b->scalars));
out:
    return st;
}

static bool is_same(const sh_bench_node *a, const sh_bench_node *b)
{
    return strcmp(a->info.op, b->info.op) == 0 && strcmp(a->info.kernel, b->info.kernel) == 0 &&
           a->info.flops == b->info.flops && a->info.bytes == b->info.bytes &&
           memcmp(&a->info.in0, &b->info.in0, sizeof(a->info.in0)) == 0;
}

/* Print node i with all that equal it; they are skipped later. */
static void print_row(const bench *b, const sh_bench_node *nodes, int n, int i)
{
    const sh_node_info *f = &nodes[i].info;
    double peak = b->dtype == SH_BF16 ? b->peaks.bf16_flops : b->peaks.f32_flops;
    double seconds = 0, cold = 0;
    int count = 0;

    for (int k = 0; k < i; k++)
        if (is_same(&nodes[k], &nodes[i])) return;
    for (int k = i; k < n; k++) {
        if (!is_same(&nodes[k], &nodes[i])) continue;
        seconds += nodes[k].seconds;
        cold += nodes[k].cold_seconds;
        count++;
    }
    double s = seconds / count;
    char shape[64];
    snprintf(shape, sizeof(shape), "%lldx%lldx%lldx%lld", (long long)f->in0.dims[0],
             (long long)f->in0.dims[1], (long long)f->in0.dims[2], (long long)f->in0.dims[3]);
    if (b->json) {
        printf("%s{\"op\": \"%s\", \"kernel\": \"%s\", \"input\": \"%s\", \"count\": %d, \"ms\": "
               "%.4f, \"cold_ms\": %.4f, \"flops_per_second\": %.4g, \"bytes_per_second\": %.4g, "
               "\"share_of_limit\": %.4f}",
               i > 0 ? ", " : "", f->op, f->kernel, shape, count, s * 1e3, cold / count * 1e3,
               f->flops / s, f->bytes / s, nodes[i].limit_seconds / s);
        return;
    }
    printf("%-16s %-26.26s %-20s %3d %9.3f %9.3f %8.1f %5.0f%% %7.1f %5.0f%% %6.0f%%\n", f->op,
           f->kernel, shape, count, s * 1e3, cold / count * 1e3, f->flops / s * 1e-9,
           100 * f->flops / s / peak, f->bytes / s * 1e-9, 100 * f->bytes / s / b->peaks.bytes,
           100 * nodes[i].limit_seconds / s);
}

static sh_status measure(bench *b)
{
    sh_status st = SH_OK;
    sh_bench_node *nodes = NULL;

    SH_TRY(build(b));
    const sh_meter *meter = sh_meter_of(b->backend);
    SH_TRY(meter->peaks(&b->peaks));
    const sh_run_args args = {
        .arena = b->arena, .reduce = b->reduce, .scalars = b->backend->device_ptr(b->scalars, 0)};
    SH_TRY(sh_bench_nodes(b->program, &args, meter, &b->peaks, b->dtype, N_RUNS, N_COLD, &nodes));
    int n = sh_program_n_nodes(b->program);
    if (b->json) {
        printf("{\"bench\": \"ops\", \"net\": \"%s\", \"dtype\": \"%s\", \"ops\": [",
               b->options.net, b->options.dtype);
    } else {
        printf("%s %lldx%lld, batch %lld, %s, %lld threads; peak %.0f GFLOP/s, memory %.1f GB/s\n",
               b->options.net, (long long)b->options.size, (long long)b->options.size,
               (long long)b->options.batch, b->options.dtype, (long long)b->options.threads,
               (b->dtype == SH_BF16 ? b->peaks.bf16_flops : b->peaks.f32_flops) * 1e-9,
               b->peaks.bytes * 1e-9);
        printf("%-16s %-26s %-20s %3s %9s %9s %8s %6s %7s %6s %7s\n", "op", "kernel", "input", "x",
               "ms", "cold ms", "GFLOP/s", "peak", "GB/s", "memory", "limit");
    }
    for (int i = 0; i < n; i++) print_row(b, nodes, n, i);
    if (b->json) printf("]}\n");
out:
    free(nodes);
    return st;
}

sh_status sh_bench_ops(int argc, char **argv)
{
    sh_status st = SH_OK;
    bench b = {.options = SH_BENCH_DEFAULTS};
    const sh_flag flags[] = {
        SH_BENCH_FLAGS(b.options),
        {"--json", NULL, SH_FLAG_BOOL, &b.json, NULL, "one JSON object instead of the table"},
    };
    const sh_cli cli = {.usage = "shoal bench ops [--net NAME] [--size N] [--batch N] "
                                 "[--threads N] [--dtype f32|bf16] [--json]",
                        .summary = "Time the distinct ops of a network's training step.",
                        .flags = flags,
                        .n_flags = (int)SH_COUNT(flags)};
    sh_string_list args = {0};
    bool helped = false;

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    SH_TRY(measure(&b));
out:
    sh_program_destroy(&b.program);
    if (b.backend) {
        b.backend->free(&b.arena);
        b.backend->free(&b.reduce);
        b.backend->free(&b.scalars);
    }
    sh_store_destroy(&b.store);
    free(args.items);
    return st;
}
