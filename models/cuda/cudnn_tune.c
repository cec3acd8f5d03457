// SPDX-License-Identifier: Apache-2.0
/* A choice as text: cuDNN's, with " f32" behind it where bf16 weights have their gradient in f32;
 * or "plain", for no engine of cuDNN. */
#include "models/cuda/cudnn_tune.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "models/cuda/choices.h"
#include "models/cuda/memory.h"
#include "models/cuda/repack.h"

enum {
    MAX_CHOICES = 10,         /* of one form that are measured */
    N_RUNS = 5,               /* of which the fastest counts, after one that is not timed */
    MOST_WORKSPACE_MB = 2048, /* a plan that wants more is not taken */
};

static const char plain[] = "plain", in_f32[] = " f32";

/** A form of the result with one of its choices. */
typedef struct candidate {
    sh_cudnn_conv conv;
    char choice[SH_CHOICE_BYTES];
    double seconds;
} candidate;

/** Where operands lie: buffers of x, weights, y and the workspace. */
typedef struct bench {
    sh_watch *watch;
    sh_buffer *x, *w, *y, *workspace;
    size_t x_bytes, w_bytes, y_bytes;
} bench;

/* ---- choices as text ---- */

static sh_status plan_choice(sh_cudnn_conv *conv, const char *choice, sh_cudnn_plan **plan)
{
    sh_status st = SH_OK;
    char text[SH_CHOICE_BYTES];

    snprintf(text, sizeof(text), "%s", choice);
    char *form = strstr(text, in_f32);
    if (form != NULL) {
        *form = '\0';
        conv->dw = SH_F32;
    }
    SH_TRY(sh_cuda_cudnn()->plan(conv, text, plan));
    size_t n_bytes = sh_cuda_cudnn()->workspace_bytes(*plan);
    if (n_bytes >> 20 > MOST_WORKSPACE_MB) {
        sh_cuda_cudnn()->release(plan);
        SH_FAIL(SH_ERR_UNSUPPORTED, "an engine of cuDNN wants %zu MB", n_bytes >> 20);
    }
out:
    return st;
}

/** What cuDNN proposes for one form. */
static sh_status add_form(const sh_cudnn_conv *conv, sh_dtype dw, candidate *out, int *n)
{
    sh_status st = SH_OK;
    sh_cudnn_choice choices[MAX_CHOICES];
    sh_cudnn_conv form = *conv;
    bool is_copied = dw != conv->dtype && conv->kind == SH_CUDNN_GRAD_W;
    int n_choices = 0;

    form.dw = dw;
    SH_TRY(sh_cuda_cudnn()->choices(&form, MAX_CHOICES, choices, &n_choices));
    for (int i = 0; i < n_choices; i++) {
        candidate *c = &out[(*n)++];
        *c = (candidate){.conv = form};
        int n_chars = snprintf(c->choice, sizeof(c->choice), "%s%s", choices[i].text,
                               is_copied ? in_f32 : "");
        SH_CHECK(n_chars < (int)sizeof(c->choice), SH_ERR_INTERNAL, "a long choice");
    }
out:
    return st;
}

/* ---- measuring ---- */

static size_t elems(const int64_t dims[4])
{
    return (size_t)(dims[0] * dims[1] * dims[2] * dims[3]);
}

static size_t x_elems(const sh_cudnn_conv *c)
{
    return elems(c->x) / (size_t)c->x[1] * (size_t)c->x_pitch;
}

static size_t n_weights(const sh_cudnn_conv *c)
{
    return (size_t)(c->y[1] * c->x[1] * c->kernel[0] * c->kernel[1]);
}

static void close_bench(bench *b)
{
    sh_cuda_watch_destroy(&b->watch);
    sh_cuda_free(&b->x);
    sh_cuda_free(&b->w);
    sh_cuda_free(&b->y);
    sh_cuda_free(&b->workspace);
}

/** Fill every operand, results too: what a kernel does not write differs from run to run. */
static void fill(const bench *b, const sh_cudnn_conv *c, uint32_t seed)
{
    sh_dtype w = c->kind == SH_CUDNN_GRAD_W ? SH_F32 : c->dtype;

    sh_cuda_fill(c->dtype, sh_cuda_device_ptr(b->x, 0), (int64_t)x_elems(c),
                 c->kind == SH_CUDNN_GRAD_X ? seed : 1);
    sh_cuda_fill(c->dtype, sh_cuda_device_ptr(b->y, 0), (int64_t)elems(c->y),
                 c->kind == SH_CUDNN_FORWARD ? seed : 2);
    sh_cuda_fill(w, sh_cuda_device_ptr(b->w, 0), (int64_t)n_weights(c),
                 c->kind == SH_CUDNN_GRAD_W ? seed : 3);
}

static sh_status open_bench(const sh_cudnn_conv *c, bench *b)
{
    sh_status st = SH_OK;

    b->x_bytes = x_elems(c) * sh_dtype_size(c->dtype);
    b->y_bytes = elems(c->y) * sh_dtype_size(c->dtype);
    b->w_bytes = n_weights(c) * sizeof(float);
    SH_TRY(sh_cuda_watch_create(2, &b->watch));
    SH_TRY(sh_cuda_alloc(b->x_bytes, &b->x));
    SH_TRY(sh_cuda_alloc(b->w_bytes, &b->w));
    SH_TRY(sh_cuda_alloc(b->y_bytes, &b->y));
    fill(b, c, 4);
    SH_TRY(sh_cuda_launched("fill"));
out:
    return st;
}

/** Memory enough for the plan's workspace. */
static sh_status reserve_workspace(bench *b, const sh_cudnn_plan *plan)
{
    sh_status st = SH_OK;
    size_t n_bytes = sh_cuda_cudnn()->workspace_bytes(plan);

    if (b->workspace != NULL && sh_cuda_bytes(b->workspace) >= n_bytes) goto out;
    sh_cuda_free(&b->workspace);
    SH_TRY(sh_cuda_alloc(n_bytes + 1, &b->workspace));
out:
    return st;
}

static sh_status run_once(const bench *b, sh_cudnn_plan *plan)
{
    const sh_cudnn_operands at = {.x = sh_cuda_device_ptr(b->x, 0),
                                  .w = sh_cuda_device_ptr(b->w, 0),
                                  .y = sh_cuda_device_ptr(b->y, 0),
                                  .workspace = sh_cuda_device_ptr(b->workspace, 0)};

    return sh_cuda_cudnn()->run(plan, &at);
}

static sh_status time_candidate(bench *b, candidate *c)
{
    sh_status st = SH_OK;
    sh_cudnn_plan *plan = NULL;
    double seconds = 0;

    SH_TRY(plan_choice(&c->conv, c->choice, &plan));
    SH_TRY(reserve_workspace(b, plan));
    SH_TRY(run_once(b, plan));
    for (int i = 0; i < N_RUNS; i++) {
        SH_TRY(sh_cuda_watch_put(b->watch, 0));
        SH_TRY(run_once(b, plan));
        SH_TRY(sh_cuda_watch_put(b->watch, 1));
        SH_TRY(sh_cuda_watch_read(b->watch, 0, 1, &seconds));
        if (i == 0 || seconds < c->seconds) c->seconds = seconds;
    }
out:
    sh_cuda_cudnn()->release(&plan);
    return st;
}

/** The result of a run over memory filled from seed, malloc'd. */
static sh_status result_of(const bench *b, const candidate *c, sh_cudnn_plan *plan, uint32_t seed,
                           size_t *n_bytes, void **out)
{
    sh_status st = SH_OK;
    const sh_buffer *const results[] = {
        [SH_CUDNN_FORWARD] = b->y, [SH_CUDNN_GRAD_X] = b->x, [SH_CUDNN_GRAD_W] = b->w};
    const size_t sizes[] = {[SH_CUDNN_FORWARD] = b->y_bytes,
                            [SH_CUDNN_GRAD_X] = b->x_bytes,
                            [SH_CUDNN_GRAD_W] = n_weights(&c->conv) * sh_dtype_size(c->conv.dw)};
    void *bytes = malloc(sizes[c->conv.kind]);

    *n_bytes = sizes[c->conv.kind];
    SH_CHECK(bytes != NULL, SH_ERR_NO_MEMORY, "a result of %zu bytes", *n_bytes);
    fill(b, &c->conv, seed);
    SH_TRY(sh_cuda_launched("fill"));
    SH_TRY(run_once(b, plan));
    SH_TRY(sh_cuda_copy_out(results[c->conv.kind], 0, bytes, *n_bytes));
    *out = bytes;
    bytes = NULL;
out:
    free(bytes);
    return st;
}

static sh_status check_repeats(bench *b, candidate *c, bool *repeats)
{
    sh_status st = SH_OK;
    sh_cudnn_plan *plan = NULL;
    void *first = NULL, *second = NULL;
    size_t n_bytes = 0;

    SH_TRY(plan_choice(&c->conv, c->choice, &plan));
    SH_TRY(reserve_workspace(b, plan));
    SH_TRY(result_of(b, c, plan, 5, &n_bytes, &first));
    SH_TRY(result_of(b, c, plan, 6, &n_bytes, &second));
    *repeats = memcmp(first, second, n_bytes) == 0;
    if (!*repeats) sh_log_info("%s of cuDNN gives other bytes each time: not taken", c->choice);
out:
    free(first);
    free(second);
    sh_cuda_cudnn()->release(&plan);
    return st;
}

static int by_time(const void *a, const void *b)
{
    const candidate *x = a, *y = b;

    return (x->seconds > y->seconds) - (x->seconds < y->seconds);
}

/** The fastest first; *n becomes the number of those that were timed. A choice that cannot be
 *  planned is no candidate; other failures are failures. */
static sh_status time_all(bench *b, candidate *all, int *n)
{
    sh_status st = SH_OK;
    int n_timed = 0;

    for (int i = 0; i < *n; i++) {
        st = time_candidate(b, &all[i]);
        if (st == SH_OK) {
            all[n_timed++] = all[i];
        } else if (st == SH_ERR_UNSUPPORTED) {
            sh_error_clear();
            st = SH_OK;
        }
        SH_TRY(st);
    }
    qsort(all, (size_t)n_timed, sizeof(*all), by_time);
    *n = n_timed;
out:
    return st;
}

static sh_status measure(const sh_cudnn_conv *conv, candidate *all, int n_timed, char *choice)
{
    sh_status st = SH_OK;
    bench b = {0};

    SH_TRY(open_bench(conv, &b));
    SH_TRY(time_all(&b, all, &n_timed));
    snprintf(choice, SH_CHOICE_BYTES, "%s", plain);
    for (int i = 0; i < n_timed; i++) {
        bool repeats = conv->may_vary;
        if (!repeats) SH_TRY(check_repeats(&b, &all[i], &repeats));
        if (!repeats) continue;
        snprintf(choice, SH_CHOICE_BYTES, "%s", all[i].choice);
        break;
    }
out:
    close_bench(&b);
    return st;
}

/** The first that can be planned. */
static void guess(candidate *all, int n, char *choice)
{
    sh_cudnn_plan *plan = NULL;

    snprintf(choice, SH_CHOICE_BYTES, "%s", plain);
    for (int i = 0; i < n && plan == NULL; i++) {
        if (plan_choice(&all[i].conv, all[i].choice, &plan) == SH_OK)
            snprintf(choice, SH_CHOICE_BYTES, "%s", all[i].choice);
        else
            sh_error_clear();
    }
    sh_cuda_cudnn()->release(&plan);
}

/* The f32 form of the gradient of bf16 weights compiles a kernel, which takes long: only where it
 * could turn out to be the faster one. */
static sh_status find_choice(const sh_cudnn_conv *conv, const char *key, char *choice)
{
    sh_status st = SH_OK;
    candidate *all = calloc(2 * MAX_CHOICES, sizeof(*all));
    int n = 0;

    SH_CHECK(all != NULL, SH_ERR_NO_MEMORY, "candidates for %s", key);
    SH_TRY(add_form(conv, conv->dtype, all, &n));
    if (conv->kind == SH_CUDNN_GRAD_W && conv->dtype != SH_F32 && sh_cuda_measures())
        SH_TRY(add_form(conv, SH_F32, all, &n));
    if (sh_cuda_measures())
        SH_TRY(measure(conv, all, n, choice));
    else
        guess(all, n, choice);
    SH_TRY(sh_cuda_add_choice(key, choice));
out:
    free(all);
    return st;
}

sh_status sh_cudnn_choose(sh_cudnn_conv *conv, sh_cudnn_plan **plan)
{
    sh_status st = SH_OK;
    char key[SH_CUDNN_KEY_BYTES], choice[SH_CHOICE_BYTES], reason[512];

    *plan = NULL;
    conv->may_vary = !sh_cuda_repeats();
    sh_cudnn_key(conv, key);
    bool is_stored = sh_cuda_find_choice(key, choice);
    if (!is_stored) SH_TRY(find_choice(conv, key, choice));
    if (strcmp(choice, plain) == 0) goto out;
    st = plan_choice(conv, choice, plan);
    snprintf(reason, sizeof(reason), "%s", sh_error_message());
    SH_CHECK(
        st == SH_OK, is_stored ? SH_ERR_MISMATCH : st,
        "%s: the chosen kernel (%s) cannot be used here: %s; go on where it was chosen, or choose "
        "anew (retune=true)",
        key, choice, reason);
out:
    return st;
}

sh_status sh_cudnn_fastest(const sh_cudnn_conv *conv, double *seconds)
{
    sh_status st = SH_OK;
    bench b = {0};
    candidate *all = calloc(MAX_CHOICES, sizeof(*all));
    int n = 0;

    SH_CHECK(all != NULL, SH_ERR_NO_MEMORY, "candidates for a measurement");
    SH_TRY(add_form(conv, conv->dtype, all, &n));
    SH_TRY(open_bench(conv, &b));
    SH_TRY(time_all(&b, all, &n));
    *seconds = n > 0 ? all[0].seconds : 0;
out:
    close_bench(&b);
    free(all);
    return st;
}
