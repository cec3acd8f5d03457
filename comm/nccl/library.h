// SPDX-License-Identifier: Apache-2.0
/** NCCL as it is found at run time (base/dynlib.h): its header is needed to build, its library
 * only to connect devices. In tests: the calls on the host. */
#ifndef SH_COMM_NCCL_LIBRARY_H
#define SH_COMM_NCCL_LIBRARY_H

#include "base/dynlib.h"
#include "base/finding.h"
#include "comm/nccl/api.h"

SH_C_BEGIN

/** What is called of it. */
#define SH_NCCL_CALLS(CALL)                                                                        \
    CALL(GetVersion)                                                                               \
    CALL(GetErrorString)                                                                           \
    CALL(GetLastError)                                                                             \
    CALL(GetUniqueId)                                                                              \
    CALL(CommInitRankConfig)                                                                       \
    CALL(CommFinalize)                                                                             \
    CALL(CommDestroy)                                                                              \
    CALL(CommAbort)                                                                                \
    CALL(CommGetAsyncError)                                                                        \
    CALL(GroupStart)                                                                               \
    CALL(GroupEnd)                                                                                 \
    CALL(Send)                                                                                     \
    CALL(Recv)                                                                                     \
    CALL(AllReduce)

#define SH_NCCL_FIELD(name) __typeof__(&nccl##name) name;
typedef struct sh_nccl_calls {
    SH_NCCL_CALLS(SH_NCCL_FIELD)
} sh_nccl_calls;

/** Usable once it was opened. */
extern sh_nccl_calls sh_nccl_lib;

/** Fill sh_nccl_lib, for sh_nccl_open: from the library, or in tests from host/host.c. */
SH_MUST_CHECK sh_status sh_nccl_find(sh_dynlib *out);

/** Look for it, once, and say what it is, "NCCL 2.28.9", into text[size]. Not thread-safe.
 *  SH_ERR_NOT_FOUND: there is none that can be used. */
SH_MUST_CHECK sh_status sh_nccl_open(char *text, size_t size);

/** Version and file, or what is missing and the remedy: the finding "nccl". Not thread-safe. */
void sh_nccl_examine(sh_finding *out);

SH_C_END

#endif
