// SPDX-License-Identifier: Apache-2.0
/*
 * `shoal bench step`: a whole training step - forward, semi-hard triplet loss, backward, Adam - as
 * training runs it (trainer/step.h), against the roofline of its convolutions with peaks measured
 * here and now, and against the same nodes run one by one with cold caches.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/cli.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "trainer/bench_batch.h"
#include "trainer/bench_nodes.h"
#include "trainer/commands.h"

enum { N_WARM_UP = 2, N_COLD = 3 };

typedef struct bench {
    sh_bench_options options;
    int64_t repeats;
    bool json;

    sh_dtype dtype;
    sh_comm *comm;
    sh_step *step;
    sh_bench_batch images;
    sh_cpu_peaks peaks;
} bench;

typedef struct result {
    double ms_per_image; /* median of whole steps */
    double best_ms_per_image;
    double roofline_ms_per_image;  /* peaks measured in this run */
    double reference_ms_per_image; /* peaks of docs: 234 / 468 GFLOP/s, 40 GB/s */
    double loss_ms, update_ms, cold_nodes_ms, step_ms;
    double flops, bytes;
    int64_t resident_bytes;
} result;

static sh_status create_step(bench *b)
{
    sh_status st = SH_OK;
    sh_step_config config;

    SH_TRY(sh_bench_step_config(&b->options, &config));
    config.n_shards = (int)((b->options.batch + 31) / 32);
    b->dtype = config.dtype;
    SH_TRY(sh_comm_create(1, &b->comm));
    SH_TRY(sh_step_create(&config, b->comm, &b->step));
    SH_TRY(sh_store_init(sh_step_store(b->step), 1));
    SH_TRY(sh_bench_batch_make(b->step, &b->images));
out:
    return st;
}

static sh_status time_steps(bench *b, result *r)
{
    sh_status st = SH_OK;
    int n = (int)b->repeats;
    double *step = calloc(3 * (size_t)n, sizeof(*step)), *loss = step + n, *update = loss + n;

    SH_CHECK(step != NULL, SH_ERR_NO_MEMORY, "times of %d steps", n);
    for (int i = -N_WARM_UP; i < n; i++) {
        sh_step_stats stats;
        double start = sh_clock_seconds();
        SH_TRY(sh_step_run(b->step, i + N_WARM_UP, 1e-4, b->images.slots, sh_bench_batch_pixels,
                           &b->images, &stats));
        if (i < 0) continue;
        step[i] = sh_clock_seconds() - start;
        loss[i] = stats.seconds_loss;
        update[i] = stats.seconds_reduce + stats.seconds_update;
    }
    r->step_ms = sh_bench_median(step, n) * 1e3;
    r->ms_per_image = r->step_ms / (double)b->options.batch;
    r->best_ms_per_image = step[0] * 1e3 / (double)b->options.batch;
    r->loss_ms = sh_bench_median(loss, n) * 1e3;
    r->update_ms = sh_bench_median(update, n) * 1e3;
    r->resident_bytes = sh_cpu_peak_resident_bytes();
out:
    free(step);
    return st;
}

static void print_nodes(const sh_bench_node *nodes, int n)
{
    printf("\n%-4s ", "");
    sh_bench_print_node_head();
    printf("  faster ones not taken\n");
    for (int i = 0; i < n; i++) {
        printf("%-4s ", nodes[i].info.phase == SH_PHASE_FORWARD ? "fwd" : "bwd");
        sh_bench_print_node(&nodes[i]);
        printf("  %s\n", nodes[i].info.refusals);
    }
}

static void print_table(const bench *b, const result *r, double nodes_ms)
{
    const sh_cpu_peaks *p = &b->peaks;

    printf("%s %lldx%lld, batch %lld, %s, %lld threads, backend %s\n", b->options.net,
           (long long)b->options.size, (long long)b->options.size, (long long)b->options.batch,
           b->options.dtype, (long long)b->options.threads, b->options.backend);
    printf("measured peaks         %.0f GFLOP/s f32, %.0f bf16; memory %.1f GB/s (read %.1f, triad "
           "%.1f)\n",
           p->f32_flops * 1e-9, p->bf16_flops * 1e-9, p->bytes * 1e-9, p->read_bytes * 1e-9,
           p->triad_bytes * 1e-9);
    printf("whole step             %8.3f ms/image, median of %lld steps (best %.3f)\n",
           r->ms_per_image, (long long)b->repeats, r->best_ms_per_image);
    printf("roofline, these peaks  %8.3f ms/image: %.0f %% reached\n", r->roofline_ms_per_image,
           100 * r->roofline_ms_per_image / r->ms_per_image);
    printf("roofline, reference    %8.3f ms/image (234 GFLOP/s f32, 468 bf16, 40 GB/s): %.0f %%\n",
           r->reference_ms_per_image, 100 * r->reference_ms_per_image / r->ms_per_image);
    printf("whole step             %8.2f ms: nodes %.2f, loss %.2f, update %.2f\n", r->step_ms,
           nodes_ms, r->loss_ms, r->update_ms);
    printf("nodes run singly, cold %8.2f ms + loss and update %.2f: whole step / sum = %.3f\n",
           r->cold_nodes_ms, r->loss_ms + r->update_ms,
           r->step_ms / (r->cold_nodes_ms + r->loss_ms + r->update_ms));
    printf("work                   %8.2f GFLOP, %.2f GB through nodes\n", r->flops * 1e-9,
           r->bytes * 1e-9);
    printf("resident memory        %8.3f GB at most\n", (double)r->resident_bytes * 1e-9);
}

static void print_json(const bench *b, const result *r)
{
    printf("{\"bench\": \"step\", \"net\": \"%s\", \"size\": %lld, \"batch\": %lld, \"dtype\": "
           "\"%s\", \"threads\": %lld, \"ms_per_image\": %.4f, \"best_ms_per_image\": %.4f, "
           "\"roofline_ms_per_image\": %.4f, \"roofline_share\": %.4f, "
           "\"reference_roofline_ms_per_image\": %.4f, \"step_over_cold_nodes\": %.4f, "
           "\"resident_bytes\": %lld, \"flops\": %.6g, \"bytes\": %.6g, \"peak_f32_flops\": %.5g, "
           "\"peak_bf16_flops\": %.5g, \"memory_bytes_per_second\": %.5g}\n",
           b->options.net, (long long)b->options.size, (long long)b->options.batch,
           b->options.dtype, (long long)b->options.threads, r->ms_per_image, r->best_ms_per_image,
           r->roofline_ms_per_image, r->roofline_ms_per_image / r->ms_per_image,
           r->reference_ms_per_image, r->step_ms / (r->cold_nodes_ms + r->loss_ms + r->update_ms),
           (long long)r->resident_bytes, r->flops, r->bytes, b->peaks.f32_flops,
           b->peaks.bf16_flops, b->peaks.bytes);
}

static sh_status measure(bench *b)
{
    sh_status st = SH_OK;
    result r = {0};
    sh_bench_node *nodes = NULL;
    double nodes_ms = 0;

    SH_TRY(create_step(b));
    SH_TRY(time_steps(b, &r));
    SH_TRY(sh_cpu_measure_peaks(&b->peaks));
    sh_program *program = sh_step_program(b->step, 0);
    int n = sh_program_n_nodes(program);
    sh_run_args args = sh_step_run_args(b->step, 0);
    SH_TRY(sh_bench_nodes(program, &args, &b->peaks, b->dtype, 7, N_COLD, &nodes));
    int n_shards = sh_step_get_config(b->step)->n_shards;
    for (int i = 0; i < n; i++) {
        r.flops += nodes[i].info.flops * n_shards;
        r.bytes += nodes[i].info.bytes * n_shards;
        r.cold_nodes_ms += nodes[i].cold_seconds * 1e3 * n_shards;
        nodes_ms += nodes[i].seconds * 1e3 * n_shards;
    }
    bool is_bf16 = b->dtype == SH_BF16;
    double per_image = 1e3 * n_shards / (double)b->options.batch;
    r.roofline_ms_per_image =
        per_image * sh_bench_roofline(program, b->dtype,
                                      is_bf16 ? b->peaks.bf16_flops : b->peaks.f32_flops,
                                      b->peaks.bytes);
    r.reference_ms_per_image =
        per_image * sh_bench_roofline(program, b->dtype, is_bf16 ? 468e9 : 234e9, 40e9);
    if (b->json) {
        print_json(b, &r);
    } else {
        print_table(b, &r, nodes_ms);
        print_nodes(nodes, n);
    }
out:
    free(nodes);
    return st;
}

sh_status sh_bench_step(int argc, char **argv)
{
    sh_status st = SH_OK;
    bench b = {.options = SH_BENCH_DEFAULTS, .repeats = 20};
    const sh_flag flags[] = {
        SH_BENCH_FLAGS(b.options),
        {"--repeats", NULL, SH_FLAG_INT, &b.repeats, "N", "steps measured (default 20)"},
        {"--json", NULL, SH_FLAG_BOOL, &b.json, NULL, "one JSON object instead of the table"},
    };
    const sh_cli cli = {.usage = "shoal bench step [--net NAME] [--size N] [--batch N] "
                                 "[--threads N] [--dtype f32|bf16] [--json]",
                        .summary = "Time a whole training step against the roofline of its "
                                   "convolutions and against its nodes run singly.",
                        .flags = flags,
                        .n_flags = (int)SH_COUNT(flags)};
    sh_string_list args = {0};
    bool helped = false;

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    SH_CHECK(b.repeats > 0, SH_ERR_USAGE, "--repeats: at least 1");
    SH_TRY(measure(&b));
out:
    sh_step_destroy(&b.step);
    sh_comm_destroy(&b.comm);
    sh_bench_batch_clear(&b.images);
    free(args.items);
    return st;
}
