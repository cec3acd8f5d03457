// SPDX-License-Identifier: Apache-2.0
/* The model of a step's time, against sums done by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "trainer/scaling.h"

/* 1 ms an image, half of it backward; a vector of 8 MB in 4 buckets, a link of 1 GB/s. */
static const sh_scaling plain = {.batch = 64,
                                 .n_shards = 8,
                                 .dim = 128,
                                 .n_elems = 2000000,
                                 .n_buckets = 4,
                                 .ranks_per_host = 1,
                                 .image_seconds = 1e-3,
                                 .backward_share = 0.5,
                                 .update_seconds = 2e-3,
                                 .pair_seconds = 1e-6,
                                 .link_bytes_per_s = 1e9,
                                 .latency_seconds = 1e-4,
                                 .memory_bytes_per_s = 1e12};

static void near(double value, double expected)
{
    assert_true(value > expected * 0.999 && value < expected * 1.001);
}

static void predict__one_rank_computes_all_and_waits_for_nobody(void **state)
{
    sh_scaling_step p;

    (void)state;
    sh_scaling_predict(&plain, 1, &p);
    near(p.compute, 64e-3);
    near(p.mining, 64 * 64 * 1e-6);
    assert_true(p.sum_exact == 0 && p.sum_fast == 0 && p.gather == 0 && p.wait_exact == 0);
    near(p.exact, 64e-3 + 64 * 64e-6 + 2e-3);
}

static void predict__exact_sum_moves_each_slice_there_and_back(void **state)
{
    sh_scaling s = plain;
    sh_scaling_step p;

    (void)state;
    s.memory_bytes_per_s = 1e30;
    sh_scaling_predict(&s, 2, &p);
    near(p.sum_exact, 8e-3 + 2e-4); /* half a vector out, half a vector out again */
    sh_scaling_predict(&s, 4, &p);
    near(p.sum_exact, 12e-3 + 2e-4); /* twice three quarters */
    near(p.sum_fast, 32e-3 + 4e-4);  /* two levels up, two down, whole vectors */
    sh_scaling_predict(&s, 3, &p);   /* 3, 3 and 2 shards: subtrees 2+1, 1+2, 2 */
    assert_true(p.sum_exact > 2 * 8e-3 * 2 / 3);
}

static void predict__ranks_of_one_host_use_no_link(void **state)
{
    sh_scaling s = plain;
    sh_scaling_step p;

    (void)state;
    s.ranks_per_host = 4;
    s.link_bytes_per_s = 1;
    sh_scaling_predict(&s, 4, &p);
    assert_true(p.sum_exact < 1e-3 && p.gather < 1e-3);
    sh_scaling_predict(&s, 8, &p);
    assert_true(p.sum_exact > 1 && p.sum_fast > 1 && p.gather > 1);
}

static void predict__backward_pass_hides_the_sum_but_for_its_last_bucket(void **state)
{
    sh_scaling s = plain;
    sh_scaling_step p;

    (void)state;
    s.latency_seconds = 0;
    s.memory_bytes_per_s = 1e30;
    sh_scaling_predict(&s, 2, &p); /* hidden: 8 images x 0.5 ms x 3/4 = 3 ms of 8 */
    near(p.wait_exact, 5e-3);
    s.link_bytes_per_s = 1e10;
    sh_scaling_predict(&s, 2, &p); /* all but a quarter of 0.8 ms */
    near(p.wait_exact, 2e-4);
}

static void predict__input_bounds_a_step(void **state)
{
    sh_scaling s = plain;
    sh_scaling_step p;

    (void)state;
    s.load_seconds = 1e-2;
    sh_scaling_predict(&s, 4, &p);
    near(p.exact, 0.16);
    near(p.fast, 0.16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(predict__one_rank_computes_all_and_waits_for_nobody),
        cmocka_unit_test(predict__exact_sum_moves_each_slice_there_and_back),
        cmocka_unit_test(predict__ranks_of_one_host_use_no_link),
        cmocka_unit_test(predict__backward_pass_hides_the_sum_but_for_its_last_bucket),
        cmocka_unit_test(predict__input_bounds_a_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
