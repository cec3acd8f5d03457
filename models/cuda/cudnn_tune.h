// SPDX-License-Identifier: Apache-2.0
/** Which engine of cuDNN does a convolution: chosen before, measured, or guessed. */
#ifndef SH_MODELS_CUDA_CUDNN_TUNE_H
#define SH_MODELS_CUDA_CUDNN_TUNE_H

#include "models/cuda/cudnn_conv.h"

SH_C_BEGIN

/** The plan for conv, by the choice of models/cuda/choices.h, which gets one where it has none;
 * NULL: no engine can do it. conv->dw becomes what the plan writes. The caller owns *plan.
 *
 *  Measured are cuDNN's best guesses, each alone, on made-up operands; the fastest whose result has
 *  the same bytes twice is taken. */
SH_MUST_CHECK sh_status sh_cudnn_choose(sh_cudnn_conv *conv, sh_cudnn_plan **plan);

/** What the fastest of cuDNN's best guesses takes, which is not remembered: for measuring a device.
 *  0: no engine can do it. */
SH_MUST_CHECK sh_status sh_cudnn_fastest(const sh_cudnn_conv *conv, double *seconds);

SH_C_END

#endif
