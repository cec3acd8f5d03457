// SPDX-License-Identifier: Apache-2.0
// timeout: 300
// label: slow
/** No network takes a slow path on the CPU backend: every convolution of every training program
 * runs a compiled kernel, and no layout changes between maps. What a program would run is looked
 * at; it is not run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "models/training_program.h"

#define assert_ok(call) assert_int_equal(call, SH_OK)

enum { IMAGES = 2, SIZE = 175 };

static bool begins_with(const char *text, const char *head)
{
    return strncmp(text, head, strlen(head)) == 0;
}

static bool is_map(const sh_tensor_desc *d)
{
    return d->dims[0] == IMAGES && d->dims[2] * d->dims[3] > 1;
}

/** Why this node is slow; NULL: it is not. */
static const char *slowness(const sh_node_info *info)
{
    if (begins_with(info->op, "conv")) {
        if (begins_with(info->kernel, "ref:")) return "the reference kernel";
        if (strstr(info->kernel, "ref") != NULL) return "the library's reference";
        if (strstr(info->kernel, "gemm") != NULL && strstr(info->kernel, "brgemm") == NULL)
            return "im2col";
    }
    if (strcmp(info->op, "cast") == 0 && is_map(&info->in0) &&
        info->in0.layout == info->out0.layout && info->in0.dtype == info->out0.dtype)
        return "a copy";
    if (strcmp(info->op, "cast") == 0 && is_map(&info->in0) && info->in0.dims[1] > 3 &&
        info->in0.layout != info->out0.layout)
        return "a change of layout";
    return NULL;
}

/** Prints the slow nodes, and the reference kernels that other ops run on. */
static int count_slow_nodes(const sh_net *net, sh_dtype dtype)
{
    const sh_backend *cpu = NULL;
    sh_store *store = NULL;
    int n_slow = 0, n_convs = 0;

    assert_ok(sh_backend_find("cpu", &cpu));
    assert_ok(sh_store_create(cpu, &store));
    const int64_t size = strstr(net->name, "vit") != NULL ? net->default_size : SIZE;
    sh_program *p = make_training_program(net, store, dtype, IMAGES, size);

    for (int i = 0; i < sh_program_n_nodes(p); i++) {
        sh_node_info info;

        sh_program_node_info(p, i, &info);
        const char *why = slowness(&info);

        n_convs += begins_with(info.op, "conv");
        if (why == NULL) continue;
        print_message("%s %s: %s of %s is %s (%s; %s)\n", net->name, sh_dtype_name(dtype), info.op,
                      info.label, why, info.kernel, info.refusals);
        n_slow++;
    }
    assert_true(n_convs > 0);
    sh_program_destroy(&p);
    sh_store_destroy(&store);
    return n_slow;
}

static void check(sh_dtype dtype)
{
    const sh_backend *cpu = NULL;
    int n_slow = 0;

    if (sh_backend_find("cpu", &cpu) != SH_OK) skip();
    for (int i = 0; sh_net_list()[i] != NULL; i++)
        n_slow += count_slow_nodes(sh_net_list()[i], dtype);
    assert_int_equal(n_slow, 0);
}

static void training_in_f32__takes_no_slow_path(void **state)
{
    (void)state;
    check(SH_F32);
}

static void training_in_bf16__takes_no_slow_path(void **state)
{
    (void)state;
    check(SH_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_in_f32__takes_no_slow_path),
        cmocka_unit_test(training_in_bf16__takes_no_slow_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
