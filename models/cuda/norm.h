// SPDX-License-Identifier: Apache-2.0
/** The operands of a batch norm, as nodes have them. */
#ifndef SH_MODELS_CUDA_NORM_H
#define SH_MODELS_CUDA_NORM_H

#include "models/cuda/device.h"
#include "models/cuda/node.h"

/** Inputs first to first + 3: mean, var, gamma, beta. */
static inline batch_norm norm_at(const sh_node_desc *desc, const sh_kernel_args *args, int first)
{
    return batch_norm{input<float>(args, first), input<float>(args, first + 1),
                      input<float>(args, first + 2), input<float>(args, first + 3),
                      desc->attrs->eps};
}

#endif
