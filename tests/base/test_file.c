// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/hash.h"

static char folder[256];
static char path[512];

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/shoal-file.XXXXXX");
    if (mkdtemp(folder) == NULL) return -1;
    snprintf(path, sizeof(path), "%s/a.txt", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sh_file_set_fault(-1, false);
    return sh_file_remove_tree(folder) == SH_OK ? 0 : -1;
}

static void expect_content(const char *want)
{
    char *text = NULL;
    size_t n = 0;

    assert_int_equal(sh_file_get(path, 1 << 20, &text, &n), SH_OK);
    assert_string_equal(text, want);
    free(text);
}

static void path_name__is_what_follows_the_last_slash(void **state)
{
    (void)state;
    assert_string_equal(sh_path_name("crops/2024/a.jpg"), "a.jpg");
    assert_string_equal(sh_path_name("a.jpg"), "a.jpg");
    assert_string_equal(sh_path_name("crops/"), "");
}

static void put__replaces_a_file_whole(void **state)
{
    (void)state;
    assert_int_equal(sh_file_put(path, "first", 5), SH_OK);
    assert_int_equal(sh_file_put(path, "second", 6), SH_OK);
    expect_content("second");
}

static void put__keeps_the_old_file_whatever_fails(void **state)
{
    int n_faults = 0;

    (void)state;
    assert_int_equal(sh_file_put(path, "old", 3), SH_OK);
    for (int n = 0;; n++) {
        sh_file_set_fault(n, false);
        sh_status st = sh_file_put(path, "new", 3);

        sh_file_set_fault(-1, false);
        if (st == SH_OK) break;
        assert_int_equal(st, SH_ERR_IO);
        n_faults++;
        char *text = NULL;
        size_t size = 0;

        assert_int_equal(sh_file_get(path, 100, &text, &size), SH_OK);
        assert_true(strcmp(text, "old") == 0 || strcmp(text, "new") == 0);
        free(text);
        assert_int_equal(sh_file_put(path, "old", 3), SH_OK);
    }
    assert_true(n_faults >= 4); /* create, write, sync, rename, sync of the folder */
    expect_content("new");
}

static void put__keeps_one_whole_file_wherever_the_process_dies(void **state)
{
    int n_deaths = 0;

    (void)state;
    assert_int_equal(sh_file_put(path, "old", 3), SH_OK);
    for (int n = 0;; n++) {
        pid_t child = fork();
        int status = 0;

        if (child == 0) {
            sh_file_set_fault(n, true);
            _exit(sh_file_put(path, "new", 3) == SH_OK ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WEXITSTATUS(status) == 0) break;
        assert_int_equal(WEXITSTATUS(status), 137);
        n_deaths++;
        char *text = NULL;
        size_t size = 0;

        assert_int_equal(sh_file_get(path, 100, &text, &size), SH_OK);
        assert_true(strcmp(text, "old") == 0 || strcmp(text, "new") == 0);
        free(text);
    }
    assert_true(n_deaths >= 4);
}

static void writer__counts_bytes_and_checksum_of_large_files(void **state)
{
    sh_file_writer *writer = NULL;
    size_t n = 3u << 20;
    uint8_t *data = malloc(n);
    char *back = NULL;
    size_t n_back = 0;

    (void)state;
    for (size_t i = 0; i < n; i++) data[i] = (uint8_t)(i * 31 + (i >> 9));
    assert_int_equal(sh_file_writer_create(path, &writer), SH_OK);
    for (size_t at = 0; at < n;) {
        size_t piece = at % 7 == 0 ? 1 : 70001;

        if (piece > n - at) piece = n - at;
        assert_int_equal(sh_file_write(writer, data + at, piece), SH_OK);
        at += piece;
    }
    assert_int_equal(sh_file_writer_crc32c(writer), sh_crc32c(0, data, n));
    assert_true(sh_file_writer_bytes(writer) == n);
    assert_int_equal(sh_file_writer_commit(writer), SH_OK);
    sh_file_writer_destroy(&writer);
    assert_int_equal(sh_file_get(path, n, &back, &n_back), SH_OK);
    assert_true(n_back == n && memcmp(back, data, n) == 0);
    free(back);
    free(data);
}

static void writer__leaves_nothing_behind_when_abandoned(void **state)
{
    sh_file_writer *writer = NULL;

    (void)state;
    assert_int_equal(sh_file_writer_create(path, &writer), SH_OK);
    assert_int_equal(sh_file_write(writer, "x", 1), SH_OK);
    sh_file_writer_destroy(&writer);
    assert_false(sh_file_exists(path));
    assert_int_equal(rmdir(folder), 0); /* empty */
    assert_int_equal(sh_file_make_dirs(folder), SH_OK);
}

static void get__names_missing_and_oversized_files(void **state)
{
    char *text = NULL;
    size_t n = 0;

    (void)state;
    assert_int_equal(sh_file_get(path, 10, &text, &n), SH_ERR_NOT_FOUND);
    assert_non_null(strstr(sh_error_message(), path));
    assert_int_equal(sh_file_put(path, "0123456789a", 11), SH_OK);
    assert_int_equal(sh_file_get(path, 10, &text, &n), SH_ERR_FORMAT);
    assert_int_equal(sh_file_get(folder, 10, &text, &n), SH_ERR_USAGE);
}

static void read_at__names_a_truncated_file(void **state)
{
    char data[8];
    FILE *f = fopen(path, "w");

    (void)state;
    fputs("abcd", f);
    fclose(f);
    f = fopen(path, "r");
    assert_int_equal(sh_file_read_at(fileno(f), path, 1, data, 3), SH_OK);
    assert_memory_equal(data, "bcd", 3);
    assert_int_equal(sh_file_read_at(fileno(f), path, 1, data, 4), SH_ERR_FORMAT);
    assert_non_null(strstr(sh_error_message(), "truncated"));
    fclose(f);
}

static void make_private_dir__closes_the_last_folder_only(void **state)
{
    struct stat info;
    mode_t before = umask(022);

    (void)state;
    snprintf(path, sizeof(path), "%s/runs/one/", folder);
    assert_int_equal(sh_file_make_private_dir(path), SH_OK);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    snprintf(path, sizeof(path), "%s/runs", folder);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0755);
    assert_int_equal(sh_file_make_private_dir(path), SH_OK);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0755);
    umask(before);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(path_name__is_what_follows_the_last_slash),
        TEST(put__replaces_a_file_whole),
        TEST(put__keeps_the_old_file_whatever_fails),
        TEST(put__keeps_one_whole_file_wherever_the_process_dies),
        TEST(writer__counts_bytes_and_checksum_of_large_files),
        TEST(writer__leaves_nothing_behind_when_abandoned),
        TEST(get__names_missing_and_oversized_files),
        TEST(read_at__names_a_truncated_file),
        TEST(make_private_dir__closes_the_last_folder_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
