// SPDX-License-Identifier: Apache-2.0
/**
 * The steps that a run leaves out because they went bad: RUN/skipped.csv, a line "step,reason"
 * each.
 *
 * The list is not rewound with a checkpoint: a replay of the steps since leaves out what was left
 * out before, so that the run ends with the same bytes however often it was interrupted. Every rank
 * holds it; rank 0 writes it.
 */
#ifndef SH_TRAINER_SKIPS_H
#define SH_TRAINER_SKIPS_H

#include "comm/comm.h"
#include "trainer/run.h"

typedef struct sh_skips {
    int64_t *steps; /* [n], in the order in which they went bad */
    int n;
} sh_skips;

/** The list of a run, empty where it has none. Collective. The caller owns *out. */
SH_MUST_CHECK sh_status sh_skips_load(sh_comm *comm, const char *run, sh_skips *out);
void sh_skips_clear(sh_skips *skips);

/** Leave out `step` from now on, for `reason`; on disk when this returns. Collective; `lock` is
 *  rank 0's, NULL elsewhere. */
SH_MUST_CHECK sh_status sh_skips_add(sh_comm *comm, const char *run, const sh_run_lock *lock,
                                     int64_t step, const char *reason, sh_skips *skips);

bool sh_skips_has(const sh_skips *skips, int64_t step);

/** How many of the steps from `first` on are left out. */
int sh_skips_since(const sh_skips *skips, int64_t first);

#endif
