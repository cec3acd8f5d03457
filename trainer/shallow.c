// SPDX-License-Identifier: Apache-2.0
#include "trainer/shallow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "trainer/evaluate.h"
#include "trainer/session.h"

enum { KEY_TEXT = 8192 };

/* ---- what features depend on ---- */

/* Elements of the slots that make the features, and the weights themselves, slot after slot:
 * the caller frees. */
static sh_status read_weights(sh_step *step, float **out, int64_t *n_elems)
{
    sh_status st = SH_OK;
    sh_store *store = sh_step_store(step);
    int n_slots = sh_step_n_feature_slots(step);
    int64_t n = 0;
    float *weights = NULL;

    for (int i = 0; i < n_slots; i++) n += sh_store_slot(store, i)->n_elems;
    weights = malloc((size_t)n * sizeof(*weights));
    SH_CHECK(weights != NULL, SH_ERR_NO_MEMORY, "weights of the network");
    *n_elems = n;
    n = 0;
    for (int i = 0; i < n_slots; i++) {
        SH_TRY(sh_store_read(store, i, weights + n));
        n += sh_store_slot(store, i)->n_elems;
    }
    *out = weights;
    weights = NULL;
out:
    free(weights);
    return st;
}

/* Are these also the weights of the result, whose moving average validation looks at? */
static sh_status is_result(sh_step *step, const float *weights, bool *out)
{
    sh_status st = SH_OK;
    sh_store *store = sh_step_store(step);
    sh_snapshot result = {0};

    SH_TRY(sh_snapshot_create(store, &result));
    SH_TRY(sh_snapshot_take_result(&result, store, sh_step_optim(step)));
    *out = true;
    for (int i = 0; i < sh_step_n_feature_slots(step); i++) {
        const sh_slot *slot = sh_store_slot(store, i);
        const float *arena = slot->kind == SH_SLOT_PARAM ? result.params : result.states;

        *out = *out &&
               memcmp(arena + slot->offset, weights, (size_t)slot->n_elems * sizeof(float)) == 0;
        weights += slot->n_elems;
    }
out:
    sh_snapshot_clear(&result);
    return st;
}

/* Append "name=value\n" of the options that images and network depend on. */
static void append_options(const sh_config *c, char text[KEY_TEXT])
{
    static const char *const keys[] = {
        "net", "size", "fit", "dtype", "seed", "device", "tap", "embedding.pool", "augment."};
    const sh_option_table *table = sh_config_options();

    for (int i = 0; i < table->n; i++) {
        char value[SH_OPTION_TEXT];
        size_t used = strlen(text);
        bool counts = false;

        for (size_t k = 0; k < SH_COUNT(keys); k++) {
            size_t n = strlen(keys[k]);

            counts = counts ||
                     strncmp(table->rows[i].key, keys[k], keys[k][n - 1] == '.' ? n : n + 1) == 0;
        }
        if (!counts) continue;
        sh_options_format(&table->rows[i], c, value, sizeof(value));
        snprintf(text + used, KEY_TEXT - used, "%s=%s\n", table->rows[i].key, value);
    }
}

static void append_hash(sh_hash128 hash, char text[KEY_TEXT])
{
    char hex[33];
    size_t used = strlen(text);

    sh_hash_format(hash, hex);
    snprintf(text + used, KEY_TEXT - used, "%s\n", hex);
}

/* ---- opening ---- */

/* What both sets of features have in common. */
typedef struct opening {
    const sh_session *s;
    char folder[SH_RUN_PATH];
    sh_hash128 weights;
    sh_shallow *out;
} opening;

static sh_status open_features(const opening *o, sh_features_config *c, bool unfolded,
                               sh_features **out)
{
    sh_status st = SH_OK;
    const sh_session *s = o->s;
    sh_features_stats stats;
    char *key = calloc(1, KEY_TEXT);
    int begin, end;

    SH_CHECK(key != NULL, SH_ERR_NO_MEMORY, "key of features");
    sh_step_own_shards(s->step, &begin, &end);
    const sh_tensor_desc desc = sh_step_input_desc(s->step, begin);

    c->folder = o->folder;
    c->store = sh_step_store(s->step);
    c->dataset = s->dataset;
    c->lock = s->lock;
    c->row_bytes = sh_tensor_bytes(&desc) / (size_t)desc.dims[0];
    SH_TRY(sh_infer_configure(&s->config, (int)s->config.loader.threads, &c->infer));
    c->infer.part = SH_INFER_FEATURES;
    c->infer.views = 1;
    c->infer.unfolded = unfolded;
    append_options(&s->config, key);
    append_hash(o->weights, key);
    append_hash(sh_dataset_hash(s->dataset), key);
    append_hash(sh_hash_content(c->crops, (size_t)c->n_crops * sizeof(*c->crops)), key);
    append_hash(sh_hash_content(c->augment, (size_t)c->n_views * sizeof(*c->augment)), key);
    c->key = sh_hash_content(key, strlen(key));
    SH_TRY(sh_features_open(c, s->comm, out, &stats));
    o->out->n_images += stats.n_images;
    sh_log_info("shallow: features of %lld %s crops, %d view%s, %.1f MB: %lld images went through "
                "the network, %lld were found in %s (%.1f s)",
                (long long)c->n_crops, c->name, c->n_views, c->n_views == 1 ? "" : "s",
                (double)stats.n_rows * (double)c->row_bytes / 1e6, (long long)stats.n_computed,
                (long long)(stats.n_rows - stats.n_computed), o->folder, stats.seconds);
out:
    free(key);
    return st;
}

static sh_status open_train(const opening *o, sh_features_config c)
{
    sh_status st = SH_OK;
    const sh_session *s = o->s;
    int64_t *crops = NULL;
    sh_augment *augment = calloc((size_t)s->config.shallow.views, sizeof(*augment));
    sh_loader_config loader;

    SH_CHECK(augment != NULL, SH_ERR_NO_MEMORY, "views");
    SH_TRY(sh_config_loader(&s->config, true, &loader));
    SH_TRY(sh_eval_select(s->dataset, s->split.part, SH_PART_TRAIN, &crops, &c.n_crops));
    c.name = "train";
    c.crops = crops;
    c.n_views = (int)s->config.shallow.views;
    c.augment = augment;
    for (int view = 1; view < c.n_views; view++) augment[view] = loader.augment;
    SH_TRY(open_features(o, &c, true, &o->out->train));
out:
    free(crops);
    free(augment);
    return st;
}

static sh_status open_val(const opening *o, sh_features_config c)
{
    sh_status st = SH_OK;
    const sh_session *s = o->s;
    int64_t *crops = NULL;
    sh_augment augment[SH_INFER_MAX_VIEWS];
    sh_infer_config head;

    SH_TRY(sh_eval_select(s->dataset, s->split.part, SH_PART_VAL, &crops, &c.n_crops));
    if (c.n_crops == 0) goto out;
    c.name = "val";
    c.crops = crops;
    c.n_views = (int)s->config.embedding.views;
    c.augment = augment;
    for (int view = 0; view < c.n_views; view++) augment[view] = sh_infer_view(view);
    SH_TRY(open_features(o, &c, false, &o->out->val));
    SH_TRY(sh_infer_configure(&s->config, 1, &head));
    head.part = SH_INFER_HEAD;
    SH_TRY(sh_infer_create(&head, sh_step_store(s->step), &o->out->head));
out:
    free(crops);
    return st;
}

sh_status sh_shallow_open(const sh_session *s, bool (*stop)(void), sh_shallow *out)
{
    sh_status st = SH_OK;
    opening o = {.s = s, .out = out};
    float *weights = NULL;
    int64_t n = 0;
    bool same = false;

    SH_TRY(sh_run_path(s->run, "features", o.folder));
    SH_TRY(read_weights(s->step, &weights, &n));
    o.weights = sh_hash_content(weights, (size_t)n * sizeof(*weights));
    SH_TRY(open_train(&o, (sh_features_config){.stop = stop}));
    SH_TRY(is_result(s->step, weights, &same));
    if (same) SH_TRY(open_val(&o, (sh_features_config){.stop = stop}));
out:
    free(weights);
    return st;
}

void sh_shallow_clear(sh_shallow *shallow)
{
    sh_features_close(&shallow->train);
    sh_features_close(&shallow->val);
    sh_infer_destroy(&shallow->head);
}

/* ---- validation ---- */

/* sh_infer_row over the validation crops. */
typedef struct rows {
    const sh_features *features;
    const int64_t *crops;
} rows;

static const void *row(const void *context, int64_t i, int view)
{
    const rows *r = context;

    return sh_features_row(r->features, r->crops[i], view);
}

sh_status sh_shallow_embed(const sh_shallow *shallow, const int64_t *crops, int64_t n, float *out)
{
    const rows r = {shallow->val, crops};

    sh_infer_refresh(shallow->head);
    return sh_infer_run_rows(shallow->head, n, row, &r, out);
}
