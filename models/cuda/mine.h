// SPDX-License-Identifier: Apache-2.0
/** What mine.cu chooses with, for triplets.cu, which reserves it. */
#ifndef SH_MODELS_CUDA_MINE_H
#define SH_MODELS_CUDA_MINE_H

#include "models/cuda/tiles.h"

/** lists: one for each positive that an anchor may have. */
struct choose_scratch {
    tile_scratch tiles;
    uint64_t *best; /* [SH_MINE_PIECES, lists + 1, rows] keys; the last list: the farthest */
    int32_t *found; /* [lists, rows] Algorithm 1: the column drawn */
};

choose_scratch sh_cuda_choose_scratch(carver *c, const sh_loss_config *config, int64_t n,
                                      int64_t dim, int64_t lists);

sh_status sh_cuda_choose(const sh_device_batch *batch, int64_t row_begin, int64_t row_end,
                         void *choices);

#endif
