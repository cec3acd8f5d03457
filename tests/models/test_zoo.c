// SPDX-License-Identifier: Apache-2.0
// timeout: 120
/** The networks' names, shapes, taps and heads. What they compute: test_ref_*.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "models/zoo/zoo.h"

#define assert_ok(call) assert_int_equal(call, SH_OK)

typedef struct fixture {
    sh_store *store;
    sh_program *p;
    sh_value image;
} fixture;

static void open_fixture(fixture *f, const sh_net *net)
{
    const sh_backend *backend = NULL;
    const int64_t size = net->default_size;

    *f = (fixture){0};
    assert_ok(sh_backend_find("ref", &backend));
    assert_ok(sh_store_create(backend, &f->store));
    assert_ok(sh_program_create(&(sh_program_config){.backend = backend,
                                                     .store = f->store,
                                                     .dtype = SH_F32,
                                                     .training = true,
                                                     .share = 1,
                                                     .prefix = ""},
                                &f->p));
    f->image = sh_program_input(f->p, "image", (int64_t[4]){2, net->in_channels, size, size});
}

static void close_fixture(fixture *f)
{
    sh_program_destroy(&f->p);
    sh_store_destroy(&f->store);
}

static const sh_net *find(const char *name)
{
    const sh_net *net = NULL;

    assert_ok(sh_net_find(name, &net));
    return net;
}

/* ---- names and shapes ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const sh_slot *const *)a)->name, (*(const sh_slot *const *)b)->name);
}

/** FNV-1a of the lines "name 64x3x7x7\n" of all slots, sorted by name. */
static uint64_t hash_slots(const sh_store *store)
{
    int n = sh_store_n_slots(store);
    const sh_slot **slots = malloc((size_t)n * sizeof(sh_slot *));
    uint64_t hash = SH_FNV1A_START;

    assert_non_null(slots);
    for (int i = 0; i < n; i++) slots[i] = sh_store_slot(store, i);
    qsort(slots, (size_t)n, sizeof(sh_slot *), by_name);
    for (int i = 0; i < n; i++) {
        char line[256];
        int length = snprintf(line, sizeof(line), "%s ", slots[i]->name);

        for (int k = 0; k < slots[i]->n_dims; k++)
            length += snprintf(line + length, sizeof(line) - (size_t)length, "%s%lld",
                               k == 0 ? "" : "x", (long long)slots[i]->dims[k]);
        line[length++] = '\n';
        hash = sh_fnv1a(hash, line, (size_t)length);
    }
    free(slots);
    return hash;
}

static int64_t n_weights(const sh_store *store)
{
    int64_t n = 0;

    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const sh_slot *slot = sh_store_slot(store, i);

        if (slot->kind == SH_SLOT_PARAM) n += slot->n_elems;
    }
    return n;
}

/* From the state dicts of the packages, without counters of batches; the auxiliary head of
 * Inception-v3 left out. */
static const struct {
    const char *net;
    int64_t n_weights; /* with the classifier of 1000 classes */
    int n_slots;
    uint64_t hash;
} published[] = {
    {"mobilenet_v2", 3504872, 262, 0xfb177d8f06753e7fu},
    {"mobilenet_v2_keras", 3504872, 262, 0xfb177d8f06753e7fu},
    {"mobilenet_v3_small", 2542856, 210, 0x77966c5e5da827edu},
    {"resnet50", 25557032, 267, 0x536158e742196701u},
    {"resnet101", 44549160, 522, 0xeedb88dea2cf077au},
    {"vgg16", 138357544, 32, 0xd903676470699f1au},
    {"vgg16_bn", 138365992, 84, 0xec160d1ebfad7723u},
    {"inception_v3", 23834568, 472, 0xb22bffc68d12bf75u},
    {"inception_v3_keras", 23834568, 472, 0xb22bffc68d12bf75u},
    {"inception_resnet_v2", 55843464, 1102, 0x1b3c9923cd84d6c4u},
    {"efficientnet_b0", 5288548, 311, 0x3c6996af42a459e6u},
    {"efficientnet_b5", 30389784, 738, 0xb0079ba29175ec29u},
    {"tf_efficientnet_b5", 30389784, 738, 0xf88b194cbff5f1c5u},
    {"siamese_orl", 40254465, 24, 0xb157f1ae3bddb769u},
};

static void network__has_the_names_and_shapes_of_its_package(void **state)
{
    (void)state;
    for (size_t i = 0; i < SH_COUNT(published); i++) {
        const sh_net *net = find(published[i].net);
        fixture f;

        open_fixture(&f, net);
        sh_net_classifier(f.p, net, f.image, 1000);
        if (n_weights(f.store) != published[i].n_weights ||
            sh_store_n_slots(f.store) != published[i].n_slots ||
            hash_slots(f.store) != published[i].hash)
            fail_msg("%s: %lld weights in %d slots, hash %016llx", net->name,
                     (long long)n_weights(f.store), sh_store_n_slots(f.store),
                     (unsigned long long)hash_slots(f.store));
        close_fixture(&f);
    }
}

static void network__has_the_features_that_it_says(void **state)
{
    (void)state;
    for (int i = 0; sh_net_list()[i] != NULL; i++) {
        const sh_net *net = sh_net_list()[i];
        int64_t dims[4];
        fixture f;

        open_fixture(&f, net);
        sh_program_dims(f.p, sh_net_embedding(f.p, net, f.image, &(sh_head){0}), dims);
        if (dims[1] != net->n_features || dims[2] * dims[3] != 1)
            fail_msg("%s: %lld features, not %d", net->name, (long long)dims[1], net->n_features);
        close_fixture(&f);
    }
}

/* ---- taps ---- */

/** Build to the tap; its slots must be the first ones of the whole network, and fewer at first. */
static int check_cut(const sh_net *net, const sh_tap *tap, const char *name, const fixture *whole)
{
    int64_t dims[4];
    fixture f;

    open_fixture(&f, net);
    sh_program_dims(f.p,
                    sh_net_embedding(f.p, net, f.image,
                                     &(sh_head){.tap = name, .pool = SH_POOL_FLATTEN, .dim = 0}),
                    dims);
    int n = sh_store_n_slots(f.store);

    if (dims[1] != tap->channels * tap->height * tap->width)
        fail_msg("%s at %s: %lld elements", net->name, name, (long long)dims[1]);
    for (int i = 0; i < n; i++)
        assert_string_equal(sh_store_slot(f.store, i)->name, sh_store_slot(whole->store, i)->name);
    close_fixture(&f);
    return n;
}

static void tap__cuts_the_network_behind_it(void **state)
{
    (void)state;
    for (int i = 0; sh_net_list()[i] != NULL; i++) {
        const sh_net *net = sh_net_list()[i];
        sh_tap *taps = NULL;
        int n_taps = 0, n_slots = 0;
        fixture whole;

        assert_ok(sh_net_taps(net, &taps, &n_taps));
        assert_in_range(n_taps, 3, 200);
        open_fixture(&whole, net);
        sh_net_classifier(whole.p, net, whole.image, 10);
        for (int k = 0; k < n_taps; k++) {
            for (int j = 0; j < k; j++) assert_string_not_equal(taps[j].name, taps[k].name);
            if (k % 4 != 0 && k != n_taps - 1) continue; /* building them all takes long */
            int n = check_cut(net, &taps[k], taps[k].name, &whole);

            assert_true(n >= n_slots && n <= sh_store_n_slots(whole.store));
            n_slots = n;
        }
        close_fixture(&whole);
        free(taps);
    }
}

static void alias__names_a_tap(void **state)
{
    (void)state;
    for (int i = 0; sh_net_list()[i] != NULL; i++) {
        const sh_net *net = sh_net_list()[i];

        for (const sh_tap_alias *a = net->aliases; a != NULL && a->alias != NULL; a++)
            assert_ok(sh_net_check_tap(net, a->alias));
    }
    /* The places where published experiments cut, and their sizes at 224 pixels. */
    static const struct {
        const char *net, *tap;
        int64_t channels, side;
    } cuts[] = {{"mobilenet_v2_keras", "block_10_project_BN", 96, 14},
                {"resnet101_v2", "conv4_block23_out", 1024, 7},
                {"vgg16", "features.30", 512, 7},
                {"resnet101", "layer3", 1024, 14}};

    for (size_t i = 0; i < SH_COUNT(cuts); i++) {
        const sh_net *net = find(cuts[i].net);
        int64_t dims[4];
        fixture f;

        open_fixture(&f, net);
        sh_program_dims(f.p,
                        sh_net_embedding(f.p, net, f.image,
                                         &(sh_head){.tap = cuts[i].tap, .pool = SH_POOL_FLATTEN}),
                        dims);
        assert_int_equal(dims[1], cuts[i].channels * cuts[i].side * cuts[i].side);
        close_fixture(&f);
    }
}

static void unknown_tap__is_refused_with_the_list(void **state)
{
    const sh_net *net = find("resnet50");
    fixture f;

    (void)state;
    assert_int_equal(sh_net_check_tap(net, "layer5"), SH_ERR_USAGE);
    assert_non_null(strstr(sh_error_message(), "layer3.5"));
    open_fixture(&f, net);
    sh_net_embedding(f.p, net, f.image, &(sh_head){.tap = "layer5"});
    assert_int_equal(sh_program_plan(f.p), SH_ERR_USAGE);
    assert_non_null(strstr(sh_error_message(), "layer5"));
    close_fixture(&f);
}

/* ---- heads ---- */

static void assert_slot(const fixture *f, const char *name, int64_t rows, int64_t columns)
{
    int index = sh_store_find(f->store, name);

    if (index < 0) fail_msg("no %s", name);
    assert_int_equal(sh_store_slot(f->store, index)->dims[0], rows);
    if (columns > 0) assert_int_equal(sh_store_slot(f->store, index)->dims[1], columns);
}

static void head__has_its_layers_in_order(void **state)
{
    const sh_net *net = find("mobilenet_v2");
    const sh_head head = {.tap = "features.11",
                          .pool = SH_POOL_FLATTEN,
                          .dropout = 0.5f,
                          .n_hidden = 2,
                          .hidden = {256, 100},
                          .act = SH_ACT_RELU,
                          .dim = 64,
                          .bn_neck = true,
                          .normalize = true};
    int64_t dims[4];
    fixture f;

    (void)state;
    open_fixture(&f, net);
    sh_program_dims(f.p, sh_net_embedding(f.p, net, f.image, &head), dims);
    assert_int_equal(dims[1], 64);
    assert_slot(&f, "head.0.weight", 256, 96 * 14 * 14);
    assert_slot(&f, "head.1.weight", 100, 256);
    assert_slot(&f, "head.2.weight", 64, 100);
    assert_slot(&f, "neck.weight", 64, 0);
    assert_slot(&f, "neck.running_var", 64, 0);
    assert_int_equal(sh_store_find(f.store, "features.12.conv.0.0.weight"), -1);
    close_fixture(&f);
}

static void head__is_one_layer_by_its_plain_name(void **state)
{
    const sh_net *net = find("resnet50");
    fixture f;

    (void)state;
    open_fixture(&f, net);
    sh_net_embedding(f.p, net, f.image, &(sh_head){.pool = SH_POOL_GEM, .dim = 128});
    assert_slot(&f, "head.weight", 128, 2048);
    assert_slot(&f, "head.bias", 128, 0);
    assert_slot(&f, "pool.p", 1, 0);
    assert_int_equal(sh_store_find(f.store, "head.0.weight"), -1);
    assert_int_equal(sh_store_find(f.store, "fc.weight"), -1);
    close_fixture(&f);
}

static void head__takes_no_name_of_a_public_network(void **state)
{
    static const sh_head heads[] = {
        {.dim = 8, .bn_neck = true},
        {.n_hidden = 1, .hidden = {8}, .act = SH_ACT_RELU, .dim = 8, .bn_neck = true},
    };

    (void)state;
    for (int i = 0; sh_net_list()[i] != NULL; i++) {
        const sh_net *net = sh_net_list()[i];
        fixture whole, trunk;

        open_fixture(&whole, net);
        sh_net_classifier(whole.p, net, whole.image, 8);
        open_fixture(&trunk, net);
        sh_net_embedding(trunk.p, net, trunk.image, &(sh_head){0});
        for (size_t h = 0; h < SH_COUNT(heads); h++) {
            fixture f;

            open_fixture(&f, net);
            sh_net_embedding(f.p, net, f.image, &heads[h]);
            int first = sh_store_n_slots(trunk.store), n = sh_store_n_slots(f.store);

            assert_true(n >= first + 6);
            for (int k = first; k < n; k++)
                if (sh_store_find(whole.store, sh_store_slot(f.store, k)->name) >= 0)
                    fail_msg("%s: a head's %s", net->name, sh_store_slot(f.store, k)->name);
            close_fixture(&f);
        }
        close_fixture(&trunk);
        close_fixture(&whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(network__has_the_names_and_shapes_of_its_package),
        cmocka_unit_test(network__has_the_features_that_it_says),
        cmocka_unit_test(tap__cuts_the_network_behind_it),
        cmocka_unit_test(alias__names_a_tap),
        cmocka_unit_test(unknown_tap__is_refused_with_the_list),
        cmocka_unit_test(head__has_its_layers_in_order),
        cmocka_unit_test(head__is_one_layer_by_its_plain_name),
        cmocka_unit_test(head__takes_no_name_of_a_public_network),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
