// SPDX-License-Identifier: Apache-2.0
/* The table of the CUDA backend. It is linked with memory.c and nvcc's kernels, or in tests with
 * emulator/memory.c and the kernels on the emulator. */
#include "models/cuda/cuda.h"

#include <assert.h>
#include <pthread.h>

#include "models/cuda/choices.h"
#include "models/cuda/cudnn_graph.h"
#include "models/cuda/cudnn_kernels.h"
#include "models/cuda/kernels.h"
#include "models/cuda/memory.h"
#include "models/cuda/meter.h"
#include "models/cuda/record.h"

static sh_status prepare(const sh_node_desc *desc, const sh_cuda_op *op, size_t *scratch_bytes)
{
    *scratch_bytes = op->scratch_bytes != NULL ? op->scratch_bytes(desc) : 0;
    return SH_OK;
}

#define KERNEL(op_name, name_)                                                                     \
    static const char *why_not_##name_(const sh_node_desc *desc)                                   \
    {                                                                                              \
        return sh_cuda_##name_.why_not(desc);                                                      \
    }                                                                                              \
    static sh_status prepare_##name_(const sh_node_desc *desc, void **state, size_t *n_bytes)      \
    {                                                                                              \
        *state = NULL;                                                                             \
        return prepare(desc, &sh_cuda_##name_, n_bytes);                                           \
    }                                                                                              \
    static sh_status run_##name_(const sh_node_desc *desc, void *state,                            \
                                 const sh_kernel_args *args)                                       \
    {                                                                                              \
        (void)state;                                                                               \
        sh_cuda_##name_.launch(desc, args);                                                        \
        return sh_cuda_launched(#name_);                                                           \
    }
SH_CUDA_KERNELS(KERNEL)

#define ROW(op_name, name_)                                                                        \
    {.name = "cuda:" #name_,                                                                       \
     .op = SH_OP_##op_name,                                                                        \
     .why_not = why_not_##name_,                                                                   \
     .prepare = prepare_##name_,                                                                   \
     .run = run_##name_},
static const sh_kernel kernels[] = {SH_CUDA_KERNELS(ROW)};

/** Before those. */
static const sh_kernel *const cudnn_kernels[] = {&sh_cudnn_conv_kernel, &sh_cudnn_grad_x_kernel,
                                                 &sh_cudnn_grad_w_kernel};

enum { MAX_KERNELS = 3 }; /* of one op */
static const sh_kernel *kernel_lists[SH_OP_COUNT][MAX_KERNELS + 1];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void build_lists(void)
{
    int n[SH_OP_COUNT] = {0};

    for (size_t i = 0; i < SH_COUNT(cudnn_kernels); i++)
        kernel_lists[cudnn_kernels[i]->op][n[cudnn_kernels[i]->op]++] = cudnn_kernels[i];
    for (size_t i = 0; i < SH_COUNT(kernels); i++) {
        sh_op op = kernels[i].op;
        assert(n[op] < MAX_KERNELS);
        kernel_lists[op][n[op]++] = &kernels[i];
    }
}

static const sh_kernel *const *kernels_of(sh_op op)
{
    pthread_once(&once, build_lists);
    return kernel_lists[op];
}

/* Channels innermost: tensor cores and vector loads want them so. Tensor cores take 8 channels at a
 * time (docs/decisions.md). Grey images stay as they are: their only network extends their borders
 * first, and what does that would have to bring them out of the padding. */
static sh_layout layout_of(sh_dtype dtype, const int64_t dims[4], bool is_image_input)
{
    bool is_map = dims[2] * dims[3] > 1 && (dtype == SH_F32 || dtype == SH_BF16);
    bool is_colour = is_image_input && dims[1] > 1 && dims[1] % 8 != 0;

    if (is_map && is_colour && dtype == SH_BF16) return SH_NHWC8;
    return is_map ? SH_NHWC : SH_NCHW;
}

static bool can_fuse(const sh_node_desc *fused)
{
    for (const sh_kernel *const *k = kernels_of(fused->op); *k != NULL; k++) {
        if ((*k)->why_not(fused) == NULL) return true;
    }
    return false;
}

static int examine(sh_finding *out, int max)
{
    const sh_cudnn_api *cudnn = sh_cuda_cudnn();

    if (max < 2) return 0;
    sh_cuda_examine(&out[0]);
    if (cudnn != NULL) return 1 + cudnn->examine(out + 1, max - 1);
    out[1] = (sh_finding){
        .what = "cudnn",
        .found = "not in this build",
        .remedy = "dense convolutions run plainly, far slower: build where cuDNN's headers are"};
    return 2;
}

const sh_backend sh_backend_cuda = {.name = "cuda",
                                    .layout_of = layout_of,
                                    .kernels_of = kernels_of,
                                    .can_fuse = can_fuse,
                                    .alloc = sh_cuda_alloc,
                                    .free = sh_cuda_free,
                                    .bytes = sh_cuda_bytes,
                                    .device_ptr = sh_cuda_device_ptr,
                                    .copy_in = sh_cuda_copy_in,
                                    .copy_out = sh_cuda_copy_out,
                                    .optim = &sh_cuda_optim,
                                    .device = &sh_cuda_device,
                                    .loss = &sh_cuda_loss,
                                    .classes = &sh_cuda_classes,
                                    .recorder = &sh_cuda_recorder,
                                    .meter = &sh_cuda_meter,
                                    .set_choices = sh_cuda_set_choices,
                                    .get_choices = sh_cuda_get_choices,
                                    .examine = examine};
