// SPDX-License-Identifier: Apache-2.0
// prefix: cuda
// library: sh_models_cuda_emulated
/**
 * Engines of cuDNN for dense convolutions: measured, guessed, stored, refused. What stands in for
 * cuDNN (models/cuda/emulator/cudnn.c) has five: e1, the best guess; e2, the fastest, which cannot
 * be planned; e5 and e3, fast, but with other bytes each time, as e5 says of itself; e4. e9 gives
 * bf16 weights their gradient in f32.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/cuda/cuda.h"
#include "models/ref/ref.h"
#include "models/small_net.h"

#define assert_ok(call) assert_int_equal(call, SH_OK)

enum { N_CONVS = 9 }; /* of the small network: three dense ones, forward and two gradients each */

static const char best_guess[] = "e1 2=7", fastest[] = "e4 2=7 13=1";

/** Plan the small network; its status. */
static sh_status plan_net(sh_dtype dtype)
{
    net t = {.backend = &sh_backend_cuda};

    assert_ok(sh_store_create(t.backend, &t.store));
    assert_ok(sh_program_create(&(sh_program_config){.backend = t.backend,
                                                     .store = t.store,
                                                     .dtype = dtype,
                                                     .training = true,
                                                     .share = 1,
                                                     .prefix = ""},
                                &t.program));
    build(&t, true);
    sh_status st = sh_program_plan(t.program);
    sh_program_destroy(&t.program);
    sh_store_destroy(&t.store);
    return st;
}

/** The choices after planning with those of `text`; malloc'd. */
static char *choices_of(const char *text, bool measure, bool repeatable, sh_dtype dtype)
{
    char *after = NULL;

    assert_ok(sh_backend_cuda.set_choices(text, measure, repeatable));
    assert_ok(plan_net(dtype));
    assert_ok(sh_backend_cuda.get_choices(&after));
    return after;
}

static char *choices_with(const char *text, bool measure, sh_dtype dtype)
{
    return choices_of(text, measure, true, dtype);
}

static void assert_all_are(char *text, const char *choice)
{
    int n = 0;
    char *rest = NULL;

    for (char *line = strtok_r(strchr(text, '\n') + 1, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        assert_non_null(strstr(line, ": "));
        assert_string_equal(strstr(line, ": ") + 2, choice);
        n++;
    }
    assert_int_equal(n, N_CONVS);
}

/** A copy in which the choice of every line that begins with `prefix` is another; malloc'd. */
static char *with_choice(const char *text, const char *prefix, const char *choice)
{
    char *copy = strdup(text), *rest = NULL, *out = NULL;
    size_t n_bytes = 0;
    FILE *to = open_memstream(&out, &n_bytes);

    assert_non_null(copy);
    assert_non_null(to);
    for (char *line = strtok_r(copy, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        char *colon = strstr(line, ": ");
        bool is_changed = colon != NULL && strncmp(line, prefix, strlen(prefix)) == 0;
        if (is_changed) colon[2] = '\0';
        fprintf(to, "%s%s\n", line, is_changed ? choice : "");
    }
    assert_int_equal(fclose(to), 0);
    free(copy);
    return out;
}

static void measured__are_the_fastest_that_repeat(void **state)
{
    (void)state;
    for (int dtype = SH_F32; dtype <= SH_BF16; dtype++) {
        char *text = choices_with("", true, (sh_dtype)dtype);
        assert_all_are(text, fastest);
        free(text);
    }
}

static void that_need_not_repeat__are_the_fastest(void **state)
{
    (void)state;
    char *text = choices_of("", true, false, SH_F32);
    assert_all_are(text, "e5");
    assert_ok(sh_backend_cuda.set_choices(text, false, true)); /* and are refused where they must */
    assert_int_equal(plan_net(SH_F32), SH_ERR_MISMATCH);
    assert_non_null(strstr(sh_error_message(), "e5"));
    free(text);
}

static void not_measured__are_the_best_guess(void **state)
{
    (void)state;
    char *text = choices_with("", false, SH_BF16);
    assert_all_are(text, best_guess);
    free(text);
}

static void stored__are_not_measured_again(void **state)
{
    (void)state;
    char *before = choices_with("", false, SH_BF16);
    char *after = choices_with(before, true, SH_BF16);
    assert_string_equal(after, before);
    free(before);
    free(after);
}

static void one_that_cannot_be_used__is_refused(void **state)
{
    (void)state;
    char *text = choices_with("", false, SH_F32);
    char *other = with_choice(text, "grad_x", "e2");
    assert_string_not_equal(text, other);
    assert_ok(sh_backend_cuda.set_choices(other, true, true));
    assert_int_equal(plan_net(SH_F32), SH_ERR_MISMATCH);
    assert_non_null(strstr(sh_error_message(), "e2"));
    free(text);
    free(other);
}

static void those_of_another_library_or_no_choices__are_refused(void **state)
{
    static const struct {
        const char *text;
        sh_status status;
    } cases[] = {
        {"cuDNN 1.2.3, another\n", SH_ERR_MISMATCH},
        {"no cuDNN, an emulator", SH_ERR_FORMAT},
        {"no cuDNN, an emulator\nno choice\n", SH_ERR_FORMAT},
        {"no cuDNN, an emulator\nforward: \n", SH_ERR_FORMAT},
        {"no cuDNN, an emulator\nforward: e1\nforward: e2\n", SH_ERR_INTERNAL},
    };

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++)
        assert_int_equal(sh_backend_cuda.set_choices(cases[i].text, false, true), cases[i].status);
}

static double distance(const float *a, const float *b, int64_t n)
{
    double error = 0, size = 0;

    for (int64_t i = 0; i < n; i++) {
        error += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    assert_true(size > 0);
    return error / size;
}

/** Gradients and statistics of a step with the choices in use; malloc'd. */
static float *gradients_on(const sh_backend *backend, sh_dtype dtype, int64_t *n)
{
    net t;

    open_net_on(&t, backend, dtype, true);
    step(&t, true);
    float *values = read_reduce(&t);
    *n = sh_store_n_params(t.store) + sh_store_n_states(t.store);
    close_net(&t);
    return values;
}

static void every_choice__gives_the_gradients_of_ref(void **state)
{
    static const struct {
        sh_dtype dtype;
        const char *prefix, *choice;
        double bound;
    } cases[] = {
        {SH_F32, "", "e1 2=7", 1e-8},        {SH_F32, "", "plain", 1e-8},
        {SH_F32, "forward", "plain", 1e-8},  {SH_BF16, "", "e4 2=7 13=1", 1e-3},
        {SH_BF16, "grad_w", "e9 f32", 1e-3},
    };

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        int64_t n = 0;
        char *text = choices_with("", false, cases[i].dtype);
        char *chosen = with_choice(text, cases[i].prefix, cases[i].choice), *after = NULL;
        float *ref = gradients_on(&sh_backend_ref, cases[i].dtype, &n);

        assert_ok(sh_backend_cuda.set_choices(chosen, false, true));
        float *cuda = gradients_on(&sh_backend_cuda, cases[i].dtype, &n);
        print_message("%s %s: %.1e\n", cases[i].prefix, cases[i].choice, distance(cuda, ref, n));
        assert_true(distance(cuda, ref, n) < cases[i].bound);
        assert_ok(sh_backend_cuda.get_choices(&after));
        assert_string_equal(after, chosen);
        free(text);
        free(chosen);
        free(after);
        free(ref);
        free(cuda);
    }
}

static int forget(void **state)
{
    (void)state;
    return sh_backend_cuda.set_choices("", false, true) == SH_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(measured__are_the_fastest_that_repeat, forget),
        cmocka_unit_test_teardown(that_need_not_repeat__are_the_fastest, forget),
        cmocka_unit_test_teardown(not_measured__are_the_best_guess, forget),
        cmocka_unit_test_teardown(stored__are_not_measured_again, forget),
        cmocka_unit_test_teardown(one_that_cannot_be_used__is_refused, forget),
        cmocka_unit_test_teardown(those_of_another_library_or_no_choices__are_refused, forget),
        cmocka_unit_test_teardown(every_choice__gives_the_gradients_of_ref, forget),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
