// SPDX-License-Identifier: Apache-2.0
#include "models/cuda/meter.h"

#include <pthread.h>
#include <stdlib.h>

#include "models/cuda/cudnn_tune.h"
#include "models/cuda/memory.h"

/* ---- what is held ---- */

typedef struct holding {
    struct holding *next;
    const void *memory;
    size_t n_bytes;
} holding;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static holding *holdings;
static size_t held;

/* Nothing depends on the count but what is told of it: without memory for it, it is too low. */
void sh_cuda_count_alloc(const void *memory, size_t n_bytes)
{
    holding *h = malloc(sizeof(*h));

    if (h == NULL) return;
    pthread_mutex_lock(&lock);
    *h = (holding){holdings, memory, n_bytes};
    holdings = h;
    held += n_bytes;
    pthread_mutex_unlock(&lock);
}

void sh_cuda_count_free(const void *memory)
{
    holding *found = NULL;

    pthread_mutex_lock(&lock);
    for (holding **at = &holdings; *at != NULL && found == NULL;) {
        if ((*at)->memory != memory) {
            at = &(*at)->next;
            continue;
        }
        found = *at;
        *at = found->next;
        held -= found->n_bytes;
    }
    pthread_mutex_unlock(&lock);
    free(found);
}

static size_t held_bytes(void)
{
    pthread_mutex_lock(&lock);
    size_t n_bytes = held;
    pthread_mutex_unlock(&lock);
    return n_bytes;
}

/* ---- memory's rate ---- */

enum { TRIES = 7 };

/** Vectors for streaming. */
typedef struct streams {
    sh_buffer *a, *b, *c;
    sh_watch *watch;
    int64_t n; /* floats of each */
} streams;

static float *floats_of(sh_buffer *buffer)
{
    return sh_cuda_device_ptr(buffer, 0);
}

static sh_status run_read(const streams *s)
{
    return sh_cuda_read_stream(floats_of(s->a), s->n, floats_of(s->c));
}

static sh_status run_triad(const streams *s)
{
    return sh_cuda_triad(floats_of(s->c), floats_of(s->a), floats_of(s->b), 3, s->n);
}

/* The first is not counted: it may have to be loaded. */
static sh_status time_streams(const streams *s, sh_status (*run)(const streams *s), int n_vectors,
                              double *bytes_per_second)
{
    sh_status st = SH_OK;
    double best = 0, seconds = 0;

    for (int i = -1; i < TRIES; i++) {
        SH_TRY(sh_cuda_watch_put(s->watch, 0));
        SH_TRY(run(s));
        SH_TRY(sh_cuda_watch_put(s->watch, 1));
        SH_TRY(sh_cuda_watch_read(s->watch, 0, 1, &seconds));
        if (i >= 0 && (best == 0 || seconds < best)) best = seconds;
    }
    *bytes_per_second = (double)n_vectors * (double)s->n * sizeof(float) / best;
out:
    return st;
}

static int64_t floats_in(size_t n_bytes)
{
    return (int64_t)(n_bytes / sizeof(float)) / SH_STREAM_PIECE * SH_STREAM_PIECE;
}

static sh_status measure_memory(const sh_cuda_sizes *sizes, sh_peaks *out)
{
    sh_status st = SH_OK;
    streams s = {.n = floats_in(sizes->stream_bytes)};
    size_t n_bytes = (size_t)s.n * sizeof(float);

    SH_CHECK(s.n > 0, SH_ERR_NO_MEMORY, "the device has no memory left to measure with");
    SH_TRY(sh_cuda_alloc(n_bytes, &s.a));
    SH_TRY(sh_cuda_alloc(n_bytes, &s.b));
    SH_TRY(sh_cuda_alloc(n_bytes, &s.c));
    SH_TRY(sh_cuda_watch_create(2, &s.watch));
    SH_TRY(time_streams(&s, run_read, 1, &out->read_bytes));
    SH_TRY(time_streams(&s, run_triad, 3, &out->triad_bytes));
    out->bytes = (out->read_bytes + out->triad_bytes) / 2;
out:
    sh_cuda_watch_destroy(&s.watch);
    sh_cuda_free(&s.a);
    sh_cuda_free(&s.b);
    sh_cuda_free(&s.c);
    return st;
}

/* ---- arithmetic ---- */

/* A product of matrices is a convolution of windows of one pixel. */
static sh_status measure_product(const sh_cuda_sizes *sizes, sh_dtype dtype, double *flops)
{
    sh_status st = SH_OK;
    const int64_t rows = sizes->product[0], columns = sizes->product[1], terms = sizes->product[2];
    const int64_t side = 16, n = rows / (side * side) > 0 ? rows / (side * side) : 1;
    const sh_cudnn_conv conv = {.kind = SH_CUDNN_FORWARD,
                                .dtype = dtype,
                                .x = {n, terms, rows / n / side, side},
                                .y = {n, columns, rows / n / side, side},
                                .x_pitch = terms,
                                .kernel = {1, 1},
                                .stride = {1, 1},
                                .dilation = {1, 1},
                                .may_vary = true};
    double seconds = 0;

    *flops = 0;
    if (sh_cuda_cudnn() == NULL) goto out;
    SH_TRY(sh_cudnn_fastest(&conv, &seconds));
    if (seconds > 0) *flops = 2.0 * (double)(rows * columns) * (double)terms / seconds;
out:
    return st;
}

static sh_status measure_peaks(sh_peaks *out)
{
    sh_status st = SH_OK;
    sh_cuda_sizes sizes;
    sh_peaks peaks = {0};

    SH_TRY(sh_cuda_get_sizes(&sizes));
    SH_TRY(measure_memory(&sizes, &peaks));
    SH_TRY(measure_product(&sizes, SH_F32, &peaks.f32_flops));
    SH_TRY(measure_product(&sizes, SH_BF16, &peaks.bf16_flops));
    *out = peaks;
out:
    return st;
}

/* ---- cold caches ---- */

enum { CACHES = 3 }; /* so many times the cache is read to push all else out */

struct sh_flush {
    sh_buffer *vector, *sums;
    int64_t n;
};

static void flush_destroy(sh_flush **flush)
{
    if (*flush == NULL) return;
    sh_cuda_free(&(*flush)->vector);
    sh_cuda_free(&(*flush)->sums);
    free(*flush);
    *flush = NULL;
}

static sh_status flush_create(sh_flush **out)
{
    sh_status st = SH_OK;
    sh_cuda_sizes sizes;
    sh_flush *flush = calloc(1, sizeof(*flush));

    SH_CHECK(flush != NULL, SH_ERR_NO_MEMORY, "cache flush");
    SH_TRY(sh_cuda_get_sizes(&sizes));
    flush->n = floats_in(CACHES * sizes.cache_bytes) + SH_STREAM_PIECE;
    SH_TRY(sh_cuda_alloc((size_t)flush->n * sizeof(float), &flush->vector));
    SH_TRY(sh_cuda_alloc((size_t)flush->n * sizeof(float) / SH_STREAM_SHARE, &flush->sums));
    *out = flush;
    flush = NULL;
out:
    flush_destroy(&flush);
    return st;
}

/* By reading: what was written instead would have to leave the cache while others are timed. */
static sh_status flush_run(sh_flush *flush)
{
    return sh_cuda_read_stream(floats_of(flush->vector), flush->n, floats_of(flush->sums));
}

const sh_meter sh_cuda_meter = {
    .peaks_of = "arithmetic: the fastest of cuDNN's engines for a product of matrices, in f32 "
                "without tensor cores; memory by reading, triad",
    .peaks = measure_peaks,
    .watch_create = sh_cuda_watch_create,
    .watch_destroy = sh_cuda_watch_destroy,
    .watch_put = sh_cuda_watch_put,
    .watch_read = sh_cuda_watch_read,
    .flush_create = flush_create,
    .flush_run = flush_run,
    .flush_destroy = flush_destroy,
    .held_bytes = held_bytes};
