// SPDX-License-Identifier: Apache-2.0
/* Squeeze and excitation of what a batch norm gives: each slab (image, block of 16 channels) is one
 * thread's. */
#include "models/cpu/kernels.h"

/** The operand that the batch norm is of; its four vectors begin at first_vector. */
typedef struct place {
    int x, first_vector;
} place;

static place place_of(sh_op op)
{
    switch (op) {
    case SH_OP_SE_SQUEEZE: return (place){0, 1};
    case SH_OP_SE_EXCITE: return (place){0, 2};
    default: return (place){1, 2};
    }
}

static const char *why_not(const sh_node_desc *d)
{
    const sh_tensor_desc *x = d->in[place_of(d->op).x], *y = d->out[0];
    bool is_grad = d->op == SH_OP_SE_FACTOR_GRAD || d->op == SH_OP_SE_GRAD;

    if (!sh_cpu_is_blocked(x)) return "not in blocks of 16 channels";
    if (is_grad && (d->in[0]->layout != x->layout || d->in[0]->dtype != x->dtype))
        return "mixes dtypes or layouts";
    bool is_map = d->op == SH_OP_SE_EXCITE || d->op == SH_OP_SE_GRAD;
    if (is_map && (y->layout != x->layout || y->dtype != x->dtype))
        return "changes dtype or layout";
    if (!sh_cpu_norm_has_act(d->attrs->act)) return "the activation is neither a clamp nor SiLU";
    return NULL;
}

static sh_status prepare(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    const sh_tensor_desc *x = d->in[place_of(d->op).x];
    size_t n_slabs = (size_t)(x->dims[0] * sh_cpu_blocks(x->dims[1]));

    (void)state;
    *scratch_bytes = sh_cpu_norm_bytes(x->dims[1]);
    if (d->op == SH_OP_SE_GRAD) *scratch_bytes += n_slabs * sizeof(sh_cpu_grad_sums);
    return SH_OK;
}

/** A run, and slab i of it. */
typedef struct run_of {
    const sh_tensor_desc *x;
    sh_cpu_norm norm;
    int64_t blocks, pixels;
    bool stream;
} run_of;

typedef struct slab {
    size_t at;                        /* bytes, within maps */
    int64_t block, first, n_channels; /* first: element of [N,C,1,1] */
    sh_cpu_affine affine;
} slab;

static run_of start(const sh_node_desc *d, const sh_kernel_args *args)
{
    place at = place_of(d->op);
    const sh_tensor_desc *x = d->in[at.x];
    const void *const *vectors = args->in + at.first_vector;

    return (run_of){.x = x,
                    .norm = sh_cpu_norm_make(args->scratch, x->dims[1], vectors[0], vectors[1],
                                             vectors[2], vectors[3], d->attrs->eps, d->attrs->act),
                    .blocks = sh_cpu_blocks(x->dims[1]),
                    .pixels = x->dims[2] * x->dims[3],
                    .stream = args->in[0] != args->out[0] && sh_cpu_is_large(sh_tensor_bytes(x))};
}

static slab slab_of(const run_of *r, int64_t i)
{
    int64_t block = i % r->blocks, channels = r->x->dims[1], left = channels - block * 16;

    return (slab){.at = (size_t)(i * r->pixels * 16) * sh_dtype_size(r->x->dtype),
                  .block = block,
                  .first = i / r->blocks * channels + block * 16,
                  .n_channels = left < 16 ? left : 16,
                  .affine = sh_cpu_norm_block(&r->norm, block)};
}

/** A slab's channels of [N,C,1,1], zero beyond them. */
static void load_vector(const slab *s, const sh_tensor_desc *d, const void *from, float to[16])
{
    memset(to, 0, 16 * sizeof(*to));
    sh_cpu_simd_get()->cast((const char *)from + (size_t)s->first * sh_dtype_size(d->dtype),
                            d->dtype, to, SH_F32, s->n_channels);
}

static void store_vector(const slab *s, const sh_tensor_desc *d, const float from[16], void *to)
{
    sh_cpu_simd_get()->cast(from, SH_F32, (char *)to + (size_t)s->first * sh_dtype_size(d->dtype),
                            d->dtype, s->n_channels);
}

static sh_status run_squeeze(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const run_of r = start(d, args);

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < r.x->dims[0] * r.blocks; i++) {
        slab s = slab_of(&r, i);
        float sum[16];
        sh_cpu_simd_get()->se_squeeze((const char *)args->in[0] + s.at, r.pixels, r.x->dtype,
                                      &s.affine, sum);
        for (int k = 0; k < 16; k++) sum[k] /= (float)r.pixels;
        store_vector(&s, d->out[0], sum, args->out[0]);
    }
    return SH_OK;
}

static sh_status run_excite(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const run_of r = start(d, args);

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < r.x->dims[0] * r.blocks; i++) {
        slab s = slab_of(&r, i);
        float factor[16];
        load_vector(&s, d->in[1], args->in[1], factor);
        sh_cpu_simd_get()->se_excite((const char *)args->in[0] + s.at, factor,
                                     (char *)args->out[0] + s.at, r.pixels, r.x->dtype, &s.affine,
                                     r.stream);
    }
    return SH_OK;
}

static sh_status run_factor_grad(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const run_of r = start(d, args);

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < r.x->dims[0] * r.blocks; i++) {
        slab s = slab_of(&r, i);
        float sum[16];
        sh_cpu_simd_get()->se_factor_grad((const char *)args->in[0] + s.at,
                                          (const char *)args->in[1] + s.at, r.pixels, r.x->dtype,
                                          &s.affine, sum);
        store_vector(&s, d->out[0], sum, args->out[0]);
    }
    return SH_OK;
}

static sh_status run_grad(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const run_of r = start(d, args);
    int64_t n_channels = r.x->dims[1];
    sh_cpu_grad_sums *records =
        (sh_cpu_grad_sums *)((char *)args->scratch + sh_cpu_norm_bytes(n_channels));

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < r.x->dims[0] * r.blocks; i++) {
        slab s = slab_of(&r, i);
        float factor[16], share[16];
        load_vector(&s, d->in[6], args->in[6], factor);
        load_vector(&s, d->in[7], args->in[7], share);
        for (int k = 0; k < 16; k++) share[k] /= (float)r.pixels;
        sh_cpu_simd_get()->se_grad((const char *)args->in[0] + s.at,
                                   (const char *)args->in[1] + s.at, factor, share,
                                   (char *)args->out[0] + s.at, r.pixels, r.x->dtype, &s.affine,
                                   r.norm.mean + s.block * 16, r.stream, &records[i]);
    }
    sh_cpu_finish_sums(records, r.x->dims[0], n_channels, args->in[3], d->attrs->eps, args->out[1],
                       args->out[2]);
    return SH_OK;
}

#define EXCITE(kernel_op, label, function)                                                         \
    {                                                                                              \
        .name = "cpu:" label, .op = kernel_op, .why_not = why_not, .prepare = prepare,             \
        .run = function                                                                            \
    }
const sh_kernel sh_cpu_se_squeeze = EXCITE(SH_OP_SE_SQUEEZE, "se_squeeze", run_squeeze);
const sh_kernel sh_cpu_se_excite = EXCITE(SH_OP_SE_EXCITE, "se_excite", run_excite);
const sh_kernel sh_cpu_se_factor_grad =
    EXCITE(SH_OP_SE_FACTOR_GRAD, "se_factor_grad", run_factor_grad);
const sh_kernel sh_cpu_se_grad = EXCITE(SH_OP_SE_GRAD, "se_grad", run_grad);
