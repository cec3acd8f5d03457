// SPDX-License-Identifier: Apache-2.0
/**
 * The kernels of tile.h in plain C, to be compiled for one instruction set after another: the
 * including file defines TILE_NAME(name), which gives each function its name, and TILE_TARGET, its
 * target attribute. With TILE_HAND_WRITTEN it brings its own `distances`, `select`, `count`,
 * `gaps`, `weigh` and `pull`. No reduction runs across lanes in an order that the compiler may
 * choose, and every fused operation is written as fmaf, so all compilations give the same bits.
 */

TILE_TARGET static void TILE_NAME(norms)(const sh_packed *p, int64_t panel)
{
    const float *x = p->panels + panel * p->dim * SH_TILE_COLS;
    float acc[SH_TILE_COLS] = {0};

    for (int64_t k = 0; k < p->dim; k++, x += SH_TILE_COLS)
        for (int c = 0; c < SH_TILE_COLS; c++) acc[c] = fmaf(x[c], x[c], acc[c]);
    for (int c = 0; c < SH_TILE_COLS; c++) {
        int64_t i = panel * SH_TILE_COLS + c;

        p->norms[i] = i < p->n ? acc[c] : NAN;
    }
}

#ifndef TILE_HAND_WRITTEN
TILE_TARGET static void TILE_NAME(distances)(const sh_packed *p, int64_t row, int64_t panel,
                                             float *out, int64_t stride)
{
    const float *a = p->panels + row / SH_TILE_COLS * p->dim * SH_TILE_COLS + row % SH_TILE_COLS;
    const float *b = p->panels + panel * p->dim * SH_TILE_COLS;
    const float *norms = p->norms + panel * SH_TILE_COLS;
    float acc[SH_TILE_ROWS][SH_TILE_COLS] = {{0}};

    for (int64_t k = 0; k < p->dim; k++, a += SH_TILE_COLS, b += SH_TILE_COLS)
        for (int r = 0; r < SH_TILE_ROWS; r++)
            for (int c = 0; c < SH_TILE_COLS; c++) acc[r][c] = fmaf(a[r], b[c], acc[r][c]);
    for (int r = 0; r < SH_TILE_ROWS; r++) {
        float norm = p->norms[row + r];

        for (int c = 0; c < SH_TILE_COLS; c++) {
            float d2 = fmaf(-2, acc[r][c], norm + norms[c]);

            out[r * stride + c] = d2 < 0 ? 0 : d2; /* NaN stays */
        }
    }
}

TILE_TARGET static void TILE_NAME(select)(const float *d, int64_t n, int32_t first,
                                          const float *above, int64_t n_above, sh_lanes *nearest,
                                          sh_lanes *farthest)
{
    for (int64_t q = 0; q < n_above; q++)
        for (int64_t j = 0; j < n; j += SH_LANES)
            for (int l = 0; l < SH_LANES; l++) {
                bool better = (d[j + l] > above[q]) & (d[j + l] < nearest[q].value[l]);

                nearest[q].value[l] = better ? d[j + l] : nearest[q].value[l];
                nearest[q].index[l] = better ? first + (int32_t)j + l : nearest[q].index[l];
            }
    for (int64_t j = 0; j < n; j += SH_LANES)
        for (int l = 0; l < SH_LANES; l++) {
            bool better = d[j + l] > farthest->value[l];

            farthest->value[l] = better ? d[j + l] : farthest->value[l];
            farthest->index[l] = better ? first + (int32_t)j + l : farthest->index[l];
        }
}
#endif

TILE_TARGET static void TILE_NAME(pairs)(const sh_packed *p, int64_t row, const int32_t *columns,
                                         int64_t n, float *out)
{
    const float *a = p->panels + row / SH_TILE_COLS * p->dim * SH_TILE_COLS + row % SH_TILE_COLS;

    for (int64_t first = 0; first < n; first += SH_LANES) {
        int m = (int)(n - first < SH_LANES ? n - first : SH_LANES);
        const float *b[SH_LANES];
        float acc[SH_LANES] = {0};

        for (int l = 0; l < SH_LANES; l++) {
            int64_t j = columns[first + (l < m ? l : 0)];

            b[l] = p->panels + j / SH_TILE_COLS * p->dim * SH_TILE_COLS + j % SH_TILE_COLS;
        }
        for (int64_t k = 0; k < p->dim; k++)
            for (int l = 0; l < m; l++)
                acc[l] = fmaf(a[k * SH_TILE_COLS], b[l][k * SH_TILE_COLS], acc[l]);
        for (int l = 0; l < m; l++) {
            float d2 = fmaf(-2, acc[l], p->norms[row] + p->norms[columns[first + l]]);

            out[first + l] = d2 < 0 ? 0 : d2;
        }
    }
}

TILE_TARGET static void TILE_NAME(add_lanes)(const double *loss, const double *weight,
                                             sh_gap_sum *sum)
{
    sum->loss = sum->weight = 0;
    for (int l = 0; l < SH_LANES; l++) {
        sum->loss += loss[l];
        sum->weight += weight[l];
    }
}

TILE_TARGET static void TILE_NAME(gaps_soft)(const float *d, int64_t n, float positive,
                                             const sh_gap_rule *rule, sh_gap_sum *sum)
{
    double loss[SH_LANES] = {0}, weight[SH_LANES] = {0};
    int32_t n_triplets = 0;

    for (int64_t j = 0; j < n; j++) {
        float gap = d[j] - positive;

        if (!(gap > rule->above && gap <= rule->upto)) continue;
        n_triplets++;
        loss[j % SH_LANES] += sh_loss_softplus(-gap);
        weight[j % SH_LANES] += sh_loss_sigmoid(-gap);
    }
    TILE_NAME(add_lanes)(loss, weight, sum);
    sum->n_triplets = sum->n_active = n_triplets; /* a soft loss is never zero */
}

TILE_TARGET static void TILE_NAME(weigh_soft)(const float *d, int64_t n, const float *positive,
                                              int step, const sh_gap_rule *rule, float *weight)
{
    for (int64_t j = 0; j < n; j++) {
        float gap = d[j] - positive[j * step];

        if (gap > rule->above && gap <= rule->upto) weight[j] += (float)sh_loss_sigmoid(-gap);
    }
}

#ifndef TILE_HAND_WRITTEN
TILE_TARGET static int64_t TILE_NAME(count)(const float *d, int64_t n, float positive,
                                            const sh_gap_rule *rule)
{
    int32_t total = 0;

    for (int64_t j = 0; j < n; j++) {
        float gap = d[j] - positive;

        total += (gap > rule->above) & (gap <= rule->upto);
    }
    return total;
}

TILE_TARGET static void TILE_NAME(gaps)(const float *d, int64_t n, float positive,
                                        const sh_gap_rule *rule, sh_gap_sum *sum)
{
    double loss[SH_LANES] = {0}, weight[SH_LANES] = {0};

    if (rule->soft) {
        TILE_NAME(gaps_soft)(d, n, positive, rule, sum);
        return;
    }
    sum->n_triplets = (int32_t)TILE_NAME(count)(d, n, positive, rule);
    for (int64_t j = 0; j < n; j += SH_LANES)
        for (int l = 0; l < SH_LANES; l++) {
            float gap = d[j + l] - positive, cost = rule->margin - gap;
            bool active = (gap > rule->above) & (gap <= rule->upto) & (cost > 0);

            loss[l] += active ? cost : 0;
            weight[l] += active ? 1 : 0;
        }
    TILE_NAME(add_lanes)(loss, weight, sum);
    sum->n_active = (int32_t)sum->weight;
}

TILE_TARGET static void TILE_NAME(weigh)(const float *d, int64_t n, const float *positive, int step,
                                         const sh_gap_rule *rule, float *weight)
{
    if (rule->soft) {
        TILE_NAME(weigh_soft)(d, n, positive, step, rule, weight);
        return;
    }
    for (int64_t j = 0; j < n; j++) {
        float gap = d[j] - (step ? positive[j] : positive[0]);
        bool active = (gap > rule->above) & (gap <= rule->upto) & (rule->margin - gap > 0);

        weight[j] += active ? 1.0f : 0.0f;
    }
}
#endif

TILE_TARGET static double TILE_NAME(direct)(const float *x, const float *y, int64_t dim)
{
    double acc[SH_LANES] = {0}, sum = 0;
    int64_t k = 0;

    for (; k + SH_LANES <= dim; k += SH_LANES)
        for (int l = 0; l < SH_LANES; l++) {
            double difference = x[k + l] - y[k + l];

            acc[l] += difference * difference;
        }
    for (int l = 0; k < dim; k++, l++) {
        double difference = x[k] - y[k];

        acc[l] += difference * difference;
    }
    for (int l = 0; l < SH_LANES; l++) sum += acc[l];
    return sum;
}

#ifndef TILE_HAND_WRITTEN
TILE_TARGET static void TILE_NAME(pull)(float *g, const float *x, int64_t dim, int64_t row,
                                        const int32_t *others, const float *coefficients,
                                        int64_t n_terms)
{
    enum { BLOCK = 4 * SH_LANES }; /* stays in registers over all terms */
    int64_t k = 0;

    for (; k + BLOCK <= dim; k += BLOCK) {
        float acc[BLOCK], own[BLOCK];

        memcpy(acc, g + k, sizeof(acc));
        memcpy(own, x + row * dim + k, sizeof(own));
        for (int64_t t = 0; t < n_terms; t++) {
            const float *other = x + others[t] * dim + k;

            for (int l = 0; l < BLOCK; l++) acc[l] += coefficients[t] * (own[l] - other[l]);
        }
        memcpy(g + k, acc, sizeof(acc));
    }
    for (; k < dim; k++)
        for (int64_t t = 0; t < n_terms; t++)
            g[k] += coefficients[t] * (x[row * dim + k] - x[others[t] * dim + k]);
}
#endif

static const sh_tile_kernels TILE_NAME(kernels) = {
    .name = TILE_LABEL,
    .norms = TILE_NAME(norms),
    .distances = TILE_NAME(distances),
    .pairs = TILE_NAME(pairs),
    .select = TILE_NAME(select),
    .count = TILE_NAME(count),
    .gaps = TILE_NAME(gaps),
    .weigh = TILE_NAME(weigh),
    .direct = TILE_NAME(direct),
    .pull = TILE_NAME(pull),
};
