// SPDX-License-Identifier: Apache-2.0
/* Per-query results and suspected mislabels as CSV. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "dataio/csv.h"
#include "trainer/evaluate_known.h"
#include "trainer/run.h"

enum { NUMBER = 40, NEIGHBOURS = 5, AGREEING = 4 };

static const char *const query_columns[] = {"name",
                                            "individual",
                                            "recording",
                                            "gallery",
                                            "matches",
                                            "first_rank",
                                            "ap",
                                            "nearest",
                                            "nearest_individual",
                                            "distance",
                                            "nearest_right",
                                            "right_distance",
                                            "nearest_wrong",
                                            "wrong_individual",
                                            "wrong_distance"};
enum { N_QUERY_COLUMNS = SH_COUNT(query_columns) };

static const char *name_of(const sh_eval_data *data, int64_t row)
{
    return row >= 0 ? sh_dataset_crop(data->dataset, data->crops[row])->name : "";
}

static const char *fish_of(const sh_eval_data *data, int64_t row)
{
    return row >= 0 ? sh_eval_data_name(data, data->individual[row]) : "";
}

static const char *format_distance(float d, char text[NUMBER])
{
    text[0] = '\0';
    if (isfinite(d)) snprintf(text, NUMBER, "%.6g", (double)d);
    return text;
}

static sh_status write_query(sh_file_writer *writer, const sh_eval_data *data, const sh_query *q)
{
    char gallery[NUMBER], matches[NUMBER], rank[NUMBER] = "", ap[NUMBER] = "";
    char nearest[NUMBER], right[NUMBER], wrong[NUMBER];

    snprintf(gallery, NUMBER, "%lld", (long long)q->n_gallery);
    snprintf(matches, NUMBER, "%lld", (long long)q->n_matches);
    if (q->n_matches > 0) {
        snprintf(rank, NUMBER, "%lld", (long long)q->first_rank);
        snprintf(ap, NUMBER, "%.9g", q->ap); /* compare reads it back */
    }

    const char *fields[N_QUERY_COLUMNS] = {
        name_of(data, q->row),
        fish_of(data, q->row),
        sh_dataset_recording(data->dataset, data->recording[q->row]),
        gallery,
        matches,
        rank,
        ap,
        name_of(data, q->nearest),
        fish_of(data, q->nearest),
        format_distance(q->distance, nearest),
        name_of(data, q->nearest_right),
        format_distance(q->right_distance, right),
        name_of(data, q->nearest_wrong),
        fish_of(data, q->nearest_wrong),
        format_distance(q->wrong_distance, wrong),
    };

    return sh_csv_write_row(writer, fields, N_QUERY_COLUMNS);
}

static sh_status write_queries(const sh_eval_result *r, const char *folder)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    sh_file_writer *writer = NULL;

    SH_TRY(sh_run_path(folder, "queries.csv", path));
    SH_TRY(sh_file_writer_create(path, &writer));
    SH_TRY(sh_csv_write_row(writer, query_columns, N_QUERY_COLUMNS));
    for (int64_t i = 0; i < r->data.n; i++) SH_TRY(write_query(writer, &r->data, &r->queries[i]));
    SH_TRY(sh_file_writer_commit(writer));
out:
    sh_file_writer_destroy(&writer);
    return st;
}

/* ---- mislabels ---- */

/* A crop and what its nearest neighbours say. Frames of its own recording take part: a right label
 * agrees with its own track, a wrong one does not. */
typedef struct suspect {
    int64_t row, neighbour; /* the nearest image of the other fish */
    int32_t fish;           /* that the neighbours agree on */
    int votes;              /* of NEIGHBOURS */
    float distance;
} suspect;

static bool find_suspect(const sh_eval_data *data, int64_t row, uint8_t *skip, suspect *out)
{
    int64_t rows[NEIGHBOURS];
    float distances[NEIGHBOURS];

    skip[row] = 1;
    sh_nearest(data->embeddings + row * data->dim, data->embeddings, data->n, data->dim, skip,
               NEIGHBOURS, rows, distances);
    skip[row] = 0;
    if (rows[NEIGHBOURS - 1] < 0) return false;
    *out = (suspect){.row = row,
                     .neighbour = rows[0],
                     .fish = data->individual[rows[0]],
                     .distance = distances[0]};
    for (int k = 0; k < NEIGHBOURS; k++) out->votes += data->individual[rows[k]] == out->fish;
    return out->fish != data->individual[row] && out->votes >= AGREEING;
}

static int compare_suspects(const void *x, const void *y)
{
    const suspect *a = x, *b = y;

    if (a->votes != b->votes) return b->votes - a->votes;
    return (a->distance > b->distance) - (a->distance < b->distance);
}

static sh_status write_suspects(const sh_eval_data *data, const suspect *suspects, int64_t n,
                                const char *folder)
{
    sh_status st = SH_OK;
    static const char *const columns[] = {"name",  "individual", "recording", "suggested",
                                          "votes", "nearest",    "distance"};
    char path[SH_RUN_PATH], votes[NUMBER], distance[NUMBER];
    sh_file_writer *writer = NULL;

    SH_TRY(sh_run_path(folder, "mislabels.csv", path));
    SH_TRY(sh_file_writer_create(path, &writer));
    SH_TRY(sh_csv_write_row(writer, columns, SH_COUNT(columns)));
    for (int64_t i = 0; i < n; i++) {
        const suspect *s = &suspects[i];

        snprintf(votes, NUMBER, "%d of %d", s->votes, NEIGHBOURS);

        const char *fields[SH_COUNT(columns)] = {
            name_of(data, s->row),
            fish_of(data, s->row),
            sh_dataset_recording(data->dataset, data->recording[s->row]),
            sh_eval_data_name(data, s->fish),
            votes,
            name_of(data, s->neighbour),
            format_distance(s->distance, distance),
        };

        SH_TRY(sh_csv_write_row(writer, fields, SH_COUNT(columns)));
    }
    SH_TRY(sh_file_writer_commit(writer));
out:
    sh_file_writer_destroy(&writer);
    return st;
}

sh_status sh_eval_write_csv(const sh_eval_result *result, const char *folder, int64_t *n_suspects)
{
    sh_status st = SH_OK;
    const sh_eval_data *data = &result->data;
    int64_t n = 0;
    suspect *suspects = malloc((size_t)data->n * sizeof(*suspects) + 1);
    uint8_t *skip = calloc((size_t)data->n + 1, 1);

    SH_CHECK(suspects != NULL && skip != NULL, SH_ERR_NO_MEMORY, "suspected mislabels");
    SH_TRY(sh_file_make_dirs(folder));
    SH_TRY(write_queries(result, folder));
    for (int64_t i = 0; i < data->n; i++) n += find_suspect(data, i, skip, &suspects[n]);
    qsort(suspects, (size_t)n, sizeof(*suspects), compare_suspects);
    SH_TRY(write_suspects(data, suspects, n, folder));
    SH_TRY(sh_known_write_csv(json_object_get(result->json, "known"), folder));
    *n_suspects = n;
out:
    free(suspects);
    free(skip);
    return st;
}
