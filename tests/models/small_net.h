// SPDX-License-Identifier: Apache-2.0
/** A small network in memory, with all that a mobile network is made of. */
#ifndef TESTS_MODELS_SMALL_NET_H
#define TESTS_MODELS_SMALL_NET_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "models/program.h"

typedef struct net {
    const sh_backend *backend;
    sh_store *store;
    sh_program *program;
    sh_value x, y, dy, dx;
    sh_buffer *arena, *reduce;
} net;

/** Stem, one inverted residual with a shortcut, and an embedding head. */
static inline void build(net *t, bool training)
{
    sh_program *p = t->program;
    const int64_t dims[4] = {3, 3, 13, 11};

    t->x = sh_program_input(p, "image", dims);
    sh_value v = sh_op_conv(
        p, t->x, "stem",
        &(sh_conv_attrs){.out_channels = 8, .kernel = {3, 3}, .stride = 2, .pad = {1, 1, 1, 1}});
    v = sh_op_act(p, sh_op_batch_norm(p, v, "stem_bn", 1e-5f, 0.1f), SH_ACT_RELU6);
    sh_value skip = v;
    v = sh_op_conv(p, v, "expand", &(sh_conv_attrs){.out_channels = 24, .kernel = {1, 1}});
    v = sh_op_act(p, sh_op_batch_norm(p, v, "expand_bn", 1e-5f, 0.1f), SH_ACT_RELU6);
    v = sh_op_conv(
        p, v, "depthwise",
        &(sh_conv_attrs){.out_channels = 24, .kernel = {3, 3}, .groups = 24, .pad = {1, 1, 1, 1}});
    v = sh_op_act(p, sh_op_batch_norm(p, v, "depthwise_bn", 1e-5f, 0.1f), SH_ACT_RELU6);
    v = sh_op_conv(p, v, "project", &(sh_conv_attrs){.out_channels = 8, .kernel = {1, 1}});
    v = sh_op_add(p, sh_op_batch_norm(p, v, "project_bn", 1e-5f, 0.1f), skip);
    v = sh_op_linear(p, sh_op_global_avg_pool(p, v), "head", 5, true);
    t->y = sh_program_output(p, "embedding", sh_op_l2_norm(p, v));
    if (training) {
        assert_int_equal(sh_program_differentiate(p, t->y, t->x, &t->dy, &t->dx), SH_OK);
    }
}

static inline void open_built(net *t, const sh_backend *backend, sh_dtype dtype, bool training,
                              void (*build_it)(net *t, bool training))
{
    memset(t, 0, sizeof(*t));
    t->backend = backend;
    assert_int_equal(sh_store_create(t->backend, &t->store), SH_OK);
    const sh_program_config config = {.backend = t->backend,
                                      .store = t->store,
                                      .dtype = dtype,
                                      .training = training,
                                      .share = 1,
                                      .prefix = ""};
    assert_int_equal(sh_program_create(&config, &t->program), SH_OK);
    build_it(t, training);
    assert_int_equal(sh_program_plan(t->program), SH_OK);
    assert_int_equal(sh_store_allocate(t->store), SH_OK);
    assert_int_equal(sh_store_init(t->store, 7), SH_OK);
    int64_t n = sh_store_n_params(t->store) + sh_store_n_states(t->store);
    assert_int_equal(t->backend->alloc(sh_program_arena_bytes(t->program), &t->arena), SH_OK);
    assert_int_equal(t->backend->alloc((size_t)n * sizeof(float), &t->reduce), SH_OK);
}

static inline void open_net_on(net *t, const sh_backend *backend, sh_dtype dtype, bool training)
{
    open_built(t, backend, dtype, training, build);
}

static inline void open_net(net *t, const char *name, sh_dtype dtype, bool training)
{
    const sh_backend *backend = NULL;

    assert_int_equal(sh_backend_find(name, &backend), SH_OK);
    open_net_on(t, backend, dtype, training);
}

static inline void close_net(net *t)
{
    t->backend->free(&t->arena);
    t->backend->free(&t->reduce);
    sh_program_destroy(&t->program);
    sh_store_destroy(&t->store);
}

static inline void step(net *t, bool with_reduce)
{
    sh_tensor_desc x = sh_program_desc(t->program, t->x);
    void *image = calloc(1, sh_tensor_bytes(&x));
    float cotangent[15];

    for (int64_t n = 0; n < x.dims[0]; n++) {
        for (int64_t i = 0; i < x.dims[1] * x.dims[2] * x.dims[3]; i++) {
            int64_t at = sh_tensor_offset(&x, n, i / (x.dims[2] * x.dims[3]),
                                          i / x.dims[3] % x.dims[2], i % x.dims[3]);
            float value = sinf((float)(17 * i + n));
            if (x.dtype == SH_BF16)
                ((uint16_t *)image)[at] = sh_bf16_from_f32(value);
            else
                ((float *)image)[at] = value;
        }
    }
    for (size_t i = 0; i < SH_COUNT(cotangent); i++) cotangent[i] = cosf((float)i);
    assert_int_equal(sh_program_write(t->program, t->arena, t->x, image), SH_OK);
    const sh_run_args args = {.arena = t->arena, .reduce = with_reduce ? t->reduce : NULL};
    assert_int_equal(sh_program_run(t->program, SH_PHASE_CONSTANTS, &args), SH_OK);
    assert_int_equal(sh_program_run(t->program, SH_PHASE_FORWARD, &args), SH_OK);
    if (with_reduce && t->dx != t->dy) {
        assert_int_equal(sh_program_write(t->program, t->arena, t->dy, cotangent), SH_OK);
        assert_int_equal(sh_program_run(t->program, SH_PHASE_BACKWARD, &args), SH_OK);
    }
    free(image);
}

static inline float *read_reduce(net *t)
{
    int64_t n = sh_store_n_params(t->store) + sh_store_n_states(t->store);
    float *values = malloc((size_t)n * sizeof(float));

    assert_int_equal(t->backend->copy_out(t->reduce, 0, values, (size_t)n * sizeof(float)), SH_OK);
    return values;
}

#endif
