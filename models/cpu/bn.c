// SPDX-License-Identifier: Apache-2.0
/* Batch norm on its own: each slab (image, block of 16 channels) is one thread's. */
#include "models/cpu/kernels.h"

static const char *why_not(const sh_node_desc *d)
{
    int x = d->op == SH_OP_BN_GRAD_REDUCE || d->op == SH_OP_BN_GRAD_APPLY ? 1 : 0;

    if (!sh_cpu_is_blocked(d->in[x])) return "not in blocks of 16 channels";
    if (d->op != SH_OP_BN_STATS && !sh_cpu_norm_has_act(d->attrs->act) &&
        d->attrs->act != SH_ACT_HARD_SWISH)
        return "the activation is neither a clamp nor SiLU or hard swish";
    int y = d->op == SH_OP_BN_GRAD_REDUCE ? 6 : d->op == SH_OP_BN_GRAD_APPLY ? 8 : -1;
    if (y >= 0 && sh_act_needs_input(d->attrs->act) && sh_cpu_in(d, y))
        return "the activation's slope is not a function of its output";
    return NULL;
}

typedef struct slabs {
    int64_t n_images, n_channels, n_blocks, pixels, n;
    size_t bytes; /* of one slab */
    sh_dtype dtype;
    bool is_large; /* all of them */
} slabs;

static slabs slabs_of(const sh_tensor_desc *x)
{
    int64_t blocks = sh_cpu_blocks(x->dims[1]), pixels = x->dims[2] * x->dims[3];

    return (slabs){.n_images = x->dims[0],
                   .n_channels = x->dims[1],
                   .n_blocks = blocks,
                   .pixels = pixels,
                   .n = x->dims[0] * blocks,
                   .bytes = (size_t)pixels * 16 * sh_dtype_size(x->dtype),
                   .dtype = x->dtype,
                   .is_large = sh_cpu_is_large(sh_tensor_bytes(x))};
}

static const void *slab(const void *p, const slabs *s, int64_t i)
{
    return p ? (const char *)p + (size_t)i * s->bytes : NULL;
}

static void *slab_out(void *p, const slabs *s, int64_t i)
{
    return p ? (char *)p + (size_t)i * s->bytes : NULL;
}

/* Sums are taken piece by piece: errors grow with the piece and the number of pieces, not with
 * their product. */
enum { PIECE = 128 };

static const void *piece(const void *slab, const slabs *s, int64_t pixel)
{
    return slab ? (const char *)slab + (size_t)(pixel * 16) * sh_dtype_size(s->dtype) : NULL;
}

static int64_t piece_pixels(const slabs *s, int64_t pixel)
{
    return s->pixels - pixel < PIECE ? s->pixels - pixel : PIECE;
}

static sh_status prepare_stats(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    slabs s = slabs_of(d->in[0]);

    (void)state;
    *scratch_bytes = (size_t)s.n * sizeof(sh_cpu_moments);
    return SH_OK;
}

static sh_status run_stats(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    slabs s = slabs_of(d->in[0]);
    sh_cpu_moments *records = args->scratch;

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s.n; i++) {
        records[i].count = 0;
        for (int64_t p = 0; p < s.pixels; p += PIECE)
            simd->moments(piece(slab(args->in[0], &s, i), &s, p), piece_pixels(&s, p), s.dtype,
                          &records[i]);
    }
    sh_cpu_finish_moments(records, s.n_images, s.n_channels, args->out[0], args->out[1]);
    return SH_OK;
}

static sh_status prepare_norm(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    int x = d->op == SH_OP_BN_APPLY ? 0 : 1;
    slabs s = slabs_of(d->in[x]);

    (void)state;
    *scratch_bytes = sh_cpu_norm_bytes(s.n_channels) + (size_t)s.n * sizeof(sh_cpu_grad_sums);
    return SH_OK;
}

static sh_status run_apply(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    slabs s = slabs_of(d->in[0]);
    const void *residual = sh_cpu_arg(d, args, 5);
    sh_cpu_norm norm = sh_cpu_norm_make(args->scratch, s.n_channels, args->in[1], args->in[2],
                                        args->in[3], args->in[4], d->attrs->eps, d->attrs->act);

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s.n; i++) {
        sh_cpu_affine affine = sh_cpu_norm_block(&norm, i % s.n_blocks);
        simd->bn_apply(slab(args->in[0], &s, i), slab(residual, &s, i),
                       slab_out(args->out[0], &s, i), s.pixels, s.dtype, &affine, s.is_large);
    }
    return SH_OK;
}

static sh_status run_grad_reduce(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    slabs s = slabs_of(d->in[1]);
    const void *y = sh_cpu_arg(d, args, 6);
    sh_cpu_norm norm = sh_cpu_norm_make(args->scratch, s.n_channels, args->in[2], args->in[3],
                                        args->in[4], args->in[5], d->attrs->eps, d->attrs->act);
    sh_cpu_grad_sums *records =
        (sh_cpu_grad_sums *)((char *)args->scratch + sh_cpu_norm_bytes(s.n_channels));

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s.n; i++) {
        sh_cpu_affine affine = sh_cpu_norm_block(&norm, i % s.n_blocks);
        memset(&records[i], 0, sizeof(records[i]));
        for (int64_t p = 0; p < s.pixels; p += PIECE)
            simd->bn_grad_reduce(piece(slab(args->in[0], &s, i), &s, p),
                                 piece(slab(args->in[1], &s, i), &s, p),
                                 piece(slab(y, &s, i), &s, p), piece_pixels(&s, p), s.dtype,
                                 &affine, norm.mean + i % s.n_blocks * 16, &records[i]);
    }
    sh_cpu_finish_sums(records, s.n_images, s.n_channels, args->in[3], d->attrs->eps, args->out[0],
                       args->out[1]);
    return SH_OK;
}

static sh_status run_grad_apply(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    slabs s = slabs_of(d->in[1]);
    const void *y = sh_cpu_arg(d, args, 8);
    void *dresidual = sh_cpu_result(d, args, 1);
    sh_cpu_norm norm = sh_cpu_norm_make(args->scratch, s.n_channels, args->in[2], args->in[3],
                                        args->in[4], args->in[5], d->attrs->eps, d->attrs->act);

    (void)state;
    sh_cpu_norm_make_grad(&norm, s.n_channels, args->in[2], args->in[3], args->in[4], d->attrs->eps,
                          sh_cpu_arg(d, args, 6), sh_cpu_arg(d, args, 7),
                          (double)(s.n_images * s.pixels), d->attrs->frozen);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s.n; i++) {
        sh_cpu_affine affine = sh_cpu_norm_block(&norm, i % s.n_blocks);
        sh_cpu_bn_grad grad = sh_cpu_grad_block(&norm, i % s.n_blocks);
        simd->bn_grad_apply(slab(args->in[0], &s, i), slab(args->in[1], &s, i), slab(y, &s, i),
                            slab_out(args->out[0], &s, i), slab_out(dresidual, &s, i), s.pixels,
                            s.dtype, &affine, &grad, s.is_large);
    }
    return SH_OK;
}

const sh_kernel sh_cpu_bn_stats = {.name = "cpu:bn_stats",
                                   .op = SH_OP_BN_STATS,
                                   .why_not = why_not,
                                   .prepare = prepare_stats,
                                   .run = run_stats};
const sh_kernel sh_cpu_bn_apply = {.name = "cpu:bn_apply",
                                   .op = SH_OP_BN_APPLY,
                                   .why_not = why_not,
                                   .prepare = prepare_norm,
                                   .run = run_apply};
const sh_kernel sh_cpu_bn_grad_reduce = {.name = "cpu:bn_grad_reduce",
                                         .op = SH_OP_BN_GRAD_REDUCE,
                                         .why_not = why_not,
                                         .prepare = prepare_norm,
                                         .run = run_grad_reduce};
const sh_kernel sh_cpu_bn_grad_apply = {.name = "cpu:bn_grad_apply",
                                        .op = SH_OP_BN_GRAD_APPLY,
                                        .why_not = why_not,
                                        .prepare = prepare_norm,
                                        .run = run_grad_apply};
