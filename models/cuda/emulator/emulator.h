// SPDX-License-Identifier: Apache-2.0
/**
 * CUDA kernels run on the host, as C++: one fibre per thread, so that a barrier is a switch to
 * another fibre. For tests only; nothing here is fast.
 *
 * What it watches, beyond what a sanitizer sees in the kernels' ordinary code:
 * - Shared memory holds NaN (all bits set) when a block begins: what is read was written before.
 *   A guard behind its last byte is checked when the block ends.
 * - Threads run in forward, reversed or shuffled order between two barriers, and so do blocks: a
 *   kernel that lacks a barrier, or counts on an order, gives other results in another.
 * - A barrier that some threads of a block (a shuffle: of a warp) never reach is an error, also
 *   where they have returned.
 * - Waiting, copies and allocation while kernels are recorded (record.c).
 * - Page-locked memory that is written, or read, before the host has waited (locked.c).
 * - Launches that a device would refuse: empty or huge grids, over 1024 threads, over 48 KB of
 *   shared memory (more must be asked for on a device).
 *
 * One launch at a time; not for several host threads.
 */
#ifndef SH_MODELS_CUDA_EMULATOR_EMULATOR_H
#define SH_MODELS_CUDA_EMULATOR_EMULATOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

#include "models/cuda/emulator/order.h"

/** The part of CUDA's vocabulary that the kernels use. */
#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

/** Dynamic shared memory of the running block. */
extern unsigned char *sh_emulator_shared;

void __syncthreads();

/** A barrier of one warp. Only the default mask, here and below. */
void __syncwarp();

/** All 32 lanes of a warp (the last warp: those that there are) call these together. */
float __shfl_xor_sync(unsigned mask, float value, int lane_mask);

/** Run body(closure) once per thread, in its turn (order.h: sh_emulator_queue, which copies the
 *  closure). `file`: where the launch stands, for sh_emulator_launches. After a fault nothing more
 *  runs until sh_emulator_fault has told it. */
void sh_emulator_launch(const char *file, dim3 grid, dim3 block, size_t shared_bytes,
                        void (*body)(void *closure), void *closure, size_t closure_bytes);

/** Arguments are evaluated here, as in a launch. */
template <class Kernel, class... Argument>
void sh_emulator_run(const char *file, dim3 grid, dim3 block, size_t bytes, Kernel kernel,
                     Argument... argument)
{
    auto body = [=]() { kernel(argument...); };
    using Body = decltype(body);

    static_assert(std::is_trivially_copyable<Body>::value, "arguments are copied as bytes");
    sh_emulator_launch(
        file, grid, block, bytes, [](void *closure) { (*static_cast<Body *>(closure))(); }, &body,
        sizeof(body));
}

#endif
