// SPDX-License-Identifier: Apache-2.0
// timeout: 120
/**
 * Derivatives against central differences on the reference backend, for every differentiable op and
 * for every fusion.
 *
 * f = sum(output * cotangent). For each parameter, and for the input, the derivative along a random
 * direction u of length 1 must equal D(h) = (f(v + h u) - f(v - h u)) / 2h, extrapolated from h and
 * h/2 to (4 D(h/2) - D(h)) / 3. Values are f32 between nodes, so f carries noise of some 1e-6, or
 * 2e-4 in the quotient at h = 1e-2; what truncation leaves is of order h^4. With ReLUs h is
 * smaller, since a step that crosses a kink adds an error of order h; where a smooth network's
 * gradients are small beside f it is larger. The bound is on the
 * difference relative to the gradient's length, which is the largest derivative of all directions.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "models/host_value.h"
#include "models/program.h"
#include "models/ref/ref.h"

typedef struct case_net {
    const char *name;
    int64_t dims[4];
    sh_value (*build)(sh_program *p, sh_value x);
    bool inference; /* constant statistics */
    double h, bound;
    int fused_nodes; /* of the op below, when everything may be fused */
    const char *fused_op;
} case_net;

/* ---- networks ---- */

static sh_value build_conv(sh_program *p, sh_value x)
{
    x = sh_op_conv(
        p, x, "a",
        &(sh_conv_attrs){
            .out_channels = 6, .kernel = {3, 5}, .stride = 2, .pad = {0, 2, 1, 1}, .bias = true});
    x = sh_op_conv(
        p, x, "b",
        &(sh_conv_attrs){
            .out_channels = 9, .kernel = {3, 3}, .dilation = 2, .groups = 3, .pad = {2, 2, 2, 2}});
    return sh_op_conv(p, x, "c",
                      &(sh_conv_attrs){.out_channels = 9,
                                       .kernel = {3, 3},
                                       .groups = 9,
                                       .stride = 2,
                                       .same = true,
                                       .bias = true});
}

static sh_value build_bn(sh_program *p, sh_value x)
{
    return sh_op_batch_norm(p, x, "bn", 1e-3f, 0.1f);
}

static sh_value build_smooth(sh_program *p, sh_value x)
{
    x = sh_op_act(p, sh_op_batch_norm(p, x, "bn1", 1e-3f, 0.1f), SH_ACT_SIGMOID);
    x = sh_op_conv(p, x, "conv", &(sh_conv_attrs){.out_channels = 5, .kernel = {1, 1}});
    x = sh_op_act(p, sh_op_batch_norm(p, x, "bn2", 1e-3f, 0.1f), SH_ACT_TANH);
    return sh_op_conv(p, x, "last", &(sh_conv_attrs){.out_channels = 4, .kernel = {3, 3}});
}

static sh_value build_head(sh_program *p, sh_value x)
{
    static const int pad[4] = {1, 2, 2, 1};

    x = sh_op_dropout(p, sh_op_reflect_pad(p, x, pad), 0.25f);
    x = sh_op_linear(p, sh_op_flatten(p, x), "fc1", 7, true);
    x = sh_op_linear(p, sh_op_act(p, x, SH_ACT_SIGMOID), "fc2", 5, false);
    return sh_op_l2_norm(p, x);
}

static sh_value build_pool(sh_program *p, sh_value x)
{
    return sh_op_l2_norm(p, sh_op_global_avg_pool(p, x));
}

static sh_value build_shared(sh_program *p, sh_value x)
{
    const sh_conv_attrs conv = {
        .out_channels = 3, .kernel = {3, 3}, .pad = {1, 1, 1, 1}, .bias = true};
    sh_value y = sh_op_act(p, sh_op_conv(p, x, "tower", &conv), SH_ACT_TANH);

    return sh_op_add(p, sh_op_conv(p, y, "tower", &conv), y);
}

static sh_value build_inverted(sh_program *p, sh_value x)
{
    sh_value skip = x;

    x = sh_op_conv(p, x, "expand", &(sh_conv_attrs){.out_channels = 12, .kernel = {1, 1}});
    x = sh_op_act(p, sh_op_batch_norm(p, x, "bn1", 1e-3f, 0.1f), SH_ACT_RELU6);
    x = sh_op_conv(
        p, x, "depthwise",
        &(sh_conv_attrs){.out_channels = 12, .kernel = {3, 3}, .groups = 12, .pad = {1, 1, 1, 1}});
    x = sh_op_act(p, sh_op_batch_norm(p, x, "bn2", 1e-3f, 0.1f), SH_ACT_RELU6);
    x = sh_op_conv(p, x, "project", &(sh_conv_attrs){.out_channels = 3, .kernel = {1, 1}});
    return sh_op_add(p, sh_op_batch_norm(p, x, "bn3", 1e-3f, 0.1f), skip);
}

static sh_value build_residual(sh_program *p, sh_value x)
{
    sh_value skip = x;

    x = sh_op_conv(p, x, "conv1",
                   &(sh_conv_attrs){.out_channels = 5, .kernel = {3, 3}, .pad = {1, 1, 1, 1}});
    x = sh_op_act(p, sh_op_batch_norm(p, x, "bn1", 1e-3f, 0.1f), SH_ACT_RELU);
    x = sh_op_conv(p, x, "conv2",
                   &(sh_conv_attrs){.out_channels = 6, .kernel = {3, 3}, .pad = {1, 1, 1, 1}});
    x = sh_op_batch_norm(p, x, "bn2", 1e-3f, 0.1f);
    skip = sh_op_conv(p, skip, "down", &(sh_conv_attrs){.out_channels = 6, .kernel = {1, 1}});
    skip = sh_op_batch_norm(p, skip, "bn_down", 1e-3f, 0.1f);
    x = sh_op_act(p, sh_op_add(p, x, skip), SH_ACT_RELU);
    skip = x;
    x = sh_op_conv(p, x, "conv3",
                   &(sh_conv_attrs){.out_channels = 6, .kernel = {3, 3}, .pad = {1, 1, 1, 1}});
    x = sh_op_batch_norm(p, x, "bn3", 1e-3f, 0.1f);
    return sh_op_act(p, sh_op_add(p, x, skip), SH_ACT_RELU);
}

/* Pools of every kind; the maximum is taken where nothing else is within a step. */
static sh_value build_pools(sh_program *p, sh_value x)
{
    const sh_pool_attrs average = {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1, 1, 1}};
    const sh_pool_attrs padded = {
        .kernel = {2, 3}, .stride = {1, 2}, .count_padding = true, .pad = {0, 1, 1, 0}};
    const sh_pool_attrs same = {.kernel = {3, 2}, .stride = {2, 2}, .same = true};

    x = sh_op_avg_pool(p, x, &average);
    x = sh_op_avg_pool(p, x, &padded);
    x = sh_op_avg_pool(p, x, &same);
    return sh_op_adaptive_avg_pool(p, x, 2, 3);
}

static sh_value build_max_pool(sh_program *p, sh_value x)
{
    const sh_pool_attrs windows = {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1, 1, 1}};
    const sh_pool_attrs same = {.kernel = {3, 2}, .stride = {1, 1}, .same = true};

    return sh_op_max_pool(p, sh_op_max_pool(p, x, &windows), &same);
}

static sh_value build_gem(sh_program *p, sh_value x)
{
    return sh_op_gem_pool(p, sh_op_act(p, x, SH_ACT_GELU), "pool.p", 0.05f);
}

/* Squeeze and excitation behind a batch norm whose activation needs its input. */
static sh_value squeeze(sh_program *p, sh_value x, sh_act act, sh_act gate)
{
    x = sh_op_conv(p, x, "conv1", &(sh_conv_attrs){.out_channels = 6, .kernel = {1, 1}});
    x = sh_op_act(p, sh_op_batch_norm(p, x, "bn1", 1e-3f, 0.1f), act);
    x = sh_op_conv(
        p, x, "depthwise",
        &(sh_conv_attrs){.out_channels = 6, .kernel = {3, 3}, .groups = 6, .pad = {1, 1, 1, 1}});
    x = sh_op_act(p, sh_op_batch_norm(p, x, "bn2", 1e-3f, 0.1f), act);
    sh_value s = sh_op_global_avg_pool(p, x);
    s = sh_op_conv(p, s, "reduce",
                   &(sh_conv_attrs){.out_channels = 2, .kernel = {1, 1}, .bias = true});
    s = sh_op_conv(p, sh_op_act(p, s, act), "expand",
                   &(sh_conv_attrs){.out_channels = 6, .kernel = {1, 1}, .bias = true});
    x = sh_op_mul_channels(p, x, sh_op_act(p, s, gate));
    x = sh_op_conv(p, x, "conv2", &(sh_conv_attrs){.out_channels = 4, .kernel = {1, 1}});
    return sh_op_batch_norm(p, x, "bn3", 1e-3f, 0.1f);
}

static sh_value build_squeeze(sh_program *p, sh_value x)
{
    return squeeze(p, x, SH_ACT_SILU, SH_ACT_SIGMOID);
}

static sh_value build_hard(sh_program *p, sh_value x)
{
    return squeeze(p, x, SH_ACT_HARD_SWISH, SH_ACT_HARD_SIGMOID);
}

/* A branch is used twice, one input of the concatenation needs no more than a copy. */
static sh_value build_inception(sh_program *p, sh_value x)
{
    sh_value a = sh_op_conv(p, x, "a", &(sh_conv_attrs){.out_channels = 5, .kernel = {1, 1}});
    sh_value b = sh_op_conv(
        p, x, "b",
        &(sh_conv_attrs){.out_channels = 3, .kernel = {3, 3}, .pad = {1, 1, 1, 1}, .bias = true});
    const sh_value parts[4] = {a, x, sh_op_act(p, b, SH_ACT_TANH), a};
    sh_value up = sh_op_concat(p, 4, parts);
    up = sh_op_conv(p, up, "up",
                    &(sh_conv_attrs){.out_channels = 3, .kernel = {1, 1}, .bias = true});
    x = sh_op_add_scaled(p, x, up, 0.17f);
    return sh_op_act(p, sh_op_add_scaled(p, x, x, 0.5f), SH_ACT_TANH);
}

static sh_value build_transformer(sh_program *p, sh_value x)
{
    x = sh_op_conv(
        p, x, "patch",
        &(sh_conv_attrs){.out_channels = 6, .kernel = {2, 2}, .stride = 2, .bias = true});
    x = sh_op_tokens(p, x, "cls_token", "pos_embed");
    sh_value y = sh_op_linear(p, sh_op_layer_norm(p, x, "norm1", 1e-3f), "qkv", 18, true);
    y = sh_op_linear(p, sh_op_attention(p, y, 2), "proj", 6, true);
    x = sh_op_add(p, x, sh_op_path_drop(p, sh_op_scale(p, y, "ls1.weight"), 0.4f));
    y = sh_op_linear(p, sh_op_layer_norm(p, x, "norm2", 1e-3f), "fc1", 8, true);
    y = sh_op_linear(p, sh_op_act(p, y, SH_ACT_GELU), "fc2", 6, true);
    x = sh_op_layer_norm(p, sh_op_add(p, x, y), "norm", 1e-3f);
    return sh_op_linear(p, sh_op_take_token(p, x, 0), "head", 4, true);
}

static const case_net cases[] = {
    {"conv", {2, 3, 11, 9}, build_conv, false, 1e-2, 1e-3, 3, "conv_grad"},
    {"batch norm", {3, 4, 5, 3}, build_bn, false, 1e-2, 1e-3, 1, "bn_grad_apply"},
    {"frozen batch norm", {3, 4, 5, 3}, build_bn, true, 1e-2, 1e-3, 1, "bn_grad_apply"},
    {"sigmoid, tanh", {2, 3, 6, 5}, build_smooth, false, 1e-2, 2e-3, 2, "conv_grad"},
    {"sigmoid, tanh, frozen", {2, 3, 6, 5}, build_smooth, true, 1e-2, 2e-3, 2, "conv_grad"},
    {"head", {3, 2, 5, 4}, build_head, false, 1e-2, 1e-3, 2, "linear_grad_w"},
    {"pool", {3, 6, 5, 4}, build_pool, false, 1e-2, 1e-3, 1, "avg_pool_grad"},
    {"shared parameters", {2, 3, 5, 6}, build_shared, false, 1e-2, 1e-3, 2, "conv_grad"},
    {"inverted residual", {3, 3, 7, 9}, build_inverted, false, 1e-3, 1e-2, 3, "conv_grad"},
    {"inverted residual, frozen", {3, 3, 7, 9}, build_inverted, true, 1e-3, 1e-2, 3, "conv_grad"},
    {"residual", {2, 3, 7, 5}, build_residual, false, 1e-3, 1e-2, 4, "conv_grad"},
    {"residual, frozen", {2, 3, 7, 5}, build_residual, true, 1e-3, 1e-2, 4, "conv_grad"},
    {"mean pools", {2, 3, 11, 9}, build_pools, false, 1e-2, 1e-3, 3, "mean_pool_grad"},
    {"maximum pools", {2, 3, 9, 8}, build_max_pool, false, 1e-4, 1e-2, 2, "max_pool_grad"},
    {"generalised mean", {3, 4, 5, 4}, build_gem, false, 1e-3, 1e-2, 1, "gem_pool_grad"},
    {"squeeze and excitation", {3, 3, 6, 5}, build_squeeze, false, 3e-2, 2e-3, 5, "conv_grad"},
    {"squeeze, frozen", {3, 3, 6, 5}, build_squeeze, true, 3e-2, 2e-3, 5, "conv_grad"},
    {"hard squeeze", {3, 3, 6, 5}, build_hard, false, 1e-3, 1e-2, 5, "conv_grad"},
    {"squeeze, no act left", {3, 3, 6, 5}, build_squeeze, false, 3e-2, 2e-3, 1, "act"},
    {"squeeze, nothing stored", {3, 3, 6, 5}, build_squeeze, false, 3e-2, 2e-3, 1, "se_grad"},
    {"inception", {2, 3, 5, 6}, build_inception, false, 1e-2, 1e-3, 1, "concat_grad"},
    {"transformer", {3, 3, 6, 4}, build_transformer, false, 1e-2, 2e-3, 1, "attention_grad"},
};

/* ---- a network in memory ---- */

typedef struct bench {
    const sh_backend *backend;
    sh_store *store;
    sh_program *program;
    sh_value x, y, dy, dx;
    sh_buffer *arena, *reduce, *scalars;
    int64_t n_in, n_out, n_reduce;
    float *image, *cotangent, *gradient, *dimage, *out;
} bench;

static void fill(float *values, int64_t n, uint64_t slot)
{
    for (int64_t i = 0; i < n; i++) {
        values[i] = (float)sh_rng_normal(sh_rng_make(3, SH_RNG_TEST, 0, slot), (uint64_t)i);
    }
}

static void randomise_store(sh_store *store)
{
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const sh_slot *slot = sh_store_slot(store, i);
        float *values = malloc((size_t)slot->n_elems * sizeof(float));
        fill(values, slot->n_elems, (uint64_t)(100 + i));
        bool is_scale = slot->n_dims == 1 && strstr(slot->name, "bias") == NULL;
        for (int64_t k = 0; k < slot->n_elems; k++) {
            if (is_scale)
                values[k] = 0.5f + 0.5f * values[k] * values[k];
            else
                values[k] *= 0.5f;
        }
        assert_int_equal(sh_store_write(store, i, values), SH_OK);
        free(values);
    }
}

static void open_bench(bench *b, const case_net *c, const sh_backend *backend)
{
    memset(b, 0, sizeof(*b));
    b->backend = backend;
    assert_int_equal(sh_store_create(backend, &b->store), SH_OK);
    const sh_program_config config = {
        .backend = backend, .store = b->store, .training = !c->inference, .share = 1, .prefix = ""};
    assert_int_equal(sh_program_create(&config, &b->program), SH_OK);
    b->x = sh_program_input(b->program, "image", c->dims);
    b->y = sh_program_output(b->program, "out", c->build(b->program, b->x));
    assert_int_equal(sh_program_differentiate(b->program, b->y, b->x, &b->dy, &b->dx), SH_OK);
    assert_int_equal(sh_program_plan(b->program), SH_OK);
    assert_int_equal(sh_store_allocate(b->store), SH_OK);
    randomise_store(b->store);

    sh_tensor_desc x = sh_program_desc(b->program, b->x), y = sh_program_desc(b->program, b->y);
    b->n_in = sh_tensor_stored_elems(&x);
    b->n_out = sh_tensor_stored_elems(&y);
    b->n_reduce = sh_store_n_params(b->store) + sh_store_n_states(b->store);
    b->image = malloc((size_t)b->n_in * sizeof(float));
    b->dimage = malloc((size_t)b->n_in * sizeof(float));
    b->cotangent = malloc((size_t)b->n_out * sizeof(float));
    b->out = malloc((size_t)b->n_out * sizeof(float));
    b->gradient = malloc((size_t)b->n_reduce * sizeof(float));
    fill(b->image, b->n_in, 1);
    fill(b->cotangent, b->n_out, 2);
    assert_int_equal(backend->alloc(sh_program_arena_bytes(b->program), &b->arena), SH_OK);
    assert_int_equal(backend->alloc((size_t)b->n_reduce * sizeof(float) + 64, &b->reduce), SH_OK);
    b->scalars = put_scalars(backend, &(sh_run_scalars){.seed = 9});
}

static void close_bench(bench *b)
{
    b->backend->free(&b->arena);
    b->backend->free(&b->reduce);
    b->backend->free(&b->scalars);
    sh_program_destroy(&b->program);
    sh_store_destroy(&b->store);
    free(b->image);
    free(b->dimage);
    free(b->cotangent);
    free(b->out);
    free(b->gradient);
}

static double evaluate(bench *b)
{
    double sum = 0;
    const sh_run_args args = {
        .arena = b->arena, .reduce = b->reduce, .scalars = b->backend->device_ptr(b->scalars, 0)};

    assert_int_equal(sh_program_write(b->program, b->arena, b->x, b->image), SH_OK);
    assert_int_equal(sh_program_run(b->program, SH_PHASE_FORWARD, &args), SH_OK);
    assert_int_equal(sh_program_read(b->program, b->arena, b->y, b->out), SH_OK);
    for (int64_t i = 0; i < b->n_out; i++) sum += (double)b->out[i] * b->cotangent[i];
    return sum;
}

static void differentiate(bench *b)
{
    const sh_run_args args = {
        .arena = b->arena, .reduce = b->reduce, .scalars = b->backend->device_ptr(b->scalars, 0)};

    (void)evaluate(b);
    assert_int_equal(sh_program_write(b->program, b->arena, b->dy, b->cotangent), SH_OK);
    assert_int_equal(sh_program_run(b->program, SH_PHASE_BACKWARD, &args), SH_OK);
    assert_int_equal(sh_program_read(b->program, b->arena, b->dx, b->dimage), SH_OK);
    assert_int_equal(
        b->backend->copy_out(b->reduce, 0, b->gradient, (size_t)b->n_reduce * sizeof(float)),
        SH_OK);
}

/* ---- the comparison ---- */

/** Largest |difference| over a few directions, relative to the gradient's length. `slot` < 0: the
 *  input. */
static double direction_error(bench *b, int slot, const float *gradient, int64_t n, double h)
{
    double length = 0, worst = 0;
    float *base = malloc((size_t)n * sizeof(float)), *moved = malloc((size_t)n * sizeof(float));
    float *u = malloc((size_t)n * sizeof(float));

    if (slot >= 0)
        assert_int_equal(sh_store_read(b->store, slot, base), SH_OK);
    else
        memcpy(base, b->image, (size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++) length += (double)gradient[i] * gradient[i];
    length = sqrt(length) > 1e-3 ? sqrt(length) : 1e-3;
    for (int direction = 0; direction < 3; direction++) {
        double f[4], slope = 0, square = 0;
        fill(u, n, (uint64_t)(1000 + direction));
        /* The last one is the gradient itself: where a random direction hardly sees it. */
        if (direction == 2) memcpy(u, gradient, (size_t)n * sizeof(float));
        for (int64_t i = 0; i < n; i++) square += (double)u[i] * u[i];
        if (square == 0) square = 1;
        for (int64_t i = 0; i < n; i++) {
            u[i] = (float)(u[i] / sqrt(square));
            slope += (double)u[i] * gradient[i];
        }
        for (int point = 0; point < 4; point++) {
            const double steps[4] = {h, -h, h / 2, -h / 2};
            for (int64_t i = 0; i < n; i++) moved[i] = base[i] + (float)steps[point] * u[i];
            if (slot >= 0)
                assert_int_equal(sh_store_write(b->store, slot, moved), SH_OK);
            else
                memcpy(b->image, moved, (size_t)n * sizeof(float));
            f[point] = evaluate(b);
        }
        double quotient = (4 * (f[2] - f[3]) / h - (f[0] - f[1]) / (2 * h)) / 3;
        double error = fabs(quotient - slope) / length;
        if (error > worst) worst = error;
    }
    if (slot >= 0)
        assert_int_equal(sh_store_write(b->store, slot, base), SH_OK);
    else
        memcpy(b->image, base, (size_t)n * sizeof(float));
    free(base);
    free(moved);
    free(u);
    return worst;
}

static int count_nodes(const sh_program *p, const char *op)
{
    int n = 0;

    for (int i = 0; i < sh_program_n_nodes(p); i++) {
        sh_node_info info;
        sh_program_node_info(p, i, &info);
        n += strcmp(info.op, op) == 0;
    }
    return n;
}

static void check_case(const case_net *c, const sh_backend *backend, bool is_fused)
{
    bench b;
    int n_checked = 0, n_wrong = 0;

    open_bench(&b, c, backend);
    differentiate(&b);
    for (int i = -1; i < sh_store_n_slots(b.store); i++) {
        const sh_slot *slot = i < 0 ? NULL : sh_store_slot(b.store, i);
        if (slot != NULL && slot->kind != SH_SLOT_PARAM) continue;
        double error = slot == NULL
                           ? direction_error(&b, i, b.dimage, b.n_in, c->h)
                           : direction_error(&b, i, b.gradient + slot->offset, slot->n_elems, c->h);
        if (error > c->bound) {
            print_message("%s, %s: %s is off by %.3g\n", c->name, is_fused ? "fused" : "plain",
                          slot == NULL ? "input" : slot->name, error);
        }
        n_wrong += !(error <= c->bound);
        n_checked++;
    }
    if (is_fused && count_nodes(b.program, c->fused_op) != c->fused_nodes) {
        print_message("%s: %d nodes %s, not %d\n", c->name, count_nodes(b.program, c->fused_op),
                      c->fused_op, c->fused_nodes);
        n_wrong++;
    }
    close_bench(&b);
    assert_true(n_checked >= 1);
    assert_int_equal(n_wrong, 0);
}

static bool accept_all(const sh_node_desc *fused)
{
    (void)fused;
    return true;
}

static void gradients__equal_central_differences(void **state)
{
    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) check_case(&cases[i], &sh_backend_ref, false);
}

static void gradients__equal_central_differences_when_fused(void **state)
{
    sh_backend fusing = sh_backend_ref;

    (void)state;
    fusing.can_fuse = accept_all;
    for (size_t i = 0; i < SH_COUNT(cases); i++) check_case(&cases[i], &fusing, true);
}

/** A backend that refuses half of what it is asked must still compute the same. */
static int n_asked, refuse_mask;

static bool accept_some(const sh_node_desc *fused)
{
    (void)fused;
    return (refuse_mask >> (n_asked++ % 16) & 1) == 0;
}

static void fusion__changes_no_gradient_whatever_is_refused(void **state)
{
    sh_backend fusing = sh_backend_ref;

    (void)state;
    fusing.can_fuse = accept_some;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        bench plain, fused;
        open_bench(&plain, &cases[i], &sh_backend_ref);
        differentiate(&plain);
        for (int mask = 0; mask < 40; mask++) {
            double error = 0, power = 0;
            n_asked = 0;
            refuse_mask = mask == 0 ? 0 : (mask * 40503) & 0xFFFF;
            open_bench(&fused, &cases[i], &fusing);
            differentiate(&fused);
            for (int64_t k = 0; k < plain.n_reduce; k++) {
                error += pow((double)plain.gradient[k] - fused.gradient[k], 2);
                power += pow(plain.gradient[k], 2);
            }
            for (int64_t k = 0; k < plain.n_in; k++) {
                error += pow((double)plain.dimage[k] - fused.dimage[k], 2);
                power += pow(plain.dimage[k], 2);
            }
            close_bench(&fused);
            if (!(error <= 1e-10 * power)) {
                print_message("%s, mask %x: NMSE %.3g\n", cases[i].name, (unsigned)refuse_mask,
                              error / power);
            }
            assert_true(error <= 1e-10 * power);
        }
        assert_true(n_asked > 0 || count_nodes(plain.program, "conv") == 0);
        close_bench(&plain);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients__equal_central_differences),
        cmocka_unit_test(gradients__equal_central_differences_when_fused),
        cmocka_unit_test(fusion__changes_no_gradient_whatever_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
