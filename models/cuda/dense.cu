// SPDX-License-Identifier: Apache-2.0
/**
 * Losses in which every triplet counts whose gap fits a rule: models/loss/dense.c on a device,
 * where they are explained.
 *
 * The host adds up an anchor's gaps in SH_LANES lanes, then the lanes. Here a thread is a lane of
 * some rows of a tile, so that sums have the host's order.
 */
#include "models/cuda/memory.h"
#include "models/cuda/pull.h"

enum { LANE_ROWS = TILE * SH_LANES / SH_BLOCK }; /* rows of which a thread is one lane */

struct dense_scratch {
    tile_scratch tiles;
    row_sums sums;

    void carve(carver *c, const sh_loss_config *config, int64_t n, int64_t dim, int64_t max_others)
    {
        tiles = sh_cuda_take_tiles(c, config, n, dim, max_others);
        sums = take_row_sums(c, n);
    }
};

__device__ static inline bool fits(const sh_gap_rule &rule, float gap)
{
    return gap > rule.above && gap <= rule.upto;
}

/* ---- choose ---- */

__device__ static inline void add_gap(const sh_gap_rule &rule, float gap, sh_gap_sum *sum)
{
    if (!fits(rule, gap)) return;
    const float cost = rule.margin - gap;
    const bool is_active = rule.soft || cost > 0;

    sum->n_triplets++;
    sum->n_active += is_active;
    if (is_active) {
        sum->loss += rule.soft ? softplus(-gap) : cost;
        sum->weight += rule.soft ? logistic(-gap) : 1;
    }
}

/** A block has TILE anchors and one slot of them; positives [max_others, anchors]. */
__global__ void __launch_bounds__(SH_BLOCK)
    sum_gaps(packed_rows p, anchors who, const float *positives, sh_gap_rule rule,
             sh_distance distance, int64_t slots, sh_gap_sum *choices)
{
    SH_SHARED(float, shared); /* tile_bytes; then [TILE][SH_LANES] sums */
    float *d = shared + 2 * DEPTH * TILE;
    const int64_t at0 = (int64_t)blockIdx.x * TILE, slot = blockIdx.y;
    const int lane = (int)threadIdx.x % SH_LANES, row0 = (int)threadIdx.x / SH_LANES * LANE_ROWS;
    sh_gap_sum sums[LANE_ROWS] = {};
    float positive[LANE_ROWS];
    const bool is_needed = slot < p.rows.now->most_others;

#pragma unroll
    for (int i = 0; i < LANE_ROWS; i++) {
        const int64_t at = at0 + row0 + i;
        const bool has = at < who.n() && slot < others_of(p.rows, who.begin + at);

        positive[i] = has ? positives[slot * who.n() + at] : NAN; /* then no gap fits */
    }
    for (int64_t column0 = 0; column0 < p.padded && is_needed; column0 += TILE) {
        distance_tile(p, who.begin + at0, column0, shared, d);
#pragma unroll
        for (int i = 0; i < LANE_ROWS; i++)
#pragma unroll 1
            for (int c = lane; c < TILE; c += SH_LANES)
                add_gap(rule, metric_of(distance, d[(row0 + i) * STRIDE + c]) - positive[i],
                        &sums[i]);
        __syncthreads();
    }
    sh_gap_sum *lanes = reinterpret_cast<sh_gap_sum *>(shared);
#pragma unroll
    for (int i = 0; i < LANE_ROWS; i++) lanes[(row0 + i) * SH_LANES + lane] = sums[i];
    __syncthreads();
    if (threadIdx.x >= TILE || at0 + threadIdx.x >= who.n()) return;
    sh_gap_sum all = {};
    for (int l = 0; l < SH_LANES; l++) {
        const sh_gap_sum &own = lanes[threadIdx.x * SH_LANES + l];

        all.loss += own.loss;
        all.weight += own.weight;
        all.n_triplets += own.n_triplets;
        all.n_active += own.n_active;
    }
    choices[(at0 + threadIdx.x) * slots + slot] = all;
}

static sh_status choose(const sh_device_batch *batch, int64_t row_begin, int64_t row_end,
                        void *choices)
{
    const sh_loss_config *config = batch->config;
    const anchors who = {row_begin, row_end};

    if (row_begin == row_end || batch->slots == 0) return SH_OK;
    const dense_scratch s = scratch_of<dense_scratch>(batch);
    const packed_rows p = sh_cuda_pack(s.tiles, batch, sh_cuda_rows(s.tiles.unit, batch));

    sh_cuda_positives(s.tiles, p, who, batch->max_others, false, config->distance);
    SH_LAUNCH(sum_gaps, dim3((unsigned)pieces_of(who.n(), TILE), (unsigned)batch->slots),
              dim3(SH_BLOCK), tile_bytes, p, who, s.tiles.positives, batch->rule, config->distance,
              batch->slots, static_cast<sh_gap_sum *>(choices));
    return sh_cuda_launched("sums over triplets");
}

/* ---- apply ---- */

/** A warp per row. */
__global__ void __launch_bounds__(SH_BLOCK)
    cost_gaps(row_sums sums, const sh_gap_sum *all, int64_t slots, sh_row_tables rows,
              const float *embeddings, int64_t n, int64_t dim)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    const float fault = row_fault(embeddings, row, n, dim);
    double loss = 0;
    int32_t n_triplets = 0, n_active = 0;

    if (threadIdx.x % WARP != 0 || row >= n) return;
    for (int64_t s = row * slots; s < (row + 1) * slots; s++) {
        loss += all[s].loss;
        n_triplets += all[s].n_triplets;
        n_active += all[s].n_active;
    }
    sums.loss[row] = fault == 0 ? loss : NAN;
    sums.pairs[row] = (int32_t)others_of(rows, row);
    sums.triplets[row] = n_triplets;
    sums.active[row] = n_active;
}

/** pull.h; positives [lists, n] of all rows. */
struct gap_weigher {
    sh_gap_rule rule;
    sh_distance distance;
    sh_row_tables rows;
    const sh_gap_sum *all;
    const float *positives;
    int64_t n, slots;

    __device__ float positive(int64_t row, int64_t, int64_t slot) const
    {
        const int64_t other = other_of(rows, row, slot);
        const double both =
            all[row * slots + slot].weight + all[other * slots + slot_of(rows, other, row)].weight;

        return (float)(both == 0 ? 0 : both * slope_of(distance, positives[slot * n + row]));
    }

    /** Over the triplets of one anchor with a negative at distance d, added to sum. */
    __device__ float add(float sum, int64_t anchor, float d) const
    {
        const int64_t n_others = others_of(rows, anchor);

        for (int64_t q = 0; q < n_others; q++) {
            const float gap = d - positives[q * n + anchor];

            if (!fits(rule, gap)) continue;
            sum += rule.soft ? (float)logistic(-gap) : rule.margin - gap > 0 ? 1.0f : 0.0f;
        }
        return sum;
    }

    __device__ float negative(int64_t row, int64_t column, float d2) const
    {
        const float d = metric_of(distance, d2), sum = add(add(0, row, d), column, d);

        return (float)(sum == 0 ? 0 : -sum * slope_of(distance, d));
    }
};

static sh_status apply(const sh_device_batch *batch, const void *choices, int64_t row_begin,
                       int64_t row_end, sh_loss_stats *stats, float *grad)
{
    const sh_loss_config *config = batch->config;
    const sh_gap_sum *all = static_cast<const sh_gap_sum *>(choices);
    const int64_t n = batch->n;
    const anchors who = {row_begin, row_end};
    const dense_scratch s = scratch_of<dense_scratch>(batch);

    SH_LAUNCH(cost_gaps, dim3((unsigned)pieces_of(n, WARPS)), dim3(SH_BLOCK), 0, s.sums, all,
              batch->slots, batch->rows, batch->embeddings, n, batch->dim);
    sh_cuda_sum_rows(s.sums, n, divisor_of(config->reduction), stats);
    if (grad != nullptr && who.n() > 0) {
        const float *x = sh_cuda_rows(s.tiles.unit, batch);
        const packed_rows p = sh_cuda_pack(s.tiles, batch, x);

        sh_cuda_positives(s.tiles, p, anchors{0, n}, batch->max_others, false, config->distance);
        launch_pull(p, who, pulled_rows{x, grad},
                    gap_weigher{batch->rule, config->distance, batch->rows, all, s.tiles.positives,
                                n, batch->slots});
        sh_cuda_finish_gradient(batch, s.tiles.unit, row_begin, who.n(), s.sums.scale, grad);
    }
    return sh_cuda_launched("losses of all triplets");
}

const sh_loss_kernels sh_cuda_dense = {scratch_bytes_of<dense_scratch>, choose, apply};
