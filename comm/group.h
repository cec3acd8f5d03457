// SPDX-License-Identifier: Apache-2.0
/** Inside of comm: the process group, and how MPI calls become statuses and passive waits. */
#ifndef SH_COMM_GROUP_H
#define SH_COMM_GROUP_H

#include <mpi.h>

#include "comm/comm.h"

SH_C_BEGIN

typedef struct sh_watchdog sh_watchdog;

struct sh_comm {
    bool over_mpi; /* false: a process without a launcher; MPI is never called */
    bool owns_mpi; /* MPI was started here, so it is ended here */
    int rank, size;
    int local_rank, local_size;
    int cores_per_rank;
    MPI_Comm group;           /* over_mpi only; a duplicate of the world, errors returned */
    size_t max_message_bytes; /* longer transfers go in pieces: MPI counts are int */
    char host[256];
    int64_t n_collectives;   /* entered so far: the same on all ranks that are at the same place */
    sh_watchdog *watchdog;   /* NULL: none */
    const sh_device *device; /* connected; NULL: none */
    void *device_group;      /* the transport's (comm/devices.h) */
};

/** Say goodbye to the other watchdogs and end the thread. *watchdog NULL is fine. */
void sh_watchdog_stop(sh_watchdog **watchdog);

/** Take leave of the other ranks' devices. All of them do, unless they failed. */
void sh_devices_leave(sh_comm *comm);

/** SH_OK, or SH_ERR_COMM with `what` and MPI's own text. */
sh_status sh_mpi_status(int code, const char *what);
#define SH_MPI(call) SH_TRY(sh_mpi_status((call), #call))

/** Where a wait stands: it begins by giving way to other threads, then sleeps longer and longer. */
typedef struct sh_backoff {
    int n_pauses;
} sh_backoff;

void sh_backoff_pause(sh_backoff *backoff);

/** Wait for one request without keeping a core busy; `what` is waited for, as the watchdog will
 * call it. */
SH_MUST_CHECK sh_status sh_mpi_wait(sh_comm *comm, const char *what, MPI_Request *request);

/** Join what the launcher set up, or stay alone; the part of sh_comm_create that knows MPI. */
SH_MUST_CHECK sh_status sh_mpi_join(int expect_ranks, sh_comm *comm);
void sh_mpi_leave(sh_comm *comm);

SH_C_END

#endif
