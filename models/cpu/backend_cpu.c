// SPDX-License-Identifier: Apache-2.0
/* The table of the CPU backend: memory, layouts, and which kernels are tried for each op. */
#include "models/cpu/cpu.h"

#include <omp.h>
#include <pthread.h>
#include <stdlib.h>

#include "models/cpu/kernels.h"
#include "models/host_memory.h"
#include "models/ref/ref.h"

enum { MAX_KERNELS = 6 };

/* Fastest first; the reference follows. */
static const sh_kernel *const own_kernels[SH_OP_COUNT][MAX_KERNELS] = {
    [SH_OP_CONV] = {&sh_cpu_conv_pointwise, &sh_cpu_conv_depthwise, &sh_cpu_conv_patches,
                    &sh_cpu_conv_winograd, &sh_cpu_conv_onednn, &sh_cpu_conv_onednn_any},
    [SH_OP_CONV_GRAD_X] = {&sh_cpu_conv_grad_x_pointwise, &sh_cpu_conv_grad_x_depthwise,
                           &sh_cpu_conv_grad_x_winograd, &sh_cpu_conv_grad_x_onednn,
                           &sh_cpu_conv_grad_x_onednn_any},
    [SH_OP_CONV_GRAD_W] = {&sh_cpu_conv_grad_w_pointwise, &sh_cpu_conv_grad_w_depthwise,
                           &sh_cpu_conv_grad_w_patches, &sh_cpu_conv_grad_w_winograd,
                           &sh_cpu_conv_grad_w_onednn, &sh_cpu_conv_grad_w_onednn_any},
    [SH_OP_CONV_GRAD] = {&sh_cpu_conv_grad_pointwise, &sh_cpu_conv_grad_depthwise},
    [SH_OP_BN_STATS] = {&sh_cpu_bn_stats},
    [SH_OP_BN_APPLY] = {&sh_cpu_bn_apply},
    [SH_OP_BN_GRAD_REDUCE] = {&sh_cpu_bn_grad_reduce},
    [SH_OP_BN_GRAD_APPLY] = {&sh_cpu_bn_grad_apply},
    [SH_OP_FOLD_BN] = {&sh_cpu_fold_bn},
    [SH_OP_ACT] = {&sh_cpu_act},
    [SH_OP_ACT_GRAD] = {&sh_cpu_act_grad},
    [SH_OP_ADD] = {&sh_cpu_add},
    [SH_OP_AVG_POOL] = {&sh_cpu_avg_pool},
    [SH_OP_AVG_POOL_GRAD] = {&sh_cpu_avg_pool_grad},
    [SH_OP_LINEAR] = {&sh_cpu_linear_pointwise, &sh_cpu_linear},
    [SH_OP_LINEAR_GRAD_X] = {&sh_cpu_linear_grad_x_pointwise, &sh_cpu_linear_grad_x},
    [SH_OP_LINEAR_GRAD_W] = {&sh_cpu_linear_grad_w_pointwise, &sh_cpu_linear_grad_w},
    [SH_OP_CAST] = {&sh_cpu_cast, &sh_cpu_cast_layout},
    [SH_OP_FLATTEN] = {&sh_cpu_flatten},
    [SH_OP_FLATTEN_GRAD] = {&sh_cpu_flatten_grad},
    [SH_OP_DROPOUT] = {&sh_cpu_dropout},
    [SH_OP_PATH_DROP] = {&sh_cpu_path_drop},
    [SH_OP_REFLECT_PAD] = {&sh_cpu_reflect_pad},
    [SH_OP_REFLECT_PAD_GRAD] = {&sh_cpu_reflect_pad_grad},
    [SH_OP_MAX_POOL] = {&sh_cpu_max_pool},
    [SH_OP_MAX_POOL_GRAD] = {&sh_cpu_max_pool_grad},
    [SH_OP_MEAN_POOL] = {&sh_cpu_mean_pool},
    [SH_OP_MEAN_POOL_GRAD] = {&sh_cpu_mean_pool_grad},
    [SH_OP_GEM_POOL] = {&sh_cpu_gem_pool},
    [SH_OP_GEM_POOL_GRAD] = {&sh_cpu_gem_pool_grad},
    [SH_OP_CONCAT] = {&sh_cpu_concat},
    [SH_OP_CONCAT_GRAD] = {&sh_cpu_concat_grad},
    [SH_OP_MUL_CHANNELS] = {&sh_cpu_mul_channels},
    [SH_OP_MUL_CHANNELS_GRAD] = {&sh_cpu_mul_channels_grad},
    [SH_OP_SE_SQUEEZE] = {&sh_cpu_se_squeeze},
    [SH_OP_SE_EXCITE] = {&sh_cpu_se_excite},
    [SH_OP_SE_FACTOR_GRAD] = {&sh_cpu_se_factor_grad},
    [SH_OP_SE_GRAD] = {&sh_cpu_se_grad},
    [SH_OP_SCALE] = {&sh_cpu_scale},
    [SH_OP_SCALE_GRAD] = {&sh_cpu_scale_grad},
    [SH_OP_ADD_SCALED] = {&sh_cpu_add_scaled},
    [SH_OP_LAYER_NORM] = {&sh_cpu_layer_norm_kernel},
    [SH_OP_LAYER_NORM_GRAD] = {&sh_cpu_layer_norm_grad_kernel},
    [SH_OP_ATTENTION] = {&sh_cpu_attention},
    [SH_OP_ATTENTION_GRAD] = {&sh_cpu_attention_grad},
    [SH_OP_TOKENS] = {&sh_cpu_tokens},
    [SH_OP_TOKENS_GRAD] = {&sh_cpu_tokens_grad},
    [SH_OP_TAKE_TOKEN] = {&sh_cpu_take_token},
    [SH_OP_TAKE_TOKEN_GRAD] = {&sh_cpu_take_token_grad},
};

static const sh_kernel *kernel_lists[SH_OP_COUNT][MAX_KERNELS + 2];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void build_lists(void)
{
    for (int op = 0; op < SH_OP_COUNT; op++) {
        int n = 0;
        for (int i = 0; i < MAX_KERNELS && own_kernels[op][i]; i++)
            kernel_lists[op][n++] = own_kernels[op][i];
        kernel_lists[op][n] = sh_ref_kernel((sh_op)op);
    }
}

static const sh_kernel *const *kernels_of(sh_op op)
{
    pthread_once(&once, build_lists);
    return kernel_lists[op];
}

/* Images stay row-major, which oneDNN's first convolutions like best; maps are blocked. */
static sh_layout layout_of(sh_dtype dtype, const int64_t dims[4], bool is_image_input)
{
    bool is_map = dims[2] * dims[3] > 1 && (dtype == SH_F32 || dtype == SH_BF16);

    return is_map && !is_image_input ? SH_NCHW16C : SH_NCHW;
}

/* A fused node is worth making exactly where one of our own kernels takes it. */
static bool can_fuse(const sh_node_desc *fused)
{
    for (int i = 0; i < MAX_KERNELS && own_kernels[fused->op][i]; i++)
        if (own_kernels[fused->op][i]->why_not(fused) == NULL) return true;
    return false;
}

bool sh_cpu_is_blocked(const sh_tensor_desc *d)
{
    return d->layout == SH_NCHW16C && (d->dtype == SH_F32 || d->dtype == SH_BF16);
}

int sh_cpu_threads(void)
{
    return omp_get_max_threads();
}

/* Measured: even what the shared cache could hold is better streamed, since a store that must first
 * fetch its line stalls the multiplications behind it. */
bool sh_cpu_is_large(size_t n_bytes)
{
    return n_bytes > (size_t)2 << 20;
}

/* ---- instruction sets ---- */

/* What models/CMakeLists.txt compiled, the best first: SH_COMPILED(avx2) SH_COMPILED(generic). */
#define SH_COMPILED(isa) extern const sh_cpu_simd sh_cpu_simd_##isa;
SH_COMPILED_ISAS
#undef SH_COMPILED
#define SH_COMPILED(isa) &sh_cpu_simd_##isa,
static const sh_cpu_simd *const compiled[] = {SH_COMPILED_ISAS};

static const sh_cpu_simd *chosen;
static pthread_once_t simd_once = PTHREAD_ONCE_INIT;

static bool runs_here(const char *isa)
{
#if defined(__x86_64__)
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");

    if (strcmp(isa, "avx512bf16") == 0) return avx512 && __builtin_cpu_supports("avx512bf16");
    if (strcmp(isa, "avx512") == 0) return avx512;
    if (strcmp(isa, "avx2") == 0)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return strcmp(isa, "generic") == 0;
}

static void choose_simd(void)
{
    const char *wanted = getenv("SHOAL_CPU_ISA");

    for (size_t i = 0; i < SH_COUNT(compiled); i++) {
        if (!runs_here(compiled[i]->name)) continue;
        if (chosen == NULL) chosen = compiled[i];
        if (wanted != NULL && strcmp(compiled[i]->name, wanted) == 0) chosen = compiled[i];
    }
}

const sh_cpu_simd *sh_cpu_simd_get(void)
{
    pthread_once(&simd_once, choose_simd);
    return chosen;
}

const sh_backend sh_backend_cpu = {.name = "cpu",
                                   .layout_of = layout_of,
                                   .kernels_of = kernels_of,
                                   .can_fuse = can_fuse,
                                   .alloc = sh_host_memory_alloc,
                                   .free = sh_host_memory_free,
                                   .bytes = sh_host_memory_bytes,
                                   .device_ptr = sh_host_memory_device_ptr,
                                   .copy_in = sh_host_memory_copy_in,
                                   .copy_out = sh_host_memory_copy_out,
                                   .host_view = sh_host_memory_view};
