// SPDX-License-Identifier: Apache-2.0
/** What a device's memory can do at most: vectors read, and read and written, 16 bytes at a time.
 */
#include "models/cuda/device.h"
#include "models/cuda/memory.h"
#include "models/cuda/meter.h"

enum { WIDTH = 4, ROUNDS = SH_STREAM_PIECE / (SH_BLOCK * WIDTH) };

static_assert(SH_STREAM_PIECE / SH_STREAM_SHARE == SH_BLOCK / 32, "a sum per warp");

/** A block reads a piece. */
__global__ void __launch_bounds__(SH_BLOCK) read_stream(const float *a, float *sums)
{
    const int64_t begin = (int64_t)blockIdx.x * SH_STREAM_PIECE + (int64_t)threadIdx.x * WIDTH;
    float sum = 0;

#pragma unroll
    for (int k = 0; k < ROUNDS; k++) {
        float v[WIDTH];
        load<WIDTH>(a + begin + (int64_t)k * SH_BLOCK * WIDTH, v);
        for (int i = 0; i < WIDTH; i++) sum += v[i];
    }
    sum = warp_sum(sum); /* somebody must want to know */
    if (threadIdx.x % 32 == 0) sums[(int64_t)blockIdx.x * (SH_BLOCK / 32) + threadIdx.x / 32] = sum;
}

__global__ void __launch_bounds__(SH_BLOCK)
    triad(float *c, const float *a, const float *b, float scale)
{
    const int64_t at = item_index() * WIDTH;
    float x[WIDTH], y[WIDTH];

    load<WIDTH>(a + at, x);
    load<WIDTH>(b + at, y);
    for (int i = 0; i < WIDTH; i++) x[i] += scale * y[i];
    store<WIDTH>(c + at, x);
}

extern "C" sh_status sh_cuda_read_stream(const float *a, int64_t n, float *sums)
{
    SH_LAUNCH(read_stream, dim3((unsigned)(n / SH_STREAM_PIECE)), dim3(SH_BLOCK), 0, a, sums);
    return sh_cuda_launched("read_stream");
}

extern "C" sh_status sh_cuda_triad(float *c, const float *a, const float *b, float scale, int64_t n)
{
    SH_LAUNCH(triad, item_grid(n / WIDTH), dim3(SH_BLOCK), 0, c, a, b, scale);
    return sh_cuda_launched("triad");
}
