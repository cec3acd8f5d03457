// SPDX-License-Identifier: Apache-2.0
/**
 * Losses over all pairs of the batch: models/loss/all_pairs.c on a device, where they are defined.
 *
 * A row is summed up over its columns in ascending order, by one thread: that is the host's order.
 * What that leaves idle is little beside the distances, which all threads of its block make.
 */
#include "models/cuda/memory.h"
#include "models/cuda/pull.h"

enum { POSITIVE, NEGATIVE };

struct pairs_scratch {
    tile_scratch tiles;
    float *nearest; /* [SH_MINE_PIECES, anchors] squared distances */
    double *scales; /* [2] what positives' and negatives' costs are multiplied by */
    row_sums sums;

    void carve(carver *c, const sh_loss_config *config, int64_t n, int64_t dim, int64_t max_others)
    {
        tiles = sh_cuda_take_tiles(c, config, n, dim, max_others);
        nearest = c->take<float>(SH_MINE_PIECES * n);
        scales = c->take<double>(2);
        sums = take_row_sums(c, n);
    }
};

/** Distances of one anchor to its positives. */
struct positive_list {
    const float *first;
    int64_t n, stride;

    __device__ float operator[](int64_t slot) const
    {
        return first[slot * stride];
    }
};

/* ---- the kinds ----
 *
 * begin(config, distance to the nearest negative, positives, sums): before the negatives
 * add(config, d, sums): one negative, by ascending column
 * finish(config, positives, sums)
 * slope(config, an anchor's sums, side, d): d cost / d distance, as this anchor has it
 * scale(n, positive pairs, pairs with a cost of a side): what the side's costs are multiplied by */

__device__ static inline double inverse(int64_t n)
{
    return n > 0 ? 1.0 / (double)n : 0;
}

/** bound[side] is the similarity to pass, weight[side] is 1 + the sum of exponentials. */
struct multi_similarity {
    static const bool needs_nearest = true;

    __device__ static double term(const sh_loss_config &c, int side, float d)
    {
        const double shifted = 1.0 - d - c.base;

        return side == POSITIVE ? exp(-c.alpha * shifted) : exp(c.beta * shifted);
    }

    __device__ static bool takes(const sh_loss_config &c, const sh_pair_sums &a, int side, float d)
    {
        const float s = 1 - d;

        return side == POSITIVE ? s - c.epsilon < a.bound[POSITIVE]
                                : s + c.epsilon > a.bound[NEGATIVE];
    }

    __device__ static void take(const sh_loss_config &c, int side, float d, sh_pair_sums *s)
    {
        if (!takes(c, *s, side, d)) return;
        s->weight[side] += term(c, side, d);
        s->n_taken[side]++;
    }

    __device__ static void begin(const sh_loss_config &, float nearest, const positive_list &p,
                                 sh_pair_sums *s)
    {
        s->bound[POSITIVE] = 1 - nearest; /* without one, and without positives, no pair passes */
        s->bound[NEGATIVE] = INFINITY;
        for (int64_t q = 0; q < p.n; q++)
            if (1 - p[q] < s->bound[NEGATIVE]) s->bound[NEGATIVE] = 1 - p[q];
    }

    __device__ static void add(const sh_loss_config &c, float d, sh_pair_sums *s)
    {
        take(c, NEGATIVE, d, s);
    }

    __device__ static void finish(const sh_loss_config &c, const positive_list &p, sh_pair_sums *s)
    {
        for (int64_t q = 0; q < p.n; q++) take(c, POSITIVE, p[q], s);
        for (int side = 0; side < 2; side++) {
            s->loss[side] = log1p(s->weight[side]) / (side == POSITIVE ? c.alpha : c.beta);
            s->weight[side] = 1 + s->weight[side];
            s->n_active[side] = s->n_taken[side];
        }
    }

    __device__ static double slope(const sh_loss_config &c, const sh_pair_sums &a, int side,
                                   float d)
    {
        if (!takes(c, a, side, d)) return 0;
        return (side == POSITIVE ? 1 : -1) * (term(c, side, d) / a.weight[side]);
    }

    __device__ static double scale(int64_t n, int64_t, int64_t)
    {
        return inverse(n);
    }
};

/** weight = {log of the sum of e_n, sum over positives of the softmax's share of negatives}; until
 *  it is finished, bound[0] is the nearest negative and weight[0] the sum relative to it. */
struct nt_xent {
    static const bool needs_nearest = true;

    __device__ static void begin(const sh_loss_config &, float nearest, const positive_list &,
                                 sh_pair_sums *s)
    {
        s->bound[0] = nearest;
    }

    __device__ static void add(const sh_loss_config &c, float d, sh_pair_sums *s)
    {
        s->weight[0] += exp(((double)s->bound[0] - d) / (double)c.temperature);
    }

    __device__ static void finish(const sh_loss_config &c, const positive_list &p, sh_pair_sums *s)
    {
        const double t = c.temperature, nearest = s->bound[0], sum = s->weight[0];
        const double log_sum = nearest < INFINITY ? (1.0 - nearest) / t + log(sum) : -INFINITY;

        s->bound[0] = 0;
        s->weight[0] = log_sum;
        for (int64_t q = 0; q < p.n; q++) {
            const double excess = log_sum - (1.0 - p[q]) / t, cost = softplus(excess);

            s->loss[POSITIVE] += cost;
            s->weight[1] += logistic(excess);
            s->n_active[POSITIVE] += cost > 0;
        }
        s->n_taken[POSITIVE] = (int32_t)p.n;
    }

    __device__ static double slope(const sh_loss_config &c, const sh_pair_sums &a, int side,
                                   float d)
    {
        const double t = c.temperature;

        if (side == POSITIVE) return logistic(a.weight[0] - (1.0 - d) / t) / t;
        if (a.weight[1] == 0) return 0;
        return -exp((1.0 - d) / t - a.weight[0]) * a.weight[1] / t;
    }

    __device__ static double scale(int64_t, int64_t n_pairs, int64_t)
    {
        return inverse(n_pairs);
    }
};

struct contrastive_all {
    static const bool needs_nearest = false;

    __device__ static void begin(const sh_loss_config &, float, const positive_list &,
                                 sh_pair_sums *)
    {
    }

    __device__ static void add(const sh_loss_config &c, float d, sh_pair_sums *s)
    {
        const double shortfall = (double)c.margin - d;

        s->n_taken[NEGATIVE]++;
        if (shortfall <= 0) return;
        s->loss[NEGATIVE] += shortfall;
        s->n_active[NEGATIVE]++;
    }

    __device__ static void finish(const sh_loss_config &, const positive_list &p, sh_pair_sums *s)
    {
        for (int64_t q = 0; q < p.n; q++) {
            s->loss[POSITIVE] += p[q];
            s->n_active[POSITIVE] += p[q] > 0;
        }
        s->n_taken[POSITIVE] = (int32_t)p.n;
    }

    __device__ static double slope(const sh_loss_config &c, const sh_pair_sums &, int side, float d)
    {
        return side == POSITIVE ? d > 0 : d < c.margin ? -1 : 0;
    }

    __device__ static double scale(int64_t, int64_t, int64_t n_active)
    {
        return inverse(n_active);
    }
};

/* ---- choose ---- */

/** nearest [pieces, n_anchors] */
struct nearest_task {
    float *nearest;
    int64_t n_anchors;

    __device__ int64_t n_lists(const sh_row_tables &) const
    {
        return 1;
    }

    __device__ bool has(const sh_row_tables &, int64_t, int64_t) const
    {
        return true;
    }

    __device__ void look(int64_t at, int64_t, int64_t, const float *d, bool is_first) const
    {
        float *kept = &nearest[blockIdx.y * n_anchors + at];
        float least = is_first ? INFINITY : *kept;

        for (int c = 0; c < TILE; c++) least = d[c] < least ? d[c] : least;
        *kept = least;
    }
};

template <class Kind> struct sum_task {
    sh_loss_config config;
    sh_pair_sums *sums;

    __device__ int64_t n_lists(const sh_row_tables &) const
    {
        return 1;
    }

    __device__ bool has(const sh_row_tables &, int64_t, int64_t) const
    {
        return true;
    }

    __device__ void look(int64_t at, int64_t, int64_t, const float *d, bool) const
    {
        sh_pair_sums own = sums[at];

        for (int c = 0; c < TILE; c++)
            if (d[c] == d[c]) Kind::add(config, metric_of(config.distance, d[c]), &own);
        sums[at] = own;
    }
};

/** What begins and ends the sums of an anchor. */
struct summing {
    sh_loss_config config;
    sh_row_tables rows;
    anchors who;
    const float *positives, *nearest;
    int n_pieces;
    sh_pair_sums *sums;

    __device__ positive_list list(int64_t at) const
    {
        return positive_list{positives + at, others_of(rows, who.begin + at), who.n()};
    }
};

template <class Kind> __global__ void __launch_bounds__(SH_BLOCK) begin_sums(summing s)
{
    const int64_t at = item_index();
    float nearest = INFINITY;
    sh_pair_sums own = {};

    if (at >= s.who.n()) return;
    for (int piece = 0; piece < s.n_pieces; piece++)
        nearest = fminf(nearest, s.nearest[piece * s.who.n() + at]);
    Kind::begin(s.config, metric_of(s.config.distance, nearest), s.list(at), &own);
    s.sums[at] = own;
}

template <class Kind> __global__ void __launch_bounds__(SH_BLOCK) finish_sums(summing s)
{
    const int64_t at = item_index();

    if (at >= s.who.n()) return;
    sh_pair_sums own = s.sums[at];
    Kind::finish(s.config, s.list(at), &own);
    s.sums[at] = own;
}

/** Rows, and a batch of them, in the scratch. */
struct prepared {
    pairs_scratch s;
    const float *x;
    packed_rows p;
};

static prepared prepare(const sh_device_batch *batch, const anchors &who, bool tiles)
{
    const sh_loss_config *config = batch->config;
    prepared r = {scratch_of<pairs_scratch>(batch), nullptr, {}};

    if (!tiles) return r;
    r.x = sh_cuda_rows(r.s.tiles.unit, batch);
    r.p = sh_cuda_pack(r.s.tiles, batch, r.x);
    sh_cuda_positives(r.s.tiles, r.p, who, batch->max_others, false, config->distance);
    return r;
}

template <class Kind>
static void choose_kind(const sh_device_batch *batch, const anchors &who, sh_pair_sums *sums)
{
    const prepared r = prepare(batch, who, true);
    const unsigned pieces = Kind::needs_nearest ? pieces_of_columns(batch->n) : 0;
    const summing s = {*batch->config, batch->rows, who, r.s.tiles.positives,
                       r.s.nearest,    (int)pieces, sums};

    if (pieces > 0) launch_over_tiles(r.p, who, pieces, nearest_task{r.s.nearest, who.n()});
    SH_LAUNCH(begin_sums<Kind>, item_grid(who.n()), dim3(SH_BLOCK), 0, s);
    launch_over_tiles(r.p, who, 1, sum_task<Kind>{*batch->config, sums});
    SH_LAUNCH(finish_sums<Kind>, item_grid(who.n()), dim3(SH_BLOCK), 0, s);
}

/* ---- apply ---- */

/** One block. */
template <class Kind>
__global__ void __launch_bounds__(SH_BLOCK)
    find_scales(const sh_pair_sums *all, sh_row_tables rows, int64_t n, double *scales)
{
    SH_SHARED(int64_t, shared); /* [3][SH_BLOCK] */
    int64_t counts[3] = {0, 0, 0};

    for (int64_t row = threadIdx.x; row < n; row += SH_BLOCK) {
        counts[POSITIVE] += all[row].n_active[POSITIVE];
        counts[NEGATIVE] += all[row].n_active[NEGATIVE];
        counts[2] += others_of(rows, row);
    }
    sum_counts<3>(shared, counts);
    if (threadIdx.x > 0) return;
    scales[POSITIVE] = Kind::scale(n, counts[2], counts[POSITIVE]);
    scales[NEGATIVE] = Kind::scale(n, counts[2], counts[NEGATIVE]);
}

/** A warp per row. */
__global__ void __launch_bounds__(SH_BLOCK)
    cost_pairs(pairs_scratch s, const sh_pair_sums *all, sh_row_tables rows,
               const float *embeddings, int64_t n, int64_t dim)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    const float fault = row_fault(embeddings, row, n, dim);

    if (threadIdx.x % WARP != 0 || row >= n) return;
    const sh_pair_sums own = all[row];
    double loss = s.scales[POSITIVE] * own.loss[POSITIVE];
    loss += s.scales[NEGATIVE] * own.loss[NEGATIVE];
    s.sums.loss[row] = fault == 0 ? loss : NAN;
    s.sums.pairs[row] = (int32_t)others_of(rows, row);
    s.sums.triplets[row] = own.n_taken[POSITIVE] + own.n_taken[NEGATIVE];
    s.sums.active[row] = own.n_active[POSITIVE] + own.n_active[NEGATIVE];
}

/** pull.h: a pair pulls at a row by the row's own sums and by those of the other. */
template <class Kind> struct pair_weigher {
    sh_loss_config config;
    sh_row_tables rows;
    const sh_pair_sums *all;
    const double *scales;
    const float *positives;
    int64_t n_anchors;

    __device__ float weigh(int64_t row, int64_t other, int side, float d) const
    {
        double slope = Kind::slope(config, all[row], side, d);

        slope += Kind::slope(config, all[other], side, d);
        slope *= scales[side] * slope_of(config.distance, d);
        return (float)slope;
    }

    __device__ float positive(int64_t row, int64_t at, int64_t slot) const
    {
        return weigh(row, other_of(rows, row, slot), POSITIVE, positives[slot * n_anchors + at]);
    }

    __device__ float negative(int64_t row, int64_t column, float d2) const
    {
        return weigh(row, column, NEGATIVE, metric_of(config.distance, d2));
    }
};

template <class Kind>
static void apply_kind(const sh_device_batch *batch, const sh_pair_sums *all, const anchors &who,
                       sh_loss_stats *stats, float *grad)
{
    const int64_t n = batch->n;
    const bool pulls = grad != nullptr && who.n() > 0;
    const prepared r = prepare(batch, who, pulls);

    SH_LAUNCH(find_scales<Kind>, dim3(1), dim3(SH_BLOCK), 3 * SH_BLOCK * sizeof(int64_t), all,
              batch->rows, n, r.s.scales);
    SH_LAUNCH(cost_pairs, dim3((unsigned)pieces_of(n, WARPS)), dim3(SH_BLOCK), 0, r.s, all,
              batch->rows, batch->embeddings, n, batch->dim);
    sh_cuda_sum_rows(r.s.sums, n, OVER_ONE, stats);
    if (!pulls) return;
    launch_pull(r.p, who, pulled_rows{r.x, grad},
                pair_weigher<Kind>{*batch->config, batch->rows, all, r.s.scales,
                                   r.s.tiles.positives, who.n()});
    sh_cuda_finish_gradient(batch, r.s.tiles.unit, who.begin, who.n(), r.s.sums.scale, grad);
}

/* ---- the table ---- */

static sh_status choose(const sh_device_batch *batch, int64_t row_begin, int64_t row_end,
                        void *choices)
{
    sh_pair_sums *sums = static_cast<sh_pair_sums *>(choices);
    const anchors who = {row_begin, row_end};

    if (row_begin == row_end) return SH_OK;
    switch (batch->config->kind) {
    case SH_LOSS_MULTI_SIMILARITY: choose_kind<multi_similarity>(batch, who, sums); break;
    case SH_LOSS_NT_XENT: choose_kind<nt_xent>(batch, who, sums); break;
    default: choose_kind<contrastive_all>(batch, who, sums); break;
    }
    return sh_cuda_launched("sums over pairs");
}

static sh_status apply(const sh_device_batch *batch, const void *choices, int64_t row_begin,
                       int64_t row_end, sh_loss_stats *stats, float *grad)
{
    const sh_pair_sums *all = static_cast<const sh_pair_sums *>(choices);
    const anchors who = {row_begin, row_end};

    switch (batch->config->kind) {
    case SH_LOSS_MULTI_SIMILARITY:
        apply_kind<multi_similarity>(batch, all, who, stats, grad);
        break;
    case SH_LOSS_NT_XENT: apply_kind<nt_xent>(batch, all, who, stats, grad); break;
    default: apply_kind<contrastive_all>(batch, all, who, stats, grad); break;
    }
    return sh_cuda_launched("losses over pairs");
}

const sh_loss_kernels sh_cuda_all_pairs = {scratch_bytes_of<pairs_scratch>, choose, apply};
