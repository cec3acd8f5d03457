// SPDX-License-Identifier: Apache-2.0
/**
 * Libraries for GPUs that are looked for while the program runs, so that it starts without them.
 *
 * Who uses one lists its functions once, and gets a struct of pointers to them from the list and
 * from the library's own header, here for a library of fish:
 *
 *   #define FISH_CALLS(CALL) CALL(Count) CALL(Feed)
 *   #define FISH_FIELD(name) __typeof__(&fish##name) name;
 *   typedef struct fish_calls { FISH_CALLS(FISH_FIELD) } fish_calls;
 *
 * Places are tried in this order, and files that cannot be used are passed over:
 *
 *   1. the program's own folder, and lib beside it
 *   2. the library's own variable, as $NCCL_ROOT, with its folders lib and lib64
 *   3. the folder of a library that it comes with, and packages beside that one's (../../NAME/lib)
 *   4. wherever the loader looks: $LD_LIBRARY_PATH, what the system has installed
 *   5. lib64 and lib of $CUDA_HOME, $CUDA_PATH and /usr/local/cuda
 *   6. Python's packages (site-packages/nvidia), of $VIRTUAL_ENV, of $CONDA_PREFIX, of the programs
 *      on $PATH, of the user
 */
#ifndef SH_BASE_DYNLIB_H
#define SH_BASE_DYNLIB_H

#include "base/status.h"

SH_C_BEGIN

enum { SH_DYNLIB_PATH = 4096, SH_DYNLIB_TEXT = 1024 };

typedef struct sh_dynlib_spec {
    const char *file;  /* its name with the major version: "libnccl.so.2" */
    const char *like;  /* other versions of it, as glob(7) has it, for messages: "libnccl.so.*" */
    const char *root;  /* the variable that may name its folder; NULL: none does */
    const char *near;  /* the path of a library that it mostly comes with; NULL: none */
    const char *needs; /* files beside it that it opens while it runs, and finds only where the
                          loader looks, as glob(7) has it; NULL: none */
    const char *const *functions; /* names */
    int n_functions;

    /** Its version by those functions, 10000 major + 100 minor + patch. NULL: any will do. */
    int (*version)(const void *calls);
    int least_version;
} sh_dynlib_spec;

typedef struct sh_dynlib {
    int version; /* 0: it was not asked */
    char path[SH_DYNLIB_PATH];
    char passed_over[SH_DYNLIB_TEXT]; /* files before it that cannot be used, and why; or "" */
} sh_dynlib;

/** Open the first file that has all functions and is not too old, and fill `calls`, a struct of
 *  n_functions pointers in the order of the names. It stays open until the process ends. Otherwise
 *  SH_ERR_NOT_FOUND, saying what was found instead. Not thread-safe. */
SH_MUST_CHECK sh_status sh_dynlib_open(const sh_dynlib_spec *spec, void *calls, sh_dynlib *out);

/** "2.28.9, /usr/local/cuda/lib64/libnccl.so.2", and what was passed over, into text[size]. */
void sh_dynlib_describe(const sh_dynlib *library, char *text, size_t size);

SH_C_END

#endif
