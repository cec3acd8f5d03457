// SPDX-License-Identifier: Apache-2.0
/**
 * Distances between all rows of a batch, tile by tile, and the kernels around them.
 *
 * Every kernel table gives the same bits. A dot product is one chain of fused multiply-adds over
 * ascending dimensions, acc = fma(x[k], y[k], acc), started at zero; vectors run across columns,
 * never along the chain. From it
 *
 *   d2(i, j) = max(0, fma(-2, dot(i, j), norm(i) + norm(j))),  norm(i) = dot(i, i)
 *
 * so d2(i, j) = d2(j, i), d2 of equal rows is exactly 0, and no tile shape shows in the result.
 * Rows are centred on the batch mean first, since norms + dot loses |x|^2 / d^2 times the rounding
 * of f32: centred, |x|^2 is about the spread of the batch, whatever its distance from the origin.
 */
#ifndef SH_MODELS_LOSS_TILE_H
#define SH_MODELS_LOSS_TILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

enum {
    SH_TILE_ROWS = 8,  /* 8 x 3 vectors of accumulators, 3 of columns, 1 of a row: 28 of 32 */
    SH_TILE_COLS = 48, /* columns of a panel; a multiple of SH_TILE_ROWS */
    SH_LANES = 16,
    SH_TILE_MAX_KERNELS = 3,
};

/** Centred rows, transposed panel by panel so that a vector holds 16 rows. */
typedef struct sh_packed {
    float *panels; /* [n_panels, dim, SH_TILE_COLS]; rows beyond n are zero */
    float *norms; /* [n_panels * SH_TILE_COLS]; NaN beyond n, so that padding is in no comparison */
    float *mean;  /* [dim] */
    int64_t n, dim, n_panels;
} sh_packed;

/** Smallest (or largest) distance per lane, and its column; -1: none yet. */
typedef struct sh_lanes {
    float value[SH_LANES];
    int32_t index[SH_LANES];
} sh_lanes;

/** Which triplets count, by gap = d(a, n) - d(a, p), and what one costs. */
typedef struct sh_gap_rule {
    float above, upto; /* above < gap <= upto */
    float margin;
    bool soft;
} sh_gap_rule;

/** What the triplets of one (anchor, positive) add up to. */
typedef struct sh_gap_sum {
    double loss;        /* sum of losses */
    double weight;      /* sum of d loss / d d(a, p) */
    int32_t n_triplets; /* gaps that fit the rule */
    int32_t n_active;   /* of these, with a loss above zero */
} sh_gap_sum;

typedef struct sh_tile_kernels {
    const char *name;

    /** Norms of the rows of one panel, from its columns. */
    void (*norms)(const sh_packed *p, int64_t panel);

    /** Squared distances of rows row .. row + SH_TILE_ROWS - 1 (row a multiple of SH_TILE_ROWS) to
     *  the columns of one panel, into out[r * stride + c]. */
    void (*distances)(const sh_packed *p, int64_t row, int64_t panel, float *out, int64_t stride);

    /** The same values for chosen columns: out[n] = d2(row, columns[n]). */
    void (*pairs)(const sh_packed *p, int64_t row, const int32_t *columns, int64_t n, float *out);

    /** Over the n (a multiple of SH_LANES) distances of columns first .. first + n - 1: update
     *  nearest[q], the smallest d > above[q], for each q, and farthest, the largest d. NaN is never
     *  chosen; of equals the smallest column wins. */
    void (*select)(const float *d, int64_t n, int32_t first, const float *above, int64_t n_above,
                   sh_lanes *nearest, sh_lanes *farthest);

    /** How many of the n (a multiple of SH_LANES) distances to negatives d fit the rule. */
    int64_t (*count)(const float *d, int64_t n, float positive, const sh_gap_rule *rule);

    /** Their sums, for one d(a, p). */
    void (*gaps)(const float *d, int64_t n, float positive, const sh_gap_rule *rule,
                 sh_gap_sum *sum);

    /** weight[j] += d loss / d d(a, p) of the triplet (positive[j * step], d[j]); step 0 or 1. */
    void (*weigh)(const float *d, int64_t n, const float *positive, int step,
                  const sh_gap_rule *rule, float *weight);

    /** |x - y|^2 in f64: products of f32 differences are exact there, so fusing changes nothing. */
    double (*direct)(const float *x, const float *y, int64_t dim);

    /** g += sum over terms, in order, of coefficients[t] * (x[row] - x[others[t]]); x [., dim]. */
    void (*pull)(float *g, const float *x, int64_t dim, int64_t row, const int32_t *others,
                 const float *coefficients, int64_t n_terms);
} sh_tile_kernels;

/** Kernel tables that this processor can run, fastest first, ending with the portable one. Returns
 *  how many. */
int sh_tile_kernels_list(const sh_tile_kernels *list[SH_TILE_MAX_KERNELS]);

/** The table of 512-bit kernels, or NULL where the processor has none. */
const sh_tile_kernels *sh_tile_kernels_avx512(void);

/** Room for n_max rows. */
SH_MUST_CHECK sh_status sh_packed_create(int64_t n_max, int64_t dim, sh_packed *out);
void sh_packed_clear(sh_packed *p);
size_t sh_packed_bytes(int64_t n_max, int64_t dim);

/** Centre and transpose x [n, dim], and compute the norms. Threaded. */
void sh_packed_fill(sh_packed *p, const sh_tile_kernels *kernels, const float *x, int64_t n,
                    int n_threads);

/** Forget what `lanes` holds: value is +inf for the nearest, -inf for the farthest. */
void sh_lanes_reset(sh_lanes *lanes, float value);

/** The column that won over all lanes: least value (sign 1) or greatest (sign -1), of equals the
 *  smallest column; -1: none. */
int32_t sh_lanes_winner(const sh_lanes *lanes, float sign);

SH_C_END

#endif
