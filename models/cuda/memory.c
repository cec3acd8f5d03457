// SPDX-License-Identifier: Apache-2.0
/* A process has one device, chosen at its first allocation, and one stream: a kernel sees what the
 * one before it wrote, and a copy waits for both. */
#include "models/cuda/memory.h"

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdlib.h>

#include "models/cuda/verdict.h"

struct sh_buffer {
    size_t n_bytes;
    char *memory; /* on the device */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static cudaError_t opened; /* what became of choosing a device */
static int device;
static cudaStream_t stream;

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
    int n_devices = 0;

    opened = cudaGetDeviceCount(&n_devices);
    if (opened == cudaSuccess && n_devices == 0) opened = cudaErrorNoDevice;
    if (opened != cudaSuccess) return;
    device = n_devices > 1 ? local_rank() % n_devices : 0;
    opened = cudaSetDevice(device);
    if (opened == cudaSuccess) opened = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
}

/** The device of this thread; another one may have chosen it. */
static sh_status enter_device(void)
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

struct CUstream_st *sh_cuda_stream(void)
{
    return stream;
}

/** Wait for what was asked of the device. */
static sh_status settle(cudaError_t asked, const char *what)
{
    sh_status st = SH_OK;
    cudaError_t error = asked != cudaSuccess ? asked : cudaStreamSynchronize(stream);

    SH_CHECK(error == cudaSuccess, SH_ERR_INTERNAL, "CUDA device %d: %s: %s", device, what,
             cudaGetErrorString(error));
out:
    return st;
}

sh_status sh_cuda_alloc(size_t n_bytes, sh_buffer **out)
{
    sh_status st = SH_OK;
    sh_buffer *buffer = NULL;
    void *memory = NULL;

    SH_TRY(enter_device());
    buffer = calloc(1, sizeof(*buffer));
    SH_CHECK(buffer != NULL, SH_ERR_NO_MEMORY, "buffer of %zu bytes", n_bytes);
    SH_CHECK(cudaMalloc(&memory, n_bytes > 0 ? n_bytes : 1) == cudaSuccess, SH_ERR_NO_MEMORY,
             "CUDA device %d has no %zu bytes left: a smaller batch needs less, and nvidia-smi "
             "shows who else is there",
             device, n_bytes);
    *buffer = (sh_buffer){.n_bytes = n_bytes, .memory = memory};
    SH_TRY(settle(cudaMemsetAsync(memory, 0, n_bytes, stream), "zeroing a buffer"));
    *out = buffer;
    buffer = NULL;
out:
    sh_cuda_free(&buffer);
    return st;
}

void sh_cuda_free(sh_buffer **buffer)
{
    if (*buffer == NULL) return;
    if ((*buffer)->memory != NULL && enter_device() == SH_OK) (void)cudaFree((*buffer)->memory);
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
    SH_TRY(enter_device());
    SH_TRY(
        settle(cudaMemcpyAsync(to->memory + offset, host, n_bytes, cudaMemcpyHostToDevice, stream),
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
    SH_TRY(enter_device());
    SH_TRY(settle(
        cudaMemcpyAsync(host, from->memory + offset, n_bytes, cudaMemcpyDeviceToHost, stream),
        "copying out"));
out:
    return st;
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

const char *sh_cuda_examine(char *found, size_t size)
{
    sh_cuda_facts facts = {0};
    struct cudaDeviceProp properties;

    (void)cudaDriverGetVersion(&facts.driver);
    (void)cudaRuntimeGetVersion(&facts.runtime);
    pthread_once(&once, choose_device);
    if (opened == cudaSuccess) opened = cudaGetDeviceProperties(&properties, device);
    if (opened == cudaSuccess) opened = cudaMemGetInfo(&facts.free_bytes, &facts.all_bytes);
    if (opened == cudaSuccess) {
        facts.name = properties.name;
        facts.capability = 10 * properties.major + properties.minor;
    } else {
        facts.error = cudaGetErrorString(opened);
    }
    return sh_cuda_verdict(&facts, found, size);
}
