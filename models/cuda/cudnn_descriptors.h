// SPDX-License-Identifier: Apache-2.0
/**
 * cuDNN's descriptors, for the files that call cuDNN: each is created, given attributes from a
 * table, finalised. Those of one graph are destroyed together.
 */
#ifndef SH_MODELS_CUDA_CUDNN_DESCRIPTORS_H
#define SH_MODELS_CUDA_CUDNN_DESCRIPTORS_H

#include "models/cuda/cudnn_graph.h"
#include "models/cuda/cudnn_library.h"

enum {
    SH_CUDNN_MAX_DESCRIPTORS = 48, /* of one graph with its plan */
    SH_CUDNN_MESSAGE_BYTES = 1024,
};

/** Names of tensors within a graph. */
enum { SH_CUDNN_UID_X = 1, SH_CUDNN_UID_W, SH_CUDNN_UID_Y, SH_CUDNN_UID_SUM };

#define SH_CUDNN_CHECK(call, status, what)                                                         \
    do {                                                                                           \
        cudnnStatus_t cudnn_check = (call);                                                        \
        char cudnn_said[SH_CUDNN_MESSAGE_BYTES] = "";                                              \
        if (cudnn_check != CUDNN_STATUS_SUCCESS)                                                   \
            sh_cudnn_lib.GetLastErrorString(cudnn_said, sizeof(cudnn_said));                       \
        SH_CHECK(cudnn_check == CUDNN_STATUS_SUCCESS, status, "cuDNN: %s: %s: %s", what,           \
                 sh_cudnn_lib.GetErrorString(cudnn_check), cudnn_said);                            \
    } while (0)

typedef cudnnBackendDescriptor_t sh_cudnn_descriptor;

typedef struct sh_cudnn_graph {
    sh_cudnn_descriptor all[SH_CUDNN_MAX_DESCRIPTORS];
    int n;
    sh_cudnn_descriptor operations; /* the operation graph; one of `all` */
} sh_cudnn_graph;

typedef struct sh_cudnn_attribute {
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t count;
    const void *value;
} sh_cudnn_attribute;

/** Start the library for this process's device, or for the described one; once. */
SH_MUST_CHECK sh_status sh_cudnn_enter(void);

/** NULL: plans are for a described device. */
cudnnHandle_t sh_cudnn_handle(void);

/** An unfinished descriptor of the graph. */
SH_MUST_CHECK sh_status sh_cudnn_add(sh_cudnn_graph *g, cudnnBackendDescriptorType_t type,
                                     sh_cudnn_descriptor *out);

/** A descriptor with its attributes; those without a value are left out. `what`: for errors. */
SH_MUST_CHECK sh_status sh_cudnn_build(sh_cudnn_graph *g, cudnnBackendDescriptorType_t type,
                                       const char *what, const sh_cudnn_attribute *attributes,
                                       size_t n, sh_cudnn_descriptor *out);

#define SH_CUDNN_BUILD(g, type, what, table, out)                                                  \
    sh_cudnn_build(g, type, what, table, SH_COUNT(table), out)

/** The described device as the attribute `name`; without a value where there is none. */
sh_cudnn_attribute sh_cudnn_for_device(cudnnBackendAttributeName_t name);

/** The operation graph of a convolution. */
SH_MUST_CHECK sh_status sh_cudnn_build_graph(const sh_cudnn_conv *conv, sh_cudnn_graph *g);

/** Destroy what it has; it can be used again. */
void sh_cudnn_clear_graph(sh_cudnn_graph *g);

/** See sh_cudnn_api.describe. */
SH_MUST_CHECK sh_status sh_cudnn_describe(char *out, size_t size);

#endif
