// SPDX-License-Identifier: Apache-2.0
/** PyTorch files in both containers: what is read, and what is refused and how. */
#include "weight_files.h"

#include <math.h>
#include <stdio.h>

#include "base/file.h"

static const float six[6] = {1, 2, 3, 4, 5, 6};
static const int64_t counter = 41;

/* A plain matrix, its transpose over the same storage, a column of it, and a counter. */
static const tensor_spec tensors[] = {
    {"a.weight", "FloatStorage", "0", 6, 0, 2, {2, 3}, {3, 1}},
    {"a.transposed", "FloatStorage", "0", 6, 0, 2, {3, 2}, {1, 3}},
    {"a.column", "FloatStorage", "0", 6, 1, 1, {2}, {3}},
    {"a.num_batches_tracked", "LongStorage", "1", 1, 0, 0, {0}, {0}},
};
static const storage_spec storages[] = {{"0", 4, 6, six}, {"1", 8, 1, &counter}};
enum { N_TENSORS = SH_COUNT(tensors), N_STORAGES = SH_COUNT(storages) };

static void assert_elements(const sh_weights *w, const char *name, int64_t n, const float *expected)
{
    const sh_weight *t = sh_weights_find(w, name);

    assert_non_null(t);
    assert_int_equal(t->n_elems, n);
    assert_memory_equal(t->data, expected, (size_t)n * sizeof(*expected));
}

/* Reads b, which must hold the tensors above, and frees it. */
static void assert_holds_tensors(bytes *b)
{
    sh_weights *w = NULL;

    if (sh_weights_parse(b->data, b->n, "file", &w) != SH_OK) fail_msg("%s", sh_error_message());
    assert_int_equal(sh_weights_count(w), N_TENSORS);
    assert_elements(w, "a.weight", 6, six);
    assert_elements(w, "a.transposed", 6, (const float[]){1, 4, 2, 5, 3, 6});
    assert_elements(w, "a.column", 2, (const float[]){2, 5});
    assert_elements(w, "a.num_batches_tracked", 1, (const float[]){41});
    assert_int_equal(sh_weights_find(w, "a.num_batches_tracked")->n_dims, 0);
    assert_string_equal(sh_weights_get(w, 0)->name, "a.weight"); /* in the order of the file */
    assert_null(sh_weights_find(w, "a.weigh"));
    assert_null(sh_weights_metadata(w, "anything"));
    sh_weights_destroy(&w);
    assert_null(w);
    free_bytes(b);
}

/* Reads b, which must fail with `status` and a message that contains `says`, and frees it. */
static void assert_refused(bytes *b, sh_status status, const char *says)
{
    sh_weights *w = NULL;
    sh_status st = sh_weights_parse(b->data, b->n, "file", &w);

    if (st != status || strstr(sh_error_message(), says) == NULL)
        fail_msg("expected %s with '%s', got %s: %s", sh_status_name(status), says,
                 sh_status_name(st), st == SH_OK ? "" : sh_error_message());
    assert_null(w);
    free_bytes(b);
}

static void parse__reads_zip_files_stored_deflated_and_zip64(void **state)
{
    (void)state;
    for (int style = 0; style < 4; style++) {
        bytes pickle = make_pickle(N_TENSORS, tensors, false, NULL);
        bytes b = make_zip_pth(&pickle, N_STORAGES, storages,
                               (zip_style){.deflate = style & 1, .zip64 = style & 2});

        free_bytes(&pickle);
        assert_holds_tensors(&b);
    }
}

static void parse__reads_legacy_files(void **state)
{
    bytes pickle = make_pickle(N_TENSORS, tensors, true, NULL);
    bytes b = make_legacy_pth(&pickle, N_STORAGES, storages);

    (void)state;
    free_bytes(&pickle);
    assert_holds_tensors(&b);
}

static void parse__finds_the_state_dict_in_a_checkpoint(void **state)
{
    static const char *const wrappers[] = {"state_dict", "model_state_dict", "model"};

    (void)state;
    for (size_t i = 0; i < SH_COUNT(wrappers); i++) {
        bytes pickle = make_pickle(N_TENSORS, tensors, false, wrappers[i]);
        bytes b = make_zip_pth(&pickle, N_STORAGES, storages, (zip_style){0});

        free_bytes(&pickle);
        assert_holds_tensors(&b);
    }
}

static void parse__drops_a_common_module_prefix_only(void **state)
{
    tensor_spec t[2] = {{"module.x", "FloatStorage", "0", 6, 0, 1, {6}, {1}},
                        {"module.y", "FloatStorage", "0", 6, 0, 1, {6}, {1}}};

    (void)state;
    for (int common = 0; common < 2; common++) {
        sh_weights *w = NULL;

        if (!common) t[1].name = "other.y";
        if (common) t[1].name = "module.y";
        bytes pickle = make_pickle(2, t, false, NULL);
        bytes b = make_zip_pth(&pickle, 1, storages, (zip_style){0});

        assert_int_equal(sh_weights_parse(b.data, b.n, "file", &w), SH_OK);
        assert_non_null(sh_weights_find(w, common ? "x" : "module.x"));
        assert_non_null(sh_weights_find(w, common ? "y" : "other.y"));
        sh_weights_destroy(&w);
        free_bytes(&pickle);
        free_bytes(&b);
    }
}

/* One case per row: a storage class, two stored elements, and their values. */
static void parse__converts_every_element_type(void **state)
{
    static const struct {
        const char *storage_class;
        size_t elem_bytes;
        uint8_t stored[16];
        float values[2];
    } cases[] = {
        {"FloatStorage", 4, {0, 0, 0x20, 0xC0, 0, 0, 0x80, 0x3F}, {-2.5f, 1}},
        {"DoubleStorage", 8, {0, 0, 0, 0, 0, 0, 4, 0xC0, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F}, {-2.5f, 1}},
        {"HalfStorage", 2, {0, 0xC1, 1, 0}, {-2.5f, 0x1p-24f}},
        {"HalfStorage", 2, {0, 0x7C, 0xFF, 0x7B}, {INFINITY, 65504}},
        {"BFloat16Storage", 2, {0x20, 0xC0, 0x80, 0x3F}, {-2.5f, 1}},
        {"LongStorage", 8, {0xFE, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 1}, {-2, 0x1p32f}},
        {"IntStorage", 4, {0xFE, 255, 255, 255, 0, 0, 1, 0}, {-2, 65536}},
        {"ShortStorage", 2, {0xFE, 255, 0, 1}, {-2, 256}},
        {"CharStorage", 1, {0xFE, 127}, {-2, 127}},
        {"ByteStorage", 1, {0xFE, 127}, {254, 127}},
        {"BoolStorage", 1, {0, 1}, {0, 1}},
    };

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        const tensor_spec t = {"x", cases[i].storage_class, "0", 2, 0, 1, {2}, {1}};
        const storage_spec s = {"0", cases[i].elem_bytes, 2, cases[i].stored};
        bytes pickle = make_pickle(1, &t, false, NULL);
        bytes b = make_zip_pth(&pickle, 1, &s, (zip_style){0});
        sh_weights *w = NULL;

        if (sh_weights_parse(b.data, b.n, "file", &w) != SH_OK)
            fail_msg("%s: %s", cases[i].storage_class, sh_error_message());
        assert_elements(w, "x", 2, cases[i].values);
        sh_weights_destroy(&w);
        free_bytes(&pickle);
        free_bytes(&b);
    }
}

/* ---- refusals ---- */

static bytes zip_of_pickle(const char *text, size_t n)
{
    const bytes pickle = {.data = (uint8_t *)text, .n = n};

    return make_zip_pth(&pickle, N_STORAGES, storages, (zip_style){0});
}

static void parse__refuses_every_other_pickle_by_name(void **state)
{
    static const struct {
        const char *pickle;
        sh_status status;
        const char *says;
    } cases[] = {
        {"\x80\x02"
         "cposix\nsystem\nX\4\0\0\0true\x85R.",
         SH_ERR_UNSUPPORTED, "posix.system"},
        {"\x80\x02"
         "ctorch\nload\n.",
         SH_ERR_UNSUPPORTED, "torch.load"},
        {"\x80\x02"
         "ccollections\nOrderedDict\n)\x81.",
         SH_ERR_UNSUPPORTED, "0x81"},
        {"\x80\x02"
         "(I1\nicos\nsystem\n.",
         SH_ERR_UNSUPPORTED, "0x49"},
        {"\x80\x04"
         "}.",
         SH_ERR_UNSUPPORTED, "protocol 4"},
        {"\x80\x02"
         "].",
         SH_ERR_FORMAT, "something else than a dictionary"},
        {"\x80\x02"
         "}.",
         SH_ERR_FORMAT, "holds no tensors"},
        {"\x80\x02"
         "}q",
         SH_ERR_FORMAT, "truncated"},
        {"\x80\x02"
         ".",
         SH_ERR_FORMAT, "stack is empty"},
        {"\x80\x02"
         "}u.",
         SH_ERR_FORMAT, "no mark"},
        {"\x80\x02"
         "}(Nu.",
         SH_ERR_FORMAT, "a key without a value"},
        {"\x80\x02"
         "h\5.",
         SH_ERR_FORMAT, "memo 5"},
        {"\x80\x02"
         "}Nb.",
         SH_ERR_FORMAT, "holds no tensors"},
        {"\x80\x02"
         "NNb.",
         SH_ERR_FORMAT, "something else"},
        {"\x80\x02"
         "NNR.",
         SH_ERR_FORMAT, "a call of something else"},
        {"\x80\x02"
         "NQ.",
         SH_ERR_FORMAT, "5 or 6 values"},
        {"\x80\x02"
         "ctorch._utils\n_rebuild_tensor_v2\n)R.",
         SH_ERR_FORMAT, "a tensor is not"},
        {"\x80\x02"
         "ctorch._utils\n_rebuild_parameter\n)R.",
         SH_ERR_FORMAT, "without a tensor"},
    };

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        bytes b = zip_of_pickle(cases[i].pickle, strlen(cases[i].pickle));

        assert_refused(&b, cases[i].status, cases[i].says);
    }
    /* A dictionary that is its own state_dict must not be walked for ever. */
    bytes b = zip_of_pickle("\x80\x02}q\1X\12\0\0\0state_dicth\1s.", 25);

    assert_refused(&b, SH_ERR_FORMAT, "holds no tensors");
}

static void parse__refuses_tensors_outside_their_storage(void **state)
{
    static const struct {
        tensor_spec tensor;
        const char *says;
    } cases[] = {
        {{"x", "FloatStorage", "0", 6, 0, 1, {7}, {1}}, "reaches element 6"},
        {{"x", "FloatStorage", "0", 6, 6, 1, {1}, {1}}, "reaches element 6"},
        {{"x", "FloatStorage", "0", 6, 1, 2, {2, 3}, {3, 1}}, "reaches element 6"},
        {{"x", "FloatStorage", "0", 6, -1, 1, {2}, {1}}, "negative"},
        {{"x", "FloatStorage", "0", 6, 0, 1, {-1}, {1}}, "negative"},
        {{"x", "FloatStorage", "0", 6, 5, 1, {2}, {-1}}, "negative"},
        {{"x", "FloatStorage", "0", 7, 0, 1, {6}, {1}}, "should have 7 elements"},
        {{"x", "DoubleStorage", "0", 6, 0, 1, {6}, {1}}, "should have 6 elements"},
        {{"x", "FloatStorage", "7", 6, 0, 1, {6}, {1}}, "storage '7' is missing"},
        {{"x", "FloatStorage", "0", 6, 0, 3, {1 << 30, 1 << 30, 1 << 30}, {1, 1, 1}}, "impossible"},
        {{"x", "FloatStorage", "0", 6, 0, 1, {1 << 30}, {0}}, "much more memory"},
    };

    (void)state;
    for (size_t i = 0; i < SH_COUNT(cases); i++) {
        bytes pickle = make_pickle(1, &cases[i].tensor, false, NULL);
        bytes b = make_zip_pth(&pickle, N_STORAGES, storages, (zip_style){0});

        free_bytes(&pickle);
        assert_refused(&b, SH_ERR_FORMAT, cases[i].says);
    }
}

static void parse__refuses_one_storage_described_twice(void **state)
{
    const tensor_spec t[2] = {{"x", "FloatStorage", "0", 6, 0, 1, {6}, {1}},
                              {"y", "IntStorage", "0", 6, 0, 1, {6}, {1}}};
    const tensor_spec same[2] = {t[0], t[0]};

    (void)state;
    for (int legacy = 0; legacy < 2; legacy++) {
        bytes pickle = make_pickle(2, t, legacy, NULL);
        bytes b = legacy ? make_legacy_pth(&pickle, 1, storages)
                         : make_zip_pth(&pickle, 1, storages, (zip_style){0});

        free_bytes(&pickle);
        assert_refused(&b, SH_ERR_FORMAT, "two ways");
    }
    bytes pickle = make_pickle(2, same, false, NULL);
    bytes b = make_zip_pth(&pickle, 1, storages, (zip_style){0});

    free_bytes(&pickle);
    assert_refused(&b, SH_ERR_FORMAT, "two tensors are named 'x'");
}

static void parse__refuses_a_changed_byte_of_a_zip_by_its_checksum(void **state)
{
    bytes pickle = make_pickle(N_TENSORS, tensors, false, NULL);
    bytes b = make_zip_pth(&pickle, N_STORAGES, storages, (zip_style){0});
    uint8_t *at = memmem(b.data, b.n, six, sizeof(six));

    (void)state;
    assert_non_null(at);
    at[2] ^= 1;
    free_bytes(&pickle);
    assert_refused(&b, SH_ERR_FORMAT, "checksum");
}

static void parse__refuses_an_entry_out_of_proportion(void **state)
{
    /* The directory says that the deflated pickle unpacks to 1 GiB. */
    bytes pickle = make_pickle(N_TENSORS, tensors, false, NULL);
    bytes b = make_zip_pth(&pickle, N_STORAGES, storages, (zip_style){.deflate = true});
    uint8_t *record = memmem(b.data, b.n, "PK\1\2", 4);

    (void)state;
    assert_non_null(record);
    memcpy(record + 24, &(uint32_t){1u << 30}, 4);
    free_bytes(&pickle);
    assert_refused(&b, SH_ERR_FORMAT, "out of proportion");
}

/* Every beginning of a file, in memory that ends where the beginning does, so that a sanitizer sees
 * a read behind it; the same with each byte changed. */
static void parse__survives_truncation_and_damage_anywhere(void **state)
{
    (void)state;
    for (int style = 0; style < 3; style++) {
        bytes pickle = make_pickle(N_TENSORS, tensors, style == 2, NULL);
        bytes b = style == 2 ? make_legacy_pth(&pickle, N_STORAGES, storages)
                             : make_zip_pth(&pickle, N_STORAGES, storages,
                                            (zip_style){.deflate = style == 1, .zip64 = style});

        for (size_t n = 0; n < b.n; n++) {
            uint8_t *copy = malloc(n + 1);
            sh_weights *w = NULL;

            assert_non_null(copy);
            memcpy(copy, b.data, n);
            copy = realloc(copy, n > 0 ? n : 1);
            assert_int_not_equal(sh_weights_parse(copy, n, "file", &w), SH_OK);
            free(copy);
            b.data[n] ^= 0xFF;
            if (sh_weights_parse(b.data, b.n, "file", &w) == SH_OK) sh_weights_destroy(&w);
            b.data[n] ^= 0xFF;
        }
        free_bytes(&pickle);
        free_bytes(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse__reads_zip_files_stored_deflated_and_zip64),
        cmocka_unit_test(parse__reads_legacy_files),
        cmocka_unit_test(parse__finds_the_state_dict_in_a_checkpoint),
        cmocka_unit_test(parse__drops_a_common_module_prefix_only),
        cmocka_unit_test(parse__converts_every_element_type),
        cmocka_unit_test(parse__refuses_every_other_pickle_by_name),
        cmocka_unit_test(parse__refuses_tensors_outside_their_storage),
        cmocka_unit_test(parse__refuses_one_storage_described_twice),
        cmocka_unit_test(parse__refuses_a_changed_byte_of_a_zip_by_its_checksum),
        cmocka_unit_test(parse__refuses_an_entry_out_of_proportion),
        cmocka_unit_test(parse__survives_truncation_and_damage_anywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
