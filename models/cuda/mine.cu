// SPDX-License-Identifier: Apache-2.0
/**
 * Choosing one triplet per slot: models/loss/mine.c on a device.
 *
 * A block has the distances of 64 rows to 64 columns at a time, never more; from them each list (an
 * anchor and one of its positives) keeps the best column so far. Columns are shared out to several
 * blocks, so what they keep are keys, `distance bits << 32 | column`, of which the least wins
 * whoever brings it: the least distance, and of equals the smallest column.
 */
#include <string.h>

#include "base/rng_core.h"
#include "models/cuda/memory.h"
#include "models/cuda/mine.h"

enum { LANES = 16 }; /* of a distance from direct differences */

#define NO_KEY (~(uint64_t)0)

choose_scratch sh_cuda_choose_scratch(carver *c, const sh_loss_config *config, int64_t n,
                                      int64_t dim, int64_t lists)
{
    choose_scratch s;

    s.tiles = sh_cuda_take_tiles(c, config, n, dim, lists);
    s.best = c->take<uint64_t>(SH_MINE_PIECES * (lists + 1) * n);
    s.found = c->take<int32_t>(config->kind == SH_LOSS_ALGORITHM1 ? lists * n : 0);
    return s;
}

/* ---- semi-hard, batch-hard ---- */

__device__ static inline uint64_t key_of(float d2, int64_t column, bool farthest)
{
    uint32_t bits; /* of numbers from zero on these are in the numbers' order */

    memcpy(&bits, &d2, sizeof(bits));
    return (uint64_t)(farthest ? ~bits : bits) << 32 | (uint64_t)column;
}

/** best [pieces, max_lists, n_anchors]: per positive the nearest negative beyond above [max_lists -
 *  1, n_anchors], and the farthest, in the list behind those of the batch; with above NULL the
 *  nearest alone. */
struct best_task {
    const float *above;
    uint64_t *best;
    int64_t n_anchors, max_lists;
    const sh_batch_now *now;

    __device__ int64_t n_lists(const sh_row_tables &rows) const
    {
        return above == nullptr ? 1 : rows.now->most_others + 1;
    }

    __device__ bool has(const sh_row_tables &rows, int64_t row, int64_t list) const
    {
        return above == nullptr || list == rows.now->most_others || list < others_of(rows, row);
    }

    __device__ void look(int64_t at, int64_t list, int64_t column0, const float *d,
                         bool is_first) const
    {
        const bool far = above != nullptr && list == now->most_others;
        const float beyond = far || above == nullptr ? -1 : above[list * n_anchors + at];
        uint64_t *kept = &best[(blockIdx.y * max_lists + list) * n_anchors + at];
        float value = far ? -1 : INFINITY;
        int column = -1;

        for (int c = 0; c < TILE; c++) {
            const bool better = far ? d[c] > value : d[c] > beyond && d[c] < value;

            value = better ? d[c] : value;
            column = better ? c : column;
        }
        const uint64_t key = column < 0 ? NO_KEY : key_of(value, column0 + column, far);
        *kept = is_first || key < *kept ? key : *kept;
    }
};

struct picked {
    int32_t positive, negative;
    bool exists;
};

/** Where settling finds what tiles found. */
struct best_lists {
    const uint64_t *best;
    const float *above;
    int64_t n_anchors, max_lists;
    int n_pieces;

    /** The winning column of a list; -1: none. */
    __device__ int32_t winner(int64_t at, int64_t list) const
    {
        uint64_t least = NO_KEY;

        for (int piece = 0; piece < n_pieces; piece++) {
            const uint64_t key = best[(piece * max_lists + list) * n_anchors + at];
            least = key < least ? key : least;
        }
        return least == NO_KEY ? -1 : (int32_t)(uint32_t)least;
    }
};

/** TensorFlow Addons: per positive the nearest negative beyond it, else the farthest one. */
struct pick_semi_hard {
    static const bool alone = false;
    best_lists lists;

    __device__ picked of(const sh_row_tables &rows, int64_t row, int64_t at, int64_t slot) const
    {
        if (slot >= others_of(rows, row)) return picked{-1, -1, false};
        const int32_t beyond = lists.winner(at, slot);
        return picked{other_of(rows, row, slot),
                      beyond >= 0 ? beyond : lists.winner(at, rows.now->most_others), true};
    }
};

/** TensorFlow Addons: the farthest positive, the nearest negative. */
struct pick_batch_hard {
    static const bool alone = true; /* an anchor without negatives stands at its own distance */
    best_lists lists;

    __device__ picked of(const sh_row_tables &rows, int64_t row, int64_t at, int64_t) const
    {
        const int64_t n_positives = others_of(rows, row);
        int64_t hardest = 0;

        for (int64_t q = 1; q < n_positives; q++)
            if (lists.above[q * lists.n_anchors + at] > lists.above[hardest * lists.n_anchors + at])
                hardest = q;
        return picked{n_positives > 0 ? other_of(rows, row, hardest) : -1, lists.winner(at, 0),
                      true};
    }
};

/* ---- Algorithm 1 ---- */

/** What both passes over the tiles see: the negatives that violate the margin. */
struct violations {
    const float *positives; /* [max_lists, n_anchors] */
    int32_t *counts;        /* [pieces, max_lists, n_anchors] */
    int64_t n_anchors, max_lists;
    float above, upto;
    sh_distance distance;

    __device__ int64_t n_lists(const sh_row_tables &rows) const
    {
        return rows.now->most_others;
    }

    __device__ bool has(const sh_row_tables &rows, int64_t row, int64_t list) const
    {
        return list < others_of(rows, row);
    }

    __device__ bool violates(float d2, float positive) const
    {
        const float gap = metric_of(distance, d2) - positive;
        return gap > above && gap <= upto;
    }

    __device__ int32_t *count(int64_t piece, int64_t list, int64_t at) const
    {
        return &counts[(piece * max_lists + list) * n_anchors + at];
    }
};

struct count_task : violations {
    __device__ void look(int64_t at, int64_t list, int64_t, const float *d, bool is_first) const
    {
        const float positive = positives[list * n_anchors + at];
        int32_t n = 0;

        for (int c = 0; c < TILE; c++) n += violates(d[c], positive);
        *count(blockIdx.y, list, at) = n + (is_first ? 0 : *count(blockIdx.y, list, at));
    }
};

/** counts: how many violating negatives of its piece a list passes over, as draw_violating left it;
 *  below 0: its negative is elsewhere, or found. */
struct find_task : violations {
    int32_t *found; /* [max_lists, n_anchors] */

    __device__ void look(int64_t at, int64_t list, int64_t column0, const float *d, bool) const
    {
        const float positive = positives[list * n_anchors + at];
        int32_t left = *count(blockIdx.y, list, at);

        if (left < 0) return;
        for (int c = 0; c < TILE; c++)
            if (violates(d[c], positive) && left-- == 0)
                found[list * n_anchors + at] = (int32_t)(column0 + c);
        *count(blockIdx.y, list, at) = left;
    }
};

/** From counts per piece: one of all, by a keyed draw, as what to pass over in the piece that has
 *  it. */
__global__ void __launch_bounds__(SH_BLOCK)
    draw_violating(find_task task, sh_row_tables rows, anchors who, int n_pieces, uint64_t seed)
{
    const int64_t item = item_index(), list = item / who.n(), at = item % who.n();
    const int64_t row = who.begin + at;
    int64_t n = 0, drawn = -1;

    if (list >= task.max_lists || !task.has(rows, row, list)) return;
    for (int piece = 0; piece < n_pieces; piece++) n += *task.count(piece, list, at);
    if (n > 0)
        drawn = (int64_t)sh_rng_core_below(
            sh_rng_core_make(seed, SH_RNG_MINING, rows.now->step, (uint64_t)row),
            (uint64_t)other_of(rows, row, list), (uint64_t)n);
    for (int piece = 0; piece < n_pieces; piece++) {
        const int64_t here = *task.count(piece, list, at);

        *task.count(piece, list, at) = drawn >= 0 && drawn < here ? (int32_t)drawn : -1;
        drawn -= here;
    }
    task.found[list * who.n() + at] = -1;
}

struct pick_violating {
    static const bool alone = false;
    const int32_t *found;
    int64_t n_anchors;

    __device__ picked of(const sh_row_tables &rows, int64_t row, int64_t at, int64_t slot) const
    {
        const bool has = slot < others_of(rows, row) && found[slot * n_anchors + at] >= 0;

        if (!has) return picked{-1, -1, false};
        return picked{other_of(rows, row, slot), found[slot * n_anchors + at], true};
    }
};

/* ---- what was chosen, measured ---- */

/** A warp per slot; each half of it has one distance from direct differences, in the host's order
 *  of additions. */
template <class Pick>
__global__ void __launch_bounds__(SH_BLOCK)
    settle(Pick pick, const float *x, int64_t dim, sh_distance distance, sh_row_tables rows,
           anchors who, int64_t slots, sh_triplet *choices)
{
    SH_SHARED(double, shared); /* [SH_BLOCK], then [SH_BLOCK / LANES] */
    double *distances = shared + SH_BLOCK;
    const int lane = (int)threadIdx.x % WARP, half = (int)threadIdx.x / LANES;
    const int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    const int64_t n_items = who.n() * slots, at = (item < n_items ? item : n_items - 1) / slots;
    const int64_t row = who.begin + at;
    const picked p = pick.of(rows, row, at, item % slots);
    const int64_t other = lane < LANES ? p.positive : p.negative;
    double sum = 0;

    for (int64_t k = lane % LANES; k < dim && other >= 0; k += LANES) {
        const float difference = x[row * dim + k] - x[other * dim + k];
        sum += (double)difference * difference;
    }
    shared[threadIdx.x] = sum;
    __syncwarp();
    if (lane % LANES == 0) {
        double d2 = 0;

        for (int l = 0; l < LANES; l++) d2 += shared[half * LANES + l];
        distances[half] = distance == SH_EUCLIDEAN ? sqrt(d2)
                          : distance == SH_SQUARED ? d2
                                                   : d2 / 2;
    }
    __syncwarp();
    if (lane > 0 || item >= n_items) return;
    const float d_ap = (float)distances[half], d_an = (float)distances[half + 1];
    if (!p.exists) {
        choices[item] = sh_triplet{-1, -1, SH_NO_TRIPLET, 0};
    } else if (Pick::alone && p.negative < 0) {
        choices[item] = sh_triplet{-1, -1, d_ap, d_ap};
    } else {
        choices[item] = sh_triplet{p.positive, p.negative, d_ap, d_an};
    }
}

/* ---- choose ---- */

struct choosing {
    const sh_device_batch *batch;
    choose_scratch s;
    const float *x;
    packed_rows p;
    anchors who;
    sh_triplet *choices;
};

template <class Pick> static void launch_settle(const choosing &c, const Pick &pick)
{
    const int64_t n_items = c.who.n() * c.batch->slots;

    SH_LAUNCH(settle<Pick>, dim3((unsigned)pieces_of(n_items, WARPS)), dim3(SH_BLOCK),
              (SH_BLOCK + SH_BLOCK / LANES) * sizeof(double), pick, c.x, c.batch->dim,
              c.batch->config->distance, c.batch->rows, c.who, c.batch->slots, c.choices);
}

static void choose_semi_hard(const choosing &c)
{
    const int64_t n = c.who.n(), max_lists = c.batch->max_others + 1;

    launch_over_tiles(c.p, c.who, pieces_of_columns(c.p.n),
                      best_task{c.s.tiles.positives, c.s.best, n, max_lists, c.batch->rows.now});
    launch_settle(c, pick_semi_hard{best_lists{c.s.best, c.s.tiles.positives, n, max_lists,
                                               (int)pieces_of_columns(c.batch->n)}});
}

static void choose_batch_hard(const choosing &c)
{
    const int64_t n = c.who.n();

    launch_over_tiles(c.p, c.who, pieces_of_columns(c.p.n),
                      best_task{nullptr, c.s.best, n, 1, c.batch->rows.now});
    launch_settle(c, pick_batch_hard{best_lists{c.s.best, c.s.tiles.positives, n, 1,
                                                (int)pieces_of_columns(c.batch->n)}});
}

static void choose_algorithm1(const choosing &c)
{
    const sh_device_batch *b = c.batch;
    const int64_t n = c.who.n(), max_lists = b->max_others;
    const violations all = {c.s.tiles.positives,
                            reinterpret_cast<int32_t *>(c.s.best),
                            n,
                            max_lists,
                            b->rule.above,
                            b->rule.upto,
                            b->config->distance};
    const find_task find = {all, c.s.found};
    const unsigned pieces = pieces_of_columns(b->n);

    if (max_lists > 0) {
        launch_over_tiles(c.p, c.who, pieces, count_task{all});
        SH_LAUNCH(draw_violating, item_grid(n * max_lists), dim3(SH_BLOCK), 0, find, b->rows, c.who,
                  (int)pieces, b->config->seed);
        launch_over_tiles(c.p, c.who, pieces, find);
    }
    launch_settle(c, pick_violating{c.s.found, n});
}

sh_status sh_cuda_choose(const sh_device_batch *batch, int64_t row_begin, int64_t row_end,
                         void *choices)
{
    const sh_loss_config *config = batch->config;
    const anchors who = {row_begin, row_end};
    carver carve = {static_cast<char *>(batch->scratch), 0};
    choosing c = {batch, {}, nullptr, {}, who, static_cast<sh_triplet *>(choices)};

    if (row_begin == row_end || batch->slots == 0) return SH_OK;
    c.s = sh_cuda_choose_scratch(&carve, config, batch->n, batch->dim, batch->max_others);
    c.x = sh_cuda_rows(c.s.tiles.unit, batch);
    c.p = sh_cuda_pack(c.s.tiles, batch, c.x);
    sh_cuda_positives(c.s.tiles, c.p, who, batch->max_others, config->kind != SH_LOSS_ALGORITHM1,
                      config->distance);
    switch (config->kind) {
    case SH_LOSS_SEMI_HARD: choose_semi_hard(c); break;
    case SH_LOSS_BATCH_HARD: choose_batch_hard(c); break;
    default: choose_algorithm1(c); break;
    }
    return sh_cuda_launched("mining");
}
