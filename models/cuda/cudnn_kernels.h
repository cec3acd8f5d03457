// SPDX-License-Identifier: Apache-2.0
/** Kernels of dense convolutions that cuDNN runs, or a plain kernel where cuDNN has no engine. */
#ifndef SH_MODELS_CUDA_CUDNN_KERNELS_H
#define SH_MODELS_CUDA_CUDNN_KERNELS_H

#include "models/backend.h"

SH_C_BEGIN

extern const sh_kernel sh_cudnn_conv_kernel, sh_cudnn_grad_x_kernel, sh_cudnn_grad_w_kernel;

SH_C_END

#endif
