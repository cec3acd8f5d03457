// SPDX-License-Identifier: Apache-2.0
// timeout: 300
// label: slow
// prefix: cuda
// library: sh_models_cuda_emulated sh_models_cudnn
/**
 * cuDNN has a plan for every dense convolution of every network's training step, f32 and bf16. The
 * plans are made for a described device (h200.json), which need not be there. Nothing is run.
 * SHOAL_DEVICE=FILE takes another description. SHOAL_DEVICE_OUT=FILE writes that of the device that
 * there is, and tests nothing. Skipped without cuDNN.
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/hash.h"
#include "models/cuda/cuda.h"
#include "models/cuda/cudnn_conv.h"
#include "models/graph.h"
#include "models/training_program.h"

#define assert_ok(call) assert_int_equal(call, SH_OK)

#if SHOAL_WITH_CUDNN

#include "models/cuda/cudnn_library.h"

enum {
    IMAGES = 128,  /* of a shard */
    LARGEST = 512, /* the attention's kernel has a limit: networks for larger images take */
    SMALLER = 224, /* this size */
    MAX_CHOICES = 8,
    N_STEMS = 6, /* that are known to differ */
    MAX_KEYS = 1 << 13,
};

typedef struct walk {
    uint64_t keys[MAX_KEYS]; /* of what was planned, open addressing; 0: free */
    int n_nodes, n_graphs, n_failed;
    int n_images, n_copied; /* that have padding channels; that no choice reads without a copy */
} walk;

/** Does a choice of cuDNN's, for this form of the gradient of weights, become a plan? */
static bool has_plan(const sh_cudnn_conv *conv)
{
    sh_cudnn_choice choices[MAX_CHOICES];
    sh_cudnn_plan *plan = NULL;
    int n = 0;

    if (sh_cudnn_library.choices(conv, MAX_CHOICES, choices, &n) != SH_OK) return false;
    for (int i = 0; i < n && plan == NULL; i++)
        (void)sh_cudnn_library.plan(conv, choices[i].text, &plan);
    bool is_planned = plan != NULL;
    sh_cudnn_library.release(&plan);
    return is_planned;
}

/** Does every choice want workspace for a copy of x? */
static bool is_copied(const sh_cudnn_conv *conv)
{
    const size_t x_bytes = (size_t)(conv->x[0] * conv->x_pitch * conv->x[2] * conv->x[3]) * 2;
    sh_cudnn_choice choices[MAX_CHOICES];
    size_t least = SIZE_MAX;
    int n = 0;

    assert_ok(sh_cudnn_library.choices(conv, MAX_CHOICES, choices, &n));
    for (int i = 0; i < n; i++) {
        sh_cudnn_plan *plan = NULL;
        if (sh_cudnn_library.plan(conv, choices[i].text, &plan) != SH_OK) continue;
        size_t n_bytes = sh_cudnn_library.workspace_bytes(plan);
        least = n_bytes < least ? n_bytes : least;
        sh_cudnn_library.release(&plan);
    }
    return least >= x_bytes;
}

/** Has no equal one been planned yet? */
static bool is_new(walk *w, const char *key)
{
    uint64_t hash = sh_fnv1a(SH_FNV1A_START, key, strlen(key)) | 1;
    size_t at = hash % MAX_KEYS;

    while (w->keys[at] != 0 && w->keys[at] != hash) at = (at + 1) % MAX_KEYS;
    if (w->keys[at] == hash) return false;
    assert_true(w->n_graphs < MAX_KEYS / 2);
    w->keys[at] = hash;
    w->n_graphs++;
    return true;
}

static void check_node(walk *w, const sh_net *net, const sh_program *p, const sh_node *node)
{
    char key[SH_CUDNN_KEY_BYTES];
    sh_cudnn_conv conv;

    if (sh_cudnn_conv_of(&node->desc, &conv) != NULL) return;
    w->n_nodes++;
    sh_cudnn_key(&conv, key);
    if (!is_new(w, key)) return;
    if (node->desc.in[0]->layout == SH_NHWC8) {
        w->n_images++;
        w->n_copied += conv.x[1] == conv.x_pitch && is_copied(&conv);
    }
    if (has_plan(&conv)) return;
    print_message("%s, %s: no plan for %s: %s\n", net->name, sh_graph_label(p, node), key,
                  sh_error_message());
    w->n_failed++;
}

static void check_net(walk *w, const sh_net *net, sh_dtype dtype)
{
    const int64_t size = net->default_size < LARGEST ? net->default_size : SMALLER;
    sh_store *store = NULL;

    assert_ok(sh_store_create(&sh_backend_cuda, &store));
    sh_program *p = make_training_program(net, store, dtype, IMAGES, size);
    for (int i = 0; i < p->n_nodes; i++) check_node(w, net, p, &p->nodes[i]);
    sh_program_destroy(&p);
    sh_store_destroy(&store);
}

static void every_dense_convolution__has_a_plan_and_images_are_not_copied(void **state)
{
    walk *w = calloc(1, sizeof(*w));

    (void)state;
    assert_non_null(w);
    for (int i = 0; sh_net_list()[i] != NULL; i++) {
        int before = w->n_nodes;
        check_net(w, sh_net_list()[i], SH_F32);
        check_net(w, sh_net_list()[i], SH_BF16);
        if (w->n_nodes == before) fail_msg("%s has no convolution", sh_net_list()[i]->name);
    }
    print_message("%d convolutions, %d different ones\n", w->n_nodes, w->n_graphs);
    assert_int_equal(w->n_failed, 0);
    assert_true(w->n_images >= 2 * N_STEMS);
    assert_int_equal(w->n_copied, 0);
    free(w);
}

static const sh_cudnn_conv pointwise = {.kind = SH_CUDNN_GRAD_W,
                                        .dtype = SH_BF16,
                                        .dw = SH_F32,
                                        .x = {128, 64, 28, 28},
                                        .x_pitch = 64,
                                        .y = {128, 128, 28, 28},
                                        .kernel = {1, 1},
                                        .stride = {1, 1},
                                        .dilation = {1, 1}};

/** By an engine that compiles its kernel: seconds for each. */
static void weights_of_bf16__can_have_their_gradient_in_f32(void **state)
{
    (void)state;
    assert_true(has_plan(&pointwise));
}

static void a_convolution_of_other_shapes__has_none(void **state)
{
    sh_cudnn_conv wrong = pointwise;

    (void)state;
    wrong.dw = SH_BF16;
    assert_true(has_plan(&wrong));
    wrong.y[2]++;
    assert_false(has_plan(&wrong));
}

static void an_unknown_choice__is_refused(void **state)
{
    static const char *const choices[] = {"e12345", "e62 2=12345", "an engine", ""};
    sh_cudnn_conv conv = pointwise;

    (void)state;
    conv.dw = SH_BF16;
    for (size_t i = 0; i < SH_COUNT(choices); i++) {
        sh_cudnn_plan *plan = NULL;
        assert_int_not_equal(sh_cudnn_library.plan(&conv, choices[i], &plan), SH_OK);
        assert_null(plan);
    }
}

static int open_library(void **state)
{
    const char *build = getenv("SHOAL_BUILD"), *source = getenv("SHOAL_SOURCE");
    const char *device = getenv("SHOAL_DEVICE");
    char path[4096], said[256];
    char *json = NULL;
    size_t n_bytes = 0;

    (void)state;
    assert_non_null(build);
    assert_non_null(source);
    snprintf(path, sizeof(path), "%s/tests/driver/libcuda.so.1", build);
    if (dlopen(path, RTLD_NOW | RTLD_GLOBAL) == NULL) fail_msg("%s", dlerror());
    snprintf(path, sizeof(path), "%s/tests/models/h200.json", source);
    assert_ok(sh_file_get(device != NULL ? device : path, 1 << 20, &json, &n_bytes));
    assert_ok(sh_cudnn_library_describe_device(json));
    free(json);
    assert_ok(sh_cudnn_library.describe(said, sizeof(said)));
    print_message("%s\n", said);
    return 0;
}

/** What cuDNN says of the device that there is; an exit code. */
static int write_device(const char *path)
{
    char *json = NULL;
    sh_status st = sh_cudnn_library_device(&json);

    if (st == SH_OK) st = sh_file_put(path, json, strlen(json));
    if (st != SH_OK) fprintf(stderr, "%s\n", sh_error_message());
    free(json);
    return st == SH_OK ? 0 : 1;
}

int main(void)
{
    const char *out = getenv("SHOAL_DEVICE_OUT");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_dense_convolution__has_a_plan_and_images_are_not_copied),
        cmocka_unit_test(weights_of_bf16__can_have_their_gradient_in_f32),
        cmocka_unit_test(a_convolution_of_other_shapes__has_none),
        cmocka_unit_test(an_unknown_choice__is_refused),
    };

    if (sh_cudnn_library_open() != SH_OK) {
        fprintf(stderr, "skipped: %s\n", sh_error_message());
        return 77;
    }
    if (out != NULL) return write_device(out);
    return cmocka_run_group_tests(tests, open_library, NULL);
}

#else

int main(void)
{
    puts("skipped: there is no cuDNN");
    return 77;
}

#endif
