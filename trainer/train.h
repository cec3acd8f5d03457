// SPDX-License-Identifier: Apache-2.0
/** The training loop of one session: steps, validation, checkpoints, stops. */
#ifndef SH_TRAINER_TRAIN_H
#define SH_TRAINER_TRAIN_H

#include "trainer/session.h"

/**
 * From now on SIGTERM, SIGUSR1 and SIGINT ask for a stop instead of ending the process. Before
 * ranks meet: srun and mpirun send SIGTERM to the others when one rank has failed, and these must
 * leave with the error that all agreed on, not as if something had killed the run.
 */
void sh_train_catch_signals(void);

/**
 * Train until a limit is reached (steps, minutes, patience), then write RUN/model.safetensors.
 * Collective. SH_ERR_STOPPED: a signal (SIGTERM, SIGUSR1, SIGINT) asked to stop; all ranks agreed
 * on one step, and its checkpoint is on disk. A run that is finished already says so and returns
 * SH_OK. With session->go_back set, SH_OK means: open the session again, at its newest checkpoint,
 * and go on.
 */
SH_MUST_CHECK sh_status sh_train(sh_session *session);

/**
 * Train SH_BATCHES_AHEAD steps and then n_steps more, whatever the limits say, and tell the seconds
 * that one of these took: for benches. No validation, no checkpoint, no model, one stage.
 * Collective. Batches are on their way on return.
 */
SH_MUST_CHECK sh_status sh_train_steps(sh_session *session, int64_t n_steps, double *seconds);

#endif
