// SPDX-License-Identifier: Apache-2.0
/** What a run does about a step whose numbers went bad: on_bad_step (docs/faults.md). */
#ifndef SH_TRAINER_BAD_STEP_H
#define SH_TRAINER_BAD_STEP_H

#include "trainer/session.h"

/**
 * Step progress.step failed with stats->bad; sh_error_message says why. Collective.
 *
 * slots  [batch] its plan
 * Returns SH_OK where the step is to be left out, from now on and in every replay;
 * session->go_back where, besides, the session must be opened again at the newest checkpoint.
 * SH_ERR_MISMATCH where the run ends: on_bad_step=stop, or too many bad steps. */
SH_MUST_CHECK sh_status sh_bad_step(sh_session *session, const sh_step_stats *stats,
                                    const sh_slot_plan *slots);

/** Steps in a row in which the miner found nothing. */
typedef struct sh_empty_steps {
    int64_t first, n;
} sh_empty_steps;

/** Count step `step`; warns, once each time, when nothing was found for 100 steps. */
void sh_empty_steps_count(sh_empty_steps *empty, int64_t step, const sh_step_stats *stats);

#endif
