// SPDX-License-Identifier: Apache-2.0
/** The conformance suite: every kernel of a backend that accepts a case, against the reference. */
#ifndef TESTS_MODELS_CONFORMANCE_H
#define TESTS_MODELS_CONFORMANCE_H

#include <omp.h>
#include <stdio.h>

#include "models/block_cases.h"
#include "models/conformance_cases.h"
#include "models/ref/ref.h"

/* f32: rounding of sums of at most some 1e5 terms. bf16: results have 8 significant bits, whose
 * rounding alone is 1.3e-6; the rest is for what is kept or rounded between two steps inside a
 * fused op. Its sums over few pixels of terms of either sign keep the terms' relative error. */
static const double bound_f32 = 1e-10, bound_bf16 = 2e-5, bound_bf16_fused_sums = 1e-4;

static double bound_of(const op_case *c, int output)
{
    if (c->dtype == SH_F32) return bound_f32;
    if (c->op == SH_OP_CONV_GRAD && output >= SH_CONV_GRAD_DBIAS) return bound_bf16_fused_sums;
    return bound_bf16;
}

static void add_all(suite *s)
{
    static const int64_t shapes[][4] = {{1, 1, 1, 1},   {2, 3, 5, 7},    {1, 8, 9, 3},
                                        {3, 16, 7, 7},  {2, 17, 4, 6},   {5, 24, 1, 1},
                                        {2, 33, 11, 5}, {1, 64, 23, 21}, {4, 48, 13, 11}};
    static const int64_t streamed[2][4] = {{7, 64, 35, 34}, {7, 64, 49, 48}}; /* above 2 MB */
    static const int64_t matrices[][3] = {{1, 1, 1},    {3, 17, 5},      {5, 33, 24},
                                          {2, 40, 128}, {32, 1280, 128}, {4, 257, 1}};
    static const sh_dtype dtypes[2] = {SH_F32, SH_BF16};
    static const sh_act squeezed[] = {SH_ACT_RELU6, SH_ACT_SILU, SH_ACT_HARD_SWISH};

    for (int t = 0; t < 2; t++) {
        for (size_t i = 0; i < SH_COUNT(conv_shapes); i++) {
            add_conv_forms(s, &conv_shapes[i], dtypes[t]);
        }
        for (size_t i = 0; i < SH_COUNT(shapes); i++) {
            for (sh_act act = SH_ACT_NONE; act <= SH_ACT_HARD_SWISH; act++) {
                add_norm_forms(s, shapes[i], dtypes[t], act);
            }
            for (size_t k = 0; k < SH_COUNT(squeezed); k++)
                add_squeeze_forms(s, shapes[i], dtypes[t], squeezed[k]);
            add_map_forms(s, shapes[i], dtypes[t]);
            add_pad_forms(s, shapes[i], dtypes[t]);
        }
        for (size_t i = 0; i < SH_COUNT(matrices); i++) {
            add_matrix_forms(s, matrices[i][0], matrices[i][1], matrices[i][2], dtypes[t]);
        }
        for (size_t i = 0; i < SH_COUNT(shapes); i++) add_channel_forms(s, shapes[i], dtypes[t]);
        add_pool_forms(s, dtypes[t]);
        add_concat_forms(s, dtypes[t]);
        add_token_forms(s, dtypes[t]);
    }
    add_norm_forms(s, streamed[0], SH_F32, SH_ACT_RELU6);
    add_squeeze_forms(s, streamed[1], SH_BF16, SH_ACT_SILU);
}

/* ---- running ---- */

static void describe(const op_case *c, char *text, size_t size)
{
    size_t n =
        (size_t)snprintf(text, size, "%s %s act=%s stride=%d dilation=%d groups=%d",
                         sh_op_name(c->op), sh_dtype_name(c->dtype), sh_act_name(c->attrs.act),
                         c->attrs.stride[0], c->attrs.dilation[0], c->attrs.groups);

    for (int k = 0; k < c->n_in + c->n_out && n < size; k++) {
        const operand *o = k < c->n_in ? &c->in[k] : &c->out[k - c->n_in];
        if (k == c->n_in) n += (size_t)snprintf(text + n, size - n, " ->");
        if (n >= size) return;
        if (o->role == ABSENT)
            n += (size_t)snprintf(text + n, size - n, " -");
        else
            n += (size_t)snprintf(text + n, size - n, " [%d,%d,%d,%d]", (int)o->dims[0],
                                  (int)o->dims[1], (int)o->dims[2], (int)o->dims[3]);
    }
}

static bool may_be_in_place(const op_case *c)
{
    switch (c->op) {
    case SH_OP_BN_APPLY:
    case SH_OP_BN_GRAD_APPLY:
    case SH_OP_ACT:
    case SH_OP_ACT_GRAD:
    case SH_OP_ADD:
    case SH_OP_ADD_SCALED:
    case SH_OP_MUL_CHANNELS:
    case SH_OP_MUL_CHANNELS_GRAD:
    case SH_OP_SE_GRAD:
    case SH_OP_SCALE:
    case SH_OP_SCALE_GRAD:
    case SH_OP_PATH_DROP:
    case SH_OP_DROPOUT: return true;
    default: return false;
    }
}

/** One kernel on one case, against what the reference gave. */
static void check_kernel(suite *s, const op_case *c, const sh_kernel *kernel, const op_result *ref)
{
    op_result result;
    char text[512];

    describe(c, text, sizeof(text));
    sh_status st = op_case_run(c, s->backend, kernel, false, may_be_in_place(c), &result);
    bool is_good =
        st == SH_OK && result.padding_is_zero && result.repeats && result.in_place_agrees;
    if (!is_good) {
        print_message("%s: %s: status %d (%s), padding zero %d, repeats %d, in place %d\n",
                      kernel->name, text, st, st == SH_OK ? "" : sh_error_message(),
                      result.padding_is_zero, result.repeats, result.in_place_agrees);
    }
    for (int k = 0; st == SH_OK && k < c->n_out; k++) {
        if (ref->out[k] == NULL) continue;
        double error = nmse(result.out[k], ref->out[k], operand_elems(&c->out[k]));
        if (error <= bound_of(c, k)) continue;
        print_message("%s: %s: output %d has NMSE %.3g\n", kernel->name, text, k, error);
        is_good = false;
    }
    s->n_runs++;
    s->per_op[c->op]++;
    s->n_failed += !is_good;
    op_result_clear(&result);
}

static void check_case(suite *s, const op_case *c)
{
    op_result ref;
    const sh_kernel *const *kernels = s->backend->kernels_of(c->op);

    assert_int_equal(op_case_run(c, &sh_backend_ref, sh_ref_kernel(c->op), true, false, &ref),
                     SH_OK);
    for (int i = 0; kernels != NULL && kernels[i] != NULL; i++) {
        if (op_case_why_not(c, s->backend, kernels[i], false) != NULL) continue;
        check_kernel(s, c, kernels[i], &ref);
    }
    op_result_clear(&ref);
}

/** Every stride-th case of each op of [first, end), the first among them. */
static void check_ops(const sh_backend *backend, sh_op first, sh_op end, int n_threads, int stride)
{
    int n_seen[SH_OP_COUNT] = {0}, n_checked = 0;
    suite s = {.backend = backend, .cases = calloc(MAX_CASES, sizeof(op_case))};
    int n_before = omp_get_max_threads();

    assert_non_null(s.cases);
    add_all(&s);
    omp_set_num_threads(n_threads);
    for (int i = 0; i < s.n_cases; i++) {
        sh_op op = s.cases[i].op;
        if (op < first || op >= end || n_seen[op]++ % stride != 0) continue;
        check_case(&s, &s.cases[i]);
        n_checked++;
    }
    omp_set_num_threads(n_before);
    print_message("%s, %d threads: %d cases, %d kernel runs\n", backend->name, n_threads, n_checked,
                  s.n_runs);
    free(s.cases);
    for (sh_op op = first; op < end; op++) {
        if (s.per_op[op] == 0) print_message("%s was never run\n", sh_op_name(op));
        assert_true(s.per_op[op] > 0);
    }
    assert_true(s.n_runs > 0);
    assert_int_equal(s.n_failed, 0);
}

static inline void check_backend(const sh_backend *backend, int n_threads, int stride)
{
    check_ops(backend, (sh_op)0, SH_OP_COUNT, n_threads, stride);
}

#endif
