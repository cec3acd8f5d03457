// SPDX-License-Identifier: Apache-2.0
// timeout: 120
/** Inference with batch norms folded into weights gives what the plain nodes give. */
#include "models/host_value.h"
#include "models/small_net.h"

#include "models/ref/ref.h"

static bool accept_all(const sh_node_desc *fused)
{
    (void)fused;
    return true;
}

/** The small network for inference, with statistics and scales that are not 0 and 1. */
static void open_inference(net *t, const sh_backend *backend)
{
    memset(t, 0, sizeof(*t));
    t->backend = backend;
    assert_ok(sh_store_create(backend, &t->store));
    const sh_program_config config = {.backend = backend, .store = t->store, .share = 1};
    assert_ok(sh_program_create(&config, &t->program));
    build(t, false);
    assert_ok(sh_program_plan(t->program));
    assert_ok(sh_store_allocate(t->store));
    assert_ok(sh_store_init(t->store, 7));
    assert_ok(backend->alloc(sh_program_arena_bytes(t->program), &t->arena));
}

/** One-dimensional slots become something else with every `round`. */
static void disturb(net *t, int round)
{
    for (int i = 0; i < sh_store_n_slots(t->store); i++) {
        const sh_slot *slot = sh_store_slot(t->store, i);
        float *values = malloc((size_t)slot->n_elems * sizeof(float));
        if (slot->n_dims == 1) {
            for (int64_t k = 0; k < slot->n_elems; k++) {
                values[k] = 1.1f + sinf((float)(3 * k + i + 5 * round));
            }
            assert_ok(sh_store_write(t->store, i, values));
        }
        free(values);
    }
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

static void check_equal(net *plain, net *folded)
{
    float a[15], b[15];

    for (int round = 0; round < 2; round++) {
        disturb(plain, round);
        disturb(folded, round);
        step(plain, false);
        step(folded, false);
        assert_ok(sh_program_read(plain->program, plain->arena, plain->y, a));
        assert_ok(sh_program_read(folded->program, folded->arena, folded->y, b));
        for (size_t i = 0; i < SH_COUNT(a); i++) {
            assert_true(isfinite(a[i]) && fabsf(a[i] - b[i]) < 1e-5f);
        }
    }
}

static void inference__folds_batch_norms_and_follows_the_weights(void **state)
{
    net plain, folded;
    sh_backend fusing = sh_backend_ref;

    (void)state;
    fusing.can_fuse = accept_all;
    open_inference(&plain, &sh_backend_ref);
    open_inference(&folded, &fusing);
    assert_int_equal(count_nodes(plain.program, "bn_apply"), 4);
    assert_int_equal(count_nodes(folded.program, "fold_bn"), 4);
    assert_int_equal(count_nodes(folded.program, "bn_apply"), 0);
    assert_int_equal(count_nodes(folded.program, "act"), 0);
    assert_int_equal(count_nodes(folded.program, "add"), 0);
    check_equal(&plain, &folded);
    close_net(&plain);
    close_net(&folded);
}

static void cpu__infers_what_ref_does(void **state)
{
    net plain, folded;
    const sh_backend *cpu = NULL;

    (void)state;
    assert_ok(sh_backend_find("cpu", &cpu));
    open_inference(&plain, &sh_backend_ref);
    open_inference(&folded, cpu);
    check_equal(&plain, &folded);
    close_net(&plain);
    close_net(&folded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inference__folds_batch_norms_and_follows_the_weights),
        cmocka_unit_test(cpu__infers_what_ref_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
