// SPDX-License-Identifier: Apache-2.0
/* The host's memory as a device: every call is complete when it returns. */
#include <stdlib.h>
#include <string.h>

#include "comm/reducer.h"

enum {
    BLOCK_FLOATS = 4096, /* summed at a time, so that partial sums stay in the nearest cache */
    ALIGN_BYTES = 64,
};

static sh_status alloc(size_t n_bytes, void **memory)
{
    sh_status st = SH_OK;
    size_t n_lines = n_bytes / ALIGN_BYTES + 1;

    *memory = aligned_alloc(ALIGN_BYTES, n_lines * ALIGN_BYTES);
    SH_CHECK(*memory != NULL, SH_ERR_NO_MEMORY, "no memory for the sum over shards, %zu MB",
             n_bytes / 1000000);
out:
    return st;
}

static void release(void *memory)
{
    free(memory);
}

static sh_status copy_in(void *to, const void *host, size_t n_bytes)
{
    memcpy(to, host, n_bytes);
    return SH_OK;
}

static sh_status add(sh_queue queue, float *dst, const float *a, const float *b, int64_t n)
{
    (void)queue;
    sh_tree_add(dst, a, b, n);
    return SH_OK;
}

/* Each sum takes the place of its left operand; the last one goes to `out`. */
static void tree_sum_block(float *out, float *const *inputs, const uint8_t *n_joins, int n_inputs,
                           int64_t at, int64_t n)
{
    float *stack[SH_TREE_DEPTH];
    int depth = 0;

    for (int i = 0; i < n_inputs; i++) {
        stack[depth++] = inputs[i] + at;
        for (int j = 0; j < n_joins[i]; j++) {
            bool last = i == n_inputs - 1 && depth == 2;
            float *left = stack[depth - 2];
            float *sum = last ? out + at : left;

            sh_tree_add_block(sum, left, stack[depth - 1], n);
            depth--;
        }
    }
}

static sh_status tree_sum(sh_queue queue, float *out, float *const *inputs, const uint8_t *n_joins,
                          int n_inputs, int depth, int64_t n)
{
    (void)queue, (void)depth;
#pragma omp parallel for schedule(static) if (n >= 16 * BLOCK_FLOATS)
    for (int64_t at = 0; at < n; at += BLOCK_FLOATS)
        tree_sum_block(out, inputs, n_joins, n_inputs, at,
                       n - at < BLOCK_FLOATS ? n - at : BLOCK_FLOATS);
    return SH_OK;
}

const sh_device sh_device_host = {
    .alloc = alloc, .free = release, .copy_in = copy_in, .add = add, .tree_sum = tree_sum};
