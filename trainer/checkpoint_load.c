// SPDX-License-Identifier: Apache-2.0
/* Checkpoints that are there: found, read, checked and loaded. trainer/checkpoint.c writes them. */
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/position.h"
#include "models/weights/weights.h"
#include "trainer/checkpoint.h"

enum { NAME_BYTES = 64 };

#define MAX_FILE_BYTES ((size_t)1 << 40)

/* ---- the folder of checkpoints ---- */

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x < y) - (x > y);
}

sh_status sh_checkpoint_list(const char *run, int64_t **steps, int *n_steps)
{
    sh_status st = SH_OK;
    char folder[SH_RUN_PATH];
    int64_t *list = NULL;
    int n = 0;
    struct dirent *entry;
    DIR *dir = NULL;

    SH_TRY(sh_run_path(run, "checkpoints", folder));
    dir = opendir(folder);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        int64_t step;
        int used = 0;

        if (sscanf(entry->d_name, "step-%" SCNd64 "%n", &step, &used) != 1 ||
            entry->d_name[used] != '\0')
            continue;
        int64_t *grown = realloc(list, sizeof(*list) * (size_t)(n + 1));

        SH_CHECK(grown != NULL, SH_ERR_NO_MEMORY, "list of checkpoints");
        list = grown;
        list[n++] = step;
    }
    if (n > 0) qsort(list, (size_t)n, sizeof(*list), newest_first);
    *steps = list;
    *n_steps = n;
    list = NULL;
out:
    free(list);
    if (dir != NULL) closedir(dir);
    return st;
}

sh_status sh_checkpoint_path(const char *run, int64_t step, char *path)
{
    char name[NAME_BYTES];

    snprintf(name, sizeof(name), "checkpoints/step-%09lld", (long long)step);
    return sh_run_path(run, name, path);
}

/* ---- loading ---- */

sh_status sh_checkpoint_sum(const json_t *state, uint32_t *out)
{
    sh_status st = SH_OK;
    char *text = json_dumps(state, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));

    SH_CHECK(text != NULL, SH_ERR_NO_MEMORY, "state.json");
    *out = sh_crc32c(0, text, strlen(text));
out:
    free(text);
    return st;
}

/* Of everything in the state but the sum itself, which is removed. */
static sh_status check_sum(json_t *state, const char *folder)
{
    sh_status st = SH_OK;
    uint32_t sum = 0;
    json_int_t expected = json_integer_value(json_object_get(state, "crc32c"));

    json_object_del(state, "crc32c");
    SH_TRY(sh_checkpoint_sum(state, &sum));
    SH_CHECK(expected == (json_int_t)sum, SH_ERR_FORMAT,
             "%s/state.json is damaged: its checksum is wrong", folder);
out:
    return st;
}

static sh_status read_state(const char *folder, json_t **state, sh_progress *p)
{
    sh_status st = SH_OK;
    json_t *s = NULL;
    const char *format, *finished;
    int version;
    json_int_t step, metrics, ledger, best_step, since;

    SH_TRY(sh_run_get_json(folder, "state.json", &s));
    SH_CHECK(json_unpack(s, "{s:s, s:i, s:I, s:F, s:I, s:I, s:F, s:I, s:I, s:s}", "format", &format,
                         "version", &version, "step", &step, "seconds", &p->seconds,
                         "metrics_bytes", &metrics, "ledger_bytes", &ledger, "best_score",
                         &p->best_score, "best_step", &best_step, "validations_since_best", &since,
                         "finished", &finished) == 0 &&
                 strcmp(format, "shoal-checkpoint") == 0 && version == SH_CHECKPOINT_VERSION,
             SH_ERR_FORMAT, "%s/state.json is not a checkpoint of this version", folder);
    SH_TRY(check_sum(s, folder));
    p->step = step;
    p->metrics_bytes = metrics;
    p->ledger_bytes = ledger;
    p->best_step = best_step;
    p->validations_since_best = since;
    snprintf(p->finished, sizeof(p->finished), "%s", finished);
    *state = s;
    s = NULL;
out:
    json_decref(s);
    return st;
}

/* Read one file of a checkpoint whole, checked against its record. */
static sh_status read_file(const char *folder, const json_t *state, const char *name,
                           sh_weights **out)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    char *data = NULL;
    size_t n_bytes = 0;
    json_int_t bytes, crc;
    json_t *record = json_object_get(json_object_get(state, "files"), name);

    SH_CHECK(record != NULL &&
                 json_unpack(record, "{s:I, s:I}", "bytes", &bytes, "crc32c", &crc) == 0,
             SH_ERR_FORMAT, "%s/state.json has no record of %s", folder, name);
    SH_TRY(sh_path_join(folder, name, path, sizeof(path)));
    SH_TRY(sh_file_get(path, MAX_FILE_BYTES, &data, &n_bytes));
    SH_CHECK((json_int_t)n_bytes == bytes, SH_ERR_FORMAT, "%s has %zu bytes instead of %lld", path,
             n_bytes, (long long)bytes);
    SH_CHECK((json_int_t)sh_crc32c(0, data, n_bytes) == crc, SH_ERR_FORMAT,
             "%s is damaged: its checksum is wrong", path);
    SH_TRY(sh_weights_parse(data, n_bytes, path, out));
out:
    free(data);
    return st;
}

static sh_status load_arenas(const sh_weights *weights, const char *folder, sh_store *store,
                             sh_optim *optim)
{
    sh_status st = SH_OK;

    for (int a = 0; a < SH_OPTIM_ARENA_COUNT; a++) {
        int64_t n;
        sh_buffer *buffer = sh_optim_arena_buffer(optim, (sh_optim_arena)a, &n);
        const char *name = sh_optim_arena_name((sh_optim_arena)a);

        if (buffer == NULL) continue;
        const sh_weight *w = sh_weights_find(weights, name);

        SH_CHECK(w != NULL && w->n_elems == n, SH_ERR_FORMAT,
                 "%s/optimizer.safetensors has no \"%s\" of %lld numbers", folder, name,
                 (long long)n);
        SH_TRY(sh_store_backend(store)->copy_in(buffer, 0, w->data, (size_t)n * sizeof(float)));
    }
out:
    return st;
}

static sh_status load_snapshot(const sh_weights *weights, const char *folder, const sh_store *store,
                               sh_snapshot *out)
{
    sh_status st = SH_OK;

    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const sh_slot *slot = sh_store_slot(store, i);
        const sh_weight *w = sh_weights_find(weights, slot->name);
        float *arena = slot->kind == SH_SLOT_PARAM ? out->params : out->states;

        SH_CHECK(w != NULL && w->n_elems == slot->n_elems, SH_ERR_FORMAT,
                 "%s: \"%s\" is missing or of another size", folder, slot->name);
        memcpy(arena + slot->offset, w->data, (size_t)slot->n_elems * sizeof(float));
    }
out:
    return st;
}

/* Read and check everything first, then load: a damaged checkpoint leaves no half-loaded state. */
static sh_status load_folder(const char *folder, sh_store *store, sh_optim *optim,
                             sh_snapshot *best, sh_progress *progress)
{
    sh_status st = SH_OK;
    json_t *state = NULL;
    sh_weights *weights = NULL, *optimizer = NULL, *best_weights = NULL;
    sh_snapshot now = {0};
    sh_progress read = {0};

    SH_TRY(read_state(folder, &state, &read));
    SH_TRY(read_file(folder, state, "weights.safetensors", &weights));
    SH_TRY(read_file(folder, state, "optimizer.safetensors", &optimizer));
    if (read.best_score >= 0) SH_TRY(read_file(folder, state, "best.safetensors", &best_weights));
    SH_TRY(sh_snapshot_create(store, &now));
    SH_TRY(load_snapshot(weights, folder, store, &now));
    if (best_weights != NULL) SH_TRY(load_snapshot(best_weights, folder, store, best));
    SH_TRY(load_arenas(optimizer, folder, store, optim));
    SH_TRY(sh_snapshot_swap_in(&now, store, NULL));
    *progress = read;
out:
    sh_snapshot_clear(&now);
    sh_weights_destroy(&weights);
    sh_weights_destroy(&optimizer);
    sh_weights_destroy(&best_weights);
    json_decref(state);
    return st;
}

/* Rank 0's list, on all ranks: the others' view of shared storage may lag behind. Collective. */
static sh_status list_for_all(sh_comm *comm, const char *run, int64_t **steps, int *n_steps)
{
    sh_status st = SH_OK;
    int64_t *list = NULL;
    int n = 0;

    if (sh_comm_rank(comm) == 0) st = sh_checkpoint_list(run, &list, &n);
    SH_TRY(sh_comm_agree_ok(comm, st));
    SH_TRY(sh_comm_bcast(comm, &n, sizeof(n), 0));
    if (sh_comm_rank(comm) != 0) {
        list = calloc((size_t)n + 1, sizeof(*list));
        SH_CHECK(list != NULL, SH_ERR_NO_MEMORY, "list of checkpoints");
    }
    if (n > 0) SH_TRY(sh_comm_bcast(comm, list, (size_t)n * sizeof(*list), 0));
    *steps = list;
    *n_steps = n;
    list = NULL;
out:
    free(list);
    return st;
}

/* Could all ranks load it? Each one that could not says why. Collective. */
static sh_status loaded_by_all(sh_comm *comm, sh_status mine, bool *all)
{
    int64_t failed = mine != SH_OK;

    if (failed) {
        sh_log_warning("skipping a checkpoint that is not whole: %s", sh_error_message());
        sh_error_clear();
    }
    sh_status st = sh_comm_max(comm, &failed, 1);

    *all = failed == 0;
    return st;
}

sh_status sh_checkpoint_load(sh_comm *comm, const char *run, sh_store *store, sh_optim *optim,
                             sh_snapshot *best, sh_progress *progress, bool *found)
{
    sh_status st = SH_OK;
    char folder[SH_RUN_PATH];
    int64_t *steps = NULL;
    int n = 0;

    *found = false;
    SH_TRY(list_for_all(comm, run, &steps, &n));
    for (int i = 0; i < n && !*found; i++) {
        SH_TRY(sh_checkpoint_path(run, steps[i], folder));
        sh_position_enter(SH_AT_FILES, "reading %s", folder);
        sh_status loaded = load_folder(folder, store, optim, best, progress);

        sh_position_leave();
        SH_TRY(loaded_by_all(comm, loaded, found));
    }
    SH_CHECK(*found || n == 0, SH_ERR_FORMAT,
             "none of the %d checkpoints of %s is whole; move %s/checkpoints away to start again "
             "from the first step",
             n, run, run);
out:
    free(steps);
    return st;
}

sh_status sh_checkpoint_peek(const char *run, sh_progress *progress, int n, int *n_found)
{
    sh_status st = SH_OK;
    char folder[SH_RUN_PATH];
    int64_t *steps = NULL;
    int n_steps = 0;

    *n_found = 0;
    SH_TRY(sh_checkpoint_list(run, &steps, &n_steps));
    for (int i = 0; i < n_steps && *n_found < n; i++) {
        json_t *state = NULL;

        SH_TRY(sh_checkpoint_path(run, steps[i], folder));
        if (read_state(folder, &state, &progress[*n_found]) == SH_OK)
            (*n_found)++;
        else
            sh_error_clear();
        json_decref(state);
    }
out:
    free(steps);
    return st;
}
