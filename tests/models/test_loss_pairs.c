// SPDX-License-Identifier: Apache-2.0
// timeout: 120
/** The losses over all pairs, against their definitions written out in f64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>
#include <omp.h>

#include "models/loss_cases.h"

enum { N = 30, DIM = 5, MANY = 97 };

static const sh_loss_config configs[] = {
    {.kind = SH_LOSS_MULTI_SIMILARITY,
     .distance = SH_COSINE,
     .alpha = 2,
     .beta = 50,
     .base = 0.5f,
     .epsilon = 0.1f},
    {.kind = SH_LOSS_MULTI_SIMILARITY,
     .distance = SH_COSINE,
     .alpha = 18,
     .beta = 75,
     .base = 0.77f,
     .epsilon = 0.4f},
    {.kind = SH_LOSS_NT_XENT, .distance = SH_COSINE, .temperature = 0.07f},
    {.kind = SH_LOSS_NT_XENT, .distance = SH_COSINE, .temperature = 0.5f},
    {.kind = SH_LOSS_CONTRASTIVE_ALL, .distance = SH_EUCLIDEAN, .margin = 1},
    {.kind = SH_LOSS_CONTRASTIVE_ALL, .distance = SH_SQUARED, .margin = 1.5f},
    {.kind = SH_LOSS_CONTRASTIVE_ALL, .distance = SH_COSINE, .margin = 0.9f},
};

typedef struct step {
    sh_loss_stats stats;
    float *grad;           /* [n, dim] */
    sh_pair_sums *choices; /* [n] */
} step;

static step step_run(const sh_loss_config *config, const sh_loss_batch *batch, int n_ranks)
{
    step s = {.grad = malloc((size_t)(batch->n * batch->dim) * sizeof(float)),
              .choices = calloc((size_t)batch->n, sizeof(sh_pair_sums))};
    sh_loss *loss = NULL;

    assert_int_equal(sh_loss_create(config, NULL, batch->n, batch->dim, &loss), SH_OK);
    assert_int_equal(sh_loss_choice_bytes(loss), sizeof(sh_pair_sums));
    assert_int_equal(sh_loss_begin(loss, batch), SH_OK);
    for (int pass = 0; pass < 2; pass++)
        for (int r = 0; r < n_ranks; r++) {
            int64_t begin = batch->n * r / n_ranks, end = batch->n * (r + 1) / n_ranks;

            assert_int_equal(pass == 0 ? sh_loss_choose(loss, batch, begin, end, s.choices + begin)
                                       : sh_loss_apply(loss, batch, s.choices, begin, end, &s.stats,
                                                       s.grad + begin * batch->dim),
                             SH_OK);
        }
    sh_loss_destroy(&loss);
    return s;
}

static void step_free(step *s)
{
    free(s->grad);
    free(s->choices);
}

/* ---- the definitions ---- */

static bool is_positive(const loss_case *c, int64_t i, int64_t j)
{
    return i != j && c->labels[i] == c->labels[j];
}

static bool is_negative(const loss_case *c, int64_t i, int64_t j)
{
    return c->labels[i] != c->labels[j] && c->fish[i] != c->fish[j];
}

static double plain_similarity(const loss_case *c, const sh_loss_config *config, const double *d)
{
    int64_t n = c->batch.n;
    double total = 0;

    for (int64_t i = 0; i < n; i++) {
        double least = INFINITY, most = -INFINITY, positive = 0, negative = 0;

        for (int64_t j = 0; j < n; j++) {
            double s = 1 - d[i * n + j];

            if (is_positive(c, i, j)) least = fmin(least, s);
            if (is_negative(c, i, j)) most = fmax(most, s);
        }
        for (int64_t j = 0; j < n; j++) {
            double s = 1 - d[i * n + j];

            if (is_positive(c, i, j) && s - config->epsilon < most)
                positive += exp(-config->alpha * (s - config->base));
            if (is_negative(c, i, j) && s + config->epsilon > least)
                negative += exp(config->beta * (s - config->base));
        }
        total += log1p(positive) / config->alpha + log1p(negative) / config->beta;
    }
    return total / (double)n;
}

static double plain_xent(const loss_case *c, const sh_loss_config *config, const double *d)
{
    int64_t n = c->batch.n, n_pairs = 0;
    double total = 0;

    for (int64_t i = 0; i < n; i++) {
        double negatives = 0;

        for (int64_t j = 0; j < n; j++)
            if (is_negative(c, i, j)) negatives += exp((1 - d[i * n + j]) / config->temperature);
        for (int64_t j = 0; j < n; j++) {
            if (!is_positive(c, i, j)) continue;
            double e = exp((1 - d[i * n + j]) / config->temperature);

            total -= log(e / (e + negatives));
            n_pairs++;
        }
    }
    return n_pairs > 0 ? total / (double)n_pairs : 0;
}

static double plain_contrastive(const loss_case *c, const sh_loss_config *config, const double *d)
{
    int64_t n = c->batch.n, counts[2] = {0, 0};
    double sums[2] = {0, 0};

    for (int64_t at = 0; at < n * n; at++) {
        bool positive = is_positive(c, at / n, at % n);
        double cost = positive                         ? d[at]
                      : is_negative(c, at / n, at % n) ? fmax(0, config->margin - d[at])
                                                       : 0;

        sums[positive] += cost;
        counts[positive] += cost > 0;
    }
    return (counts[0] > 0 ? sums[0] / (double)counts[0] : 0) +
           (counts[1] > 0 ? sums[1] / (double)counts[1] : 0);
}

static double plain(const loss_case *c, const double *x, const sh_loss_config *config)
{
    static double d[CASE_MAX_N * CASE_MAX_N];
    int64_t n = c->batch.n;

    for (int64_t at = 0; at < n * n; at++)
        d[at] = plain_distance(x, c->batch.dim, config->distance, at / n, at % n);
    switch (config->kind) {
    case SH_LOSS_MULTI_SIMILARITY: return plain_similarity(c, config, d);
    case SH_LOSS_NT_XENT: return plain_xent(c, config, d);
    default: return plain_contrastive(c, config, d);
    }
}

/* ---- what is computed ---- */

static void check_against_plain(const sh_loss_config *config, int sides)
{
    loss_case c;
    double x[N * DIM], largest = 0;

    case_make(&c, N, DIM, 4, sides, (uint64_t)sides);
    step s = step_run(config, &c.batch, 1);

    for (int i = 0; i < N * DIM; i++) x[i] = c.x[i];
    double expected = plain(&c, x, config);

    assert_true(expected > 0.01);
    if (fabs(s.stats.loss - expected) > 2e-6 * expected)
        fail_msg("%s: loss %.9g, by definition %.9g", sh_loss_kind_name(config->kind), s.stats.loss,
                 expected);
    for (int i = 0; i < N * DIM; i++) largest = fmax(largest, fabsf(s.grad[i]));
    assert_true(largest > 0);
    for (int i = 0; i < N * DIM; i++) {
        const double h = 1e-6;

        x[i] = c.x[i] + h;
        double slope = plain(&c, x, config);

        x[i] = c.x[i] - h;
        slope = (slope - plain(&c, x, config)) / (2 * h);
        x[i] = c.x[i];
        if (fabs(slope - s.grad[i]) > 2e-5 * largest)
            fail_msg("%s, distance %d, sides %d: gradient %d is %g, differences give %g",
                     sh_loss_kind_name(config->kind), (int)config->distance, sides, i, s.grad[i],
                     slope);
    }
    step_free(&s);
    case_free(&c);
}

static void apply__agrees_with_definition_and_finite_differences(void **state)
{
    (void)state;
    for (size_t k = 0; k < SH_COUNT(configs); k++)
        for (int sides = 1; sides <= 2; sides++) check_against_plain(&configs[k], sides);
}

static void step__has_the_same_bytes_on_any_ranks_and_threads(void **state)
{
    int threads = omp_get_max_threads();

    (void)state;
    for (size_t k = 0; k < SH_COUNT(configs); k++) {
        loss_case c;

        case_make(&c, MANY, 19, 10, 2, 11);
        omp_set_num_threads(1);
        step one = step_run(&configs[k], &c.batch, 1);

        for (int n_ranks = 1; n_ranks <= 5; n_ranks++) {
            omp_set_num_threads(n_ranks % 3 + 1);
            step many = step_run(&configs[k], &c.batch, n_ranks);

            assert_memory_equal(&many.stats, &one.stats, sizeof(one.stats));
            assert_memory_equal(many.choices, one.choices, MANY * sizeof(sh_pair_sums));
            assert_memory_equal(many.grad, one.grad, MANY * 19 * sizeof(float));
            step_free(&many);
        }
        omp_set_num_threads(threads);
        step_free(&one);
        case_free(&c);
    }
}

/* ---- edges ---- */

static void multi_similarity__takes_only_pairs_that_the_miner_lets_pass(void **state)
{
    /* Two fish at right angles: similarity 1 within, 0 across, and nothing within 0.1 of it. */
    float x[] = {1, 0, 1, 0, 0, 1, 0, 1};
    int32_t labels[] = {0, 0, 1, 1};
    sh_loss_batch batch = {.embeddings = x, .labels = labels, .fish = labels, .n = 4, .dim = 2};

    (void)state;
    step s = step_run(&configs[0], &batch, 1);

    assert_true(s.stats.loss == 0);
    assert_int_equal(s.stats.n_pairs, 4);
    assert_int_equal(s.stats.n_triplets, 0);
    for (int i = 0; i < 8; i++) assert_true(s.grad[i] == 0);
    x[4] = 1; /* (1, 1) is at cos 45 degrees = 0.71 from both (1, 0) and (0, 1) */
    step t = step_run(&configs[0], &batch, 1);

    /* Rows 2 and 3 are alike by 0.71; to row 2 rows 0 and 1 are as near, so all three pass. Row 3
     * is beyond both of them. To rows 0 and 1 only each other's copy is nearer than row 2. */
    assert_int_equal(t.stats.n_triplets, 3);
    assert_true(t.stats.loss > 0);
    step_free(&s);
    step_free(&t);
}

static void apply__without_positives_or_negatives_is_finite(void **state)
{
    (void)state;
    for (size_t k = 0; k < SH_COUNT(configs); k++)
        for (int n_fish = 1; n_fish <= 9; n_fish += 8) {
            loss_case c;
            bool is_contrastive = configs[k].kind == SH_LOSS_CONTRASTIVE_ALL;

            case_make(&c, 9, 4, n_fish, 1, 1);
            step s = step_run(&configs[k], &c.batch, 2);

            assert_true(isfinite(s.stats.loss));
            assert_int_equal(s.stats.n_pairs, n_fish == 1 ? 72 : 0);
            if (!is_contrastive) assert_true(s.stats.loss == 0);
            for (int i = 0; i < 9 * 4; i++)
                assert_true(is_contrastive ? isfinite(s.grad[i]) : s.grad[i] == 0);
            step_free(&s);
            case_free(&c);
        }
}

static void apply__of_equal_embeddings_has_zero_gradient(void **state)
{
    (void)state;
    for (size_t k = 0; k < SH_COUNT(configs); k++) {
        loss_case c;

        case_make(&c, 20, 6, 5, 1, 1);
        for (int i = 0; i < 20 * 6; i++) c.x[i] = 0.3f * (float)(i % 6 + 1);
        step s = step_run(&configs[k], &c.batch, 3);

        assert_true(s.stats.loss > 0 && isfinite(s.stats.loss));
        for (int i = 0; i < 20 * 6; i++) assert_true(s.grad[i] == 0);
        step_free(&s);
        case_free(&c);
    }
}

static void apply__passes_on_what_is_not_finite(void **state)
{
    (void)state;
    for (size_t k = 0; k < SH_COUNT(configs); k++) {
        loss_case c;

        case_make(&c, 20, 6, 5, 1, 1);
        c.x[13 * 6 + 2] = NAN;
        step s = step_run(&configs[k], &c.batch, 2);

        assert_true(isnan(s.stats.loss));
        for (int i = 0; i < 20 * 6; i++) assert_true(isnan(s.grad[i]));
        step_free(&s);
        case_free(&c);
    }
}

static void create__refuses_other_distances_than_the_definition_has(void **state)
{
    sh_loss *loss = NULL;
    sh_loss_config config = configs[0];

    (void)state;
    config.distance = SH_EUCLIDEAN;
    assert_int_equal(sh_loss_create(&config, NULL, 20, 6, &loss), SH_ERR_USAGE);
    assert_non_null(strstr(sh_error_message(), "cosine"));
    assert_null(loss);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(apply__agrees_with_definition_and_finite_differences),
        cmocka_unit_test(step__has_the_same_bytes_on_any_ranks_and_threads),
        cmocka_unit_test(multi_similarity__takes_only_pairs_that_the_miner_lets_pass),
        cmocka_unit_test(apply__without_positives_or_negatives_is_finite),
        cmocka_unit_test(apply__of_equal_embeddings_has_zero_gradient),
        cmocka_unit_test(apply__passes_on_what_is_not_finite),
        cmocka_unit_test(create__refuses_other_distances_than_the_definition_has),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
