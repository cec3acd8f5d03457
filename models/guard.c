// SPDX-License-Identifier: Apache-2.0
/**
 * Every live buffer stands in one list. Pages are PROT_NONE; enter and leave open and close all of
 * them around a kernel, copies open one. A stray host access dies with SIGSEGV.
 */
#include "models/guard.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

struct sh_buffer {
    size_t n_bytes, mapped_bytes;
    char *memory;
    sh_buffer *next;
};

enum { PAGE_BYTES = 4096 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static sh_buffer *live;
static int n_inside; /* kernels running now, over all threads */
static sh_backend wrappers[SH_GUARD_MAX];
static char names[SH_GUARD_MAX][32];

static void protect(const sh_buffer *buffer, int access)
{
    if (mprotect(buffer->memory, buffer->mapped_bytes, access) != 0) abort();
}

static void protect_all(int access)
{
    for (const sh_buffer *b = live; b != NULL; b = b->next) protect(b, access);
}

static void enter(void)
{
    pthread_mutex_lock(&lock);
    if (n_inside++ == 0) protect_all(PROT_READ | PROT_WRITE);
    pthread_mutex_unlock(&lock);
}

static void leave(void)
{
    pthread_mutex_lock(&lock);
    if (--n_inside == 0) protect_all(PROT_NONE);
    pthread_mutex_unlock(&lock);
}

static sh_status guard_alloc(size_t n_bytes, sh_buffer **out)
{
    sh_status st = SH_OK;
    sh_buffer *buffer = calloc(1, sizeof(*buffer));

    SH_CHECK(buffer != NULL, SH_ERR_NO_MEMORY, "buffer of %zu bytes", n_bytes);
    buffer->n_bytes = n_bytes;
    buffer->mapped_bytes = (n_bytes + PAGE_BYTES) / PAGE_BYTES * PAGE_BYTES;
    void *memory = mmap(NULL, buffer->mapped_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SH_CHECK(memory != MAP_FAILED, SH_ERR_NO_MEMORY, "buffer of %zu bytes", n_bytes);
    buffer->memory = memory;
    pthread_mutex_lock(&lock);
    buffer->next = live;
    live = buffer;
    if (n_inside > 0) protect(buffer, PROT_READ | PROT_WRITE);
    pthread_mutex_unlock(&lock);
    *out = buffer;
    buffer = NULL;
out:
    free(buffer);
    return st;
}

static void guard_free(sh_buffer **buffer)
{
    if (*buffer == NULL) return;
    pthread_mutex_lock(&lock);
    for (sh_buffer **b = &live; *b != NULL; b = &(*b)->next) {
        if (*b != *buffer) continue;
        *b = (*buffer)->next;
        break;
    }
    pthread_mutex_unlock(&lock);
    munmap((*buffer)->memory, (*buffer)->mapped_bytes);
    free(*buffer);
    *buffer = NULL;
}

static size_t guard_bytes(const sh_buffer *buffer)
{
    return buffer->n_bytes;
}

static void *guard_device_ptr(sh_buffer *buffer, size_t offset)
{
    return buffer->memory + offset;
}

static sh_status guard_copy_in(sh_buffer *to, size_t offset, const void *host, size_t n_bytes)
{
    sh_status st = SH_OK;

    SH_CHECK(offset + n_bytes <= to->n_bytes, SH_ERR_INTERNAL,
             "copy of %zu bytes to offset %zu of a buffer of %zu", n_bytes, offset, to->n_bytes);
    enter();
    memcpy(to->memory + offset, host, n_bytes);
    leave();
out:
    return st;
}

static sh_status guard_copy_out(const sh_buffer *from, size_t offset, void *host, size_t n_bytes)
{
    sh_status st = SH_OK;

    SH_CHECK(offset + n_bytes <= from->n_bytes, SH_ERR_INTERNAL,
             "copy of %zu bytes from offset %zu of a buffer of %zu", n_bytes, offset,
             from->n_bytes);
    enter();
    memcpy(host, from->memory + offset, n_bytes);
    leave();
out:
    return st;
}

const sh_backend *sh_guard_wrap(const sh_backend *base, int slot)
{
    sh_backend *wrapper = &wrappers[slot];

    pthread_mutex_lock(&lock);
    if (wrapper->name == NULL) {
        *wrapper = *base;
        wrapper->alloc = guard_alloc;
        wrapper->free = guard_free;
        wrapper->bytes = guard_bytes;
        wrapper->device_ptr = guard_device_ptr;
        wrapper->copy_in = guard_copy_in;
        wrapper->copy_out = guard_copy_out;
        wrapper->host_view = NULL;
        wrapper->enter = enter;
        wrapper->leave = leave;
        snprintf(names[slot], sizeof(names[slot]), "guard:%s", base->name);
        wrapper->name = names[slot];
    }
    pthread_mutex_unlock(&lock);
    return wrapper;
}
