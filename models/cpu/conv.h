// SPDX-License-Identifier: Apache-2.0
/* One view of the four convolution ops, for the kernels that do them all: see models/ops.h. Linear
 * layers have their operands at the same places and are 1x1 convolutions without attributes. */
#ifndef SH_MODELS_CPU_CONV_H
#define SH_MODELS_CPU_CONV_H

#include "models/cpu/kernels.h"

/** What a node asks for. */
typedef struct sh_cpu_conv {
    const sh_tensor_desc *x, *w, *y;
    const sh_op_attrs *attrs;
    bool has_norm; /* x is normalised on load */
    bool has_grad; /* dy is a g + b y + c */
    bool has_sums; /* dx is masked by the norm's activation, and summed */
    bool has_residual;
    bool wants_stats, wants_dx, wants_dw, wants_dbias;
} sh_cpu_conv;

/** Where its operands are. Absent ones are NULL. */
typedef struct sh_cpu_conv_data {
    const void *x, *y, *dy, *residual;
    const float *w, *bias;
    const float *x_mean, *x_var, *x_gamma, *x_beta;
    const float *y_mean, *y_var, *y_gamma, *y_dgamma, *y_dbeta;
    void *out_y, *dx;
    float *mean, *var, *dw, *dbias, *dgamma, *dbeta;
} sh_cpu_conv_data;

sh_cpu_conv sh_cpu_conv_of(const sh_node_desc *d);
sh_cpu_conv_data sh_cpu_conv_locate(const sh_node_desc *d, const sh_kernel_args *args);

/** Norms of a run, in scratch of sh_cpu_conv_norm_bytes. */
typedef struct sh_cpu_conv_norms {
    sh_cpu_norm x, y;
} sh_cpu_conv_norms;

size_t sh_cpu_conv_norm_bytes(const sh_cpu_conv *c);
sh_cpu_conv_norms sh_cpu_conv_norms_make(const sh_cpu_conv *c, const sh_cpu_conv_data *data,
                                         void *scratch);

/** What ends the convolution's result; bias and residual at its first element, or NULL. */
sh_cpu_finish sh_cpu_conv_finish(const sh_cpu_conv *c, const float *bias, const void *residual);

/** The bias, in `padded` of 16 floats a block of y, zeros behind its end; NULL where there is none.
 */
const float *sh_cpu_conv_pad_bias(const sh_cpu_conv *c, const float *bias, float *padded);

/** dbias: the sums of dy, image by image. */
void sh_cpu_conv_sum_dbias(const sh_cpu_conv *c, const void *dy, float *dbias);

/** Reasons that hold for every kernel on blocked activations, or NULL. */
const char *sh_cpu_conv_why_not(const sh_cpu_conv *c);

#endif
