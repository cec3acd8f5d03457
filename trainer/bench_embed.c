// SPDX-License-Identifier: Apache-2.0
/*
 * `shoal bench embed`: a network in inference - batch norms folded, constants made - on images that
 * are in memory already: milliseconds an image, and where they go. What `shoal embed` adds is
 * reading and decoding.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/cli.h"
#include "base/clock.h"
#include "models/zoo/zoo.h"
#include "trainer/bench_batch.h"
#include "trainer/bench_nodes.h"
#include "trainer/commands.h"

enum { N_WARM_UP = 2, N_NODE_RUNS = 7, N_COLD = 3 };

typedef struct bench {
    sh_bench_options options;
    int64_t repeats;
    bool json;

    sh_step_config network;
    sh_store *store;
    sh_program *program;
    sh_buffer *arena;
    sh_value image;
} bench;

static sh_status build(bench *b)
{
    sh_status st = SH_OK;
    const sh_step_config *c = &b->network;
    const int64_t dims[4] = {c->batch, c->net->in_channels, c->height, c->width};

    SH_TRY(sh_store_create(c->backend, &b->store));
    const sh_program_config config = {
        .backend = c->backend, .store = b->store, .dtype = c->dtype, .share = 1, .prefix = ""};
    SH_TRY(sh_program_create(&config, &b->program));
    b->image = sh_program_input(b->program, "image", dims);
    sh_program_output(b->program, "embedding",
                      sh_net_embedding(b->program, c->net, b->image, &c->head));
    SH_TRY(sh_program_plan(b->program));
    SH_TRY(sh_store_allocate(b->store));
    SH_TRY(sh_store_init(b->store, 1));
    SH_TRY(c->backend->alloc(sh_program_arena_bytes(b->program), &b->arena));
    SH_TRY(sh_program_run(b->program, SH_PHASE_CONSTANTS, &(sh_run_args){.arena = b->arena}));
out:
    return st;
}

/* Seconds of a forward, writing the images included; sorted. */
static sh_status time_forwards(bench *b, double *seconds)
{
    sh_status st = SH_OK;
    const sh_run_args args = {.arena = b->arena};
    const sh_tensor_desc desc = sh_program_desc(b->program, b->image);
    void *images = malloc(sh_tensor_bytes(&desc));

    SH_CHECK(images != NULL, SH_ERR_NO_MEMORY, "images");
    sh_bench_images(&desc, images);
    for (int i = -N_WARM_UP; i < (int)b->repeats; i++) {
        double start = sh_clock_seconds();
        SH_TRY(sh_program_write(b->program, b->arena, b->image, images));
        SH_TRY(sh_program_run(b->program, SH_PHASE_FORWARD, &args));
        if (i >= 0) seconds[i] = sh_clock_seconds() - start;
    }
out:
    free(images);
    return st;
}

static sh_status print_nodes(const bench *b)
{
    sh_status st = SH_OK;
    const sh_run_args args = {.arena = b->arena};
    sh_bench_node *nodes = NULL;
    const sh_meter *meter = sh_meter_of(b->network.backend);
    sh_peaks peaks;

    SH_TRY(meter->peaks(&peaks));
    SH_TRY(sh_bench_nodes(b->program, &args, meter, &peaks, b->network.dtype, N_NODE_RUNS, N_COLD,
                          &nodes));
    printf("\n");
    sh_bench_print_node_head();
    printf("\n");
    for (int i = 0; i < sh_program_n_nodes(b->program); i++) {
        if (nodes[i].info.phase == SH_PHASE_CONSTANTS) continue;
        sh_bench_print_node(&nodes[i]);
        printf("\n");
    }
out:
    free(nodes);
    return st;
}

static sh_status measure(bench *b)
{
    sh_status st = SH_OK;
    const sh_bench_options *o = &b->options;
    double *seconds = calloc((size_t)b->repeats, sizeof(*seconds));

    SH_CHECK(seconds != NULL, SH_ERR_NO_MEMORY, "times");
    SH_TRY(build(b));
    SH_TRY(time_forwards(b, seconds));
    double per_image = 1e3 / (double)o->batch;
    double median = sh_bench_median(seconds, (int)b->repeats) * per_image;
    double best = seconds[0] * per_image;
    double arena = (double)sh_program_arena_bytes(b->program);
    if (b->json) {
        printf("{\"bench\": \"embed\", \"net\": \"%s\", \"size\": %lld, \"batch\": %lld, "
               "\"dtype\": \"%s\", \"threads\": %lld, \"ms_per_image\": %.4f, "
               "\"best_ms_per_image\": %.4f, \"arena_bytes\": %.0f}\n",
               o->net, (long long)o->size, (long long)o->batch, o->dtype, (long long)o->threads,
               median, best, arena);
        goto out;
    }
    printf("%s %lldx%lld, %lld images at a time, %s, %lld threads\n"
           "network  %8.3f ms/image, median of %lld runs (best %.3f); arena %.1f MB\n",
           o->net, (long long)o->size, (long long)o->size, (long long)o->batch, o->dtype,
           (long long)o->threads, median, (long long)b->repeats, best, arena * 1e-6);
    SH_TRY(print_nodes(b));
out:
    free(seconds);
    return st;
}

sh_status sh_bench_embed(int argc, char **argv)
{
    sh_status st = SH_OK;
    bench b = {.options = SH_BENCH_DEFAULTS, .repeats = 20};
    const sh_flag flags[] = {
        SH_BENCH_FLAGS(b.options),
        {"--repeats", NULL, SH_FLAG_INT, &b.repeats, "N", "runs measured (default 20)"},
        {"--json", NULL, SH_FLAG_BOOL, &b.json, NULL, "one JSON object instead of the table"},
    };
    const sh_cli cli = {.usage = "shoal bench embed [--net NAME] [--size N] [--batch N] "
                                 "[--threads N] [--dtype f32|bf16] [--json]",
                        .summary = "Time a network in inference, node by node. `shoal embed` takes "
                                   "16 images at a time.",
                        .flags = flags,
                        .n_flags = (int)SH_COUNT(flags)};
    sh_string_list args = {0};
    bool helped = false;

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    SH_CHECK(b.repeats > 0, SH_ERR_USAGE, "--repeats: at least 1");
    SH_TRY(sh_bench_network(&b.options, &b.network));
    SH_TRY(measure(&b));
out:
    if (b.arena != NULL) b.network.backend->free(&b.arena);
    sh_program_destroy(&b.program);
    sh_store_destroy(&b.store);
    free(args.items);
    return st;
}
