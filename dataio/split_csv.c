// SPDX-License-Identifier: Apache-2.0
/** split.csv: the split as a run keeps it, one line per crop. */
#include <stdlib.h>
#include <string.h>

#include "dataio/csv.h"
#include "dataio/split.h"

static const char *const columns[] = {"name", "pack", "individual", "recording", "side", "part"};
enum { COL_NAME, COL_PACK, COL_INDIVIDUAL, COL_RECORDING, COL_SIDE, COL_PART, N_COLUMNS };

static const char *const side_names[] = {
    [SH_SIDE_UNKNOWN] = "", [SH_SIDE_LEFT] = "left", [SH_SIDE_RIGHT] = "right"};

sh_status sh_split_write(const sh_split *split, const sh_dataset *dataset, const char *path)
{
    sh_status st = SH_OK;
    sh_file_writer *writer = NULL;

    SH_TRY(sh_file_writer_create(path, &writer));
    SH_TRY(sh_csv_write_row(writer, columns, N_COLUMNS));
    for (int64_t i = 0; i < split->n; i++) {
        const sh_crop *c = sh_dataset_crop(dataset, i);
        const char *fields[N_COLUMNS] = {
            [COL_NAME] = c->name,
            [COL_PACK] = sh_dataset_pack_name(dataset, c->pack),
            [COL_INDIVIDUAL] = sh_dataset_individual(dataset, c->individual),
            [COL_RECORDING] = sh_dataset_recording(dataset, c->recording),
            [COL_SIDE] = side_names[c->side],
            [COL_PART] = sh_part_name((sh_part)split->part[i]),
        };

        SH_TRY(sh_csv_write_row(writer, fields, N_COLUMNS));
    }
    SH_TRY(sh_file_writer_commit(writer));
out:
    sh_file_writer_destroy(&writer);
    return st;
}

static int find_part(const char *text)
{
    for (int p = SH_PART_NONE; p <= SH_PART_TEST; p++)
        if (strcmp(text, sh_part_name((sh_part)p)) == 0) return p;
    return -1;
}

static int find_pack(const sh_dataset *dataset, const char *name)
{
    for (int i = 0; i < sh_dataset_n_packs(dataset); i++)
        if (strcmp(name, sh_dataset_pack_name(dataset, i)) == 0) return i;
    return -1;
}

/* One line of the file into split; seen[i] counts the lines of crop i. */
static sh_status read_line(const sh_dataset *dataset, const char *path, int64_t line, char **fields,
                           int n_fields, sh_split *split, uint8_t *seen)
{
    sh_status st = SH_OK;

    SH_CHECK(n_fields == N_COLUMNS, SH_ERR_FORMAT, "%s, line %lld: %d fields, %d expected", path,
             (long long)line, n_fields, N_COLUMNS);
    int pack = find_pack(dataset, fields[COL_PACK]), part = find_part(fields[COL_PART]);
    int64_t crop = pack >= 0 ? sh_dataset_find(dataset, pack, fields[COL_NAME]) : -1;

    SH_CHECK(crop >= 0, SH_ERR_MISMATCH,
             "%s, line %lld: crop %s of pack %s is not in the data: is it the data of this run?",
             path, (long long)line, fields[COL_NAME], fields[COL_PACK]);
    SH_CHECK(part >= 0, SH_ERR_FORMAT, "%s, line %lld: part '%s' is none of train, val, test, none",
             path, (long long)line, fields[COL_PART]);
    SH_CHECK(!seen[crop], SH_ERR_FORMAT, "%s, line %lld: crop %s for the second time", path,
             (long long)line, fields[COL_NAME]);
    const char *individual =
        sh_dataset_individual(dataset, sh_dataset_crop(dataset, crop)->individual);

    SH_CHECK(strcmp(individual, fields[COL_INDIVIDUAL]) == 0, SH_ERR_MISMATCH,
             "%s, line %lld: crop %s is of individual '%s' here and '%s' in the data", path,
             (long long)line, fields[COL_NAME], fields[COL_INDIVIDUAL], individual);
    seen[crop] = 1;
    split->part[crop] = (uint8_t)part;
out:
    return st;
}

sh_status sh_split_read(const sh_dataset *dataset, const char *path, sh_split *out)
{
    sh_status st = SH_OK;
    sh_split split = {.n = sh_dataset_n_crops(dataset)};
    uint8_t *seen = calloc((size_t)split.n + 1, 1);
    sh_csv *csv = NULL;
    char **fields = NULL;
    int n_fields = 0;

    split.part = calloc((size_t)split.n + 1, 1);
    SH_CHECK(split.part != NULL && seen != NULL, SH_ERR_NO_MEMORY, "a split of %lld crops",
             (long long)split.n);
    SH_TRY(sh_csv_open(path, ',', &csv));
    SH_TRY(sh_csv_next(csv, &fields, &n_fields));
    SH_CHECK(n_fields == N_COLUMNS, SH_ERR_FORMAT, "%s is not a split (its first line)", path);
    for (int i = 0; i < N_COLUMNS; i++)
        SH_CHECK(strcmp(fields[i], columns[i]) == 0, SH_ERR_FORMAT,
                 "%s is not a split: column %d is '%s', '%s' expected", path, i + 1, fields[i],
                 columns[i]);
    for (;;) {
        SH_TRY(sh_csv_next(csv, &fields, &n_fields));
        if (n_fields == 0) break;
        SH_TRY(read_line(dataset, path, sh_csv_line(csv), fields, n_fields, &split, seen));
    }
    for (int64_t i = 0; i < split.n; i++)
        SH_CHECK(seen[i], SH_ERR_MISMATCH,
                 "%s has no line for crop %s: is it the data of this run?", path,
                 sh_dataset_crop(dataset, i)->name);
    SH_TRY(sh_split_find_leaks(dataset, &split));
    *out = split;
    split.part = NULL;
out:
    sh_csv_close(&csv);
    sh_split_clear(&split);
    free(seen);
    return st;
}
