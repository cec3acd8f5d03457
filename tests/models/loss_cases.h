// SPDX-License-Identifier: Apache-2.0
/** Batches for the tests of losses, and every loss written out over all triples of rows in f64. */
#ifndef SH_TESTS_MODELS_LOSS_CASES_H
#define SH_TESTS_MODELS_LOSS_CASES_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "models/loss/internal.h"

enum { CASE_MAX_N = 100 };

/** n rows around one centre per label; labels and fish by number of sides. */
typedef struct loss_case {
    sh_loss_batch batch;
    float *x;
    int32_t labels[CASE_MAX_N], fish[CASE_MAX_N];
} loss_case;

/** n_fish individuals with `sides` labels each; rows in a shuffled order. */
static inline void case_make(loss_case *c, int64_t n, int64_t dim, int n_fish, int sides,
                             uint64_t seed)
{
    sh_rng_key key = sh_rng_make(seed, SH_RNG_TEST, (uint64_t)n, (uint64_t)dim);
    int64_t order[CASE_MAX_N];

    for (int64_t i = 0; i < n; i++) order[i] = i;
    sh_rng_shuffle(sh_rng_make(seed, SH_RNG_TEST, 1, 1), order, n);
    c->x = malloc((size_t)(n * dim) * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        c->labels[i] = (int32_t)(order[i] % (n_fish * sides));
        c->fish[i] = c->labels[i] / sides;
        for (int64_t k = 0; k < dim; k++) {
            uint64_t centre = 1000000 + (uint64_t)(c->labels[i] * dim + k);

            c->x[i * dim + k] = (float)(sh_rng_normal(key, (uint64_t)(i * dim + k)) +
                                        0.7 * sh_rng_normal(key, centre)) /
                                sqrtf((float)dim);
        }
    }
    c->batch = (sh_loss_batch){
        .embeddings = c->x, .labels = c->labels, .fish = c->fish, .n = n, .dim = dim, .step = 7};
}

static inline void case_free(loss_case *c)
{
    free(c->x);
    c->x = NULL;
}

static inline double plain_distance(const double *x, int64_t dim, sh_distance kind, int64_t i,
                                    int64_t j)
{
    double d2 = 0, ii = 0, jj = 0, ij = 0;

    for (int64_t k = 0; k < dim; k++) {
        double a = x[i * dim + k], b = x[j * dim + k];

        d2 += (a - b) * (a - b);
        ii += a * a;
        jj += b * b;
        ij += a * b;
    }
    return kind == SH_EUCLIDEAN ? sqrt(d2) : kind == SH_SQUARED ? d2 : 1 - ij / sqrt(ii * jj);
}

typedef struct plain_sums {
    double loss;
    int64_t n, n_active;
} plain_sums;

static inline void plain_add(plain_sums *s, const sh_loss_config *config, double gap, bool formed)
{
    double v = gap + config->margin;
    double cost = config->soft ? log1p(exp(gap)) : v > 0 ? v : 0;

    s->loss += cost;
    s->n += formed;
    s->n_active += formed && cost > 0;
}

static inline bool plain_fits(const sh_loss_config *config, double d_ap, double d_an)
{
    switch (config->kind) {
    case SH_LOSS_PML_SEMI_HARD: return d_an > d_ap && d_an <= d_ap + config->margin;
    case SH_LOSS_PML_HARD: return d_an <= d_ap;
    default: return d_an - d_ap < config->margin;
    }
}

/* TFA's choice for one ordered pair: the nearest negative beyond the positive, or the farthest. */
static inline void plain_semi_hard(const loss_case *c, const sh_loss_config *config,
                                   const double *d, int64_t a, int64_t p, plain_sums *s)
{
    int64_t n = c->batch.n;
    double outside = INFINITY, inside = -INFINITY;

    for (int64_t j = 0; j < n; j++) {
        if (c->labels[j] == c->labels[a] || c->fish[j] == c->fish[a]) continue;
        if (d[a * n + j] > d[a * n + p]) outside = fmin(outside, d[a * n + j]);
        inside = fmax(inside, d[a * n + j]);
    }
    double chosen = isfinite(outside) ? outside : inside;

    plain_add(s, config, d[a * n + p] - (isfinite(chosen) ? chosen : 0), isfinite(chosen));
}

static inline void plain_batch_hard(const loss_case *c, const sh_loss_config *config,
                                    const double *d, int64_t a, plain_sums *s)
{
    int64_t n = c->batch.n;
    double far = 0, near = INFINITY;
    bool any = false;

    for (int64_t j = 0; j < n; j++) {
        bool positive = c->labels[j] == c->labels[a] && j != a;

        if (positive) far = fmax(far, d[a * n + j]);
        any |= positive;
        if (c->labels[j] != c->labels[a] && c->fish[j] != c->fish[a])
            near = fmin(near, d[a * n + j]);
    }
    plain_add(s, config, isfinite(near) ? far - near : 0, any && isfinite(near));
}

/** The loss in f64 of rows x [n, dim]. `mined` (Algorithm 1 only): the triplets drawn, [n, slots].
 */
static inline sh_loss_stats plain_loss(const loss_case *c, const double *x,
                                       const sh_loss_config *config, const sh_triplet *mined,
                                       int64_t slots)
{
    static double d[CASE_MAX_N * CASE_MAX_N];
    int64_t n = c->batch.n, n_pairs = 0;
    plain_sums s = {0};

    for (int64_t i = 0; i < n * n; i++)
        d[i] = plain_distance(x, c->batch.dim, config->distance, i / n, i % n);
    for (int64_t a = 0; a < n; a++) {
        if (config->kind == SH_LOSS_BATCH_HARD) plain_batch_hard(c, config, d, a, &s);
        for (int64_t p = 0; p < n; p++) {
            if (p == a || c->labels[p] != c->labels[a]) continue;
            n_pairs++;
            if (config->kind == SH_LOSS_SEMI_HARD) plain_semi_hard(c, config, d, a, p, &s);
            if (config->kind < SH_LOSS_BATCH_ALL) continue;
            for (int64_t j = 0; j < n; j++)
                if (c->labels[j] != c->labels[a] && c->fish[j] != c->fish[a] &&
                    plain_fits(config, d[a * n + p], d[a * n + j]))
                    plain_add(&s, config, d[a * n + p] - d[a * n + j], true);
        }
    }
    for (int64_t at = 0; config->kind == SH_LOSS_ALGORITHM1 && at < n * slots; at++)
        if (mined[at].negative >= 0)
            plain_add(&s, config,
                      d[at / slots * n + mined[at].positive] -
                          d[at / slots * n + mined[at].negative],
                      true);

    double denominator = config->kind == SH_LOSS_SEMI_HARD    ? (double)n_pairs
                         : config->kind == SH_LOSS_BATCH_HARD ? (double)n
                         : config->reduction == SH_SUM        ? 1
                         : config->reduction == SH_MEAN       ? (double)s.n
                                                              : (double)s.n_active;

    return (sh_loss_stats){.loss = denominator > 0 ? s.loss / denominator : 0,
                           .n_pairs = n_pairs,
                           .n_triplets = s.n,
                           .n_active = s.n_active};
}

#endif
