// SPDX-License-Identifier: Apache-2.0
/**
 * Dense convolutions by cuDNN's graph API, or in tests by what stands in for it.
 *
 * Maps are channels innermost (SH_NHWC), f32 or bf16. Weights lie as cuDNN wants them,
 * [O][KH][KW][C] in the maps' type, and so does their gradient, in f32 or bf16. Sums are f32.
 *
 * A convolution has a key, a line of text that says all that a plan depends on. A plan has a
 * choice, "e62 2=7 13=1": cuDNN's number of an engine, and its knobs as type=value.
 */
#ifndef SH_MODELS_CUDA_CUDNN_GRAPH_H
#define SH_MODELS_CUDA_CUDNN_GRAPH_H

#include "models/backend.h"

SH_C_BEGIN

typedef enum sh_cudnn_kind {
    SH_CUDNN_FORWARD, /* y of x, w */
    SH_CUDNN_GRAD_X,  /* dx of dy, w */
    SH_CUDNN_GRAD_W,  /* dw of x, dy */
} sh_cudnn_kind;

typedef struct sh_cudnn_conv {
    sh_cudnn_kind kind;
    sh_dtype dtype;     /* of the maps */
    sh_dtype dw;        /* GRAD_W: of its result; bf16 only where the maps are */
    int64_t x[4], y[4]; /* N, C, H, W of x or dx, of y or dy */
    int64_t x_pitch;    /* elements from a pixel of x to the next: C, or more */
    int64_t kernel[2];
    int64_t stride[2], dilation[2];
    int64_t pad[4]; /* top, left, bottom, right */
    bool may_vary;  /* not in the key: engines that are noted as not repeatable serve too */
} sh_cudnn_conv;

enum { SH_CUDNN_CHOICE_BYTES = 192 };

typedef struct sh_cudnn_choice {
    char text[SH_CUDNN_CHOICE_BYTES];
} sh_cudnn_choice;

/** Device pointers, 16-byte aligned: of the roles that `kind` names, in and out. */
typedef struct sh_cudnn_operands {
    const void *x, *w, *y; /* the one that is the result is written */
    void *workspace;       /* as many bytes as the plan says */
} sh_cudnn_operands;

typedef struct sh_cudnn_plan sh_cudnn_plan; /* opaque */

typedef struct sh_cudnn_api {
    /** Name and version, with the device's: "cuDNN 9.19.0, NVIDIA H200". out[size] */
    sh_status (*describe)(char *out, size_t size);

    /** The library, and what it needs, into out[max]; their number. */
    int (*examine)(sh_finding *out, int max);

    /** Choices that may serve, the best guess first; *n of at most `max`, possibly 0. Left out are
     *  engines that cuDNN notes as not repeatable, unless conv->may_vary, and those that round more
     * than the sum's order explains: f32 operands cut to tensor cores' precision, bf16 sums,
     * transforms. */
    sh_status (*choices)(const sh_cudnn_conv *conv, int max, sh_cudnn_choice *out, int *n);

    /** Build what runs. The caller owns *out (release). SH_ERR_UNSUPPORTED where this library or
     *  device cannot do the choice. */
    sh_status (*plan)(const sh_cudnn_conv *conv, const char *choice, sh_cudnn_plan **out);
    size_t (*workspace_bytes)(const sh_cudnn_plan *plan);

    /** On the backend's stream; does not wait. */
    sh_status (*run)(sh_cudnn_plan *plan, const sh_cudnn_operands *at);
    void (*release)(sh_cudnn_plan **plan); /* NULL is fine */
} sh_cudnn_api;

/** What this process has of it: the library, in tests what stands in for it, or NULL. */
const sh_cudnn_api *sh_cuda_cudnn(void);

/** The library, which is looked for when it is first used (cudnn_library.h). In a build with
 *  cuDNN's header. SH_ERR_NOT_FOUND from any call: it is not there. */
extern const sh_cudnn_api sh_cudnn_library;

/** Make plans for the device that a description tells of, as cuDNN writes them, and that need not
 * be there: nothing can be run. To be called before anything else of the library. */
SH_MUST_CHECK sh_status sh_cudnn_library_describe_device(const char *json);

/** The description of the device that there is, malloc'd; the caller frees. */
SH_MUST_CHECK sh_status sh_cudnn_library_device(char **json);

SH_C_END

#endif
