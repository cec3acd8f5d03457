// SPDX-License-Identifier: Apache-2.0
// prefix: cuda
// library: sh_models_cuda_emulated
/** The emulator notices what would go wrong on a device. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "models/cuda/cuda.h"
#include "models/cuda/emulator/samples.h"

static const sh_emulator_order orders[] = {SH_EMULATOR_FORWARD, SH_EMULATOR_REVERSED,
                                           SH_EMULATOR_SHUFFLED};

static void run(sh_emulator_sample sample, sh_emulator_order order, float *out)
{
    for (int i = 0; i < SH_SAMPLE_THREADS; i++) out[i] = -1;
    sh_emulator_set_order(order);
    sh_emulator_run_sample(sample, out);
    sh_emulator_set_order(SH_EMULATOR_FORWARD);
}

static void barriers_and_shuffles__give_one_result_in_every_order(void **state)
{
    float out[SH_SAMPLE_THREADS];

    (void)state;
    for (size_t k = 0; k < SH_COUNT(orders); k++) {
        run(SH_SAMPLE_SUM, orders[k], out);
        assert_null(sh_emulator_fault());
        for (int i = 0; i < SH_SAMPLE_THREADS; i++) assert_true(out[i] == 63 * 64 / 2);
    }
}

static void a_missing_barrier__gives_other_results_in_another_order(void **state)
{
    float forward[SH_SAMPLE_THREADS], reversed[SH_SAMPLE_THREADS];
    int n_differ = 0;

    (void)state;
    run(SH_SAMPLE_NO_BARRIER, SH_EMULATOR_FORWARD, forward);
    run(SH_SAMPLE_NO_BARRIER, SH_EMULATOR_REVERSED, reversed);
    assert_null(sh_emulator_fault());
    for (int i = 0; i < SH_SAMPLE_THREADS; i++) n_differ += forward[i] != reversed[i];
    assert_int_equal(n_differ, SH_SAMPLE_THREADS);
}

static void unwritten_shared_memory__is_nan(void **state)
{
    float out[SH_SAMPLE_THREADS];

    (void)state;
    run(SH_SAMPLE_SUM, SH_EMULATOR_FORWARD, out); /* leaves numbers there */
    run(SH_SAMPLE_UNWRITTEN, SH_EMULATOR_FORWARD, out);
    for (int i = 0; i < SH_SAMPLE_THREADS; i++) assert_true(isnan(out[i]));
    assert_null(sh_emulator_fault());
}

static void faults__are_told_once_and_do_not_stay(void **state)
{
    static const struct {
        sh_emulator_sample sample;
        const char *says;
    } cases[] = {
        {SH_SAMPLE_OVERRUN, "behind 256 bytes of shared memory"},
        {SH_SAMPLE_DIVERGENT, "divergent barrier"},
        {SH_SAMPLE_EARLY_RETURN, "divergent barrier"},
        {SH_SAMPLE_DIVERGENT_WARP, "divergent barrier"},
        {SH_SAMPLE_TOO_MANY, "a block of 2048"},
        {SH_SAMPLE_TOO_MUCH_SHARED, "1048576 bytes of shared memory"},
    };
    float out[SH_SAMPLE_THREADS];

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        for (size_t k = 0; k < SH_COUNT(orders); k++) {
            run(cases[i].sample, orders[k], out);
            const char *fault = sh_emulator_fault();
            assert_non_null(fault);
            assert_non_null(strstr(fault, cases[i].says));
            assert_null(sh_emulator_fault());
            run(SH_SAMPLE_SUM, orders[k], out);
            assert_null(sh_emulator_fault());
            assert_true(out[0] == 63 * 64 / 2);
        }
    }
}

/* ---- page-locked memory ---- */

enum { N_LOCKED = 3 };

static void locked_memory__may_be_written_again_only_after_waiting(void **state)
{
    const sh_backend *backend = &sh_backend_cuda;
    sh_buffer *buffer = NULL;
    float *sent = NULL, copy[N_LOCKED];

    (void)state;
    assert_int_equal(backend->alloc(sizeof(copy), &buffer), SH_OK);
    assert_int_equal(sh_backend_alloc_host(backend, sizeof(copy), (void **)&sent), SH_OK);
    for (int is_early = 0; is_early <= 1; is_early++) {
        for (int i = 0; i < N_LOCKED; i++) sent[i] = (float)i;
        assert_int_equal(sh_backend_send(backend, buffer, 0, sent, sizeof(copy)), SH_OK);
        if (is_early) sent[1] = 7;
        assert_int_equal(backend->copy_out(buffer, 0, copy, sizeof(copy)),
                         is_early ? SH_ERR_INTERNAL : SH_OK);
        assert_int_equal(backend->copy_out(buffer, 0, copy, sizeof(copy)), SH_OK); /* told once */
        assert_true(copy[1] == 1);
    }
    sh_backend_free_host(backend, sent);
    backend->free(&buffer);
}

static void what_is_fetched__is_there_after_waiting(void **state)
{
    const sh_backend *backend = &sh_backend_cuda;
    const float values[N_LOCKED] = {1, 2, 3};
    sh_buffer *buffer = NULL;
    float *fetched = NULL, copy[N_LOCKED];

    (void)state;
    assert_int_equal(backend->alloc(sizeof(values), &buffer), SH_OK);
    assert_int_equal(sh_backend_alloc_host(backend, sizeof(values), (void **)&fetched), SH_OK);
    assert_int_equal(backend->copy_in(buffer, 0, values, sizeof(values)), SH_OK);
    long before = sh_emulator_waits();
    assert_int_equal(sh_backend_fetch(backend, buffer, 0, fetched, sizeof(values)), SH_OK);
    assert_true(isnan(fetched[0]));
    assert_int_equal(sh_emulator_waits(), before);
    assert_int_equal(backend->copy_out(buffer, 0, copy, sizeof(copy)), SH_OK);
    assert_int_equal(sh_emulator_waits(), before + 1);
    assert_memory_equal(fetched, values, sizeof(values));
    assert_int_equal(sh_backend_fetch(backend, buffer, 0, copy, sizeof(copy)), SH_ERR_INTERNAL);
    sh_backend_free_host(backend, fetched);
    backend->free(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(barriers_and_shuffles__give_one_result_in_every_order),
        cmocka_unit_test(a_missing_barrier__gives_other_results_in_another_order),
        cmocka_unit_test(unwritten_shared_memory__is_nan),
        cmocka_unit_test(faults__are_told_once_and_do_not_stay),
        cmocka_unit_test(locked_memory__may_be_written_again_only_after_waiting),
        cmocka_unit_test(what_is_fetched__is_there_after_waiting),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
