// SPDX-License-Identifier: Apache-2.0
/** The tests of the networks in the table `cases`, for the one file that defined it before. */
static void ref_f32__matches_the_reference(void **state)
{
    (void)state;
    check_f32("ref", cases, SH_COUNT(cases));
}

static void cpu_f32__matches_the_reference(void **state)
{
    (void)state;
    check_f32("cpu", cases, SH_COUNT(cases));
}

static void cuda_f32__matches_the_reference(void **state)
{
    (void)state;
    check_f32("cuda", cases, SH_COUNT(cases));
}

static void ref_bf16__is_off_by_what_rounding_explains(void **state)
{
    (void)state;
    check_bf16("ref", cases, SH_COUNT(cases));
}

static void cpu_bf16__is_off_by_what_rounding_explains(void **state)
{
    (void)state;
    check_bf16("cpu", cases, SH_COUNT(cases));
}

static void cuda_bf16__is_off_by_what_rounding_explains(void **state)
{
    (void)state;
    check_bf16("cuda", cases, SH_COUNT(cases));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ref_f32__matches_the_reference),
        cmocka_unit_test(cpu_f32__matches_the_reference),
        cmocka_unit_test(cuda_f32__matches_the_reference),
        cmocka_unit_test(ref_bf16__is_off_by_what_rounding_explains),
        cmocka_unit_test(cpu_bf16__is_off_by_what_rounding_explains),
        cmocka_unit_test(cuda_bf16__is_off_by_what_rounding_explains),
    };

    cmocka_set_test_filter(getenv("SHOAL_TESTS")); /* scripts/check-gpu: those of one backend */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
