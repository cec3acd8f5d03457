// SPDX-License-Identifier: Apache-2.0
/* Dropout of elements and of whole images: the draws of models/ref, dealt out by slabs or pieces of
 * rows. */
#include "base/rng.h"
#include "models/cpu/kernels.h"

enum { PIECE = 1 << 12 }; /* elements of a row-major image that a thread takes at a time */

static const char *why_not(const sh_node_desc *d)
{
    const sh_tensor_desc *x = d->in[0], *y = d->out[0];

    if (x->layout != y->layout || x->dtype != y->dtype) return "changes dtype or layout";
    if (x->layout == SH_NHWC) return "channels innermost";
    if (x->dtype != SH_F32 && x->dtype != SH_BF16) return "neither f32 nor bf16";
    return NULL;
}

static sh_rng_key key_of(const sh_node_desc *d, const sh_kernel_args *args, int64_t n)
{
    return sh_rng_make(args->scalars->seed + (uint64_t)d->attrs->stream, SH_RNG_DROPOUT,
                       args->scalars->step, (uint64_t)(args->scalars->first_slot + n));
}

static sh_status run_dropout(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_maps *maps = sh_cpu_simd_get()->maps;
    const sh_tensor_desc *x = d->in[0];
    bool is_blocked = x->layout == SH_NCHW16C;
    int64_t pixels = x->dims[2] * x->dims[3], n = sh_tensor_stored_elems(x) / x->dims[0];
    int64_t piece = is_blocked ? pixels * 16 : PIECE, pieces = (n + piece - 1) / piece;
    size_t size = sh_dtype_size(x->dtype);

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x->dims[0] * pieces; i++) {
        int64_t begin = i % pieces * piece, left = n - begin < piece ? n - begin : piece;
        size_t at = (size_t)(i / pieces * n + begin) * size;
        /* A slab of 16 channels and its 16 rows begin with the same draw. */
        maps->dropout((const char *)args->in[0] + at, (char *)args->out[0] + at, left, x->dtype,
                      key_of(d, args, i / pieces), (uint64_t)begin, is_blocked ? 1 : 16,
                      is_blocked ? (uint64_t)pixels : 1, d->attrs->rate);
    }
    return SH_OK;
}

static sh_status run_path_drop(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_maps *maps = sh_cpu_simd_get()->maps;
    const sh_tensor_desc *x = d->in[0];
    int64_t n = sh_tensor_stored_elems(x) / x->dims[0];
    int64_t pieces = (n + PIECE - 1) / PIECE;
    float rate = d->attrs->rate;
    size_t size = sh_dtype_size(x->dtype);

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x->dims[0] * pieces; i++) {
        int64_t begin = i % pieces * PIECE, left = n - begin < PIECE ? n - begin : PIECE;
        size_t at = (size_t)(i / pieces * n + begin) * size;
        bool dropped = sh_rng_uniform(key_of(d, args, i / pieces), 0) < rate;
        if (dropped)
            memset((char *)args->out[0] + at, 0, (size_t)left * size);
        else
            maps->scale_add(1.0f / (1.0f - rate), (const char *)args->in[0] + at, NULL,
                            (char *)args->out[0] + at, left, x->dtype, false);
    }
    return SH_OK;
}

const sh_kernel sh_cpu_dropout = {
    .name = "cpu:dropout", .op = SH_OP_DROPOUT, .why_not = why_not, .run = run_dropout};
const sh_kernel sh_cpu_path_drop = {
    .name = "cpu:path_drop", .op = SH_OP_PATH_DROP, .why_not = why_not, .run = run_path_drop};
