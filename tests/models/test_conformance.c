// SPDX-License-Identifier: Apache-2.0
// timeout: 300
/**
 * Every op on every backend against the reference: every kernel that accepts a case is run, forward
 * and derivative, over odd shapes, in f32 and bf16. Bounds are on the normalised mean squared error
 * of each output. Also: padding channels are zero, a second run and one in place give equal bytes.
 */
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "models/op_case.h"
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

static const sh_op_attrs plain_attrs = {.stride = {1, 1},
                                        .dilation = {1, 1},
                                        .groups = 1,
                                        .eps = 1e-3f,
                                        .y_eps = 1e-4f,
                                        .share = 0.25f};

/* ---- cases ---- */

enum { MAX_CASES = 4000 };

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
    {2, 24, 9, 7, 40, 1, 2, 1, 1, {0}, false},
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
    add_conv_grad_x(&k);
    add_conv_grad_w(&k, false);
    add_conv_grad_w(&k, true);
    for (int i = 0; i < 3; i++) {
        static const sh_act acts[3] = {SH_ACT_RELU6, SH_ACT_NONE, SH_ACT_RELU};
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
        bool residual = form & 1, frozen = form & 2;
        attrs.frozen = frozen;
        c = add(s, SH_OP_BN_APPLY, dtype, &attrs);
        IN(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
        put_norm(c, 1, channels);
        if (residual) IN(c, 5, ACTIVATION, d[0], d[1], d[2], d[3]);
        OUT(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);

        c = add(s, SH_OP_BN_GRAD_REDUCE, dtype, &attrs);
        for (int i = 0; i < 2; i++) IN(c, i, ACTIVATION, d[0], d[1], d[2], d[3]);
        put_norm(c, 2, channels);
        if (residual) IN(c, 6, CLAMPED, d[0], d[1], d[2], d[3]);
        for (int i = 0; i < 2; i++) OUT(c, i, PARAM, channels, 1, 1, 1);

        c = add(s, SH_OP_BN_GRAD_APPLY, dtype, &attrs);
        for (int i = 0; i < 2; i++) IN(c, i, ACTIVATION, d[0], d[1], d[2], d[3]);
        put_norm(c, 2, channels);
        for (int i = 6; i < 8; i++) IN(c, i, frozen ? ABSENT : PARAM, channels, 1, 1, 1);
        if (residual) IN(c, 8, CLAMPED, d[0], d[1], d[2], d[3]);
        OUT(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
        if (residual) OUT(c, 1, ACTIVATION, d[0], d[1], d[2], d[3]);
    }
}

static void add_map_forms(suite *s, const int64_t *d, sh_dtype dtype)
{
    sh_op_attrs attrs = plain_attrs;
    op_case *c = NULL;

    for (sh_act act = SH_ACT_RELU; act <= SH_ACT_TANH; act++) {
        attrs.act = act;
        c = add(s, SH_OP_ACT, dtype, &attrs);
        IN(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
        OUT(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
        c = add(s, SH_OP_ACT_GRAD, dtype, &attrs);
        IN(c, 0, ACTIVATION, d[0], d[1], d[2], d[3]);
        IN(c, 1, CLAMPED, d[0], d[1], d[2], d[3]);
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

static void add_all(suite *s)
{
    static const int64_t shapes[][4] = {{1, 1, 1, 1},   {2, 3, 5, 7},    {1, 8, 9, 3},
                                        {3, 16, 7, 7},  {2, 17, 4, 6},   {5, 24, 1, 1},
                                        {2, 33, 11, 5}, {1, 64, 23, 21}, {4, 48, 13, 11}};
    static const int64_t matrices[][3] = {{1, 1, 1},    {3, 17, 5},      {5, 33, 24},
                                          {2, 40, 128}, {32, 1280, 128}, {4, 257, 1}};
    static const sh_dtype dtypes[2] = {SH_F32, SH_BF16};

    for (int t = 0; t < 2; t++) {
        for (size_t i = 0; i < SH_COUNT(conv_shapes); i++) {
            add_conv_forms(s, &conv_shapes[i], dtypes[t]);
        }
        for (size_t i = 0; i < SH_COUNT(shapes); i++) {
            for (sh_act act = SH_ACT_NONE; act <= SH_ACT_TANH; act++) {
                add_norm_forms(s, shapes[i], dtypes[t], act);
            }
            add_map_forms(s, shapes[i], dtypes[t]);
            add_pad_forms(s, shapes[i], dtypes[t]);
        }
        for (size_t i = 0; i < SH_COUNT(matrices); i++) {
            add_matrix_forms(s, matrices[i][0], matrices[i][1], matrices[i][2], dtypes[t]);
        }
    }
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

/** Every stride-th case; each op must be among them. */
static void check_backend(const sh_backend *backend, int n_threads, int stride)
{
    suite s = {.backend = backend, .cases = calloc(MAX_CASES, sizeof(op_case))};
    int n_before = omp_get_max_threads();

    assert_non_null(s.cases);
    add_all(&s);
    omp_set_num_threads(n_threads);
    for (int i = 0; i < s.n_cases; i += stride) check_case(&s, &s.cases[i]);
    omp_set_num_threads(n_before);
    print_message("%s, %d threads: %d cases, %d kernel runs\n", backend->name, n_threads,
                  (s.n_cases + stride - 1) / stride, s.n_runs);
    free(s.cases);
    for (int op = 0; op < SH_OP_COUNT; op++) {
        if (s.per_op[op] == 0) print_message("%s was never run\n", sh_op_name((sh_op)op));
        assert_true(s.per_op[op] > 0);
    }
    assert_true(s.n_runs > 0);
    assert_int_equal(s.n_failed, 0);
}

static const sh_backend *find(const char *name)
{
    const sh_backend *backend = NULL;

    if (sh_backend_find(name, &backend) != SH_OK) {
        print_message("no backend %s in this build\n", name);
        skip();
    }
    return backend;
}

static sh_layout blocked(sh_dtype dtype, const int64_t dims[4], bool is_image_input)
{
    (void)dtype;
    (void)dims;
    return is_image_input ? SH_NHWC : SH_NCHW16C;
}

/** The reference must take any layout: other backends fall back to it. */
static void ref__agrees_with_itself_in_every_layout(void **state)
{
    sh_backend backend = sh_backend_ref;

    (void)state;
    backend.name = "ref in blocks";
    backend.layout_of = blocked;
    check_backend(&backend, 1, 4);
}

static void cpu__agrees_with_ref(void **state)
{
    (void)state;
    check_backend(find("cpu"), 1, 1);
}

static void cpu__agrees_with_ref_on_three_threads(void **state)
{
    (void)state;
    check_backend(find("cpu"), 3, 5);
}

static void guard_ref__agrees_with_ref(void **state)
{
    (void)state;
    check_backend(find("guard:ref"), 1, 5);
}

static void guard_cpu__agrees_with_ref(void **state)
{
    (void)state;
    check_backend(find("guard:cpu"), 1, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ref__agrees_with_itself_in_every_layout),
        cmocka_unit_test(cpu__agrees_with_ref),
        cmocka_unit_test(cpu__agrees_with_ref_on_three_threads),
        cmocka_unit_test(guard_ref__agrees_with_ref),
        cmocka_unit_test(guard_cpu__agrees_with_ref),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
