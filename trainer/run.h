// SPDX-License-Identifier: Apache-2.0
/**
 * A run is a folder:
 *   config.yaml          the resolved configuration
 *   manifest.json        versions, host, data hash, fingerprint, where byte identity ended
 *   split.csv            who trains, validates, tests
 *   metrics.jsonl        a line per logged step and per validation; rewound with the checkpoint
 *   ledger.csv           step, slots used (0: left out), checksum of their crops and draws; rewound
 *   skipped.csv          steps that are left out because they went bad: trainer/skips.h
 *   kernels.txt          of a device, that were chosen by measuring: trainer/kernels.h
 *   checkpoints/step-N/  see trainer/checkpoint.h
 *   model.safetensors    the result; never a time, host or rank in it
 *   features/            of a frozen network, in shallow training (trainer/features.h)
 *   report.html, eval/   written by `shoal eval`
 *   lock                 incarnation number, host, process and batch job that may write
 */
#ifndef SH_TRAINER_RUN_H
#define SH_TRAINER_RUN_H

#include <jansson.h>

#include "dataio/dataset.h"
#include "dataio/split.h"
#include "trainer/config.h"

enum { SH_RUN_PATH = 4096 };

/** RUN/name into path[SH_RUN_PATH]. */
SH_MUST_CHECK sh_status sh_run_path(const char *run, const char *name, char *path);

/** The configuration of an existing run; a folder without one is SH_ERR_NOT_FOUND with the remedy.
 */
SH_MUST_CHECK sh_status sh_run_load_config(const char *run, sh_config *out);

/** Write a configuration, every option with its value, as the whole file RUN/name. */
SH_MUST_CHECK sh_status sh_run_put_config(const char *run, const char *name,
                                          const sh_config *config);

/** May training with `wanted` begin this run, or go on with it? Options that may not change once it
 *  exists are SH_ERR_MISMATCH, listed with both values. *exists: does it? */
SH_MUST_CHECK sh_status sh_run_check_config(const char *run, const sh_config *wanted, bool *exists);

/** Open the run's packs and read its split. The caller owns both. */
SH_MUST_CHECK sh_status sh_run_open_data(const char *run, const sh_config *config,
                                         sh_dataset **dataset, sh_split *split);

/** The right to write into a run. */
typedef struct sh_run_lock sh_run_lock;

/** Take the lock: refuses, naming host and process, while another process holds it; raises the
 *  incarnation number. A process of the same batch job (SLURM_JOB_ID) is replaced instead, with a
 *  warning: the batch system believes it dead. Processes that take the run at the same instant do
 * so one after the other. The caller owns *out; releasing it gives it back. */
SH_MUST_CHECK sh_status sh_run_lock_take(const char *run, sh_run_lock **out);
void sh_run_lock_release(sh_run_lock **lock);

/** Is this still the newest incarnation? SH_ERR_MISMATCH if a later one has taken the run over, or
 *  the folder is gone. To be asked before anything is renamed into the run. */
SH_MUST_CHECK sh_status sh_run_lock_check(const sh_run_lock *lock);

/** Check, and let no other process take the run until thawed (for 10 s at most): for what every
 * start writes anew, so that one that was just replaced does not write it over that of the newer
 * one. */
SH_MUST_CHECK sh_status sh_run_lock_freeze(const sh_run_lock *lock);
void sh_run_lock_thaw(const sh_run_lock *lock);

int64_t sh_run_lock_incarnation(const sh_run_lock *lock);

/** Does a process hold the lock of this run? Asked without taking it. */
SH_MUST_CHECK sh_status sh_run_lock_look(const char *run, bool *held);

/** Append one line to a log of the run (metrics.jsonl, ledger.csv), which stays open. It reaches
 *  the operating system at once, so that others see it, and the disk with sh_run_log_sync. */
typedef struct sh_run_log sh_run_log;

/** Open RUN/name for appending, cut back to `keep_bytes` (rewinding it with a checkpoint). It is a
 *  new file from here on: what another process appends to the one before is not seen. */
SH_MUST_CHECK sh_status sh_run_log_open(const char *run, const char *name, int64_t keep_bytes,
                                        sh_run_log **out);

/** Append a line. Where the disk refuses it, it waits in memory, for sh_run_log_sync to report. */
SH_MUST_CHECK sh_status sh_run_log_line(sh_run_log *log, const char *line);

/** Bytes written so far, all of them handed to the operating system and synced. After a failure
 *  nothing is lost: the next sync tries again. */
SH_MUST_CHECK sh_status sh_run_log_sync(sh_run_log *log, int64_t *n_bytes);
void sh_run_log_close(sh_run_log **log);

/** Write a JSON document as a whole file, keys in the order they were set. */
SH_MUST_CHECK sh_status sh_run_put_json(const char *run, const char *name, const json_t *document);

/** Read a JSON file of the run. The caller owns *out (json_decref). */
SH_MUST_CHECK sh_status sh_run_get_json(const char *run, const char *name, json_t **out);

#endif
