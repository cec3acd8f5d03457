// SPDX-License-Identifier: Apache-2.0
/** Nodes as convolutions of cuDNN. */
#ifndef SH_MODELS_CUDA_CUDNN_CONV_H
#define SH_MODELS_CUDA_CUDNN_CONV_H

#include "models/cuda/cudnn_graph.h"

SH_C_BEGIN

/** Of a CONV, CONV_GRAD_X or CONV_GRAD_W node. NULL: *out is what cuDNN is to do of it; a bias, a
 *  residual, an activation and the gradient of a bias are done around it. Otherwise the reason why
 *  it is nothing for cuDNN, a static string. */
const char *sh_cudnn_conv_of(const sh_node_desc *desc, sh_cudnn_conv *out);

enum { SH_CUDNN_KEY_BYTES = 192 };

/** All that a plan depends on, but for the type of dw:
 *  "forward bf16 x 128,64,44,44 y 128,128,22,22 kernel 3,3 stride 2,2 pad 1,1,1,1 dilation 1,1". */
void sh_cudnn_key(const sh_cudnn_conv *conv, char key[SH_CUDNN_KEY_BYTES]);

SH_C_END

#endif
