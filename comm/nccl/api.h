// SPDX-License-Identifier: Apache-2.0
/** NCCL as it is installed, or for tests the calls that are used, on the host (host/). */
#ifndef SH_COMM_NCCL_API_H
#define SH_COMM_NCCL_API_H

#if SHOAL_NCCL_ON_HOST
#include "comm/nccl/host/calls.h"
#else
#include <nccl.h>
#endif

#endif
