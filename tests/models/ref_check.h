// SPDX-License-Identifier: Apache-2.0
/** Whole networks against reference values computed in double by other libraries: logits, loss,
 *  gradients of the input and of every parameter, running statistics. A test file names its
 * networks as a table `cases` and includes ref_net_tests.h. */
#ifndef SH_TESTS_MODELS_REF_CHECK_H
#define SH_TESTS_MODELS_REF_CHECK_H

#include "ref_net.h"

enum { REF_CASES_MAX = 8 };

/** How far results are off the reference, or may be. */
typedef struct errors {
    double logits; /* in evaluation and training */
    double loss;
    double gradients;   /* norms and sums of magnitudes of all parameters; the input's norm */
    double param_norms; /* root mean square, over parameters, of the relative error of the norm */
    double elements;    /* figures of single parameters; sums, in which much cancels; elements */
    double statistics;
    char worst[256]; /* the parameter of the largest elements error */
} errors;

static inline double norm_of(const double *a, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++) sum += a[i] * a[i];
    return sqrt(sum);
}

static inline double distance(const double *a, const double *b, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(sum);
}

/** fmax that keeps a NaN, so that it fails. */
static inline void raise_to(double *worst, double error)
{
    if (!(error <= *worst)) *worst = error;
}

/* ---- comparing ---- */

static inline double *logits_of(fixture *f, sh_program *p, sh_value x, sh_value y)
{
    const sh_run_args args = {.arena = f->arena, .reduce = f->reduce};

    write_rule(f, p, x, "input", 1);
    assert_ok(sh_program_run(p, SH_PHASE_CONSTANTS, &args));
    assert_ok(sh_program_run(p, SH_PHASE_FORWARD, &args));
    return read_value(p, f->arena, y);
}

/** Distance of logits from the reference, relative to the reference. */
static inline double logits_error(fixture *f, const double *logits, const char *name)
{
    int64_t n = 0;
    double *expected = ref_read(f->file, name, &n);
    double error = distance(logits, expected, n) / norm_of(expected, n);

    assert_int_equal(n, f->dims[0] * f->n_classes);
    free(expected);
    return error;
}

/** Of the loss that these logits have. It is a sum of terms of both signs: its error is measured
 *  against the size of the terms. */
static inline double loss_error(fixture *f, const double *logits)
{
    uint64_t hash = ref_hash(f->salt, "cotangent");
    double loss = 0, size = 0;
    int64_t n = 0;
    double *expected = ref_read(f->file, "train/loss", &n);

    for (int64_t i = 0; i < f->dims[0] * f->n_classes; i++) {
        double term = logits[i] * ref_unit(hash, (uint64_t)i) / (double)f->dims[0];

        loss += term;
        size += term * term;
    }
    double error = fabs(loss - *expected) / sqrt(size);

    free(expected);
    return error;
}

/** Of the loss of the reference's own logits, which are kept in f32. */
static inline double reference_loss_error(fixture *f)
{
    int64_t n = 0;
    double *logits = ref_read(f->file, "train/logits", &n);
    double error = loss_error(f, logits);

    free(logits);
    return error;
}

/** Of its norm over all images, and of the first elements of each image. */
static inline void input_gradient_errors(fixture *f, double *norm_error, double *element_error)
{
    int64_t n = 0, n_norm = 0, per_image = f->dims[1] * f->dims[2] * f->dims[3];
    double *expected = ref_read(f->file, "train/input_grad", &n);
    double *norm = ref_read(f->file, "train/input_grad_norm", &n_norm);
    double *gradient = read_value(f->train, f->arena, f->dx);
    int64_t n_shown = n / f->dims[0];
    double *shown = malloc((size_t)n * sizeof(*shown));

    assert_non_null(shown);
    for (int64_t i = 0; i < n; i++) shown[i] = gradient[i / n_shown * per_image + i % n_shown];
    *element_error = distance(shown, expected, n) / norm_of(expected, n);
    *norm_error = fabs(norm_of(gradient, f->dims[0] * per_image) - *norm) / *norm;
    free(shown);
    free(gradient);
    free(norm);
    free(expected);
}

/** The slot's range of the reduce arena. */
static inline double *read_reduced(fixture *f, const char *name, int64_t *n)
{
    int index = sh_store_find(f->store, name);
    if (index < 0) fail_msg("%s: the network has no '%s'", f->net.name, name);
    const sh_slot *slot = sh_store_slot(f->store, index);
    int64_t offset = slot->offset + (slot->kind == SH_SLOT_STATE ? sh_store_n_params(f->store) : 0);
    float *host = malloc((size_t)slot->n_elems * sizeof(*host));
    double *values = malloc((size_t)slot->n_elems * sizeof(*values));

    assert_true(host != NULL && values != NULL);
    assert_ok(f->backend->copy_out(f->reduce, (size_t)offset * sizeof(*host), host,
                                   (size_t)slot->n_elems * sizeof(*host)));
    for (int64_t i = 0; i < slot->n_elems; i++) values[i] = host[i];
    free(host);
    *n = slot->n_elems;
    return values;
}

/** Figures of every parameter's gradient: the columns of the tables in the reference. */
enum { NORM, SUM, ABS_SUM, FIRST8, N_FIGURES };
static const char *const figures[] = {"train/param_grad_norm", "train/param_grad_sum",
                                      "train/param_grad_abs_sum", "train/param_grad_first8"};
static const int widths[] = {1, 1, 1, 8};

typedef struct param_table {
    char **names;
    int64_t n;
    double *figure[N_FIGURES]; /* [n, width] */
} param_table;

static inline void read_params(fixture *f, param_table *t)
{
    int64_t n = 0;

    t->names = ref_read_names(f->file, "train/param_names", &t->n);
    for (int k = 0; k < N_FIGURES; k++) {
        t->figure[k] = ref_read(f->file, figures[k], &n);
        assert_int_equal(n, t->n * widths[k]);
    }
}

/** The same figures of what was computed. */
static inline void compute_params(fixture *f, const param_table *reference, param_table *t)
{
    t->names = reference->names;
    t->n = reference->n;
    for (int k = 0; k < N_FIGURES; k++) {
        t->figure[k] = calloc((size_t)(t->n * widths[k]), sizeof(double));
        assert_non_null(t->figure[k]);
    }
    for (int64_t i = 0; i < t->n; i++) {
        int64_t n = 0;
        double *g = read_reduced(f, t->names[i], &n);

        t->figure[NORM][i] = norm_of(g, n);
        for (int64_t e = 0; e < n; e++) {
            t->figure[SUM][i] += g[e];
            t->figure[ABS_SUM][i] += fabs(g[e]);
            if (e < 8) t->figure[FIRST8][8 * i + e] = g[e];
        }
        free(g);
    }
}

static inline int64_t n_elems_of(const fixture *f, const char *name)
{
    return sh_store_slot(f->store, sh_store_find(f->store, name))->n_elems;
}

/** Root mean square of the gradient of the largest among parameter i's siblings (weight and bias of
 *  one layer). */
static inline double sibling_size(const fixture *f, const param_table *t, int64_t i)
{
    const char *dot = strrchr(t->names[i], '.');
    size_t n_layer = dot != NULL ? (size_t)(dot - t->names[i]) + 1 : strlen(t->names[i]);
    double largest = 0;

    for (int64_t k = 0; k < t->n; k++) {
        if (strncmp(t->names[k], t->names[i], n_layer) != 0 ||
            strchr(t->names[k] + n_layer, '.') != NULL)
            continue;
        double n = (double)n_elems_of(f, t->names[k]);

        largest = fmax(largest, t->figure[NORM][k] / sqrt(n));
    }
    return largest;
}

/** The largest error among one parameter's figures: of its norm and sum of magnitudes, relative; of
 *  its sum, relative to the sum of magnitudes; of its first elements, relative to their own norm or
 *  to what that many elements of average size would have, whichever is larger.
 *
 *  A shift before a convolution and batch statistics has no effect, so the gradient of such a bias
 *  is zero and the reference holds its rounding noise in double. It is recognised by being below
 *  1e-9 of its sibling, and must be as small against that sibling as others must be exact. */
static inline double param_error(const fixture *f, const param_table *ref, const param_table *t,
                                 int64_t i, double *norm_error)
{
    double n = (double)n_elems_of(f, t->names[i]), worst = 0;
    int64_t n_first = n < 8 ? (int64_t)n : 8;
    double size = ref->figure[NORM][i] / sqrt(n), sibling = sibling_size(f, ref, i);
    const double *first = t->figure[FIRST8] + 8 * i, *ref_first = ref->figure[FIRST8] + 8 * i;

    *norm_error = 0;
    if (size < 1e-9 * sibling) return t->figure[NORM][i] / (sibling * sqrt(n));
    *norm_error = fabs(t->figure[NORM][i] - ref->figure[NORM][i]) / ref->figure[NORM][i];
    const double of_figures[] = {
        *norm_error,
        fabs(t->figure[ABS_SUM][i] - ref->figure[ABS_SUM][i]) / ref->figure[ABS_SUM][i],
        fabs(t->figure[SUM][i] - ref->figure[SUM][i]) / ref->figure[ABS_SUM][i],
        distance(first, ref_first, n_first) /
            fmax(norm_of(ref_first, n_first), size * sqrt((double)n_first)),
    };

    for (size_t k = 0; k < SH_COUNT(of_figures); k++) raise_to(&worst, of_figures[k]);
    return worst;
}

static inline void measure_params(fixture *f, errors *e)
{
    param_table ref = {0}, computed = {0};
    int n_params = 0;

    read_params(f, &ref);
    compute_params(f, &ref, &computed);
    for (int i = 0; i < sh_store_n_slots(f->store); i++)
        n_params += sh_store_slot(f->store, i)->kind == SH_SLOT_PARAM;
    assert_int_equal(n_params, ref.n);
    for (int64_t i = 0; i < ref.n; i++) {
        double norm_error = 0;
        double error = param_error(f, &ref, &computed, i, &norm_error);

        e->param_norms += norm_error * norm_error / (double)ref.n;
        if (!(error <= e->elements)) {
            e->elements = error;
            snprintf(e->worst, sizeof(e->worst), "%s", ref.names[i]);
        }
    }
    e->param_norms = sqrt(e->param_norms);
    for (int k = 0; k < N_FIGURES; k++) {
        double error = distance(computed.figure[k], ref.figure[k], ref.n * widths[k]) /
                       norm_of(ref.figure[k], ref.n * widths[k]);

        raise_to(k == NORM || k == ABS_SUM ? &e->gradients : &e->elements, error);
        free(computed.figure[k]);
        free(ref.figure[k]);
    }
    ref_free_names(ref.names, ref.n);
}

/** new = (1 - momentum) old + momentum delta, against norm and first elements of the reference. */
static inline void measure_statistics(fixture *f, double *worst)
{
    int64_t n = 0, n_names = 0;

    if (f->net.bn_eps == 0) return; /* no batch norm, no running statistics */
    char **names = ref_read_names(f->file, "train/buffer_names", &n_names);
    double *norm = ref_read(f->file, "train/buffer_norm", &n);
    double *first4 = ref_read(f->file, "train/buffer_first4", &n);

    for (int64_t k = 0; k < n_names; k++) {
        double *values = read_reduced(f, names[k], &n);
        const sh_slot *slot = sh_store_slot(f->store, sh_store_find(f->store, names[k]));
        float *old = malloc((size_t)n * sizeof(*old));

        assert_non_null(old);
        ref_fill(f->salt, names[k], 1, &n, n, old);
        for (int64_t i = 0; i < n; i++)
            values[i] = (1 - (double)slot->momentum) * old[i] + (double)slot->momentum * values[i];
        double norm_error = fabs(norm_of(values, n) - norm[k]) / norm[k];
        double first_error = distance(values, first4 + 4 * k, n < 4 ? n : 4) /
                             (norm[k] * sqrt(4 / (double)(n < 4 ? 4 : n)));

        raise_to(worst, norm_error);
        raise_to(worst, first_error);
        free(old);
        free(values);
    }
    ref_free_names(names, n_names);
    free(norm);
    free(first4);
}

static inline void measure(fixture *f, errors *e)
{
    const sh_run_args args = {.arena = f->arena, .reduce = f->reduce};
    double *logits = logits_of(f, f->eval, f->eval_x, f->eval_y);

    memset(e, 0, sizeof(*e));
    raise_to(&e->logits, logits_error(f, logits, "eval/logits"));
    free(logits);
    logits = logits_of(f, f->train, f->x, f->y);
    raise_to(&e->logits, logits_error(f, logits, "train/logits"));
    raise_to(&e->loss, loss_error(f, logits));
    free(logits);
    assert_true(reference_loss_error(f) < 1e-6);
    write_rule(f, f->train, f->dy, "cotangent", 1 / (double)f->dims[0]);
    assert_ok(sh_program_run(f->train, SH_PHASE_BACKWARD, &args));

    double norm = 0, elements = 0;

    input_gradient_errors(f, &norm, &elements);
    raise_to(&e->gradients, norm);
    raise_to(&e->elements, elements);
    snprintf(e->worst, sizeof(e->worst), "input");
    measure_params(f, e);
    measure_statistics(f, &e->statistics);
    print_message("%s, %s: logits %.2g, loss %.2g, gradients %.2g (rms %.2g), elements %.2g (%s), "
                  "statistics %.2g\n",
                  f->net.name, f->backend->name, e->logits, e->loss, e->gradients, e->param_norms,
                  e->elements, e->worst, e->statistics);
}

static inline void assert_below(const errors *e, const errors *bound)
{
    /* Negated, so that a NaN fails. */
    assert_false(!(e->logits <= bound->logits));
    assert_false(!(e->loss <= bound->loss));
    assert_false(!(e->gradients <= bound->gradients));
    assert_false(!(e->param_norms <= bound->param_norms));
    assert_false(!(e->elements <= bound->elements));
    assert_false(!(e->statistics <= bound->statistics));
}

/* ---- the checks ---- */

/* Ways to change weights a little; each takes a weight and its index. */
static inline float round_to_bf16(float weight, uint64_t i)
{
    (void)i;
    return sh_bf16_to_f32(sh_bf16_from_f32(weight));
}

static inline float disturb(float weight, uint64_t i)
{
    return weight * (float)(1 + 3e-6 * ref_unit(ref_hash("", "disturb"), i));
}

/** A network to check. */
typedef struct ref_case {
    const char *net;
    bool is_large; /* takes minutes on `ref`: checked there with SHOAL_FULL=1, measured on `cpu` */
} ref_case;

static inline void raise_all(errors *worst, const errors *e)
{
    raise_to(&worst->logits, e->logits);
    raise_to(&worst->loss, e->loss);
    raise_to(&worst->gradients, e->gradients);
    raise_to(&worst->param_norms, e->param_norms);
    raise_to(&worst->elements, e->elements);
    raise_to(&worst->statistics, e->statistics);
}

/* A yardstick: how far f32 computation moves when every weight is changed a little. Which units the
 * change takes across a kink is luck, so a large network, where few of them rule, is changed in
 * three ways and the worst counts. */
static inline void measure_changed(const ref_case *c, float (*change)(float weight, uint64_t i),
                                   errors *worst)
{
    const int n_ways = c->is_large && change == disturb ? 3 : 1;
    fixture f;
    errors e;

    if (worst->logits > 0) return; /* measured before, for another backend */
    assert_true(open_fixture(&f, c->net, c->is_large ? "cpu" : "ref", SH_F32));
    for (int way = 0; way < n_ways; way++) {
        uint64_t count = (uint64_t)way << 40;

        fill_store(&f);
        for (int i = 0; i < sh_store_n_slots(f.store); i++) {
            int64_t n = sh_store_slot(f.store, i)->n_elems;
            float *values = malloc((size_t)n * sizeof(*values));

            assert_non_null(values);
            assert_ok(sh_store_read(f.store, i, values));
            for (int64_t k = 0; k < n; k++) values[k] = change(values[k], count++);
            assert_ok(sh_store_write(f.store, i, values));
            free(values);
        }
        print_message("    yardstick: ");
        measure(&f, &e);
        raise_all(worst, &e);
    }
    close_fixture(&f);
}

static inline bool open_case(fixture *f, const ref_case *c, const char *backend, sh_dtype dtype)
{
    memset(f, 0, sizeof(*f));
    if (c->is_large && strcmp(backend, "ref") == 0 && getenv("SHOAL_FULL") == NULL) {
        print_message("%s, ref: only with SHOAL_FULL=1\n", c->net);
        return false;
    }
    if (open_fixture(f, c->net, backend, dtype)) return true;
    print_message("%s, %s: no reference file, or no backend\n", c->net, backend);
    return false;
}

/* What the reference files ask of f32 computation: 1e-4 on logits, 1e-3 on norms of gradients.
 *
 * ReLU, ReLU6 and maxima have kinks: a unit whose input lies within rounding of a kink takes the
 * other side, and is worth about 1 / sqrt(units of its layer) of every gradient before it, in
 * another direction. Their number grows with the error of the forward values, so their effect
 * grows with its root. How much it is in this network is measured by disturbing the weights; three
 * times that, at the error that the logits have, is allowed, and not less than that itself, since a
 * unit is either across or not.
 *
 * Deep networks of random weights amplify rounding: ResNet-101 has logits off by 1e-4 and gradients
 * by 0.9e-3 in PyTorch's f32 too (scripts/make-reference --dtype float32). Where the yardstick
 * shows that, rounding may do what a third of the disturbance does: 1e-6 of each weight. */
static inline void check_f32(const char *backend, const ref_case *cases, size_t n)
{
    static errors yardsticks[REF_CASES_MAX];
    int n_checked = 0;

    for (size_t i = 0; i < n; i++) {
        fixture f;
        errors e, *y = &yardsticks[i];

        if (open_case(&f, &cases[i], backend, SH_F32)) {
            measure_changed(&cases[i], disturb, y);
            measure(&f, &e);

            /* Without batch norm, maps are off by more than the logits, which average them. */
            double of_forward = fmax(e.logits, e.loss) / fmax(y->logits, y->loss);
            double ratio = f.net.bn_eps == 0 ? 1 : of_forward;
            double scale = fmax(3 * sqrt(ratio), 1);
            double logits = fmax(1e-4, fmax(y->logits, y->loss) / 3);
            const errors bound = {.logits = logits,
                                  .loss = logits,
                                  .gradients = fmax(1e-3, scale * y->gradients),
                                  .param_norms = scale * y->param_norms,
                                  .elements = scale * y->elements,
                                  .statistics = 1e-4};

            assert_below(&e, &bound);
            n_checked++;
        }
        close_fixture(&f);
    }
    if (n_checked == 0) skip();
}

/* bf16 has 8 bits, and what that does to a network depends on the network: a rounding grows with
 * every layer. So the yardstick is measured: what rounding the weights alone does to f32
 * computation. A bf16 program rounds the weights, and every activation once when it is stored;
 * independent errors of twice to four times as many sites add up to less than three times the
 * yardstick.
 *
 * The loss is the logits times random numbers of mean 0, so its error is theirs times a normal
 * number: one draw, which by luck is twice theirs or nothing. (Where the logits of EfficientNet-B0
 * were off by .050, the loss was by .110, but by .051 in the root mean square of a thousand other
 * draws.) All that it adds to the logits is that it is made of them, and that is compared exactly,
 * by the reference's own.
 *
 * Of gradients, norms are compared, on average over the parameters. Single elements are not: in
 * bf16 so many units are across a kink that the gradient's direction in early layers is lost, by
 * the yardstick too (relative error around 1). Nor is the table of norms as one vector, which one
 * large parameter rules: its error is a matter of luck. */
static inline void check_bf16(const char *backend, const ref_case *cases, size_t n)
{
    static errors yardsticks[REF_CASES_MAX];
    int n_checked = 0;

    for (size_t i = 0; i < n; i++) {
        fixture f;
        errors e, bound;

        if (open_case(&f, &cases[i], backend, SH_BF16)) {
            measure_changed(&cases[i], round_to_bf16, &yardsticks[i]);
            measure(&f, &e);
            bound = yardsticks[i];
            bound.logits *= 3;
            bound.param_norms *= 3;
            bound.statistics *= 3;
            bound.loss = bound.gradients = bound.elements = INFINITY;
            assert_below(&e, &bound);
            n_checked++;
        }
        close_fixture(&f);
    }
    if (n_checked == 0) skip();
}

#endif
