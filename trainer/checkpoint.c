// SPDX-License-Identifier: Apache-2.0
#include "trainer/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/position.h"
#include "models/weights/weights.h"

enum { NAME_BYTES = 64, MAX_FILES = 3 };

static const double look_seconds = 0.005; /* between two looks at a write that is waited for */

#define UNFINISHED "unfinished-" /* and the incarnation that writes it */

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
    double thread_seconds; /* of a core, of that write */
    double write_seconds;  /* of all writes so far */
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

/* Storage may be slow, as long as it gets on: the watchdog is told so. */
static void join_writer(sh_checkpointer *c)
{
    int64_t seen = sh_file_operations();

    while (pthread_tryjoin_np(c->thread, NULL) == EBUSY) {
        sh_clock_sleep(look_seconds);
        int64_t now = sh_file_operations();

        if (now != seen) sh_position_move();
        seen = now;
    }
}

void sh_checkpointer_destroy(sh_checkpointer **checkpointer)
{
    sh_checkpointer *c = *checkpointer;

    if (c == NULL) return;
    if (c->writing) join_writer(c);
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
    char path[SH_RUN_PATH];
    char *text = NULL;
    uint32_t sum = 0;

    for (int i = 0; i < n_records; i++)
        json_object_set_new(files, records[i].name,
                            json_pack("{s:I, s:I}", "bytes", (json_int_t)records[i].n_bytes,
                                      "crc32c", (json_int_t)records[i].crc32c));
    state =
        json_pack("{s:s, s:i, s:I, s:f, s:I, s:I, s:f, s:I, s:I, s:s, s:O}", "format",
                  "shoal-checkpoint", "version", SH_CHECKPOINT_VERSION, "step", (json_int_t)p->step,
                  "seconds", p->seconds, "metrics_bytes", (json_int_t)p->metrics_bytes,
                  "ledger_bytes", (json_int_t)p->ledger_bytes, "best_score", p->best_score,
                  "best_step", (json_int_t)p->best_step, "validations_since_best",
                  (json_int_t)p->validations_since_best, "finished", p->finished, "files", files);
    SH_CHECK(state != NULL, SH_ERR_NO_MEMORY, "state.json");
    SH_TRY(sh_checkpoint_sum(state, &sum));
    json_object_set_new(state, "crc32c", json_integer((json_int_t)sum));
    /* Every digit: a run that goes on compares its scores with the best one so far. */
    text = json_dumps(state, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(17));
    SH_CHECK(text != NULL, SH_ERR_NO_MEMORY, "state.json");
    SH_TRY(sh_path_join(folder, "state.json", path, sizeof(path)));
    SH_TRY(sh_file_put(path, text, strlen(text)));
out:
    free(text);
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

static sh_status replace_damaged(const sh_checkpointer *c, const char *temp, const char *path)
{
    sh_status st = SH_OK;

    SH_TRY(sh_run_lock_check(c->lock));
    SH_TRY(sh_file_remove_tree(path));
    SH_TRY(sh_file_rename(temp, path));
out:
    return st;
}

/* A damaged checkpoint of the same step is in the way; but not one that a newer process has written
 * since the lock was asked: that one removed `temp` first. */
static sh_status put_in_place(const sh_checkpointer *c, const char *temp, const char *path)
{
    sh_status st = sh_file_rename(temp, path);

    if (st == SH_OK || !sh_file_exists(path) || !sh_file_exists(temp)) return st;
    sh_error_clear();
    return replace_damaged(c, temp, path);
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
    SH_TRY(put_in_place(c, temp, path));
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
    c->thread_seconds = sh_clock_thread_cpu_seconds();
    return NULL;
}

sh_status sh_checkpointer_wait(sh_checkpointer *c)
{
    sh_status st = SH_OK;

    if (!c->writing) goto out;
    join_writer(c);
    c->writing = false;
    c->write_seconds += c->thread_seconds;
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
    SH_TRY(sh_snapshot_take(&c->weights, c->store));
    for (int a = 0; a < SH_OPTIM_ARENA_COUNT; a++) {
        int64_t n;
        sh_buffer *buffer = sh_optim_arena_buffer(c->optim, (sh_optim_arena)a, &n);

        if (buffer == NULL) continue;
        SH_TRY(sh_store_backend(c->store)->copy_out(buffer, 0, c->arenas[a],
                                                    (size_t)n * sizeof(float)));
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

double sh_checkpointer_write_seconds(const sh_checkpointer *c)
{
    return c->write_seconds;
}
