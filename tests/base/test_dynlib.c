// SPDX-License-Identifier: Apache-2.0
/**
 * Where libraries are looked for, and what is said of those that cannot be used. Each test makes
 * the folders that it needs below one of its own, with copies of three small libraries (fish.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/dynlib.h"
#include "base/file.h"
#include "base/fish.h"

#define assert_ok(call) assert_int_equal(call, SH_OK)

#define FISH_CALLS(CALL) CALL(version) CALL(count)
#define FISH_FIELD(name) __typeof__(&fish_##name) name;
#define FISH_NAME(name) "fish_" #name,
typedef struct fish_calls {
    FISH_CALLS(FISH_FIELD)
} fish_calls;
static const char *const names[] = {FISH_CALLS(FISH_NAME)};

static const char file[] = "libshoal_fish.so.2";
static const char *const variables[] = {"FISH_ROOT",    "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH",
                                        "CONDA_PREFIX", "VIRTUAL_ENV",     "PATH",      "HOME"};
static char here[4096]; /* with signs that patterns give a meaning */

static int version_of(const void *calls)
{
    return ((const fish_calls *)calls)->version();
}

static const sh_dynlib_spec spec = {.file = file,
                                    .like = "libshoal_fish.so*",
                                    .root = "FISH_ROOT",
                                    .functions = names,
                                    .n_functions = SH_COUNT(names),
                                    .version = version_of,
                                    .least_version = 20200};

/** A copy of one kind in here/folder, which is made; its path. */
static const char *put(const char *kind, const char *folder, const char *name)
{
    static char path[8192];
    char from[4096], *data = NULL;
    size_t n_bytes = 0;

    snprintf(path, sizeof(path), "%s/%s", here, folder);
    assert_ok(sh_file_make_dirs(path));
    snprintf(path, sizeof(path), "%s/%s/%s", here, folder, name);
    snprintf(from, sizeof(from), "%s/tests/fish/%s.so", getenv("SHOAL_BUILD"), kind);
    assert_ok(sh_file_get(from, 1 << 24, &data, &n_bytes));
    assert_ok(sh_file_put(path, data, n_bytes));
    free(data);
    return path;
}

static void name(const char *variable, const char *folder)
{
    char value[8192];

    snprintf(value, sizeof(value), "%s/%s", here, folder);
    assert_int_equal(setenv(variable, value, 1), 0);
}

/** It is found in here/folder, and works. */
static void assert_found(const char *folder)
{
    sh_dynlib library;
    fish_calls fish = {0};
    char path[8192], text[8192];

    if (sh_dynlib_open(&spec, &fish, &library) != SH_OK) fail_msg("%s", sh_error_message());
    snprintf(path, sizeof(path), "%s/%s/%s", here, folder, file);
    assert_string_equal(library.path, path);
    assert_string_equal(library.passed_over, "");
    assert_int_equal(library.version, 20304);
    assert_int_equal(fish.count(3), 4);
    sh_dynlib_describe(&library, text, sizeof(text));
    assert_memory_equal(text, "2.3.4, /", 8);
}

/** It is not found, and the message has these words, up to NULL. */
static void assert_missing(const char *words, ...)
{
    sh_dynlib library;
    fish_calls fish = {0};
    va_list args;

    assert_int_equal(sh_dynlib_open(&spec, &fish, &library), SH_ERR_NOT_FOUND);
    assert_null(fish.version);
    va_start(args, words);
    for (const char *w = words; w != NULL; w = va_arg(args, const char *)) {
        if (strstr(sh_error_message(), w) == NULL)
            fail_msg("not \"%s\" but \"%s\"", w, sh_error_message());
    }
    va_end(args);
}

static int clear_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < SH_COUNT(variables); i++) unsetenv(variables[i]);
    return 0;
}

/** One folder for all tests: the loader knows libraries by their inodes, which are not reused while
 * the files are there. */
static char all[] = "/tmp/shoal-library-XXXXXX";

static int make_all(void **state)
{
    return mkdtemp(all) != NULL ? clear_names(state) : -1;
}

static int remove_all(void **state)
{
    (void)state;
    return sh_file_remove_tree(all) == SH_OK ? 0 : -1;
}

static int make_folder(void **state)
{
    static int n;

    (void)state;
    snprintf(here, sizeof(here), "%s/[a] {b,c}* %d", all, ++n);
    return sh_file_make_dirs(here) == SH_OK ? 0 : -1;
}

/** From the last place to the first: each is taken before those that are there already. */
static void dynlib_open__looks_in_order(void **state)
{
    static const struct {
        const char *variable, *value, *folder;
    } places[] = {
        {"HOME", "user", "user/.local/lib/python3.9/site-packages/nvidia/fish/lib"},
        {"PATH", "py/lib", "py/lib/python3.11/dist-packages/nvidia/cu13/lib"},
        {"CONDA_PREFIX", "conda", "conda/lib"},
        {"VIRTUAL_ENV", "env", "env/lib64/python3.12/site-packages/nvidia/fish/lib"},
        {"CUDA_PATH", "path", "path/lib"},
        {"CUDA_HOME", "home", "home/lib64"},
        {"FISH_ROOT", "named", "named/lib"},
    };

    (void)state;
    for (size_t i = 0; i < SH_COUNT(places); i++) {
        assert_missing(file, "FISH_ROOT", "Python's packages", NULL);
        put("good", places[i].folder, file);
        name(places[i].variable, places[i].value);
        assert_found(places[i].folder);
        for (size_t k = 0; k < i; k++) { /* with all later places there too */
            name(places[k].variable, places[k].value);
            assert_found(places[i].folder);
        }
        for (size_t k = 0; k <= i; k++) unsetenv(places[k].variable);
    }
}

static void dynlib_open__looks_beside_the_program_first(void **state)
{
    char program[4096], path[4200], said[4096];
    const char *from = put("good", "named", file);
    sh_dynlib library;
    fish_calls fish = {0};

    (void)state;
    assert_ok(sh_path_program(program, sizeof(program)));
    *strrchr(program, '/') = '\0';
    snprintf(path, sizeof(path), "%s/%s", program, file);
    assert_true(symlink(from, path) == 0);
    name("FISH_ROOT", "elsewhere");
    sh_status st = sh_dynlib_open(&spec, &fish, &library);
    snprintf(said, sizeof(said), "%s", st == SH_OK ? library.path : sh_error_message());
    unlink(path);
    assert_string_equal(said, path);
}

/** As wheels have NVRTC: site-packages/nvidia/cu13/lib, beside site-packages/nvidia/cudnn/lib. */
static void dynlib_open__looks_near_another(void **state)
{
    sh_dynlib library;
    fish_calls fish = {0};
    sh_dynlib_spec near = spec;
    char other[8192], path[8192];

    (void)state;
    snprintf(other, sizeof(other), "%s", put("old", "site/nvidia/pond/lib", "libpond.so"));
    snprintf(path, sizeof(path), "%s", put("good", "site/nvidia/fish/lib", file));
    put("good", "home/lib", file);
    name("CUDA_HOME", "home");
    near.near = other;
    assert_ok(sh_dynlib_open(&near, &fish, &library));
    assert_string_equal(library.path, path);
    snprintf(path, sizeof(path), "%s", put("good", "site/nvidia/pond/lib", file));
    assert_ok(sh_dynlib_open(&near, &fish, &library));
    assert_string_equal(library.path, path);
}

/** Several folders between colons; some are empty or not there. */
static void dynlib_open__reads_lists_of_folders(void **state)
{
    char value[16384];

    (void)state;
    put("good", "second/lib/python3.11/site-packages/nvidia/fish/lib", file);
    put("poor", "second/bin", "a program"); /* so that the folder is there */
    snprintf(value, sizeof(value), ":%s/first/bin::%s/second/bin:", here, here);
    assert_int_equal(setenv("PATH", value, 1), 0);
    assert_found("second/lib/python3.11/site-packages/nvidia/fish/lib");
}

static void dynlib_open__names_another_version(void **state)
{
    (void)state;
    put("good", "named/lib64", "libshoal_fish.so.1");
    name("FISH_ROOT", "named");
    assert_missing("no libshoal_fish.so.2", "/named/lib64/libshoal_fish.so.1 is another version",
                   NULL);
    unsetenv("FISH_ROOT");
    put("good", "module", "libshoal_fish.so.1");
    name("LD_LIBRARY_PATH", "module");
    assert_missing("/module/libshoal_fish.so.1 is another version", NULL);
}

static void dynlib_open__says_why_files_cannot_be_used(void **state)
{
    char path[8192];

    (void)state;
    put("old", "named", file);
    put("poor", "named/lib", file);
    snprintf(path, sizeof(path), "%s", put("good", "named/lib64", file));
    assert_ok(sh_file_put(path, "no library", 10));
    name("FISH_ROOT", "named");
    assert_missing("/named/libshoal_fish.so.2: version 2.1.0, and 2.2.0 is the oldest that will do",
                   "/named/lib/libshoal_fish.so.2: lacks fish_count", "/named/lib64/", NULL);
}

static void dynlib_open__passes_over_what_cannot_be_used(void **state)
{
    sh_dynlib library;
    fish_calls fish = {0};
    char text[8192];

    (void)state;
    put("old", "named", file);
    put("good", "env/lib/python3.11/site-packages/nvidia/fish/lib", file);
    name("FISH_ROOT", "named");
    name("VIRTUAL_ENV", "env");
    assert_ok(sh_dynlib_open(&spec, &fish, &library));
    assert_non_null(strstr(library.path, "/env/lib/python3.11/"));
    assert_int_equal(fish.version(), 20304);
    sh_dynlib_describe(&library, text, sizeof(text));
    assert_non_null(strstr(text, "(not "));
    assert_non_null(strstr(text, "version 2.1.0"));
}

/** What it opens by name alone is there already, though the loader does not look in its folder. */
static void dynlib_open__opens_what_a_library_needs(void **state)
{
    sh_dynlib library;
    fish_calls fish = {0};
    sh_dynlib_spec with = spec;
    char *text = NULL;
    size_t n_bytes = 0;

    (void)state;
    with.needs = "libfood.so.*";
    put("good", "named", file);
    put("poor", "named", "libfood.so.7");
    name("FISH_ROOT", "named");
    assert_ok(sh_dynlib_open(&with, &fish, &library));
    assert_string_equal(library.passed_over, "");
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    bool is_open = false;
    while (getline(&text, &n_bytes, f) > 0) is_open |= strstr(text, "/named/libfood.so.7") != NULL;
    fclose(f);
    free(text);
    assert_true(is_open);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, clear_names)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(dynlib_open__looks_in_order),
        TEST(dynlib_open__looks_beside_the_program_first),
        TEST(dynlib_open__looks_near_another),
        TEST(dynlib_open__reads_lists_of_folders),
        TEST(dynlib_open__names_another_version),
        TEST(dynlib_open__says_why_files_cannot_be_used),
        TEST(dynlib_open__passes_over_what_cannot_be_used),
        TEST(dynlib_open__opens_what_a_library_needs),
    };

    return cmocka_run_group_tests(tests, make_all, remove_all);
}
