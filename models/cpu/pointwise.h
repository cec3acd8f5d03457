// SPDX-License-Identifier: Apache-2.0
/* Between pointwise.c, which plans and multiplies, and pointwise_tiles.c, which finds pixels and
 * brings them in and out. */
#ifndef SH_MODELS_CPU_POINTWISE_H
#define SH_MODELS_CPU_POINTWISE_H

#include "models/cpu/conv.h"

/** What a node needs, decided when it is planned. */
typedef struct sh_cpu_pw_plan {
    const sh_cpu_simd *simd;
    sh_cpu_conv conv;
    int64_t n_images, in_blocks, out_blocks;
    int64_t hw, x_hw; /* pixels of an image of y, and of x */
    bool strided;     /* else x has the pixels of y */
    int64_t group;    /* images per item */
    int64_t parts;    /* items per group */
    int64_t tiles;    /* per group */
    int64_t n_items, max_pixels;
    int n_threads;
    sh_dtype dtype, tile; /* of tensors, of products */
    bool stream;
    size_t panels_bytes; /* of packed weights */
    /* scratch */
    size_t bias_at, norms_at, records_at, threads_at, thread_bytes;
    size_t x_bytes, dy_bytes, pairs_bytes, c_bytes, ahead_at, dw_at; /* within a thread's */
} sh_cpu_pw_plan;

/** One run of a node. */
typedef struct sh_cpu_pw_run {
    const sh_cpu_pw_plan *p;
    sh_cpu_conv_data data;
    sh_cpu_conv_norms norms;
    const float *bias; /* [16 out_blocks], or NULL */
    const char *panels;
    char *scratch;
} sh_cpu_pw_run;

/** Pixels of one tile: images [n, n + n_images), pixels [begin, begin + pixels) of each. */
typedef struct sh_cpu_pw_tile {
    int64_t index;                      /* among the tiles of all images */
    int64_t n, n_images, begin, pixels; /* pixels of one image */
} sh_cpu_pw_tile;

sh_cpu_pw_tile sh_cpu_pw_tile_at(const sh_cpu_pw_plan *p, int64_t index);

/** Pixel of a tensor with y's pixels and so many blocks. */
char *sh_cpu_pw_pixel(const sh_cpu_pw_plan *p, const void *base, int64_t blocks, int64_t n,
                      int64_t block, int64_t pixel);

/** Where x, or dx, has what pixel `pixel` of y is made of. */
char *sh_cpu_pw_x(const sh_cpu_pw_plan *p, const void *base, int64_t n, int64_t block,
                  int64_t pixel);

/** Pixels [begin, begin + pixels) of y's to dx, each with the zeros of the pixels that it skips, to
 *  the right and below. For strided convolutions. */
void sh_cpu_pw_scatter(const sh_cpu_pw_plan *p, const char *from, int64_t n, int64_t block,
                       int64_t begin, int64_t pixels, void *dx);

/** The tile of x in products' form: itself where it already has it, else brought to where the
 *  thread's memory begins; gathers by way of the products' memory. Gives the block stride. */
const void *sh_cpu_pw_load_x(const sh_cpu_pw_run *r, const sh_cpu_pw_tile *t, char *mine,
                             int64_t *stride);

/** The same for dy, by way of `to`. */
const void *sh_cpu_pw_load_dy(const sh_cpu_pw_run *r, const sh_cpu_pw_tile *t, char *to,
                              int64_t *stride);

/** List what the tile after t reads, to be fetched in n_steps turns. */
sh_cpu_ahead sh_cpu_pw_look_ahead(const sh_cpu_pw_run *r, const sh_cpu_pw_tile *t, int64_t n_steps,
                                  char *mine);

#endif
