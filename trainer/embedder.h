// SPDX-License-Identifier: Apache-2.0
/**
 * A trained model in use: from crops to embeddings, in inference mode, exactly the same bytes for a
 * crop whatever batch it stands in.
 */
#ifndef SH_TRAINER_EMBEDDER_H
#define SH_TRAINER_EMBEDDER_H

#include "dataio/loader.h"

typedef struct sh_embedder sh_embedder;

/** Load a run folder's result (RUN/model.safetensors with RUN/config.yaml), or with untrained the
 *  same network with its initial weights (init file if the run has one: the floor "the same network
 *  untrained"; SH_ERR_NOT_FOUND where that file has gone). threads 0: all cores granted. The caller
 * owns *out. */
SH_MUST_CHECK sh_status sh_embedder_create(const char *run, bool untrained, int threads,
                                           sh_embedder **out);
void sh_embedder_destroy(sh_embedder **embedder);

int sh_embedder_dim(const sh_embedder *embedder);

/** Embed crops[n] (dataset indices) into out [n, dim] f32. Shows progress when `progress` is given.
 */
SH_MUST_CHECK sh_status sh_embedder_run(sh_embedder *embedder, const sh_dataset *dataset,
                                        const int64_t *crops, int64_t n, const char *progress,
                                        float *out);

/** Embed one decoded image into out [dim]. */
SH_MUST_CHECK sh_status sh_embedder_run_image(sh_embedder *embedder, const sh_image *image,
                                              float *out);

#endif
