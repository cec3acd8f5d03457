// SPDX-License-Identifier: Apache-2.0
/*
 * Self-attention from the products of tiles that 1x1 convolutions are made of (simd/pointwise.c).
 *
 * A thread takes one head of one image at a time. Its keys and values are packed as panels once;
 * queries go through in tiles small enough that their scores with all keys stay in the second
 * cache. Nothing of T x T size exists. Scores, softmax and sums are f32; what is multiplied is bf16
 * where the processor multiplies it. The gradient makes the scores again.
 */
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "models/cpu/kernels.h"

enum { MAX_QUERIES = 112, MIN_QUERIES = 28, SCORE_ELEMS = 32 << 10 };

typedef struct plan {
    const sh_cpu_simd *simd;
    int64_t n_heads, n_items, n_tokens, blocks; /* blocks of channels of a head */
    int64_t key_blocks, queries;                /* of a tile */
    float scale;
    sh_dtype dtype, tile;                        /* of tensors, of products */
    size_t rows_at, by_key_at[2], by_channel_at; /* see head_panels; within a thread's scratch */
    size_t scores_at, dp_at, p_at, ds_at, q_at, dy_at, c_at, pairs_at, dk_at, dv_at, dots_at;
    size_t thread_bytes;
} plan;

static const char *why_not(const sh_node_desc *d)
{
    bool is_grad = d->op == SH_OP_ATTENTION_GRAD;
    const sh_tensor_desc *qkv = d->in[is_grad ? 1 : 0], *y = is_grad ? d->in[2] : d->out[0];
    const sh_tensor_desc *lse = is_grad ? d->in[3] : d->out[1];

    if (!sh_cpu_is_blocked(qkv) || !sh_cpu_is_blocked(y)) return "not in blocks of 16 channels";
    if (qkv->dtype != y->dtype) return "mixes dtypes";
    if (is_grad && (d->in[0]->layout != y->layout || d->in[0]->dtype != y->dtype))
        return "mixes dtypes or layouts";
    if (lse->layout != SH_NCHW || lse->dtype != SH_F32) return "sums are not row-major f32";
    if (y->dims[1] / d->attrs->heads % 16 != 0) return "heads do not fill their blocks";
    return NULL;
}

static size_t take(size_t *at, int64_t n, size_t size)
{
    size_t here = *at;

    *at += sh_cpu_align((size_t)n * size);
    return here;
}

static void lay_out(plan *p, bool is_grad)
{
    size_t size = sh_dtype_size(p->tile), at = 0;
    int64_t head = p->blocks * 16 * p->key_blocks * 16, score = p->key_blocks * 16 * p->queries;
    int64_t operand = p->blocks * 16 * p->queries, pairs = (p->key_blocks + p->blocks) * 16;

    p->rows_at = take(&at, p->blocks * 16 * p->n_tokens, sizeof(float));
    p->by_key_at[0] = take(&at, head, size);
    p->by_key_at[1] = take(&at, is_grad ? head : 0, size);
    p->by_channel_at = take(&at, head, size);
    p->scores_at = take(&at, score, sizeof(float));
    p->p_at = take(&at, score, size);
    p->q_at = take(&at, operand, size);
    p->c_at = take(&at, 2 * 16 * p->queries, sizeof(float));
    p->dots_at = take(&at, p->queries, sizeof(float));
    if (is_grad) {
        p->dp_at = take(&at, score, sizeof(float));
        p->ds_at = take(&at, score, size);
        p->dy_at = take(&at, operand, size);
        p->pairs_at = take(&at, pairs * (p->queries + 1), size);
        p->dk_at = take(&at, head, sizeof(float));
        p->dv_at = take(&at, head, sizeof(float));
    }
    p->thread_bytes = at;
}

static sh_status prepare(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    sh_status st = SH_OK;
    bool is_grad = d->op == SH_OP_ATTENTION_GRAD;
    const sh_tensor_desc *y = is_grad ? d->in[2] : d->out[0];
    plan *p = calloc(1, sizeof(*p));

    SH_CHECK(p != NULL, SH_ERR_NO_MEMORY, "attention");
    p->simd = sh_cpu_simd_get();
    p->n_heads = d->attrs->heads;
    p->n_items = y->dims[0] * p->n_heads;
    p->n_tokens = y->dims[2] * y->dims[3];
    p->blocks = y->dims[1] / p->n_heads / 16;
    p->key_blocks = sh_cpu_blocks(p->n_tokens);
    p->queries = SCORE_ELEMS / (p->key_blocks * 16) / MIN_QUERIES * MIN_QUERIES;
    if (p->queries < MIN_QUERIES) p->queries = MIN_QUERIES;
    if (p->queries > MAX_QUERIES) p->queries = MAX_QUERIES;
    p->scale = (float)(1 / sqrt((double)(p->blocks * 16)));
    p->dtype = y->dtype;
    p->tile = p->dtype == SH_BF16 && p->simd->dot_bf16 ? SH_BF16 : SH_F32;
    lay_out(p, is_grad);
    *scratch_bytes = (size_t)sh_cpu_threads() * p->thread_bytes;
    *state = p;
out:
    return st;
}

/* ---- one head ---- */

/* One head of one image: its first slab in each tensor, and the thread's memory. */
typedef struct head {
    const plan *p;
    const char *q, *k, *v, *y, *dy;
    char *out_y, *dq, *dk, *dv;
    const float *lse;
    char *mine;
} head;

static size_t slab_bytes(const plan *p)
{
    return (size_t)(p->n_tokens * 16) * sh_dtype_size(p->dtype);
}

/** Slab of part 0 (q), 1 (k) or 2 (v) of item i in a tensor of 3 C channels; of y with parts = 1.
 */
static char *part_of(const plan *p, const void *base, int64_t i, int parts, int part)
{
    int64_t n = i / p->n_heads, h = i % p->n_heads;
    int64_t slab = ((n * parts + part) * p->n_heads + h) * p->blocks;

    return (char *)base + (size_t)slab * slab_bytes(p);
}

/** Pack the slabs of keys or values: with is_by_key as weights from channels to keys, else from
 *  keys to channels. */
static void pack_head(const head *h, const char *slabs, bool is_by_key, char *panels)
{
    const plan *p = h->p;
    float *rows = (float *)(h->mine + p->rows_at);
    int64_t d = p->blocks * 16, T = p->n_tokens;
    int64_t n_out = is_by_key ? T : d, n_k = is_by_key ? d : T, blocks = sh_cpu_blocks(n_out);

    for (int64_t b = 0; b < p->blocks; b++)
        p->simd->maps->slab_to_rows(slabs + (size_t)b * slab_bytes(p), p->dtype, T, 16,
                                    rows + b * 16 * T, SH_F32);
    for (int64_t b = 0; b < blocks; b += p->simd->panel_blocks(b, blocks))
        p->simd->pack(rows, n_out, n_k, is_by_key ? 1 : T, is_by_key ? T : 1, b, panels, p->tile);
}

/** Pixels [begin, begin + n) of the head's slabs as a tile: itself where it is one. */
static const void *load_tile(const head *h, const char *slabs, int64_t begin, int64_t n, char *to,
                             int64_t *stride)
{
    const plan *p = h->p;
    const sh_cpu_affine as_it_is = {.scale = NULL};
    size_t from = (size_t)(begin * 16) * sh_dtype_size(p->dtype);

    *stride = p->n_tokens * 16;
    if (p->dtype == p->tile) return slabs + from;
    for (int64_t b = 0; b < p->blocks; b++)
        p->simd->tile_load(slabs + (size_t)b * slab_bytes(p) + from, p->dtype, n, &as_it_is,
                           to + (size_t)(b * n * 16) * sh_dtype_size(p->tile), p->tile);
    *stride = n * 16;
    return to;
}

/** c [out blocks][n][16] = tile times all panels, or from block `first` one panel; returns its
 *  blocks. */
static int product(const plan *p, const void *a, int64_t stride, int64_t k_blocks,
                   const char *panels, int64_t first, int64_t out_blocks, int64_t n, float *c)
{
    const sh_cpu_direct to_c = {.y = NULL};
    sh_cpu_ahead nothing = {.lines = 0};
    int blocks = p->simd->panel_blocks(first, out_blocks);
    const char *panel = panels + (size_t)(first * 16 * k_blocks * 16) * sh_dtype_size(p->tile);

    p->simd->tile_product(a, stride, k_blocks * 16, panel, blocks, n, c, &to_c, p->tile, &nothing);
    return blocks;
}

/** Scores of n queries, or the gradient of their softmax: tiles times a head's panels by key. */
static void scores(const head *h, const void *a, int64_t stride, const char *panels, int64_t n,
                   float *to)
{
    const plan *p = h->p;

    for (int64_t b = 0; b < p->key_blocks;)
        b += product(p, a, stride, p->blocks, panels, b, p->key_blocks, n, to + b * n * 16);
}

/** Tile of scores' shape times panels by channel, each pixel times its factor, to slabs. */
static void gather(const head *h, const char *weights, const float *factors, int64_t begin,
                   int64_t n, char *slabs)
{
    const plan *p = h->p;
    float *c = (float *)(h->mine + p->c_at);
    size_t at = (size_t)(begin * 16) * sh_dtype_size(p->dtype);

    for (int64_t b = 0; b < p->blocks;) {
        int blocks = product(p, weights, n * 16, p->key_blocks, h->mine + p->by_channel_at, b,
                             p->blocks, n, c);
        for (int k = 0; k < blocks; k++)
            p->simd->maps->scale_pixels(c + k * n * 16, factors,
                                        slabs + (size_t)(b + k) * slab_bytes(p) + at, n, p->dtype);
        b += blocks;
    }
}

static void forward_head(const head *h, float *lse)
{
    const plan *p = h->p;
    float *s = (float *)(h->mine + p->scores_at), *inverse = (float *)(h->mine + p->dots_at);

    pack_head(h, h->k, true, h->mine + p->by_key_at[0]);
    pack_head(h, h->v, false, h->mine + p->by_channel_at);
    for (int64_t begin = 0; begin < p->n_tokens; begin += p->queries) {
        int64_t n = p->n_tokens - begin < p->queries ? p->n_tokens - begin : p->queries, stride;
        const void *q = load_tile(h, h->q, begin, n, h->mine + p->q_at, &stride);
        scores(h, q, stride, h->mine + p->by_key_at[0], n, s);
        p->simd->maps->softmax(s, n, p->n_tokens, p->scale, h->mine + p->p_at, p->tile, inverse,
                               lse + begin);
        gather(h, h->mine + p->p_at, inverse, begin, n, h->out_y);
    }
}

static sh_status run(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const plan *p = state;

    (void)d;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < p->n_items; i++) {
        const head h = {.p = p,
                        .q = part_of(p, args->in[0], i, 3, 0),
                        .k = part_of(p, args->in[0], i, 3, 1),
                        .v = part_of(p, args->in[0], i, 3, 2),
                        .out_y = part_of(p, args->out[0], i, 1, 0),
                        .mine =
                            (char *)args->scratch + (size_t)omp_get_thread_num() * p->thread_bytes};
        forward_head(&h, (float *)args->out[1] + i * p->n_tokens);
    }
    return SH_OK;
}

/* ---- gradient ---- */

/** Blocks of a tile as outer products want them: themselves, or in pairs of pixels. */
static const void *pair(const plan *p, const void *tile, int64_t n_blocks, int64_t n, char *to,
                        int64_t *stride)
{
    if (p->tile != SH_BF16) return tile;
    for (int64_t b = 0; b < n_blocks; b++)
        p->simd->tile_pair((const uint16_t *)tile + b * *stride, n,
                           (uint16_t *)to + b * ((n + 1) / 2 * 32));
    *stride = (n + 1) / 2 * 32;
    return to;
}

/** sum [blocks][16 key blocks][16] += weights^T operand over the n queries of a tile. */
static void outer(const head *h, const char *weights, const void *operand, int64_t stride,
                  int64_t n, float *sum)
{
    const plan *p = h->p;
    sh_cpu_ahead nothing = {.lines = 0};
    int64_t weights_stride = n * 16;
    char *room = h->mine + p->pairs_at;
    const void *x = pair(p, weights, p->key_blocks, n, room, &weights_stride);
    const void *dy =
        pair(p, operand, p->blocks, n,
             room + (size_t)(p->key_blocks * (n + 1) * 16) * sizeof(uint16_t), &stride);

    p->simd->tile_outer(x, weights_stride, p->key_blocks, dy, stride, p->blocks, n, sum, p->tile,
                        &nothing);
}

static void backward_tile(const head *h, int64_t begin, int64_t n)
{
    const plan *p = h->p;
    const sh_cpu_maps *maps = p->simd->maps;
    float *s = (float *)(h->mine + p->scores_at), *dp = (float *)(h->mine + p->dp_at);
    float *dots = (float *)(h->mine + p->dots_at);
    size_t at = (size_t)(begin * 16) * sh_dtype_size(p->dtype);
    int64_t q_stride, dy_stride;
    const void *q = load_tile(h, h->q, begin, n, h->mine + p->q_at, &q_stride);
    const void *dy = load_tile(h, h->dy, begin, n, h->mine + p->dy_at, &dy_stride);

    maps->pixel_dots(h->dy + at, h->y + at, p->blocks, p->n_tokens * 16, n, p->dtype, dots);
    scores(h, q, q_stride, h->mine + p->by_key_at[0], n, s);
    scores(h, dy, dy_stride, h->mine + p->by_key_at[1], n, dp);
    maps->softmax_grad(s, dp, n, p->n_tokens, p->scale, h->lse + begin, dots, h->mine + p->p_at,
                       h->mine + p->ds_at, p->tile);
    outer(h, h->mine + p->p_at, dy, dy_stride, n, (float *)(h->mine + p->dv_at));
    outer(h, h->mine + p->ds_at, q, q_stride, n, (float *)(h->mine + p->dk_at));
    for (int64_t i = 0; i < n; i++) dots[i] = 1;
    gather(h, h->mine + p->ds_at, dots, begin, n, h->dq);
}

static void backward_head(const head *h)
{
    const plan *p = h->p;
    size_t sums = (size_t)(p->blocks * 16 * p->key_blocks * 16) * sizeof(float);

    pack_head(h, h->k, true, h->mine + p->by_key_at[0]);
    pack_head(h, h->v, true, h->mine + p->by_key_at[1]);
    pack_head(h, h->k, false, h->mine + p->by_channel_at);
    memset(h->mine + p->dk_at, 0, sums);
    memset(h->mine + p->dv_at, 0, sums);
    for (int64_t begin = 0; begin < p->n_tokens; begin += p->queries) {
        int64_t left = p->n_tokens - begin;
        backward_tile(h, begin, left < p->queries ? left : p->queries);
    }
    for (int64_t b = 0; b < p->blocks; b++) {
        size_t from = (size_t)(b * p->key_blocks * 256) * sizeof(float);
        p->simd->cast(h->mine + p->dk_at + from, SH_F32, h->dk + (size_t)b * slab_bytes(p),
                      p->dtype, p->n_tokens * 16);
        p->simd->cast(h->mine + p->dv_at + from, SH_F32, h->dv + (size_t)b * slab_bytes(p),
                      p->dtype, p->n_tokens * 16);
    }
}

static sh_status run_grad(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const plan *p = state;

    (void)d;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < p->n_items; i++) {
        const head h = {.p = p,
                        .q = part_of(p, args->in[1], i, 3, 0),
                        .k = part_of(p, args->in[1], i, 3, 1),
                        .v = part_of(p, args->in[1], i, 3, 2),
                        .dy = part_of(p, args->in[0], i, 1, 0),
                        .y = part_of(p, args->in[2], i, 1, 0),
                        .lse = (const float *)args->in[3] + i * p->n_tokens,
                        .dq = part_of(p, args->out[0], i, 3, 0),
                        .dk = part_of(p, args->out[0], i, 3, 1),
                        .dv = part_of(p, args->out[0], i, 3, 2),
                        .mine =
                            (char *)args->scratch + (size_t)omp_get_thread_num() * p->thread_bytes};
        backward_head(&h);
    }
    return SH_OK;
}

const sh_kernel sh_cpu_attention = {.name = "cpu:attention",
                                    .op = SH_OP_ATTENTION,
                                    .why_not = why_not,
                                    .prepare = prepare,
                                    .run = run,
                                    .release = free};
const sh_kernel sh_cpu_attention_grad = {.name = "cpu:attention_grad",
                                         .op = SH_OP_ATTENTION_GRAD,
                                         .why_not = why_not,
                                         .prepare = prepare,
                                         .run = run_grad,
                                         .release = free};
