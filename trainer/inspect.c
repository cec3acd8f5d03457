// SPDX-License-Identifier: Apache-2.0
#include "trainer/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "trainer/checkpoint.h"
#include "trainer/library.h"
#include "trainer/run.h"

enum { MAX_TEXT_BYTES = 64 << 20 };

/* ---- pieces ---- */

/* A JSON file of the run into `root` under `key`, where it is there. */
static sh_status add_document(const char *run, const char *name, const char *key, json_t *root)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    json_t *document = NULL;

    SH_TRY(sh_run_path(run, name, path));
    if (!sh_file_exists(path)) goto out;
    SH_TRY(sh_run_get_json(run, name, &document));
    json_object_set_new(root, key, document);
out:
    return st;
}

/* state.json of the newest checkpoint. */
static sh_status add_state(const char *run, json_t *root)
{
    sh_status st = SH_OK;
    char folder[SH_RUN_PATH];
    int64_t *steps = NULL;
    int n = 0;

    SH_TRY(sh_checkpoint_list(run, &steps, &n));
    if (n == 0) goto out;
    SH_TRY(sh_checkpoint_path(run, steps[0], folder));
    SH_TRY(add_document(folder, "state.json", "state", root));
    json_object_del(json_object_get(root, "state"), "files");
out:
    free(steps);
    return st;
}

/* Options that are not at their defaults. */
static sh_status add_options(const char *run, json_t *root)
{
    sh_status st = SH_OK;
    const sh_option_table *table = sh_config_options();
    json_t *changed = json_object();
    char *texts = malloc(2 * SH_OPTION_LIST_TEXT);
    sh_config *configs = calloc(2, sizeof(*configs));

    SH_CHECK(configs != NULL && texts != NULL && changed != NULL, SH_ERR_NO_MEMORY,
             "configuration");
    SH_TRY(sh_run_load_config(run, &configs[0]));
    SH_TRY(sh_options_defaults(table, &configs[1]));
    for (int i = 0; i < table->n; i++) {
        char *own = texts, *usual = texts + SH_OPTION_LIST_TEXT;

        sh_options_format(&table->rows[i], &configs[0], own, SH_OPTION_LIST_TEXT);
        sh_options_format(&table->rows[i], &configs[1], usual, SH_OPTION_LIST_TEXT);
        if (strcmp(own, usual) != 0)
            json_object_set_new(changed, table->rows[i].key, json_string(own));
    }
    json_object_set(root, "options", changed);
out:
    json_decref(changed);
    free(texts);
    free(configs);
    return st;
}

/* Crops of each part: the last column of split.csv. */
static sh_status add_split(const char *run, json_t *root)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    char *text = NULL, *rest = NULL;
    size_t n_bytes = 0;
    json_t *sizes = NULL;

    SH_TRY(sh_run_path(run, "split.csv", path));
    if (!sh_file_exists(path)) goto out;
    SH_TRY(sh_file_get(path, MAX_TEXT_BYTES, &text, &n_bytes));
    sizes = json_object();
    SH_CHECK(sizes != NULL, SH_ERR_NO_MEMORY, "split");
    strtok_r(text, "\n", &rest); /* the heading */
    for (char *line = strtok_r(NULL, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        const char *comma = strrchr(line, ',');
        const char *part = comma != NULL ? comma + 1 : line;

        json_object_set_new(sizes, part,
                            json_integer(json_integer_value(json_object_get(sizes, part)) + 1));
    }
    json_object_set(root, "split_crops", sizes);
out:
    json_decref(sizes);
    free(text);
    return st;
}

/* The last lines of metrics.jsonl: of a step, and of a validation. */
static sh_status add_metrics(const char *run, json_t *root)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    char *text = NULL, *rest = NULL;
    size_t n_bytes = 0;

    SH_TRY(sh_run_path(run, "metrics.jsonl", path));
    if (!sh_file_exists(path)) goto out;
    SH_TRY(sh_file_get(path, MAX_TEXT_BYTES, &text, &n_bytes));
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        json_t *entry = json_loads(line, 0, NULL); /* the last line of a killed run may be cut */
        const char *key = json_object_get(entry, "val") != NULL ? "last_validation" : "last_step";

        if (entry != NULL) json_object_set(root, key, entry);
        json_decref(entry);
    }
out:
    free(text);
    return st;
}

/* ---- printing ---- */

/* Members of an object, a line each; objects in objects are indented. */
static void print_members(const json_t *object, int indent)
{
    const char *key = NULL;
    json_t *value = NULL;

    json_object_foreach((json_t *)object, key, value)
    {
        if (json_is_object(value) && json_object_size(value) > 0) {
            printf("%*s%s\n", indent, "", key);
            print_members(value, indent + 2);
            continue;
        }
        char *text = json_is_string(value)
                         ? strdup(json_string_value(value))
                         : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(4));

        printf("%*s%-*s %s\n", indent, "", 32 - indent, key, text != NULL ? text : "");
        free(text);
    }
}

sh_status sh_inspect_run(const char *run, bool json)
{
    sh_status st = SH_OK;
    json_t *root = json_pack("{s:s, s:s}", "path", run, "format", "shoal-run");
    json_t *manifest = NULL;

    SH_CHECK(root != NULL, SH_ERR_NO_MEMORY, "%s", run);
    SH_TRY(add_options(run, root));
    SH_TRY(add_state(run, root));
    SH_TRY(add_metrics(run, root));
    SH_TRY(add_split(run, root));
    SH_TRY(add_document(run, "threshold.json", "threshold", root));
    SH_TRY(add_document(run, "manifest.json", "manifest", root));
    manifest = json_object_get(root, "manifest");
    if (manifest != NULL && !json) { /* what is long is for --json */
        json_object_set(root, "data_hash", json_object_get(manifest, "data_hash"));
        json_object_set_new(
            root, "starts",
            json_integer((json_int_t)json_array_size(json_object_get(manifest, "starts"))));
        json_object_del(root, "manifest");
    }
    if (json)
        SH_CHECK(json_dumpf(root, stdout, JSON_INDENT(2)) == 0 && printf("\n") > 0, SH_ERR_IO,
                 "cannot print JSON");
    else
        print_members(root, 0);
out:
    json_decref(root);
    return st;
}

sh_status sh_inspect_backbone(const char *folder, bool json)
{
    sh_status st = SH_OK;
    bool is_backbone = false;
    char path[SH_LIBRARY_PATH];
    char *text = NULL;
    size_t n_bytes = 0;
    json_t *root = NULL;

    SH_TRY(sh_library_check(folder, &is_backbone));
    SH_CHECK(is_backbone, SH_ERR_NOT_FOUND, "%s is no backbone", folder);
    SH_TRY(sh_path_join(folder, "card.yaml", path, sizeof(path)));
    SH_TRY(sh_file_get(path, MAX_TEXT_BYTES, &text, &n_bytes));
    if (!json) {
        printf("%s: backbone, its checksum is right\n%s", folder, text);
        goto out;
    }
    root = json_pack("{s:s, s:s, s:s}", "path", folder, "format", "backbone", "card", text);
    SH_CHECK(root != NULL && json_dumpf(root, stdout, JSON_INDENT(2)) == 0 && printf("\n") > 0,
             SH_ERR_IO, "cannot print JSON");
out:
    json_decref(root);
    free(text);
    return st;
}
