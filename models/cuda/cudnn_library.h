// SPDX-License-Identifier: Apache-2.0
/** cuDNN as it is found at run time (base/dynlib.h): its header is needed to build, and its
 *  library only to use a device. */
#ifndef SH_MODELS_CUDA_CUDNN_LIBRARY_H
#define SH_MODELS_CUDA_CUDNN_LIBRARY_H

#include <cudnn.h>

#include "base/dynlib.h"
#include "base/finding.h"

SH_C_BEGIN

/** What is called of it. */
#define SH_CUDNN_CALLS(CALL)                                                                       \
    CALL(BackendCreateDescriptor)                                                                  \
    CALL(BackendDestroyDescriptor)                                                                 \
    CALL(BackendSetAttribute)                                                                      \
    CALL(BackendGetAttribute)                                                                      \
    CALL(BackendFinalize)                                                                          \
    CALL(BackendExecute)                                                                           \
    CALL(Create)                                                                                   \
    CALL(Destroy)                                                                                  \
    CALL(SetStream)                                                                                \
    CALL(GetVersion)                                                                               \
    CALL(GetCudartVersion)                                                                         \
    CALL(GetErrorString)                                                                           \
    CALL(GetLastErrorString)

#define SH_CUDNN_FIELD(name) __typeof__(&cudnn##name) name;
typedef struct sh_cudnn_calls {
    SH_CUDNN_CALLS(SH_CUDNN_FIELD)
} sh_cudnn_calls;

/** Usable once it was opened. */
extern sh_cudnn_calls sh_cudnn_lib;

/** Look for cuDNN, for cuBLASLt, which it needs, and for the compiler that some of its engines call
 *  (NVRTC); once. Thread-safe. SH_ERR_NOT_FOUND: there is no cuDNN that can be used. */
SH_MUST_CHECK sh_status sh_cudnn_library_open(void);

/** See sh_cudnn_api.examine: "cudnn" and "cublaslt", which are needed, and "nvrtc". */
int sh_cudnn_examine(sh_finding *out, int max);

SH_C_END

#endif
