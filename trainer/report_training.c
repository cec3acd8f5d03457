// SPDX-License-Identifier: Apache-2.0
/* The curves of a training, from its metrics.jsonl. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "trainer/html.h"
#include "trainer/report.h"
#include "trainer/run.h"

enum { MAX_LOG_BYTES = 1 << 30, MAX_POINTS = 600 };

/* One curve, in order of steps. */
typedef struct curve {
    const char *path[2]; /* key, and key within it or NULL */
    const char *name;
    double *x, *y;
    int n;
} curve;

enum { LOSS, TRIPLETS, ACTIVE, ACCURACY, GRAD_NORM, VAL_RANK1, VAL_MAP, VAL_AUC, N_CURVES };

static void add_point(curve *c, const json_t *line)
{
    const json_t *value = json_object_get(line, c->path[0]);

    if (c->path[1] != NULL) value = json_object_get(value, c->path[1]);
    if (!json_is_number(value)) return;
    c->x[c->n] = json_number_value(json_object_get(line, "step"));
    c->y[c->n] = json_number_value(value);
    c->n++;
}

/* Means of equal runs of points, so that a long training stays readable. */
static void thin(curve *c)
{
    int stride = (c->n + MAX_POINTS - 1) / MAX_POINTS, n = 0;

    for (int i = 0; stride > 1 && i < c->n; i += stride) {
        int m = i + stride < c->n ? stride : c->n - i;
        double x = 0, y = 0;

        for (int k = 0; k < m; k++) {
            x += c->x[i + k] / m;
            y += c->y[i + k] / m;
        }
        c->x[n] = x;
        c->y[n] = y;
        n++;
    }
    if (stride > 1) c->n = n;
}

static void write_charts(FILE *file, const curve *curves)
{
    static const struct {
        const char *title, *y_label;
        int first, n;
        double y_max;
    } charts[] = {
        {"Loss", "loss", LOSS, 1, 0},
        {"Triplets or pairs per step", "number", TRIPLETS, 2, 0},
        {"Training crops given their own class", "share", ACCURACY, 1, 1},
        {"Validation individuals", "score", VAL_RANK1, 3, 1},
        {"Gradient norm", "norm", GRAD_NORM, 1, 0},
    };

    fputs("<div class=\"charts\">", file);
    for (size_t i = 0; i < SH_COUNT(charts); i++) {
        sh_series series[3];

        if (curves[charts[i].first].n == 0) continue; /* not of this kind of loss, or not yet */
        for (int s = 0; s < charts[i].n; s++) {
            const curve *c = &curves[charts[i].first + s];

            series[s] = (sh_series){c->name, c->x, c->y, c->n};
        }
        sh_html_chart(file, &(sh_chart){.title = charts[i].title,
                                        .x_label = "step",
                                        .y_label = charts[i].y_label,
                                        .y_max = charts[i].y_max,
                                        .series = series,
                                        .n_series = charts[i].n});
    }
    fputs("</div>\n", file);
}

static sh_status read_curves(char *text, size_t n_lines, curve *curves, int64_t *n_bad)
{
    sh_status st = SH_OK;

    for (int c = 0; c < N_CURVES; c++) {
        curves[c].x = malloc((n_lines + 1) * sizeof(double));
        curves[c].y = malloc((n_lines + 1) * sizeof(double));
        SH_CHECK(curves[c].x != NULL && curves[c].y != NULL, SH_ERR_NO_MEMORY, "training curves");
    }
    *n_bad = 0;
    for (char *save = NULL, *p = strtok_r(text, "\n", &save); p != NULL;
         p = strtok_r(NULL, "\n", &save)) {
        json_t *line = json_loads(p, 0, NULL);

        *n_bad += line == NULL;
        for (int c = 0; line != NULL && c < N_CURVES; c++) add_point(&curves[c], line);
        json_decref(line);
    }
    for (int c = 0; c < N_CURVES; c++) thin(&curves[c]);
out:
    return st;
}

sh_status sh_report_training(FILE *file, const char *run)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    char *text = NULL;
    size_t n_bytes = 0, n_lines = 1;
    int64_t n_bad = 0;
    curve curves[N_CURVES] = {
        [LOSS] = {.path = {"loss"}, .name = "loss"},
        [TRIPLETS] = {.path = {"triplets"}, .name = "taken"},
        [ACTIVE] = {.path = {"active"}, .name = "with a loss"},
        [ACCURACY] = {.path = {"accuracy"}, .name = "accuracy"},
        [GRAD_NORM] = {.path = {"grad_norm"}, .name = "norm"},
        [VAL_RANK1] = {.path = {"val", "rank1"}, .name = "rank-1"},
        [VAL_MAP] = {.path = {"val", "map"}, .name = "mAP"},
        [VAL_AUC] = {.path = {"val", "auc"}, .name = "AUC"},
    };

    fputs("<h2>Training</h2>\n", file);
    SH_TRY(sh_run_path(run, "metrics.jsonl", path));
    if (!sh_file_exists(path)) {
        fputs("<p class=\"note\">This run has no metrics.jsonl.</p>\n", file);
        goto out;
    }
    SH_TRY(sh_file_get(path, MAX_LOG_BYTES, &text, &n_bytes));
    for (size_t i = 0; i < n_bytes; i++) n_lines += text[i] == '\n';
    SH_TRY(read_curves(text, n_lines, curves, &n_bad));
    write_charts(file, curves);
    if (n_bad > 0)
        fprintf(file, "<p class=\"note\">%lld lines of metrics.jsonl could not be read.</p>\n",
                (long long)n_bad);
out:
    for (int c = 0; c < N_CURVES; c++) {
        free(curves[c].x);
        free(curves[c].y);
    }
    free(text);
    return st;
}
