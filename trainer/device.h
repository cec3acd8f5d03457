// SPDX-License-Identifier: Apache-2.0
/** Which backend `device=` means on this machine. */
#ifndef SH_TRAINER_DEVICE_H
#define SH_TRAINER_DEVICE_H

#include "comm/comm.h"
#include "models/backend.h"
#include "trainer/config.h"

/** The backend of config->device. SH_ERR_UNSUPPORTED, with what is missing and the remedy, where a
 *  device that was named is not in this build or cannot be used. auto is a GPU that can be used,
 * and else the CPU, with a line that says why not the GPU; what it was first is kept while the
 * process lives. */
SH_MUST_CHECK sh_status sh_device_choose(const sh_config *config, const sh_backend **out);

/** The same for all ranks: where one cannot use the device that was named, all fail; where one has
 *  no GPU, auto is the CPU for all. The log says what was taken, with the libraries that serve it.
 *  Collective. */
SH_MUST_CHECK sh_status sh_device_choose_all(const sh_config *config, sh_comm *comm,
                                             const sh_backend **out);

#endif
