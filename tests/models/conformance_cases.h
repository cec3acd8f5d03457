// SPDX-License-Identifier: Apache-2.0
/** Cases of the conformance suite: convolutions, norms, elementwise ops, rows. */
#ifndef TESTS_MODELS_CONFORMANCE_CASES_H
#define TESTS_MODELS_CONFORMANCE_CASES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "models/op_case.h"

static const sh_op_attrs plain_attrs = {.stride = {1, 1},
                                        .dilation = {1, 1},
                                        .groups = 1,
                                        .eps = 1e-3f,
                                        .y_eps = 1e-4f,
                                        .share = 0.25f};

/* ---- cases ---- */

enum { MAX_CASES = 7000 };

typedef struct suite {
    const sh_backend *backend;
    op_case *cases;
    int n_cases, n_runs, n_failed;
    int per_op[SH_OP_COUNT];
} suite;

static op_case *add(suite *s, sh_op op, sh_dtype dtype, const sh_op_attrs *attrs)
{
    assert_true(s->n_cases < MAX_CASES);
    op_case *c = &s->cases[s->n_cases++];

    *c = (op_case){.op = op, .dtype = dtype, .attrs = *attrs};
    return c;
}

static void put(operand *o, int *n, int k, role kind, int64_t d0, int64_t d1, int64_t d2,
                int64_t d3)
{
    o[k] = (operand){.role = kind, .dims = {d0, d1, d2, d3}};
    if (*n <= k) *n = k + 1;
}

#define IN(c, k, ...) put((c)->in, &(c)->n_in, k, __VA_ARGS__)
#define OUT(c, k, ...) put((c)->out, &(c)->n_out, k, __VA_ARGS__)

/** mean, var, gamma, beta from operand `first` on. */
static void put_norm(op_case *c, int first, int64_t channels)
{
    for (int k = 0; k < 4; k++) IN(c, first + k, k == 1 ? VARIANCE : PARAM, channels, 1, 1, 1);
}

typedef struct conv_shape {
    int64_t n, c, h, w, o;
    int kernel, stride, dilation, groups;
    int pad[4];
    bool is_image;
} conv_shape;

static const conv_shape conv_shapes[] = {
    /* pointwise */
    {1, 1, 5, 7, 1, 1, 1, 1, 1, {0}, false},
    {2, 8, 5, 7, 24, 1, 1, 1, 1, {0}, false},
    {3, 16, 9, 11, 33, 1, 1, 1, 1, {0}, false},
    {5, 17, 1, 1, 16, 1, 1, 1, 1, {0}, false},
    {2, 33, 13, 3, 8, 1, 1, 1, 1, {0}, false},
    {1, 96, 23, 19, 24, 1, 1, 1, 1, {0}, false},
    {2, 24, 31, 17, 144, 1, 1, 1, 1, {0}, false},
    {1, 150, 9, 11, 136, 1, 1, 1, 1, {0}, false}, /* more than are summed at a time */
    {2, 150, 5, 3, 136, 1, 1, 1, 1, {0}, false},
    {2, 24, 9, 7, 40, 1, 2, 1, 1, {0}, false},
    {1, 33, 8, 6, 16, 1, 2, 1, 1, {0}, false},
    {2, 16, 7, 5, 24, 1, 3, 1, 1, {0}, false},
    {2, 16, 4, 4, 32, 1, 1, 1, 2, {0}, false},
    {1, 16, 5, 5, 16, 1, 1, 1, 1, {1, 0, 0, 2}, false},
    /* depthwise */
    {2, 1, 7, 9, 1, 3, 1, 1, 1, {1, 1, 1, 1}, false},
    {2, 8, 7, 9, 8, 3, 1, 1, 8, {1, 1, 1, 1}, false},
    {1, 16, 11, 5, 16, 3, 2, 1, 16, {1, 1, 1, 1}, false},
    {3, 17, 10, 12, 17, 3, 2, 1, 17, {0, 0, 1, 1}, false},
    {2, 24, 9, 9, 24, 5, 1, 1, 24, {2, 2, 2, 2}, false},
    {2, 33, 14, 9, 33, 5, 2, 1, 33, {1, 2, 2, 2}, false},
    {1, 16, 17, 13, 16, 7, 1, 1, 16, {3, 3, 3, 3}, false},
    {2, 16, 15, 15, 16, 3, 1, 2, 16, {2, 2, 2, 2}, false},
    {1, 16, 3, 2, 16, 5, 1, 1, 16, {2, 2, 2, 2}, false},
    {2, 16, 6, 6, 32, 3, 1, 1, 16, {1, 1, 1, 1}, false},
    {1, 48, 30, 29, 48, 3, 1, 1, 48, {1, 1, 1, 1}, false},
    {1, 16, 10, 11, 16, 3, 3, 1, 16, {1, 1, 1, 1}, false},
    {1, 16, 17, 15, 16, 5, 2, 2, 16, {4, 4, 4, 4}, false},
    /* patches */
    {2, 3, 13, 11, 20, 4, 4, 1, 1, {0}, true},
    {1, 3, 14, 14, 33, 7, 7, 1, 1, {0}, true},
    {1, 1, 32, 16, 24, 16, 16, 1, 1, {0}, true},
    /* dense and grouped */
    {2, 3, 13, 11, 8, 3, 2, 1, 1, {1, 1, 1, 1}, true},
    {1, 3, 14, 16, 32, 3, 2, 1, 1, {0, 0, 1, 1}, true},
    {2, 1, 12, 10, 4, 3, 1, 1, 1, {0}, true},
    {1, 3, 15, 15, 16, 7, 2, 1, 1, {3, 3, 3, 3}, true},
    {2, 8, 7, 9, 17, 3, 1, 1, 1, {1, 1, 1, 1}, false},
    {1, 16, 9, 7, 16, 3, 1, 2, 1, {2, 2, 2, 2}, false},
    {2, 17, 8, 8, 33, 3, 2, 1, 1, {0, 1, 1, 0}, false},
    {4, 24, 5, 5, 8, 5, 1, 1, 1, {2, 2, 2, 2}, false},
    {2, 24, 7, 7, 36, 3, 1, 1, 3, {1, 1, 1, 1}, false},
    {1, 32, 7, 7, 64, 3, 1, 1, 2, {1, 1, 1, 1}, false},
    {3, 64, 11, 8, 80, 3, 1, 1, 1, {1, 1, 1, 1}, false}, /* by Winograd's algorithm */
    {1, 72, 15, 8, 64, 3, 1, 1, 1, {1, 1, 1, 1}, false},
    {2, 33, 12, 17, 40, 3, 1, 1, 1, {0}, false},
    {3, 40, 9, 6, 33, 3, 1, 1, 1, {0, 2, 1, 0}, false},
    {4, 32, 13, 11, 33, 3, 1, 1, 1, {1, 1, 1, 1}, false}, /* more tiles than at a time */
    {1, 144, 6, 5, 32, 3, 1, 1, 1, {1, 1, 1, 1}, false},  /* more channels, too */
};

static int64_t conv_side(const conv_shape *s, int64_t side, int before, int after)
{
    return (side + before + after - s->dilation * (s->kernel - 1) - 1) / s->stride + 1;
}

/** What every form of one convolution shares. */
typedef struct conv_case {
    suite *s;
    const conv_shape *shape;
    sh_dtype dtype;
    sh_op_attrs attrs;
    int64_t oh, ow;
} conv_case;

static void put_x(const conv_case *k, operand *o, int *n, int at)
{
    const conv_shape *s = k->shape;

    put(o, n, at, s->is_image ? IMAGE : ACTIVATION, s->n, s->c, s->h, s->w);
}

static void put_y(const conv_case *k, operand *o, int *n, int at)
{
    put(o, n, at, ACTIVATION, k->shape->n, k->shape->o, k->oh, k->ow);
}

static void put_w(const conv_case *k, operand *o, int *n, int at)
{
    const conv_shape *s = k->shape;

    put(o, n, at, WEIGHT, s->o, s->c / s->groups, s->kernel, s->kernel);
}

static void add_conv(const conv_case *k, bool bias, bool prologue, bool stats)
{
    op_case *c = add(k->s, SH_OP_CONV, k->dtype, &k->attrs);

    put_x(k, c->in, &c->n_in, SH_CONV_X);
    put_w(k, c->in, &c->n_in, SH_CONV_W);
    if (bias) IN(c, SH_CONV_BIAS, PARAM, k->shape->o, 1, 1, 1);
    if (prologue) put_norm(c, SH_CONV_MEAN, k->shape->c);
    put_y(k, c->out, &c->n_out, SH_CONV_Y);
    for (int i = 0; stats && i < 2; i++) OUT(c, SH_CONV_Y_MEAN + i, PARAM, k->shape->o, 1, 1, 1);
}

/** A convolution that ends as it does in inference: bias, residual, activation. */
static void add_finished(const conv_case *k, bool prologue, bool residual)
{
    add_conv(k, true, prologue, false);
    op_case *c = &k->s->cases[k->s->n_cases - 1];

    if (residual) put_y(k, c->in, &c->n_in, SH_CONV_RESIDUAL);
}

static void add_fold(const conv_case *k, bool bias)
{
    op_case *c = add(k->s, SH_OP_FOLD_BN, k->dtype, &k->attrs);

    put_w(k, c->in, &c->n_in, 0);
    put_norm(c, 1, k->shape->o);
    if (bias) IN(c, 5, PARAM, k->shape->o, 1, 1, 1);
    put_w(k, c->out, &c->n_out, 0);
    OUT(c, 1, PARAM, k->shape->o, 1, 1, 1);
}

static void add_conv_grad_x(const conv_case *k)
{
    op_case *c = add(k->s, SH_OP_CONV_GRAD_X, k->dtype, &k->attrs);

    put_y(k, c->in, &c->n_in, 0);
    put_w(k, c->in, &c->n_in, 1);
    put_x(k, c->out, &c->n_out, 0);
}

static void add_conv_grad_w(const conv_case *k, bool bias)
{
    op_case *c = add(k->s, SH_OP_CONV_GRAD_W, k->dtype, &k->attrs);

    put_x(k, c->in, &c->n_in, 0);
    put_y(k, c->in, &c->n_in, 1);
    put_w(k, c->out, &c->n_out, 0);
    if (bias) OUT(c, 1, PARAM, k->shape->o, 1, 1, 1);
}

typedef struct grad_form {
    bool dx, dw, dbias, prologue, epilogue, y, frozen;
} grad_form;

static void add_conv_grad(const conv_case *k, grad_form f)
{
    op_case *c = add(k->s, SH_OP_CONV_GRAD, k->dtype, &k->attrs);
    int64_t channels = k->shape->c, o = k->shape->o;

    put_x(k, c->in, &c->n_in, SH_CONV_GRAD_X_IN);
    put_y(k, c->in, &c->n_in, SH_CONV_GRAD_DY);
    put_w(k, c->in, &c->n_in, SH_CONV_GRAD_W_IN);
    if (f.prologue) put_norm(c, SH_CONV_GRAD_MEAN, channels);
    if (f.y) {
        put_y(k, c->in, &c->n_in, SH_CONV_GRAD_Y);
        for (int i = 0; i < (f.frozen ? 3 : 5); i++) {
            IN(c, SH_CONV_GRAD_Y_MEAN + i, i == 1 ? VARIANCE : PARAM, o, 1, 1, 1);
        }
    }
    c->n_out = 1;
    if (f.dx) put_x(k, c->out, &c->n_out, SH_CONV_GRAD_DX);
    if (f.dw) put_w(k, c->out, &c->n_out, SH_CONV_GRAD_DW);
    if (f.dbias) OUT(c, SH_CONV_GRAD_DBIAS, PARAM, o, 1, 1, 1);
    for (int i = 0; f.epilogue && i < 2; i++) {
        OUT(c, SH_CONV_GRAD_DGAMMA + i, PARAM, channels, 1, 1, 1);
    }
}

static void add_conv_forms(suite *s, const conv_shape *shape, sh_dtype dtype)
{
    static const grad_form forms[] = {
        {.dx = true, .dw = true},
        {.dx = true, .dw = true, .dbias = true},
        {.dx = true, .dw = true, .prologue = true},
        {.dx = true, .dw = true, .prologue = true, .epilogue = true},
        {.dx = true, .dw = true, .y = true},
        {.dx = true, .dw = true, .prologue = true, .epilogue = true, .y = true},
        {.dx = true, .dw = true, .prologue = true, .epilogue = true, .y = true, .frozen = true},
        {.dw = true, .y = true},
        {.dw = true, .prologue = true},
        {.dx = true, .prologue = true, .epilogue = true, .y = true},
    };
    conv_case k = {.s = s, .shape = shape, .dtype = dtype, .attrs = plain_attrs};

    for (int i = 0; i < 2; i++) {
        k.attrs.stride[i] = shape->stride;
        k.attrs.dilation[i] = shape->dilation;
    }
    k.attrs.groups = shape->groups;
    memcpy(k.attrs.pad, shape->pad, sizeof(k.attrs.pad));
    k.oh = conv_side(shape, shape->h, shape->pad[0], shape->pad[2]);
    k.ow = conv_side(shape, shape->w, shape->pad[1], shape->pad[3]);

    add_conv(&k, false, false, false);
    add_conv(&k, true, false, true);
    static const sh_act results[3] = {SH_ACT_RELU, SH_ACT_RELU6, SH_ACT_SILU};
    for (int i = 0; i < 3; i++) {
        k.attrs.y_act = results[i];
        add_conv(&k, i != 1, i == 2, false);
        add_finished(&k, i == 0, i != 1);
    }
    k.attrs.y_act = SH_ACT_NONE;
    add_finished(&k, false, true);
    add_fold(&k, false);
    add_fold(&k, true);
    add_conv_grad_x(&k);
    add_conv_grad_w(&k, false);
    add_conv_grad_w(&k, true);
    for (int i = 0; i < 4; i++) {
        static const sh_act acts[4] = {SH_ACT_RELU6, SH_ACT_NONE, SH_ACT_RELU, SH_ACT_SILU};
        k.attrs.act = acts[i];
        add_conv(&k, i == 1, true, i != 2);
        add_conv_grad(&k, forms[5]);
    }
    k.attrs.act = SH_ACT_RELU6;
    for (size_t i = 0; i < SH_COUNT(forms); i++) add_conv_grad(&k, forms[i]);
}

static void add_norm_forms(suite *s, const int64_t *d, sh_dtype dtype, sh_act act)
{
    sh_op_attrs attrs = plain_attrs;
    int64_t channels = d[1];

    attrs.act = act;
    op_case *c = add(s, SH_OP_BN_STATS, dtype, &attrs);
    IN(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
    for (int i = 0; i < 2; i++) OUT(c, i, PARAM, channels, 1, 1, 1);

    attrs.n_reduced = d[0] * d[2] * d[3];
    c = add(s, SH_OP_BN_EXPORT, dtype, &attrs);
    IN(c, 0, PARAM, channels, 1, 1, 1);
    IN(c, 1, VARIANCE, channels, 1, 1, 1);
    for (int i = 0; i < 2; i++) OUT(c, i, PARAM, channels, 1, 1, 1);

    for (int form = 0; form < 4; form++) {
        bool residual = form & 1, frozen = form & 2, by_y = residual && !sh_act_needs_input(act);
        attrs.frozen = frozen;
        c = add(s, SH_OP_BN_APPLY, dtype, &attrs);
        IN(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
        put_norm(c, 1, channels);
        if (residual) IN(c, 5, ACTIVATION, d[0], d[1], d[2], d[3]);
        OUT(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);

        c = add(s, SH_OP_BN_GRAD_REDUCE, dtype, &attrs);
        for (int i = 0; i < 2; i++) IN(c, i, ACTIVATION, d[0], d[1], d[2], d[3]);
        put_norm(c, 2, channels);
        if (by_y) IN(c, 6, CLAMPED, d[0], d[1], d[2], d[3]);
        for (int i = 0; i < 2; i++) OUT(c, i, PARAM, channels, 1, 1, 1);

        c = add(s, SH_OP_BN_GRAD_APPLY, dtype, &attrs);
        for (int i = 0; i < 2; i++) IN(c, i, ACTIVATION, d[0], d[1], d[2], d[3]);
        put_norm(c, 2, channels);
        for (int i = 6; i < 8; i++) IN(c, i, frozen ? ABSENT : PARAM, channels, 1, 1, 1);
        if (by_y) IN(c, 8, CLAMPED, d[0], d[1], d[2], d[3]);
        OUT(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
        if (residual) OUT(c, 1, ACTIVATION, d[0], d[1], d[2], d[3]);
    }
}

static void add_map_forms(suite *s, const int64_t *d, sh_dtype dtype)
{
    sh_op_attrs attrs = plain_attrs;
    op_case *c = NULL;

    for (sh_act act = SH_ACT_RELU; act <= SH_ACT_HARD_SWISH; act++) {
        attrs.act = act;
        c = add(s, SH_OP_ACT, dtype, &attrs);
        IN(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
        OUT(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
        c = add(s, SH_OP_ACT_GRAD, dtype, &attrs);
        IN(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
        IN(c, 1, sh_act_needs_input(act) ? ACTIVATION : CLAMPED, d[0], d[1], d[2], d[3]);
        OUT(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
    }
    c = add(s, SH_OP_ADD, dtype, &plain_attrs);
    for (int i = 0; i < 2; i++) IN(c, i, ACTIVATION, d[0], d[1], d[2], d[3]);
    OUT(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);

    attrs = plain_attrs;
    attrs.rate = 0.3f;
    attrs.stream = 2;
    c = add(s, SH_OP_DROPOUT, dtype, &attrs);
    IN(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
    OUT(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);

    c = add(s, SH_OP_AVG_POOL, dtype, &plain_attrs);
    IN(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
    OUT(c, 0, MATRIX, d[0], d[1], 1, 1);
    c = add(s, SH_OP_AVG_POOL_GRAD, dtype, &plain_attrs);
    IN(c, 0, MATRIX, d[0], d[1], 1, 1);
    OUT(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);

    c = add(s, SH_OP_FLATTEN, dtype, &plain_attrs);
    IN(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
    OUT(c, 0, MATRIX, d[0], d[1] * d[2] * d[3], 1, 1);
    c = add(s, SH_OP_FLATTEN_GRAD, dtype, &plain_attrs);
    IN(c, 0, MATRIX, d[0], d[1] * d[2] * d[3], 1, 1);
    OUT(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
}

static void add_pad_forms(suite *s, const int64_t *d, sh_dtype dtype)
{
    sh_op_attrs attrs = plain_attrs;
    static const int pad[4] = {1, 2, 2, 1};

    if (d[2] < 3 || d[3] < 3) return;
    memcpy(attrs.pad, pad, sizeof(pad));
    op_case *c = add(s, SH_OP_REFLECT_PAD, dtype, &attrs);
    IN(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
    OUT(c, 0, ACTIVATION, d[0], d[1], d[2] + 3, d[3] + 3);
    c = add(s, SH_OP_REFLECT_PAD_GRAD, dtype, &attrs);
    IN(c, 0, ACTIVATION, d[0], d[1], d[2] + 3, d[3] + 3);
    OUT(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
}

static void add_matrix_forms(suite *s, int64_t n, int64_t i, int64_t o, sh_dtype dtype)
{
    for (int bias = 0; bias < 2; bias++) {
        op_case *c = add(s, SH_OP_LINEAR, dtype, &plain_attrs);
        IN(c, 0, MATRIX, n, i, 1, 1);
        IN(c, 1, WEIGHT, o, i, 1, 1);
        if (bias) IN(c, 2, PARAM, o, 1, 1, 1);
        OUT(c, 0, MATRIX, n, o, 1, 1);
        c = add(s, SH_OP_LINEAR_GRAD_W, dtype, &plain_attrs);
        IN(c, 0, MATRIX, n, i, 1, 1);
        IN(c, 1, MATRIX, n, o, 1, 1);
        OUT(c, 0, PARAM, o, i, 1, 1);
        if (bias) OUT(c, 1, PARAM, o, 1, 1, 1);
    }
    op_case *c = add(s, SH_OP_LINEAR_GRAD_X, dtype, &plain_attrs);
    IN(c, 0, MATRIX, n, o, 1, 1);
    IN(c, 1, WEIGHT, o, i, 1, 1);
    OUT(c, 0, MATRIX, n, i, 1, 1);

    c = add(s, SH_OP_L2_NORM, dtype, &plain_attrs);
    IN(c, 0, MATRIX_F32, n, i, 1, 1);
    OUT(c, 0, MATRIX_F32, n, i, 1, 1);
    c = add(s, SH_OP_L2_NORM_GRAD, dtype, &plain_attrs);
    for (int k = 0; k < 3; k++) IN(c, k, MATRIX_F32, n, i, 1, 1);
    OUT(c, 0, MATRIX_F32, n, i, 1, 1);

    c = add(s, SH_OP_CAST, dtype, &plain_attrs);
    IN(c, 0, MATRIX, n, i, 1, 1);
    OUT(c, 0, MATRIX_F32, n, i, 1, 1);
    c = add(s, SH_OP_CAST, dtype, &plain_attrs);
    IN(c, 0, MATRIX_F32, n, i, 1, 1);
    OUT(c, 0, MATRIX, n, i, 1, 1);
}

#endif
