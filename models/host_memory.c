// SPDX-License-Identifier: Apache-2.0
#include "models/host_memory.h"

#include <stdlib.h>
#include <sys/mman.h>

struct sh_buffer {
    size_t n_bytes, mapped_bytes;
    char *memory;
};

enum { PAGE_BYTES = 4096, HUGE_PAGE_BYTES = 2 << 20, COPY_PIECE_BYTES = 1 << 20 };

/* Mapped rather than malloc'd: pages arrive zeroed and untouched, so that an arena costs only what
 * is used of it, and large ones may use huge pages. */
sh_status sh_host_memory_alloc(size_t n_bytes, sh_buffer **out)
{
    sh_status st = SH_OK;
    sh_buffer *buffer = calloc(1, sizeof(*buffer));
    void *memory = MAP_FAILED;

    SH_CHECK(buffer != NULL, SH_ERR_NO_MEMORY, "buffer of %zu bytes", n_bytes);
    buffer->n_bytes = n_bytes;
    buffer->mapped_bytes = (n_bytes + PAGE_BYTES) / PAGE_BYTES * PAGE_BYTES;
    memory = mmap(NULL, buffer->mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                  -1, 0);
    SH_CHECK(memory != MAP_FAILED, SH_ERR_NO_MEMORY, "buffer of %zu bytes", n_bytes);
    if (n_bytes >= HUGE_PAGE_BYTES) (void)madvise(memory, buffer->mapped_bytes, MADV_HUGEPAGE);
    buffer->memory = memory;
    *out = buffer;
    buffer = NULL;
out:
    free(buffer);
    return st;
}

void sh_host_memory_free(sh_buffer **buffer)
{
    if (*buffer == NULL) return;
    munmap((*buffer)->memory, (*buffer)->mapped_bytes);
    free(*buffer);
    *buffer = NULL;
}

size_t sh_host_memory_bytes(const sh_buffer *buffer)
{
    return buffer->n_bytes;
}

void *sh_host_memory_device_ptr(sh_buffer *buffer, size_t offset)
{
    return buffer->memory + offset;
}

/* A batch of images is more than one core copies in passing. */
static void copy(char *to, const char *from, size_t n_bytes)
{
    size_t n_pieces = (n_bytes + COPY_PIECE_BYTES - 1) / COPY_PIECE_BYTES;

#pragma omp parallel for schedule(static) if (n_pieces > 1)
    for (size_t i = 0; i < n_pieces; i++) {
        size_t at = i * COPY_PIECE_BYTES, left = n_bytes - at;
        memcpy(to + at, from + at, left < COPY_PIECE_BYTES ? left : COPY_PIECE_BYTES);
    }
}

sh_status sh_host_memory_copy_in(sh_buffer *to, size_t offset, const void *host, size_t n_bytes)
{
    sh_status st = SH_OK;

    SH_CHECK(offset + n_bytes <= to->n_bytes, SH_ERR_INTERNAL,
             "copy of %zu bytes to offset %zu of a buffer of %zu", n_bytes, offset, to->n_bytes);
    copy(to->memory + offset, host, n_bytes);
out:
    return st;
}

sh_status sh_host_memory_copy_out(const sh_buffer *from, size_t offset, void *host, size_t n_bytes)
{
    sh_status st = SH_OK;

    SH_CHECK(offset + n_bytes <= from->n_bytes, SH_ERR_INTERNAL,
             "copy of %zu bytes from offset %zu of a buffer of %zu", n_bytes, offset,
             from->n_bytes);
    copy(host, from->memory + offset, n_bytes);
out:
    return st;
}

void *sh_host_memory_view(sh_buffer *buffer)
{
    return buffer->memory;
}
