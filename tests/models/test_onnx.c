// SPDX-License-Identifier: Apache-2.0
/** ONNX files: whole, repeatable, refused where they should be; and with onnxruntime (Python named
 *  by ONNX_PYTHON, with onnx) valid, and of the same embeddings as ours, for every network. */
// timeout: 900
#include "host_value.h"
#include "models/ref_file.h"

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
    assert_ok(sh_program_run(b.p, SH_PHASE_CONSTANTS, &(sh_run_args){.arena = arena}));
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

/* ---- every network ---- */

/* Whole patches of 14 and of 16 pixels, and enough for the Inceptions. */
enum { N_IMAGES = 2, EVERY_SIZE = 112, MAX_FAILED = 1024 };

/* A network over the store. For training without what draws by chance, and with its gradients, so
 * that it gives the statistics of its batch. */
typedef struct every {
    sh_program *p;
    sh_value image, embedding, dy;
} every;

static every open_every(const sh_net *net, const sh_backend *backend, sh_store *store, int size,
                        bool training)
{
    const int64_t dims[4] = {N_IMAGES, net->in_channels, size, size};
    sh_net calm = *net;
    every e = {0};

    calm.dropout = calm.path_drop = 0;
    assert_ok(sh_program_create(
        &(sh_program_config){
            .backend = backend, .store = store, .dtype = SH_F32, .share = 1, .training = training},
        &e.p));
    e.image = sh_program_input(e.p, "image", dims);
    e.embedding = sh_program_output(
        e.p, "embedding",
        sh_net_embedding(e.p, &calm, e.image, &(sh_head){.dim = DIM, .normalize = true}));
    if (training) assert_ok(sh_program_differentiate(e.p, e.embedding, SH_NO_VALUE, &e.dy, NULL));
    return e;
}

/* Weights by the rule of the reference files. */
static void fill(sh_store *store)
{
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const sh_slot *slot = sh_store_slot(store, i);
        float *values = malloc((size_t)slot->n_elems * sizeof(*values));

        assert_non_null(values);
        ref_fill("onnx", slot->name, slot->n_dims, slot->dims, slot->n_elems, values);
        assert_ok(sh_store_write(store, i, values));
        free(values);
    }
}

/* Running statistics become those of the images: signals keep their size through any depth, as in a
 * trained network. With made-up ones they grow, and so does what f32 rounds away. */
static void calibrate(every *e, const sh_backend *backend, sh_store *store, const float *image)
{
    int64_t n_params = sh_store_n_params(store), n_states = sh_store_n_states(store);
    const float cotangent[N_IMAGES * DIM] = {0};
    sh_buffer *arena = NULL, *reduce = NULL;

    assert_ok(backend->alloc(sh_program_arena_bytes(e->p), &arena));
    assert_ok(backend->alloc((size_t)(n_params + n_states) * sizeof(float), &reduce));
    const sh_run_args args = {.arena = arena, .reduce = reduce};
    assert_ok(sh_program_write(e->p, arena, e->image, image));
    assert_ok(sh_program_run(e->p, SH_PHASE_FORWARD, &args));
    assert_ok(sh_program_write(e->p, arena, e->dy, cotangent));
    assert_ok(sh_program_run(e->p, SH_PHASE_BACKWARD, &args));
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const sh_slot *slot = sh_store_slot(store, i);
        float *values = malloc((size_t)slot->n_elems * sizeof(*values));

        assert_non_null(values);
        if (slot->kind == SH_SLOT_STATE) {
            assert_ok(backend->copy_out(reduce, (size_t)(n_params + slot->offset) * sizeof(*values),
                                        values, (size_t)slot->n_elems * sizeof(*values)));
            assert_ok(sh_store_write(store, i, values));
        }
        free(values);
    }
    backend->free(&arena);
    backend->free(&reduce);
}

/* Images of other waves and brightness. */
static void paint(int64_t n_elems, int size, float *image)
{
    for (int64_t i = 0; i < N_IMAGES * n_elems; i++) {
        float k = (float)(i / n_elems), row = (float)(i % n_elems / size), x = (float)(i % size);

        image[i] = 0.5f * k + (1 + k) * sinf(x * (0.1f + 0.5f * k)) * cosf(row * (0.3f - 0.2f * k));
    }
}

/* Writes the network, images and our embeddings of them into the folder. */
static void write_network(const sh_net *net, int size)
{
    static const char *const names[2] = {"image.f32", "ours.f32"};
    const sh_backend *backend = NULL;
    sh_store *store = NULL;
    sh_buffer *arena = NULL;
    int64_t n = N_IMAGES * net->in_channels * size * size;
    float *image = malloc((size_t)n * sizeof(*image)), ours[N_IMAGES * DIM];

    assert_non_null(image);
    paint(n / N_IMAGES, size, image);
    assert_ok(sh_backend_find("cpu", &backend));
    assert_ok(sh_store_create(backend, &store));
    every train = open_every(net, backend, store, size, true);
    every e = open_every(net, backend, store, size, false);
    assert_ok(sh_program_plan(train.p));
    assert_ok(sh_store_allocate(store));
    fill(store);
    calibrate(&train, backend, store, image);
    sh_program_destroy(&train.p);
    assert_ok(sh_onnx_write(path, e.p, e.image, 1, &e.embedding, NULL, 0));
    assert_ok(sh_program_plan(e.p));
    assert_ok(backend->alloc(sh_program_arena_bytes(e.p), &arena));
    assert_int_equal(sh_program_desc(e.p, e.image).layout, SH_NCHW);
    const sh_run_args args = {.arena = arena};
    assert_ok(sh_program_run(e.p, SH_PHASE_CONSTANTS, &args));
    assert_ok(sh_program_write(e.p, arena, e.image, image));
    assert_ok(sh_program_run(e.p, SH_PHASE_FORWARD, &args));
    assert_ok(sh_program_read(e.p, arena, e.embedding, ours));
    for (int k = 0; k < 2; k++) {
        char file[96];

        snprintf(file, sizeof(file), "%s/%s", folder, names[k]);
        assert_ok(sh_file_put(file, (const char *)(k == 0 ? image : ours),
                              k == 0 ? (size_t)n * sizeof(*image) : sizeof(ours)));
    }
    backend->free(&arena);
    sh_program_destroy(&e.p);
    sh_store_destroy(&store);
    free(image);
}

/* Prints "distance between theirs and ours, of all elements; between our two images". */
static const char every_script[] =
    "import sys, numpy as np, onnx, onnxruntime as o\n"
    "folder, dims = sys.argv[1], [int(v) for v in sys.argv[2:]]\n"
    "onnx.checker.check_model(folder + '/net.onnx', full_check=True)\n"
    "s = o.InferenceSession(folder + '/net.onnx')\n"
    "x = np.fromfile(folder + '/image.f32', 'f4').reshape(dims)\n"
    "ours = np.fromfile(folder + '/ours.f32', 'f4').reshape(dims[0], -1)\n"
    "(theirs,) = s.run(['embedding'], {'image': x})\n"
    "assert theirs.shape == ours.shape and np.isfinite(theirs).all()\n"
    "print(np.abs(theirs - ours).max(), np.abs(ours[0] - ours[1]).max())\n";

static void write__every_network_runs_in_onnxruntime(void **state)
{
    const char *python = getenv("ONNX_PYTHON");
    char command[512], file[96], failed[MAX_FAILED] = "";
    int n_nets = 0;

    (void)state;
    if (python == NULL) skip();
    snprintf(file, sizeof(file), "%s/every.py", folder);
    assert_ok(sh_file_put(file, every_script, strlen(every_script)));
    for (const sh_net *const *net = sh_net_list(); *net != NULL; net++, n_nets++) {
        double error = NAN, apart = 0;

        write_network(*net, EVERY_SIZE);
        snprintf(command, sizeof(command), "%s %s %s %d %d %d %d", python, file, folder, N_IMAGES,
                 (*net)->in_channels, EVERY_SIZE, EVERY_SIZE);
        FILE *pipe = popen(command, "r");

        assert_non_null(pipe);
        bool is_read = fscanf(pipe, "%lf %lf", &error, &apart) == 2;
        bool is_good = pclose(pipe) == 0 && is_read && error < 1e-4 && apart > 1e-3;
        print_message("%-32s largest difference %.1e (two images: %.1e)%s\n", (*net)->name, error,
                      apart, is_good ? "" : "  <- not good");
        if (!is_good)
            snprintf(failed + strlen(failed), MAX_FAILED - strlen(failed), " %s", (*net)->name);
    }
    assert_true(n_nets > 15);
    assert_string_equal(failed, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write__bytes_are_a_function_of_the_network),
        cmocka_unit_test(write__a_training_program_is_refused),
        cmocka_unit_test(write__onnxruntime_gives_the_same_outputs),
        cmocka_unit_test(write__every_network_runs_in_onnxruntime),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
