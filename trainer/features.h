// SPDX-License-Identifier: Apache-2.0
/**
 * Features of crops under a frozen network: computed once, all ranks sharing the work, and kept in
 * the run folder, so that neither a later epoch nor a later start computes them again.
 *
 * Rows stand in pieces of at most SH_FEATURES_PIECE rows of one view, each a file of its own,
 * FOLDER/NAME-VVVV-PPPPPP.features (view, piece; from 0), written whole or not at all:
 *
 *   magic    8 bytes   "shoalft1"
 *   key     32 bytes   hash of all that the rows depend on, hexadecimal
 *   view     u32       little-endian, as all numbers here
 *   row_bytes u32
 *   n_rows   u32
 *   crc32c   u32       of the rows
 *   unused   8 bytes   zero
 *   rows    [n_rows]   f32 or bf16 numbers, as the network's dtype is
 *
 * A file with another key, or damaged, is computed again. Rows have the same bytes on any number of
 * ranks, since a crop's features do not depend on what they were computed beside. They are mapped
 * into memory, not read: the ranks of a host share them.
 */
#ifndef SH_TRAINER_FEATURES_H
#define SH_TRAINER_FEATURES_H

#include "comm/comm.h"
#include "trainer/infer.h"
#include "trainer/run.h"

enum { SH_FEATURES_PIECE = 1024 };

typedef struct sh_features sh_features;

typedef struct sh_features_config {
    const char *folder; /* made where it is not there */
    const char *name;   /* "train" */
    sh_hash128 key;
    sh_infer_config infer; /* its part must be SH_INFER_FEATURES, its views 1 */
    sh_store *store;       /* the weights */
    size_t row_bytes;      /* of one crop's features in the network's dtype */
    const sh_dataset *dataset;
    const int64_t *crops; /* [n_crops] dataset indices, each once */
    int64_t n_crops;
    int n_views;
    const sh_augment *augment; /* [n_views] how each view is distorted, drawn once */
    const sh_run_lock *lock;   /* rank 0 */
    bool (*stop)(void);        /* asked between pieces: stop with SH_ERR_STOPPED? */
} sh_features_config;

/** What opening cost. */
typedef struct sh_features_stats {
    int64_t n_rows, n_computed; /* over all ranks; the rest was found */
    int64_t n_images;           /* this rank's share of n_computed */
    double seconds;
} sh_features_stats;

/** Find, compute and map all rows. Nothing of config is kept. The caller owns *out. Collective.
 *  SH_ERR_STOPPED on all ranks where one was asked to stop; whole pieces are kept. */
SH_MUST_CHECK sh_status sh_features_open(const sh_features_config *config, sh_comm *comm,
                                         sh_features **out, sh_features_stats *stats);
void sh_features_close(sh_features **features);

/** One crop's features [row_bytes]; they live until close. The crop must be one of config->crops.
 */
const void *sh_features_row(const sh_features *features, int64_t crop, int view);

#endif
