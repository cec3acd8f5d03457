// SPDX-License-Identifier: Apache-2.0
// timeout: 60
/** Building and differentiating programs: slots and stores, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "models/small_net.h"

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

/* Nodes of stochastic depth when one stands behind a layer and another behind a second one. */
static void count_path_drops(bool first_is_frozen, int n[2])
{
    sh_store *store = NULL;
    sh_program *p = NULL;
    const sh_backend *backend = NULL;
    const int64_t dims[4] = {2, 3, 1, 1};
    sh_value dy;

    assert_int_equal(sh_backend_find("ref", &backend), SH_OK);
    assert_int_equal(sh_store_create(backend, &store), SH_OK);
    const sh_program_config config = {
        .backend = backend, .store = store, .training = true, .share = 1};
    assert_int_equal(sh_program_create(&config, &p), SH_OK);
    sh_value x = sh_program_input(p, "x", dims);
    x = sh_op_path_drop(p, sh_op_linear(p, x, "first", 3, false), 0.5f);
    x = sh_op_path_drop(p, sh_op_linear(p, x, "second", 3, false), 0.5f);
    sh_value y = sh_program_output(p, "y", x);
    sh_store_slot_mutable(store, sh_store_find(store, "first.weight"))->trainable =
        !first_is_frozen;
    assert_int_equal(sh_program_differentiate(p, y, SH_NO_VALUE, &dy, NULL), SH_OK);
    assert_int_equal(sh_program_plan(p), SH_OK);
    n[0] = n[1] = 0;
    for (int i = 0; i < sh_program_n_nodes(p); i++) {
        sh_node_info info;
        sh_program_node_info(p, i, &info);
        n[info.phase == SH_PHASE_BACKWARD] += strcmp(info.op, "path_drop") == 0;
    }
    sh_program_destroy(&p);
    sh_store_destroy(&store);
}

static void differentiate__rests_stochastic_depth_of_what_is_frozen(void **state)
{
    int n[2];

    (void)state;
    count_path_drops(false, n);
    assert_true(n[0] == 2 && n[1] == 2);
    count_path_drops(true, n);
    assert_true(n[0] == 1 && n[1] == 1);
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
    assert_int_equal(sh_backend_find("tpu", &backend), SH_ERR_USAGE);
    assert_non_null(strstr(sh_error_message(), "ref"));
    assert_int_equal(sh_backend_find("guard:cuda", &backend), SH_ERR_USAGE);
    assert_null(backend);
    assert_int_equal(sh_backend_find("guard:ref", &backend), SH_OK);
    assert_string_equal(backend->name, "guard:ref");
    assert_null(backend->host_view);
}

static bool lacks_needed; /* of what the next one finds */

static int find_missing(sh_finding *out, int max)
{
    assert_true(max >= 2);
    out[0] = (sh_finding){.what = "fins", .found = "no fins", .remedy = "swim otherwise"};
    out[1] = (sh_finding){.what = "gills", .found = "two", .is_needed = true};
    if (lacks_needed) snprintf(out[1].remedy, sizeof(out[1].remedy), "come up for air");
    return 2;
}

static void backend_check__refuses_what_lacks_something_needed(void **state)
{
    const sh_backend plain = {.name = "plain"}, fish = {.name = "fish", .examine = find_missing};

    (void)state;
    assert_int_equal(sh_backend_check(&plain), SH_OK);
    lacks_needed = false;
    assert_int_equal(sh_backend_check(&fish), SH_OK);
    lacks_needed = true;
    assert_int_equal(sh_backend_check(&fish), SH_ERR_UNSUPPORTED);
    assert_string_equal(sh_error_message(), "gills: two: come up for air");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(differentiate__leaves_out_what_is_not_trainable),
        cmocka_unit_test(differentiate__rests_stochastic_depth_of_what_is_frozen),
        cmocka_unit_test(differentiate__adds_the_gradients_of_two_outputs),
        cmocka_unit_test(programs__share_one_store),
        cmocka_unit_test(store_add__refuses_another_shape_and_late_slots),
        cmocka_unit_test(store__keeps_slots_at_multiples_of_16),
        cmocka_unit_test(builder__remembers_the_first_failure),
        cmocka_unit_test(builder__refuses_what_cannot_be),
        cmocka_unit_test(backend_find__names_what_there_is),
        cmocka_unit_test(backend_check__refuses_what_lacks_something_needed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
