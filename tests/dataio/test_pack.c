// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>
#include <unistd.h>

#include "tests/dataio/pack_fixture.h"

/* n crops of 3 fish in 2 recordings, every format in turn. */
static sh_status write_pack(const char *path, int n, uint64_t shard_bytes)
{
    static const sh_image_format formats[] = {SH_IMAGE_JPEG, SH_IMAGE_PNG, SH_IMAGE_RAW};
    sh_status st = SH_OK;
    sh_pack_writer *writer = NULL;
    sh_image image = {0};
    char name[32], fish[32], recording[32];

    SH_TRY(sh_pack_writer_create(path, shard_bytes, &writer));
    for (int i = 0; i < n; i++) {
        sh_labels labels = SH_LABELS_NONE;

        snprintf(name, sizeof(name), "a/crop%04d", i);
        snprintf(fish, sizeof(fish), "fish %c", 'c' - i % 3);
        snprintf(recording, sizeof(recording), "rec%d", i % 2);
        labels.individual = i % 7 == 6 ? NULL : fish;
        labels.recording = recording;
        labels.side = (sh_side)(i % 3);
        labels.frame = i;
        labels.time = i % 2 ? SH_NO_TIME : 1000 + i;
        fill_image(&image, 5 + i, 9, i % 2 ? 3 : 1, i);
        SH_TRY(sh_pack_writer_add_image(writer, name, &labels, &image, formats[i % 3], 90));
    }
    SH_TRY(sh_pack_writer_drop(writer, "bad.tif", "is a TIFF"));
    SH_TRY(sh_pack_writer_commit(writer));
out:
    sh_image_clear(&image);
    sh_pack_writer_destroy(&writer);
    return st;
}

static void check_contents(const char *path, int n)
{
    sh_dataset *d = NULL;
    sh_image image = {0};

    must(sh_dataset_open(&path, 1, &d));
    assert_int_equal(sh_dataset_n_crops(d), n);
    assert_int_equal(sh_dataset_n_individuals(d), 3);
    assert_int_equal(sh_dataset_n_recordings(d), 2);
    assert_int_equal(sh_dataset_n_cameras(d), 0);
    for (int i = 0; i < n; i++) {
        const sh_crop *c = sh_dataset_crop(d, i);
        char name[32], fish[32];

        snprintf(name, sizeof(name), "a/crop%04d", i);
        snprintf(fish, sizeof(fish), "fish %c", 'c' - i % 3);
        assert_string_equal(c->name, name);
        assert_int_equal(sh_dataset_find(d, 0, name), i);
        assert_string_equal(sh_dataset_individual(d, c->individual), i % 7 == 6 ? "" : fish);
        assert_int_equal(c->side, i % 3);
        assert_int_equal(c->frame, i);
        assert_true(c->time == (i % 2 ? SH_NO_TIME : 1000 + i));
        assert_int_equal(c->width, 5 + i);
        must(sh_dataset_decode(d, i, 0, 0, 0, &image));
        assert_int_equal(image.width, 5 + i);
        assert_int_equal(image.channels, i % 2 ? 3 : 1);
        sh_hash128 hash = sh_image_hash(&image);

        assert_true(hash.hi == c->pixels.hi && hash.lo == c->pixels.lo);
        must(sh_dataset_decode(d, i, 3, 0, 0, &image));
        assert_int_equal(image.channels, 3);
    }
    const char *name = NULL, *reason = NULL;

    assert_int_equal(sh_dataset_n_dropped(d), 1);
    sh_dataset_dropped(d, 0, &name, &reason);
    assert_string_equal(name, "bad.tif");
    assert_string_equal(reason, "is a TIFF");
    sh_image_clear(&image);
    sh_dataset_close(&d);
}

static void pack__reads_back_what_was_written(void **state)
{
    (void)state;
    must(write_pack(in_folder("a.h5"), 20, 0));
    check_contents(in_folder("a.h5"), 20);
}

static void pack__is_a_pure_function_of_its_input(void **state)
{
    char *a = NULL, *b = NULL;
    size_t n_a = 0, n_b = 0;

    (void)state;
    must(write_pack(in_folder("b1.h5"), 30, 0));
    must(write_pack(in_folder("b2.h5"), 30, 0));
    must(sh_file_get(in_folder("b1.h5"), 1 << 24, &a, &n_a));
    must(sh_file_get(in_folder("b2.h5"), 1 << 24, &b, &n_b));
    assert_int_equal(n_a, n_b);
    assert_memory_equal(a, b, n_a);
    free(a);
    free(b);
}

static sh_hash128 hash_of(const char *path)
{
    sh_dataset *d = NULL;

    must(sh_dataset_open(&path, 1, &d));
    sh_hash128 hash = sh_dataset_hash(d);

    sh_dataset_close(&d);
    return hash;
}

static void shards__read_as_one_pack_of_the_same_hash(void **state)
{
    (void)state;
    must(write_pack(in_folder("one.h5"), 40, 0));
    must(write_pack(in_folder("many.h5"), 40, 2000));
    assert_true(sh_file_exists(in_folder("many-0001.h5")));
    check_contents(in_folder("many.h5"), 40);
    sh_hash128 a = hash_of(in_folder("one.h5")), b = hash_of(in_folder("many.h5"));

    assert_true(a.hi == b.hi && a.lo == b.lo);
}

static void assert_refused(const char *path, const char *word)
{
    sh_dataset *d = NULL;

    assert_int_equal(sh_dataset_open(&path, 1, &d), SH_ERR_FORMAT);
    assert_null(d);
    if (strstr(sh_error_message(), word) == NULL || strstr(sh_error_message(), path) == NULL)
        fail_msg("expected the path and '%s' in: %s", word, sh_error_message());
}

static void shards__of_another_pack_are_refused(void **state)
{
    (void)state;
    must(write_pack(in_folder("s.h5"), 40, 2000));
    must(write_pack(in_folder("t.h5"), 39, 2500));
    assert_int_equal(rename(in_folder("t-0000.h5"), in_folder("s-0000.h5")), 0);
    sh_dataset *d = NULL;
    const char *path = in_folder("s.h5");

    assert_int_equal(sh_dataset_open(&path, 1, &d), SH_ERR_FORMAT);
    assert_non_null(strstr(sh_error_message(), "s-0000.h5 is not the shard"));
}

static void open__names_what_is_wrong_with_a_foreign_or_cut_file(void **state)
{
    char *bytes = NULL;
    size_t n = 0;

    (void)state;
    must(write_pack(in_folder("c.h5"), 10, 0));
    must(sh_file_get(in_folder("c.h5"), 1 << 24, &bytes, &n));
    must(sh_file_put(in_folder("cut.h5"), bytes, n - 100));
    assert_refused(in_folder("cut.h5"), "truncated");
    must(sh_file_put(in_folder("stub.h5"), bytes, 100));
    assert_refused(in_folder("stub.h5"), "too short");
    must(sh_file_put(in_folder("plain.h5"), bytes + 512, n - 512));
    assert_refused(in_folder("plain.h5"), "some other HDF5 file");
    memset(bytes, 'x', 512);
    must(sh_file_put(in_folder("foreign.h5"), bytes, n));
    assert_refused(in_folder("foreign.h5"), "foreign");
    snprintf(bytes, 512, "shoal-pack 2\n");
    must(sh_file_put(in_folder("future.h5"), bytes, n));
    assert_refused(in_folder("future.h5"), "version 2");
    free(bytes);
}

/* Open and read all; every bit flipped must be noticed by the seal or by a crop's checksum. */
static bool is_noticed(const char *path)
{
    sh_dataset *d = NULL;
    uint8_t *data = NULL;
    size_t capacity = 0, n_bytes = 0;
    sh_image_format format;
    bool noticed = sh_dataset_open(&path, 1, &d) != SH_OK;

    for (int64_t i = 0; !noticed && i < sh_dataset_n_crops(d); i++)
        noticed = sh_dataset_read(d, i, &data, &capacity, &n_bytes, &format) != SH_OK;
    free(data);
    sh_dataset_close(&d);
    return noticed;
}

static void every_flipped_bit__is_noticed(void **state)
{
    char *bytes = NULL;
    size_t n = 0, n_missed = 0, n_tried = 0;
    const char *path = in_folder("flip.h5");

    (void)state;
    must(write_pack(path, 6, 0));
    assert_false(is_noticed(path));
    must(sh_file_get(path, 1 << 24, &bytes, &n));
    for (size_t i = 0; i < n; i += 3) {
        FILE *file = fopen(path, "r+b");
        int byte = (uint8_t)bytes[i] ^ (1 << (i / 3 % 8));

        assert_non_null(file);
        assert_int_equal(fseek(file, (long)i, SEEK_SET), 0);
        assert_int_equal(fputc(byte, file), byte);
        assert_int_equal(fclose(file), 0);
        n_tried++;
        n_missed += !is_noticed(path);
        file = fopen(path, "r+b");
        assert_non_null(file);
        fseek(file, (long)i, SEEK_SET);
        fputc((uint8_t)bytes[i], file);
        fclose(file);
    }
    assert_true(n_tried > 1000);
    assert_int_equal(n_missed, 0);
    free(bytes);
}

static void two_packs__become_one_dataset_with_common_names(void **state)
{
    sh_dataset *d = NULL;

    (void)state;
    must(write_pack(in_folder("p.h5"), 6, 0));
    must(write_pack(in_folder("q.h5"), 9, 0));
    const char *paths[] = {in_folder("p.h5"), in_folder("q.h5")};

    must(sh_dataset_open(paths, 2, &d));
    assert_int_equal(sh_dataset_n_crops(d), 15);
    assert_int_equal(sh_dataset_n_individuals(d), 3);
    assert_int_equal(sh_dataset_crop(d, 2)->individual, sh_dataset_crop(d, 8)->individual);
    assert_int_equal(sh_dataset_crop(d, 8)->pack, 1);
    assert_int_equal(sh_dataset_find(d, 1, "a/crop0002"), 8);
    assert_string_equal(sh_dataset_pack_name(d, 1), "q.h5");
    sh_dataset_close(&d);
    const char *same[] = {in_folder("p.h5"), in_folder("p.h5")};

    assert_int_equal(sh_dataset_open(same, 2, &d), SH_ERR_USAGE);
}

static void writer__refuses_bad_names_and_leaves_nothing_behind(void **state)
{
    sh_pack_writer *writer = NULL;
    sh_image image = {0};
    sh_labels none = SH_LABELS_NONE;

    (void)state;
    fill_image(&image, 4, 4, 1, 0);
    must(sh_pack_writer_create(in_folder("w.h5"), 0, &writer));
    assert_int_equal(sh_pack_writer_commit(writer), SH_ERR_USAGE);
    must(sh_pack_writer_add_image(writer, "x", &none, &image, SH_IMAGE_PNG, 0));
    assert_int_equal(sh_pack_writer_add_image(writer, "x", &none, &image, SH_IMAGE_PNG, 0),
                     SH_ERR_USAGE);
    assert_int_equal(sh_pack_writer_add_image(writer, "\xE6", &none, &image, SH_IMAGE_PNG, 0),
                     SH_ERR_USAGE);
    sh_pack_writer_destroy(&writer);
    assert_false(sh_file_exists(in_folder("w.h5")));
    sh_image_clear(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pack__reads_back_what_was_written),
        cmocka_unit_test(pack__is_a_pure_function_of_its_input),
        cmocka_unit_test(shards__read_as_one_pack_of_the_same_hash),
        cmocka_unit_test(shards__of_another_pack_are_refused),
        cmocka_unit_test(open__names_what_is_wrong_with_a_foreign_or_cut_file),
        cmocka_unit_test(every_flipped_bit__is_noticed),
        cmocka_unit_test(two_packs__become_one_dataset_with_common_names),
        cmocka_unit_test(writer__refuses_bad_names_and_leaves_nothing_behind),
    };

    return cmocka_run_group_tests(tests, set_up_folder, tear_down_folder);
}
