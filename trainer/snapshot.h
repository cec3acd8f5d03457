// SPDX-License-Identifier: Apache-2.0
/** Weights copied out of a store, to be kept, put back or written. */
#ifndef SH_TRAINER_SNAPSHOT_H
#define SH_TRAINER_SNAPSHOT_H

#include "models/optim.h"
#include "models/store.h"

/** Weights in host memory, laid out as the store's arenas. */
typedef struct sh_snapshot {
    float *params; /* [n_params] */
    float *states; /* [n_states] */
} sh_snapshot;

SH_MUST_CHECK sh_status sh_snapshot_create(const sh_store *store, sh_snapshot *out);
void sh_snapshot_clear(sh_snapshot *snapshot);

/** Copy the weights that are being trained. */
SH_MUST_CHECK sh_status sh_snapshot_take(sh_snapshot *snapshot, sh_store *store);

/** Copy the weights that count as the run's result: the moving average where there is one. */
SH_MUST_CHECK sh_status sh_snapshot_take_result(sh_snapshot *snapshot, sh_store *store,
                                                sh_optim *optim);

/** Put a snapshot into the store's arenas (and save what was there into *saved, unless NULL). */
SH_MUST_CHECK sh_status sh_snapshot_swap_in(const sh_snapshot *snapshot, sh_store *store,
                                            sh_snapshot *saved);

/** Write a snapshot as a safetensors file, without the tensors whose names begin with `without`
 *  (NULL: all of them). A pure function of its arguments. */
SH_MUST_CHECK sh_status sh_snapshot_write(const sh_snapshot *snapshot, const sh_store *store,
                                          const char *without, const char *path,
                                          const char *const (*metadata)[2], int n_metadata,
                                          uint32_t *crc32c, uint64_t *n_bytes);

#endif
