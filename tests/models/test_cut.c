// SPDX-License-Identifier: Apache-2.0
// timeout: 180
/** Programs that begin behind a frozen part of a network: the same numbers as the whole. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/host_value.h"
#include "models/program.h"
#include "models/zoo/zoo.h"

enum { N = 5, SIDE = 32, DIM = 6, MAX_ELEMS = 4096 };

#define MUST(call) assert_int_equal(call, SH_OK)

typedef enum part { WHOLE, FEATURES, HEAD } part;

/** One of the programs over a store that they share. */
typedef struct built {
    const sh_backend *backend;
    sh_program *program;
    sh_value in, out, cotangent;
    sh_buffer *arena, *reduce, *scalars;
} built;

/** Whole and head train the head; features are computed as training with a frozen network does. */
static built build(const char *net_name, sh_dtype dtype, part what, sh_store *store)
{
    built b = {.backend = sh_store_backend(store), .cotangent = SH_NO_VALUE};
    const sh_net *net = NULL;
    const sh_head head = {.dim = DIM, .dropout = 0.4f, .normalize = true};
    const sh_program_config config = {.backend = b.backend,
                                      .store = store,
                                      .dtype = dtype,
                                      .training = what != FEATURES,
                                      .unfolded = what == FEATURES,
                                      .share = 1,
                                      .prefix = ""};

    MUST(sh_net_find(net_name, &net));
    MUST(sh_program_create(&config, &b.program));
    b.in = sh_program_input(b.program, "image", (int64_t[4]){N, 3, SIDE, SIDE});
    sh_value x = sh_net_features(b.program, net, b.in, &head);

    if (what == HEAD) {
        sh_program_cut(b.program, x);
        b.in = x;
    }
    if (what != FEATURES) x = sh_net_head(b.program, net, x, &head);
    b.out = sh_program_output(b.program, "out", x);
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        sh_slot *slot = sh_store_slot_mutable(store, i);

        slot->trainable = strncmp(slot->name, "head.", 5) == 0;
    }
    if (what != FEATURES)
        MUST(sh_program_differentiate(b.program, b.out, SH_NO_VALUE, &b.cotangent, NULL));
    MUST(sh_program_plan(b.program));
    return b;
}

static void reserve(built *b, sh_store *store)
{
    size_t n = (size_t)(sh_store_n_params(store) + sh_store_n_states(store)) * sizeof(float);

    MUST(b->backend->alloc(sh_program_arena_bytes(b->program), &b->arena));
    MUST(b->backend->alloc(n, &b->reduce));
    b->scalars = put_scalars(b->backend, &(sh_run_scalars){.seed = 3});
}

static void clear(built *b)
{
    b->backend->free(&b->arena);
    b->backend->free(&b->reduce);
    b->backend->free(&b->scalars);
    sh_program_destroy(&b->program);
}

/** `in` is f32; it and the result go through the program's dtype. */
static void forward(built *b, const float *in, float *out)
{
    const sh_run_args args = {
        .arena = b->arena, .reduce = b->reduce, .scalars = b->backend->device_ptr(b->scalars, 0)};
    const sh_tensor_desc desc = sh_program_desc(b->program, b->in);
    const int64_t n = sh_tensor_stored_elems(&desc);
    uint16_t *half = malloc((size_t)n * sizeof(*half));

    for (int64_t i = 0; i < n; i++) half[i] = sh_bf16_from_f32(in[i]);
    MUST(sh_program_write(b->program, b->arena, b->in,
                          desc.dtype == SH_F32 ? (const void *)in : half));
    MUST(sh_program_run(b->program, SH_PHASE_CONSTANTS, &args));
    MUST(sh_program_run(b->program, SH_PHASE_FORWARD, &args));
    MUST(sh_program_read(b->program, b->arena, b->out, out));
    free(half);
}

/** Gradients of the trained slots, one after another. */
static int64_t backward(built *b, const float *cotangent, sh_store *store, float *gradients)
{
    const sh_run_args args = {
        .arena = b->arena, .reduce = b->reduce, .scalars = b->backend->device_ptr(b->scalars, 0)};
    int64_t n = 0;

    MUST(sh_program_write(b->program, b->arena, b->cotangent, cotangent));
    MUST(sh_program_run(b->program, SH_PHASE_BACKWARD, &args));
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const sh_slot *slot = sh_store_slot(store, i);

        if (!slot->trainable) continue;
        MUST(b->backend->copy_out(b->reduce, (size_t)slot->offset * sizeof(float), gradients + n,
                                  (size_t)slot->n_elems * sizeof(float)));
        n += slot->n_elems;
    }
    return n;
}

static void check(const char *net, sh_dtype dtype)
{
    const sh_backend *backend = NULL;
    sh_store *store = NULL;
    float *image = malloc(sizeof(float) * N * 16 * SIDE * SIDE);
    float *features = malloc(sizeof(float) * N * MAX_ELEMS);
    float y[2][N * DIM], cotangent[N * DIM];
    float *gradients[2] = {calloc(DIM * MAX_ELEMS, sizeof(float)),
                           calloc(DIM * MAX_ELEMS, sizeof(float))};

    MUST(sh_backend_find("cpu", &backend));
    MUST(sh_store_create(backend, &store));
    built whole = build(net, dtype, WHOLE, store), below = build(net, dtype, FEATURES, store),
          above = build(net, dtype, HEAD, store);

    MUST(sh_store_allocate(store));
    MUST(sh_store_init(store, 1));
    built *const all[] = {&whole, &below, &above};

    for (size_t i = 0; i < SH_COUNT(all); i++) reserve(all[i], store);
    for (int i = 0; i < N * 16 * SIDE * SIDE; i++) image[i] = sinf((float)i);
    for (int i = 0; i < N * DIM; i++) cotangent[i] = cosf((float)i);
    forward(&whole, image, y[0]);
    forward(&below, image, features);
    forward(&above, features, y[1]);
    assert_memory_equal(y[0], y[1], sizeof(y[0]));
    for (int i = 0; i < N * DIM; i++) assert_true(isfinite(y[0][i]));
    int64_t n = backward(&whole, cotangent, store, gradients[0]);

    assert_true(n > N * DIM);
    assert_int_equal(backward(&above, cotangent, store, gradients[1]), n);
    assert_memory_equal(gradients[0], gradients[1], (size_t)n * sizeof(float));
    assert_true(sh_program_n_nodes(above.program) < 20);
    assert_true(sh_program_n_nodes(whole.program) > sh_program_n_nodes(below.program));
    for (int i = 0; i < sh_program_n_nodes(above.program); i++) {
        sh_node_info info;

        sh_program_node_info(above.program, i, &info);
        assert_null(strstr(info.op, "conv"));
    }
    for (size_t i = 0; i < SH_COUNT(all); i++) clear(all[i]);
    sh_store_destroy(&store);
    for (int i = 0; i < 2; i++) free(gradients[i]);
    free(features);
    free(image);
}

static void cut__gives_the_bytes_of_the_whole_program(void **state)
{
    static const char *const nets[] = {"mobilenet_v2", "efficientnet_b0"};

    (void)state;
    for (size_t i = 0; i < SH_COUNT(nets); i++) {
        check(nets[i], SH_F32);
        check(nets[i], SH_BF16);
    }
}

static void cut__is_refused_after_planning(void **state)
{
    const sh_backend *backend = NULL;
    sh_store *store = NULL;
    sh_program *p = NULL;

    (void)state;
    MUST(sh_backend_find("ref", &backend));
    MUST(sh_store_create(backend, &store));
    MUST(sh_program_create(
        &(sh_program_config){.backend = backend, .store = store, .share = 1, .prefix = ""}, &p));
    sh_value x = sh_program_input(p, "image", (int64_t[4]){2, 3, 4, 4});
    sh_value y = sh_op_linear(p, sh_op_flatten(p, x), "head", 5, true);

    sh_program_output(p, "out", y);
    MUST(sh_program_plan(p));
    sh_program_cut(p, y);
    assert_int_not_equal(sh_program_n_nodes(p), 0);
    sh_program_destroy(&p);
    sh_store_destroy(&store);
    sh_error_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut__gives_the_bytes_of_the_whole_program),
        cmocka_unit_test(cut__is_refused_after_planning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
