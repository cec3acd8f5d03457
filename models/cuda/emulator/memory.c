// SPDX-License-Identifier: Apache-2.0
/* The host's memory in place of a device's. Kernels have run when their launch returns, so queues
 * are nothing but their order; what nobody waits for is watched by locked.c. */
#include "models/cuda/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "models/cuda/emulator/locked.h"
#include "models/cuda/emulator/order.h"
#include "models/cuda/meter.h"
#include "models/host_memory.h"

sh_status sh_cuda_alloc(size_t n_bytes, sh_buffer **out)
{
    sh_status st = SH_OK;

    SH_TRY(sh_emulator_wait("an allocation"));
    SH_TRY(sh_host_memory_alloc(n_bytes, out));
    sh_cuda_count_alloc(*out, n_bytes);
out:
    return st;
}

void sh_cuda_free(sh_buffer **buffer)
{
    sh_cuda_count_free(*buffer);
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
    sh_status st = SH_OK;

    SH_TRY(sh_emulator_wait("a copy to the device"));
    SH_TRY(sh_host_memory_copy_in(to, offset, host, n_bytes));
out:
    return st;
}

sh_status sh_cuda_copy_out(const sh_buffer *from, size_t offset, void *host, size_t n_bytes)
{
    sh_status st = SH_OK;

    SH_TRY(sh_emulator_wait("a copy from the device"));
    SH_TRY(sh_host_memory_copy_out(from, offset, host, n_bytes));
out:
    return st;
}

sh_status sh_cuda_enter(void)
{
    return SH_OK;
}

struct CUstream_st *sh_cuda_queue(sh_queue queue)
{
    (void)queue;
    return NULL;
}

void sh_cuda_examine(sh_finding *out)
{
    *out = (sh_finding){.what = "cuda", .found = "an emulator, for tests", .is_needed = true};
}

/* ---- measuring ---- */

static double passed_ms;

void sh_emulator_pass(float ms)
{
    passed_ms += (double)ms;
}

struct sh_watch {
    int n_points;
    double ms[]; /* [n_points] */
};

sh_status sh_cuda_watch_create(int n_points, sh_watch **out)
{
    sh_status st = SH_OK;
    sh_watch *watch = calloc(1, sizeof(*watch) + (size_t)n_points * sizeof(*watch->ms));

    SH_CHECK(watch != NULL, SH_ERR_NO_MEMORY, "a watch of %d points", n_points);
    watch->n_points = n_points;
    *out = watch;
out:
    return st;
}

void sh_cuda_watch_destroy(sh_watch **watch)
{
    free(*watch);
    *watch = NULL;
}

sh_status sh_cuda_watch_put(sh_watch *watch, int point)
{
    sh_status st = SH_OK;

    SH_TRY(sh_emulator_refuse("a measurement"));
    SH_CHECK(point >= 0 && point < watch->n_points, SH_ERR_INTERNAL, "point %d of %d", point,
             watch->n_points);
    watch->ms[point] = passed_ms;
out:
    return st;
}

sh_status sh_cuda_watch_read(const sh_watch *watch, int from, int to, double *seconds)
{
    *seconds = 1e-3 * (watch->ms[to] - watch->ms[from]);
    return SH_OK;
}

sh_status sh_cuda_get_sizes(sh_cuda_sizes *out)
{
    *out =
        (sh_cuda_sizes){.cache_bytes = 1 << 16, .stream_bytes = 1 << 16, .product = {64, 16, 16}};
    return SH_OK;
}

sh_status sh_cuda_launched(const char *kernel)
{
    sh_status st = SH_OK;
    const char *fault = sh_emulator_fault();

    SH_CHECK(fault == NULL, SH_ERR_INTERNAL, "%s: %s", kernel, fault);
out:
    return st;
}

/* ---- sums and exchanges ---- */

struct sh_mark {
    bool put;
    sh_queue queue;
};

static sh_status alloc_memory(size_t n_bytes, void **memory)
{
    sh_status st = SH_OK;
    enum { ALIGN_BYTES = 64 };

    SH_TRY(sh_emulator_refuse("an allocation"));
    *memory = aligned_alloc(ALIGN_BYTES, (n_bytes / ALIGN_BYTES + 1) * ALIGN_BYTES);
    SH_CHECK(*memory != NULL, SH_ERR_NO_MEMORY, "%zu bytes", n_bytes);
    memset(*memory, 0xFF, n_bytes); /* NaN: what is read was written before */
out:
    return st;
}

static sh_status alloc_counted(size_t n_bytes, void **memory)
{
    sh_status st = SH_OK;

    SH_TRY(alloc_memory(n_bytes, memory));
    sh_cuda_count_alloc(*memory, n_bytes);
out:
    return st;
}

static void free_counted(void *memory)
{
    sh_cuda_count_free(memory);
    free(memory);
}

static sh_status copy_in(void *to, const void *host, size_t n_bytes)
{
    sh_status st = SH_OK;

    SH_TRY(sh_emulator_wait("a copy to the device"));
    memcpy(to, host, n_bytes);
out:
    return st;
}

typedef struct copying {
    float *to;
    const float *from;
    int64_t n;
} copying;

static void run_copy(void *closure)
{
    const copying *c = closure;

    memcpy(c->to, c->from, (size_t)c->n * sizeof(*c->to));
}

static sh_status copy(sh_queue queue, float *to, const float *from, int64_t n)
{
    copying c = {to, from, n};

    (void)queue;
    sh_emulator_queue(run_copy, &c, sizeof(c));
    return SH_OK;
}

/* Each process has an emulator of its own. */
static sh_status identify(char id[SH_DEVICE_ID], char text[SH_DEVICE_TEXT])
{
    snprintf(id, SH_DEVICE_ID, "%ld", (long)getpid());
    snprintf(text, SH_DEVICE_TEXT, "an emulator, for tests");
    return SH_OK;
}

static void *stream_of(sh_queue queue)
{
    (void)queue;
    return NULL;
}

static sh_status mark_create(sh_mark **out)
{
    sh_status st = SH_OK;

    *out = calloc(1, sizeof(**out));
    SH_CHECK(*out != NULL, SH_ERR_NO_MEMORY, "a mark");
out:
    return st;
}

static void mark_destroy(sh_mark **mark)
{
    free(*mark);
    *mark = NULL;
}

static sh_status mark_put(sh_mark *mark, sh_queue queue)
{
    mark->put = true;
    mark->queue = queue;
    return SH_OK;
}

static sh_status mark_wait(const sh_mark *mark)
{
    sh_status st = SH_OK;

    SH_TRY(sh_emulator_refuse("waiting"));
    SH_CHECK(mark->put, SH_ERR_INTERNAL, "waiting for a mark that nobody has put");
    if (mark->queue == SH_QUEUE_COMPUTE) SH_TRY(sh_emulator_wait("waiting"));
out:
    return st;
}

static sh_status mark_reached(const sh_mark *mark, bool *reached)
{
    sh_status st = SH_OK;

    SH_TRY(sh_emulator_refuse("a question"));
    *reached = mark->put;
out:
    return st;
}

static sh_status follow(sh_queue queue, const sh_mark *mark)
{
    (void)queue, (void)mark;
    return SH_OK;
}

static size_t room = SIZE_MAX;

void sh_emulator_set_free_bytes(size_t n_bytes)
{
    room = n_bytes;
}

static sh_status free_bytes(size_t *n_bytes)
{
    *n_bytes = room;
    return SH_OK;
}

const sh_device sh_cuda_device = {.alloc = alloc_counted,
                                  .free = free_counted,
                                  .copy_in = copy_in,
                                  .add = sh_cuda_sum_add,
                                  .tree_sum = sh_cuda_sum_tree,
                                  .free_bytes = free_bytes,
                                  .alloc_host = sh_emulator_alloc_host,
                                  .free_host = sh_emulator_free_host,
                                  .send = sh_emulator_send,
                                  .fetch = sh_emulator_fetch,
                                  .render = sh_cuda_render,
                                  .copy = copy,
                                  .identify = identify,
                                  .stream = stream_of,
                                  .mark_create = mark_create,
                                  .mark_destroy = mark_destroy,
                                  .mark_put = mark_put,
                                  .mark_wait = mark_wait,
                                  .mark_reached = mark_reached,
                                  .follow = follow};
