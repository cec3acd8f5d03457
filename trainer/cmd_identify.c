// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/cpu.h"
#include "base/file.h"
#include "base/log.h"
#include "dataio/import.h"
#include "trainer/commands.h"
#include "trainer/embedder.h"
#include "trainer/identify.h"
#include "trainer/run.h"

enum { MAX_NAMED = 10, LABEL = 2048, KEY = LABEL + 32 };

typedef struct flags {
    sh_string_list gallery, patterns;
    const char *output, *by;
    int64_t top, threads, pictures;
} flags;

/* What is asked about: packs as they are, folders and images through a pack made for the while. */
typedef struct sources {
    const char **packs; /* [n_packs]; the last is temp, if that is used */
    const char **loose; /* [n_loose] folders and images */
    int n_packs, n_loose;
    char temp[SH_RUN_PATH]; /* "": none */
} sources;

static void sources_clear(sources *s)
{
    if (s->temp[0] != '\0') unlink(s->temp);
    free(s->packs);
    free(s->loose);
}

/* A pack, whole or damaged, or another HDF5 file, which opening it as a pack then names as such. */
static bool is_pack(const char *path)
{
    static const char *const heads[] = {"shoal-pack ", "\x89HDF\r\n\x1a\n"};
    char head[16] = {0};
    FILE *f = sh_file_is_dir(path) ? NULL : fopen(path, "rb");
    size_t n = f != NULL ? fread(head, 1, sizeof(head), f) : 0;

    if (f != NULL) fclose(f);
    for (size_t i = 0; i < SH_COUNT(heads); i++)
        if (n >= strlen(heads[i]) && memcmp(head, heads[i], strlen(heads[i])) == 0) return true;
    return false;
}

static void report_dropped(const sh_drop_list *dropped)
{
    for (int64_t i = 0; i < dropped->n && i < MAX_NAMED; i++)
        sh_log_warning("left out: %s: %s", dropped->names[i], dropped->reasons[i]);
    if (dropped->n > 0) sh_log_warning("%lld files left out", (long long)dropped->n);
}

/* Add what one folder or image holds. Names are paths as the user gave them: two folders may hold
 * images of the same name. Folder names are no labels here: who the fish are is the question. */
static sh_status plan_source(const char *source, const sh_folder_rules *rules, sh_import_plan *all)
{
    sh_status st = SH_OK;
    sh_import_plan plan = {0};

    SH_TRY(sh_import_plan_folders(&source, 1, rules, &plan));
    for (int64_t i = 0; i < plan.n; i++) {
        sh_import_item item = plan.items[i];

        if (strlen(item.path) <= SH_PACK_MAX_NAME && sh_is_utf8(item.path)) item.name = item.path;
        if (item.rule == SH_RULE_FOLDER) item.labels.individual = NULL;
        SH_TRY(sh_import_plan_add(all, &item));
    }
    for (int64_t i = 0; i < plan.dropped.n; i++)
        SH_TRY(sh_drop_list_add(&all->dropped, plan.dropped.names[i], plan.dropped.reasons[i]));
out:
    sh_import_plan_clear(&plan);
    return st;
}

/* Read folders and images into the temporary pack, whatever they are called. */
static sh_status import_loose(const flags *f, sources *s)
{
    sh_status st = SH_OK;
    sh_import_plan plan = {0};
    sh_import_report report = {0};
    const sh_folder_rules rules = {
        .patterns = f->patterns.items, .n_patterns = f->patterns.n, .keep_unmatched = true};
    const sh_import_options options = {.threads = sh_cpu_cores_granted()};

    for (int i = 0; i < s->n_loose; i++) SH_TRY(plan_source(s->loose[i], &rules, &plan));
    if (plan.n == 0) report_dropped(&plan.dropped);
    SH_CHECK(plan.n > 0, SH_ERR_USAGE, "no image to identify in %s%s", s->loose[0],
             s->n_loose > 1 ? " and the other sources" : "");
    SH_TRY(sh_import_plan_sort(&plan));
    SH_CHECK(snprintf(s->temp, sizeof(s->temp), "%s.tmp.%ld.h5", f->output, (long)getpid()) <
                 (int)sizeof(s->temp),
             SH_ERR_USAGE, "path too long: %.200s...", f->output);

    sh_status packed = sh_import_run(&plan, &options, s->temp, &report);

    report_dropped(&report.dropped); /* also where it left nothing to pack */
    SH_TRY(packed);
    s->packs[s->n_packs++] = s->temp;
out:
    sh_import_report_clear(&report);
    sh_import_plan_clear(&plan);
    return st;
}

static sh_status open_sources(const flags *f, const sh_string_list *paths, sources *s,
                              sh_dataset **out)
{
    sh_status st = SH_OK;

    s->packs = malloc(((size_t)paths->n + 1) * sizeof(*s->packs));
    s->loose = malloc(((size_t)paths->n + 1) * sizeof(*s->loose));
    SH_CHECK(s->packs != NULL && s->loose != NULL, SH_ERR_NO_MEMORY, "sources");
    for (int i = 0; i < paths->n; i++) {
        SH_CHECK(sh_file_exists(paths->items[i]), SH_ERR_NOT_FOUND, "%s does not exist",
                 paths->items[i]);
        if (is_pack(paths->items[i]))
            s->packs[s->n_packs++] = paths->items[i];
        else
            s->loose[s->n_loose++] = paths->items[i];
    }
    if (s->n_loose > 0) SH_TRY(import_loose(f, s));
    SH_TRY(sh_dataset_open(s->packs, s->n_packs, out));
out:
    return st;
}

/* The known fish: labelled crops, embedded. */
static sh_status open_gallery(const flags *f, sh_embedder *embedder, sh_dataset **dataset,
                              sh_eval_data *out)
{
    sh_status st = SH_OK;
    int64_t *crops = NULL, n = 0;

    SH_TRY(sh_dataset_open(f->gallery.items, f->gallery.n, dataset));
    n = sh_dataset_n_crops(*dataset);
    crops = malloc((size_t)n * sizeof(*crops) + 1);
    SH_CHECK(crops != NULL, SH_ERR_NO_MEMORY, "gallery");
    for (int64_t i = 0; i < n; i++) crops[i] = i;
    SH_TRY(sh_eval_data_create(*dataset, crops, n, out));
    SH_CHECK(out->n > 0, SH_ERR_USAGE, "%s: no crop of the gallery is labelled",
             f->gallery.items[0]);
    if (out->n + out->n_duplicates < n)
        sh_log_info("%lld unlabelled crops of the gallery are not used",
                    (long long)(n - out->n - out->n_duplicates));
    if (out->n_duplicates > 0)
        sh_log_info("%lld crops of the gallery are pictures that it has already",
                    (long long)out->n_duplicates);
    out->dim = sh_embedder_dim(embedder);
    out->embeddings = malloc((size_t)(out->n * out->dim) * sizeof(float));
    SH_CHECK(out->embeddings != NULL, SH_ERR_NO_MEMORY, "gallery");
    SH_TRY(sh_embedder_run(embedder, *dataset, out->crops, out->n, "gallery", out->embeddings));
out:
    free(crops);
    return st;
}

/* ---- tracks ---- */

/* A crop's track: its recording, else the folder that holds it, else itself; apart by individual
 * where the source names one. `label` is what is shown, `key` what tells tracks apart. */
static void name_track(const sh_dataset *d, int64_t crop, bool by_track, char label[LABEL],
                       char key[KEY])
{
    const sh_crop *c = sh_dataset_crop(d, crop);
    const char *slash = strrchr(c->name, '/');

    if (c->recording >= 0)
        snprintf(label, LABEL, "%s", sh_dataset_recording(d, c->recording));
    else if (slash != NULL)
        snprintf(label, LABEL, "%.*s", (int)(slash - c->name), c->name);
    else
        snprintf(label, LABEL, "%s", c->name);
    if (by_track)
        snprintf(key, KEY, "%d %d %s", c->pack, c->individual, label);
    else
        snprintf(key, KEY, "%lld", (long long)crop);
}

typedef struct tracks {
    sh_strings *keys, *labels;
    int32_t *of;        /* [n crops] */
    const char **names; /* [n tracks] */
} tracks;

static sh_status number_tracks(const sh_dataset *d, bool by_track, tracks *t)
{
    sh_status st = SH_OK;
    char label[LABEL], key[KEY];
    int64_t n = sh_dataset_n_crops(d);

    SH_TRY(sh_strings_create(&t->keys));
    SH_TRY(sh_strings_create(&t->labels));
    t->of = malloc((size_t)n * sizeof(*t->of) + 1);
    t->names = malloc((size_t)n * sizeof(*t->names) + 1);
    SH_CHECK(t->of != NULL && t->names != NULL, SH_ERR_NO_MEMORY, "tracks");
    for (int64_t i = 0; i < n; i++) {
        int32_t index = 0, shown = 0;

        name_track(d, i, by_track, label, key);
        SH_TRY(sh_strings_add(t->keys, key, &index, NULL));
        SH_TRY(sh_strings_add(t->labels, label, &shown, NULL));
        t->of[i] = index;
        t->names[index] = sh_strings_get(t->labels, shown);
    }
out:
    return st;
}

static void tracks_clear(tracks *t)
{
    sh_strings_destroy(&t->keys);
    sh_strings_destroy(&t->labels);
    free(t->of);
    free(t->names);
}

/* ---- all together ---- */

static sh_status embed_queries(sh_embedder *embedder, const sh_dataset *d, float **out)
{
    sh_status st = SH_OK;
    int64_t n = sh_dataset_n_crops(d);
    int64_t *crops = malloc((size_t)n * sizeof(*crops) + 1);
    float *rows = malloc((size_t)(n * sh_embedder_dim(embedder)) * sizeof(*rows) + 1);

    SH_CHECK(crops != NULL && rows != NULL, SH_ERR_NO_MEMORY, "%lld queries", (long long)n);
    for (int64_t i = 0; i < n; i++) crops[i] = i;
    SH_TRY(sh_embedder_run(embedder, d, crops, n, "queries", rows));
    *out = rows;
    rows = NULL;
out:
    free(crops);
    free(rows);
    return st;
}

/* who.csv -> who.html */
static sh_status page_path(const char *csv, char *out, size_t size)
{
    sh_status st = SH_OK;
    const char *dot = strrchr(csv, '.'), *slash = strrchr(csv, '/');
    int stem = dot != NULL && (slash == NULL || dot > slash) ? (int)(dot - csv) : (int)strlen(csv);

    SH_CHECK(snprintf(out, size, "%.*s.html", stem, csv) < (int)size, SH_ERR_USAGE,
             "path too long: %.200s...", csv);
    SH_CHECK(strcmp(out, csv) != 0, SH_ERR_USAGE, "-o %s: the table cannot be called .html", csv);
out:
    return st;
}

static sh_status write_answers(const flags *f, const sh_identify_report *report)
{
    sh_status st = SH_OK;
    char page[SH_RUN_PATH];
    sh_identity_totals totals = sh_identity_count(report->identity);

    SH_TRY(page_path(f->output, page, sizeof(page)));
    SH_TRY(sh_identify_write_csv(report, f->output));
    SH_TRY(sh_identify_write_html(report, f->pictures, page));
    if (totals.n_repeats > 0) sh_log_warning(SH_IDENTIFY_REPEATS, (long long)totals.n_repeats);
    printf("%lld %s against %lld images of %d fish: %lld known, %lld to look at, %lld unknown\n"
           "%s\n%s\n",
           (long long)report->identity->n, report->by_track ? "tracks" : "images",
           (long long)report->gallery->n, report->gallery->n_individuals,
           (long long)totals.verdicts[SH_VERDICT_KNOWN],
           (long long)totals.verdicts[SH_VERDICT_LOOK],
           (long long)totals.verdicts[SH_VERDICT_UNKNOWN], f->output, page);
out:
    return st;
}

static sh_status identify(const char *run, const flags *f, const sh_string_list *paths)
{
    sh_status st = SH_OK;
    sources s = {0};
    tracks t = {0};
    sh_embedder *embedder = NULL;
    sh_dataset *queries = NULL, *gallery_set = NULL;
    sh_eval_data gallery = {0};
    sh_identity identity = {0};
    sh_thresholds thresholds;
    float *rows = NULL;
    bool by_track = f->by != NULL;

    sh_status found = sh_thresholds_of_run(run, (int)f->threads, &thresholds);

    if (found != SH_OK && found != SH_ERR_NOT_FOUND) SH_TRY(found);
    if (found == SH_ERR_NOT_FOUND) sh_log_warning("%s", sh_error_message());
    SH_TRY(sh_embedder_create(run, false, (int)f->threads, &embedder));
    SH_TRY(open_sources(f, paths, &s, &queries));
    SH_TRY(number_tracks(queries, by_track, &t));
    SH_TRY(open_gallery(f, embedder, &gallery_set, &gallery));
    SH_TRY(embed_queries(embedder, queries, &rows));

    const sh_identify_input input = {.gallery = &gallery,
                                     .queries = rows,
                                     .track = t.of,
                                     .n_queries = sh_dataset_n_crops(queries),
                                     .top = (int)f->top,
                                     .thresholds = found == SH_OK ? &thresholds : NULL};

    SH_TRY(sh_identify(&input, &identity));

    const sh_identify_report report = {.identity = &identity,
                                       .gallery = &gallery,
                                       .queries = queries,
                                       .tracks = t.names,
                                       .by_track = by_track,
                                       .thresholds = input.thresholds,
                                       .run = run};

    SH_TRY(write_answers(f, &report));
out:
    sh_identity_clear(&identity);
    free(rows);
    tracks_clear(&t);
    sh_eval_data_clear(&gallery);
    sh_dataset_close(&gallery_set);
    sh_dataset_close(&queries);
    sources_clear(&s);
    sh_embedder_destroy(&embedder);
    return st;
}

sh_status sh_cmd_identify(int argc, char **argv)
{
    sh_status st = SH_OK;
    sh_string_list args = {0};
    flags f = {.top = 5, .pictures = 300};
    bool helped = false;
    const sh_flag table[] = {
        {"--gallery", NULL, SH_FLAG_LIST, &f.gallery, "PACK", "known fish; may be repeated"},
        {"-o", "--output", SH_FLAG_STRING, &f.output, "FILE",
         "table to write (CSV); the page of pictures gets the same name with .html"},
        {"--by", NULL, SH_FLAG_STRING, &f.by, "recording",
         "one answer per track: the images of one recording, or of one folder where no recording "
         "is known. Default: one per image"},
        {"--pattern", NULL, SH_FLAG_LIST, &f.patterns, "PATTERN",
         "how names of loose images give their recording (as in shoal pack); may be repeated"},
        {"--top", NULL, SH_FLAG_INT, &f.top, "N", "fish to list per answer; default 5"},
        {"--pictures", NULL, SH_FLAG_INT, &f.pictures, "N",
         "answers to show on the page; default 300"},
        {"--threads", NULL, SH_FLAG_INT, &f.threads, "N", "compute threads; default: all granted"},
    };
    const sh_cli cli = {
        .usage = "shoal identify RUN --gallery PACK SOURCE... -o who.csv [--by recording]",
        .summary = "Who is it? Compares images - folders, packs or files, labelled or not - with "
                   "known fish and writes query, track, images, rank, individual, distance, "
                   "gallery_image, verdict. The verdict is known, unknown or look at it, by the "
                   "thresholds that the run chose on its validation fish.",
        .flags = table,
        .n_flags = SH_COUNT(table),
        .min_args = 2,
        .max_args = -1,
    };

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    SH_CHECK(f.gallery.n > 0, SH_ERR_USAGE, "no --gallery: which fish are known?");
    SH_CHECK(f.output != NULL, SH_ERR_USAGE, "no -o: where should the answers go?");
    SH_CHECK(f.by == NULL || strcmp(f.by, "recording") == 0, SH_ERR_USAGE,
             "--by %s: the only choice is recording", f.by);
    SH_CHECK(f.top >= 1 && f.top <= 1000, SH_ERR_USAGE, "--top is 1 to 1000");
    SH_CHECK(f.pictures >= 0, SH_ERR_USAGE, "--pictures is 0 or more");

    const sh_string_list paths = {args.items + 1, args.n - 1};

    SH_TRY(identify(args.items[0], &f, &paths));
out:
    free(args.items);
    free(f.gallery.items);
    free(f.patterns.items);
    return st;
}
