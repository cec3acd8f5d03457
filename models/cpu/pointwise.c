// SPDX-License-Identifier: Apache-2.0
/*
 * 1x1 convolutions as products of tiles, with batch norm fused on both sides.
 *
 * The work is cut into items (an image, a few small ones, or a part of a large one), an item into
 * tiles of about a hundred pixels whose operands stay in the caches of one core: load (normalise),
 * multiply, store (sum). Nothing but the operands themselves passes through memory. Weight
 * gradients gather in one copy per thread and are added in thread order.
 */
#include "models/cpu/pointwise.h"

#include <omp.h>
#include <stdlib.h>

enum { TILE_PIXELS = 126, MAX_TILE_PIXELS = 160 };

typedef sh_cpu_pw_plan plan;
typedef sh_cpu_pw_run run;
typedef sh_cpu_pw_tile tile;

static const char *why_not(const sh_node_desc *d)
{
    sh_cpu_conv c = sh_cpu_conv_of(d);
    const sh_op_attrs *a = c.attrs;

    if (c.w->dims[2] != 1 || c.w->dims[3] != 1) return "not 1x1";
    bool strided = a->stride[0] > 1 || a->stride[1] > 1;
    if (strided && c.has_sums) return "strided with the previous batch norm's sums";
    if (a->pad[0] || a->pad[1] || a->pad[2] || a->pad[3]) return "padded";
    if (a->groups > 1) return "grouped";
    return sh_cpu_conv_why_not(&c);
}

/* Small images are taken several at a time, as many as leave the threads evenly loaded. */
static int64_t choose_group(int64_t n_images, int64_t hw, int64_t n_threads)
{
    int64_t best = 1, best_cost = INT64_MAX;

    for (int64_t g = 1; g == 1 || (g <= n_images && g * hw <= MAX_TILE_PIXELS); g++) {
        int64_t groups = (n_images + g - 1) / g;
        int64_t cost = (groups + n_threads - 1) / n_threads * g;
        if (cost <= best_cost) best = g, best_cost = cost;
    }
    return best;
}

static void lay_out_work(plan *p)
{
    p->n_threads = sh_cpu_threads();
    p->group = choose_group(p->n_images, p->hw, p->n_threads);
    int64_t groups = (p->n_images + p->group - 1) / p->group;
    p->tiles = p->group > 1 ? 1 : (p->hw + TILE_PIXELS - 1) / TILE_PIXELS;
    p->parts = 1;
    if (groups % p->n_threads != 0 && groups < 8 * p->n_threads) {
        p->parts = 4 * p->n_threads;
        if (p->parts > p->tiles) p->parts = p->tiles;
    }
    p->n_items = groups * p->parts;
    p->max_pixels = p->group > 1 ? p->group * p->hw : (p->hw + p->tiles - 1) / p->tiles + 1;
}

static void lay_out_scratch(plan *p, size_t *scratch_bytes)
{
    const sh_cpu_conv *c = &p->conv;
    size_t element = sh_dtype_size(p->tile), pixels = (size_t)p->max_pixels * 16;
    size_t weights = (size_t)(p->in_blocks * p->out_blocks) * 256;

    p->panels_bytes = c->wants_dx || !c->wants_dw ? weights * element : 0;
    int64_t record_blocks = c->wants_stats ? p->out_blocks : p->in_blocks;
    size_t record = c->wants_stats ? sizeof(sh_cpu_moments) : sizeof(sh_cpu_grad_sums);
    size_t at = 0;

    p->x_bytes = sh_cpu_align((size_t)p->in_blocks * pixels * element);
    p->dy_bytes = sh_cpu_align((size_t)p->out_blocks * pixels * element);
    p->c_bytes = sh_cpu_align(2 * pixels * sizeof(float));
    bool pairs = c->wants_dw && p->tile == SH_BF16;
    p->pairs_bytes = pairs ? (size_t)(p->in_blocks + p->out_blocks) * (pixels + 16) * 2 : 0;
    p->ahead_at = p->x_bytes + p->dy_bytes + p->c_bytes + sh_cpu_align(p->pairs_bytes);
    size_t pieces = (size_t)(p->in_blocks + 2 * p->out_blocks) * (size_t)p->group;
    p->dw_at = p->ahead_at + sh_cpu_align(pieces * sizeof(*((sh_cpu_ahead *)0)->pieces));
    p->thread_bytes = p->dw_at + (c->wants_dw ? weights * sizeof(float) : 0);

    p->bias_at = sh_cpu_take(&at, (size_t)p->out_blocks * 16 * sizeof(float));
    p->norms_at = sh_cpu_take(&at, sh_cpu_conv_norm_bytes(c));
    p->records_at = sh_cpu_take(&at, (size_t)(p->n_items * record_blocks) * record);
    p->threads_at = sh_cpu_take(&at, (size_t)p->n_threads * p->thread_bytes);
    *scratch_bytes = at;
}

static sh_status prepare(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    sh_status st = SH_OK;
    plan *p = calloc(1, sizeof(*p));

    SH_CHECK(p != NULL, SH_ERR_NO_MEMORY, "pointwise convolution");
    p->simd = sh_cpu_simd_get();
    p->conv = sh_cpu_conv_of(d);
    p->n_images = p->conv.x->dims[0];
    p->hw = p->conv.y->dims[2] * p->conv.y->dims[3];
    p->x_hw = p->conv.x->dims[2] * p->conv.x->dims[3];
    p->strided = d->attrs->stride[0] > 1 || d->attrs->stride[1] > 1;
    p->in_blocks = sh_cpu_blocks(p->conv.x->dims[1]);
    p->out_blocks = sh_cpu_blocks(p->conv.y->dims[1]);
    p->dtype = p->conv.x->dtype;
    p->tile = p->dtype == SH_BF16 && p->simd->dot_bf16 ? SH_BF16 : SH_F32;
    bool is_backward = p->conv.wants_dx || p->conv.wants_dw;
    p->stream = sh_cpu_is_large(sh_tensor_bytes(is_backward ? p->conv.x : p->conv.y));
    lay_out_work(p);
    lay_out_scratch(p, scratch_bytes);
    *state = p;
out:
    return st;
}

static size_t packed_bytes(const void *state)
{
    return ((const plan *)state)->panels_bytes;
}

/** Weights as panels: of w for y, of its transpose for dx. */
static sh_status pack(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const plan *p = state;
    const float *w = sh_cpu_conv_locate(d, args).w;
    int64_t n_in = p->conv.x->dims[1], n_out = p->conv.y->dims[1];
    int64_t rows = p->conv.wants_dx ? n_in : n_out, depth = p->conv.wants_dx ? n_out : n_in;
    int64_t row_stride = p->conv.wants_dx ? 1 : n_in, k_stride = p->conv.wants_dx ? n_in : 1;
    int64_t blocks = sh_cpu_blocks(rows), step = p->simd->panel_blocks(0, blocks);

#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; b += step)
        p->simd->pack(w, rows, depth, row_stride, k_stride, b, args->packed, p->tile);
    return SH_OK;
}

/* ---- one run ---- */

static const void *panel_at(const run *r, int64_t block, int64_t k_blocks)
{
    return r->panels + (size_t)(block * 16 * k_blocks * 16) * sh_dtype_size(r->p->tile);
}

/** Whole tiles of one image go from registers to memory; others through scratch. */
static bool stores_directly(const run *r, const tile *t)
{
    return t->n_images == 1 && r->p->dtype == r->p->tile;
}

static sh_cpu_finish finish_at(const run *r, int64_t n, int64_t block, int64_t pixel)
{
    const plan *p = r->p;
    const void *residual = r->data.residual;

    if (residual) residual = sh_cpu_pw_pixel(p, residual, p->out_blocks, n, block, pixel);
    return sh_cpu_conv_finish(&p->conv, r->bias ? r->bias + block * 16 : NULL, residual);
}

static void store_panel(const run *r, const tile *t, const float *c, int64_t first, int n,
                        sh_cpu_moments *moments)
{
    const plan *p = r->p;
    int64_t pixels = t->n_images * t->pixels;

    for (int64_t k = 0, b = first; k < n; k++, b++) {
        for (int64_t i = 0; i < t->n_images; i++) {
            sh_cpu_finish finish = finish_at(r, t->n + i, b, t->begin);
            p->simd->tile_store(
                c + (k * pixels + i * t->pixels) * 16, t->pixels, &finish,
                sh_cpu_pw_pixel(p, r->data.out_y, p->out_blocks, t->n + i, b, t->begin), p->dtype,
                p->stream, moments ? &moments[b] : NULL);
        }
    }
}

static void forward_tile(const run *r, const tile *t, sh_cpu_moments *moments, char *mine)
{
    const plan *p = r->p;
    int64_t stride = 0, pixels = t->n_images * t->pixels;
    const void *x = sh_cpu_pw_load_x(r, t, mine, &stride);
    float *c = (float *)(mine + p->x_bytes + p->dy_bytes);
    sh_cpu_ahead ahead =
        sh_cpu_pw_look_ahead(r, t, p->simd->product_tiles(pixels, p->out_blocks), mine);

    bool is_direct = stores_directly(r, t);
    for (int64_t b = 0; b < p->out_blocks;) {
        int n = p->simd->panel_blocks(b, p->out_blocks);
        const sh_cpu_direct direct = {
            .y = is_direct ? sh_cpu_pw_pixel(p, r->data.out_y, p->out_blocks, t->n, b, t->begin)
                           : NULL,
            .stride = p->hw * 16,
            .stream = p->stream,
            .finish = finish_at(r, t->n, b, t->begin),
            .moments = moments ? &moments[b] : NULL};
        p->simd->tile_product(x, stride, p->conv.x->dims[1], panel_at(r, b, p->in_blocks), n,
                              pixels, c, &direct, p->tile, &ahead);
        if (!is_direct) store_panel(r, t, c, b, n, moments);
        b += n;
    }
}

/** dW of this tile into the thread's copy; x and dy as the products took them. */
static void outer_tile(const run *r, const tile *t, const void *x, int64_t x_stride, const void *dy,
                       int64_t dy_stride, sh_cpu_ahead *ahead, char *mine)
{
    const plan *p = r->p;
    int64_t pixels = t->n_images * t->pixels;
    uint16_t *pairs = (uint16_t *)(mine + p->x_bytes + p->dy_bytes + p->c_bytes);
    float *dw = (float *)(mine + p->dw_at);

    if (p->tile == SH_BF16) {
        int64_t stride = (pixels + 1) / 2 * 32;
        uint16_t *second = pairs + p->in_blocks * stride;
        for (int64_t b = 0; b < p->in_blocks; b++)
            p->simd->tile_pair((const uint16_t *)x + b * x_stride, pixels, pairs + b * stride);
        for (int64_t b = 0; b < p->out_blocks; b++)
            p->simd->tile_pair((const uint16_t *)dy + b * dy_stride, pixels, second + b * stride);
        x = pairs, dy = second, x_stride = dy_stride = stride;
    }
    p->simd->tile_outer(x, x_stride, p->in_blocks, dy, dy_stride, p->out_blocks, pixels, dw,
                        p->tile, ahead);
}

/* The tile of x is done with: its memory holds a strided gradient before it is spread out. */
static void store_grad_panel(const run *r, const tile *t, const float *c, int64_t first, int n,
                             sh_cpu_grad_sums *sums, char *mine)
{
    const plan *p = r->p;
    int64_t pixels = t->n_images * t->pixels;

    for (int64_t k = 0, b = first; k < n; k++, b++) {
        sh_cpu_affine norm = sh_cpu_norm_block(&r->norms.x, b);
        for (int64_t i = 0; i < t->n_images; i++) {
            const float *from = c + (k * pixels + i * t->pixels) * 16;
            char *dx = sh_cpu_pw_x(p, r->data.dx, t->n + i, b, t->begin);
            const char *x = sums ? sh_cpu_pw_x(p, r->data.x, t->n + i, b, t->begin) : NULL;
            p->simd->tile_store_grad(
                from, t->pixels, x, p->strided ? mine : dx, p->dtype, p->stream && !p->strided,
                &norm, sums ? r->norms.x.mean + b * 16 : NULL, sums ? &sums[b] : NULL);
            if (p->strided)
                sh_cpu_pw_scatter(p, mine, t->n + i, b, t->begin, t->pixels, r->data.dx);
        }
    }
}

static void backward_tile(const run *r, const tile *t, sh_cpu_grad_sums *sums, char *mine)
{
    const plan *p = r->p;
    int64_t x_stride = 0, dy_stride = 0, pixels = t->n_images * t->pixels;
    const void *dy = sh_cpu_pw_load_dy(r, t, mine + p->x_bytes, &dy_stride);
    float *c = (float *)(mine + p->x_bytes + p->dy_bytes);
    int64_t n_steps =
        p->conv.wants_dw ? p->simd->outer_tiles(pixels, p->in_blocks, p->out_blocks, p->tile) : 0;
    if (p->conv.wants_dx) n_steps += p->simd->product_tiles(pixels, p->in_blocks);
    sh_cpu_ahead ahead = sh_cpu_pw_look_ahead(r, t, n_steps, mine);

    if (p->conv.wants_dw) {
        const void *x = sh_cpu_pw_load_x(r, t, mine, &x_stride);
        outer_tile(r, t, x, x_stride, dy, dy_stride, &ahead, mine);
    }
    bool is_direct = stores_directly(r, t) && !p->strided;
    for (int64_t b = 0; p->conv.wants_dx && b < p->in_blocks;) {
        int n = p->simd->panel_blocks(b, p->in_blocks);
        const sh_cpu_direct direct = {
            .y = is_direct ? sh_cpu_pw_x(p, r->data.dx, t->n, b, t->begin) : NULL,
            .stride = p->hw * 16,
            .stream = p->stream,
            .finish = sh_cpu_conv_finish(&p->conv, NULL, NULL),
            .sums = sums ? &sums[b] : NULL,
            .x = sums ? sh_cpu_pw_x(p, r->data.x, t->n, b, t->begin) : NULL,
            .norm = sh_cpu_norm_block(&r->norms.x, b),
            .mean = sums ? r->norms.x.mean + b * 16 : NULL};
        p->simd->tile_product(dy, dy_stride, p->conv.y->dims[1], panel_at(r, b, p->out_blocks), n,
                              pixels, c, &direct, p->tile, &ahead);
        if (!is_direct) store_grad_panel(r, t, c, b, n, sums, mine);
        b += n;
    }
}

static void run_item(const run *r, int64_t item, bool forward, char *mine)
{
    const plan *p = r->p;
    int64_t first = p->tiles * (item % p->parts) / p->parts;
    int64_t end = p->tiles * (item % p->parts + 1) / p->parts;
    sh_cpu_moments *moments = NULL;
    sh_cpu_grad_sums *sums = NULL;

    if (forward && p->conv.wants_stats) {
        moments = (sh_cpu_moments *)(r->scratch + p->records_at) + item * p->out_blocks;
        for (int64_t b = 0; b < p->out_blocks; b++) moments[b].count = 0;
    }
    if (!forward && p->conv.has_sums) {
        sums = (sh_cpu_grad_sums *)(r->scratch + p->records_at) + item * p->in_blocks;
        memset(sums, 0, (size_t)p->in_blocks * sizeof(*sums));
    }
    for (int64_t i = first; i < end; i++) {
        tile t = sh_cpu_pw_tile_at(p, item / p->parts * p->tiles + i);
        if (forward)
            forward_tile(r, &t, moments, mine);
        else
            backward_tile(r, &t, sums, mine);
    }
}

static void run_items(const run *r, bool forward)
{
    const plan *p = r->p;

#pragma omp parallel num_threads(p->n_threads)
    {
        char *mine = r->scratch + p->threads_at + (size_t)omp_get_thread_num() * p->thread_bytes;
        if (p->conv.wants_dw) memset(mine + p->dw_at, 0, p->thread_bytes - p->dw_at);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < p->n_items; i++) run_item(r, i, forward, mine);
    }
}

/** Add the threads' copies and turn them round: dw [O][I]. */
static void finish_dw(const run *r)
{
    const plan *p = r->p;
    int64_t n_in = p->conv.x->dims[1], n_out = p->conv.y->dims[1];
    char *first = r->scratch + p->threads_at + p->dw_at;

#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < p->out_blocks * p->in_blocks; b++) {
        float square[16][16];
        memcpy(square, (float *)first + b * 256, sizeof(square));
        for (int t = 1; t < p->n_threads; t++) {
            const float *other = (float *)(first + (size_t)t * p->thread_bytes) + b * 256;
            for (int i = 0; i < 256; i++) square[i / 16][i % 16] += other[i];
        }
        int64_t o0 = b / p->in_blocks * 16, i0 = b % p->in_blocks * 16;
        for (int64_t o = o0; o < o0 + 16 && o < n_out; o++)
            for (int64_t i = i0; i < i0 + 16 && i < n_in; i++)
                r->data.dw[o * n_in + i] = square[i - i0][o - o0];
    }
}

static run start(const sh_node_desc *d, const plan *p, const sh_kernel_args *args)
{
    run r = {.p = p,
             .data = sh_cpu_conv_locate(d, args),
             .scratch = args->scratch,
             .panels = args->packed};

    r.norms = sh_cpu_conv_norms_make(&p->conv, &r.data, r.scratch + p->norms_at);
    r.bias = sh_cpu_conv_pad_bias(&p->conv, r.data.bias, (float *)(r.scratch + p->bias_at));
    return r;
}

static sh_status run_forward(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const plan *p = state;
    run r = start(d, p, args);

    run_items(&r, true);
    if (p->conv.wants_stats)
        sh_cpu_finish_moments((sh_cpu_moments *)(r.scratch + p->records_at), p->n_items,
                              p->conv.y->dims[1], r.data.mean, r.data.var);
    return SH_OK;
}

static sh_status run_backward(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const plan *p = state;
    run r = start(d, p, args);
    int64_t n_in = p->conv.x->dims[1];

    run_items(&r, false);
    if (p->conv.wants_dw) finish_dw(&r);
    if (p->conv.wants_dbias) sh_cpu_conv_sum_dbias(&p->conv, r.data.dy, r.data.dbias);
    if (p->conv.has_sums)
        sh_cpu_finish_sums((sh_cpu_grad_sums *)(r.scratch + p->records_at), p->n_items, n_in,
                           r.data.x_var, p->conv.attrs->eps, r.data.dgamma, r.data.dbeta);
    return SH_OK;
}

/* A linear layer per token is a 1x1 convolution. */
#define POINTWISE(kernel_op, function)                                                             \
    {                                                                                              \
        .name = "cpu:pointwise", .op = kernel_op, .why_not = why_not, .prepare = prepare,          \
        .packed_bytes = packed_bytes, .pack = pack, .run = function, .release = free               \
    }
const sh_kernel sh_cpu_conv_pointwise = POINTWISE(SH_OP_CONV, run_forward);
const sh_kernel sh_cpu_conv_grad_x_pointwise = POINTWISE(SH_OP_CONV_GRAD_X, run_backward);
const sh_kernel sh_cpu_conv_grad_w_pointwise = POINTWISE(SH_OP_CONV_GRAD_W, run_backward);
const sh_kernel sh_cpu_conv_grad_pointwise = POINTWISE(SH_OP_CONV_GRAD, run_backward);
const sh_kernel sh_cpu_linear_pointwise = POINTWISE(SH_OP_LINEAR, run_forward);
const sh_kernel sh_cpu_linear_grad_x_pointwise = POINTWISE(SH_OP_LINEAR_GRAD_X, run_backward);
const sh_kernel sh_cpu_linear_grad_w_pointwise = POINTWISE(SH_OP_LINEAR_GRAD_W, run_backward);
