// SPDX-License-Identifier: Apache-2.0
/*
 * 3x3 convolutions by Winograd's F(2x2, 3x3) (simd/winograd.c): forward, the gradient of the input,
 * which is the same with weights turned round, and the gradient of the weights. A map is cut into
 * tiles of 2x2 results; a thread brings some of them, of all channels, to 16 positions, multiplies
 * position by position, and brings the products back. What it holds between stays in its caches.
 *
 * Gradients of weights are dealt out by channels, so that each is summed by one thread over all
 * tiles, in their order: results do not depend on the number of threads.
 */
#include <omp.h>
#include <stdlib.h>

#include "models/cpu/conv.h"

/* Measured: with fewer tiles at a time weights are fetched too often, with more the products of 256
 * channels leave the second-level cache. */
enum { POSITIONS = 16, TILES = 84 };

typedef struct plan {
    const sh_cpu_simd *simd;
    sh_cpu_conv conv;
    sh_cpu_winograd map;
    int64_t n_images, tiles;       /* tiles of an image */
    int64_t n_in, n_out;           /* channels of what is read and of what is written, */
    int64_t in_blocks, out_blocks; /* or of x and dy */
    int64_t in_part, out_part;     /* gradient of weights: blocks of an item */
    int64_t n_items, n_threads;
    size_t bias_at, threads_at, thread_bytes;
} plan;

/** A 3x3 convolution without stride is cut into whole tiles where the map that is written, or for
 *  the gradient of weights that of dy, fills them. */
static const char *why_not(const sh_node_desc *d)
{
    sh_cpu_conv c = sh_cpu_conv_of(d);
    const sh_op_attrs *a = c.attrs;
    const int64_t *map = c.wants_dx ? c.x->dims : c.y->dims;

    if (c.w->dims[2] != 3 || c.w->dims[3] != 3) return "not 3x3";
    if (a->stride[0] > 1 || a->stride[1] > 1) return "strided";
    if (a->dilation[0] > 1 || a->dilation[1] > 1) return "dilated";
    if (a->groups > 1) return "grouped";
    if (c.has_norm || c.wants_stats) return "fused batch norm";
    if (c.has_residual) return "adds a residual";
    if (c.x->dtype != SH_F32) return "not f32";
    if (c.w->dims[0] < 32 || c.w->dims[1] < 32) return "few channels";
    int64_t in_tiles = (map[2] + 1) / 2 * ((map[3] + 1) / 2) * 4;
    if (2 * in_tiles > 3 * map[2] * map[3]) return "a map of few whole tiles";
    return sh_cpu_conv_why_not(&c);
}

/* ---- preparation ---- */

static int64_t parts_of(int64_t n, int64_t part)
{
    return (n + part - 1) / part;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/** Floats of n tiles at all positions. */
static int64_t tile_floats(int64_t n_tiles, int64_t n_blocks)
{
    return POSITIONS * n_blocks * n_tiles * 16;
}

static void deal_tiles(plan *p)
{
    int64_t all = p->tiles * p->n_images;

    p->n_items = parts_of(parts_of(all, TILES), p->n_threads) * p->n_threads;
    p->thread_bytes = (size_t)tile_floats(parts_of(all, p->n_items), p->in_blocks + p->out_blocks) *
                      sizeof(float);
}

static void deal_channels(plan *p)
{
    int64_t in_parts = smaller(p->n_threads, p->in_blocks);

    p->in_part = parts_of(p->in_blocks, in_parts);
    p->out_part = parts_of(p->out_blocks, smaller(parts_of(p->n_threads, in_parts), p->out_blocks));
    p->n_items = parts_of(p->in_blocks, p->in_part) * parts_of(p->out_blocks, p->out_part);
    p->thread_bytes = (size_t)(tile_floats(TILES, p->in_part + p->out_part) +
                               POSITIONS * p->in_part * p->out_part * 256) *
                      sizeof(float);
}

static sh_status prepare(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    sh_status st = SH_OK;
    plan *p = calloc(1, sizeof(*p));
    size_t at = 0;

    SH_CHECK(p != NULL, SH_ERR_NO_MEMORY, "Winograd convolution");
    p->simd = sh_cpu_simd_get();
    p->conv = sh_cpu_conv_of(d);
    p->n_threads = sh_cpu_threads();
    bool turned = p->conv.wants_dx;
    const sh_tensor_desc *in = turned ? p->conv.y : p->conv.x;
    const sh_tensor_desc *out = turned ? p->conv.x : p->conv.y;
    p->map = (sh_cpu_winograd){.h = in->dims[2],
                               .w = in->dims[3],
                               .oh = out->dims[2],
                               .ow = out->dims[3],
                               .tiles_x = parts_of(out->dims[3], 2),
                               .stream = sh_cpu_is_large(sh_tensor_bytes(out))};
    for (int i = 0; i < 2; i++) p->map.pad[i] = turned ? 2 - d->attrs->pad[i] : d->attrs->pad[i];
    p->n_images = in->dims[0];
    p->tiles = parts_of(p->map.oh, 2) * p->map.tiles_x;
    p->n_in = in->dims[1];
    p->n_out = out->dims[1];
    p->in_blocks = sh_cpu_blocks(p->n_in);
    p->out_blocks = sh_cpu_blocks(p->n_out);
    if (p->conv.wants_dw)
        deal_channels(p);
    else
        deal_tiles(p);
    p->bias_at = sh_cpu_take(&at, (size_t)p->out_blocks * 16 * sizeof(float));
    p->threads_at = sh_cpu_take(&at, (size_t)p->n_threads * p->thread_bytes);
    *scratch_bytes = at;
    *state = p;
out:
    return st;
}

/** Packed weights of one position, in floats. */
static int64_t weight_floats(const plan *p)
{
    return p->in_blocks * p->out_blocks * 256;
}

static size_t packed_bytes(const void *state)
{
    const plan *p = state;

    return p->conv.wants_dw ? 0 : (size_t)(weight_floats(p) * POSITIONS) * sizeof(float);
}

static sh_status pack(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const plan *p = state;
    const float *w = sh_cpu_conv_locate(d, args).w;
    bool turned = p->conv.wants_dx;
    int64_t out_stride = turned ? 9 : p->n_in * 9, k_stride = turned ? p->n_out * 9 : 9;
    int64_t step = p->simd->panel_blocks(0, p->out_blocks);

#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < p->out_blocks; b += step)
        p->simd->winograd_pack(w, p->n_out, p->n_in, out_stride, k_stride, turned, b, args->packed,
                               weight_floats(p));
    return SH_OK;
}

/* ---- tiles in and out ---- */

typedef struct run {
    const plan *p;
    const float *in, *weights, *bias; /* bias: [16 out_blocks], or NULL */
    const float *dy;
    float *out, *dw;
    char *scratch;
} run;

/** Tiles of all images [begin, end). */
typedef struct portion {
    int64_t begin, end;
} portion;

/** Those of a portion that lie in one image. */
typedef struct piece {
    int64_t image, first, n, at; /* at: the first one's place in the portion */
} piece;

static bool next_piece(const plan *p, portion all, piece *t)
{
    int64_t begin = all.begin + t->at + t->n;

    if (begin >= all.end) return false;
    *t = (piece){.image = begin / p->tiles, .first = begin % p->tiles, .at = begin - all.begin};
    t->n = smaller(all.end - begin, p->tiles - t->first);
    return true;
}

static float *slab(const float *base, int64_t image, int64_t n_blocks, int64_t block,
                   int64_t pixels)
{
    return (float *)base + (image * n_blocks + block) * pixels * 16;
}

/** Blocks [first, first + n_blocks) of x, or of the gradient dy, to to[16][n_blocks][tiles][16]. */
static void load(const run *r, portion all, int64_t first, int64_t n_blocks, bool is_grad,
                 float *to)
{
    const plan *p = r->p;
    int64_t n = all.end - all.begin;

    for (int64_t b = 0; b < n_blocks; b++) {
        for (piece t = {0}; next_piece(p, all, &t);) {
            float *at = to + (b * n + t.at) * 16;
            if (is_grad)
                p->simd->winograd_load_grad(
                    &p->map, slab(r->dy, t.image, p->out_blocks, first + b, p->map.oh * p->map.ow),
                    t.first, t.n, at, n_blocks * n * 16);
            else
                p->simd->winograd_load(
                    &p->map, slab(r->in, t.image, p->in_blocks, first + b, p->map.h * p->map.w),
                    t.first, t.n, at, n_blocks * n * 16);
        }
    }
}

static void store(const run *r, portion all, const float *from)
{
    const plan *p = r->p;
    int64_t n = all.end - all.begin;

    for (int64_t b = 0; b < p->out_blocks; b++) {
        const float *bias = r->bias ? r->bias + b * 16 : NULL;
        sh_cpu_finish finish = sh_cpu_conv_finish(&p->conv, bias, NULL);
        for (piece t = {0}; next_piece(p, all, &t);)
            p->simd->winograd_store(&p->map, from + (b * n + t.at) * 16, p->out_blocks * n * 16,
                                    t.first, t.n, &finish,
                                    slab(r->out, t.image, p->out_blocks, b, p->map.oh * p->map.ow));
    }
}

/* ---- forward, and the gradient of the input ---- */

static void multiply(const run *r, int64_t n, const float *in, float *out)
{
    const plan *p = r->p;
    const sh_cpu_direct to_scratch = {.y = NULL};
    sh_cpu_ahead nothing = {.pieces = NULL};

    for (int64_t i = 0; i < POSITIONS; i++) {
        const float *weights = r->weights + i * weight_floats(p);
        for (int64_t b = 0; b < p->out_blocks;) {
            int blocks = p->simd->panel_blocks(b, p->out_blocks);
            p->simd->tile_product(
                in + i * p->in_blocks * n * 16, n * 16, p->n_in, weights + b * p->in_blocks * 256,
                blocks, n, out + (i * p->out_blocks + b) * n * 16, &to_scratch, SH_F32, &nothing);
            b += blocks;
        }
    }
}

static sh_status run_maps(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const plan *p = state;
    sh_cpu_conv_data data = sh_cpu_conv_locate(d, args);
    char *scratch = args->scratch;
    bool turned = p->conv.wants_dx;
    run r = {.p = p,
             .in = turned ? data.dy : data.x,
             .weights = args->packed,
             .bias = sh_cpu_conv_pad_bias(&p->conv, data.bias, (float *)(scratch + p->bias_at)),
             .out = turned ? data.dx : data.out_y};
    int64_t all = p->tiles * p->n_images;

#pragma omp parallel for schedule(static) num_threads(p->n_threads)
    for (int64_t i = 0; i < p->n_items; i++) {
        portion tiles = {all * i / p->n_items, all * (i + 1) / p->n_items};
        int64_t n = tiles.end - tiles.begin;
        float *in =
            (float *)(scratch + p->threads_at + (size_t)omp_get_thread_num() * p->thread_bytes);
        float *out = in + tile_floats(n, p->in_blocks);
        load(&r, tiles, 0, p->in_blocks, false, in);
        multiply(&r, n, in, out);
        store(&r, tiles, out);
    }
    return SH_OK;
}

/* ---- the gradient of the weights ---- */

/** Sums [16][out blocks][16 in_blocks][16] to dw [O][I][3][3]. */
static void unpack(const run *r, const float *sums, int64_t first_in, int64_t in_blocks,
                   int64_t first_out, int64_t out_blocks)
{
    const plan *p = r->p;
    int64_t ins = smaller(in_blocks * 16, p->n_in - first_in * 16);
    int64_t outs = smaller(out_blocks * 16, p->n_out - first_out * 16);

    for (int64_t o = 0; o < outs; o += 16) {
        for (int64_t i = 0; i < ins; i++) {
            float taps[9][16];
            p->simd->winograd_unpack(sums + (o * in_blocks + i) * 16, in_blocks * out_blocks * 256,
                                     taps[0]);
            for (int64_t k = 0; k < 16 && o + k < outs; k++) {
                float *to = r->dw + ((first_out * 16 + o + k) * p->n_in + first_in * 16 + i) * 9;
                for (int j = 0; j < 9; j++) to[j] = taps[j][k];
            }
        }
    }
}

static void sum_weights(const run *r, int64_t item, float *mine)
{
    const plan *p = r->p;
    int64_t in_parts = parts_of(p->in_blocks, p->in_part), all = p->tiles * p->n_images;
    int64_t first_in = item % in_parts * p->in_part, first_out = item / in_parts * p->out_part;
    int64_t in_blocks = smaller(p->in_part, p->in_blocks - first_in);
    int64_t out_blocks = smaller(p->out_part, p->out_blocks - first_out);
    float *x = mine, *dy = x + tile_floats(TILES, p->in_part);
    float *sums = dy + tile_floats(TILES, p->out_part);
    sh_cpu_ahead nothing = {.pieces = NULL};

    memset(sums, 0, (size_t)(POSITIONS * in_blocks * out_blocks * 256) * sizeof(*sums));
    for (int64_t begin = 0; begin < all; begin += TILES) {
        portion tiles = {begin, smaller(begin + TILES, all)};
        int64_t n = tiles.end - begin;
        load(r, tiles, first_in, in_blocks, false, x);
        load(r, tiles, first_out, out_blocks, true, dy);
        for (int64_t i = 0; i < POSITIONS; i++)
            p->simd->tile_outer(x + i * in_blocks * n * 16, n * 16, in_blocks,
                                dy + i * out_blocks * n * 16, n * 16, out_blocks, n,
                                sums + i * in_blocks * out_blocks * 256, SH_F32, &nothing);
    }
    unpack(r, sums, first_in, in_blocks, first_out, out_blocks);
}

static sh_status run_weights(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const plan *p = state;
    sh_cpu_conv_data data = sh_cpu_conv_locate(d, args);
    run r = {.p = p, .in = data.x, .dy = data.dy, .dw = data.dw};
    char *threads = (char *)args->scratch + p->threads_at;

#pragma omp parallel for schedule(static) num_threads(p->n_threads)
    for (int64_t i = 0; i < p->n_items; i++)
        sum_weights(&r, i, (float *)(threads + (size_t)omp_get_thread_num() * p->thread_bytes));
    if (p->conv.wants_dbias) sh_cpu_conv_sum_dbias(&p->conv, data.dy, data.dbias);
    return SH_OK;
}

#define WINOGRAD(kernel_op, function)                                                              \
    {                                                                                              \
        .name = "cpu:winograd", .op = kernel_op, .why_not = why_not, .prepare = prepare,           \
        .packed_bytes = packed_bytes, .pack = pack, .run = function, .release = free               \
    }
const sh_kernel sh_cpu_conv_winograd = WINOGRAD(SH_OP_CONV, run_maps);
const sh_kernel sh_cpu_conv_grad_x_winograd = WINOGRAD(SH_OP_CONV_GRAD_X, run_maps);
const sh_kernel sh_cpu_conv_grad_w_winograd = WINOGRAD(SH_OP_CONV_GRAD_W, run_weights);
