// SPDX-License-Identifier: Apache-2.0
/** For the tests of images, packs and imports: a folder of their own, and checks with the message.
 */
#ifndef SH_TESTS_DATAIO_PACK_FIXTURE_H
#define SH_TESTS_DATAIO_PACK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "dataio/pack.h"

static char fixture_folder[] = "/tmp/shoal-test-XXXXXX";

/* A path in the folder; good for the next seven calls. */
static inline const char *in_folder(const char *name)
{
    static char paths[8][512];
    static int next = 0;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof(paths[0]), "%s/%s", fixture_folder, name);
    return path;
}

static inline void must(sh_status st)
{
    if (st != SH_OK) fail_msg("%s: %s", sh_status_name(st), sh_error_message());
}

/* The call failed with this status, and its message has this word. */
static inline void assert_failed(sh_status st, sh_status expected, const char *word)
{
    if (st != expected || strstr(sh_error_message(), word) == NULL)
        fail_msg("expected %s with '%s', got %s: %s", sh_status_name(expected), word,
                 sh_status_name(st), sh_error_message());
}

/* Give an image this shape and pixels that depend on place and seed. */
static inline void fill_image(sh_image *image, int width, int height, int channels, int seed)
{
    size_t n = (size_t)width * (size_t)height * (size_t)channels;

    image->width = width;
    image->height = height;
    image->channels = channels;
    image->pixels = realloc(image->pixels, n);
    image->capacity = n;
    assert_non_null(image->pixels);
    for (size_t i = 0; i < n; i++) image->pixels[i] = (uint8_t)(i * 7 + (size_t)seed * 31);
}

/* Write bytes to a file below the folder, making folders as needed. */
static inline void put_file(const char *name, const void *data, size_t n_bytes)
{
    char path[512], *slash;

    snprintf(path, sizeof(path), "%s", in_folder(name));
    slash = strrchr(path, '/');
    *slash = '\0';
    must(sh_file_make_dirs(path));
    *slash = '/';
    must(sh_file_put(path, data, n_bytes));
}

/* Encode a filled image into a file. */
static inline void put_image(const char *name, sh_image_format format, int seed)
{
    sh_image image = {0};
    uint8_t *data = NULL;
    size_t n_bytes = 0;

    fill_image(&image, 20 + seed % 5, 16, 3, seed);
    must(sh_image_encode(&image, format, 90, &data, &n_bytes));
    put_file(name, data, n_bytes);
    free(data);
    sh_image_clear(&image);
}

/* Path of a real data set, or NULL where it is not there: then skip(). */
static inline const char *real_set(const char *name)
{
    static char path[1024];
    const char *data = getenv("SHOAL_DATA"), *source = getenv("SHOAL_SOURCE");

    if (data != NULL)
        snprintf(path, sizeof(path), "%s/%s", data, name);
    else
        snprintf(path, sizeof(path), "%s/../shared/data/%s", source != NULL ? source : ".", name);
    return sh_file_is_dir(path) ? path : NULL;
}

static inline int set_up_folder(void **state)
{
    (void)state;
    return mkdtemp(fixture_folder) == NULL;
}

static inline int tear_down_folder(void **state)
{
    (void)state;
    return sh_file_remove_tree(fixture_folder) != SH_OK;
}

#endif
