// SPDX-License-Identifier: Apache-2.0
// timeout: 120
/** Classification losses: head, loss and gradients against their definitions in f64. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <omp.h>

#include "base/rng.h"
#include "models/class_net.h"

enum { N = 14, DIM = 6, CLASSES = 5, MAX_CENTRES = 3 };

typedef struct class_case {
    sh_class_config config;
    bool weighted, sided; /* sided: classes 1 and 3 are sides of one fish */
} class_case;

static const class_case cases[] = {
    {{.kind = SH_CLASS_CROSS_ENTROPY, .n_centres = 1}, false, false},
    {{.kind = SH_CLASS_CROSS_ENTROPY, .n_centres = 1, .smoothing = 0.1f}, false, false},
    {{.kind = SH_CLASS_CROSS_ENTROPY, .n_centres = 1}, true, false},
    {{.kind = SH_CLASS_CROSS_ENTROPY, .n_centres = 1, .smoothing = 0.2f}, true, false},
    {{.kind = SH_CLASS_ARCFACE, .n_centres = 1, .scale = 16, .margin = 0.5f}, false, false},
    {{.kind = SH_CLASS_ARCFACE, .n_centres = 1, .scale = 4, .margin = 1.5f}, false, false},
    {{.kind = SH_CLASS_ARCFACE, .n_centres = 3, .scale = 8, .margin = 0.3f}, false, false},
    {{.kind = SH_CLASS_ARCFACE, .n_centres = 2, .scale = 8, .margin = 0.3f, .smoothing = 0.1f},
     true,
     false},
    {{.kind = SH_CLASS_ARCFACE, .n_centres = 2, .scale = 8, .margin = 0.3f, .smoothing = 0.2f},
     false,
     true},
    {{.kind = SH_CLASS_CROSS_ENTROPY, .n_centres = 1}, true, true},
};
static const float class_weights[CLASSES] = {0.5f, 2, 1, 0.25f, 3};
static const int32_t class_fish[CLASSES] = {0, 1, 2, 1, 3};

typedef struct batch {
    double x[N * DIM];
    float weight[CLASSES * MAX_CENTRES * DIM];
    int32_t labels[N];
} batch;

/* Row 4 has no label. */
static void make_batch(batch *b, uint64_t seed)
{
    sh_rng_key key = sh_rng_make(seed, SH_RNG_TEST, 0, 0);

    for (int i = 0; i < N * DIM; i++) b->x[i] = (float)sh_rng_normal(key, (uint64_t)i);
    for (size_t i = 0; i < SH_COUNT(b->weight); i++)
        b->weight[i] = (float)sh_rng_normal(key, 1000 + i);
    for (int i = 0; i < N; i++) b->labels[i] = i == 4 ? -1 : i * 3 % CLASSES;
}

/* ---- the definition ---- */

static double length(const double *x)
{
    double sum = 0;

    for (int k = 0; k < DIM; k++) sum += x[k] * x[k];
    return sqrt(sum);
}

static double plain_logit(const sh_class_config *c, const double *x, const double *weight,
                          int64_t class_index)
{
    double best = -INFINITY;

    for (int64_t k = 0; k < c->n_centres; k++) {
        const double *w = weight + (class_index * c->n_centres + k) * DIM;
        double dot = 0;

        for (int d = 0; d < DIM; d++) dot += x[d] * w[d];
        best = fmax(best, c->kind == SH_CLASS_ARCFACE ? dot / length(x) / length(w) : dot);
    }
    return best;
}

static double plain(const class_case *c, const batch *b, const double *x, const double *weight,
                    int64_t *n_correct)
{
    double total = 0, weights = 0;

    *n_correct = 0;
    for (int i = 0; i < N; i++) {
        double z[CLASSES], sum = 0, largest = -INFINITY;
        int32_t y = b->labels[i];

        bool out[CLASSES] = {false};
        int n_in = 0;

        if (y < 0) continue;
        for (int k = 0; k < CLASSES; k++) {
            out[k] = c->sided && k != y && class_fish[k] == class_fish[y];
            n_in += !out[k];
            z[k] = plain_logit(&c->config, x + i * DIM, weight, k);
            if (k != y && !out[k]) largest = fmax(largest, z[k]);
        }
        *n_correct += z[y] > largest;
        if (c->config.kind == SH_CLASS_ARCFACE) {
            double m = c->config.margin, angle = acos(z[y]);

            z[y] = angle <= acos(-1) - m ? cos(angle + m) : z[y] - m * sin(m);
            for (int k = 0; k < CLASSES; k++) z[k] *= c->config.scale;
        }
        for (int k = 0; k < CLASSES; k++) sum += out[k] ? 0 : exp(z[k]);
        for (int k = 0; k < CLASSES; k++) {
            double w = c->weighted ? class_weights[k] : 1;
            double target =
                c->config.smoothing / n_in + (k == y ? 1 - (double)c->config.smoothing : 0);

            if (!out[k]) total += w * target * (log(sum) - z[k]);
        }
        weights += c->weighted ? class_weights[y] : 1;
    }
    return total / weights;
}

/* ---- what is computed ---- */

static class_result run(const class_case *c, const batch *b, const char *backend, int n_ranks)
{
    sh_class_config config = c->config;

    config.n_classes = CLASSES;
    return class_run(backend, &config, c->weighted ? class_weights : NULL,
                     c->sided ? class_fish : NULL, b->x, N, DIM, b->labels, b->weight, n_ranks);
}

/* (plain(v + h) - plain(v - h)) / 2h for one entry of x or weight. */
static double difference(const class_case *c, const batch *b, const double *x, double *weight,
                         double *entry)
{
    const double h = 1e-6, v = *entry;
    int64_t unused;

    *entry = v + h;
    double up = plain(c, b, x, weight, &unused);

    *entry = v - h;
    double down = plain(c, b, x, weight, &unused);

    *entry = v;
    return (up - down) / (2 * h);
}

static void check_case(const class_case *c, const char *backend)
{
    batch b;
    double x[N * DIM], weight[CLASSES * MAX_CENTRES * DIM], largest = 0, largest_weight = 0;
    int64_t n_weight = CLASSES * c->config.n_centres * DIM, n_correct;

    make_batch(&b, 3);
    class_result r = run(c, &b, backend, 1);

    memcpy(x, b.x, sizeof(x));
    for (int64_t i = 0; i < n_weight; i++) weight[i] = b.weight[i];
    double expected = plain(c, &b, x, weight, &n_correct);

    assert_int_equal(r.stats.n_rows, N - 1);
    assert_int_equal(r.stats.n_correct, n_correct);
    assert_true(n_correct > 0 && n_correct < N - 1);
    assert_true(expected > 0.1);
    assert_true(fabs(r.stats.loss - expected) <= 1e-6 * expected);
    for (int i = 0; i < N * DIM; i++) largest = fmax(largest, fabs(r.grad[i]));
    for (int64_t i = 0; i < n_weight; i++)
        largest_weight = fmax(largest_weight, fabsf(r.grad_weight[i]));
    for (int i = 0; i < N * DIM; i++) {
        double slope = difference(c, &b, x, weight, &x[i]);

        if (fabs(slope - r.grad[i]) > 2e-6 * largest)
            fail_msg("case %d on %s: gradient %d is %g, differences give %g", (int)(c - cases),
                     backend, i, r.grad[i], slope);
        if (b.labels[i / DIM] < 0) assert_true(r.grad[i] == 0);
    }
    for (int64_t i = 0; i < n_weight; i++) {
        double slope = difference(c, &b, x, weight, &weight[i]);

        if (fabs(slope - r.grad_weight[i]) > 2e-6 * largest_weight)
            fail_msg("case %d on %s: weight gradient %d is %g, differences give %g",
                     (int)(c - cases), backend, (int)i, r.grad_weight[i], slope);
    }
    class_free(&r);
}

static void head_and_loss__agree_with_definition_and_finite_differences(void **state)
{
    (void)state;
    for (size_t k = 0; k < SH_COUNT(cases); k++) {
        check_case(&cases[k], "ref");
        check_case(&cases[k], "cpu");
    }
}

static void loss__has_the_same_bytes_on_any_ranks_and_threads(void **state)
{
    int threads = omp_get_max_threads();
    batch b;

    (void)state;
    make_batch(&b, 4);
    for (size_t k = 0; k < SH_COUNT(cases); k++) {
        omp_set_num_threads(1);
        class_result one = run(&cases[k], &b, "cpu", 1);

        for (int n_ranks = 2; n_ranks <= 5; n_ranks++) {
            omp_set_num_threads(n_ranks % 3 + 1);
            class_result many = run(&cases[k], &b, "cpu", n_ranks);
            size_t n_weight = (size_t)(CLASSES * cases[k].config.n_centres * DIM);

            assert_memory_equal(&many.stats, &one.stats, sizeof(one.stats));
            assert_memory_equal(many.grad, one.grad, N * DIM * sizeof(double));
            assert_memory_equal(many.grad_weight, one.grad_weight, n_weight * sizeof(float));
            class_free(&many);
        }
        class_free(&one);
    }
    omp_set_num_threads(threads);
}

/* ---- edges: the loss alone ---- */

static const sh_class_config arcface = {
    .kind = SH_CLASS_ARCFACE, .n_classes = 2, .n_centres = 1, .scale = 64, .margin = 0.5f};

/* One row of class 0 with these cosines; returns its gradient. */
static sh_class_stats run_row(const float logits[2], float grad[2])
{
    sh_class_loss *loss = NULL;
    sh_class_row row;
    sh_class_stats stats;
    const int32_t label = 0;

    assert_ok(sh_class_loss_create(&arcface, NULL, NULL, NULL, 1, &loss));
    assert_ok(sh_class_loss_begin(loss, &label, 1));
    assert_ok(sh_class_loss_choose(loss, logits, 0, 1, &row));
    assert_ok(sh_class_loss_apply(loss, &row, logits, 0, 1, 1, &stats, grad));
    sh_class_loss_destroy(&loss);
    return stats;
}

static void arcface__is_finite_at_and_beyond_the_ends(void **state)
{
    static const float cosines[] = {1.0000001f, 1, 0.99999994f, -0.9f, -1, -1.0000001f};

    (void)state;
    for (size_t k = 0; k < SH_COUNT(cosines); k++) {
        float grad[2];
        sh_class_stats stats = run_row((float[2]){cosines[k], 0.2f}, grad);

        assert_true(isfinite(stats.loss) && stats.loss >= 0);
        assert_true(isfinite(grad[0]) && isfinite(grad[1]));
        assert_true(grad[0] <= 0 && grad[1] >= 0);
        assert_int_equal(stats.n_correct, cosines[k] > 0.2f);
    }
}

static void arcface__never_rises_with_the_cosine(void **state)
{
    double before = INFINITY;
    float grad[2];

    (void)state;
    for (int i = -1000; i <= 1000; i++) {
        double cost = run_row((float[2]){(float)i / 1000, 0}, grad).loss;

        assert_true(cost <= before);
        before = cost;
    }
}

static void loss__passes_on_what_is_not_finite(void **state)
{
    float grad[2];

    (void)state;
    assert_true(isnan(run_row((float[2]){0.5f, NAN}, grad).loss));
    assert_true(isnan(run_row((float[2]){NAN, 0.5f}, grad).loss));
}

static void loss__of_rows_without_labels_is_zero(void **state)
{
    sh_class_loss *loss = NULL;
    sh_class_row rows[2];
    sh_class_stats stats;
    const int32_t labels[2] = {-1, -1};
    const float logits[4] = {0.1f, 0.2f, 0.3f, 0.4f};
    float grad[4];

    (void)state;
    assert_ok(sh_class_loss_create(&arcface, NULL, NULL, NULL, 2, &loss));
    assert_ok(sh_class_loss_begin(loss, labels, 2));
    assert_ok(sh_class_loss_choose(loss, logits, 0, 2, rows));
    assert_ok(sh_class_loss_apply(loss, rows, logits, 0, 2, 1, &stats, grad));
    assert_true(stats.loss == 0);
    assert_int_equal(stats.n_rows, 0);
    for (int i = 0; i < 4; i++) assert_true(grad[i] == 0);
    sh_class_loss_destroy(&loss);
}

static void sub_centres__leave_all_but_the_nearest_alone(void **state)
{
    sh_class_config config = arcface;
    sh_class_loss *loss = NULL;
    sh_class_row row;
    sh_class_stats stats;
    const int32_t label = 0;
    const float logits[6] = {0.1f, 0.3f, 0.3f, -0.2f, -0.5f, 0.25f};
    float grad[6];

    (void)state;
    config.n_centres = 3;
    config.scale = 2;
    assert_ok(sh_class_loss_create(&config, NULL, NULL, NULL, 1, &loss));
    assert_ok(sh_class_loss_begin(loss, &label, 1));
    assert_ok(sh_class_loss_choose(loss, logits, 0, 1, &row));
    assert_ok(sh_class_loss_apply(loss, &row, logits, 0, 1, 1, &stats, grad));
    for (int i = 0; i < 6; i++) assert_int_equal(grad[i] != 0, i == 1 || i == 5);
    sh_class_loss_destroy(&loss);
}

static void create_and_begin__refuse_what_cannot_be(void **state)
{
    static const sh_class_config wrong[] = {
        {.kind = SH_CLASS_NONE, .n_classes = 2, .n_centres = 1},
        {.kind = SH_CLASS_CROSS_ENTROPY, .n_classes = 1, .n_centres = 1},
        {.kind = SH_CLASS_CROSS_ENTROPY, .n_classes = 2, .n_centres = 2},
        {.kind = SH_CLASS_CROSS_ENTROPY, .n_classes = 2, .n_centres = 1, .smoothing = 1},
        {.kind = SH_CLASS_ARCFACE, .n_classes = 2, .n_centres = 1, .margin = 0.5f},
        {.kind = SH_CLASS_ARCFACE, .n_classes = 2, .n_centres = 1, .scale = 1, .margin = 2},
    };
    sh_class_loss *loss = NULL;
    const int32_t label = 2;

    (void)state;
    for (size_t i = 0; i < SH_COUNT(wrong); i++) {
        assert_int_equal(sh_class_loss_create(&wrong[i], NULL, NULL, NULL, 4, &loss), SH_ERR_USAGE);
        assert_null(loss);
    }
    assert_int_equal(sh_class_loss_create(&arcface, NULL, (float[2]){1, -1}, NULL, 4, &loss),
                     SH_ERR_USAGE);
    assert_ok(sh_class_loss_create(&arcface, NULL, NULL, NULL, 1, &loss));
    assert_int_equal(sh_class_loss_begin(loss, &label, 1), SH_ERR_MISMATCH);
    sh_class_loss_destroy(&loss);
}

/* ---- several outputs ---- */

/* Gradient of parameter "fc.weight" under cotangents of 1 for the outputs asked for: bit 0 the
 * embedding, bit 1 the logits. */
static void gradient_of_outputs(int which, float grad[DIM * 4])
{
    const sh_backend *backend = NULL;
    sh_store *store = NULL;
    sh_program *p = NULL;
    sh_buffer *arena = NULL, *reduce = NULL;
    sh_value outputs[2], chosen[2], dy[2];
    sh_class_config config = arcface;
    batch b;
    int n = 0;
    float ones[N * DIM];

    make_batch(&b, 5);
    assert_ok(sh_backend_find("cpu", &backend));
    assert_ok(sh_store_create(backend, &store));
    assert_ok(sh_program_create(
        &(sh_program_config){
            .backend = backend, .store = store, .training = true, .share = 1, .prefix = ""},
        &p));
    sh_value x = sh_program_input(p, "x", (int64_t[4]){N, DIM, 1, 1});
    sh_value f = sh_op_linear(p, sh_op_flatten(p, x), "fc", 4, false);

    config.n_classes = CLASSES;
    outputs[0] = sh_program_output(p, "embedding", sh_op_l2_norm(p, f));
    outputs[1] = sh_program_output(p, "logits", sh_class_head(p, f, "loss.weight", &config));
    for (int i = 0; i < 2; i++)
        if (which >> i & 1) chosen[n++] = outputs[i];
    assert_ok(sh_program_differentiate_all(p, n, chosen, SH_NO_VALUE, dy, NULL));
    assert_ok(sh_program_plan(p));
    assert_ok(sh_store_allocate(store));
    assert_ok(sh_store_init(store, 3));
    assert_ok(backend->alloc(sh_program_arena_bytes(p), &arena));
    assert_ok(backend->alloc((size_t)sh_store_n_params(store) * sizeof(float), &reduce));
    sh_run_args args = {.arena = arena, .reduce = reduce};

    write_value(p, arena, x, b.x);
    assert_ok(sh_program_run(p, SH_PHASE_FORWARD, &args));
    for (size_t i = 0; i < SH_COUNT(ones); i++) ones[i] = 1;
    for (int i = 0; i < n; i++) assert_ok(sh_program_write(p, arena, dy[i], ones));
    assert_ok(sh_program_run(p, SH_PHASE_BACKWARD, &args));
    int64_t at = sh_store_slot(store, sh_store_find(store, "fc.weight"))->offset;

    assert_ok(backend->copy_out(reduce, (size_t)at * sizeof(float), grad, DIM * 4 * sizeof(float)));
    backend->free(&arena);
    backend->free(&reduce);
    sh_program_destroy(&p);
    sh_store_destroy(&store);
}

static void differentiate_all__adds_the_gradients_of_its_outputs(void **state)
{
    float embedding[DIM * 4], logits[DIM * 4], both[DIM * 4], largest = 0;

    (void)state;
    gradient_of_outputs(1, embedding);
    gradient_of_outputs(2, logits);
    gradient_of_outputs(3, both);
    for (int i = 0; i < DIM * 4; i++) largest = fmaxf(largest, fabsf(both[i]));
    for (int i = 0; i < DIM * 4; i++) {
        assert_true(fabsf(both[i] - (embedding[i] + logits[i])) <= 2e-6f * largest);
        assert_true(embedding[i] != 0 && logits[i] != 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(head_and_loss__agree_with_definition_and_finite_differences),
        cmocka_unit_test(loss__has_the_same_bytes_on_any_ranks_and_threads),
        cmocka_unit_test(arcface__is_finite_at_and_beyond_the_ends),
        cmocka_unit_test(arcface__never_rises_with_the_cosine),
        cmocka_unit_test(loss__passes_on_what_is_not_finite),
        cmocka_unit_test(loss__of_rows_without_labels_is_zero),
        cmocka_unit_test(sub_centres__leave_all_but_the_nearest_alone),
        cmocka_unit_test(create_and_begin__refuse_what_cannot_be),
        cmocka_unit_test(differentiate_all__adds_the_gradients_of_its_outputs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
