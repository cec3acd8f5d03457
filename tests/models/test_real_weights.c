// SPDX-License-Identifier: Apache-2.0
// prefix: ref
// timeout: 600
/** Published weights on real images against the features that the weights' own Python package gives
 *  for the same pixels. scripts/compare-weights makes the file (SHOAL_FEATURES) and runs this. */
#include "host_value.h"
#include "ref_file.h"

#include "models/weights/weights.h"
#include "models/zoo/zoo.h"

enum { BATCH = 20 };

typedef struct comparison {
    int64_t n, side, n_features;
    double *pixels;   /* [n, side, side, 3], 0 to 255 */
    double *features; /* [n, n_features] */
} comparison;

static bool read_comparison(comparison *c)
{
    const char *path = getenv("SHOAL_FEATURES");
    int64_t n_pixels = 0, n_values = 0;

    if (path == NULL) return false;
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0);
    c->pixels = ref_read(file, "pixels", &n_pixels);
    c->features = ref_read(file, "features", &n_values);
    H5Fclose(file);
    c->n_features = 1280;
    c->n = n_values / c->n_features;
    c->side = (int64_t)sqrt((double)(n_pixels / c->n / 3));
    assert_true(c->n > 0 && c->n % BATCH == 0);
    assert_int_equal(c->n * c->side * c->side * 3, n_pixels);
    return true;
}

static void load(const sh_net *net, sh_store *store)
{
    const char *source = getenv("SHOAL_SOURCE");
    sh_weights *weights = NULL;
    sh_load_report report;
    char path[4200];

    snprintf(path, sizeof(path), "%s/weights/efficientnet_lite0.pth", source ? source : ".");
    assert_ok(sh_weights_read(path, &weights));
    assert_ok(sh_weights_load(weights, net, store, true, &report));
    sh_weights_destroy(&weights);
}

/** Images [first, first + BATCH) as the network wants them, [BATCH, 3, side, side]. */
static void normalise(const comparison *c, const sh_net *net, int64_t first, double *x)
{
    int64_t area = c->side * c->side;

    for (int64_t i = 0; i < BATCH * 3 * area; i++) {
        int64_t n = first + i / (3 * area), channel = i / area % 3, pixel = i % area;
        double value = c->pixels[(n * area + pixel) * 3 + channel];

        x[i] = (value / 255 - (double)net->mean[channel]) / (double)net->std[channel];
    }
}

static double cosine(const double *a, const double *b, int64_t n)
{
    double ab = 0, aa = 0, bb = 0;

    for (int64_t i = 0; i < n; i++) ab += a[i] * b[i], aa += a[i] * a[i], bb += b[i] * b[i];
    return ab / sqrt(aa * bb);
}

/** The lowest cosine over all images. */
static double lowest_cosine(const comparison *c, sh_dtype dtype)
{
    const sh_net *net = NULL;
    const sh_backend *backend = NULL;
    sh_store *store = NULL;
    sh_program *p = NULL;
    sh_buffer *arena = NULL;
    const int64_t dims[4] = {BATCH, 3, c->side, c->side};
    double lowest = 1, *x = malloc((size_t)(BATCH * 3 * c->side * c->side) * sizeof(*x));

    assert_non_null(x);
    assert_ok(sh_net_find("efficientnet_lite0", &net));
    assert_ok(sh_backend_find("cpu", &backend));
    assert_ok(sh_store_create(backend, &store));
    const sh_program_config config = {
        .backend = backend, .store = store, .dtype = dtype, .share = 1, .prefix = ""};
    assert_ok(sh_program_create(&config, &p));
    sh_value image = sh_program_input(p, "image", dims);
    sh_value y =
        sh_program_output(p, "features", sh_net_embedding(p, net, image, &(sh_head){.tap = ""}));
    assert_ok(sh_program_plan(p));
    assert_ok(sh_store_allocate(store));
    load(net, store);
    assert_ok(backend->alloc(sh_program_arena_bytes(p), &arena));
    assert_ok(sh_program_run(p, SH_PHASE_CONSTANTS, &(sh_run_args){.arena = arena}));
    for (int64_t first = 0; first < c->n; first += BATCH) {
        const sh_run_args args = {.arena = arena};

        normalise(c, net, first, x);
        write_value(p, arena, image, x);
        assert_ok(sh_program_run(p, SH_PHASE_FORWARD, &args));
        double *features = read_value(p, arena, y);
        for (int64_t i = 0; i < BATCH; i++)
            lowest = fmin(lowest, cosine(features + i * c->n_features,
                                         c->features + (first + i) * c->n_features, c->n_features));
        free(features);
    }
    print_message("%s: lowest cosine of %lld images %.9f\n", dtype == SH_F32 ? "f32" : "bf16",
                  (long long)c->n, lowest);
    backend->free(&arena);
    sh_program_destroy(&p);
    sh_store_destroy(&store);
    free(x);
    return lowest;
}

static void check(sh_dtype dtype, double bound)
{
    comparison c = {.n = 0};

    if (!read_comparison(&c)) skip();
    double lowest = lowest_cosine(&c, dtype);

    free(c.pixels);
    free(c.features);
    assert_true(lowest >= bound);
}

static void lite0_f32__has_the_features_of_its_package(void **state)
{
    (void)state;
    check(SH_F32, 0.99999);
}

static void lite0_bf16__has_the_features_of_its_package(void **state)
{
    (void)state;
    check(SH_BF16, 0.999);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lite0_f32__has_the_features_of_its_package),
        cmocka_unit_test(lite0_bf16__has_the_features_of_its_package),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
