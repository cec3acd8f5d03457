// SPDX-License-Identifier: Apache-2.0
#include "models/cuda/cudnn_library.h"

#include <pthread.h>
#include <stdio.h>

sh_cudnn_calls sh_cudnn_lib;

#define NAME(name) "cudnn" #name,
static const char *const names[] = {SH_CUDNN_CALLS(NAME)};

static int version_of(const void *calls)
{
    return (int)((const sh_cudnn_calls *)calls)->GetVersion();
}

static const sh_dynlib_spec cudnn = {.file = "libcudnn_graph.so.9",
                                     .like = "libcudnn.so.*",
                                     .root = "CUDNN_ROOT",
                                     .functions = names,
                                     .n_functions = SH_COUNT(names),
                                     .version = version_of,
                                     .least_version = 90800}; /* describes devices */

/** What cuDNN, and what it opens, ask the loader for by name: what is loaded already is taken,
 * wherever it came from. */
static const struct companion {
    const char *what, *library, *function;
    const char *needs; /* see sh_dynlib_spec */
    bool is_needed;    /* cuDNN ends the process without it */
    const char *remedy;
} companions[] = {
    {"cublaslt", "libcublasLt", "cublasLtGetVersion", NULL, true,
     "cuDNN cannot do without it: it is a part of CUDA (CUDA_HOME), and of Python's package "
     "nvidia-cublas"},
    {"nvrtc", "libnvrtc", "nvrtcVersion", "libnvrtc-builtins.so.*", false,
     "cuDNN does without the engines that compile their kernels: it is a part of CUDA (CUDA_HOME), "
     "and of Python's package nvidia-cuda-nvrtc"},
};

enum { N_PARTS = 1 + SH_COUNT(companions) }; /* cuDNN is the first */

/** One file, or why there is none. */
typedef struct part {
    sh_status status;
    sh_dynlib library;
    char error[SH_FINDING_TEXT];
} part;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static part parts[N_PARTS];

static void open_part(const sh_dynlib_spec *spec, void *calls, part *out)
{
    out->status = sh_dynlib_open(spec, calls, &out->library);
    if (out->status == SH_OK) return;
    snprintf(out->error, sizeof(out->error), "%s", sh_error_message());
    sh_error_clear();
}

/** That of the CUDA which the cuDNN that was found is for. */
static void open_companion(const struct companion *c, part *out)
{
    char file[64], like[64];
    void *call;

    snprintf(file, sizeof(file), "%s.so.%d", c->library,
             (int)(sh_cudnn_lib.GetCudartVersion() / 1000));
    snprintf(like, sizeof(like), "%s.so.*", c->library);
    const sh_dynlib_spec spec = {.file = file,
                                 .like = like,
                                 .near = parts[0].library.path,
                                 .needs = c->needs,
                                 .functions = &c->function,
                                 .n_functions = 1};
    open_part(&spec, &call, out);
}

static void open_once(void)
{
    open_part(&cudnn, &sh_cudnn_lib, &parts[0]);
    for (int i = 1; i < N_PARTS && parts[0].status == SH_OK; i++)
        open_companion(&companions[i - 1], &parts[i]);
}

sh_status sh_cudnn_library_open(void)
{
    sh_status st = SH_OK;

    pthread_once(&once, open_once);
    for (int i = 0; i < N_PARTS; i++) {
        bool is_needed = i == 0 || companions[i - 1].is_needed;
        SH_CHECK(!is_needed || parts[i].status == SH_OK, parts[i].status, "cuDNN: %s",
                 parts[i].error);
    }
out:
    return st;
}

static void describe_part(const part *p, sh_finding *out)
{
    if (p->status == SH_OK)
        sh_dynlib_describe(&p->library, out->found, sizeof(out->found));
    else
        snprintf(out->found, sizeof(out->found), "%s", p->error);
}

int sh_cudnn_examine(sh_finding *out, int max)
{
    pthread_once(&once, open_once);
    int n = parts[0].status == SH_OK ? N_PARTS : 1;

    if (max < n) return 0;
    out[0] = (sh_finding){.what = "cudnn", .is_needed = true};
    describe_part(&parts[0], &out[0]);
    if (n == 1)
        snprintf(out->remedy, sizeof(out->remedy),
                 "dense convolutions are cuDNN's (9.8 or later): name its folder in CUDNN_ROOT, "
                 "load the site's module, or pip install nvidia-cudnn-cu%d",
                 CUDART_VERSION / 1000);
    for (int i = 1; i < n; i++) {
        const struct companion *c = &companions[i - 1];

        out[i] = (sh_finding){.what = c->what, .is_needed = c->is_needed};
        describe_part(&parts[i], &out[i]);
        if (parts[i].status != SH_OK)
            snprintf(out[i].remedy, sizeof(out[i].remedy), "%s", c->remedy);
    }
    return n;
}
