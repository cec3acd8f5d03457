// SPDX-License-Identifier: Apache-2.0
#include "models/loss/classes.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/tree.h"
#include "models/loss/class_device.h"

/* d cos(t + m) / d cos t = cos m + sin m cos t / sin t grows without bound towards t = 0. In f32 a
 * cosine near 1 says nothing of angles below about 3e-4, so there the slope rises no further. */
#define MIN_SINE 3e-4

struct sh_class_loss {
    sh_class_config config;
    sh_class_device *device; /* NULL: in host memory, with all that follows below n */
    int64_t n_max;
    const int32_t *labels; /* [n] of the batch that has begun; the caller's */
    int64_t n;
    int n_threads;
    float *weights; /* [n_classes], or NULL: all 1 */
    int32_t *fish;  /* [n_classes], or NULL: all differ */
    double *costs;  /* [n_max] */
    double *scaled; /* [n_threads, n_classes] scaled logits of a row */
    int32_t *best;  /* [n_threads, n_classes] the centre that each class's logit is of */
};

int64_t sh_class_columns(const sh_class_config *config)
{
    return config->n_classes * config->n_centres;
}

/* ---- one row ---- */

/* A row on its way through the softmax. */
typedef struct row_work {
    double *z;       /* [n_classes] scaled logits, margin included */
    int32_t *centre; /* [n_classes] column within the class */
    double slope;    /* d z / d logit of the row's own class */
    double other;    /* of every other class */
    double log_sum;  /* of exp(z) */
    double spread;   /* what smoothing gives to each class that takes part */
    bool is_correct;
} row_work;

static double weight_of(const sh_class_loss *loss, int64_t c)
{
    return loss->weights != NULL ? loss->weights[c] : 1;
}

/* Is class c another side of the fish that the row is of? */
static bool is_other_side(const sh_class_loss *loss, int64_t label, int64_t c)
{
    return loss->fish != NULL && c != label && loss->fish[c] == loss->fish[label];
}

static row_work work_of_thread(const sh_class_loss *loss)
{
    int64_t at = omp_get_thread_num() * loss->config.n_classes;

    return (row_work){.z = loss->scaled + at, .centre = loss->best + at, .slope = 1, .other = 1};
}

/* The largest logit of each class. A NaN is passed on rather than passed over. */
static void pick_centres(const sh_class_config *config, const float *logits, row_work *w)
{
    for (int64_t c = 0; c < config->n_classes; c++, logits += config->n_centres) {
        w->centre[c] = 0;
        for (int64_t k = 1; k < config->n_centres; k++)
            if (logits[k] > logits[w->centre[c]] || isnan(logits[k])) w->centre[c] = (int32_t)k;
        w->z[c] = logits[w->centre[c]];
    }
}

static void add_margin(const sh_class_config *config, int64_t label, row_work *w)
{
    double m = config->margin, cosine = w->z[label];
    double sine = sqrt(fmax(0, 1 - cosine * cosine));

    w->other = w->slope = config->scale;
    for (int64_t c = 0; c < config->n_classes; c++) w->z[c] *= config->scale;
    if (cosine < -cos(m)) {
        w->z[label] = config->scale * (cosine - m * sin(m));
        return;
    }
    w->z[label] = config->scale * (cosine * cos(m) - sine * sin(m));
    w->slope = config->scale * (cos(m) + sin(m) * cosine / fmax(sine, MIN_SINE));
}

static void forward_row(const sh_class_loss *loss, int64_t label, const float *logits, row_work *w)
{
    const sh_class_config *config = &loss->config;
    double largest = -INFINITY, sum = 0;
    int64_t n_others = 0;

    pick_centres(config, logits, w);
    w->is_correct = true;
    for (int64_t c = 0; c < config->n_classes; c++) {
        if (is_other_side(loss, label, c)) {
            w->z[c] = -INFINITY;
            n_others++;
        }
        w->is_correct &= c == label || w->z[c] < w->z[label];
    }
    w->spread = config->smoothing / (double)(config->n_classes - n_others);
    if (config->kind == SH_CLASS_ARCFACE) add_margin(config, label, w);
    for (int64_t c = 0; c < config->n_classes; c++)
        if (w->z[c] > largest) largest = w->z[c];
    for (int64_t c = 0; c < config->n_classes; c++) sum += exp(w->z[c] - largest);
    w->log_sum = largest + log(sum);
}

/* How much of the cost is -log p_c. */
static double target_of(const sh_class_loss *loss, int64_t label, const row_work *w, int64_t c)
{
    if (is_other_side(loss, label, c)) return 0;
    return weight_of(loss, c) * (w->spread + (c == label ? 1 - (double)loss->config.smoothing : 0));
}

static double cost_of_row(const sh_class_loss *loss, int64_t label, const row_work *w)
{
    double cost = 0;

    if (loss->config.smoothing == 0) return weight_of(loss, label) * (w->log_sum - w->z[label]);
    for (int64_t c = 0; c < loss->config.n_classes; c++)
        if (!is_other_side(loss, label, c))
            cost += target_of(loss, label, w, c) * (w->log_sum - w->z[c]);
    return cost;
}

/* d cost / d z_c = p_c sum of targets - target_c. */
static void gradient_of_row(const sh_class_loss *loss, int64_t label, const row_work *w,
                            double scale, float weight, float *grad)
{
    const sh_class_config *config = &loss->config;
    double total = 0;

    memset(grad, 0, (size_t)sh_class_columns(config) * sizeof(float));
    for (int64_t c = 0; c < config->n_classes; c++) total += target_of(loss, label, w, c);
    for (int64_t c = 0; c < config->n_classes; c++) {
        double slope = exp(w->z[c] - w->log_sum) * total - target_of(loss, label, w, c);

        slope *= scale * (c == label ? w->slope : w->other);
        grad[c * config->n_centres + w->centre[c]] = (float)slope * weight;
    }
}

/* ---- the batch ---- */

static sh_status check_rows(const sh_class_loss *loss, int64_t begin, int64_t end)
{
    sh_status st = SH_OK;

    SH_CHECK(begin >= 0 && begin <= end && end <= loss->n, SH_ERR_MISMATCH,
             "classification: rows %lld to %lld of a batch of %lld", (long long)begin,
             (long long)end, (long long)loss->n);
out:
    return st;
}

sh_status sh_class_loss_begin(sh_class_loss *loss, const int32_t *labels, int64_t n)
{
    sh_status st = SH_OK;

    SH_CHECK(n >= 1 && n <= loss->n_max, SH_ERR_MISMATCH,
             "classification: a batch of %lld, where up to %lld was agreed", (long long)n,
             (long long)loss->n_max);
    for (int64_t i = 0; i < n; i++)
        SH_CHECK(labels[i] < loss->config.n_classes, SH_ERR_MISMATCH,
                 "classification: row %lld is of class %d, there are %lld", (long long)i,
                 (int)labels[i], (long long)loss->config.n_classes);
    loss->labels = labels;
    loss->n = n;
    if (loss->device != NULL) SH_TRY(sh_class_device_begin(loss->device, labels, n));
out:
    return st;
}

sh_status sh_class_loss_choose(sh_class_loss *loss, const float *logits, int64_t row_begin,
                               int64_t row_end, sh_class_row *rows)
{
    sh_status st = SH_OK;
    int64_t columns = sh_class_columns(&loss->config);
    const int32_t *labels = loss->labels;

    SH_TRY(check_rows(loss, row_begin, row_end));
    if (loss->device != NULL) {
        SH_TRY(sh_class_device_choose(loss->device, logits, row_begin, row_end, rows));
        goto out;
    }
#pragma omp parallel for schedule(static) num_threads(loss->n_threads)
    for (int64_t i = row_begin; i < row_end; i++) {
        row_work w = work_of_thread(loss);

        rows[i - row_begin] = (sh_class_row){0};
        if (labels[i] < 0) continue;
        forward_row(loss, labels[i], logits + (i - row_begin) * columns, &w);
        rows[i - row_begin].cost = cost_of_row(loss, labels[i], &w);
        rows[i - row_begin].is_correct = w.is_correct;
    }
out:
    return st;
}

sh_status sh_class_loss_apply(sh_class_loss *loss, const sh_class_row *rows, const float *logits,
                              int64_t row_begin, int64_t row_end, float weight,
                              sh_class_stats *stats, float *grad)
{
    sh_status st = SH_OK;
    int64_t columns = sh_class_columns(&loss->config), n = loss->n;
    const int32_t *labels = loss->labels;
    double total = 0;

    SH_TRY(check_rows(loss, row_begin, row_end));
    if (loss->device != NULL) {
        SH_TRY(sh_class_device_apply(loss->device, rows, logits, row_begin, row_end, weight, stats,
                                     grad));
        goto out;
    }
    *stats = (sh_class_stats){0};
    for (int64_t i = 0; i < n; i++) {
        loss->costs[i] = rows[i].cost;
        stats->n_rows += labels[i] >= 0;
        stats->n_correct += rows[i].is_correct;
        if (labels[i] >= 0) total += weight_of(loss, labels[i]);
    }
    double scale = total > 0 ? 1 / total : 0;

    stats->loss = sh_tree_sum(loss->costs, n) * scale;
    if (grad == NULL) goto out;
#pragma omp parallel for schedule(static) num_threads(loss->n_threads)
    for (int64_t i = row_begin; i < row_end; i++) {
        row_work w = work_of_thread(loss);
        float *g = grad + (i - row_begin) * columns;

        if (labels[i] < 0) {
            memset(g, 0, (size_t)columns * sizeof(float));
            continue;
        }
        forward_row(loss, labels[i], logits + (i - row_begin) * columns, &w);
        gradient_of_row(loss, labels[i], &w, scale, weight, g);
    }
out:
    return st;
}

/* ---- create, destroy ---- */

static sh_status check_config(const sh_class_config *c, const float *class_weights)
{
    sh_status st = SH_OK;
    bool arcface = c->kind == SH_CLASS_ARCFACE;

    SH_CHECK(arcface || c->kind == SH_CLASS_CROSS_ENTROPY, SH_ERR_USAGE,
             "classification: no kind %d", (int)c->kind);
    SH_CHECK(c->n_classes >= 2, SH_ERR_USAGE,
             "classification takes at least two classes, there are %lld", (long long)c->n_classes);
    SH_CHECK(c->n_centres >= 1 && (arcface || c->n_centres == 1), SH_ERR_USAGE,
             "classification: %lld centres to a class; more than one is ArcFace's",
             (long long)c->n_centres);
    SH_CHECK(sh_class_columns(c) < INT32_MAX, SH_ERR_USAGE, "classification: %lld columns",
             (long long)sh_class_columns(c));
    SH_CHECK(c->smoothing >= 0 && c->smoothing < 1, SH_ERR_USAGE,
             "label smoothing %g is not in [0, 1)", c->smoothing);
    SH_CHECK(!arcface || (c->scale > 0 && c->margin >= 0 && c->margin <= 1.5707964f), SH_ERR_USAGE,
             "ArcFace: scale %g must be above 0, margin %g from 0 to pi / 2", c->scale, c->margin);
    for (int64_t k = 0; class_weights != NULL && k < c->n_classes; k++)
        SH_CHECK(class_weights[k] >= 0 && isfinite(class_weights[k]), SH_ERR_USAGE,
                 "classification: weight %g of class %lld", class_weights[k], (long long)k);
out:
    return st;
}

/* A copy of n elements, or NULL for NULL. */
static sh_status copy_of(const void *from, size_t n, size_t size, void **out)
{
    sh_status st = SH_OK;

    if (from == NULL) goto out;
    *out = malloc(n * size);
    SH_CHECK(*out != NULL, SH_ERR_NO_MEMORY, "classification: %zu classes", n);
    memcpy(*out, from, n * size);
out:
    return st;
}

/* What the host's loops need of memory. */
static sh_status reserve_host(sh_class_loss *loss, const float *class_weights,
                              const int32_t *class_fish)
{
    sh_status st = SH_OK;
    size_t n_classes = (size_t)loss->config.n_classes;
    size_t n_work = (size_t)loss->n_threads * n_classes;

    loss->costs = calloc((size_t)loss->n_max + 1, sizeof(double));
    loss->scaled = calloc(n_work, sizeof(double));
    loss->best = calloc(n_work, sizeof(int32_t));
    SH_CHECK(loss->costs && loss->scaled && loss->best, SH_ERR_NO_MEMORY,
             "classification: %lld rows of %zu classes", (long long)loss->n_max, n_classes);
    SH_TRY(copy_of(class_weights, n_classes, sizeof(float), (void **)&loss->weights));
    SH_TRY(copy_of(class_fish, n_classes, sizeof(int32_t), (void **)&loss->fish));
out:
    return st;
}

const sh_backend *sh_class_loss_memory(const sh_backend *backend)
{
    return backend != NULL && backend->classes != NULL ? backend : NULL;
}

sh_status sh_class_loss_create(const sh_class_config *config, const sh_backend *backend,
                               const float *class_weights, const int32_t *class_fish, int64_t n_max,
                               sh_class_loss **out)
{
    sh_status st = SH_OK;
    sh_class_loss *loss = NULL;
    const sh_backend *memory = sh_class_loss_memory(backend);

    SH_TRY(check_config(config, class_weights));
    loss = calloc(1, sizeof(*loss));
    SH_CHECK(loss != NULL, SH_ERR_NO_MEMORY, "classification");
    loss->config = *config;
    loss->n_max = n_max;
    loss->n_threads = omp_get_max_threads();
    if (memory != NULL) {
        SH_TRY(sh_class_device_create(&loss->config, memory, class_weights, class_fish, n_max,
                                      &loss->device));
    } else {
        SH_TRY(reserve_host(loss, class_weights, class_fish));
    }
    *out = loss;
    loss = NULL;
out:
    sh_class_loss_destroy(&loss);
    return st;
}

void sh_class_loss_destroy(sh_class_loss **loss)
{
    sh_class_loss *l = *loss;

    if (l == NULL) return;
    sh_class_device_destroy(&l->device);
    free(l->weights);
    free(l->fish);
    free(l->costs);
    free(l->scaled);
    free(l->best);
    free(l);
    *loss = NULL;
}
