// SPDX-License-Identifier: Apache-2.0
/* Flattening, and casts between blocked activations and rows: one channel after another. */
#include "models/cpu/kernels.h"

/** Of the two operands of a node, the one in blocks; the other is row-major. */
static const sh_tensor_desc *blocked_of(const sh_node_desc *d)
{
    return d->in[0]->layout == SH_NCHW16C ? d->in[0] : d->out[0];
}

static const char *why_not(const sh_node_desc *d)
{
    const sh_tensor_desc *x = d->in[0], *y = d->out[0];
    bool to_rows = sh_cpu_is_blocked(x) && y->layout == SH_NCHW;
    bool from_rows = sh_cpu_is_blocked(y) && x->layout == SH_NCHW;

    if (!to_rows && !from_rows) return "not between blocks and rows";
    for (int i = 0; i < 2; i++) {
        sh_dtype dtype = i ? y->dtype : x->dtype;
        if (dtype != SH_F32 && dtype != SH_BF16) return "neither f32 nor bf16";
    }
    return NULL;
}

static sh_status run(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_maps *maps = sh_cpu_simd_get()->maps;
    const sh_tensor_desc *map = blocked_of(d);
    sh_dtype from = d->in[0]->dtype, to = d->out[0]->dtype;
    int64_t n_channels = map->dims[1], blocks = sh_cpu_blocks(n_channels);
    int64_t pixels = map->dims[2] * map->dims[3];

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < map->dims[0] * blocks; i++) {
        int64_t c = i % blocks * 16, n = n_channels - c < 16 ? n_channels - c : 16;
        int64_t slab = i * pixels * 16, rows = (i / blocks * n_channels + c) * pixels;
        if (map == d->in[0])
            maps->slab_to_rows((const char *)args->in[0] + (size_t)slab * sh_dtype_size(from), from,
                               pixels, (int)n,
                               (char *)args->out[0] + (size_t)rows * sh_dtype_size(to), to);
        else
            maps->slab_from_rows((const char *)args->in[0] + (size_t)rows * sh_dtype_size(from),
                                 from, pixels, (int)n,
                                 (char *)args->out[0] + (size_t)slab * sh_dtype_size(to), to);
    }
    return SH_OK;
}

#define RELAYOUT(kernel_op, label)                                                                 \
    {                                                                                              \
        .name = "cpu:" label, .op = kernel_op, .why_not = why_not, .run = run                      \
    }
const sh_kernel sh_cpu_flatten = RELAYOUT(SH_OP_FLATTEN, "flatten");
const sh_kernel sh_cpu_flatten_grad = RELAYOUT(SH_OP_FLATTEN_GRAD, "flatten_grad");
const sh_kernel sh_cpu_cast_layout = RELAYOUT(SH_OP_CAST, "cast_layout");
