// SPDX-License-Identifier: Apache-2.0
/* The figures of an evaluation as tables and charts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/evaluate_known.h"
#include "trainer/html.h"
#include "trainer/report.h"

enum { DIGITS = 3 };

static double number(const json_t *value)
{
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static long long count(const json_t *value)
{
    return (long long)json_integer_value(value);
}

static void cell(FILE *f, const json_t *value)
{
    fputs("<td>", f);
    sh_html_number(f, number(value), DIGITS);
    fputs("</td>", f);
}

static void write_interval(FILE *f, const json_t *interval)
{
    if (!json_is_number(json_array_get(interval, 0))) return;
    fputs(" <span class=\"note\">[", f);
    sh_html_number(f, number(json_array_get(interval, 0)), DIGITS);
    fputs(", ", f);
    sh_html_number(f, number(json_array_get(interval, 1)), DIGITS);
    fputs("]</span>", f);
}

static void card(FILE *f, const char *title, const json_t *value, const json_t *interval)
{
    fprintf(f, "<div class=\"card\">%s<b>", title);
    sh_html_number(f, number(value), DIGITS);
    fputs("</b>", f);
    write_interval(f, interval);
    fputs("</div>", f);
}

static void score_row(FILE *f, const char *name, const json_t *scores)
{
    static const char *const keys[] = {"rank1", "rank5", "rank10", "map", "auc"};

    fprintf(f, "<tr><td>%s</td>", name);
    for (size_t i = 0; i < SH_COUNT(keys); i++) cell(f, json_object_get(scores, keys[i]));
    fputs("</tr>\n", f);
}

static void write_headline(FILE *f, const json_t *e)
{
    const json_t *id = json_object_get(e, "identification");
    const json_t *fish = json_object_get(id, "per_individual");
    const json_t *v = json_object_get(json_object_get(e, "verification"), "per_individual");
    const json_t *floors = json_object_get(e, "floors"), *sides = json_object_get(e, "sides");
    const json_t *seen = json_object_get(e, "seen_individuals");

    fputs("<div class=\"cards\">", f);
    card(f, "rank-1", json_object_get(fish, "rank1"), json_object_get(fish, "rank1_interval"));
    card(f, "mAP", json_object_get(fish, "map"), json_object_get(fish, "map_interval"));
    card(f, "AUC", json_object_get(v, "auc"), json_object_get(v, "auc_interval"));
    card(f, "unknown fish: AUC", json_object_get(json_object_get(e, "unknown"), "detection_auc"),
         NULL);
    fputs("</div>\n<p class=\"note\">Averages over individuals; in brackets 95&nbsp;% intervals "
          "from resampling individuals. Every query searches all other images but those of its own "
          "fish in its own recording.</p>\n<table><tr><th></th><th>rank-1</th><th>rank-5</th>"
          "<th>rank-10</th><th>mAP</th><th>AUC</th></tr>\n",
          f);
    score_row(f, "per individual", fish);
    score_row(f, "per track", json_object_get(id, "per_track"));
    score_row(f, "per image", json_object_get(id, "per_image"));
    if (json_is_object(sides)) {
        score_row(f, "same side only", json_object_get(sides, "same_side"));
        score_row(f, "opposite side only", json_object_get(sides, "cross_side"));
    }
    if (seen != NULL)
        score_row(f, "fish seen in training",
                  json_object_get(json_object_get(seen, "identification"), "per_individual"));
    score_row(f, "floor: chance", json_object_get(floors, "chance"));
    score_row(f, "floor: colour histogram", json_object_get(floors, "colour_histogram"));
    score_row(f, "floor: the network untrained", json_object_get(floors, "untrained"));
    fputs("</table>\n", f);
}

/* Numbers under `key` of an array of objects, or of an array itself where key is NULL. */
static int collect(const json_t *array, const char *key, double *out, int room)
{
    size_t i;
    const json_t *entry;
    int n = 0;

    json_array_foreach(array, i, entry)
    {
        if (n < room) out[n++] = number(key != NULL ? json_object_get(entry, key) : entry);
    }
    return n;
}

enum { MAX_POINTS = 512 };

static void write_roc(FILE *f, const json_t *verification)
{
    static const char *const keys[] = {"per_individual", "per_image_pair", "all_pairs_leaking"};
    static const char *const names[] = {"balanced", "image pairs", "all pairs (leaking)"};
    double x[3][MAX_POINTS], y[3][MAX_POINTS];
    sh_series series[3];

    for (int i = 0; i < 3; i++) {
        const json_t *curve = json_object_get(json_object_get(verification, keys[i]), "curve");
        int n = collect(json_object_get(curve, "fpr"), NULL, x[i], MAX_POINTS);

        collect(json_object_get(curve, "tpr"), NULL, y[i], MAX_POINTS);
        /* zero lies off a logarithmic axis: the last point without a false match is its foot */
        while (n > 1 && x[i][0] <= 0 && x[i][1] <= 0) {
            memmove(x[i], x[i] + 1, (size_t)(n - 1) * sizeof(double));
            memmove(y[i], y[i] + 1, (size_t)(n - 1) * sizeof(double));
            n--;
        }
        if (n > 1 && x[i][0] <= 0) x[i][0] = x[i][1] / 2;
        series[i] = (sh_series){names[i], x[i], y[i], n};
    }
    sh_html_chart(f, &(sh_chart){.title = "ROC",
                                 .x_label = "false-match rate",
                                 .y_label = "pairs of one fish accepted",
                                 .log_x = true,
                                 .y_max = 1,
                                 .series = series,
                                 .n_series = 3});
}

static void write_sweep(FILE *f, const json_t *verification)
{
    static const char *const keys[] = {"total", "same", "different"};
    const json_t *sweep = json_object_get(json_object_get(verification, "per_image_pair"), "sweep");
    double x[MAX_POINTS], y[3][MAX_POINTS];
    sh_series series[3];
    int n = collect(sweep, "threshold", x, MAX_POINTS);

    for (int i = 0; i < 3; i++) {
        collect(sweep, keys[i], y[i], MAX_POINTS);
        series[i] = (sh_series){keys[i], x, y[i], n};
    }
    sh_html_chart(f, &(sh_chart){.title = "Accuracy by threshold",
                                 .x_label = "distance threshold",
                                 .y_label = "share decided rightly",
                                 .y_max = 1,
                                 .series = series,
                                 .n_series = 3});
}

static void write_gallery(FILE *f, const json_t *gallery)
{
    double x[MAX_POINTS], y[MAX_POINTS];
    int n = collect(gallery, "individuals", x, MAX_POINTS);

    collect(gallery, "rank1", y, MAX_POINTS);
    sh_html_chart(f, &(sh_chart){.title = "Rank-1 by gallery size",
                                 .x_label = "individuals in the gallery",
                                 .y_label = "rank-1",
                                 .y_max = 1,
                                 .series = &(sh_series){"rank-1", x, y, n},
                                 .n_series = 1});
}

static void write_verification(FILE *f, const json_t *e)
{
    const json_t *section = json_object_get(e, "verification"), *rate;
    const json_t *v = json_object_get(section, "per_individual");
    size_t i;

    fputs("<h2>Are two images one fish?</h2>\n<div class=\"charts\">", f);
    write_roc(f, section);
    write_sweep(f, section);
    write_gallery(f, json_object_get(e, "gallery"));
    fprintf(f,
            "</div><p class=\"note\">%lld pairs of one fish across recordings, %lld of two; %lld "
            "pairs of individuals. Balanced: every individual, and every pair of individuals, "
            "weighs the same. The curve over all pairs also counts images of one recording, which "
            "are near-duplicates; it is shown for comparison with other work only.%s</p>\n"
            "<table><tr><th>false-match rate</th><th>pairs of one fish accepted</th><th></th></tr>",
            count(json_object_get(section, "same_pairs")),
            count(json_object_get(section, "different_pairs")),
            count(json_object_get(section, "pairs_of_individuals")),
            json_is_true(json_object_get(v, "binned"))
                ? " Distances are rounded to one of 2<sup>20</sup> cells."
                : "");
    json_array_foreach(json_object_get(v, "tpr_at_fpr"), i, rate)
    {
        fprintf(f, "<tr><td>%g</td><td>", number(json_object_get(rate, "fpr")));
        sh_html_number(f, number(json_object_get(rate, "tpr")), DIGITS);
        write_interval(f, json_object_get(rate, "interval"));
        fprintf(f, "</td><td class=\"note left\">%s</td></tr>\n",
                json_is_true(json_object_get(rate, "estimable"))
                    ? ""
                    : "not estimable: fewer pairs of individuals than 1 / rate");
    }
    fputs("</table><p>Equal error rate ", f);
    sh_html_number(f, number(json_object_get(v, "equal_error")), DIGITS);
    fputs(".</p>\n", f);
}

static void write_threshold(FILE *f, const json_t *e)
{
    static const struct {
        const char *key, *words;
    } rows[] = {
        {"pair", "two images are one fish up to the distance"},
        {"false_matches", "pairs of two fish accepted by it here"},
        {"misses", "pairs of one fish refused by it here"},
        {"accept", "searching a gallery: known up to the distance"},
        {"reject", "unknown above the distance; between them, look at it"},
        {"search_right", "searches here: known, the right fish"},
        {"search_wrong", "known, a wrong fish"},
        {"search_look", "look at it"},
        {"search_refused", "unknown, though the fish is there"},
    };
    const json_t *t = json_object_get(e, "threshold");

    fputs("<h2>Operating threshold</h2>\n", f);
    if (!json_is_object(t)) {
        fputs("<p class=\"note\">None: the split has no validation individuals to choose it "
              "on.</p>\n",
              f);
        return;
    }
    fprintf(f,
            "<p class=\"note\">Chosen on %lld validation individuals for a false-match rate of "
            "%g%s. What it does to the individuals scored here:</p>\n<table>",
            count(json_object_get(t, "validation_individuals")),
            number(json_object_get(t, "chosen_at")),
            json_is_true(json_object_get(t, "rate_estimable"))
                ? ""
                : ", which so few individuals cannot estimate");
    for (size_t i = 0; i < SH_COUNT(rows); i++) {
        fprintf(f, "<tr><td>%s</td>", rows[i].words);
        cell(f, json_object_get(t, rows[i].key));
        fputs("</tr>", f);
    }
    fputs("</table>\n", f);
}

static void write_unknown(FILE *f, const json_t *e)
{
    static const struct {
        const char *key, *words;
    } rows[] = {
        {"false_matches", "unknown fish taken for a known one"},
        {"misses", "known fish not accepted"},
        {"wrong_fish", "known fish taken for another"},
    };
    const json_t *u = json_object_get(e, "unknown");

    fputs("<h2>Unknown fish</h2>\n", f);
    if (!json_is_object(u)) {
        fputs("<p class=\"note\">Too few individuals to hold a third of them out.</p>\n", f);
        return;
    }
    fprintf(f,
            "<p class=\"note\">A third of the individuals (%lld) is held out of the gallery, each "
            "third in turn: %lld searches by unknown fish, %lld by known ones.</p>\n<table><tr>"
            "<td>AUC of telling unknown from known by the nearest distance</td>",
            count(json_object_get(u, "held_out_individuals")),
            count(json_object_get(u, "unknown_searches")),
            count(json_object_get(u, "known_searches")));
    cell(f, json_object_get(u, "detection_auc"));
    fputs("</tr>", f);
    for (size_t i = 0; i < SH_COUNT(rows); i++) {
        const json_t *share = json_object_get(u, rows[i].key);

        if (share == NULL) continue;
        fprintf(f, "<tr><td>%s, at the threshold</td><td>", rows[i].words);
        sh_html_number(f, number(json_object_get(share, "value")), DIGITS);
        json_t *interval =
            json_pack("[O, O]", json_object_get(share, "lo"), json_object_get(share, "hi"));

        write_interval(f, interval);
        json_decref(interval);
        fputs("</td></tr>", f);
    }
    fputs("</table>\n", f);
}

static void write_time(FILE *f, const json_t *time)
{
    size_t i;
    const json_t *gap;

    if (json_array_size(time) == 0) return;
    fputs("<h2>Time between sightings</h2>\n<table><tr><th>days</th><th>rank-1</th>"
          "<th>queries</th></tr>",
          f);
    json_array_foreach(time, i, gap)
    {
        fputs("<tr><td>", f);
        sh_html_text(f, json_string_value(json_object_get(gap, "gap")));
        fputs("</td>", f);
        cell(f, json_object_get(gap, "rank1"));
        fprintf(f, "<td>%lld</td></tr>", count(json_object_get(gap, "queries")));
    }
    fputs("</table>\n", f);
}

static void write_individuals(FILE *f, const json_t *individuals)
{
    size_t i;
    const json_t *fish;

    fputs("<h2>Each fish</h2>\n<table><tr><th>individual</th><th>crops</th><th>recordings</th>"
          "<th>rank-1</th><th>rank-5</th><th>mAP</th><th class=\"left\">most often taken "
          "for</th></tr>\n",
          f);
    json_array_foreach(individuals, i, fish)
    {
        const char *other = json_string_value(json_object_get(fish, "taken_for"));

        fputs("<tr><td>", f);
        sh_html_text(f, json_string_value(json_object_get(fish, "name")));
        fprintf(f, "</td><td>%lld</td><td>%lld</td>", count(json_object_get(fish, "crops")),
                count(json_object_get(fish, "recordings")));
        cell(f, json_object_get(fish, "rank1"));
        cell(f, json_object_get(fish, "rank5"));
        cell(f, json_object_get(fish, "map"));
        fputs("<td class=\"left\">", f);
        sh_html_text(f, other);
        if (other != NULL)
            fprintf(f, " <span class=\"note\">(%lld of %lld queries)</span>",
                    count(json_object_get(fish, "taken_for_queries")),
                    count(json_object_get(fish, "queries")));
        fputs("</td></tr>\n", f);
    }
    fputs("</table>\n", f);
}

void sh_report_scores(FILE *file, const json_t *evaluation)
{
    write_headline(file, evaluation);
    write_verification(file, evaluation);
    write_threshold(file, evaluation);
    write_unknown(file, evaluation);
    sh_known_report(json_object_get(evaluation, "known"), file);
    write_time(file, json_object_get(evaluation, "time"));
    write_individuals(file, json_object_get(evaluation, "individuals"));
}
