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

/** In parts, each of the ops from its own to that of the next one: compute-sanitizer takes its time
 *  over each (scripts/check-gpu). PART(name, first, end) */
#define CUDA_PARTS(PART)                                                                           \
    PART(convolutions, SH_OP_CONV, SH_OP_CONV_GRAD_X)                                              \
    PART(gradients_of_maps, SH_OP_CONV_GRAD_X, SH_OP_CONV_GRAD_W)                                  \
    PART(gradients_of_weights, SH_OP_CONV_GRAD_W, SH_OP_CONV_GRAD)                                 \
    PART(fused_gradients, SH_OP_CONV_GRAD, SH_OP_BN_STATS)                                         \
    PART(batch_norms, SH_OP_BN_STATS, SH_OP_BN_GRAD_REDUCE)                                        \
    PART(gradients_of_batch_norms, SH_OP_BN_GRAD_REDUCE, SH_OP_ACT)                                \
    PART(maps, SH_OP_ACT, SH_OP_CONCAT)                                                            \
    PART(channels_and_tokens, SH_OP_CONCAT, SH_OP_LINEAR)                                          \
    PART(matrices, SH_OP_LINEAR, SH_OP_COUNT)

#define DEFINE(name, first, end)                                                                   \
    static void cuda__agrees_with_ref_in_##name(void **state)                                      \
    {                                                                                              \
        (void)state;                                                                               \
        check_ops(find("cuda"), first, end, 1, 1);                                                 \
    }
CUDA_PARTS(DEFINE)

static void parts_of_cuda__are_all_ops(void **state)
{
#define BOUNDS(name, first, end) {first, end},
    static const sh_op bounds[][2] = {CUDA_PARTS(BOUNDS)};
    sh_op end = (sh_op)0;

    (void)state;
    for (size_t i = 0; i < SH_COUNT(bounds); i++) {
        assert_int_equal(bounds[i][0], end);
        end = bounds[i][1];
    }
    assert_int_equal(end, SH_OP_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ref__agrees_with_itself_in_every_layout),
        cmocka_unit_test(cpu__agrees_with_ref),
        cmocka_unit_test(cpu__agrees_with_ref_on_three_threads),
        cmocka_unit_test(guard_ref__agrees_with_ref),
        cmocka_unit_test(guard_cpu__agrees_with_ref),
#define LIST(name, first, end) cmocka_unit_test(cuda__agrees_with_ref_in_##name),
        CUDA_PARTS(LIST) cmocka_unit_test(parts_of_cuda__are_all_ops),
    };

    cmocka_set_test_filter(getenv("SHOAL_TESTS")); /* scripts/check-gpu: those of one backend */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
