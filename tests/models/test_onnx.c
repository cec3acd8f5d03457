// SPDX-License-Identifier: Apache-2.0
/** ONNX files: whole, repeatable, refused where they should be; and with onnxruntime (Python named
 *  by ONNX_PYTHON) the same features as ours. */
// timeout: 180
#include "host_value.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "base/file.h"
#include "models/loss/classes.h"
#include "models/onnx/onnx.h"
#include "models/weights/recognise.h"
#include "models/zoo/zoo.h"

static char folder[] = "/tmp/shoal_onnx_XXXXXX";
static char path[64];

enum { SIZE = 33, DIM = 16, CLASSES = 5, ALL = DIM + CLASSES };
enum { EMBEDDING, LOGITS, N_OUTPUTS };

static int make_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL) return -1;
    snprintf(path, sizeof(path), "%s/net.onnx", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return sh_file_remove_tree(folder) == SH_OK ? 0 : -1;
}

typedef struct built {
    sh_store *store;
    sh_program *p;
    sh_value image, outputs[N_OUTPUTS];
} built;

/* A classification by cosines: embedding and logits. */
static built build(const char *backend_name, bool training)
{
    built b = {0};
    const sh_backend *backend = NULL;
    const sh_net *net = NULL;

    assert_ok(sh_backend_find(backend_name, &backend));
    assert_ok(sh_net_find("mobilenet_v2", &net));
    assert_ok(sh_store_create(backend, &b.store));
    assert_ok(sh_program_create(&(sh_program_config){.backend = backend,
                                                     .store = b.store,
                                                     .dtype = SH_F32,
                                                     .share = 1,
                                                     .training = training},
                                &b.p));
    b.image = sh_program_input(b.p, "image", (const int64_t[]){1, 3, SIZE, SIZE});

    const sh_class_config classes = {
        .kind = SH_CLASS_ARCFACE, .n_classes = CLASSES, .n_centres = 1, .scale = 1};
    sh_value x = sh_net_embedding(b.p, net, b.image, &(sh_head){.dim = DIM});

    b.outputs[EMBEDDING] = sh_program_output(b.p, "embedding", sh_net_normalize(b.p, x));
    b.outputs[LOGITS] =
        sh_program_output(b.p, "logits", sh_class_head(b.p, x, "loss.weight", &classes));
    assert_ok(sh_store_allocate(b.store));
    assert_ok(sh_store_init(b.store, 3));
    return b;
}

static void clear(built *b)
{
    sh_program_destroy(&b->p);
    sh_store_destroy(&b->store);
}

static void write__bytes_are_a_function_of_the_network(void **state)
{
    static const char *const metadata[][2] = {{"net", "mobilenet_v2"}};
    built b = build("ref", false);
    char *text[2] = {NULL};
    size_t n[2] = {0};

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_ok(sh_onnx_write(path, b.p, b.image, N_OUTPUTS, b.outputs, metadata, 1));
        assert_ok(sh_file_get(path, 1 << 26, &text[i], &n[i]));
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(text[0], text[1], n[0]);
    assert_true(n[0] > 2200000 * sizeof(float)); /* the weights are in it */
    free(text[0]);
    free(text[1]);
    clear(&b);
}

static void write__a_training_program_is_refused(void **state)
{
    built b = build("ref", true);

    (void)state;
    assert_int_equal(sh_onnx_write(path, b.p, b.image, N_OUTPUTS, b.outputs, NULL, 0),
                     SH_ERR_INTERNAL);
    clear(&b);
}

/* Embedding and logits of a picture that the script makes alike. */
static void compute(float out[ALL])
{
    const sh_backend *backend = NULL;
    built b = build("ref", false);
    sh_buffer *arena = NULL;
    float image[3 * SIZE * SIZE];

    for (int i = 0; i < 3 * SIZE * SIZE; i++) image[i] = (float)(i * 37 % 101) / 50 - 1;
    assert_ok(sh_backend_find("ref", &backend));
    assert_ok(sh_program_plan(b.p));
    assert_ok(backend->alloc(sh_program_arena_bytes(b.p), &arena));
    assert_int_equal(sh_program_desc(b.p, b.image).layout, SH_NCHW);
    assert_ok(sh_program_write(b.p, arena, b.image, image));
    assert_ok(sh_program_run(b.p, SH_PHASE_FORWARD, &(sh_run_args){.arena = arena}));
    assert_ok(sh_program_read(b.p, arena, b.outputs[EMBEDDING], out));
    assert_ok(sh_program_read(b.p, arena, b.outputs[LOGITS], out + DIM));
    backend->free(&arena);
    clear(&b);
}

static void write__onnxruntime_gives_the_same_outputs(void **state)
{
    static const char script[] =
        "import sys, numpy as np, onnxruntime as o\n"
        "s = o.InferenceSession(sys.argv[1])\n"
        "x = ((np.arange(3*33*33)*37 % 101).astype('f4')/50 - 1).reshape(1,3,33,33)\n"
        "two = np.concatenate([x, x])\n"
        "for y in s.run(['embedding', 'logits'], {'image': two}):\n"
        "    print(*['%.9g' % v for v in y[1]])\n";
    const char *python = getenv("ONNX_PYTHON");
    char command[512], file[96];
    float ours[ALL], theirs[ALL];
    built b = build("ref", false);
    double difference = 0;

    (void)state;
    if (python == NULL) {
        clear(&b);
        skip();
    }
    snprintf(file, sizeof(file), "%s/run.py", folder);
    assert_ok(sh_file_put(file, script, strlen(script)));
    assert_ok(sh_onnx_write(path, b.p, b.image, N_OUTPUTS, b.outputs, NULL, 0));
    clear(&b);
    snprintf(command, sizeof(command), "%s %s %s", python, file, path);

    FILE *pipe = popen(command, "r");

    assert_non_null(pipe);
    for (int i = 0; i < ALL; i++) assert_int_equal(fscanf(pipe, "%f", &theirs[i]), 1);
    assert_int_equal(pclose(pipe), 0);
    compute(ours);
    for (int i = 0; i < ALL; i++) difference += pow((double)ours[i] - (double)theirs[i], 2);
    assert_true(sqrt(difference) < 1e-4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write__bytes_are_a_function_of_the_network),
        cmocka_unit_test(write__a_training_program_is_refused),
        cmocka_unit_test(write__onnxruntime_gives_the_same_outputs),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
