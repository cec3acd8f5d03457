// SPDX-License-Identifier: Apache-2.0
/**
 * Choosing one triplet per slot.
 *
 * Semi-hard and batch-hard only compare distances, so they run on squared ones, and need no more of
 * a row at a time than a few panels: a block of anchors keeps, per positive, the nearest negative
 * beyond it so far, lane by lane. Algorithm 1 must count before it can draw: it holds whole rows.
 * What is chosen is measured again from direct differences.
 */
#include <omp.h>

#include "base/rng.h"
#include "models/loss/internal.h"

enum {
    BLOCK = 32, /* anchors: a panel of 48 columns is read from the L3 cache once for all */
    PANELS = 2, /* distances of 32 x 96 and a panel share the L1 cache */
    LEAP = SH_TILE_COLS,
};

typedef struct block_scratch {
    float *tile;        /* [BLOCK, PANELS * SH_TILE_COLS] */
    float *above;       /* [BLOCK, max_positives] */
    sh_lanes *nearest;  /* [BLOCK, slots] */
    sh_lanes *farthest; /* [BLOCK] */
} block_scratch;

static size_t scratch_layout(int64_t slots, int64_t max_positives, char *base, block_scratch *out)
{
    size_t tile = BLOCK * PANELS * SH_TILE_COLS * sizeof(float);
    size_t lanes = (size_t)(BLOCK * slots) * sizeof(sh_lanes);
    size_t farthest = BLOCK * sizeof(sh_lanes);

    if (base != NULL) {
        out->tile = (float *)base;
        out->nearest = (sh_lanes *)(base + tile);
        out->farthest = (sh_lanes *)(base + tile + lanes);
        out->above = (float *)(base + tile + lanes + farthest);
    }
    return tile + lanes + farthest + (size_t)(BLOCK * max_positives) * sizeof(float);
}

size_t sh_mine_scratch_bytes(const sh_loss *loss)
{
    return scratch_layout(loss->slots, loss->max_positives, NULL, NULL);
}

static sh_triplet measured(const sh_loss *loss, int64_t anchor, int32_t positive, int32_t negative)
{
    return (sh_triplet){
        .positive = positive,
        .negative = negative,
        .d_ap = positive < 0 ? 0 : sh_loss_distance(loss, anchor, positive),
        .d_an = negative < 0 ? 0 : sh_loss_distance(loss, anchor, negative),
    };
}

/* TFA: per positive the nearest negative beyond it, else the farthest one; no upper bound. */
static void settle_semi_hard(const sh_loss *loss, int64_t anchor, const float *above,
                             const sh_lanes *nearest, const sh_lanes *farthest, sh_triplet *out)
{
    (void)above;
    for (int64_t q = 0; q < loss->slots; q++) {
        if (q >= sh_groups_others(&loss->labels, anchor)) {
            out[q] = (sh_triplet){-1, -1, SH_NO_TRIPLET, 0};
            continue;
        }
        int32_t negative = sh_lanes_winner(&nearest[q], 1);

        if (negative < 0) negative = sh_lanes_winner(farthest, -1);
        out[q] = measured(loss, anchor, sh_groups_other(&loss->labels, anchor, q), negative);
    }
}

/* TFA: farthest positive, nearest negative. An anchor without positives has its own distance 0
 * there; without negatives, the largest distance of its row, which is that of its positive. */
static void settle_batch_hard(const sh_loss *loss, int64_t anchor, const float *positives,
                              const sh_lanes *nearest, const sh_lanes *farthest, sh_triplet *out)
{
    int64_t n_positives = sh_groups_others(&loss->labels, anchor), hardest = -1;
    int32_t negative = sh_lanes_winner(&nearest[0], 1);

    (void)farthest;
    for (int64_t q = 0; q < n_positives; q++)
        if (hardest < 0 || positives[q] > positives[hardest]) hardest = q;
    int32_t positive = hardest < 0 ? -1 : sh_groups_other(&loss->labels, anchor, hardest);

    *out = measured(loss, anchor, positive, negative);
    if (negative < 0) *out = (sh_triplet){-1, -1, out->d_ap, out->d_ap};
}

typedef void settle_fn(const sh_loss *loss, int64_t anchor, const float *positives,
                       const sh_lanes *nearest, const sh_lanes *farthest, sh_triplet *out);

static void mine_block(const sh_loss *loss, int64_t row, int64_t begin, int64_t end, char *scratch,
                       bool per_positive, settle_fn *settle, sh_triplet *choices)
{
    static const float from_zero = -1; /* below every distance */
    int64_t stride = PANELS * SH_TILE_COLS, max_positives = loss->max_positives;
    int64_t first = row < begin ? begin : row, last = row + BLOCK < end ? row + BLOCK : end;
    int64_t n_rows = (last - row + SH_TILE_ROWS - 1) / SH_TILE_ROWS * SH_TILE_ROWS;
    block_scratch s = {0};

    scratch_layout(loss->slots, max_positives, scratch, &s);
    for (int64_t i = first; i < last; i++) {
        sh_rows_positives(loss, i, s.above + (i - row) * max_positives);
        sh_lanes_reset(&s.farthest[i - row], -INFINITY);
        for (int64_t q = 0; q < loss->slots; q++)
            sh_lanes_reset(&s.nearest[(i - row) * loss->slots + q], INFINITY);
    }
    for (int64_t panel = 0; panel < loss->packed.n_panels; panel += PANELS) {
        int64_t left = loss->packed.n_panels - panel, n_panels = left < PANELS ? left : PANELS;

        sh_rows_tile(loss, row, n_rows, panel, n_panels, s.tile, stride);
        for (int64_t i = first; i < last; i++) {
            int64_t at = i - row;

            loss->kernels->select(s.tile + at * stride, n_panels * SH_TILE_COLS,
                                  (int32_t)(panel * SH_TILE_COLS),
                                  per_positive ? s.above + at * max_positives : &from_zero,
                                  per_positive ? sh_groups_others(&loss->labels, i) : 1,
                                  s.nearest + at * loss->slots, &s.farthest[at]);
        }
    }
    for (int64_t i = first; i < last; i++) {
        int64_t at = i - row;

        settle(loss, i, s.above + at * max_positives, s.nearest + at * loss->slots, &s.farthest[at],
               choices + (i - begin) * loss->slots);
    }
}

static void mine_rows(const sh_loss *loss, int64_t begin, int64_t end, bool per_positive,
                      settle_fn *settle, sh_triplet *choices)
{
#pragma omp parallel for schedule(dynamic) num_threads(loss->n_threads)
    for (int64_t row = begin / SH_TILE_ROWS * SH_TILE_ROWS; row < end; row += BLOCK)
        mine_block(loss, row, begin, end,
                   loss->scratch + (size_t)omp_get_thread_num() * loss->scratch_bytes, per_positive,
                   settle, choices);
}

void sh_mine_semi_hard(const sh_loss *loss, const sh_loss_batch *batch, int64_t begin, int64_t end,
                       void *choices)
{
    (void)batch;
    mine_rows(loss, begin, end, true, settle_semi_hard, choices);
}

void sh_mine_batch_hard(const sh_loss *loss, const sh_loss_batch *batch, int64_t begin, int64_t end,
                        void *choices)
{
    (void)batch;
    mine_rows(loss, begin, end, false, settle_batch_hard, choices);
}

/* ---- Algorithm 1 ---- */

typedef struct draw_context {
    uint64_t step;
    int64_t begin;
    sh_triplet *choices;
} draw_context;

/* Column of violating negative number `wanted`, counted from column 0: by leaps, then steps. */
static int32_t find_violating(const sh_loss *loss, const float *d, float positive, int64_t wanted)
{
    int64_t j = 0;

    for (;; j += LEAP) {
        int64_t n = loss->kernels->count(d + j, LEAP, positive, &loss->rule);

        if (wanted < n) break;
        wanted -= n;
    }
    for (;; j++) {
        float gap = d[j] - positive;

        if (gap > loss->rule.above && gap <= loss->rule.upto && wanted-- == 0) return (int32_t)j;
    }
}

static void draw_row(const sh_loss *loss, int64_t row, const float *d, const float *positives,
                     void *scratch, void *context)
{
    const draw_context *c = context;
    sh_rng_key key = sh_rng_make(loss->config.seed, SH_RNG_MINING, c->step, (uint64_t)row);
    int64_t stride = loss->packed.n_panels * SH_TILE_COLS;
    sh_triplet *out = c->choices + (row - c->begin) * loss->slots;

    (void)scratch;
    for (int64_t q = 0; q < loss->slots; q++) {
        out[q] = (sh_triplet){-1, -1, SH_NO_TRIPLET, 0};
        if (q >= sh_groups_others(&loss->labels, row)) continue;
        int32_t positive = sh_groups_other(&loss->labels, row, q);
        int64_t n = loss->kernels->count(d, stride, positives[q], &loss->rule);

        if (n == 0) continue;
        int64_t drawn = (int64_t)sh_rng_below(key, (uint64_t)positive, (uint64_t)n);

        out[q] = measured(loss, row, positive, find_violating(loss, d, positives[q], drawn));
    }
}

void sh_mine_algorithm1(const sh_loss *loss, const sh_loss_batch *batch, int64_t begin, int64_t end,
                        void *choices)
{
    draw_context context = {.step = batch->step, .begin = begin, .choices = choices};

    sh_rows_visit(loss, begin, end, draw_row, &context);
}

static void count_row(const sh_loss *loss, int64_t row, const float *d, const float *positives,
                      void *scratch, void *context)
{
    int32_t *counts = (int32_t *)context + row * loss->packed.n;
    int64_t stride = loss->packed.n_panels * SH_TILE_COLS;

    (void)scratch;
    for (int64_t q = 0; q < sh_groups_others(&loss->labels, row); q++)
        counts[sh_groups_other(&loss->labels, row, q)] =
            (int32_t)loss->kernels->count(d, stride, positives[q], &loss->rule);
}

void sh_mine_count(const sh_loss *loss, int32_t *counts)
{
    sh_rows_visit(loss, 0, loss->packed.n, count_row, counts);
}
