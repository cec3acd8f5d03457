// SPDX-License-Identifier: Apache-2.0
/* Recordings as CUDA graphs, captured from the stream of what computes.
 *
 * Only this thread is watched while it captures: others may bring images in and allocate. */
#include "models/cuda/record.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>

#include "models/cuda/memory.h"

struct sh_recording {
    cudaGraphExec_t exec;
};

static sh_status check(cudaError_t error, const char *what)
{
    sh_status st = SH_OK;

    SH_CHECK(error == cudaSuccess, SH_ERR_INTERNAL,
             "CUDA graphs: %s: %s; graphs=false launches kernels one by one", what,
             cudaGetErrorString(error));
out:
    return st;
}

static sh_status begin(void)
{
    sh_status st = SH_OK;

    SH_TRY(sh_cuda_enter());
    SH_TRY(check(cudaStreamBeginCapture(sh_cuda_stream(), cudaStreamCaptureModeThreadLocal),
                 "beginning to record"));
out:
    return st;
}

static void destroy(sh_recording **recording)
{
    if (*recording == NULL) return;
    if ((*recording)->exec != NULL) (void)cudaGraphExecDestroy((*recording)->exec);
    free(*recording);
    *recording = NULL;
}

static void drop(void)
{
    cudaGraph_t graph = NULL;

    if (cudaStreamEndCapture(sh_cuda_stream(), &graph) == cudaSuccess && graph != NULL)
        (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError(); /* the failure has been told */
}

static sh_status end(sh_recording **out)
{
    sh_status st = SH_OK;
    cudaGraph_t graph = NULL;
    sh_recording *recording = NULL;

    SH_TRY(check(cudaStreamEndCapture(sh_cuda_stream(), &graph), "recording"));
    recording = calloc(1, sizeof(*recording));
    SH_CHECK(recording != NULL, SH_ERR_NO_MEMORY, "a recording");
    SH_TRY(check(cudaGraphInstantiate(&recording->exec, graph, 0), "building a graph"));
    *out = recording;
    recording = NULL;
out:
    if (graph != NULL) (void)cudaGraphDestroy(graph);
    destroy(&recording);
    return st;
}

static sh_status play(sh_recording *recording)
{
    return check(cudaGraphLaunch(recording->exec, sh_cuda_stream()), "launching a graph");
}

const sh_recorder sh_cuda_recorder = {
    .begin = begin, .end = end, .drop = drop, .play = play, .destroy = destroy};
