// SPDX-License-Identifier: Apache-2.0
/** `shoal inspect`: what is in a pack, a weights file, a run or a backbone, as text or JSON. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/cli.h"
#include "base/file.h"
#include "dataio/survey.h"
#include "models/weights/weights.h"
#include "trainer/commands.h"
#include "trainer/inspect.h"
#include "trainer/library.h"

enum { MAX_LISTED = 20, MAX_ROWS = 60, PATH_BYTES = 4096 };

static const char *const format_names[] = {"unknown", "JPEG", "PNG", "PGM/PPM", "raw"};

/* ---- Packs, as text ---- */

static void print_list(const char *title, const sh_drop_list *list, int64_t max)
{
    if (list->n == 0) return;
    printf("\n%s: %" PRId64 "\n", title, list->n);
    for (int64_t i = 0; i < list->n && i < max; i++)
        printf("  %s: %s\n", list->names[i], list->reasons[i]);
    if (list->n > max) printf("  ... and %" PRId64 " more (--all)\n", list->n - max);
}

static void print_table(const char *title, const sh_survey_table *table, int max)
{
    if (table->n == 0) return;
    printf("\n%-24s %8s %11s %10s %7s %6s %6s\n", title, "crops", "individuals", "recordings",
           "cameras", "left", "right");
    for (int i = 0; i < table->n && i < max; i++) {
        const sh_survey_row *row = &table->rows[i];

        printf("  %-22s %8" PRId64 " %11d %10d %7d %6" PRId64 " %6" PRId64 "\n", row->name,
               row->n_crops, row->n_individuals, row->n_recordings, row->n_cameras, row->n_left,
               row->n_right);
    }
    if (table->n > max) printf("  ... and %d more (--all)\n", table->n - max);
}

static void print_sizes(const sh_survey *s)
{
    printf("  width          %.0f .. %.0f .. %.0f pixels (min, median, max)\n", s->width.min,
           s->width.median, s->width.max);
    printf("  height         %.0f .. %.0f .. %.0f pixels\n", s->height.min, s->height.median,
           s->height.max);
    printf("  width/height   %.2f .. %.2f .. %.2f\n", s->aspect.min, s->aspect.median,
           s->aspect.max);
    printf("  under %d px    %" PRId64 " (shorter side)\n", SH_SMALL_SIDE, s->n_small);
}

static void print_pack(const char *path, const sh_dataset *d, const sh_survey *s,
                       const sh_drop_list *dropped, bool all)
{
    char hash[33];
    int max_rows = all ? INT32_MAX : MAX_ROWS;
    int64_t max_listed = all ? INT64_MAX : MAX_LISTED;

    sh_hash_format(sh_dataset_hash(d), hash);
    printf("%s: shoal-pack, version %d, hash %s\n", path, SH_PACK_VERSION, hash);
    printf("  crops          %" PRId64 ": %" PRId64 " labelled, %" PRId64 " unlabelled\n",
           s->n_crops, s->n_labelled, s->n_crops - s->n_labelled);
    printf("  individuals    %d (%d with a single crop)\n", s->individuals.n, s->n_single);
    printf("  recordings     %d\n", s->recordings.n);
    printf("  cameras        %d\n", s->cameras.n);
    printf("  species        %d\n", s->species.n);
    printf("  format        ");
    for (size_t f = 0; f < SH_COUNT(format_names); f++)
        if (s->n_by_format[f] > 0) printf(" %s %" PRId64, format_names[f], s->n_by_format[f]);
    printf("\n");
    print_sizes(s);
    print_table("individual", &s->individuals, max_rows);
    print_table("camera", &s->cameras, max_rows);
    print_table("species", &s->species, max_rows);
    print_table("recording", &s->recordings, all ? max_rows : MAX_LISTED);
    print_list("left out when it was packed", dropped, max_listed);
    print_list("the same picture twice", &s->duplicates, max_listed);
    print_list("LIKELY MISLABELLED: one picture, two individuals", &s->mislabels, max_listed);
    print_list("what would make a score too good", &s->leaks, max_listed);
}

/* ---- Packs, as JSON ---- */

static json_t *range_json(const sh_range *r)
{
    return json_pack("{s:f, s:f, s:f}", "min", r->min, "median", r->median, "max", r->max);
}

static json_t *list_json(const sh_drop_list *list, const char *name, const char *reason)
{
    json_t *rows = json_array();

    for (int64_t i = 0; i < list->n; i++)
        json_array_append_new(
            rows, json_pack("{s:s, s:s}", name, list->names[i], reason, list->reasons[i]));
    return rows;
}

static json_t *table_json(const sh_survey_table *table)
{
    json_t *rows = json_array();

    for (int i = 0; i < table->n; i++) {
        const sh_survey_row *r = &table->rows[i];

        json_array_append_new(
            rows, json_pack("{s:s, s:I, s:i, s:i, s:i, s:I, s:I}", "name", r->name, "crops",
                            (json_int_t)r->n_crops, "individuals", r->n_individuals, "recordings",
                            r->n_recordings, "cameras", r->n_cameras, "left", (json_int_t)r->n_left,
                            "right", (json_int_t)r->n_right));
    }
    return rows;
}

static json_t *pack_json(const char *path, const sh_dataset *d, const sh_survey *s,
                         const sh_drop_list *dropped)
{
    char hash[33];
    json_t *formats = json_object();

    sh_hash_format(sh_dataset_hash(d), hash);
    for (size_t f = 0; f < SH_COUNT(format_names); f++)
        if (s->n_by_format[f] > 0)
            json_object_set_new(formats, format_names[f], json_integer(s->n_by_format[f]));
    return json_pack(
        "{s:s, s:s, s:i, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, "
        "s:o, "
        "s:o, s:o}",
        "path", path, "format", "shoal-pack", "version", SH_PACK_VERSION, "hash", hash, "crops",
        (json_int_t)s->n_crops, "labelled", (json_int_t)s->n_labelled, "small",
        (json_int_t)s->n_small, "without_recording", (json_int_t)s->n_without_recording,
        "image_formats", formats, "width", range_json(&s->width), "height", range_json(&s->height),
        "aspect", range_json(&s->aspect), "individuals", table_json(&s->individuals), "recordings",
        table_json(&s->recordings), "cameras", table_json(&s->cameras), "species",
        table_json(&s->species), "left_out", list_json(dropped, "name", "reason"), "duplicates",
        list_json(&s->duplicates, "name", "what"), "mislabels",
        list_json(&s->mislabels, "name", "what"), "leaks", list_json(&s->leaks, "what", "why"));
}

static sh_status print_json(json_t *document)
{
    sh_status st = SH_OK;

    SH_CHECK(document != NULL && json_dumpf(document, stdout, JSON_INDENT(2)) == 0,
             SH_ERR_NO_MEMORY, "cannot print JSON");
    printf("\n");
out:
    json_decref(document);
    return st;
}

static sh_status gather_dropped(const sh_dataset *d, sh_drop_list *out)
{
    sh_status st = SH_OK;
    const char *name = NULL, *reason = NULL;

    for (int64_t i = 0; i < sh_dataset_n_dropped(d); i++) {
        sh_dataset_dropped(d, i, &name, &reason);
        SH_TRY(sh_drop_list_add(out, name, reason));
    }
out:
    return st;
}

static sh_status inspect_pack(const char *path, bool json, bool all)
{
    sh_status st = SH_OK;
    sh_dataset *d = NULL;
    sh_survey survey = {0};
    sh_drop_list dropped = {0};

    SH_TRY(sh_dataset_open(&path, 1, &d));
    SH_TRY(sh_survey_make(d, &survey));
    SH_TRY(gather_dropped(d, &dropped));
    if (json)
        SH_TRY(print_json(pack_json(path, d, &survey, &dropped)));
    else
        print_pack(path, d, &survey, &dropped, all);
out:
    sh_drop_list_clear(&dropped);
    sh_survey_clear(&survey);
    sh_dataset_close(&d);
    return st;
}

/* ---- Weights ---- */

static json_t *tensor_json(const sh_weight *w)
{
    json_t *dims = json_array();

    for (int k = 0; k < w->n_dims; k++) json_array_append_new(dims, json_integer(w->dims[k]));
    return json_pack("{s:s, s:o}", "name", w->name, "shape", dims);
}

static void print_tensor(const sh_weight *w)
{
    printf("  %-48s [", w->name);
    for (int k = 0; k < w->n_dims; k++) printf("%s%" PRId64, k > 0 ? ", " : "", w->dims[k]);
    printf("]\n");
}

static sh_status inspect_weights(const char *path, bool json)
{
    sh_status st = SH_OK;
    sh_weights *weights = NULL;
    json_t *tensors = NULL;
    int64_t n_values = 0;

    SH_TRY(sh_weights_read(path, &weights));
    tensors = json_array();
    if (!json) printf("%s: %" PRId64 " tensors\n", path, sh_weights_count(weights));
    for (int64_t i = 0; i < sh_weights_count(weights); i++) {
        const sh_weight *w = sh_weights_get(weights, i);

        n_values += w->n_elems;
        if (json)
            json_array_append_new(tensors, tensor_json(w));
        else
            print_tensor(w);
    }
    if (json)
        SH_TRY(print_json(json_pack("{s:s, s:s, s:I, s:O}", "path", path, "format", "weights",
                                    "values", (json_int_t)n_values, "tensors", tensors)));
    else
        printf("  %" PRId64 " values in all\n", n_values);
out:
    json_decref(tensors);
    sh_weights_destroy(&weights);
    return st;
}

/* A pack says what it is in its first bytes; other HDF5 files are taken for Keras's. */
static sh_status looks_like_pack(const char *path, bool *out)
{
    sh_status st = SH_OK;
    char head[12] = "";
    FILE *file = fopen(path, "rb");

    SH_CHECK(file != NULL, SH_ERR_NOT_FOUND, "cannot open %s: no such file, or not readable", path);
    size_t n = fread(head, 1, 11, file);

    *out = n == 11 && memcmp(head, "shoal-pack ", 11) == 0;
out:
    if (file != NULL) fclose(file);
    return st;
}

sh_status sh_cmd_inspect(int argc, char **argv)
{
    sh_status st = SH_OK;
    sh_string_list args = {0};
    bool helped = false, json = false, all = false, is_pack = false, is_backbone = false;
    char config[PATH_BYTES];
    const sh_flag flags[] = {
        {"--json", NULL, SH_FLAG_BOOL, &json, NULL, "print one JSON object, with everything"},
        {"--all", NULL, SH_FLAG_BOOL, &all, NULL, "do not shorten lists and tables"},
    };
    const sh_cli cli = {
        .usage = "shoal inspect PACK|WEIGHTS|RUN|BACKBONE [--json] [--all]",
        .summary =
            "What is in it. A run: where it stands, its figures, the options that are not at "
            "their defaults. A backbone: its card. A pack: crops, individuals, recordings, sizes, "
            "duplicates, likely "
            "mislabels, what was left out, what would leak. A weights file (.safetensors, "
            ".pth, Keras .h5): its tensors.",
        .flags = flags,
        .n_flags = (int)SH_COUNT(flags),
        .min_args = 1,
        .max_args = 1,
    };

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    const char *path = args.items[0];

    if (sh_file_is_dir(path)) {
        SH_TRY(sh_path_join(path, "config.yaml", config, sizeof(config)));
        SH_TRY(sh_library_check(path, &is_backbone));
        SH_CHECK(is_backbone || sh_file_exists(config), SH_ERR_NOT_FOUND,
                 "%s is a folder, but neither a run nor a backbone; images are packed with 'shoal "
                 "pack'",
                 path);
        if (is_backbone)
            SH_TRY(sh_inspect_backbone(path, json));
        else
            SH_TRY(sh_inspect_run(path, json));
        goto out;
    }
    SH_TRY(looks_like_pack(path, &is_pack));
    if (is_pack)
        SH_TRY(inspect_pack(path, json, all));
    else
        SH_TRY(inspect_weights(path, json));
out:
    free(args.items);
    return st;
}
