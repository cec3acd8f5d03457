// SPDX-License-Identifier: Apache-2.0
/* Which kernels a loss over embeddings has. */
#include "models/cuda/losses.h"
#include "models/cuda/kernels.h"

static const sh_loss_kernels *const kinds[SH_LOSS_KINDS] = {
    [SH_LOSS_SEMI_HARD] = &sh_cuda_triplets,  [SH_LOSS_BATCH_HARD] = &sh_cuda_triplets,
    [SH_LOSS_ALGORITHM1] = &sh_cuda_triplets, [SH_LOSS_BATCH_ALL] = &sh_cuda_dense,
    [SH_LOSS_CONTRASTIVE] = &sh_cuda_siamese, [SH_LOSS_PML_SEMI_HARD] = &sh_cuda_dense,
    [SH_LOSS_PML_HARD] = &sh_cuda_dense,      [SH_LOSS_MULTI_SIMILARITY] = &sh_cuda_all_pairs,
    [SH_LOSS_NT_XENT] = &sh_cuda_all_pairs,   [SH_LOSS_CONTRASTIVE_ALL] = &sh_cuda_all_pairs,
};

static size_t scratch_bytes(const sh_loss_config *config, int64_t n, int64_t dim, int64_t slots,
                            int64_t max_others)
{
    return kinds[config->kind]->scratch_bytes(config, n, dim, slots, max_others);
}

static sh_status choose(const sh_device_batch *batch, int64_t row_begin, int64_t row_end,
                        void *choices)
{
    return kinds[batch->config->kind]->choose(batch, row_begin, row_end, choices);
}

static sh_status apply(const sh_device_batch *batch, const void *choices, int64_t row_begin,
                       int64_t row_end, sh_loss_stats *stats, float *grad)
{
    return kinds[batch->config->kind]->apply(batch, choices, row_begin, row_end, stats, grad);
}

const sh_loss_kernels sh_cuda_loss = {
    .scratch_bytes = scratch_bytes, .choose = choose, .apply = apply};
