// SPDX-License-Identifier: Apache-2.0
/** `shoal export`: a run's result for others: a backbone folder, a weights file, ONNX. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/file.h"
#include "base/hash.h"
#include "dataio/csv.h"
#include "models/loss/classes.h"
#include "models/onnx/onnx.h"
#include "models/weights/recognise.h"
#include "trainer/backbone.h"
#include "trainer/commands.h"
#include "trainer/evaluate.h"
#include "trainer/library.h"
#include "trainer/run.h"

typedef struct export_args {
    const char *run, *out, *onnx, *licence, *trained_on;
    bool trunk;
} export_args;

enum { EMBEDDING, LOGITS, MAX_OUTPUTS };

/* A run with its network built for inference and its weights in the store. */
typedef struct exported {
    sh_config config;
    const sh_net *net;
    sh_weights *weights; /* as the run has them */
    sh_store *store;
    sh_program *program; /* not planned: for ONNX */
    sh_value image, outputs[MAX_OUTPUTS];
    int n_outputs; /* 2: a classification, with logits */
    int height, width;
    json_t *card;
} exported;

/* ---- reading the run ---- */

static sh_status read_weights(const char *run, exported *e)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];

    SH_TRY(sh_run_path(run, "model.safetensors", path));
    SH_CHECK(sh_file_exists(path), SH_ERR_NOT_FOUND,
             "%s has no model.safetensors yet: the training has not ended (continue it with `shoal "
             "train --run %s`)",
             run, run);
    SH_TRY(sh_weights_read(path, &e->weights));
out:
    return st;
}

/* The classes that a classification has learnt, as training has them: on the embedding before it
 * is scaled. */
static sh_status add_classes(sh_value x, exported *e)
{
    sh_status st = SH_OK;
    const sh_weight *w = sh_weights_find(e->weights, "loss.weight");
    sh_class_config classes = sh_config_classes(&e->config);

    SH_CHECK(w != NULL && w->n_dims == 2 && w->dims[0] % classes.n_centres == 0, SH_ERR_MISMATCH,
             "%s has no class weights", sh_weights_label(e->weights));
    classes.n_classes = w->dims[0] / classes.n_centres;
    e->outputs[LOGITS] = sh_program_output(e->program, "logits",
                                           sh_class_head(e->program, x, "loss.weight", &classes));
    e->n_outputs = LOGITS + 1;
out:
    return st;
}

static sh_status build(exported *e)
{
    sh_status st = SH_OK;
    const sh_backend *backend = NULL;
    sh_head head;
    bool normalize;

    SH_TRY(sh_net_find(e->config.net, &e->net));
    SH_TRY(sh_config_head(&e->config, &head));
    normalize = head.normalize;
    head.normalize = false;
    SH_TRY(sh_config_size(&e->config, &e->height, &e->width));
    SH_TRY(sh_backend_find("ref", &backend));
    SH_TRY(sh_store_create(backend, &e->store));
    SH_TRY(sh_program_create(
        &(sh_program_config){.backend = backend, .store = e->store, .dtype = SH_F32, .share = 1},
        &e->program));
    e->image = sh_program_input(e->program, "image",
                                (const int64_t[]){1, e->net->in_channels, e->height, e->width});

    sh_value x = sh_net_embedding(e->program, e->net, e->image, &head);

    e->outputs[EMBEDDING] =
        sh_program_output(e->program, "embedding", normalize ? sh_net_normalize(e->program, x) : x);
    e->n_outputs = EMBEDDING + 1;
    if (e->config.task == SH_TASK_CLASSIFY) SH_TRY(add_classes(x, e));
    for (int i = 0; i < e->n_outputs; i++)
        SH_CHECK(e->outputs[i] != SH_NO_VALUE, SH_ERR_INTERNAL, "%s cannot be built: %s",
                 e->net->name, sh_error_message());
    SH_TRY(sh_store_allocate(e->store));
out:
    return st;
}

static sh_status load(exported *e)
{
    sh_status st = SH_OK;
    sh_load_report *report = calloc(1, sizeof(*report));

    SH_CHECK(report != NULL, SH_ERR_NO_MEMORY, "load report");
    SH_TRY(sh_weights_load(e->weights, e->net, e->store, true, report));
out:
    free(report);
    return st;
}

/* ---- the card ---- */

/* A member of a JSON file of the run, or nothing where the file is not there. */
static sh_status add_from(const char *run, const char *name, const char *const *members,
                          json_t *card, const char *key)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    json_t *document = NULL;

    SH_TRY(sh_run_path(run, name, path));
    if (!sh_file_exists(path)) goto out;
    SH_TRY(sh_run_get_json(run, name, &document));

    json_t *value = document;

    for (int i = 0; members[i] != NULL; i++) value = json_object_get(value, members[i]);
    if (value != NULL) json_object_set(card, key, value);
out:
    json_decref(document);
    return st;
}

/* What the run's split held: crops and individuals of each part. */
static sh_status add_split(const char *run, const exported *e, json_t *card)
{
    sh_status st = SH_OK;
    sh_dataset *dataset = NULL;
    sh_split split = {0};
    static const struct {
        const char *name;
        sh_part part;
    } parts[] = {{"train", SH_PART_TRAIN}, {"val", SH_PART_VAL}, {"test", SH_PART_TEST}};

    if (sh_run_open_data(run, &e->config, &dataset, &split) != SH_OK) {
        json_object_set_new(card, "split", json_string("the packs are not here; see split.csv"));
        sh_error_clear();
        goto out;
    }

    json_t *sizes = json_object();

    for (size_t i = 0; i < SH_COUNT(parts); i++) {
        int64_t n = 0;

        for (int64_t c = 0; c < sh_dataset_n_crops(dataset); c++)
            n += split.part[c] == parts[i].part;
        json_object_set_new(sizes, parts[i].name, json_integer(n));
    }
    json_object_set_new(sizes, "leaks", json_boolean(split.leaks));
    SH_CHECK(json_object_set_new(card, "split_crops", sizes) == 0, SH_ERR_NO_MEMORY, "card");
out:
    sh_split_clear(&split);
    sh_dataset_close(&dataset);
    return st;
}

/* What the logits mean, in their order; with several centres to a class, these stand side by side.
 */
static sh_status add_class_names(const char *run, const exported *e, json_t *card)
{
    enum { INDIVIDUAL = 1, SIDE };
    sh_status st = SH_OK;
    char path[SH_RUN_PATH], name[512];
    char **fields = NULL;
    int n_fields = 0;
    sh_csv *csv = NULL;
    json_t *names = json_array();

    SH_CHECK(names != NULL, SH_ERR_NO_MEMORY, "card");
    SH_TRY(sh_run_path(run, "classes.csv", path));
    SH_TRY(sh_csv_open(path, ',', &csv));
    SH_TRY(sh_csv_next(csv, &fields, &n_fields)); /* the names of the columns */
    for (;;) {
        SH_TRY(sh_csv_next(csv, &fields, &n_fields));
        if (n_fields == 0) break;
        SH_CHECK(n_fields > SIDE, SH_ERR_FORMAT, "%s:%lld: no individual and side", path,
                 (long long)sh_csv_line(csv));
        snprintf(name, sizeof(name), "%s%s%s", fields[INDIVIDUAL], fields[SIDE][0] ? ", " : "",
                 fields[SIDE]);
        SH_CHECK(json_array_append_new(names, json_string(name)) == 0, SH_ERR_FORMAT,
                 "%s:%lld: a name that is not UTF-8", path, (long long)sh_csv_line(csv));
    }
    json_object_set(card, "class_names", names);
    json_object_set_new(card, "centres_per_class",
                        json_integer(sh_config_classes(&e->config).n_centres));
out:
    json_decref(names);
    sh_csv_close(&csv);
    return st;
}

/* The value of an option as a configuration says it. */
static json_t *option_text(const sh_config *config, const char *key)
{
    const sh_option_table *table = sh_config_options();
    char text[SH_OPTION_TEXT] = "";

    for (int i = 0; i < table->n; i++)
        if (strcmp(table->rows[i].key, key) == 0)
            sh_options_format(&table->rows[i], config, text, sizeof(text));
    return json_string(text);
}

/* What stands between the tap and the embedding; the caller owns *out. */
static sh_status describe_head(const sh_config *c, json_t **out)
{
    sh_status st = SH_OK;
    sh_head head;
    json_t *hidden = json_array();

    SH_TRY(sh_config_head(c, &head));
    for (int i = 0; i < head.n_hidden; i++)
        json_array_append_new(hidden, json_integer(head.hidden[i]));
    *out = json_pack("{s:s, s:o, s:O, s:o, s:i, s:b, s:b, s:i}", "tap", c->tap, "pool",
                     option_text(c, "embedding.pool"), "hidden", hidden, "act",
                     option_text(c, "embedding.act"), "dim", (int)c->embedding.dim, "bn_neck",
                     c->embedding.bn_neck, "normalize", c->embedding.normalize, "views",
                     (int)c->embedding.views);
    SH_CHECK(*out != NULL, SH_ERR_NO_MEMORY, "card");
out:
    json_decref(hidden);
    return st;
}

static sh_status make_card(const export_args *args, exported *e)
{
    sh_status st = SH_OK;
    char model[33];
    json_t *head = NULL;
    const sh_config *c = &e->config;

    SH_TRY(sh_backbone_describe(e->net, e->height, e->width, &e->card));
    json_object_set_new(json_object_get(e->card, "preprocessing"), "fit", option_text(c, "fit"));
    SH_TRY(sh_eval_model_hash(args->run, model));

    SH_TRY(describe_head(c, &head));
    json_object_set(e->card, args->trunk ? "head_left_out" : "head", head);
    if (e->n_outputs > LOGITS) SH_TRY(add_class_names(args->run, e, e->card));
    json_object_set_new(e->card, "run_model_xxh128", json_string(model));
    json_object_set_new(e->card, "init", json_string(c->init));
    json_object_set_new(e->card, "seed", json_integer(c->seed));
    if (args->trained_on != NULL)
        json_object_set_new(e->card, "trained_on", json_string(args->trained_on));
    json_object_set_new(e->card, "licence",
                        json_string(args->licence != NULL ? args->licence : "not said"));
    SH_TRY(add_from(args->run, "manifest.json", (const char *const[]){"data_hash", NULL}, e->card,
                    "data_hash"));
    SH_TRY(add_split(args->run, e, e->card));
    SH_TRY(
        add_from(args->run, "threshold.json", (const char *const[]){NULL}, e->card, "threshold"));
    SH_TRY(add_from(args->run, "eval/eval.json",
                    (const char *const[]){"identification", "per_individual", NULL}, e->card,
                    "identification"));
    SH_TRY(add_from(args->run, "eval/eval.json",
                    (const char *const[]){"verification", "per_individual", "auc", NULL}, e->card,
                    "verification_auc"));
    SH_TRY(add_from(args->run, "eval/eval.json", (const char *const[]){"stamps", NULL}, e->card,
                    "stamps"));
out:
    json_decref(head);
    return st;
}

/* ---- writing ---- */

static sh_status write_weights(const exported *e, const char *path, bool trunk,
                               const char *const (*metadata)[2], int n_metadata)
{
    sh_status st = SH_OK;
    int n = 0;

    SH_TRY(sh_backbone_write(path, e->weights, e->store, trunk, metadata, n_metadata, &n));
    printf("%s: %d tensors of %s%s\n", path, n, e->net->name, trunk ? ", without head" : "");
out:
    return st;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n_text = strlen(text), n_end = strlen(end);

    return n_text >= n_end && strcmp(text + n_text - n_end, end) == 0;
}

static sh_status write_out(const export_args *args, const exported *e,
                           const char *const (*metadata)[2], int n_metadata)
{
    sh_status st = SH_OK;
    char path[SH_LIBRARY_PATH];

    if (ends_with(args->out, ".safetensors")) {
        SH_TRY(write_weights(e, args->out, args->trunk, metadata, n_metadata));
        goto out;
    }
    SH_TRY(sh_file_make_dirs(args->out));
    SH_TRY(sh_path_join(args->out, "weights.safetensors", path, sizeof(path)));
    SH_TRY(write_weights(e, path, args->trunk, metadata, n_metadata));
    SH_TRY(sh_library_seal(args->out, e->card));
out:
    return st;
}

static sh_status export_run(const export_args *args)
{
    sh_status st = SH_OK;
    char *card = NULL;
    exported *e = calloc(1, sizeof(*e));

    SH_CHECK(e != NULL, SH_ERR_NO_MEMORY, "export");
    SH_TRY(sh_run_load_config(args->run, &e->config));
    SH_TRY(read_weights(args->run, e));
    SH_TRY(build(e));
    SH_TRY(load(e));
    SH_TRY(make_card(args, e));
    card = json_dumps(e->card, JSON_COMPACT | JSON_REAL_PRECISION(6));
    SH_CHECK(card != NULL, SH_ERR_NO_MEMORY, "card");

    /* One block says everything; tools that know only safetensors look for "format". */
    const char *metadata[][2] = {{"format", "pt"}, {"net", e->net->name}, {"shoal", card}};

    if (args->out != NULL)
        SH_TRY(write_out(args, e, (const char *const(*)[2])metadata, SH_COUNT(metadata)));
    if (args->onnx != NULL) {
        SH_TRY(sh_onnx_write(args->onnx, e->program, e->image, e->n_outputs, e->outputs,
                             (const char *const(*)[2])metadata + 1, SH_COUNT(metadata) - 1));
        printf("%s: image [images, %d, %d, %d] to embedding%s\n", args->onnx, e->net->in_channels,
               e->height, e->width, e->n_outputs > LOGITS ? " and logits" : "");
    }
out:
    if (e != NULL) {
        json_decref(e->card);
        sh_program_destroy(&e->program);
        sh_store_destroy(&e->store);
        sh_weights_destroy(&e->weights);
    }
    free(card);
    free(e);
    return st;
}

sh_status sh_cmd_export(int argc, char **argv)
{
    sh_status st = SH_OK;
    sh_string_list words = {0};
    bool helped = false;
    export_args args = {0};
    const sh_flag flags[] = {
        {"-o", "--out", SH_FLAG_STRING, &args.out, "PATH",
         "a folder (weights, card, checksum), or a file ending in .safetensors"},
        {"--onnx", NULL, SH_FLAG_STRING, &args.onnx, "FILE",
         "the network with its head as ONNX; of a classification, logits too"},
        {"--trunk", NULL, SH_FLAG_BOOL, &args.trunk, NULL,
         "leave the head out: what remains loads into torchvision or timm"},
        {"--licence", NULL, SH_FLAG_STRING, &args.licence, "TEXT", "for the card"},
        {"--trained-on", NULL, SH_FLAG_STRING, &args.trained_on, "TEXT", "for the card"},
    };
    const sh_cli cli = {
        .usage = "shoal export RUN [-o FOLDER|FILE.safetensors] [--onnx FILE.onnx] [--trunk]",
        .summary =
            "Take a run's result elsewhere. The card says what it was trained on, its split, "
            "scores (after `shoal eval`), operating threshold and preprocessing; the same block "
            "stands in the metadata of the files.",
        .flags = flags,
        .n_flags = (int)SH_COUNT(flags),
        .min_args = 1,
        .max_args = 1,
    };

    SH_TRY(sh_cli_parse(&cli, argc, argv, &words, &helped));
    if (helped) goto out;
    args.run = words.items[0];
    SH_CHECK(args.out != NULL || args.onnx != NULL, SH_ERR_USAGE,
             "nothing to write: give -o FOLDER, -o FILE.safetensors or --onnx FILE");
    SH_TRY(export_run(&args));
out:
    free(words.items);
    return st;
}
