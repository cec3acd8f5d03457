// SPDX-License-Identifier: Apache-2.0
/**
 * Loss and gradient of mined triplets: models/loss/triplets.c on a device.
 *
 * A row's gradient adds the terms of its own slots, of the slots that have it as positive, and of
 * those that have it as negative, each by ascending slot. The first two are found through the rows
 * of its label; the last are sorted by their negative, stably: a block ranks the slots of its tile
 * among themselves and counts them per negative, counts are added up over tiles and rows, and every
 * slot knows its place. Nothing depends on who comes first, and the cost not on how many slots have
 * one negative.
 */
#include "models/cuda/memory.h"
#include "models/cuda/mine.h"

struct apply_scratch {
    unit_scratch unit;
    row_sums sums;
    float *weights[2]; /* [n, slots] of d(a, p) and of d(a, n) */
    int32_t *rank;     /* [n, slots] among the slots of its tile with the same negative */
    int32_t *table;    /* [tiles of SH_SORT_TILE slots, n] */
    int32_t *list_at;  /* [n + 1] where each row's list begins */
    int32_t *list;     /* [n, slots] slots by their negative */
};

static apply_scratch take_apply(carver *c, const sh_loss_config *config, int64_t n, int64_t dim,
                                int64_t slots)
{
    apply_scratch s;

    s.unit = take_unit(c, config, n, dim);
    for (int side = 0; side < 2; side++) s.weights[side] = c->take<float>(n * slots);
    s.sums = take_row_sums(c, n);
    s.rank = c->take<int32_t>(n * slots);
    s.table = c->take<int32_t>(pieces_of(n * slots, SH_SORT_TILE) * n);
    s.list_at = c->take<int32_t>(n + 1);
    s.list = c->take<int32_t>(n * slots);
    return s;
}

/* ---- what each row costs ---- */

struct costing {
    float margin;
    bool soft;
    sh_distance distance;
    int64_t slots;
};

/** One anchor's slots: their weights, and what they add up to. */
__device__ static inline void cost_of_row(const costing &c, const apply_scratch &s,
                                          const sh_triplet *choices, int64_t row)
{
    double sum = 0;
    int32_t n_triplets = 0, n_active = 0;

    for (int64_t slot = row * c.slots; slot < (row + 1) * c.slots; slot++) {
        const sh_triplet t = choices[slot];
        const double gap = (double)t.d_ap - t.d_an, violation = gap + c.margin;

        s.weights[0][slot] = s.weights[1][slot] = 0;
        if (t.d_ap == SH_NO_TRIPLET) continue;
        /* Written so that a NaN is passed on rather than taken as no violation. */
        const double cost = c.soft ? softplus(gap) : violation <= 0 ? 0 : violation;
        const double slope = c.soft ? logistic(gap) : violation <= 0 ? 0 : 1;
        const bool formed = t.positive >= 0 && t.negative >= 0;

        sum += cost;
        n_triplets += formed;
        n_active += formed && cost > 0;
        if (t.positive >= 0) s.weights[0][slot] = (float)(slope * slope_of(c.distance, t.d_ap));
        if (t.negative >= 0) s.weights[1][slot] = (float)(-slope * slope_of(c.distance, t.d_an));
    }
    s.sums.loss[row] = sum;
    s.sums.triplets[row] = n_triplets;
    s.sums.active[row] = n_active;
}

/** A warp per row: is its embedding finite, and what does it cost? */
__global__ void __launch_bounds__(SH_BLOCK)
    cost_rows(costing c, apply_scratch s, const sh_triplet *choices, const float *embeddings,
              sh_row_tables rows, int64_t n, int64_t dim)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    const float fault = row_fault(embeddings, row, n, dim);

    if (threadIdx.x % WARP != 0 || row >= n) return;
    cost_of_row(c, s, choices, row);
    s.sums.pairs[row] = (int32_t)others_of(rows, row);
    if (!(fault == 0)) s.sums.loss[row] = NAN;
}

/* ---- slots by their negative ---- */

/** Ranks within a tile of slots, and how many of them each row has: into a table of zeros. */
__global__ void __launch_bounds__(SH_BLOCK)
    rank_slots(apply_scratch s, const sh_triplet *choices, int64_t n, int64_t n_slots)
{
    SH_SHARED(int32_t, negatives); /* [SH_SORT_TILE] */
    const int64_t first = (int64_t)blockIdx.x * SH_SORT_TILE;

    for (int i = (int)threadIdx.x; i < SH_SORT_TILE; i += SH_BLOCK) {
        const int64_t slot = first + i;
        negatives[i] = slot < n_slots && s.weights[1][slot] != 0 ? choices[slot].negative : -1;
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < SH_SORT_TILE; i += SH_BLOCK) {
        int32_t before = 0, all = 0;

        if (negatives[i] < 0) continue;
        for (int j = 0; j < SH_SORT_TILE; j++) {
            const bool same = negatives[j] == negatives[i];
            before += same && j < i;
            all += same;
        }
        s.rank[first + i] = before;
        if (before == 0) s.table[blockIdx.x * n + negatives[i]] = all;
    }
}

__global__ void __launch_bounds__(SH_BLOCK) clear_table(int32_t *table, int64_t n)
{
    const int64_t i = item_index();

    if (i < n) table[i] = 0;
}

/** Counts per tile become those of the tiles before; list_at [n]: of all tiles. */
__global__ void __launch_bounds__(SH_BLOCK)
    sum_tiles(int32_t *table, int32_t *list_at, int64_t n, int64_t n_tiles)
{
    const int64_t row = item_index();
    int32_t sum = 0;

    if (row >= n) return;
    for (int64_t tile = 0; tile < n_tiles; tile++) {
        const int32_t here = table[tile * n + row];
        table[tile * n + row] = sum;
        sum += here;
    }
    list_at[row] = sum;
}

/** One block: lengths of lists become where they begin; list_at [n] the end of the last. */
__global__ void __launch_bounds__(SH_BLOCK) begin_lists(int32_t *list_at, int64_t n)
{
    SH_SHARED(int32_t, shared); /* [SH_BLOCK] sums over runs of rows */
    const int64_t each = (n + SH_BLOCK - 1) / SH_BLOCK, first = threadIdx.x * each;
    int32_t sum = 0, before = 0;

    for (int64_t row = first; row < n && row < first + each; row++) sum += list_at[row];
    shared[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned i = 0; i < threadIdx.x; i++) before += shared[i];
    for (int64_t row = first; row < n && row < first + each; row++) {
        const int32_t here = list_at[row];
        list_at[row] = before;
        before += here;
    }
    if (threadIdx.x == SH_BLOCK - 1) list_at[n] = before;
}

__global__ void __launch_bounds__(SH_BLOCK)
    place_slots(apply_scratch s, const sh_triplet *choices, int64_t n, int64_t n_slots)
{
    const int64_t slot = item_index();

    if (slot >= n_slots || s.weights[1][slot] == 0) return;
    const int32_t row = choices[slot].negative;
    s.list[s.list_at[row] + s.table[slot / SH_SORT_TILE * n + row] + s.rank[slot]] = (int32_t)slot;
}

static void sort_slots(const apply_scratch &s, const sh_triplet *choices, int64_t n,
                       int64_t n_slots)
{
    const int64_t n_tiles = pieces_of(n_slots, SH_SORT_TILE);

    if (n_slots > 0) {
        SH_LAUNCH(clear_table, item_grid(n_tiles * n), dim3(SH_BLOCK), 0, s.table, n_tiles * n);
        SH_LAUNCH(rank_slots, dim3((unsigned)n_tiles), dim3(SH_BLOCK),
                  SH_SORT_TILE * sizeof(int32_t), s, choices, n, n_slots);
    }
    SH_LAUNCH(sum_tiles, item_grid(n), dim3(SH_BLOCK), 0, s.table, s.list_at, n, n_tiles);
    SH_LAUNCH(begin_lists, dim3(1), dim3(SH_BLOCK), SH_BLOCK * sizeof(int32_t), s.list_at, n);
    if (n_slots > 0)
        SH_LAUNCH(place_slots, item_grid(n_slots), dim3(SH_BLOCK), 0, s, choices, n, n_slots);
}

/* ---- the gradient ---- */

struct gradients {
    const float *x; /* [n, dim] embeddings, or rows of length 1 */
    int64_t dim, slots, row_begin;
    const sh_triplet *choices;
    sh_row_tables rows;
    float *grad;
};

/** Dimension k of a row's gradient, before it is scaled. */
__device__ static inline float gather_terms(const gradients &g, const apply_scratch &s, int64_t row,
                                            int64_t k)
{
    const float own = g.x[row * g.dim + k];
    const int64_t n_others = others_of(g.rows, row);
    float sum = 0;

    for (int64_t slot = row * g.slots; slot < (row + 1) * g.slots; slot++) {
        const float near = s.weights[0][slot], far = s.weights[1][slot];
        if (near != 0) sum += near * (own - g.x[g.choices[slot].positive * g.dim + k]);
        if (far != 0) sum += far * (own - g.x[g.choices[slot].negative * g.dim + k]);
    }
    for (int64_t q = 0; q < n_others; q++) {
        const int64_t anchor = other_of(g.rows, row, q);
        const int64_t slot = anchor * g.slots + (g.slots > 1 ? slot_of(g.rows, anchor, row) : 0);
        const float weight = s.weights[0][slot];
        if (weight != 0 && g.choices[slot].positive == row)
            sum += weight * (own - g.x[anchor * g.dim + k]);
    }
    for (int32_t at = s.list_at[row]; at < s.list_at[row + 1]; at++) {
        const int64_t slot = s.list[at], anchor = slot / g.slots;
        sum += s.weights[1][slot] * (own - g.x[anchor * g.dim + k]);
    }
    return sum;
}

/** A block per row. */
__global__ void __launch_bounds__(ROW_THREADS) gradient_rows(gradients g, apply_scratch s)
{
    const int64_t row = g.row_begin + blockIdx.x;

    for (int64_t k = threadIdx.x; k < g.dim; k += ROW_THREADS)
        g.grad[blockIdx.x * g.dim + k] = gather_terms(g, s, row, k);
}

static divisor divisor_of(const sh_loss_config *config)
{
    switch (config->kind) {
    case SH_LOSS_SEMI_HARD: return OVER_PAIRS; /* TFA's losses fix their own */
    case SH_LOSS_BATCH_HARD: return OVER_ROWS;
    default: return divisor_of(config->reduction);
    }
}

static sh_status apply(const sh_device_batch *batch, const void *all, int64_t row_begin,
                       int64_t row_end, sh_loss_stats *stats, float *grad)
{
    const sh_loss_config *config = batch->config;
    const sh_triplet *choices = static_cast<const sh_triplet *>(all);
    const int64_t n = batch->n, slots = batch->slots, n_own = row_end - row_begin;
    const costing cost = {config->margin, config->soft, config->distance, slots};
    carver carve = {static_cast<char *>(batch->scratch), 0};
    const apply_scratch s = take_apply(&carve, config, n, batch->dim, slots);

    SH_LAUNCH(cost_rows, dim3((unsigned)pieces_of(n, WARPS)), dim3(SH_BLOCK), 0, cost, s, choices,
              batch->embeddings, batch->rows, n, batch->dim);
    sh_cuda_sum_rows(s.sums, n, divisor_of(config), stats);
    if (grad != nullptr && n_own > 0) {
        const float *x = sh_cuda_rows(s.unit, batch);
        const gradients g = {x, batch->dim, slots, row_begin, choices, batch->rows, grad};

        sort_slots(s, choices, n, n * slots);
        SH_LAUNCH(gradient_rows, dim3((unsigned)n_own), dim3(ROW_THREADS), 0, g, s);
        sh_cuda_finish_gradient(batch, s.unit, row_begin, n_own, s.sums.scale, grad);
    }
    return sh_cuda_launched("triplets");
}

static size_t scratch_bytes(const sh_loss_config *config, int64_t n, int64_t dim, int64_t slots,
                            int64_t max_others)
{
    carver choosing = {nullptr, 0}, applying = {nullptr, 0};

    sh_cuda_choose_scratch(&choosing, config, n, dim, max_others);
    take_apply(&applying, config, n, dim, slots);
    return choosing.n_bytes > applying.n_bytes ? choosing.n_bytes : applying.n_bytes;
}

const sh_loss_kernels sh_cuda_triplets = {scratch_bytes, sh_cuda_choose, apply};
