// SPDX-License-Identifier: Apache-2.0
/* Batch norm folded into a convolution's weight and bias: one pass over the weight. */
#include <math.h>

#include "models/cpu/kernels.h"

static const char *why_not(const sh_node_desc *d)
{
    return d->in[0]->dtype == SH_F32 && d->in[0]->layout == SH_NCHW ? NULL : "not a plain weight";
}

static sh_status run(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const int64_t *dims = d->in[0]->dims;
    int64_t n = dims[1] * dims[2] * dims[3];
    const float *w = args->in[0], *mean = args->in[1], *var = args->in[2], *gamma = args->in[3];
    const float *beta = args->in[4], *bias = sh_cpu_arg(d, args, 5);
    float *w_out = args->out[0], *bias_out = args->out[1];

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t o = 0; o < dims[0]; o++) {
        double factor = gamma[o] / sqrt((double)var[o] + d->attrs->eps);
        float scale = (float)factor;
        for (int64_t i = o * n; i < (o + 1) * n; i++) w_out[i] = w[i] * scale;
        bias_out[o] = (float)(((bias ? bias[o] : 0) - (double)mean[o]) * factor + beta[o]);
    }
    return SH_OK;
}

const sh_kernel sh_cpu_fold_bn = {
    .name = "cpu:fold_bn", .op = SH_OP_FOLD_BN, .why_not = why_not, .run = run};
