// SPDX-License-Identifier: Apache-2.0
/** Cases of the conformance suite: what residual, inception and transformer networks add. */
#ifndef TESTS_MODELS_BLOCK_CASES_H
#define TESTS_MODELS_BLOCK_CASES_H

#include "models/conformance_cases.h"

/** One activation operand of this shape. */
#define MAP(put_as, c, k, d) put_as(c, k, ACTIVATION, (d)[0], (d)[1], (d)[2], (d)[3])

/** Factors per channel, and generalised means, of a map [N,C,H,W]. */
static void add_channel_forms(suite *s, const int64_t *d, sh_dtype dtype)
{
    static const struct {
        sh_op op, grad;
        role role; /* of the second operand: per image, or a parameter */
        bool is_single;
    } ops[] = {{SH_OP_MUL_CHANNELS, SH_OP_MUL_CHANNELS_GRAD, MATRIX, false},
               {SH_OP_SCALE, SH_OP_SCALE_GRAD, PARAM, false},
               {SH_OP_GEM_POOL, SH_OP_GEM_POOL_GRAD, VARIANCE, true}};
    sh_op_attrs attrs = plain_attrs;
    op_case *c = NULL;

    for (size_t i = 0; i < SH_COUNT(ops); i++) {
        bool per_image = ops[i].role == MATRIX;
        int64_t rows = per_image ? d[0] : ops[i].is_single ? 1 : d[1];
        int64_t columns = per_image ? d[1] : 1;
        attrs.eps = ops[i].is_single ? 0.1f : plain_attrs.eps;
        c = add(s, ops[i].op, dtype, &attrs);
        MAP(IN, c, 0, d);
        IN(c, 1, ops[i].role, rows, columns, 1, 1);
        OUT(c, 0, ops[i].is_single ? MATRIX : ACTIVATION, d[0], d[1], ops[i].is_single ? 1 : d[2],
            ops[i].is_single ? 1 : d[3]);
        for (int both = 0; both < 2; both++) {
            c = add(s, ops[i].grad, dtype, &attrs);
            if (ops[i].is_single)
                IN(c, 0, MATRIX, d[0], d[1], 1, 1);
            else
                MAP(IN, c, 0, d);
            MAP(IN, c, 1, d);
            IN(c, 2, ops[i].role, rows, columns, 1, 1);
            MAP(OUT, c, 0, d);
            if (both) OUT(c, 1, ops[i].role == VARIANCE ? PARAM : ops[i].role, rows, columns, 1, 1);
        }
    }
    attrs.scale = 0.17f;
    for (int n = 1; n <= 2; n++) {
        c = add(s, SH_OP_ADD_SCALED, dtype, &attrs);
        for (int k = 0; k < n; k++) MAP(IN, c, k, d);
        MAP(OUT, c, 0, d);
    }
    attrs.rate = 0.4f;
    attrs.stream = 3;
    c = add(s, SH_OP_PATH_DROP, dtype, &attrs);
    MAP(IN, c, 0, d);
    MAP(OUT, c, 0, d);

    c = add(s, SH_OP_LAYER_NORM, dtype, &plain_attrs);
    MAP(IN, c, 0, d);
    for (int k = 1; k < 3; k++) IN(c, k, PARAM, d[1], 1, 1, 1);
    MAP(OUT, c, 0, d);
    for (int sums = 0; sums < 2; sums++) {
        c = add(s, SH_OP_LAYER_NORM_GRAD, dtype, &plain_attrs);
        for (int k = 0; k < 2; k++) MAP(IN, c, k, d);
        IN(c, 2, PARAM, d[1], 1, 1, 1);
        MAP(OUT, c, 0, d);
        for (int k = 1; sums && k < 3; k++) OUT(c, k, PARAM, d[1], 1, 1, 1);
    }
}

/** Squeeze and excitation of a batch norm of a map [N,C,H,W]. */
static void add_squeeze_forms(suite *s, const int64_t *d, sh_dtype dtype, sh_act act)
{
    sh_op_attrs attrs = plain_attrs;

    attrs.act = act;
    op_case *c = add(s, SH_OP_SE_SQUEEZE, dtype, &attrs);
    MAP(IN, c, 0, d);
    put_norm(c, 1, d[1]);
    OUT(c, 0, MATRIX, d[0], d[1], 1, 1);

    c = add(s, SH_OP_SE_EXCITE, dtype, &attrs);
    MAP(IN, c, 0, d);
    IN(c, 1, MATRIX, d[0], d[1], 1, 1);
    put_norm(c, 2, d[1]);
    MAP(OUT, c, 0, d);

    c = add(s, SH_OP_SE_FACTOR_GRAD, dtype, &attrs);
    for (int k = 0; k < 2; k++) MAP(IN, c, k, d);
    put_norm(c, 2, d[1]);
    OUT(c, 0, MATRIX, d[0], d[1], 1, 1);

    c = add(s, SH_OP_SE_GRAD, dtype, &attrs);
    for (int k = 0; k < 2; k++) MAP(IN, c, k, d);
    put_norm(c, 2, d[1]);
    for (int k = 6; k < 8; k++) IN(c, k, MATRIX, d[0], d[1], 1, 1);
    MAP(OUT, c, 0, d);
    for (int k = 1; k < 3; k++) OUT(c, k, PARAM, d[1], 1, 1, 1);
}

static void add_pool_pair(suite *s, sh_op op, sh_op grad, sh_dtype dtype, const sh_op_attrs *attrs,
                          const int64_t *d, int64_t oh, int64_t ow)
{
    op_case *c = add(s, op, dtype, attrs);
    int n = 0;

    MAP(IN, c, 0, d);
    OUT(c, 0, ACTIVATION, d[0], d[1], oh, ow);
    c = add(s, grad, dtype, attrs);
    IN(c, n++, ACTIVATION, d[0], d[1], oh, ow);
    if (grad == SH_OP_MAX_POOL_GRAD) MAP(IN, c, n, d);
    MAP(OUT, c, 0, d);
}

static void add_pool_forms(suite *s, sh_dtype dtype)
{
    static const struct {
        int64_t dims[4];
        int kernel[2], stride[2], pad[4];
    } shapes[] = {
        {{2, 3, 7, 9}, {3, 3}, {2, 2}, {1, 1, 1, 1}},
        {{1, 16, 12, 11}, {2, 2}, {2, 2}, {0}},
        {{2, 17, 6, 8}, {3, 3}, {1, 1}, {1, 1, 1, 1}},
        {{2, 33, 9, 7}, {3, 3}, {2, 2}, {0}},
        {{1, 24, 8, 8}, {3, 3}, {2, 2}, {0, 0, 1, 1}},
        {{2, 16, 5, 13}, {1, 5}, {1, 3}, {0, 2, 0, 1}},
        {{1, 16, 7, 5}, {2, 2}, {2, 2}, {0, 0, 1, 1}},
        {{1, 16, 9, 8}, {2, 2}, {3, 3}, {0}},
        {{3, 8, 4, 4}, {4, 4}, {4, 4}, {0}},
        {{1, 48, 23, 19}, {5, 3}, {3, 2}, {2, 1, 2, 1}},
    };

    for (size_t i = 0; i < SH_COUNT(shapes); i++) {
        sh_op_attrs attrs = plain_attrs;
        const int64_t *d = shapes[i].dims;
        const int *pad = shapes[i].pad;
        memcpy(attrs.kernel, shapes[i].kernel, sizeof(attrs.kernel));
        memcpy(attrs.stride, shapes[i].stride, sizeof(attrs.stride));
        memcpy(attrs.pad, pad, sizeof(attrs.pad));
        int64_t oh = (d[2] + pad[0] + pad[2] - attrs.kernel[0]) / attrs.stride[0] + 1;
        int64_t ow = (d[3] + pad[1] + pad[3] - attrs.kernel[1]) / attrs.stride[1] + 1;
        for (int count = 0; count < 2; count++) {
            attrs.count_padding = count;
            add_pool_pair(s, SH_OP_MAX_POOL, SH_OP_MAX_POOL_GRAD, dtype, &attrs, d, oh, ow);
            add_pool_pair(s, SH_OP_MEAN_POOL, SH_OP_MEAN_POOL_GRAD, dtype, &attrs, d, oh, ow);
        }
        attrs.kernel[0] = 3;
        attrs.kernel[1] = 7;
        add_pool_pair(s, SH_OP_ADAPTIVE_POOL, SH_OP_ADAPTIVE_POOL_GRAD, dtype, &attrs, d, 3, 7);
    }
}

static void add_concat_forms(suite *s, sh_dtype dtype)
{
    static const struct {
        int64_t n, h, w;
        int64_t channels[9]; /* 0: no more */
    } shapes[] = {
        {2, 5, 7, {16, 32, 16}},
        {1, 3, 4, {1, 5, 17, 24}},
        {2, 4, 4, {48, 24, 16, 8, 40, 3, 16, 32}},
        {3, 1, 1, {20, 33}},
        {2, 6, 3, {7}},
        {1, 11, 9, {64, 96, 33}},
    };

    for (size_t i = 0; i < SH_COUNT(shapes); i++) {
        op_case *join = add(s, SH_OP_CONCAT, dtype, &plain_attrs);
        op_case *split = add(s, SH_OP_CONCAT_GRAD, dtype, &plain_attrs);
        int64_t d[4] = {shapes[i].n, 0, shapes[i].h, shapes[i].w}, sum = 0;
        for (int k = 0; shapes[i].channels[k] > 0; k++) {
            d[1] = shapes[i].channels[k];
            MAP(IN, join, k, d);
            MAP(OUT, split, k, d);
            sum += d[1];
        }
        d[1] = sum;
        MAP(OUT, join, 0, d);
        MAP(IN, split, 0, d);
    }
}

static void add_attention_forms(suite *s, int64_t n, int64_t T, int heads, int64_t width,
                                sh_dtype dtype)
{
    sh_op_attrs attrs = plain_attrs;
    int64_t C = heads * width;

    attrs.heads = heads;
    op_case *c = add(s, SH_OP_ATTENTION, dtype, &attrs);
    IN(c, 0, ACTIVATION, n, 3 * C, T, 1);
    OUT(c, 0, ACTIVATION, n, C, T, 1);
    OUT(c, 1, MATRIX_F32, n, heads, T, 1);
    c = add(s, SH_OP_ATTENTION_GRAD, dtype, &attrs);
    IN(c, 0, ACTIVATION, n, C, T, 1);
    IN(c, 1, ACTIVATION, n, 3 * C, T, 1);
    IN(c, 2, ACTIVATION, n, C, T, 1);
    IN(c, 3, MATRIX_F32, n, heads, T, 1);
    OUT(c, 0, ACTIVATION, n, 3 * C, T, 1);
}

static void add_token_forms(suite *s, sh_dtype dtype)
{
    static const int64_t shapes[][4] = {
        {1, 1, 1, 1}, {2, 3, 5, 7}, {3, 16, 4, 3}, {2, 33, 3, 3}, {1, 48, 7, 9}};
    op_case *c = NULL;

    for (size_t i = 0; i < SH_COUNT(shapes); i++) {
        const int64_t *d = shapes[i];
        int64_t T = 1 + d[2] * d[3];
        c = add(s, SH_OP_TOKENS, dtype, &plain_attrs);
        MAP(IN, c, 0, d);
        IN(c, 1, PARAM, 1, 1, d[1], 1);
        IN(c, 2, PARAM, 1, T, d[1], 1);
        OUT(c, 0, ACTIVATION, d[0], d[1], T, 1);
        for (int form = 0; form < 3; form++) {
            c = add(s, SH_OP_TOKENS_GRAD, dtype, &plain_attrs);
            IN(c, 0, ACTIVATION, d[0], d[1], T, 1);
            MAP(OUT, c, 0, d);
            if (form != 0) OUT(c, 1, form == 1 ? PARAM : ABSENT, 1, 1, d[1], 1);
            if (form == 2) OUT(c, 2, PARAM, 1, T, d[1], 1);
        }
        for (int index = 0; index < T; index += (int)T - 1) {
            sh_op_attrs attrs = plain_attrs;
            attrs.index = index;
            c = add(s, SH_OP_TAKE_TOKEN, dtype, &attrs);
            IN(c, 0, ACTIVATION, d[0], d[1], T, 1);
            OUT(c, 0, MATRIX, d[0], d[1], 1, 1);
            c = add(s, SH_OP_TAKE_TOKEN_GRAD, dtype, &attrs);
            IN(c, 0, MATRIX, d[0], d[1], 1, 1);
            OUT(c, 0, ACTIVATION, d[0], d[1], T, 1);
        }
    }
    add_attention_forms(s, 1, 1, 1, 1, dtype);
    add_attention_forms(s, 2, 5, 3, 7, dtype);
    add_attention_forms(s, 1, 17, 2, 16, dtype);
    add_attention_forms(s, 2, 37, 3, 32, dtype);
    add_attention_forms(s, 1, 50, 2, 64, dtype);
    add_attention_forms(s, 1, 150, 1, 64, dtype);
}

#endif
