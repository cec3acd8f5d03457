// SPDX-License-Identifier: Apache-2.0
#include "trainer/evaluate_run.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "models/weights/weights.h"
#include "trainer/embedder.h"
#include "trainer/embeddings_file.h"
#include "trainer/evaluate_known.h"
#include "trainer/histogram.h"
#include "trainer/run.h"

/* Which crops of other packs may be scored: none that the run has trained on. */
typedef struct selection {
    int64_t *unseen, *seen; /* dataset indices, by whether the individual was trained on */
    int64_t n_unseen, n_seen;
    json_t *refused; /* names of crops whose pixels were trained on */
} selection;

static int compare_hashes(const void *x, const void *y)
{
    const sh_hash128 *a = x, *b = y;

    if (a->hi != b->hi) return a->hi < b->hi ? -1 : 1;
    return (a->lo > b->lo) - (a->lo < b->lo);
}

static int compare_names(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

/* Pixel hashes and individuals that the run has used for training or for choosing a checkpoint. */
typedef struct used {
    sh_hash128 *pixels;
    const char **names;
    size_t n_pixels, n_names;
} used;

static void used_clear(used *u)
{
    free(u->pixels);
    free(u->names);
}

static sh_status collect_used(const sh_dataset *dataset, const sh_split *split, used *out)
{
    sh_status st = SH_OK;
    int n_fish = sh_dataset_n_individuals(dataset);
    uint8_t *seen = calloc((size_t)n_fish + 1, 1);

    out->pixels = malloc((size_t)split->n * sizeof(*out->pixels) + 1);
    out->names = malloc(((size_t)n_fish + 1) * sizeof(*out->names));
    SH_CHECK(seen != NULL && out->pixels != NULL && out->names != NULL, SH_ERR_NO_MEMORY,
             "crops of the training");
    for (int64_t i = 0; i < split->n; i++) {
        const sh_crop *crop = sh_dataset_crop(dataset, i);

        if (split->part[i] != SH_PART_TRAIN && split->part[i] != SH_PART_VAL) continue;
        out->pixels[out->n_pixels++] = crop->pixels;
        if (crop->individual < 0 || seen[crop->individual]) continue;
        seen[crop->individual] = 1;
        out->names[out->n_names++] = sh_dataset_individual(dataset, crop->individual);
    }
    qsort(out->pixels, out->n_pixels, sizeof(*out->pixels), compare_hashes);
    qsort(out->names, out->n_names, sizeof(*out->names), compare_names);
out:
    free(seen);
    return st;
}

static sh_status select_crops(const sh_dataset *other, const used *u, selection *out)
{
    sh_status st = SH_OK;
    int64_t n = sh_dataset_n_crops(other);

    out->unseen = malloc((size_t)n * sizeof(*out->unseen) + 1);
    out->seen = malloc((size_t)n * sizeof(*out->seen) + 1);
    out->refused = json_array();
    SH_CHECK(out->unseen != NULL && out->seen != NULL, SH_ERR_NO_MEMORY, "crops to score");
    for (int64_t i = 0; i < n; i++) {
        const sh_crop *crop = sh_dataset_crop(other, i);

        if (bsearch(&crop->pixels, u->pixels, u->n_pixels, sizeof(*u->pixels), compare_hashes)) {
            json_array_append_new(out->refused, json_string(crop->name));
            continue;
        }
        if (crop->individual == SH_NO_LABEL) continue;

        const char *name = sh_dataset_individual(other, crop->individual);

        if (bsearch(&name, u->names, u->n_names, sizeof(*u->names), compare_names))
            out->seen[out->n_seen++] = i;
        else
            out->unseen[out->n_unseen++] = i;
    }
    SH_CHECK(out->n_seen + out->n_unseen > 0, SH_ERR_USAGE,
             "nothing to score: all %lld labelled crops of the data were trained on",
             (long long)json_array_size(out->refused));
out:
    return st;
}

static void selection_clear(selection *s)
{
    free(s->unseen);
    free(s->seen);
    json_decref(s->refused);
}

static sh_status embed(sh_embedder *embedder, const char *what, sh_eval_data *data)
{
    sh_status st = SH_OK;

    data->dim = sh_embedder_dim(embedder);
    data->embeddings = malloc((size_t)(data->n * data->dim) * sizeof(float) + 1);
    SH_CHECK(data->embeddings != NULL, SH_ERR_NO_MEMORY, "%lld embeddings", (long long)data->n);
    SH_TRY(sh_embedder_run(embedder, data->dataset, data->crops, data->n, what, data->embeddings));
out:
    return st;
}

/* The same network with its initial weights; null where the weights it began with have gone. */
static sh_status add_untrained(const sh_eval_options *options, const sh_eval_data *data,
                               json_t *floors)
{
    sh_status st = SH_OK;
    sh_embedder *untrained = NULL;
    float *rows = NULL;
    json_t *floor = NULL;
    sh_status found = sh_embedder_create(options->run, true, options->threads, &untrained);

    if (found == SH_ERR_NOT_FOUND) {
        sh_log_warning("no floor of the untrained network: %s", sh_error_message());
        json_object_set_new(floors, "untrained", json_null());
        sh_error_clear();
        goto out;
    }
    SH_TRY(found);

    int64_t dim = sh_embedder_dim(untrained);

    rows = malloc((size_t)(data->n * dim) * sizeof(float) + 1);
    SH_CHECK(rows != NULL, SH_ERR_NO_MEMORY, "embeddings of a floor");
    SH_TRY(
        sh_embedder_run(untrained, data->dataset, data->crops, data->n, "untrained network", rows));
    SH_TRY(sh_eval_floor(data, rows, dim, &floor));
    json_object_set_new(floors, "untrained", floor);
out:
    free(rows);
    sh_embedder_destroy(&untrained);
    return st;
}

static sh_status add_floors(const sh_eval_options *options, const sh_eval_data *data, json_t *root)
{
    sh_status st = SH_OK;
    json_t *floors = json_object(), *floor = NULL;
    float *rows = malloc((size_t)data->n * SH_HISTOGRAM_DIM * sizeof(float) + 1);

    SH_CHECK(rows != NULL, SH_ERR_NO_MEMORY, "colour histograms");
    SH_TRY(sh_eval_floor(data, NULL, 0, &floor));
    json_object_set_new(floors, "chance", floor);
    SH_TRY(sh_histogram_crops(data->dataset, data->crops, data->n, rows));
    SH_TRY(sh_eval_floor(data, rows, SH_HISTOGRAM_DIM, &floor));
    json_object_set_new(floors, "colour_histogram", floor);
    SH_TRY(add_untrained(options, data, floors));
    json_object_set(root, "floors", floors);
out:
    json_decref(floors);
    free(rows);
    return st;
}

/* Crops, fish, recordings; queries without a match, by name. */
static json_t *describe_data(const sh_eval_data *data, const sh_query *queries)
{
    json_t *unmatched = json_array(), *duplicates = json_array();
    int64_t n_unlabelled_recording = 0;

    for (int64_t i = 0; i < data->n_duplicates; i++)
        json_array_append_new(
            duplicates, json_string(sh_dataset_crop(data->dataset, data->duplicates[i])->name));
    for (int64_t i = 0; i < data->n; i++) {
        n_unlabelled_recording += data->recording[i] < 0;
        if (queries[i].n_matches == 0)
            json_array_append_new(
                unmatched, json_string(sh_dataset_crop(data->dataset, data->crops[i])->name));
    }
    return json_pack("{s:I, s:i, s:I, s:i, s:i, s:I, s:I, s:o, s:o}", "crops", (json_int_t)data->n,
                     "individuals", data->n_individuals, "pairs_of_individuals",
                     (json_int_t)data->n_individuals * (data->n_individuals - 1) / 2, "recordings",
                     data->n_recordings, "tracks", data->n_tracks, "crops_without_recording",
                     (json_int_t)n_unlabelled_recording, "queries",
                     (json_int_t)(data->n - (int64_t)json_array_size(unmatched)), "unmatched",
                     unmatched, "duplicates", duplicates);
}

/* Test individuals that the run has trained on. */
static int count_trained_individuals(const sh_eval_result *r)
{
    const sh_dataset *d = r->run_dataset;
    int n = 0;
    uint8_t *trained = calloc((size_t)sh_dataset_n_individuals(d) + 1, 1);

    if (trained == NULL || r->other != NULL) goto done;
    for (int64_t i = 0; i < r->split.n; i++) {
        int32_t fish = sh_dataset_crop(d, i)->individual;

        if (r->split.part[i] == SH_PART_TRAIN && fish >= 0) trained[fish] = 1;
    }
    for (int i = 0; i < r->data.n_individuals; i++) n += trained[r->data.fish[i]];
done:
    free(trained);
    return n;
}

static json_t *collect_stamps(const sh_eval_options *options, const sh_eval_result *r)
{
    json_t *stamps = json_array();
    int n_trained = count_trained_individuals(r);

    if (options->embeddings != NULL)
        json_array_append_new(stamps,
                              json_sprintf("embeddings made elsewhere: %s", options->embeddings));
    if (r->data.within_recording)
        json_array_append_new(stamps,
                              json_string("within recording, optimistic: the data names no "
                                          "recordings, so images of one encounter are matched"));
    if (r->split.leaks && r->other == NULL)
        json_array_append_new(stamps,
                              json_string("leaking: the split lets near-duplicates of training "
                                          "images into the test"));
    if (n_trained > 0)
        json_array_append_new(stamps, json_sprintf("seen individuals: %d of %d were trained on",
                                                   n_trained, r->data.n_individuals));
    if (options->part == SH_PART_VAL && r->other == NULL)
        json_array_append_new(stamps, json_string("validation part: checkpoint and threshold were "
                                                  "chosen on these individuals"));
    return stamps;
}

static sh_status add_thresholds(const sh_eval_options *options, const sh_eval_set *set,
                                const sh_query *queries, uint64_t seed, json_t *root)
{
    sh_status st = SH_OK;
    sh_thresholds thresholds;
    json_t *section = NULL;
    sh_status found = sh_thresholds_of_run(options->run, options->threads, &thresholds);

    if (found == SH_ERR_NOT_FOUND) {
        sh_log_warning("%s", sh_error_message());
        json_object_set_new(root, "threshold", json_null());
        sh_error_clear();
    } else {
        SH_TRY(found);
        SH_TRY(sh_eval_thresholds(set, queries, &thresholds, &section));
        json_object_set_new(root, "threshold", section);
    }
    SH_TRY(sh_eval_unknown(set, found == SH_OK ? &thresholds : NULL, seed, &section));
    json_object_set_new(root, "unknown", section);
out:
    return st;
}

/* The AUC stands beside the ranks of the same weighting too. */
static void copy_auc(json_t *root, const char *from, const char *to)
{
    json_t *verification = json_object_get(json_object_get(root, "verification"), from);
    json_t *scores = json_object_get(json_object_get(root, "identification"), to);

    json_object_set(scores, "auc", json_object_get(verification, "auc"));
}

/* All sections about result->data, which is embedded and ranked here. */
static sh_status score(const sh_eval_options *options, sh_embedder *embedder, uint64_t seed,
                       sh_eval_result *r, json_t *root)
{
    sh_status st = SH_OK;
    json_t *section = NULL;
    sh_rank_scores *per_fish = NULL;
    sh_eval_data *data = &r->data;

    if (options->embeddings != NULL)
        SH_TRY(sh_embeddings_read(options->embeddings, data->dataset, data->crops, data->n,
                                  &data->embeddings, &data->dim));
    else
        SH_TRY(embed(embedder, "crops", data));

    sh_eval_set set = sh_eval_data_set(data, data->embeddings, data->dim);

    r->queries = malloc((size_t)data->n * sizeof(*r->queries) + 1);
    per_fish = malloc(((size_t)data->n_individuals + 1) * sizeof(*per_fish));
    SH_CHECK(r->queries != NULL && per_fish != NULL, SH_ERR_NO_MEMORY, "queries");
    SH_TRY(sh_retrieve(&set, &(sh_gallery_rule){0}, r->queries));
    json_object_set_new(root, "data", describe_data(data, r->queries));
    SH_TRY(sh_eval_identification(data, r->queries, seed, &section, per_fish));
    json_object_set_new(root, "identification", section);
    SH_TRY(sh_eval_verification(data, &set, seed, &section));
    json_object_set_new(root, "verification", section);
    copy_auc(root, "per_individual", "per_individual");
    copy_auc(root, "per_image_pair", "per_image");
    if (options->embeddings == NULL) SH_TRY(add_thresholds(options, &set, r->queries, seed, root));
    SH_TRY(sh_eval_gallery(data, r->queries, &section));
    json_object_set_new(root, "gallery", section);
    SH_TRY(sh_eval_sides(data, &set, &section));
    json_object_set_new(root, "sides", section);
    SH_TRY(sh_eval_time(data, r->queries, &section));
    json_object_set_new(root, "time", section);
    if (options->embeddings == NULL) SH_TRY(add_floors(options, data, root));
    SH_TRY(sh_eval_individuals(data, r->queries, per_fish, &section));
    json_object_set_new(root, "individuals", section);
out:
    free(per_fish);
    return st;
}

/* What a classification has learnt: its weights over the embeddings, kept in the model. */
static sh_status score_classes(const sh_eval_options *options, const sh_config *config,
                               const sh_eval_result *r, json_t *root)
{
    sh_status st = SH_OK;
    char model[SH_RUN_PATH], classes[SH_RUN_PATH];
    sh_weights *weights = NULL;
    json_t *section = NULL;

    SH_TRY(sh_run_path(options->run, "model.safetensors", model));
    SH_TRY(sh_run_path(options->run, "classes.csv", classes));
    SH_TRY(sh_weights_read(model, &weights));
    const sh_weight *w = sh_weights_find(weights, "loss.weight");

    SH_CHECK(w != NULL && w->n_dims >= 2 && w->n_elems == w->dims[0] * r->data.dim, SH_ERR_MISMATCH,
             "%s has no class weights for embeddings of %lld numbers", model,
             (long long)r->data.dim);
    SH_TRY(sh_eval_known_classes(&r->data, classes, w->data, w->dims[0],
                                 sh_config_classes(config).kind == SH_CLASS_ARCFACE,
                                 (uint64_t)config->seed, &section));
    json_object_set_new(root, "known", section);
out:
    sh_weights_destroy(&weights);
    return st;
}

/* Test crops of fish that were trained on, as a classification. */
static sh_status score_known(const sh_eval_options *options, sh_embedder *embedder,
                             const sh_config *config, const sh_eval_result *r, json_t *root)
{
    sh_status st = SH_OK;
    const sh_eval_data *data = &r->data;
    int64_t *crops = NULL, n = 0;
    float *embeddings = NULL;
    json_t *section = NULL;

    if (r->other != NULL || options->embeddings != NULL) goto out;
    SH_TRY(sh_eval_select(r->run_dataset, r->split.part, SH_PART_TRAIN, &crops, &n));
    if (sh_known_count(data, crops, n) < 2) goto out;
    if (config->task == SH_TASK_CLASSIFY) {
        SH_TRY(score_classes(options, config, r, root));
        goto out;
    }
    embeddings = malloc((size_t)(n * data->dim) * sizeof(*embeddings) + 1);
    SH_CHECK(embeddings != NULL, SH_ERR_NO_MEMORY, "embeddings of the training part");
    SH_TRY(sh_embedder_run(embedder, r->run_dataset, crops, n, "training crops", embeddings));

    const sh_known_gallery gallery = {.crops = crops, .embeddings = embeddings, .n = n};

    SH_TRY(sh_eval_known_means(data, &gallery, (uint64_t)config->seed, &section));
    json_object_set_new(root, "known", section);
out:
    free(embeddings);
    free(crops);
    return st;
}

/* Individuals of other packs that were trained on: identification only, apart from the headline. */
static sh_status score_seen(sh_embedder *embedder, const sh_dataset *other, const selection *s,
                            uint64_t seed, json_t *root)
{
    sh_status st = SH_OK;
    sh_eval_data data = {0};
    sh_query *queries = NULL;
    json_t *section = NULL;

    SH_TRY(sh_eval_data_create(other, s->seen, s->n_seen, &data));
    SH_TRY(embed(embedder, "crops of seen individuals", &data));

    sh_eval_set set = sh_eval_data_set(&data, data.embeddings, data.dim);

    queries = malloc((size_t)data.n * sizeof(*queries) + 1);
    SH_CHECK(queries != NULL, SH_ERR_NO_MEMORY, "queries");
    SH_TRY(sh_retrieve(&set, &(sh_gallery_rule){0}, queries));
    SH_TRY(sh_eval_identification(&data, queries, seed, &section, NULL));
    json_object_set_new(
        root, "seen_individuals",
        json_pack("{s:o, s:o}", "data", describe_data(&data, queries), "identification", section));
out:
    free(queries);
    sh_eval_data_clear(&data);
    return st;
}

/* Other packs: r->data becomes the unseen individuals, or, if there are none, the seen ones. */
static sh_status take_other(const sh_eval_options *options, sh_embedder *embedder, uint64_t seed,
                            sh_eval_result *r, json_t *root)
{
    sh_status st = SH_OK;
    used u = {0};
    selection s = {0};

    SH_TRY(collect_used(r->run_dataset, &r->split, &u));
    SH_TRY(sh_dataset_open(options->data, options->n_data, &r->other));
    SH_TRY(select_crops(r->other, &u, &s));
    if (json_array_size(s.refused) > 0)
        sh_log_warning("%zu crops refused: the run was trained on the same pixels",
                       json_array_size(s.refused));
    json_object_set(root, "refused", s.refused);
    if (s.n_unseen == 0) {
        json_array_append_new(json_object_get(root, "stamps"),
                              json_string("seen individuals: the run was trained on every fish of "
                                          "this data"));
        SH_TRY(sh_eval_data_create(r->other, s.seen, s.n_seen, &r->data));
        goto out;
    }
    if (s.n_seen > 0) SH_TRY(score_seen(embedder, r->other, &s, seed, root));
    SH_TRY(sh_eval_data_create(r->other, s.unseen, s.n_unseen, &r->data));
out:
    selection_clear(&s);
    used_clear(&u);
    return st;
}

static sh_status take_part(const sh_eval_options *options, sh_eval_result *r)
{
    sh_status st = SH_OK;
    int64_t *crops = NULL, n = 0;

    SH_TRY(sh_eval_select(r->run_dataset, r->split.part, (int)options->part, &crops, &n));
    SH_CHECK(n > 0, SH_ERR_USAGE, "the split of %s has no %s part (split.%s)", options->run,
             sh_part_name(options->part), sh_part_name(options->part));
    SH_TRY(sh_eval_data_create(r->run_dataset, crops, n, &r->data));
out:
    free(crops);
    return st;
}

sh_status sh_eval_run(const sh_eval_options *options, sh_eval_result *out)
{
    sh_status st = SH_OK;
    sh_eval_result r = {0};
    sh_embedder *embedder = NULL;
    json_t *stamps = NULL;
    char model[33];
    sh_config *config = malloc(sizeof(*config));

    SH_CHECK(config != NULL, SH_ERR_NO_MEMORY, "configuration");
    SH_TRY(sh_run_load_config(options->run, config));
    SH_TRY(sh_run_open_data(options->run, config, &r.run_dataset, &r.split));
    if (config->split.by == SH_SPLIT_RANDOM) r.split.leaks = true;
    if (options->embeddings == NULL)
        SH_TRY(sh_embedder_create(options->run, false, options->threads, &embedder));
    r.json = json_pack("{s:s, s:s, s:s, s:s, s:[]}", "shoal", SHOAL_VERSION, "run", options->run,
                       "net", config->net, "part",
                       options->n_data > 0 ? "other data" : sh_part_name(options->part), "stamps");
    SH_CHECK(r.json != NULL, SH_ERR_NO_MEMORY, "evaluation");
    if (options->embeddings == NULL) {
        SH_TRY(sh_eval_model_hash(options->run, model));
        json_object_set_new(r.json, "model", json_string(model));
    }

    uint64_t seed = (uint64_t)config->seed;

    if (options->n_data > 0)
        SH_TRY(take_other(options, embedder, seed, &r, r.json));
    else
        SH_TRY(take_part(options, &r));
    SH_CHECK(r.data.n_individuals >= 2, SH_ERR_USAGE,
             "only %d individual to score: telling fish apart needs two", r.data.n_individuals);
    stamps = collect_stamps(options, &r);
    json_array_extend(json_object_get(r.json, "stamps"), stamps);
    SH_TRY(score(options, embedder, seed, &r, r.json));
    SH_TRY(score_known(options, embedder, config, &r, r.json));
    *out = r;
    r = (sh_eval_result){0};
out:
    json_decref(stamps);
    free(config);
    sh_embedder_destroy(&embedder);
    sh_eval_result_clear(&r);
    return st;
}

void sh_eval_result_clear(sh_eval_result *result)
{
    json_decref(result->json);
    free(result->queries);
    sh_eval_data_clear(&result->data);
    sh_split_clear(&result->split);
    sh_dataset_close(&result->run_dataset);
    sh_dataset_close(&result->other);
    *result = (sh_eval_result){0};
}
