// SPDX-License-Identifier: Apache-2.0
/**
 * NCCL's calls on the host, over MPI between real ranks, for tests; what tests can make of it; and
 * a device whose queues run as late as they may.
 *
 * It refuses what NCCL would suffer from silently: new work while it is still taking over the last
 * (ncclInvalidUsage), blocking groups, other data than floats.
 */
#ifndef SH_COMM_NCCL_HOST_HOST_H
#define SH_COMM_NCCL_HOST_HOST_H

#include "base/device.h"

SH_C_BEGIN

/** What goes wrong, on the rank that says so. */
typedef struct sh_nccl_faults {
    bool is_missing; /* the library */
    int version;     /* that it says it has; 0: 2.99.0 */
    bool never_connects;
    int error_after; /* groups of work; then the asynchronous error ncclRemoteError. 0: never */
    int slowness;    /* looks for which a piece of work, once given, is still being taken over */
} sh_nccl_faults;

void sh_nccl_set_faults(const sh_nccl_faults *faults);

/** Work in a queue: true when it is complete, false to be asked again. */
typedef bool (*sh_lazy_work)(void *context);

/** A stream of sh_device_lazy, as ncclSend and others are given it; `context` is freed. */
void sh_lazy_push(void *stream, sh_lazy_work work, void *context);

/** In host memory, but nothing runs before it must: the queue of exchanges gets on when a mark is
 *  asked for, that of computing only as far as the other one follows it, or somebody waits for it.
 *  Whoever forgot to wait reads what was there before. */
extern const sh_device sh_device_lazy;

/** Wait for all that computes. */
void sh_lazy_settle(void);

SH_C_END

#endif
