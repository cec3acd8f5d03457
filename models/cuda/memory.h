// SPDX-License-Identifier: Apache-2.0
/** What the CUDA backend's table needs of a device, or of the emulator: memory and verdicts. */
#ifndef SH_MODELS_CUDA_MEMORY_H
#define SH_MODELS_CUDA_MEMORY_H

#include "models/meter.h"

SH_C_BEGIN

/* The buffer slots of sh_backend; see models/backend.h. */
sh_status sh_cuda_alloc(size_t n_bytes, sh_buffer **out);
void sh_cuda_free(sh_buffer **buffer);
size_t sh_cuda_bytes(const sh_buffer *buffer);
void *sh_cuda_device_ptr(sh_buffer *buffer, size_t offset);
sh_status sh_cuda_copy_in(sh_buffer *to, size_t offset, const void *host, size_t n_bytes);
sh_status sh_cuda_copy_out(const sh_buffer *from, size_t offset, void *host, size_t n_bytes);

/** The device: the first finding of sh_backend.examine. */
void sh_cuda_examine(sh_finding *out);

/** See sh_backend.device. */
extern const sh_device sh_cuda_device;

/** Its kernels (sums.cu). */
sh_status sh_cuda_sum_add(sh_queue queue, float *dst, const float *a, const float *b, int64_t n);
sh_status sh_cuda_sum_tree(sh_queue queue, float *out, float *const *inputs, const uint8_t *n_joins,
                           int n_inputs, int depth, int64_t n);

/** See sh_device.render (render.cu). */
sh_status sh_cuda_render(sh_queue queue, const void *parcel, const sh_tensor_desc *images,
                         void *out);

/** Choose this process's device, once, and make it this thread's. SH_ERR_UNSUPPORTED where none can
 *  be used. */
SH_MUST_CHECK sh_status sh_cuda_enter(void);

/** The stream (a cudaStream_t) of a queue, once a device was chosen. NULL on the emulator. */
struct CUstream_st *sh_cuda_queue(sh_queue queue);

/** That of the kernels that compute. */
static inline struct CUstream_st *sh_cuda_stream(void)
{
    return sh_cuda_queue(SH_QUEUE_COMPUTE);
}

/** The device's clock: see sh_meter. */
SH_MUST_CHECK sh_status sh_cuda_watch_create(int n_points, sh_watch **out);
void sh_cuda_watch_destroy(sh_watch **watch);
SH_MUST_CHECK sh_status sh_cuda_watch_put(sh_watch *watch, int point);
SH_MUST_CHECK sh_status sh_cuda_watch_read(const sh_watch *watch, int from, int to,
                                           double *seconds);

/** How much to measure with: enough to keep a device busy, little on the emulator. */
typedef struct sh_cuda_sizes {
    size_t cache_bytes;  /* of its last cache */
    size_t stream_bytes; /* of a vector; three of them fit into its free memory */
    int64_t product[3];  /* rows, columns, terms of a sum */
} sh_cuda_sizes;

SH_MUST_CHECK sh_status sh_cuda_get_sizes(sh_cuda_sizes *out);

/** SH_OK if the launches since the last call were accepted. Does not wait for them. */
SH_MUST_CHECK sh_status sh_cuda_launched(const char *kernel);

SH_C_END

#endif
