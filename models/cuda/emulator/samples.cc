// SPDX-License-Identifier: Apache-2.0
#include "models/cuda/emulator/samples.h"

#include "models/cuda/device.h"

enum { N = SH_SAMPLE_THREADS, WARP = 32 };

__global__ void sum_all(float *out)
{
    SH_SHARED(float, shared); /* [N / WARP] */
    const float own = warp_sum((float)threadIdx.x);

    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = own;
    __syncthreads();
    out[threadIdx.x] = shared[0] + shared[1];
}

__global__ void opposite(float *out)
{
    SH_SHARED(float, shared); /* [N] */

    shared[threadIdx.x] = (float)threadIdx.x;
    out[threadIdx.x] = shared[N - 1 - threadIdx.x];
}

__global__ void unwritten(float *out)
{
    SH_SHARED(float, shared); /* [N] */

    out[threadIdx.x] = shared[threadIdx.x];
}

__global__ void overrun(float *out)
{
    SH_SHARED(float, shared); /* [N] */

    shared[threadIdx.x + 1] = 0;
    out[threadIdx.x] = 0;
}

__global__ void divergent(float *)
{
    if (threadIdx.x < N / 2)
        __syncthreads();
    else
        __syncwarp();
    __syncthreads();
}

__global__ void early_return(float *)
{
    if (threadIdx.x < N / 2) return;
    __syncthreads();
}

__global__ void divergent_warp(float *out)
{
    if (threadIdx.x % WARP < WARP / 2) out[threadIdx.x] = warp_sum(1);
}

void sh_emulator_run_sample(sh_emulator_sample sample, float out[SH_SAMPLE_THREADS])
{
    const dim3 one(1), block(N);
    const size_t n_bytes = N * sizeof(float);

    switch (sample) {
    case SH_SAMPLE_SUM: SH_LAUNCH(sum_all, one, block, n_bytes, out); break;
    case SH_SAMPLE_NO_BARRIER: SH_LAUNCH(opposite, one, block, n_bytes, out); break;
    case SH_SAMPLE_UNWRITTEN: SH_LAUNCH(unwritten, one, block, n_bytes, out); break;
    case SH_SAMPLE_OVERRUN: SH_LAUNCH(overrun, one, block, n_bytes, out); break;
    case SH_SAMPLE_DIVERGENT: SH_LAUNCH(divergent, one, block, 0, out); break;
    case SH_SAMPLE_EARLY_RETURN: SH_LAUNCH(early_return, one, block, 0, out); break;
    case SH_SAMPLE_DIVERGENT_WARP: SH_LAUNCH(divergent_warp, one, block, 0, out); break;
    case SH_SAMPLE_TOO_MANY: SH_LAUNCH(unwritten, one, dim3(2048), n_bytes, out); break;
    case SH_SAMPLE_TOO_MUCH_SHARED: SH_LAUNCH(unwritten, one, block, 1 << 20, out); break;
    }
}
