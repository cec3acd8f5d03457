// SPDX-License-Identifier: Apache-2.0
/*
 * `shoal bench step`: a whole training step - forward, semi-hard triplet loss, backward, Adam - as
 * training runs it (trainer/step.h), against the roofline of its convolutions, as direct ones, with
 * peaks measured here and now, and against the same nodes run one by one with cold caches.
 *
 * Whole steps are timed by the host, one after another: each ends when its update has been
 * computed. What is run singly is timed by the backend's clock.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/cli.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "trainer/bench_batch.h"
#include "trainer/bench_comm.h"
#include "trainer/bench_nodes.h"
#include "trainer/commands.h"
#include "trainer/config.h"

/* On a device the first step runs its kernels, the second one records them. */
enum { N_WARM_UP = 3, N_RUNS = 7, N_COLD = 3, DEVICE_BYTES = 512 };

typedef struct bench {
    sh_bench_options options;
    int64_t shards, repeats;
    bool json;

    const sh_meter *meter;
    sh_comm *comm;
    sh_step *step;
    sh_step_config config;
    sh_bench_batch images;
    sh_peaks peaks;
    sh_bench_node *nodes; /* of the first shard */
    int n_nodes;
    char device[DEVICE_BYTES]; /* and its libraries; "": this machine's processor */
} bench;

typedef struct result {
    double step_ms, best_step_ms; /* median, minimum */
    double mean_step_ms;          /* of all steps in a row */
    double roofline_ms;           /* peaks measured in this run */
    double reference_ms;          /* peaks of docs: 234 / 468 GFLOP/s, 40 GB/s; of processors */
    double loss_ms, update_ms;    /* in their place; on a device run singly */
    double nodes_ms, cold_nodes_ms;
    double flops, bytes;
    int64_t resident_bytes; /* of the host's memory, at most */
    int64_t held_bytes;     /* of the device's memory: nothing is allocated within a step */
} result;

static double alone_ms(const result *r)
{
    return r->cold_nodes_ms + r->loss_ms + r->update_ms;
}

/* Name and versions of a device: figures of another one are other figures. */
static void describe_device(bench *b)
{
    const sh_backend *backend = b->config.backend;
    sh_finding findings[SH_MAX_FINDINGS];
    int n = backend->examine != NULL ? backend->examine(findings, SH_MAX_FINDINGS) : 0;
    size_t at = 0;

    for (int i = 0; i < n && at < sizeof(b->device); i++)
        at +=
            (size_t)snprintf(b->device + at, sizeof(b->device) - at, "%s%s%s%s", i > 0 ? "; " : "",
                             i > 0 ? findings[i].what : "", i > 0 ? " " : "", findings[i].found);
}

static sh_status create_step(bench *b)
{
    sh_status st = SH_OK;

    SH_TRY(sh_bench_step_config(&b->options, &b->config));
    if (b->shards == 0) b->shards = sh_default_shards(b->options.batch);
    SH_CHECK(b->shards >= 1 && b->shards <= b->options.batch, SH_ERR_USAGE,
             "--shards: 1 .. --batch");
    b->config.n_shards = (int)b->shards;
    b->meter = sh_meter_of(b->config.backend);
    describe_device(b);
    SH_TRY(sh_comm_create(1, &b->comm));
    SH_TRY(sh_step_create(&b->config, b->comm, &b->step));
    SH_TRY(sh_bench_keep_kernels(&b->options, b->config.backend));
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
    double begin = 0;

    SH_CHECK(step != NULL, SH_ERR_NO_MEMORY, "times of %d steps", n);
    for (int i = -N_WARM_UP; i < n; i++) {
        sh_step_stats stats;
        double start = sh_clock_seconds();

        if (i == 0) begin = start;
        SH_TRY(sh_step_run(b->step, i + N_WARM_UP, 1e-4, b->images.slots, sh_bench_batch_pixels,
                           &b->images, &stats));
        if (i < 0) continue;
        step[i] = sh_clock_seconds() - start;
        loss[i] = stats.seconds_loss;
        update[i] = stats.seconds_reduce + stats.seconds_update;
    }
    r->mean_step_ms = (sh_clock_seconds() - begin) * 1e3 / n;
    r->step_ms = sh_bench_median(step, n) * 1e3;
    r->best_step_ms = step[0] * 1e3;
    r->loss_ms = sh_bench_median(loss, n) * 1e3;
    r->update_ms = sh_bench_median(update, n) * 1e3;
    r->resident_bytes = sh_cpu_peak_resident_bytes();
    if (b->meter->held_bytes != NULL) r->held_bytes = (int64_t)b->meter->held_bytes();
out:
    free(step);
    return st;
}

/* On a device the host only asks for loss and update within a step, so that its clock tells nothing
 * of them: they are run singly. */
static sh_status time_loss_and_update(bench *b, result *r)
{
    sh_status st = SH_OK;
    const sh_step_config *c = &b->config;
    const int64_t n_fish = c->batch / SH_BENCH_PER_FISH;
    const sh_run_args args = sh_step_run_args(b->step, 0);
    double seconds[N_RUNS], norm;
    sh_watch *watch = NULL;
    bool is_good;

    SH_TRY(sh_bench_mining_seconds(c->backend, n_fish, SH_BENCH_PER_FISH, b->options.threads,
                                   c->head.dim, &seconds[0]));
    r->loss_ms = seconds[0] * 1e3;
    SH_TRY(b->meter->watch_create(2, &watch));
    for (int i = 0; i < N_RUNS; i++) {
        const float *gradient = c->backend->device_ptr(args.reduce, 0);

        SH_TRY(b->meter->watch_put(watch, 0));
        SH_TRY(sh_optim_update(sh_step_optim(b->step), gradient, NULL, 1e-4, i));
        SH_TRY(b->meter->watch_put(watch, 1));
        SH_TRY(sh_optim_read(sh_step_optim(b->step), &norm, &is_good));
        SH_TRY(b->meter->watch_read(watch, 0, 1, &seconds[i]));
    }
    r->update_ms = sh_bench_median(seconds, N_RUNS) * 1e3;
out:
    b->meter->watch_destroy(&watch);
    return st;
}

static sh_status time_nodes(bench *b, result *r)
{
    sh_status st = SH_OK;
    sh_program *program = sh_step_program(b->step, 0);
    sh_run_args args = sh_step_run_args(b->step, 0);
    bool is_bf16 = b->config.dtype == SH_BF16;
    double n_shards = b->config.n_shards;

    SH_TRY(b->meter->peaks(&b->peaks));
    SH_TRY(sh_bench_nodes(program, &args, b->meter, &b->peaks, b->config.dtype, N_RUNS, N_COLD,
                          &b->nodes));
    b->n_nodes = sh_program_n_nodes(program);
    for (int i = 0; i < b->n_nodes; i++) {
        const sh_bench_node *node = &b->nodes[i];

        r->flops += node->info.flops * n_shards;
        r->bytes += node->info.bytes * n_shards;
        r->cold_nodes_ms += node->cold_seconds * 1e3 * n_shards;
        r->nodes_ms += node->seconds * 1e3 * n_shards;
    }
    r->roofline_ms =
        1e3 * n_shards *
        sh_bench_roofline(program, b->config.dtype,
                          is_bf16 ? b->peaks.bf16_flops : b->peaks.f32_flops, b->peaks.bytes);
    r->reference_ms =
        1e3 * n_shards * sh_bench_roofline(program, b->config.dtype, is_bf16 ? 468e9 : 234e9, 40e9);
out:
    return st;
}

/* ---- printing ---- */

static void print_nodes(const bench *b)
{
    printf("\n%-4s ", "");
    sh_bench_print_node_head();
    printf("  faster ones not taken\n");
    for (int i = 0; i < b->n_nodes; i++) {
        printf("%-4s ", b->nodes[i].info.phase == SH_PHASE_FORWARD ? "fwd" : "bwd");
        sh_bench_print_node(&b->nodes[i]);
        printf("  %s\n", b->nodes[i].info.refusals);
    }
}

static void print_table(const bench *b, const result *r)
{
    const sh_peaks *p = &b->peaks;
    double per_image = 1 / (double)b->options.batch, step = r->step_ms * per_image;

    printf("%s %lldx%lld, batch %lld in %lld shard(s), %s, %lld threads, backend %s\n",
           b->options.net, (long long)b->options.size, (long long)b->options.size,
           (long long)b->options.batch, (long long)b->shards, b->options.dtype,
           (long long)b->options.threads, b->options.backend);
    if (b->device[0] != '\0') printf("%s\n", b->device);
    printf("measured peaks         %.0f GFLOP/s f32, %.0f bf16; memory %.1f GB/s (read %.1f, triad "
           "%.1f)\n                       (%s)\n",
           p->f32_flops * 1e-9, p->bf16_flops * 1e-9, p->bytes * 1e-9, p->read_bytes * 1e-9,
           p->triad_bytes * 1e-9, b->meter->peaks_of);
    printf("whole step             %8.3f ms/image, median of %lld steps (best %.3f, mean %.3f)\n",
           step, (long long)b->repeats, r->best_step_ms * per_image, r->mean_step_ms * per_image);
    printf("roofline, these peaks  %8.3f ms/image: %.0f %% (direct convolutions)\n",
           r->roofline_ms * per_image, 100 * r->roofline_ms / r->step_ms);
    if (b->device[0] == '\0')
        printf(
            "roofline, reference    %8.3f ms/image (234 GFLOP/s f32, 468 bf16, 40 GB/s): %.0f %%\n",
            r->reference_ms * per_image, 100 * r->reference_ms / r->step_ms);
    printf("whole step             %8.2f ms: nodes %.2f, loss %.2f, update %.2f\n", r->step_ms,
           r->nodes_ms, r->loss_ms, r->update_ms);
    printf("nodes run singly, cold %8.2f ms + loss and update %.2f: whole step / sum = %.3f\n",
           r->cold_nodes_ms, r->loss_ms + r->update_ms, r->step_ms / alone_ms(r));
    printf("work                   %8.2f GFLOP, %.2f GB through nodes\n", r->flops * 1e-9,
           r->bytes * 1e-9);
    printf("resident memory        %8.3f GB at most\n", (double)r->resident_bytes * 1e-9);
    if (b->meter->held_bytes != NULL)
        printf("of the device's memory %8.3f GB\n", (double)r->held_bytes * 1e-9);
}

static void print_json(const bench *b, const result *r)
{
    double per_image = 1 / (double)b->options.batch;

    printf(
        "{\"bench\": \"step\", \"device\": \"%s\", \"backend\": \"%s\", \"net\": \"%s\", \"size\": "
        "%lld, \"batch\": %lld, \"shards\": %lld, \"dtype\": \"%s\", \"deterministic\": %s, "
        "\"threads\": %lld, \"ms_per_image\": %.6f, \"best_ms_per_image\": %.6f, "
        "\"roofline_ms_per_image\": %.6f, \"roofline_share\": %.4f, "
        "\"reference_roofline_ms_per_image\": %.6f, \"step_over_cold_nodes\": %.4f, "
        "\"resident_bytes\": %lld, \"device_bytes\": %lld, \"flops\": %.6g, \"bytes\": %.6g, ",
        b->device, b->options.backend, b->options.net, (long long)b->options.size,
        (long long)b->options.batch, (long long)b->shards, b->options.dtype,
        b->options.is_free ? "false" : "true", (long long)b->options.threads,
        r->step_ms * per_image, r->best_step_ms * per_image, r->roofline_ms * per_image,
        r->roofline_ms / r->step_ms, r->reference_ms * per_image, r->step_ms / alone_ms(r),
        (long long)r->resident_bytes, (long long)r->held_bytes, r->flops, r->bytes);
    printf(
        "\"step_ms\": %.5f, \"mean_step_ms\": %.5f, \"nodes_ms\": %.5f, \"cold_nodes_ms\": %.5f, "
        "\"loss_ms\": %.5f, \"update_ms\": %.5f, \"peaks_of\": \"%s\", \"peak_f32_flops\": %.5g, "
        "\"peak_bf16_flops\": %.5g, \"memory_bytes_per_second\": %.5g, \"nodes\": [",
        r->step_ms, r->mean_step_ms, r->nodes_ms, r->cold_nodes_ms, r->loss_ms, r->update_ms,
        b->meter->peaks_of, b->peaks.f32_flops, b->peaks.bf16_flops, b->peaks.bytes);
    for (int i = 0; i < b->n_nodes; i++) {
        printf("%s\n ", i > 0 ? "," : "");
        sh_bench_print_node_json(&b->nodes[i]);
    }
    printf("]}\n");
}

static sh_status measure(bench *b)
{
    sh_status st = SH_OK;
    result r = {0};

    SH_TRY(create_step(b));
    SH_TRY(time_steps(b, &r));
    if (b->config.backend->loss != NULL) SH_TRY(time_loss_and_update(b, &r));
    SH_TRY(time_nodes(b, &r));
    if (b->json) {
        print_json(b, &r);
    } else {
        print_table(b, &r);
        print_nodes(b);
    }
out:
    return st;
}

sh_status sh_bench_step(int argc, char **argv)
{
    sh_status st = SH_OK;
    bench b = {.options = SH_BENCH_DEFAULTS, .repeats = 20};
    const sh_flag flags[] = {
        SH_BENCH_FLAGS(b.options),
        {"--shards", NULL, SH_FLAG_INT, &b.shards, "N",
         "parts of the batch (default: batch / 32, rounded up, as in training)"},
        {"--free", NULL, SH_FLAG_BOOL, &b.options.is_free, NULL,
         "kernels of a device need not give the same bytes each time (deterministic=off)"},
        {"--kernels", NULL, SH_FLAG_STRING, &b.options.kernels, "FILE",
         "take a device's kernels from there; where it is not there, measure and write it"},
        {"--repeats", NULL, SH_FLAG_INT, &b.repeats, "N", "steps measured (default 20)"},
        {"--json", NULL, SH_FLAG_BOOL, &b.json, NULL, "one JSON object instead of the table"},
    };
    const sh_cli cli = {.usage =
                            "shoal bench step [--net NAME] [--size N] [--batch N] [--shards N] "
                            "[--threads N] [--dtype f32|bf16] [--backend NAME] [--json]",
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
    free(b.nodes);
    sh_bench_batch_clear(&b.images);
    sh_step_destroy(&b.step);
    sh_comm_destroy(&b.comm);
    free(args.items);
    return st;
}
