// SPDX-License-Identifier: Apache-2.0
/** Importing from tables: the CSV manifest, and the annotations of the AAU zebrafish set. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cli.h"
#include "base/file.h"
#include "dataio/csv.h"
#include "dataio/import.h"
#include "dataio/split.h"

enum { PATH_BYTES = 4096 };

/* Folder of a file, with its last '/'; "" for the working folder. */
static void folder_of(const char *path, char out[PATH_BYTES])
{
    const char *slash = strrchr(path, '/');

    snprintf(out, PATH_BYTES, "%.*s", slash != NULL ? (int)(slash + 1 - path) : 0, path);
}

/* The integer that is all of text; an empty text leaves *out as it is. */
static bool parse_integer(const char *text, int32_t *out)
{
    char *end = NULL;
    long value = strtol(text, &end, 10);

    if (text[0] == '\0') return true;
    if (*end != '\0' || value < INT32_MIN || value > INT32_MAX) return false;
    *out = (int32_t)value;
    return true;
}

/* ---- Manifest ---- */

typedef enum column {
    COL_PATH,
    COL_INDIVIDUAL,
    COL_SIDE,
    COL_SPECIES,
    COL_DATE,
    COL_RECORDING,
    COL_CAMERA,
    COL_FRAME,
    COL_X,
    COL_Y,
    COL_W,
    COL_H,
    COL_SPLIT,
    N_COLUMNS
} column;

static const char *const column_names[N_COLUMNS] = {
    "path",  "individual", "side", "species", "date", "recording", "camera",
    "frame", "x",          "y",    "w",       "h",    "split"};

typedef struct manifest {
    const char *csv;
    const char *folder;
    int at[N_COLUMNS]; /* field of each column, or -1 */
    int n_fields;
    int64_t line;
    char **fields;
} manifest;

static sh_status read_header(manifest *m)
{
    sh_status st = SH_OK;

    SH_CHECK(m->n_fields > 0, SH_ERR_FORMAT, "%s is empty: its first line names the columns",
             m->csv);
    for (int c = 0; c < N_COLUMNS; c++) m->at[c] = -1;
    for (int i = 0; i < m->n_fields; i++) {
        int c = 0;

        while (c < N_COLUMNS && strcmp(m->fields[i], column_names[c]) != 0) c++;
        const char *closest =
            c < N_COLUMNS ? NULL : sh_cli_closest(m->fields[i], column_names, N_COLUMNS);

        SH_CHECK(c < N_COLUMNS, SH_ERR_USAGE,
                 "%s: unknown column '%s'%s%s%s; columns are path, individual, side, species, "
                 "date, recording, camera, frame, x, y, w, h, split",
                 m->csv, m->fields[i], closest != NULL ? " (did you mean '" : "",
                 closest != NULL ? closest : "", closest != NULL ? "'?)" : "");
        SH_CHECK(m->at[c] < 0, SH_ERR_USAGE, "%s: column '%s' stands twice", m->csv, m->fields[i]);
        m->at[c] = i;
    }
    SH_CHECK(m->at[COL_PATH] >= 0, SH_ERR_USAGE, "%s has no column 'path'", m->csv);
out:
    return st;
}

static const char *cell(const manifest *m, column c)
{
    return m->at[c] >= 0 ? m->fields[m->at[c]] : "";
}

static sh_status bad_cell(const manifest *m, column c, const char *expected)
{
    return sh_error_set(SH_ERR_USAGE, "%s, line %lld: %s is '%s', %s expected", m->csv,
                        (long long)m->line, column_names[c], cell(m, c), expected);
}

/* Index of text in words, or -1. */
static int find_word(const char *text, const char *const *words, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(text, words[i]) == 0) return i;
    return -1;
}

static sh_status read_labels(const manifest *m, sh_labels *out)
{
    static const char *const sides[] = {"unknown", "left", "right"};
    static const char *const parts[] = {"none", "train", "val", "test"};
    sh_status st = SH_OK;
    const char *texts[] = {cell(m, COL_INDIVIDUAL), cell(m, COL_RECORDING), cell(m, COL_CAMERA),
                           cell(m, COL_SPECIES)};
    const char **targets[] = {&out->individual, &out->recording, &out->camera, &out->species};

    for (size_t i = 0; i < SH_COUNT(texts); i++)
        if (texts[i][0] != '\0') *targets[i] = texts[i];
    if (cell(m, COL_SIDE)[0] != '\0') {
        int side = find_word(cell(m, COL_SIDE), sides, (int)SH_COUNT(sides));

        if (side < 0) SH_TRY(bad_cell(m, COL_SIDE, "left, right or unknown"));
        out->side = (sh_side)side;
    }
    if (cell(m, COL_SPLIT)[0] != '\0') {
        out->split = find_word(cell(m, COL_SPLIT), parts, (int)SH_COUNT(parts));
        if (out->split < 0) SH_TRY(bad_cell(m, COL_SPLIT, "train, val, test or none"));
    }
    if (cell(m, COL_DATE)[0] != '\0' && !sh_parse_time(cell(m, COL_DATE), &out->time))
        SH_TRY(bad_cell(m, COL_DATE, "a date like 2024-05-17 or 2024-05-17T08:30:00"));
    if (!parse_integer(cell(m, COL_FRAME), &out->frame) || out->frame < -1)
        SH_TRY(bad_cell(m, COL_FRAME, "a number from 0"));
out:
    return st;
}

/* All four of x, y, w, h, or none. */
static sh_status read_box(const manifest *m, int32_t box[4])
{
    sh_status st = SH_OK;
    int n_given = 0;

    for (int i = 0; i < 4; i++) {
        column c = (column)(COL_X + i);

        n_given += cell(m, c)[0] != '\0';
        if (!parse_integer(cell(m, c), &box[i])) SH_TRY(bad_cell(m, c, "whole pixels"));
    }
    SH_CHECK(n_given == 0 || n_given == 4, SH_ERR_USAGE,
             "%s, line %lld: a box needs all of x, y, w, h", m->csv, (long long)m->line);
    if (n_given == 4 && (box[2] <= 0 || box[3] <= 0))
        SH_TRY(bad_cell(m, box[2] <= 0 ? COL_W : COL_H, "a size above 0"));
out:
    return st;
}

static sh_status plan_row(const manifest *m, sh_import_plan *plan)
{
    sh_status st = SH_OK;
    char path[PATH_BYTES], name[PATH_BYTES + 64];
    const char *given = cell(m, COL_PATH);
    sh_import_item item = {
        .path = path, .name = name, .labels = SH_LABELS_NONE, .rule = SH_RULE_TABLE};

    SH_CHECK(given[0] != '\0', SH_ERR_USAGE, "%s, line %lld: no path", m->csv, (long long)m->line);
    SH_CHECK(snprintf(path, sizeof(path), "%s%s", given[0] == '/' ? "" : m->folder, given) <
                 PATH_BYTES,
             SH_ERR_USAGE, "%s, line %lld: path too long", m->csv, (long long)m->line);
    SH_TRY(read_labels(m, &item.labels));
    SH_TRY(read_box(m, item.box));
    if (item.box[2] > 0)
        snprintf(name, sizeof(name), "%s#%d,%d,%d,%d", given, item.box[0], item.box[1], item.box[2],
                 item.box[3]);
    else
        snprintf(name, sizeof(name), "%s", given);
    if (!sh_is_utf8(name) || strlen(name) > SH_PACK_MAX_NAME)
        SH_TRY(sh_drop_list_add(&plan->dropped, name,
                                "its name is no UTF-8 or longer than 1023 bytes: rename it"));
    else
        SH_TRY(sh_import_plan_add(plan, &item));
out:
    return st;
}

static void normalise_folder(const char *csv, const char *folder, char out[PATH_BYTES])
{
    if (folder == NULL)
        folder_of(csv, out);
    else
        snprintf(out, PATH_BYTES, "%s%s", folder,
                 folder[0] != '\0' && folder[strlen(folder) - 1] == '/' ? "" : "/");
}

sh_status sh_import_plan_manifest(const char *csv, const char *folder, sh_import_plan *out)
{
    sh_status st = SH_OK;
    char base[PATH_BYTES];
    sh_csv *reader = NULL;
    manifest m = {.csv = csv, .folder = base};
    int n_columns = 0;

    normalise_folder(csv, folder, base);
    SH_TRY(sh_csv_open(csv, ',', &reader));
    SH_TRY(sh_csv_next(reader, &m.fields, &m.n_fields));
    SH_TRY(read_header(&m));
    n_columns = m.n_fields;
    for (;;) {
        SH_TRY(sh_csv_next(reader, &m.fields, &m.n_fields));
        if (m.n_fields == 0) break;
        m.line = sh_csv_line(reader);
        SH_CHECK(m.n_fields == n_columns, SH_ERR_FORMAT, "%s, line %lld: %d fields, %d expected",
                 csv, (long long)m.line, m.n_fields, n_columns);
        SH_TRY(plan_row(&m, out));
    }
    SH_TRY(sh_import_plan_sort(out));
out:
    sh_csv_close(&reader);
    return st;
}

/* ---- AAU zebrafish ---- */

/* Fields of a row: Filename; Object ID; Annotation tag; corners x1, y1, x2, y2; flags; ... */
enum { Z_FILE, Z_OBJECT, Z_TAG, Z_X1, Z_Y1, Z_X2, Z_Y2, Z_FLAGS, Z_N_FIELDS };

static char *trim(char *text)
{
    while (isspace((unsigned char)*text)) text++;
    for (char *end = text + strlen(text); end > text && isspace((unsigned char)end[-1]);)
        *--end = '\0';
    return text;
}

/* Digits at the end of the name before its suffix, or -1. */
static int32_t frame_of(const char *name)
{
    const char *dot = strrchr(name, '.'), *end = dot != NULL ? dot : name + strlen(name);
    const char *at = end;
    int32_t value = 0;

    while (at > name && isdigit((unsigned char)at[-1])) at--;
    if (at == end || end - at > 9) return -1;
    for (; at < end; at++) value = 10 * value + (*at - '0');
    return value;
}

/* "right,turning,occlusion,glitch" as 0 or 1. A fish that turns shows neither side. */
static sh_side side_of(const char *flags)
{
    int right = 0, turning = 1;

    if (sscanf(flags, "%d ,%d", &right, &turning) != 2 || turning) return SH_SIDE_UNKNOWN;
    return right ? SH_SIDE_RIGHT : SH_SIDE_LEFT;
}

static sh_status plan_zebrafish_row(const char *csv, int64_t line, const char *folder,
                                    char **fields, sh_import_plan *plan)
{
    sh_status st = SH_OK;
    char path[PATH_BYTES], name[PATH_BYTES], recording[256];
    int32_t corner[4] = {0};
    const char *file = trim(fields[Z_FILE]), *object = trim(fields[Z_OBJECT]);
    const char *tag = trim(fields[Z_TAG]);

    for (int i = 0; i < 4; i++) {
        char *end = NULL, *text = trim(fields[Z_X1 + i]);
        double value = strtod(text, &end);

        SH_CHECK(end != text && *end == '\0' && value >= -1e6 && value <= 1e6, SH_ERR_FORMAT,
                 "%s, line %lld: the box's corner '%s' is no number", csv, (long long)line, text);
        corner[i] = (int32_t)value;
    }
    SH_CHECK(file[0] != '\0' && object[0] != '\0', SH_ERR_FORMAT,
             "%s, line %lld: no file name or no object", csv, (long long)line);
    SH_CHECK(corner[2] > corner[0] && corner[3] > corner[1], SH_ERR_FORMAT,
             "%s, line %lld: the box has no area", csv, (long long)line);
    SH_CHECK(snprintf(path, sizeof(path), "%s%s", folder, file) < PATH_BYTES &&
                 snprintf(name, sizeof(name), "%s#%s", file, object) <= SH_PACK_MAX_NAME &&
                 sh_is_utf8(name),
             SH_ERR_FORMAT, "%s, line %lld: a file name that is too long or no UTF-8", csv,
             (long long)line);
    snprintf(recording, sizeof(recording), "%.*s", (int)strcspn(file, "_"), file);
    SH_TRY(sh_import_plan_add(plan,
                              &(sh_import_item){.path = path,
                                                .name = name,
                                                .labels = {.individual = object,
                                                           .recording = recording,
                                                           .species = tag[0] != '\0' ? tag : NULL,
                                                           .side = side_of(trim(fields[Z_FLAGS])),
                                                           .time = SH_NO_TIME,
                                                           .frame = frame_of(file),
                                                           .split = -1},
                                                .box = {corner[0], corner[1], corner[2] - corner[0],
                                                        corner[3] - corner[1]},
                                                .rule = SH_RULE_TABLE}));
out:
    return st;
}

sh_status sh_import_plan_zebrafish(const char *csv, const char *folder, sh_import_plan *out)
{
    sh_status st = SH_OK;
    char base[PATH_BYTES], data[PATH_BYTES + 8];
    sh_csv *reader = NULL;
    char **fields = NULL;
    int n_fields = 0;

    normalise_folder(csv, folder, base);
    snprintf(data, sizeof(data), "%sdata/", base);
    if (folder != NULL || !sh_file_is_dir(data)) snprintf(data, sizeof(data), "%s", base);
    SH_TRY(sh_csv_open(csv, ';', &reader));
    SH_TRY(sh_csv_next(reader, &fields, &n_fields));
    SH_CHECK(n_fields >= Z_N_FIELDS && strcasecmp(trim(fields[Z_FILE]), "Filename") == 0 &&
                 strcasecmp(trim(fields[Z_OBJECT]), "Object ID") == 0,
             SH_ERR_FORMAT,
             "%s is not the annotations.csv of the AAU zebrafish set: its columns begin 'Filename; "
             "Object ID; Annotation tag; Upper left corner X; ...'",
             csv);
    for (;;) {
        SH_TRY(sh_csv_next(reader, &fields, &n_fields));
        if (n_fields == 0) break;
        SH_CHECK(n_fields >= Z_N_FIELDS, SH_ERR_FORMAT, "%s, line %lld: %d fields, %d expected",
                 csv, (long long)sh_csv_line(reader), n_fields, Z_N_FIELDS);
        SH_TRY(plan_zebrafish_row(csv, sh_csv_line(reader), data, fields, out));
    }
    SH_TRY(sh_import_plan_sort(out));
out:
    sh_csv_close(&reader);
    return st;
}
