// SPDX-License-Identifier: Apache-2.0
#include "trainer/library.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"

static const char weights_name[] = "weights.safetensors";
static const char card_name[] = "card.yaml";
static const char checksum_name[] = "weights.xxh128";
static const size_t max_weights_bytes = (size_t)16 << 30;

/* ---- places ---- */

static sh_status library_root(char path[SH_LIBRARY_PATH])
{
    return sh_path_home("backbones", path, SH_LIBRARY_PATH);
}

static bool is_name(const char *text)
{
    if (text[0] == '\0' || text[0] == '.') return false;
    for (const char *c = text; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr("-_.", *c) == NULL) return false;
    return true;
}

sh_status sh_library_folder(const char *name, char *path)
{
    sh_status st = SH_OK;
    char root[SH_LIBRARY_PATH];

    SH_CHECK(is_name(name), SH_ERR_USAGE,
             "\"%s\" cannot name a backbone: letters, digits, \"-\", \"_\" and \".\" only", name);
    SH_TRY(library_root(root));
    SH_TRY(sh_path_join(root, name, path, SH_LIBRARY_PATH));
out:
    return st;
}

/* Names of the backbones that are there, with commas. */
static void list_backbones(const char *root, char *text, size_t size)
{
    struct dirent **entries = NULL;
    size_t n = 0;
    int n_entries = scandir(root, &entries, NULL, alphasort);

    text[0] = '\0';
    for (int i = 0; i < n_entries; i++) {
        if (is_name(entries[i]->d_name) && n + strlen(entries[i]->d_name) + 3 < size)
            n +=
                (size_t)snprintf(text + n, size - n, "%s%s", n > 0 ? ", " : "", entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
}

sh_status sh_library_find(const char *init, char *path)
{
    sh_status st = SH_OK;
    char root[SH_LIBRARY_PATH], folder[SH_LIBRARY_PATH], known[1024];

    if (sh_file_is_dir(init)) {
        SH_TRY(sh_path_join(init, weights_name, path, SH_LIBRARY_PATH));
        SH_CHECK(sh_file_exists(path), SH_ERR_NOT_FOUND, "%s is a folder without %s", init,
                 weights_name);
        goto out;
    }
    if (sh_file_exists(init)) {
        SH_CHECK(snprintf(path, SH_LIBRARY_PATH, "%s", init) < SH_LIBRARY_PATH, SH_ERR_USAGE,
                 "%.100s...: too long", init);
        goto out;
    }
    SH_CHECK(is_name(init), SH_ERR_NOT_FOUND, "init=%s: there is no such file", init);
    SH_TRY(library_root(root));
    SH_TRY(sh_path_join(root, init, folder, sizeof(folder)));
    SH_TRY(sh_path_join(folder, weights_name, path, SH_LIBRARY_PATH));
    if (sh_file_exists(path)) goto out;
    list_backbones(root, known, sizeof(known));
    SH_FAIL(SH_ERR_NOT_FOUND,
            "init=%s: neither a file nor a backbone of the library %s, which holds %s; put one "
            "there with `shoal import FILE --name %s`",
            init, root, known[0] != '\0' ? known : "none yet", init);
out:
    return st;
}

/* ---- cards ---- */

static bool is_block(const json_t *value)
{
    return json_is_object(value) && json_object_size(value) > 0;
}

/* A JSON scalar or list is YAML as it stands; an object is written as a block. */
static sh_status write_block(FILE *out, const json_t *object, int indent)
{
    sh_status st = SH_OK;
    const char *key = NULL;
    json_t *value = NULL;

    json_object_foreach((json_t *)object, key, value)
    {
        fprintf(out, "%*s%s:", indent, "", key);
        if (is_block(value)) {
            fputc('\n', out);
            SH_TRY(write_block(out, value, indent + 2));
            continue;
        }
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));

        SH_CHECK(text != NULL, SH_ERR_NO_MEMORY, "card");
        fprintf(out, " %s\n", text);
        free(text);
    }
out:
    return st;
}

static sh_status write_card(const char *folder, const json_t *card)
{
    sh_status st = SH_OK;
    char path[SH_LIBRARY_PATH];
    char *text = NULL;
    size_t n_bytes = 0;
    FILE *out = open_memstream(&text, &n_bytes);

    SH_CHECK(out != NULL, SH_ERR_NO_MEMORY, "card");
    st = write_block(out, card, 0);
    SH_CHECK(fclose(out) == 0 && st == SH_OK, SH_ERR_NO_MEMORY, "card");
    SH_TRY(sh_path_join(folder, card_name, path, sizeof(path)));
    SH_TRY(sh_file_put(path, text, n_bytes));
out:
    free(text);
    return st;
}

/* ---- checksums ---- */

static sh_status hash_weights(const char *folder, char hash[33])
{
    sh_status st = SH_OK;
    char path[SH_LIBRARY_PATH];
    char *data = NULL;
    size_t n_bytes = 0;

    SH_TRY(sh_path_join(folder, weights_name, path, sizeof(path)));
    SH_TRY(sh_file_get(path, max_weights_bytes, &data, &n_bytes));
    sh_hash_format(sh_hash_content(data, n_bytes), hash);
out:
    free(data);
    return st;
}

sh_status sh_library_seal(const char *folder, const json_t *card)
{
    sh_status st = SH_OK;
    char hash[33], text[128], path[SH_LIBRARY_PATH];

    SH_TRY(hash_weights(folder, hash));

    int n = snprintf(text, sizeof(text), "%s  %s\n", hash, weights_name);

    SH_TRY(sh_path_join(folder, checksum_name, path, sizeof(path)));
    SH_TRY(sh_file_put(path, text, (size_t)n));
    SH_TRY(write_card(folder, card));
out:
    return st;
}

sh_status sh_library_check(const char *folder, bool *is_backbone)
{
    sh_status st = SH_OK;
    char hash[33], path[SH_LIBRARY_PATH];
    char *text = NULL;
    size_t n_bytes = 0;

    SH_TRY(sh_path_join(folder, checksum_name, path, sizeof(path)));
    *is_backbone = sh_file_exists(path);
    if (!*is_backbone) goto out;
    SH_TRY(sh_file_get(path, 4096, &text, &n_bytes));
    SH_TRY(hash_weights(folder, hash));
    SH_CHECK(strncmp(text, hash, 32) == 0, SH_ERR_FORMAT,
             "%s/%s is not what its checksum says: %.32s instead of %.32s; import it again", folder,
             weights_name, hash, text);
out:
    free(text);
    return st;
}
