// SPDX-License-Identifier: Apache-2.0
// timeout: 60
/** Building, differentiating, planning and running programs; slots, mistakes, the guard. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "models/graph.h"

typedef struct net {
    const sh_backend *backend;
    sh_store *store;
    sh_program *program;
    sh_value x, y, dy, dx;
    sh_buffer *arena, *reduce;
} net;

/** Stem, one inverted residual with a shortcut, and an embedding head. */
static void build(net *t, bool training)
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
    t->y = sh_program_output(p, "embedding", sh_op_l2_norm(p, v, 1e-12f));
    if (training) {
        assert_int_equal(sh_program_differentiate(p, t->y, t->x, &t->dy, &t->dx), SH_OK);
    }
}

static void open_net(net *t, const char *backend, sh_dtype dtype, bool training)
{
    memset(t, 0, sizeof(*t));
    assert_int_equal(sh_backend_find(backend, &t->backend), SH_OK);
    assert_int_equal(sh_store_create(t->backend, &t->store), SH_OK);
    const sh_program_config config = {.backend = t->backend,
                                      .store = t->store,
                                      .dtype = dtype,
                                      .training = training,
                                      .share = 1,
                                      .prefix = ""};
    assert_int_equal(sh_program_create(&config, &t->program), SH_OK);
    build(t, training);
    assert_int_equal(sh_program_plan(t->program), SH_OK);
    assert_int_equal(sh_store_allocate(t->store), SH_OK);
    assert_int_equal(sh_store_init(t->store, 7), SH_OK);
    int64_t n = sh_store_n_params(t->store) + sh_store_n_states(t->store);
    assert_int_equal(t->backend->alloc(sh_program_arena_bytes(t->program), &t->arena), SH_OK);
    assert_int_equal(t->backend->alloc((size_t)n * sizeof(float), &t->reduce), SH_OK);
}

static void close_net(net *t)
{
    t->backend->free(&t->arena);
    t->backend->free(&t->reduce);
    sh_program_destroy(&t->program);
    sh_store_destroy(&t->store);
}

static void run__forward_and_backward_give_finite_numbers(void **state)
{
    net t;
    float image[3 * 3 * 13 * 11], cotangent[15], out[15], dx[3 * 3 * 13 * 11];
    double norm = 0;

    (void)state;
    open_net(&t, "ref", SH_F32, true);
    for (size_t i = 0; i < SH_COUNT(image); i++) image[i] = sinf((float)i);
    for (size_t i = 0; i < SH_COUNT(cotangent); i++) cotangent[i] = cosf((float)i);
    assert_int_equal(sh_program_write(t.program, t.arena, t.x, image), SH_OK);
    const sh_run_args args = {.arena = t.arena, .reduce = t.reduce};
    assert_int_equal(sh_program_run(t.program, SH_PHASE_FORWARD, &args), SH_OK);
    assert_int_equal(sh_program_read(t.program, t.arena, t.y, out), SH_OK);
    for (int i = 0; i < 5; i++) norm += (double)out[i] * out[i];
    assert_true(fabs(norm - 1) < 1e-6);
    assert_int_equal(sh_program_write(t.program, t.arena, t.dy, cotangent), SH_OK);
    assert_int_equal(sh_program_run(t.program, SH_PHASE_BACKWARD, &args), SH_OK);
    assert_int_equal(sh_program_read(t.program, t.arena, t.dx, dx), SH_OK);
    norm = 0;
    for (size_t i = 0; i < SH_COUNT(dx); i++) norm += (double)dx[i] * dx[i];
    assert_true(isfinite(norm) && norm > 0);
    close_net(&t);
}

/* ---- planning ---- */

static bool overlaps(size_t a, size_t n_a, size_t b, size_t n_b)
{
    return a < b + n_b && b < a + n_a;
}

/** Follow every byte through the program: a value read must be what its producer wrote, whatever
 *  was written in between. Independent of the planner's own idea of lifetimes. */
static int count_clobbered(const sh_program *p)
{
    int n_clobbered = 0;
    int *written_at = calloc((size_t)p->n_values, sizeof(int));

    for (int v = 0; v < p->n_values; v++) written_at[v] = p->values[v].is_input ? 0 : -1;
    for (int i = 0; i < p->n_nodes; i++) {
        const sh_node *node = &p->nodes[i];
        for (int k = 0; k < node->n_in; k++) {
            sh_value v = node->in[k];
            if (v == SH_NO_VALUE || p->values[v].home != SH_HOME_ARENA) continue;
            n_clobbered += written_at[v] < 0;
        }
        for (int k = 0; k <= node->n_out; k++) {
            bool is_scratch = k == node->n_out;
            sh_value out = is_scratch ? SH_NO_VALUE : node->out[k];
            if (!is_scratch && (out == SH_NO_VALUE || p->values[out].home != SH_HOME_ARENA)) {
                continue;
            }
            size_t begin = is_scratch ? node->scratch_offset : p->values[out].offset;
            size_t n = is_scratch ? node->scratch_bytes : sh_tensor_bytes(&p->values[out].desc);
            for (int v = 0; v < p->n_values; v++) {
                const sh_value_info *info = &p->values[v];
                bool is_pending =
                    info->is_input && info->phase == SH_PHASE_BACKWARD && i < p->n_forward;
                if (v == out || info->home != SH_HOME_ARENA || is_pending) continue;
                if (overlaps(begin, n, info->offset, sh_tensor_bytes(&info->desc))) {
                    n_clobbered += info->is_input; /* inputs keep what was written to them */
                    written_at[v] = -1;
                }
            }
            if (!is_scratch) written_at[out] = i;
        }
    }
    for (int v = 0; v < p->n_values; v++)
        n_clobbered += p->values[v].is_pinned && written_at[v] < 0;
    free(written_at);
    return n_clobbered;
}

static void plan__never_overwrites_what_is_still_read(void **state)
{
    static const char *const backends[] = {"ref", "cpu"};
    static const sh_dtype dtypes[] = {SH_F32, SH_BF16};

    (void)state;
    for (int i = 0; i < 8; i++) {
        net t;
        open_net(&t, backends[i & 1], dtypes[i >> 1 & 1], i & 4);
        assert_int_equal(count_clobbered(t.program), 0);
        for (int v = 0; v < t.program->n_values; v++) {
            const sh_value_info *info = &t.program->values[v];
            if (info->home != SH_HOME_ARENA) continue;
            assert_true(info->offset + sh_tensor_bytes(&info->desc) <=
                        sh_program_arena_bytes(t.program));
            assert_int_equal(info->offset % 64, 0);
        }
        close_net(&t);
    }
}

static void plan__reuses_memory(void **state)
{
    net t;
    size_t sum = 0;

    (void)state;
    open_net(&t, "ref", SH_F32, false);
    for (int v = 0; v < t.program->n_values; v++) {
        if (t.program->values[v].producer >= 0) sum += sh_tensor_bytes(&t.program->values[v].desc);
    }
    assert_true(2 * sh_program_arena_bytes(t.program) < sum);
    close_net(&t);
}

/* ---- running ---- */

static void step(net *t, bool with_reduce)
{
    sh_tensor_desc x = sh_program_desc(t->program, t->x);
    float *image = calloc(1, sh_tensor_bytes(&x)), cotangent[15];

    for (int64_t n = 0; n < x.dims[0]; n++) {
        for (int64_t i = 0; i < x.dims[1] * x.dims[2] * x.dims[3]; i++) {
            int64_t at = sh_tensor_offset(&x, n, i / (x.dims[2] * x.dims[3]),
                                          i / x.dims[3] % x.dims[2], i % x.dims[3]);
            image[at] = sinf((float)(17 * i + n));
        }
    }
    for (size_t i = 0; i < SH_COUNT(cotangent); i++) cotangent[i] = cosf((float)i);
    assert_int_equal(sh_program_write(t->program, t->arena, t->x, image), SH_OK);
    const sh_run_args args = {.arena = t->arena, .reduce = with_reduce ? t->reduce : NULL};
    assert_int_equal(sh_program_run(t->program, SH_PHASE_FORWARD, &args), SH_OK);
    if (with_reduce && t->dx != t->dy) {
        assert_int_equal(sh_program_write(t->program, t->arena, t->dy, cotangent), SH_OK);
        assert_int_equal(sh_program_run(t->program, SH_PHASE_BACKWARD, &args), SH_OK);
    }
    free(image);
}

static float *read_reduce(net *t)
{
    int64_t n = sh_store_n_params(t->store) + sh_store_n_states(t->store);
    float *values = malloc((size_t)n * sizeof(float));

    assert_int_equal(t->backend->copy_out(t->reduce, 0, values, (size_t)n * sizeof(float)), SH_OK);
    return values;
}

static void run__repeats_to_the_last_bit(void **state)
{
    net t;

    (void)state;
    open_net(&t, "ref", SH_F32, true);
    step(&t, true);
    float *first = read_reduce(&t);
    step(&t, true);
    float *second = read_reduce(&t);
    int64_t n = sh_store_n_params(t.store) + sh_store_n_states(t.store);
    assert_memory_equal(first, second, (size_t)n * sizeof(float));
    free(first);
    free(second);
    close_net(&t);
}

static void run__forward_alone_exports_no_statistics(void **state)
{
    net t;
    double power = 0;

    (void)state;
    open_net(&t, "ref", SH_F32, true);
    step(&t, false);
    float *values = read_reduce(&t);
    int64_t n_params = sh_store_n_params(t.store), n_states = sh_store_n_states(t.store);
    for (int64_t i = 0; i < n_params + n_states; i++) power += fabs(values[i]);
    assert_true(power == 0);
    free(values);
    step(&t, true);
    values = read_reduce(&t);
    for (int64_t i = n_params; i < n_params + n_states; i++) power += fabs(values[i]);
    assert_true(power > 0);
    free(values);
    close_net(&t);
}

static void run__refuses_backward_without_memory_for_gradients(void **state)
{
    net t;

    (void)state;
    open_net(&t, "ref", SH_F32, true);
    const sh_run_args args = {.arena = t.arena};
    assert_int_equal(sh_program_run(t.program, SH_PHASE_BACKWARD, &args), SH_ERR_USAGE);
    close_net(&t);
}

static sh_status count_node(void *context, int node)
{
    int *last = context;

    assert_int_equal(node, *last + 1);
    *last = node;
    return SH_OK;
}

static void ready_node__is_the_last_to_touch_a_gradient(void **state)
{
    net t;

    (void)state;
    open_net(&t, "ref", SH_F32, true);
    for (int slot = 0; slot < sh_store_n_slots(t.store); slot++) {
        const sh_slot *s = sh_store_slot(t.store, slot);
        sh_home home = s->kind == SH_SLOT_PARAM ? SH_HOME_GRADS : SH_HOME_DELTAS;
        int last = -1;
        for (int i = 0; i < t.program->n_nodes; i++) {
            const sh_node *node = &t.program->nodes[i];
            for (int k = 0; k < node->n_in + node->n_out; k++) {
                sh_value v = k < node->n_in ? node->in[k] : node->out[k - node->n_in];
                if (v == SH_NO_VALUE || t.program->values[v].home != home) continue;
                if (t.program->values[v].offset == (size_t)s->offset * 4) last = i;
            }
        }
        assert_true(last >= 0);
        assert_int_equal(sh_program_ready_node(t.program, slot), last);
    }
    int last = -1;
    const sh_run_args args = {
        .arena = t.arena, .reduce = t.reduce, .after_node = count_node, .context = &last};
    assert_int_equal(sh_program_run(t.program, SH_PHASE_FORWARD, &args), SH_OK);
    assert_int_equal(sh_program_run(t.program, SH_PHASE_BACKWARD, &args), SH_OK);
    assert_int_equal(last, sh_program_n_nodes(t.program) - 1);
    close_net(&t);
}

/* ---- slots ---- */

static void differentiate__leaves_out_what_is_not_trainable(void **state)
{
    net whole, part;

    (void)state;
    open_net(&whole, "ref", SH_F32, true);
    memset(&part, 0, sizeof(part));
    part.backend = whole.backend;
    assert_int_equal(sh_store_create(part.backend, &part.store), SH_OK);
    const sh_program_config config = {
        .backend = part.backend, .store = part.store, .training = true, .share = 1, .prefix = ""};
    assert_int_equal(sh_program_create(&config, &part.program), SH_OK);
    build(&part, false);
    for (int i = 0; i < sh_store_n_slots(part.store); i++) {
        sh_slot *slot = sh_store_slot_mutable(part.store, i);
        slot->trainable = strncmp(slot->name, "head", 4) == 0;
    }
    assert_int_equal(sh_program_differentiate(part.program, part.y, SH_NO_VALUE, &part.dy, NULL),
                     SH_OK);
    assert_int_equal(sh_program_plan(part.program), SH_OK);
    assert_int_equal(sh_program_ready_node(part.program, sh_store_find(part.store, "stem.weight")),
                     -1);
    assert_int_equal(
        sh_program_ready_node(part.program, sh_store_find(part.store, "stem_bn.running_mean")), -1);
    assert_true(sh_program_ready_node(part.program, sh_store_find(part.store, "head.weight")) > 0);
    for (int i = 0; i < sh_program_n_nodes(part.program); i++) {
        sh_node_info info;
        sh_program_node_info(part.program, i, &info);
        assert_string_not_equal(info.op, "bn_stats");
        if (info.phase == SH_PHASE_BACKWARD) assert_null(strstr(info.op, "conv"));
    }
    close_net(&part);
    close_net(&whole);
}

static void differentiate__adds_the_gradients_of_two_outputs(void **state)
{
    sh_store *store = NULL;
    sh_program *p = NULL;
    const sh_backend *backend = NULL;
    sh_buffer *arena = NULL, *reduce = NULL;
    const int64_t dims[4] = {1, 2, 1, 1};
    const float x[2] = {3, 5}, dy[2] = {1, 10};
    float w[2];
    sh_value cotangent[2];

    (void)state;
    assert_int_equal(sh_backend_find("ref", &backend), SH_OK);
    assert_int_equal(sh_store_create(backend, &store), SH_OK);
    const sh_program_config config = {.backend = backend, .store = store, .share = 1};
    assert_int_equal(sh_program_create(&config, &p), SH_OK);
    sh_value in = sh_program_input(p, "x", dims);
    sh_value a = sh_program_output(p, "a", sh_op_linear(p, in, "fc", 1, false));
    sh_value b = sh_program_output(p, "b", sh_op_linear(p, in, "fc", 1, false));
    assert_int_equal(sh_program_differentiate(p, a, SH_NO_VALUE, &cotangent[0], NULL), SH_OK);
    assert_int_equal(sh_program_differentiate(p, b, SH_NO_VALUE, &cotangent[1], NULL), SH_OK);
    assert_int_equal(sh_program_plan(p), SH_OK);
    assert_int_equal(sh_store_allocate(store), SH_OK);
    assert_int_equal(backend->alloc(sh_program_arena_bytes(p), &arena), SH_OK);
    assert_int_equal(backend->alloc(64, &reduce), SH_OK);
    const sh_run_args args = {.arena = arena, .reduce = reduce};
    assert_int_equal(sh_program_write(p, arena, in, x), SH_OK);
    assert_int_equal(sh_program_run(p, SH_PHASE_FORWARD, &args), SH_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sh_program_write(p, arena, cotangent[i], &dy[i]), SH_OK);
    }
    assert_int_equal(sh_program_run(p, SH_PHASE_BACKWARD, &args), SH_OK);
    assert_int_equal(backend->copy_out(reduce, 0, w, sizeof(w)), SH_OK);
    assert_true(w[0] == 33 && w[1] == 55);
    backend->free(&arena);
    backend->free(&reduce);
    sh_program_destroy(&p);
    sh_store_destroy(&store);
}

static void programs__share_one_store(void **state)
{
    net t;
    sh_program *second = NULL;
    sh_value first_y = SH_NO_VALUE;
    float a[15], b[15];

    (void)state;
    open_net(&t, "ref", SH_F32, true);
    int n_slots = sh_store_n_slots(t.store);
    const sh_program_config config = {
        .backend = t.backend, .store = t.store, .training = true, .share = 1, .prefix = ""};
    assert_int_equal(sh_program_create(&config, &second), SH_OK);
    step(&t, true);
    assert_int_equal(sh_program_read(t.program, t.arena, t.y, a), SH_OK);
    sh_program *first = t.program;
    first_y = t.y;
    t.program = second;
    build(&t, false);
    assert_int_equal(sh_program_plan(second), SH_OK);
    assert_int_equal(sh_store_n_slots(t.store), n_slots);
    assert_true(sh_program_arena_bytes(second) <= sh_program_arena_bytes(first));
    step(&t, false);
    assert_int_equal(sh_program_read(second, t.arena, t.y, b), SH_OK);
    assert_memory_equal(a, b, sizeof(a));
    (void)first_y;
    sh_program_destroy(&first);
    close_net(&t);
}

static void store_add__refuses_another_shape_and_late_slots(void **state)
{
    net t;
    int index = -1;
    const int64_t other[2] = {5, 9};

    (void)state;
    open_net(&t, "ref", SH_F32, false);
    assert_int_equal(sh_store_add(t.store, "head.weight", SH_SLOT_PARAM, 2, other, &index),
                     SH_ERR_MISMATCH);
    assert_non_null(strstr(sh_error_message(), "head.weight"));
    assert_int_equal(sh_store_add(t.store, "late", SH_SLOT_PARAM, 2, other, &index), SH_ERR_USAGE);
    assert_int_equal(index, -1);
    close_net(&t);
}

static void store__keeps_slots_at_multiples_of_16(void **state)
{
    net t;

    (void)state;
    open_net(&t, "ref", SH_F32, false);
    for (int i = 0; i < sh_store_n_slots(t.store); i++) {
        const sh_slot *slot = sh_store_slot(t.store, i);
        assert_int_equal(slot->offset % 16, 0);
        assert_int_equal(slot->decay, slot->kind == SH_SLOT_PARAM && slot->n_dims > 1);
    }
    close_net(&t);
}

/* ---- mistakes ---- */

static void builder__remembers_the_first_failure(void **state)
{
    sh_store *store = NULL;
    sh_program *p = NULL;
    const sh_backend *backend = NULL;
    const int64_t dims[4] = {2, 6, 4, 4}, other[4] = {2, 5, 4, 4};
    sh_value cotangent = SH_NO_VALUE;

    (void)state;
    assert_int_equal(sh_backend_find("ref", &backend), SH_OK);
    assert_int_equal(sh_store_create(backend, &store), SH_OK);
    const sh_program_config config = {.backend = backend, .store = store, .share = 1};
    assert_int_equal(sh_program_create(&config, &p), SH_OK);
    sh_value x = sh_program_input(p, "x", dims), z = sh_program_input(p, "z", other);
    sh_value bad = sh_op_add(p, x, z);
    assert_int_equal(bad, SH_NO_VALUE);
    /* What is built on the failure changes nothing about the message. */
    bad =
        sh_op_conv(p, bad, "c", &(sh_conv_attrs){.out_channels = 4, .kernel = {3, 3}, .groups = 4});
    bad = sh_program_output(p, "y", sh_op_linear(p, bad, "fc", 3, true));
    assert_int_equal(bad, SH_NO_VALUE);
    assert_int_equal(sh_program_differentiate(p, bad, SH_NO_VALUE, &cotangent, NULL),
                     SH_ERR_MISMATCH);
    assert_int_equal(sh_program_plan(p), SH_ERR_MISMATCH);
    assert_non_null(strstr(sh_error_message(), "add: shapes differ"));
    sh_program_destroy(&p);
    sh_store_destroy(&store);
}

static void builder__refuses_what_cannot_be(void **state)
{
    static const int pad[4] = {4, 0, 0, 0};
    const sh_backend *backend = NULL;
    const int64_t dims[4] = {2, 6, 4, 4}, empty[4] = {2, 6, 0, 4};

    (void)state;
    assert_int_equal(sh_backend_find("ref", &backend), SH_OK);
    for (int mistake = 0; mistake < 7; mistake++) {
        sh_store *store = NULL;
        sh_program *p = NULL;
        sh_value y = SH_NO_VALUE;
        assert_int_equal(sh_store_create(backend, &store), SH_OK);
        const sh_program_config config = {
            .backend = backend, .store = store, .training = true, .share = 1};
        assert_int_equal(sh_program_create(&config, &p), SH_OK);
        sh_value x = sh_program_input(p, "x", mistake == 0 ? empty : dims);
        sh_conv_attrs conv = {.out_channels = 6, .kernel = {3, 3}};
        if (mistake == 1) conv.groups = 4;
        if (mistake == 2) conv.kernel[0] = 5;
        if (mistake < 3) y = sh_op_conv(p, x, "c", &conv);
        if (mistake == 3) y = sh_op_linear(p, x, "fc", 3, false);
        if (mistake == 4) y = sh_op_reflect_pad(p, x, pad);
        if (mistake == 5) y = sh_op_dropout(p, x, 1.0f);
        if (mistake == 6) y = sh_op_act(p, 99, SH_ACT_RELU);
        assert_int_equal(y, SH_NO_VALUE);
        assert_int_not_equal(sh_program_plan(p), SH_OK);
        assert_true(strlen(sh_error_message()) > 10);
        sh_program_destroy(&p);
        sh_store_destroy(&store);
    }
}

static void backend_find__names_what_there_is(void **state)
{
    const sh_backend *backend = NULL;

    (void)state;
    assert_int_equal(sh_backend_find("cuda", &backend), SH_ERR_USAGE);
    assert_non_null(strstr(sh_error_message(), "ref"));
    assert_int_equal(sh_backend_find("guard:cuda", &backend), SH_ERR_USAGE);
    assert_null(backend);
    assert_int_equal(sh_backend_find("guard:ref", &backend), SH_OK);
    assert_string_equal(backend->name, "guard:ref");
    assert_null(backend->host_view);
}

/* ---- the guard ---- */

/** Does touching this address kill the process? */
static bool is_fatal(volatile char *address, bool is_write)
{
    int status = 0;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        if (is_write)
            *address = 1;
        else
            (void)*address;
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

static void guard__dies_on_host_access_and_computes_the_same(void **state)
{
    net plain, guarded;

    (void)state;
    open_net(&plain, "ref", SH_F32, true);
    open_net(&guarded, "guard:ref", SH_F32, true);
    step(&plain, true);
    step(&guarded, true);
    float *a = read_reduce(&plain), *b = read_reduce(&guarded);
    int64_t n = sh_store_n_params(plain.store) + sh_store_n_states(plain.store);
    assert_memory_equal(a, b, (size_t)n * sizeof(float));
    free(a);
    free(b);
    assert_false(is_fatal(plain.backend->device_ptr(plain.arena, 128), true));
    sh_buffer *const buffers[3] = {guarded.arena, guarded.reduce, sh_store_params(guarded.store)};
    for (int i = 0; i < 3; i++) {
        assert_true(is_fatal(guarded.backend->device_ptr(buffers[i], 0), false));
        assert_true(is_fatal(guarded.backend->device_ptr(buffers[i], 64), true));
    }
    close_net(&plain);
    close_net(&guarded);
}

/* ---- looking ---- */

static void print__has_a_line_per_node(void **state)
{
    net t;
    char *text = NULL;
    size_t n_bytes = 0;
    int n_lines = 0;

    (void)state;
    open_net(&t, "ref", SH_F32, true);
    FILE *out = open_memstream(&text, &n_bytes);
    sh_program_print(t.program, out);
    assert_int_equal(fclose(out), 0);
    for (const char *c = text; *c != '\0'; c++) n_lines += *c == '\n';
    assert_int_equal(n_lines, sh_program_n_nodes(t.program) + 3); /* two phases and the sum */
    assert_non_null(strstr(text, "ref:conv"));
    free(text);

    sh_node_info info;
    sh_program_node_info(t.program, 0, &info);
    assert_string_equal(info.op, "conv");
    /* 3 images, 8 channels, 7 x 6 outputs, 27 products each */
    assert_true(info.flops == 2.0 * 3 * 8 * 7 * 6 * 27);
    assert_true(info.bytes == 4.0 * (3 * 3 * 13 * 11 + 8 * 27 + 3 * 8 * 7 * 6));
    close_net(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run__forward_and_backward_give_finite_numbers),
        cmocka_unit_test(plan__never_overwrites_what_is_still_read),
        cmocka_unit_test(plan__reuses_memory),
        cmocka_unit_test(run__repeats_to_the_last_bit),
        cmocka_unit_test(run__forward_alone_exports_no_statistics),
        cmocka_unit_test(run__refuses_backward_without_memory_for_gradients),
        cmocka_unit_test(ready_node__is_the_last_to_touch_a_gradient),
        cmocka_unit_test(differentiate__leaves_out_what_is_not_trainable),
        cmocka_unit_test(differentiate__adds_the_gradients_of_two_outputs),
        cmocka_unit_test(programs__share_one_store),
        cmocka_unit_test(store_add__refuses_another_shape_and_late_slots),
        cmocka_unit_test(store__keeps_slots_at_multiples_of_16),
        cmocka_unit_test(builder__remembers_the_first_failure),
        cmocka_unit_test(builder__refuses_what_cannot_be),
        cmocka_unit_test(backend_find__names_what_there_is),
        cmocka_unit_test(guard__dies_on_host_access_and_computes_the_same),
        cmocka_unit_test(print__has_a_line_per_node),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
