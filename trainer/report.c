// SPDX-License-Identifier: Apache-2.0
#include "trainer/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "trainer/html.h"
#include "trainer/run.h"

enum { N_MATCHES = 8, PICTURE_SIDE = 140, DECODE_SIDE = 140, MAX_TEXT_BYTES = 1 << 20 };
enum { N_DROPPED_SHOWN = 20 };

/* ---- what was trained and tested on ---- */

static sh_status write_split(FILE *f, const sh_eval_result *r)
{
    sh_status st = SH_OK;
    static const sh_part parts[] = {SH_PART_TRAIN, SH_PART_VAL, SH_PART_TEST, SH_PART_NONE};
    const sh_dataset *d = r->run_dataset;
    size_t n_fish = (size_t)sh_dataset_n_individuals(d), n_rec = (size_t)sh_dataset_n_recordings(d);
    uint8_t *seen = malloc(n_fish + n_rec + 1);

    SH_CHECK(seen != NULL, SH_ERR_NO_MEMORY, "counts of the split");
    fputs("<h2>Data</h2>\n<table><tr><th>part</th><th>crops</th><th>individuals</th>"
          "<th>recordings</th></tr>",
          f);
    for (size_t p = 0; p < SH_COUNT(parts); p++) {
        int64_t n_crops = 0, n_individuals = 0, n_recordings = 0;

        memset(seen, 0, n_fish + n_rec + 1);
        for (int64_t i = 0; i < r->split.n; i++) {
            const sh_crop *crop = sh_dataset_crop(d, i);

            if (r->split.part[i] != parts[p]) continue;
            n_crops++;
            if (crop->individual >= 0) seen[crop->individual] = 1;
            if (crop->recording >= 0) seen[n_fish + (size_t)crop->recording] = 1;
        }
        for (size_t i = 0; i < n_fish; i++) n_individuals += seen[i];
        for (size_t i = 0; i < n_rec; i++) n_recordings += seen[n_fish + i];
        if (parts[p] == SH_PART_NONE && n_crops == 0) continue;
        fprintf(f, "<tr><td>%s</td><td>%lld</td><td>%lld</td><td>%lld</td></tr>",
                parts[p] == SH_PART_NONE ? "in no part (unlabelled or too small)"
                                         : sh_part_name(parts[p]),
                (long long)n_crops, (long long)n_individuals, (long long)n_recordings);
    }
    fputs("</table>\n", f);
out:
    free(seen);
    return st;
}

static void write_dropped(FILE *f, const sh_dataset *d)
{
    int64_t n = sh_dataset_n_dropped(d);

    if (n == 0) {
        fputs("<p class=\"note\">No file was dropped when the packs were made.</p>\n", f);
        return;
    }
    fprintf(f, "<details><summary>%lld files were dropped when the packs were made</summary><ul>",
            (long long)n);
    for (int64_t i = 0; i < n && i < N_DROPPED_SHOWN; i++) {
        const char *name = NULL, *reason = NULL;

        sh_dataset_dropped(d, i, &name, &reason);
        fputs("<li>", f);
        sh_html_text(f, name);
        fputs(": ", f);
        sh_html_text(f, reason);
        fputs("</li>", f);
    }
    if (n > N_DROPPED_SHOWN)
        fprintf(f, "<li>and %lld more (shoal inspect lists them)</li>",
                (long long)(n - N_DROPPED_SHOWN));
    fputs("</ul></details>\n", f);
}

static void write_name_list(FILE *f, const json_t *names, const char *what)
{
    size_t i, n = json_array_size(names);
    const json_t *name;

    if (n == 0) return;
    fprintf(f, "<details><summary>%zu %s</summary><p class=\"note\">", n, what);
    json_array_foreach(names, i, name)
    {
        if (i > 0) fputs(", ", f);
        sh_html_text(f, json_string_value(name));
    }
    fputs("</p></details>\n", f);
}

/* ---- pictures ---- */

static sh_status write_picture(FILE *f, const sh_eval_data *data, int64_t row, const char *class,
                               const char *role, float distance)
{
    sh_status st = SH_OK;
    sh_image image = {0};
    const sh_crop *crop = sh_dataset_crop(data->dataset, data->crops[row]);

    SH_TRY(sh_dataset_decode(data->dataset, data->crops[row], 3, DECODE_SIDE, DECODE_SIDE, &image));
    fprintf(f, "<figure class=\"%s\">", class);
    SH_TRY(sh_html_image(f, &image, PICTURE_SIDE, crop->name));
    fprintf(f, "<figcaption>%s <b>", role);
    sh_html_text(f, sh_eval_data_name(data, data->individual[row]));
    fputs("</b>", f);
    if (isfinite(distance)) fprintf(f, " at %.3f", (double)distance);
    if (crop->recording >= 0) {
        fputs("<br>recording ", f);
        sh_html_text(f, sh_dataset_recording(data->dataset, crop->recording));
    }
    fputs("</figcaption></figure>", f);
out:
    sh_image_clear(&image);
    return st;
}

/* How clearly the right fish won (above 0) or lost. */
static float margin_of(const sh_query *q)
{
    return q->wrong_distance - q->right_distance;
}

static bool is_candidate(const sh_query *q, bool best)
{
    if (q->n_matches == 0 || q->nearest_wrong < 0) return false;
    return (q->nearest == q->nearest_right) == best;
}

/* The clearest matches, or mistakes: at most one per individual. */
static sh_status write_matches(FILE *f, const sh_eval_result *r, bool best)
{
    sh_status st = SH_OK;
    const sh_eval_data *data = &r->data;
    uint8_t *shown = calloc((size_t)data->n_individuals + 1, 1);
    int n_shown = 0;

    SH_CHECK(shown != NULL, SH_ERR_NO_MEMORY, "pictures");
    fputs("<div class=\"matches\">", f);
    for (int k = 0; k < N_MATCHES; k++) {
        const sh_query *pick = NULL;

        for (int64_t i = 0; i < data->n; i++) {
            const sh_query *q = &r->queries[i];

            if (!is_candidate(q, best) || shown[data->individual[i]]) continue;
            if (pick == NULL ||
                (best ? margin_of(q) > margin_of(pick) : margin_of(q) < margin_of(pick)))
                pick = q;
        }
        if (pick == NULL) break;
        shown[data->individual[pick->row]] = 1;
        n_shown++;
        fputs("<div class=\"match\">", f);
        SH_TRY(write_picture(f, data, pick->row, "query", "query", NAN));
        SH_TRY(write_picture(f, data, pick->nearest_right, "right", "nearest right",
                             pick->right_distance));
        SH_TRY(write_picture(f, data, pick->nearest_wrong, "wrong", "nearest wrong",
                             pick->wrong_distance));
        fputs("</div>\n", f);
    }
    fputs("</div>", f);
    if (n_shown == 0) fputs("<p class=\"note\">None.</p>\n", f);
out:
    free(shown);
    return st;
}

/* A text file of the run, as it is; an absent one is left out. */
static sh_status write_file_text(FILE *f, const char *run, const char *name, const char *title)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    char *text = NULL;
    size_t n_bytes = 0;

    SH_TRY(sh_run_path(run, name, path));
    if (!sh_file_exists(path)) goto out;
    SH_TRY(sh_file_get(path, MAX_TEXT_BYTES, &text, &n_bytes));
    fprintf(f, "<details><summary>%s (%s)</summary><pre>", title, name);
    sh_html_text(f, text);
    fputs("</pre></details>\n", f);
out:
    free(text);
    return st;
}

static void write_stamps(FILE *f, const json_t *evaluation)
{
    size_t i;
    const json_t *stamp;

    fputs("<p class=\"note\">", f);
    sh_html_text(f, json_string_value(json_object_get(evaluation, "net")));
    fputs(", part scored: ", f);
    sh_html_text(f, json_string_value(json_object_get(evaluation, "part")));
    fprintf(f, ", %lld individuals, shoal " SHOAL_VERSION "</p>\n",
            (long long)json_integer_value(
                json_object_get(json_object_get(evaluation, "data"), "individuals")));
    json_array_foreach(json_object_get(evaluation, "stamps"), i, stamp)
    {
        fputs("<p class=\"stamp\">", f);
        sh_html_text(f, json_string_value(stamp));
        fputs("</p>\n", f);
    }
}

sh_status sh_report_write(const char *run, const sh_eval_result *result, const char *path)
{
    sh_status st = SH_OK;
    sh_page page = {0};
    char title[SH_RUN_PATH + 16];
    const json_t *e = result->json, *data = json_object_get(e, "data");

    snprintf(title, sizeof(title), "Run %s", run);
    SH_TRY(sh_page_begin(title, &page));
    write_stamps(page.file, e);
    sh_report_scores(page.file, e);
    fputs("<h2>Clearest matches</h2>\n", page.file);
    SH_TRY(write_matches(page.file, result, true));
    fputs("<h2>Clearest mistakes</h2>\n", page.file);
    SH_TRY(write_matches(page.file, result, false));
    SH_TRY(sh_report_training(page.file, run));
    SH_TRY(write_split(page.file, result));
    write_dropped(page.file, result->run_dataset);
    write_name_list(page.file, json_object_get(data, "unmatched"),
                    "queries without a match in another recording");
    write_name_list(page.file, json_object_get(data, "duplicates"),
                    "duplicates left out: the same pixels of the same individual");
    write_name_list(page.file, json_object_get(e, "refused"),
                    "crops refused: the run was trained on the same pixels");
    fputs("<h2>How it was made</h2>\n", page.file);
    SH_TRY(write_file_text(page.file, run, "config.yaml", "Configuration"));
    SH_TRY(write_file_text(page.file, run, "manifest.json", "Manifest"));
    SH_TRY(sh_page_put(&page, path));
out:
    sh_page_clear(&page);
    return st;
}
