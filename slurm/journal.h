// SPDX-License-Identifier: Apache-2.0
/**
 * RUN/jobs.jsonl: what batch jobs did with a run, a line per event, appended only.
 *
 *   {"event":"submit","time":T,"job":"12","script":"/.../job.sbatch"}
 *   {"event":"start", "time":T,"job":"12","step":40,"nodes":"n[1-4]","log":"/.../slurm-12.log"}
 *   {"event":"end",   "time":T,"job":"12","code":75,"again":true,"why":"stopped on request, ..."}
 *
 * time is in seconds since 1970; step is that of the newest checkpoint, -1 where there is none. A
 * start without an end was cut short: the node failed, or the job was killed. The journal only
 * tells; nothing that is computed depends on it.
 */
#ifndef SH_SLURM_JOURNAL_H
#define SH_SLURM_JOURNAL_H

#include <jansson.h>
#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

/** Append an event, taking over the caller's reference to it (NULL is SH_ERR_NO_MEMORY); the run
 *  folder is made where it is missing. `time` is added. */
SH_MUST_CHECK sh_status sh_journal_append(const char *run, json_t *event);

/** All events as an array, oldest first; empty where there is no journal. Lines that are no events,
 *  as a full disk leaves them, are passed over. The caller owns *out (json_decref). */
SH_MUST_CHECK sh_status sh_journal_read(const char *run, json_t **out);

/** The newest event of this kind, or NULL; borrowed from events. */
const json_t *sh_journal_last(const json_t *events, const char *kind);

/** How often the run was started from the checkpoint of this step, since it last was submitted or
 *  started from another one. */
int sh_journal_starts_at(const json_t *events, int64_t step);

SH_C_END

#endif
