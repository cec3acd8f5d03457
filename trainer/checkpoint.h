// SPDX-License-Identifier: Apache-2.0
/**
 * Checkpoints: RUN/checkpoints/step-000000123/ with
 *   weights.safetensors    parameters and running statistics under their public names
 *   optimizer.safetensors  moments and moving average, as flat arenas
 *   best.safetensors       the best validated weights so far, where there are any
 *   state.json             step, time, log positions; size and CRC-32C of the files, and its own;
 *                          written last
 *
 * A save copies everything to host memory and returns; a thread writes into a folder beside, syncs
 * and renames it. So a name step-N is always whole, and a process may die anywhere. Loading takes
 * the newest folder whose files have the right sizes and checksums. Rank 0 alone saves; all ranks
 * load. Nothing depends on the number of ranks.
 */
#ifndef SH_TRAINER_CHECKPOINT_H
#define SH_TRAINER_CHECKPOINT_H

#include "comm/comm.h"
#include "trainer/run.h"
#include "trainer/snapshot.h"

enum { SH_CHECKPOINT_VERSION = 2, SH_FINISH_TEXT = 64 };

/** Where a run stands, apart from tensors. */
typedef struct sh_progress {
    int64_t step;          /* steps done */
    double seconds;        /* training time used, over all restarts */
    int64_t metrics_bytes; /* length of metrics.jsonl at this step */
    int64_t ledger_bytes;  /* length of ledger.csv at this step */
    double best_score;     /* validation score of the best step; below 0: none yet */
    int64_t best_step;
    int64_t validations_since_best;
    char finished[SH_FINISH_TEXT]; /* why the run is over; "" while it is not */
} sh_progress;

typedef struct sh_checkpointer sh_checkpointer;

/** For one run; keeps pointers to lock, store and optim. The caller owns *out. */
SH_MUST_CHECK sh_status sh_checkpointer_create(const char *run, const sh_run_lock *lock, int keep,
                                               sh_store *store, sh_optim *optim,
                                               sh_checkpointer **out);

/** Waits for the write under way, without reporting it. */
void sh_checkpointer_destroy(sh_checkpointer **checkpointer);

/** Snapshot now, write in the background. Waits for the previous write and reports its failure.
 *  best: NULL where nothing was validated yet. */
SH_MUST_CHECK sh_status sh_checkpointer_save(sh_checkpointer *checkpointer,
                                             const sh_progress *progress, const sh_snapshot *best);

/** Wait for the write under way and report its failure. */
SH_MUST_CHECK sh_status sh_checkpointer_wait(sh_checkpointer *checkpointer);

/** Seconds of a core that the background writes took which have been waited for. */
double sh_checkpointer_write_seconds(const sh_checkpointer *checkpointer);

/** Remove what other processes left half-written, or are writing still: they have been replaced.
 *  After the lock is taken and before checkpoints are looked for. */
SH_MUST_CHECK sh_status sh_checkpoint_clear_unfinished(const char *run);

/** Steps of a run's checkpoints, whole or damaged, newest first; the caller frees *steps. No
 * folder: none. */
SH_MUST_CHECK sh_status sh_checkpoint_list(const char *run, int64_t **steps, int *n_steps);

/** RUN/checkpoints/step-N into path[SH_RUN_PATH], whether it is there or not. */
SH_MUST_CHECK sh_status sh_checkpoint_path(const char *run, int64_t step, char *path);

/** CRC-32C of a state without its own "crc32c", however it is laid out in its file. */
SH_MUST_CHECK sh_status sh_checkpoint_sum(const json_t *state, uint32_t *out);

/** Load the newest checkpoint that all ranks find whole into store, optim and best; others are
 *  warned of by name and skipped. *found = false: there is none, nothing was touched. Collective.
 */
SH_MUST_CHECK sh_status sh_checkpoint_load(sh_comm *comm, const char *run, sh_store *store,
                                           sh_optim *optim, sh_snapshot *best,
                                           sh_progress *progress, bool *found);

/** Where the run's newest checkpoints stand, newest first, into progress[n]; *n_found of them.
 *  Reads their state.json alone; one that cannot be read is left out. For looking at a run from
 *  outside: the lock is not needed. */
SH_MUST_CHECK sh_status sh_checkpoint_peek(const char *run, sh_progress *progress, int n,
                                           int *n_found);

#endif
