// SPDX-License-Identifier: Apache-2.0
#include "trainer/evaluate_known.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dataio/csv.h"
#include "trainer/bootstrap.h"
#include "trainer/metrics.h"

enum { UNKNOWN = -1 };

/* What is being classified: dense classes, and for every crop its class and its answer. */
typedef struct task {
    const sh_eval_data *data;
    int32_t *class_of_fish; /* [dataset individuals], UNKNOWN */
    const char **names;     /* [n_classes], of the dataset */
    int n_classes;
    int32_t *truth, *predicted; /* [n] of those that were classified */
    int64_t n, n_left_out, n_unmatched;
    bool within_recording; /* no crop has a recording */
} task;

static void task_clear(task *t)
{
    free(t->class_of_fish);
    free(t->names);
    free(t->truth);
    free(t->predicted);
    *t = (task){0};
}

static sh_status task_begin(const sh_eval_data *data, task *out)
{
    sh_status st = SH_OK;
    task t = {.data = data};
    int n_fish = sh_dataset_n_individuals(data->dataset);

    t.class_of_fish = malloc(((size_t)n_fish + 1) * sizeof(*t.class_of_fish));
    t.names = calloc((size_t)n_fish + 1, sizeof(*t.names));
    t.truth = malloc(((size_t)data->n + 1) * sizeof(*t.truth));
    t.predicted = malloc(((size_t)data->n + 1) * sizeof(*t.predicted));
    SH_CHECK(t.class_of_fish && t.names && t.truth && t.predicted, SH_ERR_NO_MEMORY, "classes");
    for (int i = 0; i <= n_fish; i++) t.class_of_fish[i] = UNKNOWN;
    *out = t;
    t = (task){0};
out:
    task_clear(&t);
    return st;
}

static void add_class(task *t, int32_t fish)
{
    if (fish < 0 || t->class_of_fish[fish] != UNKNOWN) return;
    t->class_of_fish[fish] = t->n_classes;
    t->names[t->n_classes++] = sh_dataset_individual(t->data->dataset, fish);
}

static int32_t fish_of_row(const sh_eval_data *data, int64_t row)
{
    return data->fish[data->individual[row]];
}

int sh_known_count(const sh_eval_data *data, const int64_t *crops, int64_t n)
{
    int known = 0;

    for (int i = 0; i < data->n_individuals; i++) {
        bool found = false;

        for (int64_t k = 0; k < n && !found; k++)
            found = sh_dataset_crop(data->dataset, crops[k])->individual == data->fish[i];
        known += found;
    }
    return known;
}

/* ---- the result as JSON ---- */

static json_t *class_rows(const task *t, const int64_t *confusion, double *recalls)
{
    json_t *rows = json_array();
    int c = t->n_classes;

    for (int i = 0; i < c; i++) {
        int64_t truths = 0, answers = 0, hits = confusion[i * c + i];

        for (int k = 0; k < c; k++) {
            truths += confusion[i * c + k];
            answers += confusion[k * c + i];
        }
        double precision = answers > 0 ? (double)hits / (double)answers : 0;
        double recall = truths > 0 ? (double)hits / (double)truths : 0;
        double f1 = truths + answers > 0 ? 2.0 * (double)hits / (double)(truths + answers) : 0;

        recalls[i] = truths > 0 ? recall : NAN;
        json_array_append_new(rows, json_pack("{s:s, s:I, s:f, s:f, s:f}", "individual",
                                              t->names[i], "crops", (json_int_t)truths, "precision",
                                              precision, "recall", recall, "f1", f1));
    }
    return rows;
}

static json_t *confusion_cells(const int64_t *confusion, int c)
{
    json_t *cells = json_array();

    for (int i = 0; i < c; i++)
        for (int k = 0; k < c; k++)
            if (confusion[i * c + k] > 0)
                json_array_append_new(
                    cells, json_pack("[i, i, I]", i, k, (json_int_t)confusion[i * c + k]));
    return cells;
}

static sh_status task_finish(const task *t, const char *method, uint64_t seed, json_t **out)
{
    sh_status st = SH_OK;
    size_t c = (size_t)t->n_classes;
    int64_t *confusion = calloc(c * c + 1, sizeof(*confusion));
    double *recalls = malloc((c + 1) * sizeof(*recalls));
    double sum = 0;
    int n_seen = 0;
    json_t *rows = NULL;
    sh_classification scores;
    sh_interval interval;

    SH_CHECK(confusion != NULL && recalls != NULL, SH_ERR_NO_MEMORY, "%d classes", t->n_classes);
    if (t->n == 0) {
        *out = json_null();
        goto out;
    }
    sh_classify_score(t->truth, t->predicted, t->n, t->n_classes, confusion, &scores);
    rows = class_rows(t, confusion, recalls);
    for (int i = 0; i < t->n_classes; i++) {
        if (isnan(recalls[i])) continue;
        sum += recalls[i];
        n_seen++;
    }
    SH_TRY(sh_bootstrap_mean(recalls, t->n_classes, seed, &interval));
    *out = json_pack(
        "{s:s, s:i, s:i, s:I, s:I, s:I, s:f, s:f, s:[o, o], s:f, s:f, s:f, s:f, s:o, s:o}",
        "method", method, "classes", t->n_classes, "classes_tested", n_seen, "crops",
        (json_int_t)t->n, "left_out_not_trained_on", (json_int_t)t->n_left_out, "unmatched",
        (json_int_t)t->n_unmatched, "accuracy", scores.accuracy, "accuracy_per_individual",
        n_seen > 0 ? sum / n_seen : 0, "accuracy_per_individual_interval",
        sh_json_number(interval.lo), sh_json_number(interval.hi), "chance", 1.0 / t->n_classes,
        "macro_precision", scores.macro_precision, "macro_recall", scores.macro_recall, "macro_f1",
        scores.macro_f1, "per_class", rows, "confusion", confusion_cells(confusion, t->n_classes));
    rows = NULL; /* taken over, whatever came of it */
    SH_CHECK(*out != NULL, SH_ERR_NO_MEMORY, "classification scores");
out:
    json_decref(rows);
    free(confusion);
    free(recalls);
    return st;
}

/* ---- nearest mean ---- */

/* Is a gallery crop known to be of another recording than the query? */
static bool is_apart(const task *t, int32_t query, int32_t other)
{
    return t->within_recording || (query >= 0 && other >= 0 && query != other);
}

/* The mean of a class: of all its gallery crops, or, for a query of that class, given by its
 * recording, of those that may be compared with it. */
static bool mean_for(const task *t, const sh_known_gallery *g, int32_t class,
                     const int32_t *own_recording, int64_t dim, double *mean)
{
    int64_t n = 0;

    memset(mean, 0, (size_t)dim * sizeof(*mean));
    for (int64_t i = 0; i < g->n; i++) {
        const sh_crop *crop = sh_dataset_crop(t->data->dataset, g->crops[i]);

        if (crop->individual < 0 || t->class_of_fish[crop->individual] != class) continue;
        if (own_recording != NULL && !is_apart(t, *own_recording, crop->recording)) continue;
        for (int64_t k = 0; k < dim; k++) mean[k] += (double)g->embeddings[i * dim + k];
        n++;
    }
    for (int64_t k = 0; k < dim && n > 0; k++) mean[k] /= (double)n;
    return n > 0;
}

static double squared_distance(const float *x, const double *mean, int64_t dim)
{
    double sum = 0;

    for (int64_t k = 0; k < dim; k++) sum += ((double)x[k] - mean[k]) * ((double)x[k] - mean[k]);
    return sum;
}

/* One answer, or UNKNOWN where nothing of the query's own fish may be compared with it. */
static int32_t nearest_mean(const task *t, const sh_known_gallery *g, int64_t row,
                            const double *means, double *own_mean)
{
    int64_t dim = t->data->dim;
    const float *x = t->data->embeddings + row * dim;
    int32_t own = t->class_of_fish[fish_of_row(t->data, row)], best = UNKNOWN;
    double best_distance = DBL_MAX;

    if (!mean_for(t, g, own, &t->data->recording[row], dim, own_mean)) return UNKNOWN;
    for (int32_t c = 0; c < t->n_classes; c++) {
        double d = squared_distance(x, c == own ? own_mean : means + c * dim, dim);

        if (d < best_distance) {
            best_distance = d;
            best = c;
        }
    }
    return best;
}

sh_status sh_eval_known_means(const sh_eval_data *data, const sh_known_gallery *gallery,
                              uint64_t seed, json_t **out)
{
    sh_status st = SH_OK;
    task t = {0};
    double *means = NULL;
    int64_t dim = data->dim;

    SH_TRY(task_begin(data, &t));
    t.within_recording = data->within_recording;
    for (int64_t i = 0; i < gallery->n; i++) {
        const sh_crop *crop = sh_dataset_crop(data->dataset, gallery->crops[i]);

        add_class(&t, crop->individual);
        if (crop->recording >= 0) t.within_recording = false;
    }
    means = malloc((size_t)((t.n_classes + 1) * dim) * sizeof(*means) + 1);
    SH_CHECK(means != NULL, SH_ERR_NO_MEMORY, "means of %d classes", t.n_classes);
    for (int32_t c = 0; c < t.n_classes; c++)
        (void)mean_for(&t, gallery, c, NULL, dim, means + c * dim);
    for (int64_t row = 0; row < data->n; row++) {
        int32_t truth = t.class_of_fish[fish_of_row(data, row)];
        int32_t answer = UNKNOWN;

        if (truth != UNKNOWN)
            answer = nearest_mean(&t, gallery, row, means, means + t.n_classes * dim);
        t.n_left_out += truth == UNKNOWN;
        t.n_unmatched += truth != UNKNOWN && answer == UNKNOWN;
        if (answer == UNKNOWN) continue;
        t.truth[t.n] = truth;
        t.predicted[t.n++] = answer;
    }
    SH_TRY(task_finish(&t, "nearest mean embedding", seed, out));
out:
    free(means);
    task_clear(&t);
    return st;
}

/* ---- learnt classes ---- */

static double product(const float *x, const float *w, int64_t dim, bool cosine)
{
    double sum = 0, square = 0;

    for (int64_t k = 0; k < dim; k++) {
        sum += (double)x[k] * (double)w[k];
        square += (double)w[k] * (double)w[k];
    }
    /* The length of x is the same for every class. */
    return cosine && square > 0 ? sum / sqrt(square) : sum;
}

int64_t sh_known_column(const float *x, const float *weights, int64_t n_columns, int64_t dim,
                        bool cosine)
{
    int64_t best = 0;
    double largest = -DBL_MAX;

    for (int64_t k = 0; k < n_columns; k++) {
        double z = product(x, weights + k * dim, dim, cosine);

        if (z <= largest) continue;
        largest = z;
        best = k;
    }
    return best;
}

static int32_t find_fish(const sh_dataset *dataset, const char *name)
{
    for (int32_t i = 0; i < sh_dataset_n_individuals(dataset); i++)
        if (strcmp(sh_dataset_individual(dataset, i), name) == 0) return i;
    return UNKNOWN;
}

/* Class of each label, from the second column of RUN/classes.csv. */
static sh_status read_labels(const char *path, task *t, int32_t **class_of_label, int *n_labels)
{
    sh_status st = SH_OK;
    sh_csv *csv = NULL;
    char **fields = NULL;
    int n_fields = 0, n = -1; /* the first row names the columns */
    int32_t *classes = NULL;

    SH_TRY(sh_csv_open(path, ',', &csv));
    for (;; n++) {
        SH_TRY(sh_csv_next(csv, &fields, &n_fields));
        if (n_fields == 0) break;
        if (n < 0) continue;
        SH_CHECK(n_fields >= 2, SH_ERR_FORMAT, "%s:%lld: no individual", path,
                 (long long)sh_csv_line(csv));
        int32_t fish = find_fish(t->data->dataset, fields[1]);

        SH_CHECK(fish != UNKNOWN, SH_ERR_MISMATCH, "%s names %s, which the data does not know",
                 path, fields[1]);
        int32_t *grown = realloc(classes, ((size_t)n + 1) * sizeof(*classes));

        SH_CHECK(grown != NULL, SH_ERR_NO_MEMORY, "%s", path);
        classes = grown;
        add_class(t, fish);
        classes[n] = t->class_of_fish[fish];
    }
    *n_labels = n > 0 ? n : 0;
    *class_of_label = classes;
    classes = NULL;
out:
    free(classes);
    sh_csv_close(&csv);
    return st;
}

sh_status sh_eval_known_classes(const sh_eval_data *data, const char *classes, const float *weights,
                                int64_t n_columns, bool cosine, uint64_t seed, json_t **out)
{
    sh_status st = SH_OK;
    task t = {0};
    int32_t *class_of_label = NULL;
    int n_labels = 0;

    SH_TRY(task_begin(data, &t));
    SH_TRY(read_labels(classes, &t, &class_of_label, &n_labels));
    SH_CHECK(n_labels > 0 && n_columns % n_labels == 0, SH_ERR_MISMATCH,
             "%s has %d classes, the model %lld columns of class weights", classes, n_labels,
             (long long)n_columns);
    for (int64_t row = 0; row < data->n; row++) {
        int32_t truth = t.class_of_fish[fish_of_row(data, row)];
        const float *x = data->embeddings + row * data->dim;

        t.n_left_out += truth == UNKNOWN;
        if (truth == UNKNOWN) continue;
        int64_t column = sh_known_column(x, weights, n_columns, data->dim, cosine);

        t.truth[t.n] = truth;
        t.predicted[t.n++] = class_of_label[column / (n_columns / n_labels)];
    }
    SH_TRY(task_finish(&t, "learnt classes", seed, out));
out:
    free(class_of_label);
    task_clear(&t);
    return st;
}
