// SPDX-License-Identifier: Apache-2.0
/* A node is a plan of cuDNN with kernels of our own around it: weights are brought into cuDNN's
 * order and type (pack), the gradient of weights back out of it; bias, residual and activation
 * follow on the result. Scratch is the weights' gradient as cuDNN writes it, then the workspace,
 * which the sums of a bias's gradient use afterwards. */
#include "models/cuda/cudnn_kernels.h"

#include <stdio.h>
#include <stdlib.h>

#include "models/cuda/cudnn_tune.h"
#include "models/cuda/kernels.h"
#include "models/cuda/memory.h"
#include "models/cuda/repack.h"

enum { ALIGN_BYTES = 256 };

typedef struct state {
    sh_cudnn_conv conv;
    sh_cudnn_plan *plan; /* NULL: the plain kernel */
    size_t dw_bytes, packed_bytes;
    sh_packed_weights weights;
    char name[SH_CUDNN_KEY_BYTES];
} state;

static const sh_cuda_op *const plain_ops[] = {[SH_CUDNN_FORWARD] = &sh_cuda_conv,
                                              [SH_CUDNN_GRAD_X] = &sh_cuda_conv_grad_x,
                                              [SH_CUDNN_GRAD_W] = &sh_cuda_conv_grad_w};

static const sh_tensor_desc *input_of(const sh_node_desc *desc, int i)
{
    return i < desc->n_inputs ? desc->in[i] : NULL;
}

static bool has_output(const sh_node_desc *desc, int i)
{
    return i < desc->n_outputs && desc->out[i] != NULL;
}

static const char *why_not(const sh_node_desc *desc)
{
    sh_cudnn_conv conv;

    if (sh_cuda_cudnn() == NULL) return "this build has no cuDNN";
    return sh_cudnn_conv_of(desc, &conv);
}

static int64_t rows_of(const int64_t dims[4])
{
    return dims[0] * dims[2] * dims[3];
}

/** Where the second part of the scratch begins. */
static size_t aligned(size_t n_bytes)
{
    return (n_bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

static void release(void *from)
{
    state *s = from;

    if (s != NULL) sh_cuda_cudnn()->release(&s->plan); /* NULL: prepare failed */
    free(s);
}

static size_t scratch_bytes_of(const sh_node_desc *desc, const state *s)
{
    const sh_cuda_op *plain = plain_ops[s->conv.kind];
    size_t sums = 0;

    if (s->plan == NULL) return plain->scratch_bytes != NULL ? plain->scratch_bytes(desc) : 0;
    size_t workspace = sh_cuda_cudnn()->workspace_bytes(s->plan);
    if (s->conv.kind == SH_CUDNN_GRAD_W && has_output(desc, 1))
        sums = sh_cuda_sum_columns_bytes(rows_of(s->conv.y), s->weights.O);
    return aligned(s->dw_bytes) + (workspace > sums ? workspace : sums);
}

static sh_status prepare(const sh_node_desc *desc, void **out, size_t *scratch_bytes)
{
    sh_status st = SH_OK;
    state *s = calloc(1, sizeof(*s));

    SH_CHECK(s != NULL, SH_ERR_NO_MEMORY, "a convolution");
    const char *reason = sh_cudnn_conv_of(desc, &s->conv);
    SH_CHECK(reason == NULL, SH_ERR_INTERNAL, "a convolution for cuDNN with %s", reason);
    SH_TRY(sh_cudnn_choose(&s->conv, &s->plan));
    bool is_grad_w = s->conv.kind == SH_CUDNN_GRAD_W;
    const sh_packed_weights w = {.dtype = is_grad_w ? s->conv.dw : s->conv.dtype,
                                 .O = s->conv.y[1],
                                 .C = (is_grad_w ? desc->out[0] : desc->in[SH_CONV_W])->dims[1],
                                 .taps = s->conv.kernel[0] * s->conv.kernel[1],
                                 .stored = s->conv.x[1]};
    size_t n_bytes = (size_t)(w.O * w.taps * w.stored) * sh_dtype_size(w.dtype);
    s->weights = w;
    if (s->plan != NULL) *(is_grad_w ? &s->dw_bytes : &s->packed_bytes) = n_bytes;
    snprintf(s->name, sizeof(s->name), "cuda:%s", s->plan != NULL ? "cudnn" : "conv (plain)");
    *scratch_bytes = scratch_bytes_of(desc, s);
    *out = s;
    s = NULL;
out:
    release(s);
    return st;
}

static size_t packed_bytes(const void *from)
{
    return ((const state *)from)->packed_bytes;
}

static sh_status pack(const sh_node_desc *desc, void *from, const sh_kernel_args *args)
{
    const state *s = from;

    (void)desc;
    sh_cuda_pack_weights(&s->weights, args->packed, args->in[SH_CONV_W]);
    return sh_cuda_launched("pack_weights");
}

static sh_status run_plain(const sh_node_desc *desc, const state *s, const sh_kernel_args *args)
{
    plain_ops[s->conv.kind]->launch(desc, args);
    return sh_cuda_launched("conv");
}

static sh_status run_conv(const sh_node_desc *desc, void *from, const sh_kernel_args *args)
{
    sh_status st = SH_OK;
    state *s = from;
    const sh_cudnn_operands at = {.x = args->in[SH_CONV_X],
                                  .w = args->packed,
                                  .y = args->out[SH_CONV_Y],
                                  .workspace = args->scratch};
    const float *bias = input_of(desc, SH_CONV_BIAS) != NULL ? args->in[SH_CONV_BIAS] : NULL;
    const void *residual =
        input_of(desc, SH_CONV_RESIDUAL) != NULL ? args->in[SH_CONV_RESIDUAL] : NULL;
    sh_act act = desc->attrs->y_act;

    if (s->plan == NULL) {
        st = run_plain(desc, s, args);
        goto out;
    }
    SH_TRY(sh_cuda_cudnn()->run(s->plan, &at));
    if (bias == NULL && residual == NULL && act == SH_ACT_NONE) goto out;
    sh_cuda_finish_conv(s->conv.dtype, args->out[SH_CONV_Y], bias, residual, rows_of(s->conv.y),
                        s->weights.O, act);
    SH_TRY(sh_cuda_launched("finish_conv"));
out:
    return st;
}

static sh_status run_grad_x(const sh_node_desc *desc, void *from, const sh_kernel_args *args)
{
    state *s = from;
    const sh_cudnn_operands at = {
        .x = args->out[0], .w = args->packed, .y = args->in[0], .workspace = args->scratch};

    return s->plan == NULL ? run_plain(desc, s, args) : sh_cuda_cudnn()->run(s->plan, &at);
}

static sh_status run_grad_w(const sh_node_desc *desc, void *from, const sh_kernel_args *args)
{
    sh_status st = SH_OK;
    state *s = from;
    void *rest = (char *)args->scratch + aligned(s->dw_bytes);
    const sh_cudnn_operands at = {
        .x = args->in[0], .w = args->scratch, .y = args->in[1], .workspace = rest};

    if (s->plan == NULL) {
        st = run_plain(desc, s, args);
        goto out;
    }
    SH_TRY(sh_cuda_cudnn()->run(s->plan, &at));
    sh_cuda_unpack_weights(&s->weights, args->out[0], args->scratch);
    SH_TRY(sh_cuda_launched("unpack_weights"));
    if (!has_output(desc, 1)) goto out;
    sh_cuda_sum_columns(s->conv.dtype, args->in[1], rows_of(s->conv.y), s->weights.O, rest,
                        args->out[1]);
    SH_TRY(sh_cuda_launched("sum_columns"));
out:
    return st;
}

static const char *describe(void *from)
{
    return ((const state *)from)->name;
}

#define KERNEL(op_name, function, ...)                                                             \
    {                                                                                              \
        .name = "cuda:cudnn", .op = op_name, .why_not = why_not, .prepare = prepare,               \
        .run = function, .release = release, .describe = describe, __VA_ARGS__                     \
    }

const sh_kernel sh_cudnn_conv_kernel =
    KERNEL(SH_OP_CONV, run_conv, .packed_bytes = packed_bytes, .pack = pack);
const sh_kernel sh_cudnn_grad_x_kernel =
    KERNEL(SH_OP_CONV_GRAD_X, run_grad_x, .packed_bytes = packed_bytes, .pack = pack);
const sh_kernel sh_cudnn_grad_w_kernel = KERNEL(SH_OP_CONV_GRAD_W, run_grad_w);
