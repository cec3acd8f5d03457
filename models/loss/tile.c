// SPDX-License-Identifier: Apache-2.0
#include "models/loss/tile.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/loss/internal.h"

#define TILE_NAME(name) portable_##name
#define TILE_LABEL "portable"
#define TILE_TARGET
#include "models/loss/tile_body.h"
#undef TILE_NAME
#undef TILE_LABEL
#undef TILE_TARGET

#if defined(__x86_64__)
#define TILE_NAME(name) avx2_##name
#define TILE_LABEL "avx2"
#define TILE_TARGET __attribute__((target("avx2,fma")))
#include "models/loss/tile_body.h"
#undef TILE_NAME
#undef TILE_LABEL
#undef TILE_TARGET
#endif

int sh_tile_kernels_list(const sh_tile_kernels *list[SH_TILE_MAX_KERNELS])
{
    int n = 0;

#if defined(__x86_64__)
    const sh_tile_kernels *wide = sh_tile_kernels_avx512();

    if (wide != NULL) list[n++] = wide;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list[n++] = &avx2_kernels;
#endif
    list[n++] = &portable_kernels;
    return n;
}

static int64_t panels_of(int64_t n)
{
    return (n + SH_TILE_COLS - 1) / SH_TILE_COLS;
}

size_t sh_packed_bytes(int64_t n_max, int64_t dim)
{
    return (size_t)((panels_of(n_max) * SH_TILE_COLS + 1) * (dim + 1)) * sizeof(float);
}

sh_status sh_packed_create(int64_t n_max, int64_t dim, sh_packed *out)
{
    sh_status st = SH_OK;
    size_t rows = (size_t)(panels_of(n_max) * SH_TILE_COLS);
    sh_packed p = {.dim = dim};

    p.panels = aligned_alloc(64, rows * (size_t)dim * sizeof(float)); /* 48 floats: 3 x 64 bytes */
    p.norms = aligned_alloc(64, rows * sizeof(float));
    p.mean = calloc((size_t)dim, sizeof(float));
    SH_CHECK(p.panels != NULL && p.norms != NULL && p.mean != NULL, SH_ERR_NO_MEMORY,
             "mining: %zu bytes for %lld rows of %lld", sh_packed_bytes(n_max, dim),
             (long long)n_max, (long long)dim);
    *out = p;
    p = (sh_packed){0};
out:
    sh_packed_clear(&p);
    return st;
}

void sh_packed_clear(sh_packed *p)
{
    free(p->panels);
    free(p->norms);
    free(p->mean);
    *p = (sh_packed){0};
}

static void fill_mean(sh_packed *p, const float *x)
{
    double sum[64];

    for (int64_t k0 = 0; k0 < p->dim; k0 += 64) {
        int64_t m = p->dim - k0 < 64 ? p->dim - k0 : 64;

        memset(sum, 0, sizeof(sum));
        for (int64_t i = 0; i < p->n; i++)
            for (int64_t k = 0; k < m; k++) sum[k] += x[i * p->dim + k0 + k];
        for (int64_t k = 0; k < m; k++) p->mean[k0 + k] = (float)(sum[k] / (double)p->n);
    }
}

static void fill_panel(sh_packed *p, const float *x, int64_t panel)
{
    float *out = p->panels + panel * p->dim * SH_TILE_COLS;

    for (int64_t c = 0; c < SH_TILE_COLS; c++) {
        int64_t i = panel * SH_TILE_COLS + c;

        for (int64_t k = 0; k < p->dim; k++)
            out[k * SH_TILE_COLS + c] = i < p->n ? x[i * p->dim + k] - p->mean[k] : 0;
    }
}

void sh_packed_fill(sh_packed *p, const sh_tile_kernels *kernels, const float *x, int64_t n,
                    int n_threads)
{
    p->n = n;
    p->n_panels = panels_of(n);
    fill_mean(p, x);
#pragma omp parallel for schedule(static) num_threads(n_threads)
    for (int64_t panel = 0; panel < p->n_panels; panel++) {
        fill_panel(p, x, panel);
        kernels->norms(p, panel);
    }
}

void sh_lanes_reset(sh_lanes *lanes, float value)
{
    for (int l = 0; l < SH_LANES; l++) {
        lanes->value[l] = value;
        lanes->index[l] = -1;
    }
}

int32_t sh_lanes_winner(const sh_lanes *lanes, float sign)
{
    int best = 0;

    for (int l = 1; l < SH_LANES; l++) {
        float here = sign * lanes->value[l], there = sign * lanes->value[best];
        bool first = lanes->index[l] >= 0 && lanes->index[l] < lanes->index[best];

        if (lanes->index[best] < 0 || here < there || (here == there && first)) best = l;
    }
    return lanes->index[best];
}
