// SPDX-License-Identifier: Apache-2.0
/**
 * The watchdog: names the rank that is gone or stuck, and ends the job so that it can start again.
 *
 * A thread of its own on every rank. Two judges - rank 0, and the first rank on another host, or
 * rank 1 - exchange a beat with every rank twice a second, over connections beside MPI's that only
 * who has the run's secret can open. The first judge that can speaks:
 *
 *   gone     its process ended without a goodbye: at once
 *   lost     no beat for lost_seconds: stopped, or its host or link is down
 *   stuck    beats arrive, but its position (base/position.h) has not moved for longer than the
 *            budget of its activity. Who waits in a collective is not to blame while anyone moves
 *   cut off  a judge that hears none of several other hosts, or a rank that hears no judge: itself
 *
 * The verdict and the position of every rank go to the log of whoever judged; then every rank's
 * process ends with exit_code. Time in which a process itself stood still (stopped and continued, a
 * suspended machine) counts against nobody. A group of one watches its own position only.
 *
 * Two hosts with one rank each cannot tell a dead link from a dead peer; the verdict says so.
 */
#ifndef SH_COMM_WATCHDOG_H
#define SH_COMM_WATCHDOG_H

#include "comm/comm.h"

SH_C_BEGIN

typedef struct sh_watchdog_config {
    double lost_seconds;       /* above 2; beats come every half second */
    double compute_seconds;    /* budgets; 0: any time */
    double collective_seconds; /* while no rank gets on at all */
    double files_seconds;
    int exit_code; /* 1 .. 255 */
} sh_watchdog_config;

/** Watch over this group until it is destroyed or aborts; where it is watched already, nothing.
 *  Collective; the same configuration everywhere. Where ranks cannot reach each other beside MPI, a
 *  warning of those that cannot says so and nobody is watched: that is SH_OK. */
SH_MUST_CHECK sh_status sh_watchdog_start(sh_comm *comm, const sh_watchdog_config *config);

/** MPI failed on this rank: mostly the end of a peer, which the watchdog names with all that it
 *  knows. Gives it the time; returns where it has nothing to say, at once where there is none. */
void sh_watchdog_await_verdict(const sh_comm *comm);

SH_C_END

#endif
