// SPDX-License-Identifier: Apache-2.0
// timeout: 300
/**
 * Every op on every backend against the reference: every kernel that accepts a case is run, forward
 * and derivative, over odd shapes, in f32 and bf16. Bounds are on the normalised mean squared error
 * of each output. Also: padding channels are zero, a second run and one in place give equal bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "models/conformance.h"
#include "models/usable.h"

static const sh_backend *find(const char *name)
{
    const sh_backend *backend = usable_backend(name);

    if (backend == NULL) skip();
    return backend;
}

static sh_layout blocked(sh_dtype dtype, const int64_t dims[4], bool is_image_input)
{
    (void)dtype;
    (void)dims;
    return is_image_input ? SH_NHWC : SH_NCHW16C;
}

/** The reference must take any layout: other backends fall back to it. */
static void ref__agrees_with_itself_in_every_layout(void **state)
{
    sh_backend backend = sh_backend_ref;

    (void)state;
    backend.name = "ref in blocks";
    backend.layout_of = blocked;
    check_backend(&backend, 1, 4);
}

/* Under sanitizers a case is several times as dear, and a third of them walks the same code. */
#ifdef __SANITIZE_ADDRESS__
enum { EVERY = 3 };
#else
enum { EVERY = 1 };
#endif

static void cpu__agrees_with_ref(void **state)
{
    (void)state;
    check_backend(find("cpu"), 1, EVERY);
}

static void cpu__agrees_with_ref_on_three_threads(void **state)
{
    (void)state;
    check_backend(find("cpu"), 3, 5);
}

static void guard_ref__agrees_with_ref(void **state)
{
    (void)state;
    check_backend(find("guard:ref"), 1, 5);
}

static void guard_cpu__agrees_with_ref(void **state)
{
    (void)state;
    check_backend(find("guard:cpu"), 1, 5);
}

static void cuda__agrees_with_ref(void **state)
{
    (void)state;
    check_backend(find("cuda"), 1, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ref__agrees_with_itself_in_every_layout),
        cmocka_unit_test(cpu__agrees_with_ref),
        cmocka_unit_test(cpu__agrees_with_ref_on_three_threads),
        cmocka_unit_test(guard_ref__agrees_with_ref),
        cmocka_unit_test(guard_cpu__agrees_with_ref),
        cmocka_unit_test(cuda__agrees_with_ref),
    };

    cmocka_set_test_filter(getenv("SHOAL_TESTS")); /* scripts/check-gpu: those of one backend */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
