// SPDX-License-Identifier: Apache-2.0
/* The answers as a table and as a page of pictures. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataio/csv.h"
#include "trainer/html.h"
#include "trainer/identify.h"

enum { NUMBER = 32, PICTURE_SIDE = 108, MAX_TRACK_PICTURES = 2 };

static const char *crop_name(const sh_dataset *dataset, int64_t crop)
{
    return sh_dataset_crop(dataset, crop)->name;
}

static const char *gallery_name(const sh_identify_report *r, int64_t row)
{
    return crop_name(r->gallery->dataset, r->gallery->crops[row]);
}

sh_status sh_identify_write_csv(const sh_identify_report *report, const char *path)
{
    sh_status st = SH_OK;
    static const char *const columns[] = {"query",      "track",    "images",        "rank",
                                          "individual", "distance", "gallery_image", "verdict"};
    const sh_identity *id = report->identity;
    sh_file_writer *writer = NULL;

    SH_TRY(sh_file_writer_create(path, &writer));
    SH_TRY(sh_csv_write_row(writer, columns, SH_COUNT(columns)));
    for (int64_t t = 0; t < id->n; t++) {
        const sh_answer *a = &id->answers[t];

        for (int k = 0; k < a->n_matches; k++) {
            const sh_match *m = &id->matches[t * id->top + k];
            char images[NUMBER], rank[NUMBER], distance[NUMBER];

            snprintf(images, NUMBER, "%lld", (long long)a->n_images);
            snprintf(rank, NUMBER, "%d", k + 1);
            snprintf(distance, NUMBER, "%.6g", m->distance);

            const char *fields[SH_COUNT(columns)] = {
                crop_name(report->queries, m->query_row),
                report->tracks[t],
                images,
                rank,
                sh_eval_data_name(report->gallery, m->individual),
                distance,
                gallery_name(report, m->gallery_row),
                sh_verdict_name(a->verdict),
            };

            SH_TRY(sh_csv_write_row(writer, fields, SH_COUNT(columns)));
        }
    }
    SH_TRY(sh_file_writer_commit(writer));
out:
    sh_file_writer_destroy(&writer);
    return st;
}

/* ---- page ---- */

static sh_status write_picture(FILE *f, const sh_dataset *dataset, int64_t crop)
{
    sh_status st = SH_OK;
    sh_image image = {0};

    SH_TRY(sh_dataset_decode(dataset, crop, 3, PICTURE_SIDE, PICTURE_SIDE, &image));
    SH_TRY(sh_html_image(f, &image, PICTURE_SIDE, crop_name(dataset, crop)));
out:
    sh_image_clear(&image);
    return st;
}

static sh_status write_queries(FILE *f, const sh_identify_report *r, int64_t t)
{
    sh_status st = SH_OK;
    const sh_answer *a = &r->identity->answers[t];
    int64_t n = a->n_images < MAX_TRACK_PICTURES ? a->n_images : MAX_TRACK_PICTURES;

    for (int64_t k = 0; k < n; k++) {
        /* spread over the track */
        int64_t row = r->identity->order[a->first + k * a->n_images / n];

        fputs("<figure>", f);
        SH_TRY(write_picture(f, r->queries, row));
        fputs("<figcaption>", f);
        sh_html_text(f, k == 0 && r->by_track ? r->tracks[t] : crop_name(r->queries, row));
        if (k == 0 && r->by_track) fprintf(f, "<br>%lld images", (long long)a->n_images);
        fputs("</figcaption></figure>", f);
    }
out:
    return st;
}

static sh_status write_answer(FILE *f, const sh_identify_report *r, int64_t t)
{
    sh_status st = SH_OK;
    static const char *const classes[] = {
        [SH_VERDICT_KNOWN] = "known", [SH_VERDICT_LOOK] = "look", [SH_VERDICT_UNKNOWN] = "unknown"};
    const sh_answer *a = &r->identity->answers[t];

    fputs("<tr><td><div class=\"row\">", f);
    SH_TRY(write_queries(f, r, t));
    fprintf(f, "</div></td><td class=\"%s\">%s", classes[a->verdict], sh_verdict_name(a->verdict));
    if (a->verdict != SH_VERDICT_UNKNOWN && a->n_matches > 0) {
        fputs("<br><b>", f);
        sh_html_text(f, sh_eval_data_name(r->gallery,
                                          r->identity->matches[t * r->identity->top].individual));
        fputs(a->verdict == SH_VERDICT_LOOK ? "?</b>" : "</b>", f);
    }
    fputs("</td><td class=\"left\"><div class=\"row\">", f);
    for (int k = 0; k < a->n_matches; k++) {
        const sh_match *m = &r->identity->matches[t * r->identity->top + k];

        fputs("<figure>", f);
        SH_TRY(write_picture(f, r->gallery->dataset, r->gallery->crops[m->gallery_row]));
        fprintf(f, "<figcaption>%d. <b>", k + 1);
        sh_html_text(f, sh_eval_data_name(r->gallery, m->individual));
        fprintf(f, "</b> at %.3f<br>", m->distance);
        sh_html_text(f, gallery_name(r, m->gallery_row));
        fputs("</figcaption></figure>", f);
    }
    fputs("</div></td></tr>\n", f);
out:
    return st;
}

static void write_summary(FILE *f, const sh_identify_report *r, const sh_identity_totals *totals,
                          int64_t max_answers)
{
    int64_t n = r->identity->n;

    fprintf(f, "<p>%lld %s: %lld known, %lld to look at, %lld unknown, against %lld images of %d ",
            (long long)n, r->by_track ? "tracks" : "images",
            (long long)totals->verdicts[SH_VERDICT_KNOWN],
            (long long)totals->verdicts[SH_VERDICT_LOOK],
            (long long)totals->verdicts[SH_VERDICT_UNKNOWN], (long long)r->gallery->n,
            r->gallery->n_individuals);
    fputs("fish.</p>\n<p class=\"note\">", f);
    if (r->thresholds != NULL)
        fprintf(f,
                "Known up to a distance of %.3f, unknown above %.3f: chosen on %d validation fish "
                "for a false-match rate of %g. A gallery with more fish than those makes more "
                "false matches.",
                r->thresholds->accept, r->thresholds->reject, r->thresholds->n_individuals,
                r->thresholds->rate);
    else
        fputs("The run has no threshold: its split has no validation fish. Every answer has to be "
              "looked at.",
              f);
    if (totals->n_repeats > 0)
        fprintf(f, " " SH_IDENTIFY_REPEATS ".", (long long)totals->n_repeats);
    if (n > max_answers)
        fprintf(f,
                " The first %lld are shown, those to look at before the others; all are in the "
                "table.",
                (long long)max_answers);
    fputs("</p>\n<table><tr><th>query</th><th>verdict</th><th class=\"left\">nearest fish, each by "
          "its nearest image</th></tr>\n",
          f);
}

sh_status sh_identify_write_html(const sh_identify_report *report, int64_t max_answers,
                                 const char *path)
{
    sh_status st = SH_OK;
    static const sh_verdict shown_first[] = {SH_VERDICT_LOOK, SH_VERDICT_UNKNOWN, SH_VERDICT_KNOWN};
    const sh_identity *id = report->identity;
    bool all = id->n <= max_answers; /* then in their own order */
    const sh_identity_totals totals = sh_identity_count(id);
    int64_t n_shown = 0;
    sh_page page = {0};

    SH_TRY(sh_page_begin("Who is it?", &page));
    write_summary(page.file, report, &totals, max_answers);
    for (size_t pass = 0; pass < (all ? 1 : SH_COUNT(shown_first)); pass++) {
        for (int64_t t = 0; t < id->n && n_shown < max_answers; t++) {
            if (!all && id->answers[t].verdict != shown_first[pass]) continue;
            SH_TRY(write_answer(page.file, report, t));
            n_shown++;
        }
    }
    fputs("</table>\n", page.file);
    SH_TRY(sh_page_put(&page, path));
out:
    sh_page_clear(&page);
    return st;
}
