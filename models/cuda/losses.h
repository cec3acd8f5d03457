// SPDX-License-Identifier: Apache-2.0
/** Families of losses over embeddings on a device: what their files give to the table in losses.c.
 */
#ifndef SH_MODELS_CUDA_LOSSES_H
#define SH_MODELS_CUDA_LOSSES_H

#include "models/loss/kernels.h"

SH_C_BEGIN

/** One mined triplet per slot: mine.cu, triplets.cu. */
extern const sh_loss_kernels sh_cuda_triplets;

/** Multi-similarity, NT-Xent, contrastive over all pairs: all_pairs.cu. */
extern const sh_loss_kernels sh_cuda_all_pairs;

/** Every triplet that fits a rule: dense.cu. */
extern const sh_loss_kernels sh_cuda_dense;

/** Contrastive pairs of neighbouring rows: siamese.cu. */
extern const sh_loss_kernels sh_cuda_siamese;

SH_C_END

#endif
