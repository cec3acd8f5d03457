// SPDX-License-Identifier: Apache-2.0
/** Inside of comm/nccl: the devices of all ranks, connected by NCCL. */
#ifndef SH_COMM_NCCL_GROUP_H
#define SH_COMM_NCCL_GROUP_H

#include "comm/devices.h"
#include "comm/nccl/library.h"

SH_C_BEGIN

typedef struct sh_nccl {
    sh_comm *comm;
    const sh_device *device;
    ncclComm_t group; /* NULL after a failure */
    double patience_s;
    const sh_bucket *issuing; /* NCCL has not yet taken over what it was asked for this bucket */
} sh_nccl;

/** Has NCCL taken over all that it was asked? Never blocks. An error that it has met meanwhile, on
 *  this rank or another, ends the group, as sh_nccl_fail does. `what` is done, for that. */
SH_MUST_CHECK sh_status sh_nccl_look(sh_nccl *nccl, const char *what, bool *ready);

/** SH_OK where a call was accepted (ncclSuccess, ncclInProgress), or the end of the group. */
SH_MUST_CHECK sh_status sh_nccl_check(sh_nccl *nccl, const char *what, ncclResult_t result);

/** End the group here, so that nothing waits on the device any more: SH_ERR_COMM, with this rank,
 *  its host, `what` was done, and why it failed. */
sh_status sh_nccl_fail(sh_nccl *nccl, const char *what, const char *why);

extern const sh_exchange sh_nccl_exact, sh_nccl_fast;

SH_C_END

#endif
