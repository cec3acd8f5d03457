// SPDX-License-Identifier: Apache-2.0
/**
 * A device whose memory the host cannot reach, for those who know no backend: vectors are summed
 * and exchanged there. A backend gives one (models/backend.h) and comm uses it.
 *
 * Work goes into three queues, each in order: that of the kernels that compute, and those of what
 * is exchanged and of what is brought in meanwhile. Calls return when the work is queued, unless
 * they say that they wait. One thread at a time.
 */
#ifndef SH_BASE_DEVICE_H
#define SH_BASE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/tensor.h"

SH_C_BEGIN

typedef enum sh_queue {
    SH_QUEUE_COMPUTE,
    SH_QUEUE_EXCHANGE,
    SH_QUEUE_INPUT,
    SH_QUEUE_COUNT
} sh_queue;

typedef struct sh_mark sh_mark; /* a place in a queue */

enum { SH_DEVICE_ID = 64, SH_DEVICE_TEXT = 192 };

typedef struct sh_device {
    sh_status (*alloc)(size_t n_bytes, void **memory); /* 64-byte aligned, contents undefined */
    void (*free)(void *memory);                        /* NULL is fine; waits */

    /** Waits. */
    sh_status (*copy_in)(void *to, const void *host, size_t n_bytes);

    /** dst = a + b, element by element; dst may be a or b. */
    sh_status (*add)(sh_queue queue, float *dst, const float *a, const float *b, int64_t n);

    /** out[n]: the sum of n_inputs vectors [n] by a stack: each vector in turn is put on top, and
     *  then, n_joins[i] times after vector i, the two on top become one, the lower plus the upper.
     *  At last one is left. The vectors may be overwritten, and out may be one of them.
     *
     *  inputs, n_joins  [n_inputs] in the device's memory
     *  depth            the most that the stack holds, at most SH_TREE_DEPTH */
    sh_status (*tree_sum)(sh_queue queue, float *out, float *const *inputs, const uint8_t *n_joins,
                          int n_inputs, int depth, int64_t n);

    /* What follows is for working beside the host; the host's own table (comm/host.c) has none of
     * it, and the first six are for those who reserve memory and bring data in and out, not for
     * comm. */

    /** What can still be allocated. */
    sh_status (*free_bytes)(size_t *n_bytes);

    /** Page-locked memory of the host, which the device reads by itself. */
    sh_status (*alloc_host)(size_t n_bytes, void **memory);
    void (*free_host)(void *memory); /* NULL is fine; waits */

    /** From such memory, which may not change until the queue has come past. (From other memory
     * too, but slowly, and waiting for it to be read.) */
    sh_status (*send)(sh_queue queue, void *to, const void *host, size_t n_bytes);

    /** To such memory, where it is once the queue has been waited for. */
    sh_status (*fetch)(sh_queue queue, void *host, const void *from, size_t n_bytes);

    /** Images [N, C, H, W] (f32 or bf16, SH_NHWC or a single pixel each, 1 or 3 channels; 3 of bf16
     *  in SH_NHWC8 too) out of a parcel (base/parcel.h) that lies in the device's memory and holds
     * N of them. */
    sh_status (*render)(sh_queue queue, const void *parcel, const sh_tensor_desc *images,
                        void *out);

    sh_status (*copy)(sh_queue queue, float *to, const float *from, int64_t n);

    /** The device of this process: `id` differs between devices of one host, `text` is for people.
     */
    sh_status (*identify)(char id[SH_DEVICE_ID], char text[SH_DEVICE_TEXT]);

    /** A queue as other libraries know it (a cudaStream_t); opaque here. */
    void *(*stream)(sh_queue queue);

    sh_status (*mark_create)(sh_mark **out);
    void (*mark_destroy)(sh_mark **mark); /* NULL is fine */
    sh_status (*mark_put)(sh_mark *mark, sh_queue queue);
    sh_status (*mark_wait)(const sh_mark *mark); /* waits for the queue to come past */
    sh_status (*mark_reached)(const sh_mark *mark, bool *reached);

    /** What is put into `queue` from now on waits for the mark, as it was put last. */
    sh_status (*follow)(sh_queue queue, const sh_mark *mark);
} sh_device;

enum { SH_TREE_DEPTH = 40 }; /* 2 log2 of the number of shards, and some */

SH_C_END

#endif
