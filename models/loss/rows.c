// SPDX-License-Identifier: Apache-2.0
#include <omp.h>

#include "models/loss/internal.h"

static size_t round_up(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static int64_t padded(int64_t n)
{
    return (n + SH_TILE_COLS - 1) / SH_TILE_COLS * SH_TILE_COLS;
}

size_t sh_rows_scratch_bytes(int64_t n_max, int64_t max_positives, size_t visitor_bytes)
{
    return round_up((size_t)(SH_ROWS_BLOCK * padded(n_max)) * sizeof(float)) +
           round_up((size_t)max_positives * sizeof(float)) + round_up(visitor_bytes);
}

/* The row's group within columns [first, last) is blotted out with NaN, which no comparison takes.
 */
static void hide_group(const sh_groups *g, int64_t row, int64_t first, int64_t last, float *d)
{
    for (int64_t at = sh_groups_from(g, row, first); at < g->end[row] && g->order[at] < last; at++)
        d[g->order[at] - first] = NAN;
}

void sh_rows_tile(const sh_loss *loss, int64_t row, int64_t n_rows, int64_t panel, int64_t n_panels,
                  float *out, int64_t stride)
{
    const sh_packed *p = &loss->packed;
    int64_t first = panel * SH_TILE_COLS, last = first + n_panels * SH_TILE_COLS;

    for (int64_t c = 0; c < n_panels; c++)
        for (int64_t r = 0; r < n_rows; r += SH_TILE_ROWS)
            loss->kernels->distances(p, row + r, panel + c, out + r * stride + c * SH_TILE_COLS,
                                     stride);
    for (int64_t r = 0; r < n_rows && row + r < p->n; r++) {
        hide_group(&loss->labels, row + r, first, last, out + r * stride);
        if (!loss->fish_are_labels) hide_group(&loss->fish, row + r, first, last, out + r * stride);
    }
}

void sh_rows_positives(const sh_loss *loss, int64_t i, float *out)
{
    const sh_groups *g = &loss->labels;
    int64_t before = g->place[i] - g->begin[i], after = g->end[i] - g->place[i] - 1;

    loss->kernels->pairs(&loss->packed, i, g->order + g->begin[i], before, out);
    loss->kernels->pairs(&loss->packed, i, g->order + g->place[i] + 1, after, out + before);
}

static void visit_block(const sh_loss *loss, int64_t row, int64_t begin, int64_t end, char *scratch,
                        sh_rows_visitor *visit, void *context)
{
    int64_t stride = loss->packed.n_panels * SH_TILE_COLS;
    float *tile = (float *)scratch;
    float *positives = (float *)(scratch + round_up((size_t)(SH_ROWS_BLOCK * stride) * 4));
    char *rest = (char *)positives + round_up((size_t)loss->max_positives * 4);
    int64_t last = row + SH_ROWS_BLOCK < end ? row + SH_ROWS_BLOCK : end;
    int64_t n_rows = (last - row + SH_TILE_ROWS - 1) / SH_TILE_ROWS * SH_TILE_ROWS;
    sh_distance distance = loss->config.distance;

    sh_rows_tile(loss, row, n_rows, 0, loss->packed.n_panels, tile, stride);
    for (int64_t i = row < begin ? begin : row; i < last; i++) {
        float *d = tile + (i - row) * stride;

        for (int64_t j = 0; j < stride; j++) d[j] = sh_loss_metric(distance, d[j]);
        sh_rows_positives(loss, i, positives);
        for (int64_t q = 0; q < sh_groups_others(&loss->labels, i); q++)
            positives[q] = sh_loss_metric(distance, positives[q]);
        visit(loss, i, d, positives, rest, context);
    }
}

void sh_rows_visit(const sh_loss *loss, int64_t begin, int64_t end, sh_rows_visitor *visit,
                   void *context)
{
    int64_t first = begin / SH_TILE_ROWS * SH_TILE_ROWS;

#pragma omp parallel for schedule(dynamic) num_threads(loss->n_threads)
    for (int64_t row = first; row < end; row += SH_ROWS_BLOCK)
        visit_block(loss, row, begin, end,
                    loss->scratch + (size_t)omp_get_thread_num() * loss->scratch_bytes, visit,
                    context);
}
