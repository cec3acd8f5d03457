// SPDX-License-Identifier: Apache-2.0
/* Tiles of 1x1 convolutions: which pixels they have, how these come in and out. */
#include "models/cpu/pointwise.h"

typedef sh_cpu_pw_plan plan;
typedef sh_cpu_pw_run run;
typedef sh_cpu_pw_tile tile;

tile sh_cpu_pw_tile_at(const plan *p, int64_t index)
{
    int64_t n = index / p->tiles * p->group, i = index % p->tiles;
    int64_t begin = p->hw * i / p->tiles, end = p->hw * (i + 1) / p->tiles;

    return (tile){.index = index,
                  .n = n,
                  .n_images = p->n_images - n < p->group ? p->n_images - n : p->group,
                  .begin = begin,
                  .pixels = end - begin};
}

char *sh_cpu_pw_pixel(const plan *p, const void *base, int64_t blocks, int64_t n, int64_t block,
                      int64_t pixel)
{
    int64_t element = ((n * blocks + block) * p->hw + pixel) * 16;

    return (char *)base + (size_t)element * sh_dtype_size(p->dtype);
}

char *sh_cpu_pw_x(const plan *p, const void *base, int64_t n, int64_t block, int64_t pixel)
{
    const int *stride = p->conv.attrs->stride;
    int64_t ow = p->conv.y->dims[3], w = p->conv.x->dims[3];

    if (p->strided) pixel = pixel / ow * stride[0] * w + pixel % ow * stride[1];
    int64_t element = ((n * p->in_blocks + block) * p->x_hw + pixel) * 16;
    return (char *)base + (size_t)element * sh_dtype_size(p->dtype);
}

/** Pixels [begin, begin + pixels) of one row or several, gathered where x is strided. */
static const void *gather(const plan *p, const void *base, int64_t n, int64_t block, int64_t begin,
                          int64_t pixels, char *to)
{
    size_t size = 16 * sh_dtype_size(p->dtype);

    if (!p->strided) return sh_cpu_pw_x(p, base, n, block, begin);
    for (int64_t i = 0; i < pixels; i++)
        memcpy(to + (size_t)i * size, sh_cpu_pw_x(p, base, n, block, begin + i), size);
    return to;
}

void sh_cpu_pw_scatter(const plan *p, const char *from, int64_t n, int64_t block, int64_t begin,
                       int64_t pixels, void *dx)
{
    const int *stride = p->conv.attrs->stride;
    int64_t ow = p->conv.y->dims[3], oh = p->conv.y->dims[2];
    int64_t h = p->conv.x->dims[2], w = p->conv.x->dims[3];
    size_t size = 16 * sh_dtype_size(p->dtype);

    for (int64_t i = begin; i < begin + pixels; i++, from += size) {
        int64_t oy = i / ow, ox = i % ow;
        int64_t rows = oy + 1 < oh ? stride[0] : h - oy * stride[0];
        int64_t columns = ox + 1 < ow ? stride[1] : w - ox * stride[1];
        char *to = sh_cpu_pw_x(p, dx, n, block, i);
        for (int64_t r = 0; r < rows; r++)
            memset(to + (size_t)(r * w) * size, 0, (size_t)columns * size);
        memcpy(to, from, size);
    }
}

const void *sh_cpu_pw_load_x(const run *r, const tile *t, char *mine, int64_t *stride)
{
    const plan *p = r->p;
    int64_t pixels = t->n_images * t->pixels;
    size_t size = sh_dtype_size(p->tile);

    if (!r->norms.x.scale && p->dtype == p->tile && t->n_images == 1 && !p->strided) {
        *stride = p->hw * 16;
        return sh_cpu_pw_x(p, r->data.x, t->n, 0, t->begin);
    }
    for (int64_t b = 0; b < p->in_blocks; b++) {
        sh_cpu_affine norm = sh_cpu_norm_block(&r->norms.x, b);
        for (int64_t i = 0; i < t->n_images; i++) {
            const void *x = gather(p, r->data.x, t->n + i, b, t->begin, t->pixels,
                                   mine + p->x_bytes + p->dy_bytes);
            p->simd->tile_load(x, p->dtype, t->pixels, &norm,
                               mine + (size_t)((b * pixels + i * t->pixels) * 16) * size, p->tile);
        }
    }
    *stride = pixels * 16;
    return mine;
}

const void *sh_cpu_pw_load_dy(const run *r, const tile *t, char *to, int64_t *stride)
{
    const plan *p = r->p;
    int64_t pixels = t->n_images * t->pixels;
    size_t size = sh_dtype_size(p->tile);

    if (!p->conv.has_grad && p->dtype == p->tile && t->n_images == 1) {
        *stride = p->hw * 16;
        return sh_cpu_pw_pixel(p, r->data.dy, p->out_blocks, t->n, 0, t->begin);
    }
    for (int64_t b = 0; b < p->out_blocks; b++) {
        sh_cpu_bn_grad grad = {.a = NULL};
        if (p->conv.has_grad) grad = sh_cpu_grad_block(&r->norms.y, b);
        for (int64_t i = 0; i < t->n_images; i++) {
            const char *g = sh_cpu_pw_pixel(p, r->data.dy, p->out_blocks, t->n + i, b, t->begin);
            const char *y = p->conv.has_grad ? sh_cpu_pw_pixel(p, r->data.y, p->out_blocks,
                                                               t->n + i, b, t->begin)
                                             : g;
            p->simd->tile_load_grad(g, y, p->dtype, t->pixels, p->conv.has_grad ? &grad : NULL,
                                    to + (size_t)((b * pixels + i * t->pixels) * 16) * size,
                                    p->tile);
        }
    }
    *stride = pixels * 16;
    return to;
}

/** The tile that follows t in the order of items and tiles; false at the very end. */
static bool next_tile(const plan *p, const tile *t, tile *next)
{
    int64_t i = t->index + 1;

    if (i >= p->tiles * ((p->n_images + p->group - 1) / p->group)) return false;
    *next = sh_cpu_pw_tile_at(p, i);
    return true;
}

/** Pieces of x, or of what has the shape of y; returns their bytes. */
static int64_t add_pieces(const run *r, const tile *t, const void *base, bool is_x,
                          sh_cpu_ahead *ahead)
{
    const plan *p = r->p;
    int64_t blocks = is_x ? p->in_blocks : p->out_blocks, n_bytes = 0;

    for (int64_t b = 0; base && b < blocks; b++) {
        for (int64_t i = 0; i < t->n_images; i++, ahead->n_pieces++) {
            const char *at = is_x ? sh_cpu_pw_x(p, base, t->n + i, b, t->begin)
                                  : sh_cpu_pw_pixel(p, base, blocks, t->n + i, b, t->begin);
            const char *last = is_x ? sh_cpu_pw_x(p, base, t->n + i, b, t->begin + t->pixels - 1)
                                    : at + (t->pixels - 1) * 16 * (int64_t)sh_dtype_size(p->dtype);
            ahead->pieces[ahead->n_pieces].at = at;
            ahead->pieces[ahead->n_pieces].n_bytes =
                last - at + 16 * (int64_t)sh_dtype_size(p->dtype);
            n_bytes += ahead->pieces[ahead->n_pieces].n_bytes + 64;
        }
    }
    return n_bytes;
}

sh_cpu_ahead sh_cpu_pw_look_ahead(const run *r, const tile *t, int64_t n_steps, char *mine)
{
    const plan *p = r->p;
    sh_cpu_ahead ahead = {.pieces = (void *)(mine + p->ahead_at)};
    tile next;

    if (!next_tile(p, t, &next)) return ahead;
    int64_t n_bytes = add_pieces(r, &next, r->data.x, true, &ahead);
    n_bytes += add_pieces(r, &next, r->data.dy, false, &ahead);
    n_bytes += add_pieces(r, &next, r->data.y, false, &ahead);
    n_bytes += add_pieces(r, &next, r->data.residual, false, &ahead);
    ahead.lines = (n_bytes / 64 + n_steps - 1) / n_steps;
    return ahead;
}
