// SPDX-License-Identifier: Apache-2.0
/* What stands in for cuDNN: convolutions as loops, and engines with the merits and faults that real
 * ones have. Convolutions of one channel have no engine. */
#include <stdio.h>
#include <stdlib.h>

#include "models/cuda/cudnn_graph.h"
#include "models/cuda/emulator/order.h"

enum { WORKSPACE_BYTES = 1000 };

typedef struct engine {
    const char *choice;
    sh_dtype dw; /* for a gradient of weights of this type */
    float ms;
    bool plans, repeats;
    bool is_noted; /* as not repeatable */
} engine;

/* The best guess is not the fastest, which cannot be planned; the next two give other bytes each
 * time, and one says so. */
static const engine engines[] = {
    {"e1 2=7", SH_BF16, 4, true, true, false},      {"e2", SH_BF16, 1, false, true, false},
    {"e5", SH_BF16, 1.5f, true, false, true},       {"e3", SH_BF16, 2, true, false, false},
    {"e4 2=7 13=1", SH_BF16, 3, true, true, false}, {"e9", SH_F32, 3.5f, true, true, false},
};

struct sh_cudnn_plan {
    sh_cudnn_conv conv;
    const engine *engine;
    int n_runs;
    double *sums; /* of the result's elements */
};

/** Only the gradient of bf16 weights has two forms, the one in f32 with an engine of its own. */
static bool serves(const engine *e, const sh_cudnn_conv *c)
{
    bool is_copied = c->kind == SH_CUDNN_GRAD_W && c->dtype == SH_BF16 && c->dw == SH_F32;

    return (e->dw == SH_F32) == is_copied && c->x[1] > 1 && (!e->is_noted || c->may_vary);
}

static sh_status describe(char *out, size_t size)
{
    snprintf(out, size, "no cuDNN, an emulator");
    return SH_OK;
}

static sh_status choices(const sh_cudnn_conv *conv, int max, sh_cudnn_choice *out, int *n)
{
    *n = 0;
    for (size_t i = 0; i < SH_COUNT(engines) && *n < max; i++) {
        if (!serves(&engines[i], conv)) continue;
        snprintf(out[(*n)++].text, SH_CUDNN_CHOICE_BYTES, "%s", engines[i].choice);
    }
    return SH_OK;
}

static size_t workspace_bytes(const sh_cudnn_plan *p)
{
    (void)p;
    return WORKSPACE_BYTES;
}

/* ---- convolutions ---- */

static float get(const void *from, sh_dtype dtype, int64_t i)
{
    return dtype == SH_BF16 ? sh_bf16_to_f32(((const uint16_t *)from)[i])
                            : ((const float *)from)[i];
}

static void put(const void *to, sh_dtype dtype, int64_t i, double value)
{
    if (dtype == SH_BF16)
        ((uint16_t *)to)[i] = sh_bf16_from_f32((float)value);
    else
        ((float *)to)[i] = (float)value;
}

/** A product x * w * y-position of the convolution: elements of the three tensors. */
typedef struct term {
    int64_t x, w, y;
} term;

/** Call add for every term. */
static void each_term(const sh_cudnn_conv *c, double *sums,
                      void (*add)(const sh_cudnn_conv *c, const sh_cudnn_operands *at, term t,
                                  double *sums),
                      const sh_cudnn_operands *at)
{
    const int64_t C = c->x[1], H = c->x[2], W = c->x[3], O = c->y[1], OH = c->y[2], OW = c->y[3];
    const int64_t KH = c->kernel[0], KW = c->kernel[1];

    for (int64_t pixel = 0; pixel < c->y[0] * OH * OW; pixel++) {
        for (int64_t tap = 0; tap < KH * KW; tap++) {
            int64_t h = pixel / OW % OH * c->stride[0] - c->pad[0] + tap / KW * c->dilation[0];
            int64_t w = pixel % OW * c->stride[1] - c->pad[1] + tap % KW * c->dilation[1];
            if (h < 0 || h >= H || w < 0 || w >= W) continue;
            int64_t x = ((pixel / OW / OH * H + h) * W + w) * c->x_pitch;
            for (int64_t o = 0; o < O; o++) {
                for (int64_t k = 0; k < C; k++)
                    add(c, at, (term){x + k, (o * KH * KW + tap) * C + k, pixel * O + o}, sums);
            }
        }
    }
}

static void add_y(const sh_cudnn_conv *c, const sh_cudnn_operands *at, term t, double *sums)
{
    sums[t.y] += (double)get(at->x, c->dtype, t.x) * get(at->w, c->dtype, t.w);
}

static void add_x(const sh_cudnn_conv *c, const sh_cudnn_operands *at, term t, double *sums)
{
    sums[t.x] += (double)get(at->y, c->dtype, t.y) * get(at->w, c->dtype, t.w);
}

static void add_w(const sh_cudnn_conv *c, const sh_cudnn_operands *at, term t, double *sums)
{
    sums[t.w] += (double)get(at->x, c->dtype, t.x) * get(at->y, c->dtype, t.y);
}

static int64_t elems(const int64_t dims[4])
{
    return dims[0] * dims[1] * dims[2] * dims[3];
}

/** What a run writes. */
typedef struct result {
    const void *to;
    sh_dtype dtype;
    int64_t n;
    void (*add)(const sh_cudnn_conv *c, const sh_cudnn_operands *at, term t, double *sums);
} result;

static result result_of(const sh_cudnn_conv *c, const sh_cudnn_operands *at)
{
    const result results[] = {
        [SH_CUDNN_FORWARD] = {at->y, c->dtype, elems(c->y), add_y},
        [SH_CUDNN_GRAD_X] = {at->x, c->dtype, elems(c->x), add_x},
        [SH_CUDNN_GRAD_W] = {at->w, c->dw, c->y[1] * c->x[1] * c->kernel[0] * c->kernel[1], add_w},
    };

    return results[c->kind];
}

typedef struct queued_run {
    sh_cudnn_plan *plan;
    sh_cudnn_operands at;
} queued_run;

static void run_queued(void *closure)
{
    const queued_run *q = closure;
    sh_cudnn_plan *p = q->plan;
    const result r = result_of(&p->conv, &q->at);

    memset(p->sums, 0, (size_t)r.n * sizeof(*p->sums));
    each_term(&p->conv, p->sums, r.add, &q->at);
    for (int64_t i = 0; i < r.n; i++) put(r.to, r.dtype, i, p->sums[i]);
    if (!p->engine->repeats && p->n_runs % 2 == 1) put(r.to, r.dtype, 0, p->sums[0] + 1);
    memset(q->at.workspace, 0xff, WORKSPACE_BYTES);
    p->n_runs++;
    sh_emulator_pass(p->engine->ms);
}

static sh_status run(sh_cudnn_plan *p, const sh_cudnn_operands *at)
{
    queued_run q = {p, *at};

    sh_emulator_queue(run_queued, &q, sizeof(q));
    return SH_OK;
}

static void release(sh_cudnn_plan **p)
{
    if (*p != NULL) free((*p)->sums);
    free(*p);
    *p = NULL;
}

static int examine(sh_finding *out, int max)
{
    if (max > 0) *out = (sh_finding){.what = "cudnn", .found = "loops, for tests"};
    return max > 0;
}

static sh_status plan(const sh_cudnn_conv *conv, const char *choice, sh_cudnn_plan **out)
{
    sh_status st = SH_OK;
    sh_cudnn_plan *p = NULL;
    size_t i = 0;

    while (i < SH_COUNT(engines) && strcmp(engines[i].choice, choice) != 0) i++;
    SH_CHECK(i < SH_COUNT(engines) && engines[i].plans && serves(&engines[i], conv),
             SH_ERR_UNSUPPORTED, "no engine %s", choice);
    p = malloc(sizeof(*p));
    SH_CHECK(p != NULL, SH_ERR_NO_MEMORY, "a plan");
    *p = (sh_cudnn_plan){.conv = *conv, .engine = &engines[i]};
    p->sums = malloc((size_t)result_of(conv, &(sh_cudnn_operands){0}).n * sizeof(*p->sums));
    SH_CHECK(p->sums != NULL, SH_ERR_NO_MEMORY, "a plan");
    *out = p;
    p = NULL;
out:
    release(&p);
    return st;
}

static const sh_cudnn_api emulated = {.describe = describe,
                                      .examine = examine,
                                      .choices = choices,
                                      .plan = plan,
                                      .workspace_bytes = workspace_bytes,
                                      .run = run,
                                      .release = release};

const sh_cudnn_api *sh_cuda_cudnn(void)
{
    return &emulated;
}
