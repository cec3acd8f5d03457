// SPDX-License-Identifier: Apache-2.0
/** The training loop of one session: steps, validation, checkpoints, stops. */
#ifndef SH_TRAINER_TRAIN_H
#define SH_TRAINER_TRAIN_H

#include "trainer/session.h"

/**
 * Train until a limit is reached (steps, minutes, patience), then write RUN/model.safetensors.
 * Collective. SH_ERR_STOPPED: a signal (SIGTERM, SIGUSR1, SIGINT) asked to stop; all ranks agreed
 * on one step, and its checkpoint is on disk. A run that is finished already says so and returns
 * SH_OK.
 */
SH_MUST_CHECK sh_status sh_train(sh_session *session);

#endif
