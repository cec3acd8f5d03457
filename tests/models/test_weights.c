// SPDX-License-Identifier: Apache-2.0
/** safetensors in and out, loading into a store, and the published EfficientNet-Lite0 file. */
#include "host_value.h"
#include "weight_files.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "models/zoo/zoo.h"

static char folder[] = "/tmp/shoal_weights_XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL) return -1;
    snprintf(path, sizeof(path), "%s/w.safetensors", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return sh_file_remove_tree(folder) == SH_OK ? 0 : -1;
}

/* ---- safetensors ---- */

static const float matrix[6] = {1, -2, 3, 0.5f, 1e-30f, 6};
static const uint16_t halves[3] = {0x3F80, 0xC020, 0}; /* 1, -2.5, 0: six bytes, so what follows
                                                          is not aligned */
static const int32_t whole[2] = {-7, 1 << 20};
static const sh_weight_out outs[] = {
    {"b.matrix", SH_F32, 2, {2, 3}, matrix},   {"a.halves", SH_BF16, 3, {3, 1, 1}, halves},
    {"c \"\\\xC3\xA4", SH_I32, 1, {2}, whole}, {"scalar", SH_F32, 0, {0}, matrix},
    {"empty", SH_F32, 2, {0, 5}, NULL},
};
static const char *const metadata[][2] = {{"format", "pt"}, {"net", "x\ny"}};

static void write__is_read_back_in_order_with_metadata(void **state)
{
    sh_weights *w = NULL;
    uint32_t crc = 0;
    uint64_t n_bytes = 0;
    char *text = NULL;
    size_t n = 0;

    (void)state;
    assert_ok(sh_weights_write(path, outs, SH_COUNT(outs), metadata, 2, &crc, &n_bytes));
    assert_ok(sh_file_get(path, 1 << 20, &text, &n));
    assert_int_equal(n, n_bytes);
    assert_int_equal(sh_crc32c(0, text, n), crc);
    free(text);
    assert_ok(sh_weights_read(path, &w));
    assert_int_equal(sh_weights_count(w), SH_COUNT(outs));
    for (size_t i = 0; i < SH_COUNT(outs); i++) {
        const sh_weight *t = sh_weights_find(w, outs[i].name);

        assert_non_null(t);
        assert_int_equal(t->n_dims, outs[i].n_dims);
        assert_memory_equal(t->dims, outs[i].dims, (size_t)t->n_dims * sizeof(t->dims[0]));
    }
    assert_memory_equal(sh_weights_find(w, "b.matrix")->data, matrix, sizeof(matrix));
    assert_memory_equal(sh_weights_find(w, "a.halves")->data, ((float[]){1, -2.5f, 0}), 12);
    assert_memory_equal(sh_weights_find(w, outs[2].name)->data, ((float[]){-7, 1 << 20}), 8);
    assert_int_equal(sh_weights_find(w, "scalar")->n_elems, 1);
    assert_int_equal(sh_weights_find(w, "empty")->n_elems, 0);
    assert_string_equal(sh_weights_get(w, 0)->name, "b.matrix");
    assert_string_equal(sh_weights_metadata(w, "net"), "x\ny");
    assert_null(sh_weights_metadata(w, "nothing"));
    sh_weights_destroy(&w);
}

static void write__gives_the_same_bytes_twice(void **state)
{
    char *first = NULL, *second = NULL;
    size_t n_first = 0, n_second = 0;

    (void)state;
    assert_ok(sh_weights_write(path, outs, SH_COUNT(outs), metadata, 2, NULL, NULL));
    assert_ok(sh_file_get(path, 1 << 20, &first, &n_first));
    assert_ok(sh_weights_write(path, outs, SH_COUNT(outs), metadata, 2, NULL, NULL));
    assert_ok(sh_file_get(path, 1 << 20, &second, &n_second));
    assert_int_equal(n_first, n_second);
    assert_memory_equal(first, second, n_first);
    assert_int_equal(*(uint64_t *)first % 8, 0); /* so that elements are aligned in the file */
    free(first);
    free(second);
}

static void write__refuses_two_tensors_of_one_name(void **state)
{
    const sh_weight_out twice[] = {outs[0], outs[0]};

    (void)state;
    assert_int_equal(sh_weights_write(path, twice, 2, NULL, 0, NULL, NULL), SH_ERR_INTERNAL);
    assert_non_null(strstr(sh_error_message(), "b.matrix"));
}

static void parse__refuses_headers_that_lie(void **state)
{
    static const struct {
        const char *header, *says;
    } cases[] = {
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}", "header, byte"},
        {"{}", "after the last tensor"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", "does not fill"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", "[begin, end]"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", "[begin, end]"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", "truncated"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "after the last"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", "leaves a gap"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"y\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[2,8]}}",
         "overlaps"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         "duplicate"},
        {"{\"x\":{\"dtype\":\"F8_E4M3\",\"shape\":[8],\"data_offsets\":[0,8]}}", "F8_E4M3"},
        {"{\"x\":{\"shape\":[8],\"data_offsets\":[0,8]}}", "no dtype"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[-8],\"data_offsets\":[0,8]}}", "whole numbers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[8.0],\"data_offsets\":[0,8]}}", "whole numbers"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,8],\"data_offsets\":[0,8]}}",
         "at most 8"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}",
         "does not fill"},
        {"{\"\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}}", "a name of 0 bytes"},
        {"{\"x\":7}", "no dtype"},
        {"{\"__metadata__\":[]}", "not an object"},
    };

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        bytes b = make_safetensors(cases[i].header, "01234567", 8);
        sh_weights *w = NULL;
        sh_status st = sh_weights_parse(b.data, b.n, "file", &w);

        if (st == SH_OK || strstr(sh_error_message(), cases[i].says) == NULL)
            fail_msg("%s: expected '%s', got %s", cases[i].header, cases[i].says,
                     st == SH_OK ? "success" : sh_error_message());
        free_bytes(&b);
    }
}

static void parse__refuses_foreign_and_short_files(void **state)
{
    const char *const files[] = {"", "x", "GIF89a..........", "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F{}",
                                 "\x20\1\1\1\1\1\1\1{}"};

    (void)state;
    for (size_t i = 0; i < SH_COUNT(files); i++) {
        sh_weights *w = NULL;

        assert_int_equal(sh_weights_parse(files[i], strlen(files[i]), "file", &w), SH_ERR_FORMAT);
        assert_non_null(strstr(sh_error_message(), "file: "));
    }
    sh_weights *w = NULL;

    assert_int_not_equal(sh_weights_read("/nonexistent/file.pth", &w), SH_OK);
    assert_null(w);
}

/* ---- into a store ---- */

static const sh_net *find_net(const char *name)
{
    const sh_net *net = NULL;

    assert_ok(sh_net_find(name, &net));
    return net;
}

static sh_store *make_store(const char *net)
{
    const sh_backend *backend = NULL;
    const sh_net *found = find_net(net);
    sh_store *store = NULL;
    sh_program *p = NULL;

    assert_ok(sh_backend_find("ref", &backend));
    assert_ok(sh_store_create(backend, &store));
    assert_ok(sh_program_create(
        &(sh_program_config){
            .backend = backend, .store = store, .dtype = SH_F32, .share = 1, .prefix = ""},
        &p));
    int64_t size = found->default_size;
    sh_value x = sh_program_input(p, "image", (const int64_t[]){1, found->in_channels, size, size});

    sh_program_output(p, "embedding",
                      sh_net_embedding(p, found, x, &(sh_head){.dim = 128, .normalize = true}));
    assert_ok(sh_program_plan(p));
    sh_program_destroy(&p);
    assert_ok(sh_store_allocate(store));
    return store;
}

static void save__load_brings_every_weight_back(void **state)
{
    sh_store *a = make_store("mobilenet_v2"), *b = make_store("mobilenet_v2");
    sh_weights *w = NULL;
    sh_load_report report;

    (void)state;
    assert_ok(sh_store_init(a, 1));
    assert_ok(sh_store_init(b, 2));
    assert_ok(sh_weights_save(path, a, metadata, 1, NULL, NULL));
    assert_ok(sh_weights_read(path, &w));
    assert_ok(sh_weights_load(w, find_net("mobilenet_v2"), b, true, &report));
    assert_int_equal(report.n_loaded, sh_store_n_slots(a));
    assert_int_equal(report.n_missing + report.n_extra + report.n_misshaped, 0);
    assert_string_equal(report.text, "");
    for (int i = 0; i < sh_store_n_slots(a); i++) {
        size_t n = (size_t)sh_store_slot(a, i)->n_elems * sizeof(float);
        float *x = malloc(n), *y = malloc(n);

        assert_true(x != NULL && y != NULL);
        assert_ok(sh_store_read(a, i, x));
        assert_ok(sh_store_read(b, i, y));
        assert_memory_equal(x, y, n);
        free(x);
        free(y);
    }
    sh_weights_destroy(&w);
    sh_store_destroy(&a);
    sh_store_destroy(&b);
}

static void load__reports_what_does_not_fit_and_strictly_refuses_it(void **state)
{
    const sh_weight_out some[] = {{"_conv_stem.weight", SH_F32, 1, {6}, matrix},
                                  {"_bn0.weight", SH_F32, 1, {32}, calloc(32, 4)},
                                  {"stranger", SH_F32, 2, {2, 3}, matrix},
                                  {"_bn0.num_batches_tracked", SH_I32, 0, {0}, whole}};
    sh_store *store = make_store("efficientnet_lite0");
    const sh_net *net = find_net("efficientnet_lite0");
    int bn0 = sh_store_find(store, "_bn0.weight");
    sh_weights *w = NULL;
    sh_load_report report;
    float loaded[32];

    (void)state;
    assert_ok(sh_store_init(store, 1));
    assert_ok(sh_weights_write(path, some, 4, NULL, 0, NULL, NULL));
    assert_ok(sh_weights_read(path, &w));
    assert_int_equal(sh_weights_load(w, net, store, true, &report), SH_ERR_MISMATCH);
    assert_non_null(strstr(sh_error_message(), "_conv_stem.weight [6], needed [32, 3, 3, 3]"));
    assert_ok(sh_store_read(store, bn0, loaded));
    assert_true(loaded[0] == 1); /* untouched */
    assert_ok(sh_weights_load(w, net, store, false, &report));
    assert_ok(sh_store_read(store, bn0, loaded));
    assert_true(loaded[0] == 0);
    assert_int_equal(report.n_loaded, 1);
    assert_int_equal(report.n_misshaped, 1);
    assert_int_equal(report.n_extra, 2);
    assert_int_equal(report.n_missing, sh_store_n_slots(store) - 2);
    assert_non_null(strstr(report.text, "; missing: _bn0.bias, "));
    assert_non_null(strstr(report.text, " more"));
    sh_weights_destroy(&w);
    assert_ok(sh_weights_write(path, &some[2], 1, NULL, 0, NULL, NULL));
    assert_ok(sh_weights_read(path, &w));
    assert_int_equal(sh_weights_load(w, net, store, false, &report), SH_ERR_MISMATCH);
    assert_non_null(strstr(sh_error_message(), "nothing for efficientnet_lite0: missing"));
    sh_weights_destroy(&w);
    sh_store_destroy(&store);
    free((void *)some[1].data);
}

/* ViTs' public classifier is called what other networks' identification head is; here of its very
 * size, so that only the name tells. */
static void load__a_public_classifier_is_not_taken_for_the_head(void **state)
{
    static const char *const nets[] = {"vit_small_patch16_224", "vit_small_patch16_224_dino"};
    float *zeros = calloc(128 * 384, sizeof(*zeros));
    const sh_weight_out file[] = {{"norm.weight", SH_F32, 1, {384}, zeros},
                                  {"head.weight", SH_F32, 2, {128, 384}, zeros},
                                  {"head.bias", SH_F32, 1, {128}, zeros}};

    (void)state;
    assert_non_null(zeros);
    assert_ok(sh_weights_write(path, file, SH_COUNT(file), NULL, 0, NULL, NULL));
    for (size_t i = 0; i < SH_COUNT(nets); i++) {
        sh_store *store = make_store(nets[i]);
        int head = sh_store_find(store, "head.0.weight");
        sh_weights *w = NULL;
        sh_load_report report;
        float *loaded = malloc(128 * 384 * sizeof(*loaded));

        assert_true(head >= 0 && loaded != NULL);
        assert_ok(sh_store_init(store, 1));
        assert_ok(sh_weights_read(path, &w));
        assert_ok(sh_weights_load(w, find_net(nets[i]), store, false, &report));
        assert_int_equal(report.n_loaded, 1);
        assert_int_equal(report.n_misshaped, 0);
        assert_int_equal(report.n_extra, 2);
        assert_int_equal(report.n_missing, sh_store_n_slots(store) - 1);
        assert_ok(sh_store_read(store, head, loaded));
        assert_true(memcmp(loaded, zeros, 128 * 384 * sizeof(*zeros)) != 0);
        free(loaded);
        sh_weights_destroy(&w);
        sh_store_destroy(&store);
    }
    free(zeros);
}

/* Where scripts/get-weights has put it; skipped without. */
static void read__published_lite0_gives_the_trunk_all_it_needs(void **state)
{
    const char *source = getenv("SHOAL_SOURCE");
    char file[4096];
    sh_weights *w = NULL;
    sh_load_report report;

    (void)state;
    snprintf(file, sizeof(file), "%s/weights/efficientnet_lite0.pth",
             source != NULL ? source : ".");
    if (access(file, R_OK) != 0) skip();
    sh_store *store = make_store("efficientnet_lite0");

    assert_ok(sh_weights_read(file, &w));
    assert_ok(sh_weights_load(w, find_net("efficientnet_lite0"), store, false, &report));
    assert_int_equal(report.n_loaded, sh_store_n_slots(store) - 2);
    assert_int_equal(report.n_misshaped, 0);
    assert_int_equal(strncmp(report.text,
                             "missing: head.weight, head.bias; extra: _fc.weight [1000, 1280], "
                             "_fc.bias [1000], 49 counters num_batches_tracked",
                             sizeof(report.text)),
                     0);
    sh_weights_destroy(&w);
    sh_store_destroy(&store);
}

/* Features of a made-up image by the published network. */
static void compute_features(const char *backend_name, sh_weights *w, float *features)
{
    const sh_backend *backend = NULL;
    const sh_net *net = NULL;
    sh_store *store = NULL;
    sh_program *p = NULL;
    sh_buffer *arena = NULL;
    sh_load_report report;

    assert_ok(sh_backend_find(backend_name, &backend));
    assert_ok(sh_net_find("efficientnet_lite0", &net));
    assert_ok(sh_store_create(backend, &store));
    assert_ok(sh_program_create(
        &(sh_program_config){
            .backend = backend, .store = store, .dtype = SH_F32, .share = 1, .prefix = ""},
        &p));
    sh_value x = sh_program_input(p, "image", (const int64_t[]){1, 3, 96, 96});
    sh_value y = sh_program_output(p, "features", sh_net_embedding(p, net, x, &(sh_head){0}));

    assert_ok(sh_program_plan(p));
    assert_ok(sh_store_allocate(store));
    assert_ok(sh_weights_load(w, net, store, true, &report));
    assert_ok(backend->alloc(sh_program_arena_bytes(p), &arena));

    double *image = malloc(3 * 96 * 96 * sizeof(*image));

    assert_non_null(image);
    for (int i = 0; i < 3 * 96 * 96; i++)
        image[i] = sin(i % 96 / 7.0) * cos(i / 96 % 96 / 11.0 + i / 9216);
    write_value(p, arena, x, image);
    assert_ok(sh_program_run(p, SH_PHASE_CONSTANTS, &(sh_run_args){.arena = arena}));
    assert_ok(sh_program_run(p, SH_PHASE_FORWARD, &(sh_run_args){.arena = arena}));
    assert_ok(sh_program_read(p, arena, y, features));
    free(image);
    backend->free(&arena);
    sh_program_destroy(&p);
    sh_store_destroy(&store);
}

static void published_lite0__gives_equal_features_on_ref_and_cpu(void **state)
{
    enum { N = 1280 };
    const char *source = getenv("SHOAL_SOURCE");
    char file[4096];
    sh_weights *w = NULL;
    float ref[N], cpu[N];
    double difference = 0, size = 0;

    (void)state;
    snprintf(file, sizeof(file), "%s/weights/efficientnet_lite0.pth",
             source != NULL ? source : ".");
    if (access(file, R_OK) != 0) skip();
    assert_ok(sh_weights_read(file, &w));
    compute_features("ref", w, ref);
    compute_features("cpu", w, cpu);
    for (int i = 0; i < N; i++) {
        difference += ((double)ref[i] - cpu[i]) * ((double)ref[i] - cpu[i]);
        size += (double)ref[i] * ref[i];
    }
    assert_true(size > 1);
    assert_true(sqrt(difference / size) < 1e-4);
    sh_weights_destroy(&w);
}

/** What a ViT-S/16's position embedding of a 4x4 grid becomes for an image of 16 * height x 16 *
 *  width pixels; channel 0 was the row, channel 1 the column. */
static void load_positions(int64_t height, int64_t width, float positions[][384])
{
    const sh_backend *backend = NULL;
    sh_store *store = NULL;
    sh_program *p = NULL;
    sh_weights *w = NULL;
    static float grid[17][384];
    const sh_weight_out out = {"pos_embed", SH_F32, 3, {1, 17, 384}, grid};
    const sh_net *net = find_net("vit_small_patch16_224");
    sh_load_report report;

    for (int i = 0; i < 16; i++) {
        grid[1 + i][0] = (float)(i / 4);
        grid[1 + i][1] = (float)(i % 4);
        grid[1 + i][2] = 5;
    }
    grid[0][0] = -3; /* the class token's */
    assert_ok(sh_backend_find("ref", &backend));
    assert_ok(sh_store_create(backend, &store));
    const sh_program_config config = {
        .backend = backend, .store = store, .dtype = SH_F32, .share = 1, .prefix = ""};
    assert_ok(sh_program_create(&config, &p));
    sh_value x = sh_program_input(p, "image", (int64_t[4]){1, 3, 16 * height, 16 * width});
    sh_net_embedding(p, net, x, &(sh_head){.tap = "blocks.0"});
    sh_program_destroy(&p);
    assert_ok(sh_store_allocate(store));
    assert_ok(sh_weights_write(path, &out, 1, NULL, 0, NULL, NULL));
    assert_ok(sh_weights_read(path, &w));
    assert_ok(sh_weights_load(w, net, store, false, &report));
    assert_int_equal(report.n_misshaped, 0);
    assert_ok(sh_store_read(store, sh_store_find(store, "pos_embed"), positions[0]));
    sh_weights_destroy(&w);
    sh_store_destroy(&store);
}

static void load__resamples_positions_to_the_images_own_grid(void **state)
{
    enum { HEIGHT = 4, WIDTH = 9 }; /* 36 patches: not 6x6 */
    static float positions[1 + HEIGHT * WIDTH][384];

    (void)state;
    load_positions(HEIGHT, WIDTH, positions);
    assert_true(positions[0][0] == -3);
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            const float *at = positions[1 + y * WIDTH + x];

            assert_float_equal(at[0], y, 1e-6); /* as many rows as before */
            assert_float_equal(at[2], 5, 1e-6);
            /* Antisymmetric about the middle, and never falling. */
            assert_float_equal(at[1] + positions[1 + y * WIDTH + WIDTH - 1 - x][1], 3, 1e-5);
            if (x > 0) assert_true(at[1] >= positions[y * WIDTH + x][1]);
        }
    assert_float_equal(positions[1 + WIDTH / 2][1], 1.5, 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write__is_read_back_in_order_with_metadata),
        cmocka_unit_test(write__gives_the_same_bytes_twice),
        cmocka_unit_test(write__refuses_two_tensors_of_one_name),
        cmocka_unit_test(parse__refuses_headers_that_lie),
        cmocka_unit_test(parse__refuses_foreign_and_short_files),
        cmocka_unit_test(save__load_brings_every_weight_back),
        cmocka_unit_test(load__reports_what_does_not_fit_and_strictly_refuses_it),
        cmocka_unit_test(load__a_public_classifier_is_not_taken_for_the_head),
        cmocka_unit_test(load__resamples_positions_to_the_images_own_grid),
        cmocka_unit_test(read__published_lite0_gives_the_trunk_all_it_needs),
        cmocka_unit_test(published_lite0__gives_equal_features_on_ref_and_cpu),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
