// SPDX-License-Identifier: Apache-2.0
/**
 * A network in inference mode over a parameter store: fixed blocks of images, running statistics,
 * no dropout. A crop's embedding has the same bytes whatever block it stands in. It may be run in
 * two parts with the same bytes: images to features, which can be kept, and features to embeddings.
 */
#ifndef SH_TRAINER_INFER_H
#define SH_TRAINER_INFER_H

#include "dataio/loader.h"
#include "models/program.h"
#include "models/zoo/zoo.h"
#include "trainer/config.h"

enum {
    SH_INFER_BLOCK = 16, /* images per run of the program */
    SH_INFER_MAX_VIEWS = 4,
};

typedef struct sh_infer sh_infer;

typedef enum sh_infer_part {
    SH_INFER_EMBEDDING, /* images to embeddings */
    SH_INFER_FEATURES,  /* images to features: sh_net_features */
    SH_INFER_HEAD,      /* features to embeddings */
} sh_infer_part;

typedef struct sh_infer_config {
    const sh_net *net;
    sh_dtype dtype;
    sh_head head;
    int views; /* 1; 2: the mean of the image's and its mirror image's embedding; 4: and of both
                  upside down. Scaled to length 1 again where the head does so. */
    sh_loader_config loader; /* size, fit, normalisation, threads; augment must be zero */
    sh_infer_part part;
    bool graphs;   /* blocks are run by a recording of the first where the backend can */
    bool unfolded; /* as in sh_program_config: what a frozen part of a training program gives */
} sh_infer_config;

/** As a run's configuration says: images to embeddings, with `threads` that load. */
SH_MUST_CHECK sh_status sh_infer_configure(const sh_config *config, int threads,
                                           sh_infer_config *out);

/** How view 0 to SH_INFER_MAX_VIEWS - 1 differs from the crop: by flips that always happen. */
sh_augment sh_infer_view(int view);

/** Build the inference program over `store` (allocated already, with the same slots, or empty: then
 *  it is allocated here). Keeps pointers to store and net. The caller owns *out. */
SH_MUST_CHECK sh_status sh_infer_create(const sh_infer_config *config, sh_store *store,
                                        sh_infer **out);
void sh_infer_destroy(sh_infer **infer);

/** The store's weights are folded and packed by the first run, and by the first one after this: to
 * be called wherever they have changed, or runs give embeddings of neither. */
void sh_infer_refresh(sh_infer *infer);

int sh_infer_dim(const sh_infer *infer); /* of what comes out: embeddings or features */

/** Images that went through the network so far. */
int64_t sh_infer_n_images(const sh_infer *infer);

/** Embed crops[n] (dataset indices) into out [n, dim]. `progress`: words for a progress line, or
 * NULL. */
SH_MUST_CHECK sh_status sh_infer_run(sh_infer *infer, const sh_dataset *dataset,
                                     const int64_t *crops, int64_t n, const char *progress,
                                     float *out);

/** One view of crops[n] (dataset indices) through the network, in order; `sink` gets the rows of
 *  m crops from position `first` on, [m, dim], as they are done, and its failure ends the run.
 *  augment: how the view differs from the crop; its draws are keyed by view and crop. config.views
 *  is the caller's affair. */
typedef sh_status (*sh_infer_sink)(void *context, int64_t first, int64_t m, const float *rows);
SH_MUST_CHECK sh_status sh_infer_run_view(sh_infer *infer, const sh_dataset *dataset,
                                          const sh_augment *augment, int view, const int64_t *crops,
                                          int64_t n, sh_infer_sink sink, void *context);

/** Embed n crops, of which `row` gives the features of each view, into out [n, dim].
 *  SH_INFER_HEAD. */
typedef const void *(*sh_infer_row)(const void *context, int64_t i, int view);
SH_MUST_CHECK sh_status sh_infer_run_rows(sh_infer *infer, int64_t n, sh_infer_row row,
                                          const void *context, float *out);

/** Embed one decoded image into out [dim]. */
SH_MUST_CHECK sh_status sh_infer_run_image(sh_infer *infer, const sh_image *image, float *out);

#endif
