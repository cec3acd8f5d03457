// SPDX-License-Identifier: Apache-2.0
/** Making shared backbones: what `shoal import` and `shoal export` have in common. */
#ifndef SH_TRAINER_BACKBONE_H
#define SH_TRAINER_BACKBONE_H

#include <jansson.h>

#include "models/weights/weights.h"
#include "models/zoo/zoo.h"

/** Write the tensors of a set that belong to `store`, in the store's order, as safetensors;
 *  *n_written counts them.
 *
 *  without_head  leave out what stands behind the network of a run: head.*, neck.*, pool.* and
 *                loss.*, so that the rest has public names only */
SH_MUST_CHECK sh_status sh_backbone_write(const char *path, const sh_weights *weights,
                                          const sh_store *store, bool without_head,
                                          const char *const (*metadata)[2], int n_metadata,
                                          int *n_written);

/** Card entries of a network: name, title, parameters, preprocessing, taps. The caller owns *out.
 */
SH_MUST_CHECK sh_status sh_backbone_describe(const sh_net *net, int height, int width,
                                             json_t **out);

#endif
