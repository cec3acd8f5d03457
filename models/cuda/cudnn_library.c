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

/** One file, or why there is none. */
typedef struct part {
    sh_status status;
    sh_dynlib library;
    char error[SH_FINDING_TEXT];
} part;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static part cudnn_part, nvrtc_part;
static int cuda; /* major version of the CUDA that the found cuDNN is for */

static void open_part(const sh_dynlib_spec *spec, void *calls, part *out)
{
    out->status = sh_dynlib_open(spec, calls, &out->library);
    if (out->status == SH_OK) return;
    snprintf(out->error, sizeof(out->error), "%s", sh_error_message());
    sh_error_clear();
}

/* cuDNN asks the loader for NVRTC by its name, and NVRTC so for its builtins: what is loaded
 * already is taken, wherever it came from. */
static void open_nvrtc(void)
{
    static const char *const version = "nvrtcVersion";
    static void *call;
    char file[64];

    cuda = (int)(sh_cudnn_lib.GetCudartVersion() / 1000);
    snprintf(file, sizeof(file), "libnvrtc.so.%d", cuda);
    const sh_dynlib_spec nvrtc = {.file = file,
                                  .like = "libnvrtc.so.*",
                                  .needs = "libnvrtc-builtins.so.*",
                                  .functions = &version,
                                  .n_functions = 1};
    open_part(&nvrtc, &call, &nvrtc_part);
}

static void open_once(void)
{
    open_part(&cudnn, &sh_cudnn_lib, &cudnn_part);
    if (cudnn_part.status == SH_OK) open_nvrtc();
}

sh_status sh_cudnn_library_open(void)
{
    sh_status st = SH_OK;

    pthread_once(&once, open_once);
    SH_CHECK(cudnn_part.status == SH_OK, cudnn_part.status, "cuDNN: %s", cudnn_part.error);
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
    bool is_there = sh_cudnn_library_open() == SH_OK;
    int n = is_there ? 2 : 1;

    if (max < n) return 0;
    out[0] = (sh_finding){.what = "cudnn", .is_needed = true};
    describe_part(&cudnn_part, &out[0]);
    if (!is_there) {
        sh_error_clear();
        snprintf(out->remedy, sizeof(out->remedy),
                 "dense convolutions are cuDNN's (9.8 or later): name its folder in CUDNN_ROOT, "
                 "load the site's module, or pip install nvidia-cudnn-cu%d",
                 CUDART_VERSION / 1000);
        return n;
    }
    out[1] = (sh_finding){.what = "nvrtc"};
    describe_part(&nvrtc_part, &out[1]);
    if (nvrtc_part.status != SH_OK)
        snprintf(out[1].remedy, sizeof(out[1].remedy),
                 "cuDNN does without the engines that compile their kernels: CUDA %d has it "
                 "(CUDA_HOME), and so has Python's package nvidia-cuda-nvrtc",
                 cuda);
    return n;
}
