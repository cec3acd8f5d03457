// SPDX-License-Identifier: Apache-2.0
/* The host's memory in place of a device's. */
#include "models/cuda/memory.h"

#include <stdio.h>

#include "models/cuda/emulator/order.h"
#include "models/host_memory.h"

sh_status sh_cuda_alloc(size_t n_bytes, sh_buffer **out)
{
    return sh_host_memory_alloc(n_bytes, out);
}

void sh_cuda_free(sh_buffer **buffer)
{
    sh_host_memory_free(buffer);
}

size_t sh_cuda_bytes(const sh_buffer *buffer)
{
    return sh_host_memory_bytes(buffer);
}

void *sh_cuda_device_ptr(sh_buffer *buffer, size_t offset)
{
    return sh_host_memory_device_ptr(buffer, offset);
}

sh_status sh_cuda_copy_in(sh_buffer *to, size_t offset, const void *host, size_t n_bytes)
{
    return sh_host_memory_copy_in(to, offset, host, n_bytes);
}

sh_status sh_cuda_copy_out(const sh_buffer *from, size_t offset, void *host, size_t n_bytes)
{
    return sh_host_memory_copy_out(from, offset, host, n_bytes);
}

const char *sh_cuda_examine(char *found, size_t size)
{
    snprintf(found, size, "an emulator, for tests");
    return NULL;
}

sh_status sh_cuda_launched(const char *kernel)
{
    sh_status st = SH_OK;
    const char *fault = sh_emulator_fault();

    SH_CHECK(fault == NULL, SH_ERR_INTERNAL, "%s: %s", kernel, fault);
out:
    return st;
}
