// SPDX-License-Identifier: Apache-2.0
#include "models/cpu/peaks.h"

#include <assert.h>
#include <omp.h>
#include <stdlib.h>

#include "base/clock.h"
#include "models/cpu/simd/simd.h"
#include "models/host_memory.h"

enum { TRIES = 7, STREAM_ELEMS = 16 << 20, PIECE = 1 << 14 };
static const size_t flush_bytes = (size_t)96 << 20;

static double flops_per_second(sh_dtype dtype)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    double best = 0;

    for (int t = 0; t < TRIES; t++) {
        double done = 0, start = sh_clock_seconds();
#pragma omp parallel reduction(+ : done)
        done += simd->burn(1 << 20, dtype);
        double rate = done / (sh_clock_seconds() - start);
        if (rate > best) best = rate;
    }
    return best;
}

static double read_per_second(const float *a)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    double best = 0;

    for (int t = 0; t < TRIES; t++) {
        double start = sh_clock_seconds();
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < STREAM_ELEMS; i += PIECE) {
            float sum[16];
            simd->pool(a + i, PIECE / 16, SH_F32, sum);
        }
        double rate = STREAM_ELEMS * sizeof(float) / (sh_clock_seconds() - start);
        if (rate > best) best = rate;
    }
    return best;
}

static double triad_per_second(const float *a, const float *b, float *c)
{
    const sh_cpu_simd *simd = sh_cpu_simd_get();
    double best = 0;

    for (int t = 0; t < TRIES; t++) {
        double start = sh_clock_seconds();
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < STREAM_ELEMS; i += PIECE) simd->triad(a + i, b + i, c + i, PIECE);
        double rate = 3 * STREAM_ELEMS * sizeof(float) / (sh_clock_seconds() - start);
        if (rate > best) best = rate;
    }
    return best;
}

static sh_status measure_peaks(sh_peaks *out)
{
    sh_status st = SH_OK;
    sh_buffer *buffer = NULL;

    SH_TRY(sh_host_memory_alloc(3 * (size_t)STREAM_ELEMS * sizeof(float), &buffer));
    float *a = sh_host_memory_device_ptr(buffer, 0), *b = a + STREAM_ELEMS, *c = b + STREAM_ELEMS;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < 3 * (int64_t)STREAM_ELEMS; i++) a[i] = 1;
    *out = (sh_peaks){.f32_flops = flops_per_second(SH_F32),
                      .bf16_flops = flops_per_second(SH_BF16),
                      .read_bytes = read_per_second(a),
                      .triad_bytes = triad_per_second(a, b, c)};
    out->bytes = (out->read_bytes + out->triad_bytes) / 2;
out:
    sh_host_memory_free(&buffer);
    return st;
}

/* ---- the clock ---- */

struct sh_watch {
    int n_points;
    double seconds[]; /* [n_points] */
};

static sh_status watch_create(int n_points, sh_watch **out)
{
    sh_status st = SH_OK;
    sh_watch *watch = calloc(1, sizeof(*watch) + (size_t)n_points * sizeof(double));

    SH_CHECK(watch != NULL, SH_ERR_NO_MEMORY, "a watch of %d points", n_points);
    watch->n_points = n_points;
    *out = watch;
out:
    return st;
}

static void watch_destroy(sh_watch **watch)
{
    free(*watch);
    *watch = NULL;
}

static sh_status watch_put(sh_watch *watch, int point)
{
    assert(point >= 0 && point < watch->n_points);
    watch->seconds[point] = sh_clock_seconds();
    return SH_OK;
}

static sh_status watch_read(const sh_watch *watch, int from, int to, double *seconds)
{
    *seconds = watch->seconds[to] - watch->seconds[from];
    return SH_OK;
}

/* ---- cold caches ---- */

struct sh_flush {
    sh_buffer *buffer;
};

static void flush_destroy(sh_flush **flush)
{
    if (*flush == NULL) return;
    sh_host_memory_free(&(*flush)->buffer);
    free(*flush);
    *flush = NULL;
}

static sh_status flush_create(sh_flush **out)
{
    sh_status st = SH_OK;
    sh_flush *flush = calloc(1, sizeof(*flush));

    SH_CHECK(flush != NULL, SH_ERR_NO_MEMORY, "cache flush");
    SH_TRY(sh_host_memory_alloc(flush_bytes, &flush->buffer));
    *out = flush;
    flush = NULL;
out:
    flush_destroy(&flush);
    return st;
}

/* Each thread's part is larger than its core's own caches, all together than the shared one. */
static sh_status flush_run(sh_flush *flush)
{
    volatile char *at = sh_host_memory_device_ptr(flush->buffer, 0);

#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < flush_bytes; i += 64) at[i] = (char)i;
    return SH_OK;
}

const sh_meter sh_cpu_meter = {.peaks_of = "arithmetic from registers; memory by reading, triad",
                               .peaks = measure_peaks,
                               .watch_create = watch_create,
                               .watch_destroy = watch_destroy,
                               .watch_put = watch_put,
                               .watch_read = watch_read,
                               .flush_create = flush_create,
                               .flush_run = flush_run,
                               .flush_destroy = flush_destroy};
