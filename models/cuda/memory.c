// SPDX-License-Identifier: Apache-2.0
/* A process has one device, chosen at its first allocation, and a stream for all that computes: a
 * kernel sees what the one before it wrote, and a copy waits for both. What ranks exchange has a
 * stream of its own. */
#include "models/cuda/memory.h"

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "models/cuda/cudnn_graph.h"
#include "models/cuda/meter.h"
#include "models/cuda/verdict.h"

struct sh_buffer {
    size_t n_bytes;
    char *memory; /* on the device */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static cudaError_t opened; /* what became of choosing a device */
static int device, n_devices;
static cudaStream_t streams[SH_QUEUE_COUNT];

/** This process's number among those of its node, by whoever launched it; 0 when alone. */
static int local_rank(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"};

    for (size_t i = 0; i < SH_COUNT(names); i++) {
        const char *value = getenv(names[i]);
        if (value != NULL) return atoi(value);
    }
    return 0;
}

/* Slurm may show each rank its own device only: then every rank has device 0. */
static void choose_device(void)
{
    int least = 0, greatest = 0;

    opened = cudaGetDeviceCount(&n_devices);
    if (opened == cudaSuccess && n_devices == 0) opened = cudaErrorNoDevice;
    if (opened != cudaSuccess) return;
    device = n_devices > 1 ? local_rank() % n_devices : 0;
    opened = cudaSetDevice(device);
    if (opened == cudaSuccess) opened = cudaDeviceGetStreamPriorityRange(&least, &greatest);
    /* What is exchanged goes first: others wait for it. */
    for (int q = 0; q < SH_QUEUE_COUNT && opened == cudaSuccess; q++)
        opened = cudaStreamCreateWithPriority(&streams[q], cudaStreamNonBlocking,
                                              q == SH_QUEUE_EXCHANGE ? greatest : least);
}

/* Another thread may have chosen it. */
sh_status sh_cuda_enter(void)
{
    sh_status st = SH_OK;

    pthread_once(&once, choose_device);
    SH_CHECK(opened == cudaSuccess, SH_ERR_UNSUPPORTED,
             "no CUDA device can be used: %s; shoal doctor says what to do",
             cudaGetErrorString(opened));
    SH_CHECK(cudaSetDevice(device) == cudaSuccess, SH_ERR_UNSUPPORTED, "CUDA device %d is gone",
             device);
out:
    return st;
}

struct CUstream_st *sh_cuda_queue(sh_queue queue)
{
    return streams[queue];
}

static sh_status check(cudaError_t error, const char *what)
{
    sh_status st = SH_OK;

    SH_CHECK(error == cudaSuccess, SH_ERR_INTERNAL, "CUDA device %d: %s: %s", device, what,
             cudaGetErrorString(error));
out:
    return st;
}

/** Wait for what was asked of the device. */
static sh_status settle(cudaError_t asked, const char *what)
{
    return check(asked != cudaSuccess ? asked : cudaStreamSynchronize(sh_cuda_stream()), what);
}

static sh_status alloc_memory(size_t n_bytes, void **memory)
{
    sh_status st = SH_OK;

    SH_TRY(sh_cuda_enter());
    SH_CHECK(cudaMalloc(memory, n_bytes > 0 ? n_bytes : 1) == cudaSuccess, SH_ERR_NO_MEMORY,
             "CUDA device %d has no %zu bytes left: a smaller batch needs less, and nvidia-smi "
             "shows who else is there",
             device, n_bytes);
    sh_cuda_count_alloc(*memory, n_bytes);
out:
    return st;
}

static void free_memory(void *memory)
{
    if (memory == NULL || sh_cuda_enter() != SH_OK) return;
    sh_cuda_count_free(memory);
    (void)cudaFree(memory);
}

sh_status sh_cuda_alloc(size_t n_bytes, sh_buffer **out)
{
    sh_status st = SH_OK;
    sh_buffer *buffer = NULL;
    void *memory = NULL;

    buffer = calloc(1, sizeof(*buffer));
    SH_CHECK(buffer != NULL, SH_ERR_NO_MEMORY, "buffer of %zu bytes", n_bytes);
    SH_TRY(alloc_memory(n_bytes, &memory));
    *buffer = (sh_buffer){.n_bytes = n_bytes, .memory = memory};
    SH_TRY(settle(cudaMemsetAsync(memory, 0, n_bytes, sh_cuda_stream()), "zeroing a buffer"));
    *out = buffer;
    buffer = NULL;
out:
    sh_cuda_free(&buffer);
    return st;
}

void sh_cuda_free(sh_buffer **buffer)
{
    if (*buffer == NULL) return;
    free_memory((*buffer)->memory);
    free(*buffer);
    *buffer = NULL;
}

size_t sh_cuda_bytes(const sh_buffer *buffer)
{
    return buffer->n_bytes;
}

void *sh_cuda_device_ptr(sh_buffer *buffer, size_t offset)
{
    return buffer->memory + offset;
}

sh_status sh_cuda_copy_in(sh_buffer *to, size_t offset, const void *host, size_t n_bytes)
{
    sh_status st = SH_OK;

    SH_CHECK(offset + n_bytes <= to->n_bytes, SH_ERR_INTERNAL,
             "copy of %zu bytes to offset %zu of a buffer of %zu", n_bytes, offset, to->n_bytes);
    SH_TRY(sh_cuda_enter());
    SH_TRY(settle(cudaMemcpyAsync(to->memory + offset, host, n_bytes, cudaMemcpyHostToDevice,
                                  sh_cuda_stream()),
                  "copying in"));
out:
    return st;
}

sh_status sh_cuda_copy_out(const sh_buffer *from, size_t offset, void *host, size_t n_bytes)
{
    sh_status st = SH_OK;

    SH_CHECK(offset + n_bytes <= from->n_bytes, SH_ERR_INTERNAL,
             "copy of %zu bytes from offset %zu of a buffer of %zu", n_bytes, offset,
             from->n_bytes);
    SH_TRY(sh_cuda_enter());
    SH_TRY(settle(cudaMemcpyAsync(host, from->memory + offset, n_bytes, cudaMemcpyDeviceToHost,
                                  sh_cuda_stream()),
                  "copying out"));
out:
    return st;
}

static sh_cuda_failure failure_of(cudaError_t error)
{
    static const struct {
        cudaError_t error;
        sh_cuda_failure failure;
    } known[] = {{cudaSuccess, SH_CUDA_OPENED},
                 {cudaErrorNoDevice, SH_CUDA_NO_DEVICE},
                 {cudaErrorDevicesUnavailable, SH_CUDA_TAKEN},
                 {cudaErrorMemoryAllocation, SH_CUDA_FULL}};

    for (size_t i = 0; i < SH_COUNT(known); i++) {
        if (known[i].error == error) return known[i].failure;
    }
    return SH_CUDA_OTHER_REASON;
}

void sh_cuda_examine(sh_finding *out)
{
    sh_cuda_facts facts = {.built_for = SHOAL_CUDA_ARCHITECTURES,
                           .visible = getenv("CUDA_VISIBLE_DEVICES")};
    struct cudaDeviceProp properties;

    (void)cudaDriverGetVersion(&facts.driver);
    (void)cudaRuntimeGetVersion(&facts.runtime);
    pthread_once(&once, choose_device);
    if (opened == cudaSuccess) opened = cudaGetDeviceProperties(&properties, device);
    if (opened == cudaSuccess) opened = cudaMemGetInfo(&facts.free_bytes, &facts.all_bytes);
    facts.failure = failure_of(opened);
    if (opened == cudaSuccess) {
        facts.name = properties.name;
        facts.capability = 10 * properties.major + properties.minor;
    } else {
        facts.error = cudaGetErrorString(opened);
    }
    sh_cuda_verdict(&facts, out);
}

const sh_cudnn_api *sh_cuda_cudnn(void)
{
#if SHOAL_WITH_CUDNN
    return &sh_cudnn_library;
#else
    return NULL;
#endif
}

sh_status sh_cuda_launched(const char *kernel)
{
    sh_status st = SH_OK;
    cudaError_t error = cudaGetLastError();

    SH_CHECK(error == cudaSuccess, SH_ERR_INTERNAL, "cuda:%s: %s", kernel,
             cudaGetErrorString(error));
out:
    return st;
}

/* ---- measuring ---- */

struct sh_watch {
    int n_points;
    cudaEvent_t events[]; /* [n_points] */
};

void sh_cuda_watch_destroy(sh_watch **watch)
{
    if (*watch == NULL) return;
    for (int i = 0; i < (*watch)->n_points; i++)
        if ((*watch)->events[i] != NULL) (void)cudaEventDestroy((*watch)->events[i]);
    free(*watch);
    *watch = NULL;
}

sh_status sh_cuda_watch_create(int n_points, sh_watch **out)
{
    sh_status st = SH_OK;
    sh_watch *watch = calloc(1, sizeof(*watch) + (size_t)n_points * sizeof(*watch->events));

    SH_CHECK(watch != NULL, SH_ERR_NO_MEMORY, "a watch of %d points", n_points);
    watch->n_points = n_points;
    SH_TRY(sh_cuda_enter());
    for (int i = 0; i < n_points; i++)
        SH_TRY(check(cudaEventCreate(&watch->events[i]), "an event"));
    *out = watch;
    watch = NULL;
out:
    sh_cuda_watch_destroy(&watch);
    return st;
}

sh_status sh_cuda_watch_put(sh_watch *watch, int point)
{
    return check(cudaEventRecord(watch->events[point], sh_cuda_stream()), "an event");
}

sh_status sh_cuda_watch_read(const sh_watch *watch, int from, int to, double *seconds)
{
    sh_status st = SH_OK;
    float ms = 0;

    SH_TRY(check(cudaEventSynchronize(watch->events[to]), "measuring"));
    SH_TRY(check(cudaEventElapsedTime(&ms, watch->events[from], watch->events[to]), "measuring"));
    *seconds = 1e-3 * (double)ms;
out:
    return st;
}

static sh_status free_bytes(size_t *n_bytes)
{
    sh_status st = SH_OK;
    size_t all_bytes = 0;

    SH_TRY(sh_cuda_enter());
    SH_TRY(check(cudaMemGetInfo(n_bytes, &all_bytes), "asking for its memory"));
out:
    return st;
}

sh_status sh_cuda_get_sizes(sh_cuda_sizes *out)
{
    enum { MOST_STREAM_BYTES = 1 << 30, SHARE = 8 };
    sh_status st = SH_OK;
    size_t room = 0;
    int cache_bytes = 0;

    SH_TRY(free_bytes(&room));
    SH_TRY(check(cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize, device),
                 "asking for its cache"));
    *out = (sh_cuda_sizes){.cache_bytes = (size_t)cache_bytes,
                           .stream_bytes =
                               room / SHARE < MOST_STREAM_BYTES ? room / SHARE : MOST_STREAM_BYTES,
                           .product = {16384, 4096, 4096}};
out:
    return st;
}

/* ---- sums and exchanges ---- */

struct sh_mark {
    cudaEvent_t event;
};

static sh_status copy_in(void *to, const void *host, size_t n_bytes)
{
    return settle(cudaMemcpyAsync(to, host, n_bytes, cudaMemcpyHostToDevice, sh_cuda_stream()),
                  "copying in");
}

static sh_status alloc_host(size_t n_bytes, void **memory)
{
    sh_status st = SH_OK;

    SH_TRY(sh_cuda_enter());
    SH_CHECK(cudaMallocHost(memory, n_bytes > 0 ? n_bytes : 1) == cudaSuccess, SH_ERR_NO_MEMORY,
             "%zu bytes of page-locked memory are not to be had; ulimit -l may set a limit",
             n_bytes);
out:
    return st;
}

static void free_host(void *memory)
{
    if (memory != NULL && sh_cuda_enter() == SH_OK) (void)cudaFreeHost(memory);
}

static sh_status send(sh_queue queue, void *to, const void *host, size_t n_bytes)
{
    return check(cudaMemcpyAsync(to, host, n_bytes, cudaMemcpyHostToDevice, sh_cuda_queue(queue)),
                 "copying in");
}

static sh_status fetch(sh_queue queue, void *host, const void *from, size_t n_bytes)
{
    return check(cudaMemcpyAsync(host, from, n_bytes, cudaMemcpyDeviceToHost, sh_cuda_queue(queue)),
                 "copying out");
}

static sh_status copy(sh_queue queue, float *to, const float *from, int64_t n)
{
    return check(cudaMemcpyAsync(to, from, (size_t)n * sizeof(*to), cudaMemcpyDeviceToDevice,
                                 sh_cuda_queue(queue)),
                 "copying");
}

static sh_status identify(char id[SH_DEVICE_ID], char text[SH_DEVICE_TEXT])
{
    sh_status st = SH_OK;
    struct cudaDeviceProp properties;

    SH_TRY(sh_cuda_enter());
    SH_TRY(check(cudaDeviceGetPCIBusId(id, SH_DEVICE_ID, device), "asking for its bus"));
    SH_TRY(check(cudaGetDeviceProperties(&properties, device), "asking for its name"));
    snprintf(text, SH_DEVICE_TEXT, "CUDA device %d of %d: %.100s at %s", device, n_devices,
             properties.name, id);
out:
    return st;
}

static void *stream_of(sh_queue queue)
{
    return sh_cuda_queue(queue);
}

static void mark_destroy(sh_mark **mark)
{
    if (*mark == NULL) return;
    if ((*mark)->event != NULL) (void)cudaEventDestroy((*mark)->event);
    free(*mark);
    *mark = NULL;
}

static sh_status mark_create(sh_mark **out)
{
    sh_status st = SH_OK;
    sh_mark *mark = calloc(1, sizeof(*mark));

    SH_CHECK(mark != NULL, SH_ERR_NO_MEMORY, "an event");
    SH_TRY(sh_cuda_enter());
    SH_TRY(check(cudaEventCreateWithFlags(&mark->event, cudaEventDisableTiming), "an event"));
    *out = mark;
    mark = NULL;
out:
    mark_destroy(&mark);
    return st;
}

static sh_status mark_put(sh_mark *mark, sh_queue queue)
{
    return check(cudaEventRecord(mark->event, sh_cuda_queue(queue)), "an event");
}

static sh_status mark_wait(const sh_mark *mark)
{
    return check(cudaEventSynchronize(mark->event), "an event");
}

static sh_status mark_reached(const sh_mark *mark, bool *reached)
{
    cudaError_t error = cudaEventQuery(mark->event);

    *reached = error == cudaSuccess;
    return error == cudaErrorNotReady ? SH_OK : check(error, "an event");
}

static sh_status follow(sh_queue queue, const sh_mark *mark)
{
    return check(cudaStreamWaitEvent(sh_cuda_queue(queue), mark->event, 0), "waiting for an event");
}

const sh_device sh_cuda_device = {.alloc = alloc_memory,
                                  .free = free_memory,
                                  .copy_in = copy_in,
                                  .add = sh_cuda_sum_add,
                                  .tree_sum = sh_cuda_sum_tree,
                                  .free_bytes = free_bytes,
                                  .alloc_host = alloc_host,
                                  .free_host = free_host,
                                  .send = send,
                                  .fetch = fetch,
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
