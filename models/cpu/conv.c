// SPDX-License-Identifier: Apache-2.0
#include "models/cpu/conv.h"

sh_cpu_conv sh_cpu_conv_of(const sh_node_desc *d)
{
    sh_cpu_conv c = {.attrs = d->attrs};

    switch (d->op) {
    case SH_OP_CONV:
    case SH_OP_LINEAR:
        c.x = d->in[SH_CONV_X], c.w = d->in[SH_CONV_W], c.y = d->out[SH_CONV_Y];
        c.has_norm = sh_cpu_in(d, SH_CONV_MEAN) != NULL;
        c.has_residual = sh_cpu_in(d, SH_CONV_RESIDUAL) != NULL;
        c.wants_stats = sh_cpu_out(d, SH_CONV_Y_MEAN) != NULL;
        break;
    case SH_OP_CONV_GRAD_X:
    case SH_OP_LINEAR_GRAD_X:
        c.x = d->out[0], c.w = d->in[1], c.y = d->in[0];
        c.wants_dx = true;
        break;
    case SH_OP_CONV_GRAD_W:
    case SH_OP_LINEAR_GRAD_W:
        c.x = d->in[0], c.w = d->out[0], c.y = d->in[1];
        c.wants_dw = true;
        c.wants_dbias = sh_cpu_out(d, 1) != NULL;
        break;
    default: /* SH_OP_CONV_GRAD */
        c.x = d->in[SH_CONV_GRAD_X_IN] ? d->in[SH_CONV_GRAD_X_IN] : d->out[SH_CONV_GRAD_DX];
        c.w = d->in[SH_CONV_GRAD_W_IN], c.y = d->in[SH_CONV_GRAD_DY];
        c.has_norm = sh_cpu_in(d, SH_CONV_GRAD_MEAN) != NULL;
        c.has_grad = sh_cpu_in(d, SH_CONV_GRAD_Y) != NULL;
        c.has_sums = sh_cpu_out(d, SH_CONV_GRAD_DGAMMA) != NULL;
        c.wants_dw = sh_cpu_out(d, SH_CONV_GRAD_DW) != NULL;
        c.wants_dx = sh_cpu_out(d, SH_CONV_GRAD_DX) != NULL;
        c.wants_dbias = sh_cpu_out(d, SH_CONV_GRAD_DBIAS) != NULL;
        break;
    }
    return c;
}

static sh_cpu_conv_data locate_grad(const sh_node_desc *d, const sh_kernel_args *args)
{
    return (sh_cpu_conv_data){.dy = sh_cpu_arg(d, args, SH_CONV_GRAD_DY),
                              .w = sh_cpu_arg(d, args, SH_CONV_GRAD_W_IN),
                              .x = sh_cpu_arg(d, args, SH_CONV_GRAD_X_IN),
                              .x_mean = sh_cpu_arg(d, args, SH_CONV_GRAD_MEAN),
                              .x_var = sh_cpu_arg(d, args, SH_CONV_GRAD_VAR),
                              .x_gamma = sh_cpu_arg(d, args, SH_CONV_GRAD_GAMMA),
                              .x_beta = sh_cpu_arg(d, args, SH_CONV_GRAD_BETA),
                              .y = sh_cpu_arg(d, args, SH_CONV_GRAD_Y),
                              .y_mean = sh_cpu_arg(d, args, SH_CONV_GRAD_Y_MEAN),
                              .y_var = sh_cpu_arg(d, args, SH_CONV_GRAD_Y_VAR),
                              .y_gamma = sh_cpu_arg(d, args, SH_CONV_GRAD_Y_GAMMA),
                              .y_dgamma = sh_cpu_arg(d, args, SH_CONV_GRAD_Y_DGAMMA),
                              .y_dbeta = sh_cpu_arg(d, args, SH_CONV_GRAD_Y_DBETA),
                              .dw = sh_cpu_result(d, args, SH_CONV_GRAD_DW),
                              .dx = sh_cpu_result(d, args, SH_CONV_GRAD_DX),
                              .dbias = sh_cpu_result(d, args, SH_CONV_GRAD_DBIAS),
                              .dgamma = sh_cpu_result(d, args, SH_CONV_GRAD_DGAMMA),
                              .dbeta = sh_cpu_result(d, args, SH_CONV_GRAD_DBETA)};
}

sh_cpu_conv_data sh_cpu_conv_locate(const sh_node_desc *d, const sh_kernel_args *args)
{
    switch (d->op) {
    case SH_OP_CONV:
    case SH_OP_LINEAR:
        return (sh_cpu_conv_data){.x = args->in[SH_CONV_X],
                                  .w = args->in[SH_CONV_W],
                                  .bias = sh_cpu_arg(d, args, SH_CONV_BIAS),
                                  .residual = sh_cpu_arg(d, args, SH_CONV_RESIDUAL),
                                  .x_mean = sh_cpu_arg(d, args, SH_CONV_MEAN),
                                  .x_var = sh_cpu_arg(d, args, SH_CONV_VAR),
                                  .x_gamma = sh_cpu_arg(d, args, SH_CONV_GAMMA),
                                  .x_beta = sh_cpu_arg(d, args, SH_CONV_BETA),
                                  .out_y = args->out[SH_CONV_Y],
                                  .mean = sh_cpu_result(d, args, SH_CONV_Y_MEAN),
                                  .var = sh_cpu_result(d, args, SH_CONV_Y_VAR)};
    case SH_OP_CONV_GRAD_X:
    case SH_OP_LINEAR_GRAD_X:
        return (sh_cpu_conv_data){.dy = args->in[0], .w = args->in[1], .dx = args->out[0]};
    case SH_OP_CONV_GRAD_W:
    case SH_OP_LINEAR_GRAD_W:
        return (sh_cpu_conv_data){.x = args->in[0],
                                  .dy = args->in[1],
                                  .dw = args->out[0],
                                  .dbias = sh_cpu_result(d, args, 1)};
    default: return locate_grad(d, args);
    }
}

size_t sh_cpu_conv_norm_bytes(const sh_cpu_conv *c)
{
    return sh_cpu_align(sh_cpu_norm_bytes(c->x->dims[1])) +
           sh_cpu_align(sh_cpu_norm_bytes(c->y->dims[1]));
}

sh_cpu_conv_norms sh_cpu_conv_norms_make(const sh_cpu_conv *c, const sh_cpu_conv_data *data,
                                         void *scratch)
{
    sh_cpu_conv_norms n = {.x = {.scale = NULL}};
    int64_t x_channels = c->x->dims[1], y_channels = c->y->dims[1];
    void *second = (char *)scratch + sh_cpu_align(sh_cpu_norm_bytes(x_channels));
    float eps = c->attrs->eps;

    if (c->has_norm)
        n.x = sh_cpu_norm_make(scratch, x_channels, data->x_mean, data->x_var, data->x_gamma,
                               data->x_beta, eps, c->attrs->act);
    if (c->has_grad) {
        /* y's own shift is not needed: its activation was already applied to g. */
        float y_eps = c->attrs->y_eps;
        n.y = sh_cpu_norm_make(second, y_channels, data->y_mean, data->y_var, data->y_gamma,
                               data->y_mean, y_eps, SH_ACT_NONE);
        sh_cpu_norm_make_grad(&n.y, y_channels, data->y_mean, data->y_var, data->y_gamma, y_eps,
                              data->y_dgamma, data->y_dbeta,
                              (double)(c->y->dims[0] * c->y->dims[2] * c->y->dims[3]),
                              data->y_dgamma == NULL);
    }
    return n;
}

sh_cpu_finish sh_cpu_conv_finish(const sh_cpu_conv *c, const float *bias, const void *residual)
{
    sh_cpu_finish f = {.bias = bias, .residual = residual, .silu = c->attrs->y_act == SH_ACT_SILU};

    (void)sh_cpu_act_bounds(c->attrs->y_act, &f.lo, &f.hi);
    return f;
}

const float *sh_cpu_conv_pad_bias(const sh_cpu_conv *c, const float *bias, float *padded)
{
    int64_t n = c->y->dims[1];

    if (bias == NULL) return NULL;
    memset(padded, 0, (size_t)sh_cpu_blocks(n) * 16 * sizeof(float));
    return memcpy(padded, bias, (size_t)n * sizeof(float));
}

void sh_cpu_conv_sum_dbias(const sh_cpu_conv *c, const void *dy, float *dbias)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    int64_t n_channels = c->y->dims[1], blocks = sh_cpu_blocks(n_channels);
    int64_t pixels = c->y->dims[2] * c->y->dims[3];
    size_t slab = (size_t)pixels * 16 * sh_dtype_size(c->y->dtype);

#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        double sum[16] = {0};
        for (int64_t n = 0; n < c->y->dims[0]; n++) {
            float part[16];
            simd->pool((const char *)dy + (size_t)(n * blocks + b) * slab, pixels, c->y->dtype,
                       part);
            for (int i = 0; i < 16; i++) sum[i] += (double)part[i];
        }
        for (int64_t o = b * 16; o < b * 16 + 16 && o < n_channels; o++)
            dbias[o] = (float)sum[o - b * 16];
    }
}

const char *sh_cpu_conv_why_not(const sh_cpu_conv *c)
{
    if (!sh_cpu_is_blocked(c->x) || !sh_cpu_is_blocked(c->y)) return "not in blocks of 16 channels";
    if (c->has_grad && c->wants_dbias) return "no bias gradient beside a batch norm";
    if (c->x->dtype != c->y->dtype) return "input and output differ in dtype";
    if (!sh_cpu_norm_has_act(c->attrs->y_act))
        return "an activation of its result that is neither a clamp nor SiLU";
    if (c->wants_stats && (c->has_residual || c->attrs->y_act != SH_ACT_NONE))
        return "statistics of a finished result";
    if (c->has_norm && !sh_cpu_norm_has_act(c->attrs->act))
        return "the fused activation is neither a clamp nor SiLU";
    return NULL;
}
