// SPDX-License-Identifier: Apache-2.0
/** Keras files, as the HDF5 library writes them; names of other packages; position embeddings. */
#include "weight_files.h"

#include <hdf5.h>
#include <math.h>
#include <unistd.h>

#include "base/file.h"
#include "models/weights/alias.h"
#include "models/weights/recognise.h"

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) != SH_OK) fail_msg("%s: %s", #call, sh_error_message());                        \
    } while (0)

static char folder[] = "/tmp/shoal_keras_XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL) return -1;
    snprintf(path, sizeof(path), "%s/w.h5", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return sh_file_remove_tree(folder) == SH_OK ? 0 : -1;
}

/* ---- writing ---- */

/* A dataset whose i-th element is i, with the groups before it. */
static void put_dataset(hid_t file, const char *name, int n_dims, const hsize_t *dims, hid_t create)
{
    float values[4096];
    hid_t links = H5Pcreate(H5P_LINK_CREATE);
    hid_t space = H5Screate_simple(n_dims, dims, NULL);

    for (int i = 0; i < 4096; i++) values[i] = (float)i;
    assert_true(H5Pset_create_intermediate_group(links, 1) >= 0);

    hid_t set = H5Dcreate2(file, name, H5T_IEEE_F32LE, space, links, create, H5P_DEFAULT);

    assert_true(set >= 0);
    assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(links);
}

static hid_t create_file(void)
{
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);

    assert_true(file >= 0);
    return file;
}

static sh_weights *read_file(void)
{
    sh_weights *w = NULL;

    assert_ok(sh_weights_read(path, &w));
    return w;
}

static float element(const sh_weights *w, const char *name, int64_t at)
{
    const sh_weight *found = sh_weights_find(w, name);

    if (found == NULL) fail_msg("no tensor %s", name);
    assert_true(at < found->n_elems);
    return found->data[at];
}

/* ---- reading ---- */

static void h5__kernels_are_put_in_pytorchs_order(void **state)
{
    hid_t file = create_file();

    (void)state;
    put_dataset(file, "conv/conv/kernel:0", 4, (const hsize_t[]){2, 3, 5, 7}, H5P_DEFAULT);
    put_dataset(file, "conv/conv/bias:0", 1, (const hsize_t[]){7}, H5P_DEFAULT);
    put_dataset(file, "dw/dw/depthwise_kernel:0", 4, (const hsize_t[]){2, 3, 5, 1}, H5P_DEFAULT);
    put_dataset(file, "fc/fc/kernel:0", 2, (const hsize_t[]){4, 6}, H5P_DEFAULT);
    put_dataset(file, "old/old_W_1:0", 2, (const hsize_t[]){4, 6}, H5P_DEFAULT);
    H5Fclose(file);

    sh_weights *w = read_file();
    const sh_weight *conv = sh_weights_find(w, "conv.weight");

    assert_non_null(conv);
    assert_int_equal(conv->dims[0], 7);
    assert_int_equal(conv->dims[1], 5);
    assert_int_equal(conv->dims[2], 2);
    assert_int_equal(conv->dims[3], 3);
    /* [o, i, y, x] was ((y 3 + x) 5 + i) 7 + o */
    assert_true(element(w, "conv.weight", ((6 * 5 + 4) * 2 + 1) * 3 + 2) ==
                ((1 * 3 + 2) * 5 + 4) * 7 + 6);
    assert_true(element(w, "conv.weight", ((2 * 5 + 3) * 2 + 0) * 3 + 1) ==
                ((0 * 3 + 1) * 5 + 3) * 7 + 2);
    assert_true(element(w, "dw.weight", (3 * 2 + 1) * 3 + 2) == (1 * 3 + 2) * 5 + 3);
    assert_int_equal(sh_weights_find(w, "dw.weight")->dims[1], 1);
    assert_true(element(w, "fc.weight", 5 * 4 + 3) == 3 * 6 + 5);
    assert_true(element(w, "old.weight", 5 * 4 + 3) == 3 * 6 + 5);
    assert_true(element(w, "conv.bias", 6) == 6);
    sh_weights_destroy(&w);
}

static void h5__a_norm_without_gamma_gets_ones(void **state)
{
    hid_t file = create_file();

    (void)state;
    put_dataset(file, "model_weights/bn/bn/beta:0", 1, (const hsize_t[]){3}, H5P_DEFAULT);
    put_dataset(file, "model_weights/bn/bn/moving_mean:0", 1, (const hsize_t[]){3}, H5P_DEFAULT);
    put_dataset(file, "model_weights/bn/bn/moving_variance:0", 1, (const hsize_t[]){3},
                H5P_DEFAULT);
    put_dataset(file, "optimizer_weights/bn/beta:0", 1, (const hsize_t[]){3}, H5P_DEFAULT);
    H5Fclose(file);

    sh_weights *w = read_file();

    assert_int_equal(sh_weights_count(w), 4);
    assert_true(element(w, "bn.weight", 2) == 1);
    assert_true(element(w, "bn.bias", 2) == 2);
    assert_true(element(w, "bn.running_mean", 1) == 1);
    assert_true(element(w, "bn.running_var", 2) == 2);
    sh_weights_destroy(&w);
}

static void h5__hundreds_of_layers_are_all_found(void **state)
{
    enum { N = 700 }; /* the group's tree has several levels and leaves */
    hid_t file = create_file();
    char name[64];

    (void)state;
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "layer_%d/layer_%d/bias:0", i, i);
        put_dataset(file, name, 1, (const hsize_t[]){(hsize_t)(1 + i % 5)}, H5P_DEFAULT);
    }
    H5Fclose(file);

    sh_weights *w = read_file();

    assert_int_equal(sh_weights_count(w), N);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "layer_%d.bias", i);
        assert_int_equal(sh_weights_find(w, name)->n_elems, 1 + i % 5);
    }
    sh_weights_destroy(&w);
}

static void h5__what_is_not_read_is_refused_by_name(void **state)
{
    hid_t file = create_file(), create = H5Pcreate(H5P_DATASET_CREATE);
    sh_weights *w = NULL;

    (void)state;
    assert_true(H5Pset_chunk(create, 1, (const hsize_t[]){2}) >= 0);
    put_dataset(file, "a/a/bias:0", 1, (const hsize_t[]){6}, create);
    H5Fclose(file);
    H5Pclose(create);
    assert_int_equal(sh_weights_read(path, &w), SH_ERR_UNSUPPORTED);
    assert_non_null(strstr(sh_error_message(), path));
    assert_non_null(strstr(sh_error_message(), "a/a/bias:0"));

    hid_t access = H5Pcreate(H5P_FILE_ACCESS);

    assert_true(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0);
    file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    put_dataset(file, "a/a/bias:0", 1, (const hsize_t[]){6}, H5P_DEFAULT);
    H5Fclose(file);
    H5Pclose(access);
    assert_int_equal(sh_weights_read(path, &w), SH_ERR_UNSUPPORTED);
    assert_non_null(strstr(sh_error_message(), "h5py"));
}

static void h5__survives_truncation_and_damage_anywhere(void **state)
{
    hid_t file = create_file();
    char *data = NULL;
    size_t n = 0;
    int n_refused = 0;

    (void)state;
    put_dataset(file, "a/a/kernel:0", 2, (const hsize_t[]){2, 3}, H5P_DEFAULT);
    put_dataset(file, "b/b/bias:0", 1, (const hsize_t[]){3}, H5P_DEFAULT);
    H5Fclose(file);
    assert_ok(sh_file_get(path, 1 << 20, &data, &n));
    for (size_t i = 0; i < n; i += 1 + i / 2000) {
        sh_weights *w = NULL;
        char kept = data[i];

        n_refused += sh_weights_parse(data, i, "cut", &w) != SH_OK;
        sh_weights_destroy(&w);
        for (int flip = 1; flip < 256; flip = 3 * flip + 1) {
            data[i] = (char)(kept ^ flip);
            n_refused += sh_weights_parse(data, n, "damaged", &w) != SH_OK;
            sh_weights_destroy(&w);
        }
        data[i] = kept;
    }
    assert_true(n_refused > 500);
    free(data);
}

/* ---- names ---- */

/* One tensor of each name, without content. */
static sh_weights *named(int n, const char *const *names)
{
    sh_weight_out tensors[16];
    sh_weights *w = NULL;
    char file[96];

    for (int i = 0; i < n; i++)
        tensors[i] = (sh_weight_out){.name = names[i], .dtype = SH_F32, .n_dims = 1, .dims = {0}};
    snprintf(file, sizeof(file), "%s/names.safetensors", folder);
    assert_ok(sh_weights_write(file, tensors, n, NULL, 0, NULL, NULL));
    assert_ok(sh_weights_read(file, &w));
    return w;
}

static void translate__follows_each_tables_rules(void **state)
{
    static const struct {
        const char *net, *source, *from, *to;
    } cases[] = {
        {"mobilenet_v2_keras", "Keras", "block_12_project_BN.running_var",
         "features.13.conv.3.running_var"},
        {"mobilenet_v2", "timm", "blocks.3.2.conv_dw.weight", "features.9.conv.1.0.weight"},
        {"tf_efficientnet_b0", "Keras", "block6d_se_expand.bias", "_blocks.14._se_expand.bias"},
        {"tf_efficientnet_b5", "timm", "blocks.6.2.bn3.weight", "_blocks.38._bn2.weight"},
        {"efficientnet_b0", "timm", "blocks.0.0.se.conv_reduce.bias",
         "features.1.0.block.1.fc1.bias"},
        {"inception_resnet_v2", "Keras", "block8_10_conv.bias", "block8.conv2d.bias"},
        {"inception_resnet_v2", "Keras", "block8_3_conv.bias", "repeat_2.2.conv2d.bias"},
        {"inception_resnet_v2", "Cadene", "last_linear.weight", "classif.weight"},
        {"vgg16", "Keras", "block4_conv2.weight", "features.19.weight"},
        {"vgg16", "Keras", "unheard_of.weight", "unheard_of.weight"},
    };
    char name[SH_ALIAS_NAME];

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        const sh_alias *a = sh_alias_list();
        sh_weights *w = named(1, &cases[i].from);

        while (a->net != NULL &&
               (strcmp(a->net, cases[i].net) != 0 || strcmp(a->source, cases[i].source) != 0))
            a++;
        assert_non_null(a->net);
        sh_alias_translate(a, cases[i].from, w, name);
        assert_string_equal(name, cases[i].to);
        sh_weights_destroy(&w);
    }
}

static void translate__numbers_of_layers_count_from_whatever_they_begin_with(void **state)
{
    static const char *const names[] = {"conv2d_190.weight", "conv2d_189.weight",
                                        "conv2d_1001.weight", "batch_normalization_5.weight",
                                        "batch_normalization.weight"};
    static const char *const ours[] = {"Conv2d_2a_3x3.conv.weight", "Conv2d_1a_3x3.conv.weight",
                                       "Conv2d_2b_3x3.conv.weight", "Conv2d_2a_3x3.bn.weight",
                                       "Conv2d_1a_3x3.bn.weight"};
    const sh_alias *a = sh_alias_list();
    sh_weights *w = named((int)SH_COUNT(names), names);
    char name[SH_ALIAS_NAME];

    (void)state;
    while (strcmp(a->net, "inception_v3_keras") != 0) a++;
    for (size_t i = 0; i < SH_COUNT(names); i++) {
        sh_alias_translate(a, names[i], w, name);
        assert_string_equal(name, ours[i]);
    }
    sh_weights_destroy(&w);
}

static void prefix__is_dropped_where_most_names_have_it(void **state)
{
    static const char *const names[] = {"model.backbone.a", "model.backbone.b", "model.backbone.c",
                                        "model.neck.w", "final.weight"};
    sh_weights *w = named((int)SH_COUNT(names), names);

    (void)state;
    assert_non_null(sh_weights_find(w, "a"));
    assert_non_null(sh_weights_find(w, "neck.w"));
    assert_non_null(sh_weights_find(w, "final.weight"));
    sh_weights_destroy(&w);
}

/* ---- networks ---- */

static void recognise__finds_the_network_of_its_own_names(void **state)
{
    sh_store *store = NULL;
    const sh_net *net = NULL;
    sh_weights *w = NULL;
    sh_recognised found;
    char file[96];

    (void)state;
    snprintf(file, sizeof(file), "%s/net.safetensors", folder);
    assert_ok(sh_net_find("mobilenet_v2", &net));
    assert_ok(sh_weights_slots_of(net, 7, &store));
    assert_ok(sh_store_allocate(store));
    assert_ok(sh_weights_save(file, store, NULL, 0, NULL, NULL));
    assert_ok(sh_weights_read(file, &w));
    assert_ok(sh_weights_recognise(w, NULL, &found));
    assert_ptr_equal(found.net, net);
    assert_int_equal(found.n_classes, 7);
    assert_int_equal(found.n_tensors, sh_store_n_slots(store));
    assert_string_equal(found.names_of, "");
    assert_int_equal(sh_weights_recognise(w, "siamese_orl", &found), SH_ERR_MISMATCH);
    sh_weights_destroy(&w);
    sh_store_destroy(&store);
}

/* A file with every tensor of a network, all zero. */
static void write_zeros(const char *file, const sh_net *net)
{
    sh_store *store = NULL;
    sh_weight_out *tensors = NULL;
    int64_t largest = 0;
    size_t n = 0;
    uint16_t *zeros = NULL;

    assert_ok(sh_weights_slots_of(net, 1000, &store));
    n = (size_t)sh_store_n_slots(store);
    for (int i = 0; i < (int)n; i++)
        if (sh_store_slot(store, i)->n_elems > largest) largest = sh_store_slot(store, i)->n_elems;
    tensors = calloc(n, sizeof(*tensors));
    zeros = calloc((size_t)largest, sizeof(*zeros));
    assert_true(tensors != NULL && zeros != NULL);
    for (int i = 0; i < (int)n; i++) {
        const sh_slot *slot = sh_store_slot(store, i);

        tensors[i] = (sh_weight_out){
            .name = slot->name, .dtype = SH_BF16, .n_dims = slot->n_dims, .data = zeros};
        memcpy(tensors[i].dims, slot->dims, sizeof(slot->dims));
    }
    assert_ok(sh_weights_write(file, tensors, (int64_t)n, NULL, 0, NULL, NULL));
    free(zeros);
    free(tensors);
    sh_store_destroy(&store);
}

/* timm's B5 has other batch norm constants than torchvision's, and than the TensorFlow models. */
static void recognise__knows_timms_b5_from_the_others(void **state)
{
    const sh_net *timm = NULL, *torchvision = NULL;
    sh_store *store = NULL;
    sh_weights *w = NULL;
    sh_load_report report;
    sh_recognised found;
    char file[96];

    (void)state;
    snprintf(file, sizeof(file), "%s/b5.safetensors", folder);
    assert_ok(sh_net_find("timm_efficientnet_b5", &timm));
    assert_ok(sh_net_find("efficientnet_b5", &torchvision));
    write_zeros(file, timm);
    assert_ok(sh_weights_read(file, &w));
    assert_ok(sh_weights_recognise(w, NULL, &found));
    assert_ptr_equal(found.net, timm);
    assert_string_equal(found.names_of, "");
    assert_string_equal(found.others, "tf_efficientnet_b5");
    assert_int_equal(sh_weights_recognise(w, "efficientnet_b5", &found), SH_ERR_MISMATCH);
    assert_ok(sh_weights_slots_of(torchvision, 1000, &store));
    assert_int_equal(sh_weights_load(w, torchvision, store, false, &report), SH_ERR_MISMATCH);
    assert_non_null(strstr(sh_error_message(), "give net=timm_efficientnet_b5"));
    sh_weights_destroy(&w);
    sh_store_destroy(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(h5__kernels_are_put_in_pytorchs_order),
        cmocka_unit_test(h5__a_norm_without_gamma_gets_ones),
        cmocka_unit_test(h5__hundreds_of_layers_are_all_found),
        cmocka_unit_test(h5__what_is_not_read_is_refused_by_name),
        cmocka_unit_test(h5__survives_truncation_and_damage_anywhere),
        cmocka_unit_test(translate__follows_each_tables_rules),
        cmocka_unit_test(translate__numbers_of_layers_count_from_whatever_they_begin_with),
        cmocka_unit_test(prefix__is_dropped_where_most_names_have_it),
        cmocka_unit_test(recognise__finds_the_network_of_its_own_names),
        cmocka_unit_test(recognise__knows_timms_b5_from_the_others),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
