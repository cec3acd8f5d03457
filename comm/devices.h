// SPDX-License-Identifier: Apache-2.0
/** Inside of comm: how buckets travel between the memories of devices, where the build can. */
#ifndef SH_COMM_DEVICES_H
#define SH_COMM_DEVICES_H

#include "comm/reducer.h"

SH_C_BEGIN

typedef struct sh_device_transport {
    /** Look for it, once; its name and version into text[size]. SH_ERR_NOT_FOUND: not here. */
    sh_status (*open)(char *text, size_t size);

    /** The same as a finding; see sh_comm_examine. */
    void (*examine)(sh_finding *out);

    /** Connect the devices of all ranks, each of which has opened it. Collective; *group is for
     * leave and the exchanges. */
    sh_status (*join)(sh_comm *comm, const sh_device *device, const sh_device_group_config *config,
                      void **group);

    void (*leave)(void **group); /* *group NULL is fine */

    const sh_exchange *exchanges[2]; /* by sh_reduce_mode; all of them in_order */
} sh_device_transport;

extern const sh_device_transport sh_nccl_transport; /* SHOAL_WITH_NCCL */

/** Of the connected devices. */
const sh_exchange *sh_devices_exchange(sh_reduce_mode mode);

SH_C_END

#endif
