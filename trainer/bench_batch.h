// SPDX-License-Identifier: Apache-2.0
/** What benches of networks share: options, the step that they run and a batch for it. */
#ifndef SH_TRAINER_BENCH_BATCH_H
#define SH_TRAINER_BENCH_BATCH_H

#include "trainer/step.h"

enum { SH_BENCH_PER_FISH = 4 }; /* images of an individual */

/** What is measured. */
typedef struct sh_bench_options {
    const char *net, *tap, *dtype, *backend;
    int64_t size, batch, threads; /* 0: the net's own size; all cores granted */
    const char *kernels;          /* file of a device's kernels: taken from there, or measured and
                                     written there; NULL: measured */
    bool is_free;                 /* kernels need not give the same bytes each time */
} sh_bench_options;

/* clang-format off */
#define SH_BENCH_DEFAULTS {.net = "mobilenet_v2", .tap = "", .dtype = "f32", .backend = "cpu", .batch = 32}

/** The flags that set them. */
#define SH_BENCH_FLAGS(o)                                                                          \
    {"--net", NULL, SH_FLAG_STRING, &(o).net, "NAME", "network (default mobilenet_v2)"},           \
    {"--tap", NULL, SH_FLAG_STRING, &(o).tap, "NAME", "the network is cut there"},                 \
    {"--size", NULL, SH_FLAG_INT, &(o).size, "PIXELS", "height and width (default: the net's)"},   \
    {"--batch", NULL, SH_FLAG_INT, &(o).batch, "N", "images; of steps, 4 a fish (default 32)"},    \
    {"--threads", NULL, SH_FLAG_INT, &(o).threads, "N", "threads (default: all cores granted)"},   \
    {"--dtype", NULL, SH_FLAG_STRING, &(o).dtype, "TYPE", "f32 or bf16 (default f32)"},            \
    {"--backend", NULL, SH_FLAG_STRING, &(o).backend, "NAME", "cpu, ref or cuda (default cpu)"}
/* clang-format on */

/** Check the options, fill in those that are 0 and grant OpenMP the threads. SH_ERR_USAGE names one
 *  that cannot be. Of *out are set: net, dtype, backend, batch, size, and a head, behind the tap,
 * of 128 numbers of length 1. */
SH_MUST_CHECK sh_status sh_bench_network(sh_bench_options *options, sh_step_config *out);

/** The same with the rest of a step as training runs it: semi-hard triplets at margin 0.2, Adam.
 *  Shards and reduction are left to the caller. */
SH_MUST_CHECK sh_status sh_bench_step_config(sh_bench_options *options, sh_step_config *out);

/** After the step was created: write the kernels that it has into options->kernels, where that file
 *  is not there yet. */
SH_MUST_CHECK sh_status sh_bench_keep_kernels(const sh_bench_options *options,
                                              const sh_backend *backend);

/** Random images, in f32 or bf16, of a description: only time is looked at. */
void sh_bench_images(const sh_tensor_desc *desc, void *out);

typedef struct sh_bench_batch {
    sh_slot_plan *slots;     /* [batch], SH_BENCH_PER_FISH of an individual */
    void *pixels;            /* images of one shard, or on a device a parcel of them, which it */
    const sh_device *device; /* renders, as in training; NULL: pixels are the host's */
} sh_bench_batch;

/** For shards as large as the step's first. The caller clears *out. */
SH_MUST_CHECK sh_status sh_bench_batch_make(const sh_step *step, sh_bench_batch *out);
void sh_bench_batch_clear(sh_bench_batch *batch);

/** sh_step_input with a sh_bench_batch as its context: every shard sees the same images. */
sh_status sh_bench_batch_pixels(void *batch, int shard, sh_input *input);

#endif
