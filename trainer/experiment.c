// SPDX-License-Identifier: Apache-2.0
#include "trainer/experiment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "trainer/library.h"

/* runs/<file name without its ending>. */
static void default_run(const char *yaml, char *run, size_t size)
{
    const char *name = yaml != NULL ? sh_path_name(yaml) : "shoal";

    snprintf(run, size, "runs/%.*s", (int)strcspn(name, "."), name);
}

sh_status sh_experiment_parse(const sh_string_list *words, const char *run, sh_experiment *out)
{
    sh_status st = SH_OK;
    sh_experiment e = {0};

    e.assignments = calloc((size_t)words->n + 1, sizeof(char *));
    SH_CHECK(e.assignments != NULL, SH_ERR_NO_MEMORY, "arguments");
    for (int i = 0; i < words->n; i++) {
        if (strchr(words->items[i], '=') != NULL) {
            e.assignments[e.n_assignments++] = words->items[i];
            continue;
        }
        SH_CHECK(e.yaml == NULL, SH_ERR_USAGE,
                 "two experiments given: %s and %s (options are written key=value)", e.yaml,
                 words->items[i]);
        e.yaml = words->items[i];
    }
    if (run == NULL)
        default_run(e.yaml, e.run, sizeof(e.run));
    else
        SH_CHECK((size_t)snprintf(e.run, sizeof(e.run), "%s", run) < sizeof(e.run), SH_ERR_USAGE,
                 "--run: path too long: %.200s...", run);
    *out = e;
    e = (sh_experiment){0};
out:
    sh_experiment_clear(&e);
    return st;
}

void sh_experiment_clear(sh_experiment *experiment)
{
    free(experiment->assignments);
    experiment->assignments = NULL;
}

/* A backbone, by folder or by its name in the library, becomes the path of its weights. */
static sh_status resolve_init(sh_config *config)
{
    sh_status st = SH_OK;
    char path[SH_LIBRARY_PATH];
    const char *init = config->init;

    if (init[0] == '\0') goto out;
    if (!sh_file_is_dir(init) && (sh_file_exists(init) || strchr(init, '/') != NULL)) goto out;
    SH_TRY(sh_library_find(init, path));
    SH_CHECK(strlen(path) < sizeof(config->init), SH_ERR_USAGE, "init: %.100s...: too long", path);
    memcpy(config->init, path, strlen(path) + 1);
out:
    return st;
}

sh_status sh_experiment_load(const sh_experiment *e, sh_config *out)
{
    sh_status st = SH_OK;
    char stored[SH_RUN_PATH];

    SH_TRY(sh_run_path(e->run, "config.yaml", stored));
    bool use_stored = e->yaml == NULL && sh_file_exists(stored);

    SH_TRY(sh_config_load(use_stored ? stored : e->yaml, e->assignments, e->n_assignments, out));
    SH_CHECK(out->steps > 0 || out->minutes > 0, SH_ERR_USAGE,
             "no limit: give steps=N or minutes=M");
    SH_TRY(resolve_init(out));
    SH_TRY(sh_config_resolve_paths(out));
out:
    return st;
}
