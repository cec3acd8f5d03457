// SPDX-License-Identifier: Apache-2.0
// timeout: 120
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>
#include <omp.h>

#include "models/loss_cases.h"

static const sh_loss_kind triplet_kinds[] = {
    SH_LOSS_SEMI_HARD, SH_LOSS_BATCH_HARD,    SH_LOSS_ALGORITHM1,
    SH_LOSS_BATCH_ALL, SH_LOSS_PML_SEMI_HARD, SH_LOSS_PML_HARD,
};

typedef struct step {
    sh_loss_stats stats;
    float *grad;      /* [n, dim] */
    void *choices;    /* [n, choice_bytes] */
    size_t row_bytes; /* choice_bytes */
} step;

/* One step of n_ranks ranks: each chooses for its rows, all choices meet, each applies. */
static step step_run(const sh_loss_config *config, const sh_loss_batch *batch, int n_ranks)
{
    step s = {.grad = malloc((size_t)(batch->n * batch->dim) * sizeof(float))};
    sh_loss *loss = NULL;

    assert_int_equal(sh_loss_create(config, NULL, batch->n, batch->dim, &loss), SH_OK);
    s.row_bytes = sh_loss_choice_bytes(loss);
    s.choices = calloc((size_t)batch->n, s.row_bytes + 1);
    assert_int_equal(sh_loss_begin(loss, batch), SH_OK);
    for (int pass = 0; pass < 2; pass++)
        for (int r = 0; r < n_ranks; r++) {
            int64_t begin = batch->n * r / n_ranks, end = batch->n * (r + 1) / n_ranks;

            if (pass == 0) {
                assert_int_equal(sh_loss_choose(loss, batch, begin, end,
                                                (char *)s.choices + (size_t)begin * s.row_bytes),
                                 SH_OK);
            } else {
                assert_int_equal(sh_loss_apply(loss, batch, s.choices, begin, end, &s.stats,
                                               s.grad + begin * batch->dim),
                                 SH_OK);
            }
        }
    sh_loss_destroy(&loss);
    return s;
}

static void step_free(step *s)
{
    free(s->grad);
    free(s->choices);
}

/* Every kind, distance and way to cost a triplet, except for contrastive pairs. */
typedef void config_visitor(const sh_loss_config *config);

static void for_each_config(config_visitor *visit)
{
    for (size_t k = 0; k < SH_COUNT(triplet_kinds); k++)
        for (int distance = SH_EUCLIDEAN; distance <= SH_COSINE; distance++)
            for (int soft = 0; soft < 2; soft++)
                visit(&(sh_loss_config){.kind = triplet_kinds[k],
                                        .distance = (sh_distance)distance,
                                        .soft = soft,
                                        .margin = 0.3f,
                                        .reduction = (sh_reduction)((k + (size_t)distance) % 3),
                                        .seed = 5});
}

/* ---- what is computed ---- */

static void check_against_plain(const sh_loss_config *config)
{
    loss_case c;

    for (int sides = 1; sides <= 2; sides++) {
        case_make(&c, 26, 5, 4, sides, (uint64_t)(config->kind * 10 + sides));
        step s = step_run(config, &c.batch, 1);
        double x[26 * 5], largest = 0;
        int64_t slots = (int64_t)(s.row_bytes / sizeof(sh_triplet));

        for (int i = 0; i < 26 * 5; i++) x[i] = c.x[i];
        sh_loss_stats plain = plain_loss(&c, x, config, s.choices, slots);

        assert_true(plain.n_triplets > 0);
        assert_int_equal(s.stats.n_pairs, plain.n_pairs);
        assert_int_equal(s.stats.n_triplets, plain.n_triplets);
        assert_int_equal(s.stats.n_active, plain.n_active);
        assert_true(fabs(s.stats.loss - plain.loss) <= 1e-6 * fabs(plain.loss));
        for (int i = 0; i < 26 * 5; i++) largest = fmax(largest, fabsf(s.grad[i]));
        assert_true(largest > 0);
        for (int i = 0; i < 26 * 5; i++) {
            double h = 1e-6, slope;

            x[i] = c.x[i] + h;
            slope = plain_loss(&c, x, config, s.choices, slots).loss;
            x[i] = c.x[i] - h;
            slope = (slope - plain_loss(&c, x, config, s.choices, slots).loss) / (2 * h);
            x[i] = c.x[i];
            if (fabs(slope - s.grad[i]) > 2e-5 * largest)
                fail_msg("%s, distance %d, soft %d, sides %d: gradient %d is %g, differences %g",
                         sh_loss_kind_name(config->kind), (int)config->distance, config->soft,
                         sides, i, s.grad[i], slope);
        }
        step_free(&s);
        case_free(&c);
    }
}

static void apply__agrees_with_all_triples_and_finite_differences(void **state)
{
    (void)state;
    for_each_config(check_against_plain);
}

static void contrastive__agrees_with_finite_differences(void **state)
{
    (void)state;
    for (int distance = SH_EUCLIDEAN; distance <= SH_COSINE; distance++) {
        sh_loss_config config = {
            .kind = SH_LOSS_CONTRASTIVE, .distance = (sh_distance)distance, .margin = 1.5f};
        loss_case c;

        case_make(&c, 25, 6, 3, 2, 3);
        step s = step_run(&config, &c.batch, 3);
        double x[25 * 6], d[2];
        int64_t n_pairs = 0;

        for (int i = 0; i < 25 * 6; i++) x[i] = c.x[i];
        for (int64_t i = 0; i + 1 < 25; i += 2)
            n_pairs += c.labels[i] == c.labels[i + 1] || c.fish[i] != c.fish[i + 1];
        assert_true(n_pairs > 0 && n_pairs < 12);
        assert_int_equal(s.stats.n_triplets, n_pairs);
        for (int64_t at = 0; at < 25 * 6; at++) {
            int64_t i = at / 6 / 2 * 2;
            double slope = 0;

            if (i + 1 < 25 && (c.labels[i] == c.labels[i + 1] || c.fish[i] != c.fish[i + 1])) {
                for (int side = 0; side < 2; side++) {
                    x[at] = c.x[at] + (side ? -1e-6 : 1e-6);
                    d[side] = plain_distance(x, 6, (sh_distance)distance, i, i + 1);
                    double left = fmax(0, 1.5 - d[side]);

                    d[side] = c.labels[i] == c.labels[i + 1] ? d[side] * d[side] : left * left;
                }
                x[at] = c.x[at];
                slope = (d[0] - d[1]) / 2e-6 / (double)n_pairs;
            }
            assert_true(fabs(slope - s.grad[at]) < 1e-5); /* the 1e-6 inside D is not in d */
        }
        step_free(&s);
        case_free(&c);
    }
}

static void apply__permutes_with_the_batch(void **state)
{
    (void)state;
    for (size_t k = 0; k < SH_COUNT(triplet_kinds); k++) {
        sh_loss_config config = {.kind = triplet_kinds[k], .margin = 0.3f};
        loss_case c, p;

        if (config.kind == SH_LOSS_ALGORITHM1) continue; /* draws are keyed by row */
        case_make(&c, 61, 9, 9, 1, 4);
        case_make(&p, 61, 9, 9, 1, 4);
        for (int64_t i = 0; i < 61; i++) {
            int64_t from = i * 17 % 61;

            p.labels[i] = c.labels[from];
            p.fish[i] = c.fish[from];
            memcpy(p.x + i * 9, c.x + from * 9, 9 * sizeof(float));
        }
        step s = step_run(&config, &c.batch, 1), t = step_run(&config, &p.batch, 1);

        assert_int_equal(s.stats.n_triplets, t.stats.n_triplets);
        assert_true(fabs(s.stats.loss - t.stats.loss) < 1e-12 * s.stats.loss + 1e-7);
        for (int64_t at = 0; at < 61 * 9; at++)
            assert_true(fabsf(t.grad[at] - s.grad[at / 9 * 17 % 61 * 9 + at % 9]) < 1e-6f);
        step_free(&s);
        step_free(&t);
        case_free(&c);
        case_free(&p);
    }
}

/* ---- exactness ---- */

static void check_ranks_and_threads(const sh_loss_config *config)
{
    loss_case c;
    int threads = omp_get_max_threads();

    case_make(&c, 97, 19, 10, 2, 11);
    omp_set_num_threads(1);
    step one = step_run(config, &c.batch, 1);

    for (int n_ranks = 1; n_ranks <= 5; n_ranks++) {
        omp_set_num_threads(n_ranks % 3 + 1);
        step many = step_run(config, &c.batch, n_ranks);

        assert_memory_equal(&many.stats, &one.stats, sizeof(one.stats));
        assert_memory_equal(many.choices, one.choices, 97 * one.row_bytes);
        assert_memory_equal(many.grad, one.grad, 97 * 19 * sizeof(float));
        step_free(&many);
    }
    omp_set_num_threads(threads);
    step_free(&one);
    case_free(&c);
}

static void step__has_the_same_bytes_on_any_ranks_and_threads(void **state)
{
    (void)state;
    for_each_config(check_ranks_and_threads);
    check_ranks_and_threads(&(sh_loss_config){.kind = SH_LOSS_CONTRASTIVE, .margin = 2});
}

static void choose__does_not_depend_on_the_room_for_choices(void **state)
{
    sh_loss_config roomy = {.margin = 0.2f}, tight = {.margin = 0.2f, .max_per_label = 9};
    loss_case c;

    (void)state;
    case_make(&c, 50, 8, 6, 1, 2);
    step a = step_run(&roomy, &c.batch, 1), b = step_run(&tight, &c.batch, 2);

    assert_true(b.row_bytes == 8 * sizeof(sh_triplet) && a.row_bytes > b.row_bytes);
    assert_memory_equal(&a.stats, &b.stats, sizeof(a.stats));
    assert_memory_equal(a.grad, b.grad, 50 * 8 * sizeof(float));
    step_free(&a);
    step_free(&b);
    case_free(&c);
}

/* ---- Algorithm 1 ---- */

static void algorithm1__draws_evenly_among_the_violating(void **state)
{
    enum { STEPS = 4000 };
    sh_loss_config config = {.kind = SH_LOSS_ALGORITHM1, .margin = 0.2f, .seed = 99};
    static int64_t drawn[30][30];
    int32_t counts[30 * 30];
    sh_loss *loss = NULL;
    loss_case c;
    double chi2 = 0;
    int64_t freedom = 0;

    (void)state;
    case_make(&c, 30, 4, 6, 1, 8);
    assert_int_equal(sh_loss_create(&config, NULL, 30, 4, &loss), SH_OK);
    assert_int_equal(sh_loss_count_candidates(loss, &c.batch, counts), SH_OK);
    size_t row_bytes = sh_loss_choice_bytes(loss), slots = row_bytes / sizeof(sh_triplet);
    sh_triplet *triplets = calloc(30, row_bytes);

    for (uint64_t s = 0; s < STEPS; s++) {
        c.batch.step = s;
        assert_int_equal(sh_loss_begin(loss, &c.batch), SH_OK);
        assert_int_equal(sh_loss_choose(loss, &c.batch, 0, 30, triplets), SH_OK);
        for (size_t at = 0; at < 30 * slots; at++) {
            const sh_triplet *t = &triplets[at];

            if (t->negative < 0) continue;
            int64_t a = (int64_t)(at / slots);

            assert_true(c.labels[t->positive] == c.labels[a] && t->positive != a);
            assert_true(c.labels[t->negative] != c.labels[a]);
            assert_true(t->d_an - t->d_ap < 0.2f + 1e-6f);
            if (at % slots == 0) drawn[a][t->negative]++;
        }
    }
    for (int64_t a = 0; a < 30; a++) {
        int64_t first = c.labels[a] == c.labels[0] ? 0 : -1, n_seen = 0;

        for (int64_t j = 0; first < 0; j++)
            if (j != a && c.labels[j] == c.labels[a]) first = j;
        if (first == a)
            for (first = a + 1; c.labels[first] != c.labels[a];) first++;
        int32_t n = counts[a * 30 + first];

        for (int64_t j = 0; j < 30; j++) {
            if (drawn[a][j] == 0) continue;
            double expected = (double)STEPS / n;

            n_seen++;
            chi2 += (drawn[a][j] - expected) * (drawn[a][j] - expected) / expected;
        }
        assert_int_equal(n_seen, n); /* 4000 draws among at most 25: each is seen */
        freedom += n > 0 ? n - 1 : 0;
    }
    assert_true(freedom > 100);
    assert_true(fabs(chi2 - (double)freedom) < 4 * sqrt(2.0 * (double)freedom));
    free(triplets);
    sh_loss_destroy(&loss);
    case_free(&c);
}

static void algorithm1__draws_by_seed_and_step(void **state)
{
    sh_loss_config config = {.kind = SH_LOSS_ALGORITHM1, .margin = 0.5f, .seed = 1};
    loss_case c;

    (void)state;
    case_make(&c, 40, 4, 8, 1, 8);
    step a = step_run(&config, &c.batch, 1), b = step_run(&config, &c.batch, 1);

    config.seed = 2;
    step other_seed = step_run(&config, &c.batch, 1);

    config.seed = 1;
    c.batch.step++;
    step other_step = step_run(&config, &c.batch, 1);

    assert_memory_equal(a.choices, b.choices, 40 * a.row_bytes);
    assert_memory_not_equal(a.choices, other_seed.choices, 40 * a.row_bytes);
    assert_memory_not_equal(a.choices, other_step.choices, 40 * a.row_bytes);
    step_free(&a);
    step_free(&b);
    step_free(&other_seed);
    step_free(&other_step);
    case_free(&c);
}

/* ---- edges ---- */

static void expect_nothing(const sh_loss_config *config)
{
    loss_case c;

    case_make(&c, 9, 4, 9, 1, 1); /* nine fish with one row each */
    step s = step_run(config, &c.batch, 2);

    assert_true(s.stats.loss == 0);
    assert_int_equal(s.stats.n_pairs, 0);
    assert_int_equal(s.stats.n_triplets, 0);
    assert_int_equal(s.stats.n_active, 0);
    for (int i = 0; i < 9 * 4; i++) assert_true(s.grad[i] == 0);
    step_free(&s);
    case_free(&c);
}

static void apply__without_positives_is_zero(void **state)
{
    (void)state;
    for_each_config(expect_nothing);
}

static void expect_no_triplets(const sh_loss_config *config)
{
    loss_case c;

    case_make(&c, 9, 4, 1, 1, 1); /* one fish: nothing is negative */
    step s = step_run(config, &c.batch, 2);

    assert_true(isfinite(s.stats.loss));
    assert_int_equal(s.stats.n_pairs, 9 * 8);
    assert_int_equal(s.stats.n_triplets, 0);
    for (int i = 0; i < 9 * 4; i++) assert_true(isfinite(s.grad[i]));
    step_free(&s);
    case_free(&c);
}

static void apply__without_negatives_is_finite(void **state)
{
    (void)state;
    for_each_config(expect_no_triplets);
}

static void expect_finite_when_collapsed(const sh_loss_config *config)
{
    loss_case c;

    case_make(&c, 20, 6, 5, 1, 1);
    for (int i = 0; i < 20 * 6; i++) c.x[i] = 0.3f * (float)(i % 6 + 1);
    step s = step_run(config, &c.batch, 3);

    assert_true(isfinite(s.stats.loss));
    for (int i = 0; i < 20 * 6; i++) assert_true(s.grad[i] == 0);
    step_free(&s);
    case_free(&c);
}

static void apply__of_equal_embeddings_has_zero_gradient(void **state)
{
    (void)state;
    for_each_config(expect_finite_when_collapsed);
}

static void expect_nan(const sh_loss_config *config)
{
    loss_case c;

    case_make(&c, 20, 6, 5, 1, 1);
    c.x[13 * 6 + 2] = INFINITY;
    step s = step_run(config, &c.batch, 2);

    assert_true(isnan(s.stats.loss));
    for (int i = 0; i < 20 * 6; i++) assert_true(isnan(s.grad[i]));
    step_free(&s);
    case_free(&c);
}

static void apply__passes_on_what_is_not_finite(void **state)
{
    (void)state;
    for_each_config(expect_nan);
}

static void choose__takes_the_smallest_of_equal_rows(void **state)
{
    sh_loss_config config = {.kind = SH_LOSS_SEMI_HARD, .margin = 1, .max_per_label = 2};
    /* Rows 0 and 1 are one fish, 2 apart; 3 and 5 lie beyond at the same distance, 2 and 4 nearer.
     */
    float x[] = {0, 2, 1, 4, 1, 4};
    int32_t labels[] = {0, 0, 1, 2, 3, 4};
    sh_loss_batch batch = {.embeddings = x, .labels = labels, .fish = labels, .n = 6, .dim = 1};

    (void)state;
    step s = step_run(&config, &batch, 1);

    assert_int_equal(((sh_triplet *)s.choices)[0].negative, 3);
    x[3] = x[5] = 1.5f; /* nothing beyond the positive: the farthest, again the first of two */
    step t = step_run(&config, &batch, 1);

    assert_int_equal(((sh_triplet *)t.choices)[0].negative, 3);
    step_free(&s);
    step_free(&t);
}

static void loss__refuses_what_was_not_agreed(void **state)
{
    sh_loss_config config = {.kind = SH_LOSS_SEMI_HARD, .margin = 1, .max_per_label = 3};
    sh_loss *loss = NULL;
    loss_case c;
    char room[20 * 3 * sizeof(sh_triplet)];

    (void)state;
    case_make(&c, 20, 6, 5, 1, 1); /* four rows per label */
    assert_int_equal(sh_loss_create(&config, NULL, 20, 6, &loss), SH_OK);
    assert_int_equal(sh_loss_begin(loss, &c.batch), SH_ERR_MISMATCH);
    assert_non_null(strstr(sh_error_message(), "max_per_label"));
    assert_int_equal(sh_loss_choose(loss, &c.batch, 0, 20, room), SH_ERR_MISMATCH);
    c.batch.n = 8; /* two rows per label */
    assert_int_equal(sh_loss_begin(loss, &c.batch), SH_OK);
    assert_int_equal(sh_loss_choose(loss, &c.batch, 0, 9, room), SH_ERR_MISMATCH);
    assert_int_equal(sh_loss_choose(loss, &c.batch, 0, 8, room), SH_OK);
    c.batch.n = 7;
    assert_int_equal(sh_loss_choose(loss, &c.batch, 0, 7, room), SH_ERR_MISMATCH);
    c.batch.dim = 5;
    assert_int_equal(sh_loss_begin(loss, &c.batch), SH_ERR_MISMATCH);
    sh_loss_destroy(&loss);
    config.kind = (sh_loss_kind)77;
    assert_int_equal(sh_loss_create(&config, NULL, 20, 6, &loss), SH_ERR_USAGE);
    assert_null(loss);
    case_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(apply__agrees_with_all_triples_and_finite_differences),
        cmocka_unit_test(contrastive__agrees_with_finite_differences),
        cmocka_unit_test(apply__permutes_with_the_batch),
        cmocka_unit_test(step__has_the_same_bytes_on_any_ranks_and_threads),
        cmocka_unit_test(choose__does_not_depend_on_the_room_for_choices),
        cmocka_unit_test(algorithm1__draws_evenly_among_the_violating),
        cmocka_unit_test(algorithm1__draws_by_seed_and_step),
        cmocka_unit_test(apply__without_positives_is_zero),
        cmocka_unit_test(apply__without_negatives_is_finite),
        cmocka_unit_test(apply__of_equal_embeddings_has_zero_gradient),
        cmocka_unit_test(apply__passes_on_what_is_not_finite),
        cmocka_unit_test(choose__takes_the_smallest_of_equal_rows),
        cmocka_unit_test(loss__refuses_what_was_not_agreed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
