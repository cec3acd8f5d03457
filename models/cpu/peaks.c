// SPDX-License-Identifier: Apache-2.0
#include "models/cpu/peaks.h"

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

sh_status sh_cpu_measure_peaks(sh_cpu_peaks *out)
{
    sh_status st = SH_OK;
    sh_buffer *buffer = NULL;

    SH_TRY(sh_host_memory_alloc(3 * (size_t)STREAM_ELEMS * sizeof(float), &buffer));
    float *a = sh_host_memory_device_ptr(buffer, 0), *b = a + STREAM_ELEMS, *c = b + STREAM_ELEMS;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < 3 * (int64_t)STREAM_ELEMS; i++) a[i] = 1;
    *out = (sh_cpu_peaks){.f32_flops = flops_per_second(SH_F32),
                          .bf16_flops = flops_per_second(SH_BF16),
                          .read_bytes = read_per_second(a),
                          .triad_bytes = triad_per_second(a, b, c)};
    out->bytes = (out->read_bytes + out->triad_bytes) / 2;
out:
    sh_host_memory_free(&buffer);
    return st;
}

/* ---- cold caches ---- */

struct sh_cpu_flush {
    sh_buffer *buffer;
};

sh_status sh_cpu_flush_create(sh_cpu_flush **out)
{
    sh_status st = SH_OK;
    sh_cpu_flush *flush = calloc(1, sizeof(*flush));

    SH_CHECK(flush != NULL, SH_ERR_NO_MEMORY, "cache flush");
    SH_TRY(sh_host_memory_alloc(flush_bytes, &flush->buffer));
    *out = flush;
    flush = NULL;
out:
    sh_cpu_flush_destroy(&flush);
    return st;
}

/* Each thread's part is larger than its core's own caches, all together than the shared one. */
void sh_cpu_flush_run(sh_cpu_flush *flush)
{
    volatile char *at = sh_host_memory_device_ptr(flush->buffer, 0);

#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < flush_bytes; i += 64) at[i] = (char)i;
}

void sh_cpu_flush_destroy(sh_cpu_flush **flush)
{
    if (*flush == NULL) return;
    sh_host_memory_free(&(*flush)->buffer);
    free(*flush);
    *flush = NULL;
}
