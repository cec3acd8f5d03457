// SPDX-License-Identifier: Apache-2.0
/**
 * Everything that a training run holds while it lives: ranks, configuration, data, step, and what
 * is on its way in (loader) and out (checkpoints, logs).
 */
#ifndef SH_TRAINER_SESSION_H
#define SH_TRAINER_SESSION_H

#include "comm/comm.h"
#include "dataio/staging.h"
#include "trainer/batches.h"
#include "trainer/checkpoint.h"
#include "trainer/infer.h"
#include "trainer/run.h"
#include "trainer/shallow.h"
#include "trainer/skips.h"
#include "trainer/step.h"
#include "trainer/supply.h"

typedef struct sh_session {
    sh_comm *comm; /* not owned */
    sh_config config;
    char run[SH_RUN_PATH];
    bool resumed;

    sh_staging *staging; /* copies of its packs on this node; NULL: none asked for */
    sh_dataset *dataset;
    sh_split split;
    sh_sampler *sampler;
    sh_step *step;
    int stage;                   /* which one the step program is built for */
    int64_t stage_begin;         /* its first step */
    char freeze[SH_FREEZE_TEXT]; /* what it freezes */
    sh_shallow shallow;          /* its features, where it is shallow */
    sh_batches *batches;         /* what its steps read */
    sh_supply supply;            /* of their images */
    sh_infer *infer;             /* validation: an inference program over the step's store */
    sh_progress progress;
    int64_t first_step; /* where this start continued */
    sh_skips skips;     /* steps that are left out */
    bool go_back;       /* sh_train asks for the session to be opened again */
    sh_snapshot best;
    char *kernels; /* that were chosen by measuring; NULL: none are (trainer/kernels.h) */

    /* rank 0 only */
    sh_run_lock *lock;
    sh_checkpointer *checkpointer;
    sh_run_log *metrics, *ledger;
} sh_session;

/** Start or continue the run in folder `run`: agrees with all ranks on version, configuration, data
 *  and fingerprint before anything is written. Collective. On failure everything is released. */
SH_MUST_CHECK sh_status sh_session_open(sh_comm *comm, const char *run, const sh_config *wanted,
                                        sh_session *out);
void sh_session_close(sh_session *session);

/** Before step progress.step: where it belongs to another stage than the step program was built
 *  for, build that one; where it is the stage's first, start its optimizer. See to it that the
 *  stage's batches are under way: images, or features, which a shallow stage computes now (`stop`
 *  and SH_ERR_STOPPED as in sh_features_open). Collective. */
SH_MUST_CHECK sh_status sh_session_enter_stage(sh_session *session, bool (*stop)(void));

#endif
