// SPDX-License-Identifier: Apache-2.0
/** Measuring the nodes of a program, for the benches: in their place within a run, and singly with
 *  cold caches; each beside what arithmetic and memory allow. */
#ifndef SH_TRAINER_BENCH_NODES_H
#define SH_TRAINER_BENCH_NODES_H

#include "models/meter.h"
#include "models/program.h"

/** Tensors up to this size are expected in the caches and cost the roofline nothing. */
#define SH_BENCH_CACHED_BYTES 16e6

typedef struct sh_bench_node {
    sh_node_info info;
    double seconds;       /* median within a run */
    double cold_seconds;  /* median of single runs with cold caches */
    double limit_seconds; /* max(operations / peak, bytes / bandwidth) */
} sh_bench_node;

/** Run the whole program n_runs times, then every node singly, n_cold times, in program order; by
 *  the backend's clock. *nodes has sh_program_n_nodes entries; the caller frees.
 *
 *  On a device a node that is shorter than its launch shows the host's pace within a run; singly it
 *  does not, since it is launched while the caches are flushed. */
SH_MUST_CHECK sh_status sh_bench_nodes(sh_program *program, const sh_run_args *args,
                                       const sh_meter *meter, const sh_peaks *peaks, sh_dtype dtype,
                                       int n_runs, int n_cold, sh_bench_node **nodes);

/** The columns that tables of nodes share, without an end of line: op, of, kernel, input, time in
 *  place and cold, share of the limit. */
void sh_bench_print_node_head(void);
void sh_bench_print_node(const sh_bench_node *node);

/** Sum over all convolution passes (forward, gradient of the weights, gradient of the input except
 *  of images) of max(operations / peak, bytes of x and y / bandwidth where above
 *  SH_BENCH_CACHED_BYTES), in seconds: what direct convolutions alone must take. Those that need
 * fewer operations (Winograd's algorithm) can take less. */
double sh_bench_roofline(const sh_program *program, sh_dtype dtype, double flops_per_second,
                         double bytes_per_second);

/** A node as an object in JSON. */
void sh_bench_print_node_json(const sh_bench_node *node);

/** Median; sorts values. n > 0. */
double sh_bench_median(double *values, int n);

#endif
