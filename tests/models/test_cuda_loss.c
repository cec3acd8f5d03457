// SPDX-License-Identifier: Apache-2.0
// timeout: 120
// prefix: cuda
// library: sh_models_cuda_emulated
/** Mining and losses in a device's memory, run by the emulator, against those of the host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "models/classes_on_device.h"
#include "models/cuda/cuda.h"
#include "models/cuda/emulator/order.h"

static void kernels__agree_with_the_host(void **state)
{
    (void)state;
    check_losses_on_device();
}

static void classifications__agree_with_the_host(void **state)
{
    (void)state;
    check_classes_on_device();
}

static void check_orders(const sh_loss_config *given)
{
    sh_loss_config config = *given;
    loss_case c;
    loss_outcome outcomes[3];

    case_make(&c, 70, 9, 12, 2, 7);
    config.max_per_label = most_per_label(&c.batch);
    for (int order = SH_EMULATOR_FORWARD; order <= SH_EMULATOR_SHUFFLED; order++) {
        sh_emulator_set_order((sh_emulator_order)order);
        outcomes[order] = run_loss_step(&sh_backend_cuda, &config, &c.batch, 1);
        assert_null(sh_emulator_fault());
    }
    sh_emulator_set_order(SH_EMULATOR_FORWARD);
    assert_true(outcomes[0].stats.n_active > 0);
    for (int order = 1; order < 3; order++) {
        assert_memory_equal(&outcomes[order].stats, &outcomes[0].stats, sizeof(sh_loss_stats));
        assert_memory_equal(outcomes[order].choices, outcomes[0].choices, outcomes[0].choice_bytes);
        assert_memory_equal(outcomes[order].grad, outcomes[0].grad, outcomes[0].grad_bytes);
    }
    for (int order = 0; order < 3; order++) loss_outcome_free(&outcomes[order]);
    case_free(&c);
}

static void orders_of_threads__do_not_show(void **state)
{
    (void)state;
    for_each_config(check_orders);
}

static void orders_of_threads__do_not_show_in_classifications(void **state)
{
    (void)state;
    for (size_t i = 0; i < SH_COUNT(class_configs); i++) {
        class_data d;
        class_inputs c = class_inputs_make(&d, &class_configs[i], 9, true, 2);

        for (int order = SH_EMULATOR_REVERSED; order <= SH_EMULATOR_SHUFFLED; order++) {
            sh_emulator_set_order((sh_emulator_order)order);
            check_class_inputs(&c, 1);
            assert_null(sh_emulator_fault());
        }
        sh_emulator_set_order(SH_EMULATOR_FORWARD);
        free(d.logits);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels__agree_with_the_host),
        cmocka_unit_test(orders_of_threads__do_not_show),
        cmocka_unit_test(classifications__agree_with_the_host),
        cmocka_unit_test(orders_of_threads__do_not_show_in_classifications),
    };

    device_backend = &sh_backend_cuda;
    device_is_exact = true;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
