// SPDX-License-Identifier: Apache-2.0
/**
 * A network in inference mode over a parameter store: fixed blocks of images, running statistics,
 * no dropout. A crop's embedding has the same bytes whatever block it stands in.
 */
#ifndef SH_TRAINER_INFER_H
#define SH_TRAINER_INFER_H

#include "dataio/loader.h"
#include "models/program.h"
#include "models/zoo/zoo.h"

enum { SH_INFER_BLOCK = 16 }; /* images per run of the program */

typedef struct sh_infer sh_infer;

typedef struct sh_infer_config {
    const sh_net *net;
    sh_dtype dtype;
    sh_head head;
    int views; /* 1; 2: the mean of the image's and its mirror image's embedding; 4: and of both
                  upside down. Scaled to length 1 again where the head does so. */
    sh_loader_config loader; /* size, fit, normalisation, threads; augment must be zero */
} sh_infer_config;

/** Build the inference program over `store` (allocated already, with the same slots, or empty: then
 *  it is allocated here). Keeps pointers to store and net. The caller owns *out. */
SH_MUST_CHECK sh_status sh_infer_create(const sh_infer_config *config, sh_store *store,
                                        sh_infer **out);
void sh_infer_destroy(sh_infer **infer);

int sh_infer_dim(const sh_infer *infer);
const sh_loader_config *sh_infer_loader(const sh_infer *infer);

/** Embed crops[n] (dataset indices) into out [n, dim]. `progress`: words for a progress line, or
 * NULL. */
SH_MUST_CHECK sh_status sh_infer_run(sh_infer *infer, const sh_dataset *dataset,
                                     const int64_t *crops, int64_t n, const char *progress,
                                     float *out);

/** Embed one decoded image into out [dim]. */
SH_MUST_CHECK sh_status sh_infer_run_image(sh_infer *infer, const sh_image *image, float *out);

#endif
