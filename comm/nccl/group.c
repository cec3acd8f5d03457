// SPDX-License-Identifier: Apache-2.0
/*
 * The life of an NCCL group: connected by way of MPI, looked after, left or ended.
 *
 * No call of NCCL blocks: the group is made so, and whether it has finished what it was asked is
 * looked up (sh_nccl_look), so that a rank that waits for a peer that is gone can be told.
 */
#include "comm/nccl/group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/position.h"

static const double goodbye_seconds = 10;

sh_status sh_nccl_fail(sh_nccl *n, const char *what, const char *why)
{
    sh_position at;

    sh_position_read(&at);
    if (n->group != NULL) (void)sh_nccl_lib.CommAbort(n->group);
    n->group = NULL;
    return sh_error_set(SH_ERR_COMM, "NCCL, rank %d on %s, %s: %s%s%s", n->comm->rank,
                        n->comm->host, what, why, at.what[0] != '\0' ? "; at " : "", at.what);
}

sh_status sh_nccl_check(sh_nccl *n, const char *what, ncclResult_t result)
{
    char why[1024];

    if (result == ncclSuccess || result == ncclInProgress) return SH_OK;
    const char *detail = n->group != NULL ? sh_nccl_lib.GetLastError(n->group) : NULL;

    snprintf(why, sizeof(why), "%s%s%s", sh_nccl_lib.GetErrorString(result),
             detail != NULL && detail[0] != '\0' ? ": " : "", detail != NULL ? detail : "");
    return sh_nccl_fail(n, what, why);
}

sh_status sh_nccl_look(sh_nccl *n, const char *what, bool *ready)
{
    ncclResult_t state = ncclSuccess, asked;

    if (n->group == NULL)
        return sh_error_set(SH_ERR_COMM, "NCCL was ended by a failure before: %s", what);
    asked = sh_nccl_lib.CommGetAsyncError(n->group, &state);
    if (asked == ncclSuccess) asked = state;
    *ready = asked == ncclSuccess;
    return sh_nccl_check(n, what, asked);
}

/* ---- joining ---- */

static sh_status connect(sh_nccl *n, const ncclUniqueId *id, double deadline_s)
{
    static const char what[] = "connecting the devices";
    sh_status st = SH_OK;
    sh_backoff backoff = {0};
    double start = sh_clock_seconds();
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    bool ready = false;

    config.blocking = 0;
    SH_TRY(sh_nccl_check(
        n, what,
        sh_nccl_lib.CommInitRankConfig(&n->group, n->comm->size, *id, n->comm->rank, &config)));
    for (;;) {
        char why[256];

        SH_TRY(sh_nccl_look(n, what, &ready));
        if (ready) break;
        snprintf(why, sizeof(why),
                 "all %d ranks are there, but they were not connected within %.3g s. "
                 "NCCL_DEBUG=INFO says why, NCCL_SOCKET_IFNAME names the network; transport=mpi "
                 "does without NCCL",
                 n->comm->size, deadline_s);
        if (sh_clock_seconds() - start > deadline_s) SH_TRY(sh_nccl_fail(n, what, why));
        sh_backoff_pause(&backoff);
    }
out:
    return st;
}

static sh_status make_id(sh_nccl *n, ncclUniqueId *id)
{
    return n->comm->rank != 0 ? SH_OK
                              : sh_nccl_check(n, "making its key", sh_nccl_lib.GetUniqueId(id));
}

/* Until it has taken leave, or the time is over. */
static bool finalized(sh_nccl *n)
{
    double start = sh_clock_seconds();
    bool ready = false;

    if (sh_nccl_check(n, "leaving", sh_nccl_lib.CommFinalize(n->group)) != SH_OK) return false;
    while (sh_clock_seconds() - start < goodbye_seconds) {
        if (sh_nccl_look(n, "leaving", &ready) != SH_OK || ready) break;
        sh_clock_sleep(1e-4);
    }
    return ready;
}

static void leave(void **group)
{
    sh_nccl *n = *group;

    if (n == NULL) return;
    if (n->group != NULL && finalized(n))
        (void)sh_nccl_lib.CommDestroy(n->group);
    else if (n->group != NULL)
        (void)sh_nccl_lib.CommAbort(n->group);
    free(n);
    *group = NULL;
}

static sh_status join(sh_comm *comm, const sh_device *device, const sh_device_group_config *config,
                      void **group)
{
    sh_status st = SH_OK, mine = SH_OK;
    ncclUniqueId id = {0};
    double start = sh_clock_seconds();
    sh_finding library;
    sh_nccl *n = calloc(1, sizeof(*n));

    sh_position_enter(SH_AT_WORK, "connecting the devices by NCCL");
    if (n == NULL) {
        mine = sh_error_set(SH_ERR_NO_MEMORY, "NCCL");
    } else {
        *n = (sh_nccl){.comm = comm, .device = device, .patience_s = config->patience_seconds};
        mine = make_id(n, &id);
    }
    SH_TRY(sh_comm_agree_ok(comm, mine));
    SH_TRY(sh_comm_bcast(comm, &id, sizeof(id), 0));
    /* The time that connecting may take counts from when all are there. */
    SH_TRY(sh_comm_barrier(comm));
    SH_TRY(sh_comm_agree_ok(comm, connect(n, &id, config->connect_seconds)));
    sh_nccl_examine(&library);
    sh_log_info("NCCL connects %d devices (%.1f s): %s", comm->size, sh_clock_seconds() - start,
                library.found);
    *group = n;
    n = NULL;
out:
    sh_position_leave();
    if (n != NULL && n->group != NULL)
        (void)sh_nccl_lib.CommAbort(n->group); /* others are not there */
    free(n);
    return st;
}

const sh_device_transport sh_nccl_transport = {
    .open = sh_nccl_open,
    .examine = sh_nccl_examine,
    .join = join,
    .leave = leave,
    .exchanges = {[SH_REDUCE_EXACT] = &sh_nccl_exact, [SH_REDUCE_FAST] = &sh_nccl_fast}};
