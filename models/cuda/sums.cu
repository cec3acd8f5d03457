// SPDX-License-Identifier: Apache-2.0
/** The additions of the sum over shards (docs/exactness.md). Each is of two f32 and rounds once, so
 *  that a device adds as the host does, bit for bit. */
#include "models/cuda/device.h"
#include "models/cuda/memory.h"

__global__ void __launch_bounds__(SH_BLOCK)
    add_elements(float *dst, const float *a, const float *b, int64_t n)
{
    const int64_t i = item_index();

    if (i < n) dst[i] = a[i] + b[i];
}

/** The top of the stack is a register; each thread has a column of shared memory for the rest. */
__global__ void __launch_bounds__(SH_BLOCK)
    add_tree(float *out, float *const *inputs, const uint8_t *n_joins, int n_inputs, int64_t n)
{
    SH_SHARED(float, shared); /* [depth - 1][SH_BLOCK] */
    const int64_t i = item_index();
    float *stack = shared + threadIdx.x;

    if (i >= n) return;
    float top = inputs[0][i];
    for (int k = 1; k < n_inputs; k++) {
        *stack = top;
        stack += SH_BLOCK;
        top = inputs[k][i];
        for (int j = 0; j < n_joins[k]; j++) {
            stack -= SH_BLOCK;
            top = *stack + top;
        }
    }
    out[i] = top;
}

extern "C" sh_status sh_cuda_sum_add(sh_queue queue, float *dst, const float *a, const float *b,
                                     int64_t n)
{
    if (n > 0) SH_LAUNCH_ON(queue, add_elements, item_grid(n), dim3(SH_BLOCK), 0, dst, a, b, n);
    return sh_cuda_launched("add");
}

extern "C" sh_status sh_cuda_sum_tree(sh_queue queue, float *out, float *const *inputs,
                                      const uint8_t *n_joins, int n_inputs, int depth, int64_t n)
{
    const size_t shared_bytes = (size_t)(depth - 1) * SH_BLOCK * sizeof(float);

    if (n > 0)
        SH_LAUNCH_ON(queue, add_tree, item_grid(n), dim3(SH_BLOCK), shared_bytes, out, inputs,
                     n_joins, n_inputs, n);
    return sh_cuda_launched("tree_sum");
}
