// SPDX-License-Identifier: Apache-2.0
/** Sizes of a convolution y[N,OH,OW,O] = x[N,H,W,C] * w[O,C/groups,KH,KW]; x may have padding
 *  channels. */
#ifndef SH_MODELS_CUDA_CONV_H
#define SH_MODELS_CUDA_CONV_H

#include "models/cuda/device.h"

struct conv_shape {
    int64_t N, C, H, W, O, OH, OW, KH, KW;
    int64_t in_group, out_group; /* channels per group */
    int64_t x_pitch;             /* stored channels of x */
    int stride[2], dilation[2], pad[2];
};

static inline conv_shape conv_shape_of(const sh_tensor_desc *x, const sh_tensor_desc *w,
                                       const sh_tensor_desc *y, const sh_op_attrs *a)
{
    return conv_shape{x->dims[0],
                      x->dims[1],
                      x->dims[2],
                      x->dims[3],
                      y->dims[1],
                      y->dims[2],
                      y->dims[3],
                      w->dims[2],
                      w->dims[3],
                      w->dims[1],
                      y->dims[1] / a->groups,
                      sh_tensor_stored_channels(x),
                      {a->stride[0], a->stride[1]},
                      {a->dilation[0], a->dilation[1]},
                      {a->pad[0], a->pad[1]}};
}

#endif
