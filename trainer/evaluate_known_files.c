// SPDX-License-Identifier: Apache-2.0
/* Classification of known individuals: as CSV, in words, as HTML. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataio/csv.h"
#include "trainer/evaluate_known.h"
#include "trainer/html.h"
#include "trainer/run.h"

enum { NUMBER = 40, N_SHOWN = 8, MAX_MATRIX = 40 };

static const char *const class_columns[] = {"individual", "crops", "precision", "recall", "f1"};
enum { N_CLASS_COLUMNS = SH_COUNT(class_columns) };

static const char *name_of(const json_t *section, size_t class)
{
    const json_t *row = json_array_get(json_object_get(section, "per_class"), class);

    return json_string_value(json_object_get(row, "individual"));
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* confusion [n, n], malloc'd. */
static sh_status unpack(const json_t *section, size_t n, int64_t **out)
{
    sh_status st = SH_OK;
    size_t i;
    const json_t *cell;
    int64_t *matrix = calloc(n * n + 1, sizeof(*matrix));

    SH_CHECK(matrix != NULL, SH_ERR_NO_MEMORY, "confusion matrix of %zu classes", n);
    json_array_foreach(json_object_get(section, "confusion"), i, cell)
    {
        size_t truth = (size_t)json_integer_value(json_array_get(cell, 0));
        size_t answer = (size_t)json_integer_value(json_array_get(cell, 1));

        matrix[truth * n + answer] = json_integer_value(json_array_get(cell, 2));
    }
    *out = matrix;
out:
    return st;
}

static sh_status write_classes(const json_t *section, const char *folder)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH], text[N_CLASS_COLUMNS][NUMBER];
    sh_file_writer *writer = NULL;
    size_t i;
    const json_t *row;

    SH_TRY(sh_run_path(folder, "classes.csv", path));
    SH_TRY(sh_file_writer_create(path, &writer));
    SH_TRY(sh_csv_write_row(writer, class_columns, N_CLASS_COLUMNS));
    json_array_foreach(json_object_get(section, "per_class"), i, row)
    {
        const char *fields[N_CLASS_COLUMNS] = {name_of(section, i)};

        for (int k = 1; k < N_CLASS_COLUMNS; k++) {
            snprintf(text[k], NUMBER, "%.6g", number(row, class_columns[k]));
            fields[k] = text[k];
        }
        SH_TRY(sh_csv_write_row(writer, fields, N_CLASS_COLUMNS));
    }
    SH_TRY(sh_file_writer_commit(writer));
out:
    sh_file_writer_destroy(&writer);
    return st;
}

static sh_status write_confusion(const json_t *section, const char *folder)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    size_t n = json_array_size(json_object_get(section, "per_class"));
    int64_t *matrix = NULL;
    const char **fields = calloc(n + 1, sizeof(*fields));
    char(*text)[NUMBER] = calloc(n + 1, sizeof(*text));
    sh_file_writer *writer = NULL;

    SH_CHECK(fields != NULL && text != NULL, SH_ERR_NO_MEMORY, "confusion matrix");
    SH_TRY(unpack(section, n, &matrix));
    SH_TRY(sh_run_path(folder, "confusion.csv", path));
    SH_TRY(sh_file_writer_create(path, &writer));
    fields[0] = "truth";
    for (size_t k = 0; k < n; k++) fields[k + 1] = name_of(section, k);
    SH_TRY(sh_csv_write_row(writer, fields, (int)n + 1));
    for (size_t i = 0; i < n; i++) {
        fields[0] = name_of(section, i);
        for (size_t k = 0; k < n; k++) {
            snprintf(text[k], NUMBER, "%lld", (long long)matrix[i * n + k]);
            fields[k + 1] = text[k];
        }
        SH_TRY(sh_csv_write_row(writer, fields, (int)n + 1));
    }
    SH_TRY(sh_file_writer_commit(writer));
out:
    sh_file_writer_destroy(&writer);
    free(matrix);
    free(fields);
    free(text);
    return st;
}

sh_status sh_known_write_csv(const json_t *section, const char *folder)
{
    sh_status st = SH_OK;

    if (!json_is_object(section)) goto out;
    SH_TRY(write_classes(section, folder));
    SH_TRY(write_confusion(section, folder));
out:
    return st;
}

static int by_count(const void *x, const void *y)
{
    json_int_t a = json_integer_value(json_array_get(*(json_t *const *)x, 2));
    json_int_t b = json_integer_value(json_array_get(*(json_t *const *)y, 2));

    return (a < b) - (a > b);
}

void sh_known_print(const json_t *section)
{
    const json_t *cells = json_object_get(section, "confusion");
    const json_t **wrong = NULL;
    size_t i, n = 0;
    const json_t *cell;

    if (!json_is_object(section)) return;
    printf("\nknown individuals, by %s: %lld crops of %lld of %lld classes\n",
           json_string_value(json_object_get(section, "method")),
           (long long)number(section, "crops"), (long long)number(section, "classes_tested"),
           (long long)number(section, "classes"));
    printf("  accuracy %.3f (per individual %.3f; chance %.3f), macro precision %.3f, recall %.3f, "
           "F1 %.3f\n",
           number(section, "accuracy"), number(section, "accuracy_per_individual"),
           number(section, "chance"), number(section, "macro_precision"),
           number(section, "macro_recall"), number(section, "macro_f1"));
    if (number(section, "left_out_not_trained_on") > 0)
        printf("  %lld crops of fish that were not trained on are left out\n",
               (long long)number(section, "left_out_not_trained_on"));
    if (number(section, "unmatched") > 0)
        printf("  %lld crops whose fish was trained on in the same recording alone are left out\n",
               (long long)number(section, "unmatched"));
    wrong = malloc((json_array_size(cells) + 1) * sizeof(*wrong));
    json_array_foreach(cells, i, cell)
    {
        bool right = json_equal(json_array_get(cell, 0), json_array_get(cell, 1));

        if (wrong != NULL && !right) wrong[n++] = cell;
    }
    if (n > 0) {
        qsort(wrong, n, sizeof(*wrong), by_count);
        printf("  most often taken for another:");
        for (i = 0; i < n && i < N_SHOWN; i++)
            printf("%s %s for %s (%lld)", i > 0 ? "," : "",
                   name_of(section, (size_t)json_integer_value(json_array_get(wrong[i], 0))),
                   name_of(section, (size_t)json_integer_value(json_array_get(wrong[i], 1))),
                   (long long)json_integer_value(json_array_get(wrong[i], 2)));
        printf("\n");
    }
    free(wrong);
}

/* The matrix itself where it fits on a page; a cell is darker the more of its row it holds. */
static void report_matrix(const json_t *section, FILE *f)
{
    size_t n = json_array_size(json_object_get(section, "per_class"));
    int64_t *matrix = NULL;

    if (n > MAX_MATRIX) {
        fputs("<p class=\"note\">The confusion matrix is in confusion.csv.</p>\n", f);
        return;
    }
    if (unpack(section, n, &matrix) != SH_OK) return;
    fputs("<details><summary>Confusion matrix (rows: truth)</summary><table><tr><th></th>", f);
    for (size_t k = 0; k < n; k++) {
        fputs("<th>", f);
        sh_html_text(f, name_of(section, k));
        fputs("</th>", f);
    }
    fputs("</tr>\n", f);
    for (size_t i = 0; i < n; i++) {
        int64_t total = 0;

        for (size_t k = 0; k < n; k++) total += matrix[i * n + k];
        fputs("<tr><td>", f);
        sh_html_text(f, name_of(section, i));
        fputs("</td>", f);
        for (size_t k = 0; k < n; k++) {
            double share = total > 0 ? (double)matrix[i * n + k] / (double)total : 0;

            fprintf(f, "<td style=\"background:rgba(%s,%.2f)\">",
                    i == k ? "40,120,60" : "190,60,40", 0.8 * share);
            if (matrix[i * n + k] > 0) fprintf(f, "%lld", (long long)matrix[i * n + k]);
            fputs("</td>", f);
        }
        fputs("</tr>\n", f);
    }
    fputs("</table></details>\n", f);
    free(matrix);
}

void sh_known_report(const json_t *section, FILE *f)
{
    size_t i;
    const json_t *row;

    if (!json_is_object(section)) return;
    fputs("<h2>Known individuals</h2>\n<p class=\"note\">Each test crop is given one of the fish "
          "that were trained on, by ",
          f);
    sh_html_text(f, json_string_value(json_object_get(section, "method")));
    fprintf(f,
            ". %lld crops; accuracy %.3f, per individual %.3f, chance %.3f; macro precision %.3f, "
            "recall %.3f, F1 %.3f. %lld crops of other fish, and %lld whose fish was trained on in "
            "the same recording alone, are left out.</p>\n",
            (long long)number(section, "crops"), number(section, "accuracy"),
            number(section, "accuracy_per_individual"), number(section, "chance"),
            number(section, "macro_precision"), number(section, "macro_recall"),
            number(section, "macro_f1"), (long long)number(section, "left_out_not_trained_on"),
            (long long)number(section, "unmatched"));
    fputs("<details><summary>Each class</summary><table><tr><th>individual</th><th>crops</th>"
          "<th>precision</th><th>recall</th><th>F1</th></tr>\n",
          f);
    json_array_foreach(json_object_get(section, "per_class"), i, row)
    {
        fputs("<tr><td>", f);
        sh_html_text(f, name_of(section, i));
        fprintf(f, "</td><td>%lld</td><td>%.3f</td><td>%.3f</td><td>%.3f</td></tr>\n",
                (long long)number(row, "crops"), number(row, "precision"), number(row, "recall"),
                number(row, "f1"));
    }
    fputs("</table></details>\n", f);
    report_matrix(section, f);
}
