// SPDX-License-Identifier: Apache-2.0
// timeout: 300
// label: fast
// prefix: cuda
// library: sh_models_cuda_emulated
/**
 * The CUDA kernels, run by the emulator, in the conformance suite: every op, forward and
 * derivative, odd shapes, f32 and bf16, with threads and blocks in three orders.
 */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/parcel.h"
#include "models/class_step.h"
#include "models/conformance.h"
#include "models/cuda/cuda.h"
#include "models/cuda/cudnn_conv.h"
#include "models/cuda/emulator/order.h"
#include "models/cuda/meter.h"
#include "models/host_value.h"
#include "models/loss_cases.h"
#include "models/optim.h"
#include "models/small_net.h"

/** Strides that have nothing in common with the number of forms of an op, so that each form is met
 *  with some shape; every shape and form would take minutes. */
#ifdef __SANITIZE_ADDRESS__
static const int strides[] = {17, 37, 41};
#else
static const int strides[] = {5, 11, 13};
#endif

static void check_order(sh_emulator_order order)
{
    sh_emulator_set_order(order);
    check_backend(&sh_backend_cuda, 1, strides[order]);
    sh_emulator_set_order(SH_EMULATOR_FORWARD);
}

static void kernels__agree_with_ref(void **state)
{
    (void)state;
    check_order(SH_EMULATOR_FORWARD);
}

static void kernels__agree_with_ref_with_threads_reversed(void **state)
{
    (void)state;
    check_order(SH_EMULATOR_REVERSED);
}

static void kernels__agree_with_ref_with_threads_shuffled(void **state)
{
    (void)state;
    check_order(SH_EMULATOR_SHUFFLED);
}

/** A training step of the small network in one order; its gradients and statistics, malloc'd. */
static float *gradients_on(const sh_backend *backend, sh_emulator_order order, int64_t *n)
{
    net t;

    sh_emulator_set_order(order);
    open_net_on(&t, backend, SH_F32, true);
    step(&t, true);
    float *values = read_reduce(&t);
    *n = sh_store_n_params(t.store) + sh_store_n_states(t.store);
    close_net(&t);
    sh_emulator_set_order(SH_EMULATOR_FORWARD);
    return values;
}

static void a_network__has_the_gradients_of_ref_and_the_same_bytes_in_every_order(void **state)
{
    int64_t n = 0;
    float *ref = gradients_on(&sh_backend_ref, SH_EMULATOR_FORWARD, &n);
    float *forward = gradients_on(&sh_backend_cuda, SH_EMULATOR_FORWARD, &n);

    (void)state;
    assert_true(nmse(forward, ref, n) < 1e-8);
    for (int order = SH_EMULATOR_REVERSED; order <= SH_EMULATOR_SHUFFLED; order++) {
        float *other = gradients_on(&sh_backend_cuda, (sh_emulator_order)order, &n);
        assert_memory_equal(other, forward, (size_t)n * sizeof(float));
        free(other);
    }
    free(forward);
    free(ref);
}

/* ---- images with padding channels ---- */

enum { N_PIXELS = 9 * 7, N_IMAGE = 2 * 3 * N_PIXELS, N_FEATURES = 2 * 8 };

/** An image read by two convolutions and, through a batch norm, by what is no convolution. */
static void build_on_image(net *t, bool training)
{
    sh_program *p = t->program;
    const sh_conv_attrs small = {.out_channels = 8, .kernel = {3, 3}, .pad = {1, 1, 1, 1}};
    const sh_conv_attrs large = {.out_channels = 8, .kernel = {5, 5}, .pad = {2, 2, 2, 2}};

    (void)training;
    t->x = sh_program_input(p, "image", (const int64_t[4]){2, 3, 9, 7});
    sh_value y = sh_op_add(p, sh_op_conv(p, t->x, "a", &small), sh_op_conv(p, t->x, "b", &large));
    sh_value normed = sh_op_batch_norm(p, t->x, "norm", 1e-5f, 0.1f);
    y = sh_op_act(p, sh_op_add(p, y, sh_op_conv(p, normed, "c", &small)), SH_ACT_SILU);
    t->y = sh_program_output(p, "y", sh_op_global_avg_pool(p, y));
    assert_ok(sh_program_differentiate(p, t->y, t->x, &t->dy, &t->dx));
}

/** A step in bf16: y, the image's gradient and the parameters' in f32, malloc'd. */
static float *image_step(const sh_backend *backend, sh_layout layout, int64_t *n)
{
    double image[N_IMAGE], cotangent[N_FEATURES];
    net t;

    open_built(&t, backend, SH_BF16, true, build_on_image);
    assert_int_equal(sh_program_desc(t.program, t.x).layout, layout);
    for (int i = 0; i < N_IMAGE; i++) image[i] = sin(17 * i);
    for (int i = 0; i < N_FEATURES; i++) cotangent[i] = cos(i);
    const sh_run_args args = {.arena = t.arena, .reduce = t.reduce};
    assert_ok(sh_program_run(t.program, SH_PHASE_CONSTANTS, &args));
    write_value(t.program, t.arena, t.x, image);
    assert_ok(sh_program_run(t.program, SH_PHASE_FORWARD, &args));
    double *y = read_value(t.program, t.arena, t.y);
    write_value(t.program, t.arena, t.dy, cotangent);
    assert_ok(sh_program_run(t.program, SH_PHASE_BACKWARD, &args));
    double *dx = read_value(t.program, t.arena, t.dx);
    float *reduced = read_reduce(&t);
    int64_t n_params = sh_store_n_params(t.store);
    float *all = malloc((size_t)(N_FEATURES + N_IMAGE + n_params) * sizeof(float));

    assert_non_null(all);
    for (int i = 0; i < N_FEATURES; i++) all[i] = (float)y[i];
    for (int i = 0; i < N_IMAGE; i++) all[N_FEATURES + i] = (float)dx[i];
    memcpy(all + N_FEATURES + N_IMAGE, reduced, (size_t)n_params * sizeof(float));
    *n = n_params;
    free(reduced);
    free(dx);
    free(y);
    close_net(&t);
    return all;
}

static void an_image_with_padding_channels__is_read_by_every_op(void **state)
{
    int64_t n = 0;
    float *ref = image_step(&sh_backend_ref, SH_NCHW, &n);
    float *device = image_step(&sh_backend_cuda, SH_NHWC8, &n);

    (void)state;
    assert_null(sh_emulator_fault());
    assert_true(nmse(device, ref, N_FEATURES) < 1e-4);
    assert_true(nmse(device + N_FEATURES, ref + N_FEATURES, N_IMAGE) < 1e-4);
    assert_true(nmse(device + N_FEATURES + N_IMAGE, ref + N_FEATURES + N_IMAGE, n) < 1e-4);
    free(device);
    free(ref);
}

/** Patches have too many weights for cuDNN to pad them. */
static void a_gradient_of_many_weights__reads_an_image_without_its_padding(void **state)
{
    const op_case c = {
        .op = SH_OP_CONV_GRAD_W,
        .attrs = {.stride = {16, 16}, .dilation = {1, 1}, .groups = 1, .share = 1},
        .in = {{IMAGE, {1, 3, 32, 16}}, {ACTIVATION, {1, 264, 2, 1}}},
        .out = {{WEIGHT, {264, 3, 16, 16}}},
        .n_in = 2,
        .n_out = 1,
        .dtype = SH_BF16,
    };
    suite s = {.backend = &sh_backend_cuda};
    sh_cudnn_conv conv;
    op_run r;

    (void)state;
    assert_ok(op_run_open(&c, &sh_backend_cuda, false, &r));
    assert_null(sh_cudnn_conv_of(&r.node, &conv));
    op_run_close(&r);
    assert_int_equal(conv.x[1], 3);
    assert_int_equal(conv.x_pitch, 8);
    check_case(&s, &c);
    assert_int_equal(s.n_runs, 2); /* with cuDNN and plainly */
    assert_int_equal(s.n_failed, 0);
    assert_null(sh_emulator_fault());
}

/* ---- the optimizer ---- */

enum { STEPS = 5, CLIPPED = 1, BAD = 3 };

/** Everything that an optimizer changes, one arena after another. */
typedef struct outcome {
    float *values;
    int64_t n;
} outcome;

static void take(outcome *o, const sh_backend *backend, sh_buffer *buffer, int64_t n)
{
    o->values = realloc(o->values, (size_t)(o->n + n) * sizeof(float));
    assert_non_null(o->values);
    assert_int_equal(backend->copy_out(buffer, 0, o->values + o->n, (size_t)n * sizeof(float)),
                     SH_OK);
    o->n += n;
}

/** Some steps with made-up gradients, one of which is clipped and one bad. norms[STEPS] */
static outcome train(const sh_backend *backend, const sh_optim_config *config, double *norms)
{
    outcome o = {0};
    net t;
    sh_optim *optim = NULL;

    open_net_on(&t, backend, SH_F32, true);
    sh_slot *slow = sh_store_slot_mutable(t.store, sh_store_find(t.store, "project.weight"));
    slow->lr_scale = 0.5f;
    sh_store_slot_mutable(t.store, sh_store_find(t.store, "expand.weight"))->trainable = false;
    int64_t n = sh_store_n_params(t.store) + sh_store_n_states(t.store);
    float *reduce = malloc((size_t)n * sizeof(float));
    assert_non_null(reduce);
    assert_int_equal(sh_optim_create(config, t.store, &optim), SH_OK);
    assert_int_equal(sh_optim_start_average(optim), SH_OK);
    sh_buffer *device = NULL; /* where kernels of its own read gradients */
    if (backend->optim != NULL)
        assert_int_equal(backend->alloc((size_t)n * sizeof(float), &device), SH_OK);
    const float *gradient = device != NULL ? backend->device_ptr(device, 0) : reduce;
    for (int step = 0; step < STEPS; step++) {
        for (int64_t i = 0; i < n; i++)
            reduce[i] = (step == CLIPPED ? 1 : 1e-3f) * sinf((float)(i + 31 * step));
        if (step == BAD) reduce[n / 3] = NAN;
        if (device != NULL)
            assert_int_equal(backend->copy_in(device, 0, reduce, (size_t)n * sizeof(float)), SH_OK);
        bool is_good;
        assert_int_equal(sh_optim_update(optim, gradient, NULL, 0.01 * (step + 1), step), SH_OK);
        assert_int_equal(sh_optim_read(optim, &norms[step], &is_good), SH_OK);
        assert_true(is_good == (step != BAD));
    }
    backend->free(&device);
    take(&o, backend, sh_store_params(t.store), sh_store_n_params(t.store));
    take(&o, backend, sh_store_states(t.store), sh_store_n_states(t.store));
    for (int a = 0; a < SH_OPTIM_ARENA_COUNT; a++) {
        int64_t n_elems = 0;
        sh_buffer *buffer = sh_optim_arena_buffer(optim, (sh_optim_arena)a, &n_elems);
        if (buffer != NULL) take(&o, backend, buffer, n_elems);
    }
    sh_optim_destroy(&optim);
    close_net(&t);
    free(reduce);
    return o;
}

static void every_optimizer__has_the_bytes_of_the_host(void **state)
{
    static const sh_optim_config configs[] = {
        {.kind = SH_OPTIM_SGD, .weight_decay = 0.01f},
        {.kind = SH_OPTIM_SGD, .momentum = 0.9f, .clip_norm = 1, .ema = 0.9f},
        {.kind = SH_OPTIM_ADAM, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .weight_decay = 0.1f},
        {.kind = SH_OPTIM_ADAMW,
         .beta1 = 0.9f,
         .beta2 = 0.99f,
         .eps = 1e-8f,
         .weight_decay = 0.1f,
         .clip_norm = 1,
         .ema = 0.99f},
    };

    (void)state;
    for (size_t i = 0; i < SH_COUNT(configs); i++) {
        double host_norms[STEPS], device_norms[STEPS];
        outcome host = train(&sh_backend_ref, &configs[i], host_norms);
        for (int recorded = 0; recorded <= 1; recorded++) {
            sh_optim_config config = configs[i];
            long before = sh_emulator_plays();
            config.recorded = recorded;
            outcome device = train(&sh_backend_cuda, &config, device_norms);
            assert_null(sh_emulator_fault());
            assert_int_equal(sh_emulator_plays() - before, recorded ? STEPS - 1 : 0);
            for (int step = 0; step < STEPS; step++) {
                if (step == BAD) continue;
                assert_true((host_norms[step] > 1) == (step == CLIPPED));
                assert_true(fabs(device_norms[step] - host_norms[step]) < 1e-12 * host_norms[step]);
            }
            assert_int_equal(device.n, host.n);
            assert_memory_equal(device.values, host.values, (size_t)host.n * sizeof(float));
            free(device.values);
        }
        free(host.values);
    }
}

/* ---- sums over shards ---- */

enum { N_VECTORS = 5, N_SUMMED = 1037 };

static void add__has_the_bytes_of_the_host(void **state)
{
    const sh_device *device = sh_backend_cuda.device;
    float a[N_SUMMED], b[N_SUMMED];

    (void)state;
    for (int i = 0; i < N_SUMMED; i++) {
        a[i] = sinf((float)i);
        b[i] = 1e-3f * cosf((float)i);
    }
    assert_int_equal(device->add(SH_QUEUE_COMPUTE, a, a, b, N_SUMMED), SH_OK);
    assert_null(sh_emulator_fault());
    for (int i = 0; i < N_SUMMED; i++) {
        float expected = sinf((float)i) + b[i];
        assert_true(a[i] == expected);
    }
}

/** ((0 + 1) + (2 + 3)) + 4, into the place of vector 1. */
static void tree_sum__adds_as_the_stack_says(void **state)
{
    static const uint8_t n_joins[N_VECTORS] = {0, 1, 0, 2, 1};
    const sh_device *device = sh_backend_cuda.device;
    int n_differ = 0;

    (void)state;
    for (int order = SH_EMULATOR_FORWARD; order <= SH_EMULATOR_SHUFFLED; order++) {
        static float v[N_VECTORS][N_SUMMED], expected[N_SUMMED];
        float *inputs[N_VECTORS];
        for (int k = 0; k < N_VECTORS; k++) {
            inputs[k] = v[k];
            for (int i = 0; i < N_SUMMED; i++) v[k][i] = expf((float)k) * sinf((float)(i + 7 * k));
        }
        for (int i = 0; i < N_SUMMED; i++) {
            float left = v[0][i] + v[1][i], right = v[2][i] + v[3][i];
            left = left + right;
            expected[i] = left + v[4][i];
            float in_a_row = v[0][i];
            for (int k = 1; k < N_VECTORS; k++) in_a_row += v[k][i];
            n_differ += in_a_row != expected[i];
        }
        sh_emulator_set_order((sh_emulator_order)order);
        assert_int_equal(
            device->tree_sum(SH_QUEUE_EXCHANGE, v[1], inputs, n_joins, N_VECTORS, 3, N_SUMMED),
            SH_OK);
        sh_emulator_set_order(SH_EMULATOR_FORWARD);
        assert_memory_equal(v[1], expected, sizeof(expected));
    }
    assert_true(n_differ > 100); /* or the equality above would mean nothing */
}

/** Rendering has a test of its own (test_cuda_render.c) too. */
static void render__takes_what_is_ready_as_it_is(void **state)
{
    enum { N_VALUES = 2 * 3 * 3 };
    struct {
        sh_parcel head;
        sh_parcel_image image;
        float values[N_VALUES];
    } parcel = {.head = {.n_images = 1}, .image = {.kind = SH_PARCEL_READY}};
    const sh_tensor_desc desc = {SH_F32, SH_NHWC, {1, 3, 2, 3}};
    float out[N_VALUES];

    (void)state;
    parcel.image.pixels = (uint8_t *)parcel.values - (uint8_t *)&parcel;
    for (int i = 0; i < N_VALUES; i++) parcel.values[i] = sinf((float)i);
    assert_int_equal(sh_backend_cuda.device->render(SH_QUEUE_COMPUTE, &parcel, &desc, out), SH_OK);
    assert_null(sh_emulator_fault());
    assert_memory_equal(out, parcel.values, sizeof(out));
}

/** Losses have a test of their own (test_cuda_loss.c); this one sees that they were linked. */
static void losses__have_the_gradient_of_the_host(void **state)
{
    static const sh_loss_config configs[] = {
        {.kind = SH_LOSS_SEMI_HARD, .margin = 1, .max_per_label = 3},
        {.kind = SH_LOSS_CONTRASTIVE_ALL, .margin = 1, .max_per_label = 3},
        {.kind = SH_LOSS_BATCH_ALL, .margin = 1, .max_per_label = 3},
        {.kind = SH_LOSS_CONTRASTIVE, .margin = 1, .max_per_label = 3},
    };
    loss_case c;

    (void)state;
    case_make(&c, 9, 4, 3, 1, 1);
    for (size_t i = 0; i < SH_COUNT(configs); i++) {
        loss_outcome host = run_loss_step(NULL, &configs[i], &c.batch, 1);
        loss_outcome device = run_loss_step(&sh_backend_cuda, &configs[i], &c.batch, 1);

        assert_null(sh_emulator_fault());
        assert_true(nmse(device.grad, host.grad, (int64_t)(host.grad_bytes / sizeof(float))) <
                    1e-12);
        loss_outcome_free(&host);
        loss_outcome_free(&device);
    }
    case_free(&c);
}

static void classifications__have_the_gradient_of_the_host(void **state)
{
    static const float logits[] = {0.5f, -1, 0.25f, 1, 2, -0.5f};
    const class_inputs c = {
        .config = {.kind = SH_CLASS_CROSS_ENTROPY, .n_classes = 3, .n_centres = 1},
        .labels = (int32_t[]){1, 0},
        .logits = logits,
        .n = 2,
        .weight = 1};
    class_outcome host = run_class_step(NULL, &c, 1);
    class_outcome device = run_class_step(&sh_backend_cuda, &c, 1);

    (void)state;
    assert_null(sh_emulator_fault());
    assert_true(nmse(device.grad, host.grad, 6) < 1e-12);
    class_outcome_free(&host);
    class_outcome_free(&device);
}

/* ---- measuring ---- */

static void peaks__are_found_and_nothing_is_held_after_them(void **state)
{
    const sh_meter *meter = sh_meter_of(&sh_backend_cuda);
    const size_t held = meter->held_bytes();
    sh_peaks peaks = {0};

    (void)state;
    assert_int_equal(meter->peaks(&peaks), SH_OK);
    assert_null(sh_emulator_fault());
    assert_true(isfinite(peaks.f32_flops) && peaks.f32_flops > 0);
    assert_true(isfinite(peaks.bf16_flops) && peaks.bf16_flops > 0);
    assert_true(isfinite(peaks.read_bytes) && peaks.read_bytes > 0);
    assert_true(isfinite(peaks.triad_bytes) && peaks.triad_bytes > peaks.read_bytes);
    assert_true(peaks.bytes > peaks.read_bytes && peaks.bytes < peaks.triad_bytes);
    assert_int_equal(meter->held_bytes(), held);
}

/** The streams read and write all that they say. */
static void streams__cover_their_vectors(void **state)
{
    enum { N = 2 * SH_STREAM_PIECE, N_SUMS = N / SH_STREAM_SHARE };
    float *a = malloc(N * sizeof(float)), *b = malloc(N * sizeof(float));
    float *c = malloc(N * sizeof(float)), sums[N_SUMS];
    double total = 0;

    (void)state;
    for (int i = 0; i < N; i++) a[i] = (float)(i % 7), b[i] = (float)(i % 5), c[i] = NAN;
    assert_int_equal(sh_cuda_triad(c, a, b, 3, N), SH_OK);
    for (int i = 0; i < N; i++) assert_true(c[i] == a[i] + 3 * b[i]);
    assert_int_equal(sh_cuda_read_stream(a, N, sums), SH_OK);
    for (int i = 0; i < N_SUMS; i++) total += (double)sums[i];
    for (int i = 0; i < N; i++) total -= (double)a[i];
    assert_true(total == 0);
    assert_null(sh_emulator_fault());
    free(a);
    free(b);
    free(c);
}

static void held_bytes__are_those_of_what_was_allocated(void **state)
{
    const sh_meter *meter = sh_meter_of(&sh_backend_cuda);
    const size_t held = meter->held_bytes();
    sh_buffer *buffer = NULL;
    void *memory = NULL;

    (void)state;
    assert_int_equal(sh_backend_cuda.alloc(1000, &buffer), SH_OK);
    assert_int_equal(sh_backend_cuda.device->alloc(500, &memory), SH_OK);
    assert_int_equal(meter->held_bytes(), held + 1500);
    sh_backend_cuda.free(&buffer);
    sh_backend_cuda.free(&buffer);
    assert_int_equal(meter->held_bytes(), held + 500);
    sh_backend_cuda.device->free(memory);
    sh_backend_cuda.device->free(NULL);
    assert_int_equal(meter->held_bytes(), held);
}

/** After the tests above. */
static void every_kernel_file__was_run(void **state)
{
    const char *root = getenv("SHOAL_SOURCE");
    char path[4096];
    int n_files = 0, n_missed = 0;

    (void)state;
    if (root == NULL) skip();
    snprintf(path, sizeof(path), "%s/models/cuda", root);
    DIR *folder = opendir(path);
    assert_non_null(folder);
    for (struct dirent *file = readdir(folder); file != NULL; file = readdir(folder)) {
        const char *dot = strrchr(file->d_name, '.');
        if (dot == NULL || strcmp(dot, ".cu") != 0) continue;
        n_files++;
        if (sh_emulator_launches(file->d_name) > 0) continue;
        print_message("no kernel of %s was launched\n", file->d_name);
        n_missed++;
    }
    closedir(folder);
    assert_true(n_files > 0);
    assert_int_equal(n_missed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels__agree_with_ref),
        cmocka_unit_test(kernels__agree_with_ref_with_threads_reversed),
        cmocka_unit_test(kernels__agree_with_ref_with_threads_shuffled),
        cmocka_unit_test(an_image_with_padding_channels__is_read_by_every_op),
        cmocka_unit_test(a_gradient_of_many_weights__reads_an_image_without_its_padding),
        cmocka_unit_test(a_network__has_the_gradients_of_ref_and_the_same_bytes_in_every_order),
        cmocka_unit_test(every_optimizer__has_the_bytes_of_the_host),
        cmocka_unit_test(add__has_the_bytes_of_the_host),
        cmocka_unit_test(tree_sum__adds_as_the_stack_says),
        cmocka_unit_test(render__takes_what_is_ready_as_it_is),
        cmocka_unit_test(losses__have_the_gradient_of_the_host),
        cmocka_unit_test(classifications__have_the_gradient_of_the_host),
        cmocka_unit_test(peaks__are_found_and_nothing_is_held_after_them),
        cmocka_unit_test(streams__cover_their_vectors),
        cmocka_unit_test(held_bytes__are_those_of_what_was_allocated),
        cmocka_unit_test(every_kernel_file__was_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
