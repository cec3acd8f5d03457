// SPDX-License-Identifier: Apache-2.0
// prefix: cuda
// library: sh_models_cuda_emulated
/**
 * Programs run by recordings of their kernels. The emulator keeps them as a list, and is as strict
 * as a device that captures.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/cuda/cuda.h"
#include "models/cuda/emulator/order.h"
#include "models/host_value.h"

enum { N_STEPS = 4, N_IMAGES = 2, SIDE = 6, DIM = 4, MAX_CALLS = 64 };

typedef struct net {
    sh_store *store;
    sh_program *program;
    sh_value x, y, dy;
    sh_buffer *arena, *reduce, *scalars;
    int64_t n_reduce;
} net;

/** With a dense convolution, which the stand-in for cuDNN computes, and random draws. */
static void open_net(net *n)
{
    const sh_backend *backend = &sh_backend_cuda;

    *n = (net){0};
    assert_ok(sh_store_create(backend, &n->store));
    const sh_program_config config = {
        .backend = backend, .store = n->store, .training = true, .share = 1, .prefix = ""};
    assert_ok(sh_program_create(&config, &n->program));
    sh_program *p = n->program;
    n->x = sh_program_input(p, "image", (int64_t[4]){N_IMAGES, 3, SIDE, SIDE});
    sh_value v =
        sh_op_conv(p, n->x, "conv",
                   &(sh_conv_attrs){.out_channels = 8, .kernel = {3, 3}, .pad = {1, 1, 1, 1}});
    v = sh_op_act(p, sh_op_batch_norm(p, v, "bn", 1e-5f, 0.1f), SH_ACT_RELU6);
    v = sh_op_dropout(p, v, 0.5f);
    v = sh_op_linear(p, sh_op_global_avg_pool(p, v), "head", DIM, true);
    n->y = sh_program_output(p, "embedding", v);
    assert_ok(sh_program_differentiate(p, n->y, SH_NO_VALUE, &n->dy, NULL));
    assert_ok(sh_program_plan(p));
    assert_ok(sh_store_allocate(n->store));
    assert_ok(sh_store_init(n->store, 7));
    n->n_reduce = sh_store_n_params(n->store) + sh_store_n_states(n->store);
    assert_ok(backend->alloc(sh_program_arena_bytes(p), &n->arena));
    assert_ok(backend->alloc((size_t)n->n_reduce * sizeof(float), &n->reduce));
    n->scalars = put_scalars(backend, &(sh_run_scalars){0});
}

static void close_net(net *n)
{
    sh_backend_cuda.free(&n->arena);
    sh_backend_cuda.free(&n->reduce);
    sh_backend_cuda.free(&n->scalars);
    sh_program_destroy(&n->program);
    sh_store_destroy(&n->store);
}

static sh_run_args args_of(net *n, bool recorded)
{
    return (sh_run_args){.arena = n->arena,
                         .reduce = n->reduce,
                         .scalars = sh_backend_cuda.device_ptr(n->scalars, 0),
                         .recorded = recorded};
}

/** Forward and backward of one step, with its own images, weights and draws; gradients. */
static float *step_of(net *n, int64_t number, uint64_t draws, const sh_run_args *args)
{
    const sh_run_scalars scalars = {.seed = 5, .step = draws, .first_slot = 3};
    const sh_tensor_desc x = sh_program_desc(n->program, n->x);
    const int64_t n_elems = sh_tensor_stored_elems(&x);
    float *image = malloc((size_t)n_elems * sizeof(float)), cotangent[N_IMAGES * DIM];
    float *gradients = malloc((size_t)n->n_reduce * sizeof(float));

    for (int64_t i = 0; i < n_elems; i++) image[i] = sinf((float)(i + 100 * number));
    for (int i = 0; i < N_IMAGES * DIM; i++) cotangent[i] = cosf((float)i);
    assert_ok(sh_store_init(n->store, (uint64_t)number));
    assert_ok(sh_backend_cuda.copy_in(n->scalars, 0, &scalars, sizeof(scalars)));
    assert_ok(sh_program_write(n->program, n->arena, n->x, image));
    assert_ok(sh_program_run(n->program, SH_PHASE_FORWARD, args));
    assert_ok(sh_program_write(n->program, n->arena, n->dy, cotangent));
    assert_ok(sh_program_run(n->program, SH_PHASE_BACKWARD, args));
    assert_ok(
        sh_backend_cuda.copy_out(n->reduce, 0, gradients, (size_t)n->n_reduce * sizeof(float)));
    free(image);
    return gradients;
}

static float *step(net *n, int64_t number, const sh_run_args *args)
{
    return step_of(n, number, (uint64_t)number, args);
}

/** Gradients of N_STEPS steps, [N_STEPS, n]. */
static float *steps(bool recorded, int64_t *n_floats)
{
    net n;
    float *all;

    open_net(&n);
    *n_floats = n.n_reduce;
    all = malloc((size_t)(N_STEPS * n.n_reduce) * sizeof(float));
    assert_non_null(all);
    const sh_run_args args = args_of(&n, recorded);
    for (int64_t i = 0; i < N_STEPS; i++) {
        float *g = step(&n, i, &args);
        memcpy(all + i * n.n_reduce, g, (size_t)n.n_reduce * sizeof(float));
        free(g);
    }
    close_net(&n);
    return all;
}

static void recorded_steps__have_the_bytes_of_others_and_see_what_changed(void **state)
{
    int64_t n = 0;
    long before = sh_emulator_plays();
    float *plain = steps(false, &n);

    (void)state;
    assert_int_equal(sh_emulator_plays(), before);
    float *recorded = steps(true, &n);
    /* Forward and backward of all steps but the first. */
    assert_int_equal(sh_emulator_plays(), before + 2 * (N_STEPS - 1));
    assert_memory_equal(recorded, plain, (size_t)(N_STEPS * n) * sizeof(float));
    assert_memory_not_equal(plain, plain + n, (size_t)n * sizeof(float));
    free(plain);
    free(recorded);
}

static void another_step_number__draws_anew_in_a_recording(void **state)
{
    net n;
    float *gradients[2];

    (void)state;
    open_net(&n);
    const sh_run_args args = args_of(&n, true);
    for (int64_t i = 0; i < 2; i++) free(step(&n, 1, &args));
    for (int k = 0; k < 2; k++) gradients[k] = step_of(&n, 1, (uint64_t)(1 + k), &args);
    assert_memory_not_equal(gradients[0], gradients[1], (size_t)n.n_reduce * sizeof(float));
    free(gradients[0]);
    free(gradients[1]);
    close_net(&n);
}

/** Each arena has recordings of its own. */
static void several_arenas__are_not_mixed_up(void **state)
{
    net n;
    sh_buffer *arenas[2];

    (void)state;
    open_net(&n);
    arenas[0] = n.arena;
    assert_ok(sh_backend_cuda.alloc(sh_program_arena_bytes(n.program), &arenas[1]));
    for (int64_t i = 0; i < N_STEPS; i++) {
        float *g[2];
        for (int a = 0; a < 2; a++) {
            n.arena = arenas[a];
            const sh_run_args args = args_of(&n, true);
            g[a] = step(&n, i, &args);
        }
        assert_memory_equal(g[0], g[1], (size_t)n.n_reduce * sizeof(float));
        free(g[0]);
        free(g[1]);
        /* What the other holds may not matter. */
        char *junk = malloc(sh_program_arena_bytes(n.program));
        memset(junk, 0xFF, sh_program_arena_bytes(n.program));
        assert_ok(sh_backend_cuda.copy_in(arenas[1], 0, junk, sh_program_arena_bytes(n.program)));
        free(junk);
    }
    n.arena = arenas[0];
    sh_backend_cuda.free(&arenas[1]);
    close_net(&n);
}

typedef struct calls {
    int nodes[MAX_CALLS], n;
} calls;

static sh_status note(void *context, int node)
{
    calls *c = context;

    assert_true(c->n < MAX_CALLS);
    c->nodes[c->n++] = node;
    return SH_OK;
}

static void after_node__is_called_at_stops_and_at_the_end(void **state)
{
    net n;
    int64_t n_floats = 0;
    float *plain = steps(false, &n_floats);

    (void)state;
    open_net(&n);
    const int last = sh_program_n_nodes(n.program) - 1, stops[] = {last - 4, last - 1};
    for (int64_t i = 0; i < N_STEPS; i++) {
        calls c = {.n = 0};
        sh_run_args args = args_of(&n, true);
        args.after_node = note;
        args.context = &c;
        args.stops = stops;
        args.n_stops = SH_COUNT(stops);
        float *g = step(&n, i, &args);
        assert_int_equal(c.n, 4); /* one for the forward phase */
        assert_true(c.nodes[0] < stops[0]);
        assert_int_equal(c.nodes[1], stops[0]);
        assert_int_equal(c.nodes[2], stops[1]);
        assert_int_equal(c.nodes[3], last);
        assert_memory_equal(g, plain + i * n_floats, (size_t)n_floats * sizeof(float));
        free(g);
    }
    free(plain);
    close_net(&n);
}

/* ---- what cannot be recorded ---- */

static sh_buffer *buffer;
static float host[4];

static sh_status copy_out(void)
{
    return sh_backend_cuda.copy_out(buffer, 0, host, sizeof(host));
}

static sh_status copy_in(void)
{
    return sh_backend_cuda.copy_in(buffer, 0, host, sizeof(host));
}

static sh_status allocate(void)
{
    sh_buffer *other = NULL;
    sh_status st = sh_backend_cuda.alloc(16, &other);

    sh_backend_cuda.free(&other);
    return st;
}

static sh_status record_again(void)
{
    return sh_backend_cuda.recorder->begin();
}

static void what_waits_copies_or_allocates__spoils_a_recording(void **state)
{
    static sh_status (*const mistakes[])(void) = {copy_out, copy_in, allocate, record_again};
    const sh_recorder *recorder = sh_backend_cuda.recorder;

    (void)state;
    assert_ok(sh_backend_cuda.alloc(sizeof(host), &buffer));
    for (size_t i = 0; i < SH_COUNT(mistakes); i++) {
        sh_recording *recording = NULL;

        assert_ok(recorder->begin());
        assert_int_equal(mistakes[i](), SH_ERR_INTERNAL);
        assert_int_equal(recorder->end(&recording), SH_ERR_INTERNAL);
        assert_null(recording);
        assert_ok(copy_out()); /* as before */
    }
    assert_ok(recorder->begin());
    recorder->drop();
    assert_ok(copy_out());
    sh_backend_cuda.free(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_steps__have_the_bytes_of_others_and_see_what_changed),
        cmocka_unit_test(another_step_number__draws_anew_in_a_recording),
        cmocka_unit_test(several_arenas__are_not_mixed_up),
        cmocka_unit_test(after_node__is_called_at_stops_and_at_the_end),
        cmocka_unit_test(what_waits_copies_or_allocates__spoils_a_recording),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
