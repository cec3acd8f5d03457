// SPDX-License-Identifier: Apache-2.0
/** Buffers in plain host memory, shared by the backends that compute on the CPU. */
#ifndef SH_MODELS_HOST_MEMORY_H
#define SH_MODELS_HOST_MEMORY_H

#include "models/backend.h"

SH_C_BEGIN

/* The buffer slots of sh_backend; see models/backend.h. */
sh_status sh_host_memory_alloc(size_t n_bytes, sh_buffer **out);
void sh_host_memory_free(sh_buffer **buffer);
size_t sh_host_memory_bytes(const sh_buffer *buffer);
void *sh_host_memory_device_ptr(sh_buffer *buffer, size_t offset);
sh_status sh_host_memory_copy_in(sh_buffer *to, size_t offset, const void *host, size_t n_bytes);
sh_status sh_host_memory_copy_out(const sh_buffer *from, size_t offset, void *host, size_t n_bytes);
void *sh_host_memory_view(sh_buffer *buffer);

SH_C_END

#endif
