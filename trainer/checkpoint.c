// SPDX-License-Identifier: Apache-2.0
#include "trainer/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "models/weights/weights.h"

enum { NAME_BYTES = 64, MAX_FILES = 3 };

#define MAX_FILE_BYTES ((size_t)1 << 40)
#define UNFINISHED "unfinished-" /* and the incarnation that writes it */

/* ---- snapshots ---- */

sh_status sh_snapshot_create(const sh_store *store, sh_snapshot *out)
{
    sh_status st = SH_OK;
    sh_snapshot s = {0};

    s.params = calloc((size_t)sh_store_n_params(store) + 1, sizeof(float));
    s.states = calloc((size_t)sh_store_n_states(store) + 1, sizeof(float));
    SH_CHECK(s.params && s.states, SH_ERR_NO_MEMORY, "snapshot of the weights");
    *out = s;
    s = (sh_snapshot){0};
out:
    sh_snapshot_clear(&s);
    return st;
}

void sh_snapshot_clear(sh_snapshot *snapshot)
{
    free(snapshot->params);
    free(snapshot->states);
    *snapshot = (sh_snapshot){0};
}

static sh_status copy_out(const sh_store *store, const sh_buffer *buffer, float *host, int64_t n)
{
    if (n == 0) return SH_OK;
    return sh_store_backend(store)->copy_out(buffer, 0, host, (size_t)n * sizeof(float));
}

static sh_status copy_in(const sh_store *store, sh_buffer *buffer, const float *host, int64_t n)
{
    if (n == 0) return SH_OK;
    return sh_store_backend(store)->copy_in(buffer, 0, host, (size_t)n * sizeof(float));
}

static sh_status take_weights(sh_snapshot *snapshot, sh_store *store)
{
    sh_status st = SH_OK;

    SH_TRY(copy_out(store, sh_store_params(store), snapshot->params, sh_store_n_params(store)));
    SH_TRY(copy_out(store, sh_store_states(store), snapshot->states, sh_store_n_states(store)));
out:
    return st;
}

sh_status sh_snapshot_take(sh_snapshot *snapshot, sh_store *store, sh_optim *optim)
{
    sh_status st = SH_OK;
    int64_t n_params, n_states;
    sh_buffer *params = sh_optim_arena_buffer(optim, SH_OPTIM_EMA_PARAMS, &n_params);
    sh_buffer *states = sh_optim_arena_buffer(optim, SH_OPTIM_EMA_STATES, &n_states);

    SH_TRY(take_weights(snapshot, store));
    if (params != NULL) SH_TRY(copy_out(store, params, snapshot->params, n_params));
    if (states != NULL) SH_TRY(copy_out(store, states, snapshot->states, n_states));
out:
    return st;
}

sh_status sh_snapshot_swap_in(const sh_snapshot *snapshot, sh_store *store, sh_snapshot *saved)
{
    sh_status st = SH_OK;

    if (saved != NULL) SH_TRY(take_weights(saved, store));
    SH_TRY(copy_in(store, sh_store_params(store), snapshot->params, sh_store_n_params(store)));
    SH_TRY(copy_in(store, sh_store_states(store), snapshot->states, sh_store_n_states(store)));
out:
    return st;
}

sh_status sh_snapshot_write(const sh_snapshot *snapshot, const sh_store *store, const char *without,
                            const char *path, const char *const (*metadata)[2], int n_metadata,
                            uint32_t *crc32c, uint64_t *n_bytes)
{
    sh_status st = SH_OK;
    int n_slots = sh_store_n_slots(store), n = 0;
    sh_weight_out *tensors = calloc((size_t)n_slots + 1, sizeof(*tensors));

    SH_CHECK(tensors != NULL, SH_ERR_NO_MEMORY, "list of %d tensors", n_slots);
    for (int i = 0; i < n_slots; i++) {
        const sh_slot *slot = sh_store_slot(store, i);
        const float *arena = slot->kind == SH_SLOT_PARAM ? snapshot->params : snapshot->states;

        if (without != NULL && strncmp(slot->name, without, strlen(without)) == 0) continue;
        tensors[n] = (sh_weight_out){.name = slot->name,
                                     .dtype = SH_F32,
                                     .n_dims = slot->n_dims,
                                     .data = arena + slot->offset};
        memcpy(tensors[n++].dims, slot->dims, sizeof(slot->dims));
    }
    SH_TRY(sh_weights_write(path, tensors, n, metadata, n_metadata, crc32c, n_bytes));
out:
    free(tensors);
    return st;
}

/* ---- saving ---- */

struct sh_checkpointer {
    char run[SH_RUN_PATH];
    const sh_run_lock *lock;
    int keep;
    sh_store *store;
    sh_optim *optim;

    /* What is being written; owned by the writer thread while `writing`. */
    sh_progress progress;
    sh_snapshot weights, best;
    bool has_best;
    float *arenas[SH_OPTIM_ARENA_COUNT];

    bool writing;
    pthread_t thread;
    sh_status result;
    char message[2048];
};

sh_status sh_checkpointer_create(const char *run, const sh_run_lock *lock, int keep,
                                 sh_store *store, sh_optim *optim, sh_checkpointer **out)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    sh_checkpointer *c = calloc(1, sizeof(*c));

    SH_CHECK(c != NULL, SH_ERR_NO_MEMORY, "checkpointer");
    SH_TRY(sh_run_path(run, "", c->run));
    c->lock = lock;
    c->keep = keep;
    c->store = store;
    c->optim = optim;
    SH_TRY(sh_snapshot_create(store, &c->weights));
    SH_TRY(sh_snapshot_create(store, &c->best));
    for (int a = 0; a < SH_OPTIM_ARENA_COUNT; a++) {
        int64_t n;

        if (sh_optim_arena_buffer(optim, (sh_optim_arena)a, &n) == NULL) continue;
        c->arenas[a] = malloc((size_t)n * sizeof(float));
        SH_CHECK(c->arenas[a] != NULL, SH_ERR_NO_MEMORY, "snapshot of the optimizer");
    }
    SH_TRY(sh_run_path(run, "checkpoints", path));
    SH_TRY(sh_file_make_dirs(path));
    *out = c;
    c = NULL;
out:
    sh_checkpointer_destroy(&c);
    return st;
}

void sh_checkpointer_destroy(sh_checkpointer **checkpointer)
{
    sh_checkpointer *c = *checkpointer;

    if (c == NULL) return;
    if (c->writing) pthread_join(c->thread, NULL);
    sh_snapshot_clear(&c->weights);
    sh_snapshot_clear(&c->best);
    for (int a = 0; a < SH_OPTIM_ARENA_COUNT; a++) free(c->arenas[a]);
    free(c);
    *checkpointer = NULL;
}

/* One file of a checkpoint, as state.json records it. */
typedef struct file_record {
    const char *name;
    uint32_t crc32c;
    uint64_t n_bytes;
} file_record;

static sh_status write_optimizer(const sh_checkpointer *c, const char *path, file_record *record)
{
    sh_status st = SH_OK;
    sh_weight_out tensors[SH_OPTIM_ARENA_COUNT];
    int n = 0;

    for (int a = 0; a < SH_OPTIM_ARENA_COUNT; a++) {
        int64_t n_elems;

        if (sh_optim_arena_buffer(c->optim, (sh_optim_arena)a, &n_elems) == NULL) continue;
        tensors[n++] = (sh_weight_out){.name = sh_optim_arena_name((sh_optim_arena)a),
                                       .dtype = SH_F32,
                                       .n_dims = 1,
                                       .dims = {n_elems},
                                       .data = c->arenas[a]};
    }
    SH_TRY(sh_weights_write(path, tensors, n, NULL, 0, &record->crc32c, &record->n_bytes));
out:
    return st;
}

static sh_status write_state(const sh_checkpointer *c, const char *folder,
                             const file_record *records, int n_records)
{
    sh_status st = SH_OK;
    const sh_progress *p = &c->progress;
    json_t *files = json_object();
    json_t *state = NULL;

    for (int i = 0; i < n_records; i++)
        json_object_set_new(files, records[i].name,
                            json_pack("{s:I, s:I}", "bytes", (json_int_t)records[i].n_bytes,
                                      "crc32c", (json_int_t)records[i].crc32c));
    state = json_pack(
        "{s:s, s:i, s:I, s:f, s:I, s:I, s:f, s:I, s:I, s:s, s:O}", "format", "shoal-checkpoint",
        "version", 1, "step", (json_int_t)p->step, "seconds", p->seconds, "metrics_bytes",
        (json_int_t)p->metrics_bytes, "ledger_bytes", (json_int_t)p->ledger_bytes, "best_score",
        p->best_score, "best_step", (json_int_t)p->best_step, "validations_since_best",
        (json_int_t)p->validations_since_best, "finished", p->finished, "files", files);
    SH_CHECK(state != NULL, SH_ERR_NO_MEMORY, "state.json");
    SH_TRY(sh_run_put_json(folder, "state.json", state));
out:
    json_decref(files);
    json_decref(state);
    return st;
}

/* All files of the checkpoint into `folder`. */
static sh_status write_files(const sh_checkpointer *c, const char *folder)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    file_record records[MAX_FILES] = {{.name = "weights.safetensors"},
                                      {.name = "optimizer.safetensors"},
                                      {.name = "best.safetensors"}};

    SH_TRY(sh_path_join(folder, records[0].name, path, sizeof(path)));
    SH_TRY(sh_snapshot_write(&c->weights, c->store, NULL, path, NULL, 0, &records[0].crc32c,
                             &records[0].n_bytes));
    SH_TRY(sh_path_join(folder, records[1].name, path, sizeof(path)));
    SH_TRY(write_optimizer(c, path, &records[1]));
    if (c->has_best) {
        SH_TRY(sh_path_join(folder, records[2].name, path, sizeof(path)));
        SH_TRY(sh_snapshot_write(&c->best, c->store, NULL, path, NULL, 0, &records[2].crc32c,
                                 &records[2].n_bytes));
    }
    SH_TRY(write_state(c, folder, records, c->has_best ? 3 : 2));
out:
    return st;
}

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

/* Remove old checkpoints. */
static sh_status prune(const sh_checkpointer *c)
{
    sh_status st = SH_OK;
    char path[SH_RUN_PATH];
    int64_t *steps = NULL;
    int n = 0;

    SH_TRY(sh_checkpoint_list(c->run, &steps, &n));
    for (int i = c->keep; i < n; i++) {
        SH_TRY(sh_checkpoint_path(c->run, steps[i], path));
        SH_TRY(sh_file_remove_tree(path));
    }
out:
    free(steps);
    return st;
}

sh_status sh_checkpoint_clear_unfinished(const char *run)
{
    sh_status st = SH_OK;
    char folder[SH_RUN_PATH], path[SH_RUN_PATH];
    struct dirent *entry;
    DIR *dir = NULL;

    SH_TRY(sh_run_path(run, "checkpoints", folder));
    dir = opendir(folder);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, UNFINISHED, strlen(UNFINISHED)) != 0) continue;
        SH_TRY(sh_path_join(folder, entry->d_name, path, sizeof(path)));
        SH_TRY(sh_file_remove_tree(path));
    }
out:
    if (dir != NULL) closedir(dir);
    return st;
}

/* The folder is this incarnation's own. A newer one removes it before it looks for checkpoints, so
 * that a rename that passed the lock just before still finds nothing to put in place. */
static sh_status write_checkpoint(const sh_checkpointer *c)
{
    sh_status st = SH_OK;
    char name[NAME_BYTES], temp[SH_RUN_PATH] = "", path[SH_RUN_PATH];

    SH_TRY(sh_run_lock_check(c->lock));
    snprintf(name, sizeof(name), "checkpoints/" UNFINISHED "%lld",
             (long long)sh_run_lock_incarnation(c->lock));
    SH_TRY(sh_run_path(c->run, name, temp));
    SH_TRY(sh_checkpoint_path(c->run, c->progress.step, path));
    SH_TRY(sh_file_remove_tree(temp));
    SH_TRY(sh_file_make_dirs(temp));
    SH_TRY(write_files(c, temp));
    SH_TRY(sh_file_sync_dir(temp));
    SH_TRY(sh_run_lock_check(c->lock));
    SH_TRY(sh_file_remove_tree(path)); /* a damaged one of the same step, if any */
    SH_TRY(sh_file_rename(temp, path));
    SH_TRY(prune(c));
out:
    return st;
}

/* What a failed write leaves takes the room that the next one needs. A newer process that removed
 * the folder meanwhile is the reason that counts. */
static sh_status clean_up(const sh_checkpointer *c, sh_status failure)
{
    char message[sizeof(c->message)];

    snprintf(message, sizeof(message), "%s", sh_error_message());
    sh_status fenced = sh_run_lock_check(c->lock);

    if (fenced == SH_ERR_MISMATCH) return fenced;
    if (sh_checkpoint_clear_unfinished(c->run) != SH_OK) sh_error_clear();
    return sh_error_set(failure, "%s", message);
}

static void *writer_thread(void *context)
{
    sh_checkpointer *c = context;

    c->result = write_checkpoint(c);
    if (c->result != SH_OK) c->result = clean_up(c, c->result);
    if (c->result != SH_OK) snprintf(c->message, sizeof(c->message), "%s", sh_error_message());
    return NULL;
}

sh_status sh_checkpointer_wait(sh_checkpointer *c)
{
    sh_status st = SH_OK;

    if (!c->writing) goto out;
    pthread_join(c->thread, NULL);
    c->writing = false;
    SH_CHECK(c->result == SH_OK, c->result, "checkpoint of step %lld: %s",
             (long long)c->progress.step, c->message);
out:
    return st;
}

sh_status sh_checkpointer_save(sh_checkpointer *c, const sh_progress *progress,
                               const sh_snapshot *best)
{
    sh_status st = SH_OK;

    SH_TRY(sh_checkpointer_wait(c));
    c->progress = *progress;
    SH_TRY(take_weights(&c->weights, c->store));
    for (int a = 0; a < SH_OPTIM_ARENA_COUNT; a++) {
        int64_t n;
        sh_buffer *buffer = sh_optim_arena_buffer(c->optim, (sh_optim_arena)a, &n);

        if (buffer != NULL) SH_TRY(copy_out(c->store, buffer, c->arenas[a], n));
    }
    c->has_best = best != NULL;
    if (best != NULL) {
        memcpy(c->best.params, best->params, (size_t)sh_store_n_params(c->store) * sizeof(float));
        memcpy(c->best.states, best->states, (size_t)sh_store_n_states(c->store) * sizeof(float));
    }
    SH_CHECK(pthread_create(&c->thread, NULL, writer_thread, c) == 0, SH_ERR_NO_MEMORY,
             "checkpoint writer thread");
    c->writing = true;
out:
    return st;
}

/* ---- loading ---- */

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
                 strcmp(format, "shoal-checkpoint") == 0 && version == 1,
             SH_ERR_FORMAT, "%s/state.json is not a checkpoint of this version", folder);
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
        SH_TRY(copy_in(store, buffer, w->data, n));
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

sh_status sh_checkpoint_load(const char *run, sh_store *store, sh_optim *optim, sh_snapshot *best,
                             sh_progress *progress, bool *found)
{
    sh_status st = SH_OK;
    char folder[SH_RUN_PATH];
    int64_t *steps = NULL;
    int n = 0;

    *found = false;
    SH_TRY(sh_checkpoint_list(run, &steps, &n));
    for (int i = 0; i < n && !*found; i++) {
        SH_TRY(sh_checkpoint_path(run, steps[i], folder));
        sh_status loaded = load_folder(folder, store, optim, best, progress);

        *found = loaded == SH_OK;
        if (!*found) {
            sh_log_warning("skipping a checkpoint that is not whole: %s", sh_error_message());
            sh_error_clear();
        }
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
