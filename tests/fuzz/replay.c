// SPDX-License-Identifier: Apache-2.0
/** Run a fuzz target over every file of a folder: a regression test that needs no fuzzer. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "fuzz/fuzz.h"

static sh_status replay(const char *folder, const char *name)
{
    sh_status st = SH_OK;
    char path[4096];
    char *data = NULL;
    uint8_t *exact = NULL;
    size_t n = 0;

    SH_TRY(sh_path_join(folder, name, path, sizeof(path)));
    SH_TRY(sh_file_get(path, 1 << 24, &data, &n));
    exact = malloc(n > 0 ? n : 1); /* ends where the input does, for the sanitizer's sake */
    SH_CHECK(exact != NULL, SH_ERR_NO_MEMORY, "%s", path);
    memcpy(exact, data, n);
    LLVMFuzzerTestOneInput(exact, n);
out:
    free(exact);
    free(data);
    return st;
}

int main(int argc, char **argv)
{
    int n_files = 0;
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;

    if (folder == NULL) {
        fprintf(stderr, "usage: %s CORPUS\n", argv[0]);
        return 2;
    }
    for (struct dirent *e = readdir(folder); e != NULL; e = readdir(folder)) {
        if (e->d_name[0] == '.') continue;
        if (replay(argv[1], e->d_name) != SH_OK) {
            fprintf(stderr, "%s\n", sh_error_message());
            return 1;
        }
        n_files++;
    }
    closedir(folder);
    printf("%d inputs\n", n_files);
    return n_files > 0 ? 0 : 1;
}
