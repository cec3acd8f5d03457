// SPDX-License-Identifier: Apache-2.0
#include "models/cuda/cudnn_descriptors.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "models/cuda/memory.h"

enum { ALIGNMENT_BYTES = 16 };

/* ---- the library ---- */

static struct {
    pthread_once_t once;
    sh_status opened;
    char error[SH_CUDNN_MESSAGE_BYTES];
    cudnnHandle_t handle;           /* NULL: plans for a described device */
    sh_cudnn_descriptor properties; /* of the described device, or NULL */
} library = {.once = PTHREAD_ONCE_INIT};

static sh_status open_handle(void)
{
    sh_status st = SH_OK;
    cudnnHandle_t handle = NULL;

    SH_TRY(sh_cuda_enter());
    SH_CUDNN_CHECK(sh_cudnn_lib.Create(&handle), SH_ERR_UNSUPPORTED, "starting");
    SH_CUDNN_CHECK(sh_cudnn_lib.SetStream(handle, sh_cuda_stream()), SH_ERR_UNSUPPORTED,
                   "its stream");
    library.handle = handle;
    handle = NULL;
out:
    if (handle != NULL) (void)sh_cudnn_lib.Destroy(handle);
    return st;
}

static void open_once(void)
{
    if (library.properties != NULL) return;
    library.opened = open_handle();
    if (library.opened != SH_OK)
        snprintf(library.error, sizeof(library.error), "%s", sh_error_message());
}

sh_status sh_cudnn_enter(void)
{
    sh_status st = SH_OK;

    SH_TRY(sh_cudnn_library_open());
    pthread_once(&library.once, open_once);
    SH_CHECK(library.opened == SH_OK, library.opened, "%s", library.error);
out:
    return st;
}

cudnnHandle_t sh_cudnn_handle(void)
{
    return library.handle;
}

/* ---- descriptors ---- */

void sh_cudnn_clear_graph(sh_cudnn_graph *g)
{
    while (g->n > 0) (void)sh_cudnn_lib.BackendDestroyDescriptor(g->all[--g->n]);
}

sh_status sh_cudnn_add(sh_cudnn_graph *g, cudnnBackendDescriptorType_t type,
                       sh_cudnn_descriptor *out)
{
    sh_status st = SH_OK;

    SH_CHECK(g->n < SH_CUDNN_MAX_DESCRIPTORS, SH_ERR_INTERNAL, "more than %d descriptors",
             SH_CUDNN_MAX_DESCRIPTORS);
    SH_CUDNN_CHECK(sh_cudnn_lib.BackendCreateDescriptor(type, &g->all[g->n]), SH_ERR_INTERNAL,
                   "a descriptor");
    *out = g->all[g->n++];
out:
    return st;
}

sh_status sh_cudnn_build(sh_cudnn_graph *g, cudnnBackendDescriptorType_t type, const char *what,
                         const sh_cudnn_attribute *attributes, size_t n, sh_cudnn_descriptor *out)
{
    sh_status st = SH_OK;
    sh_cudnn_descriptor d;

    SH_TRY(sh_cudnn_add(g, type, &d));
    for (size_t i = 0; i < n; i++) {
        const sh_cudnn_attribute *a = &attributes[i];
        if (a->value == NULL) continue;
        SH_CUDNN_CHECK(sh_cudnn_lib.BackendSetAttribute(d, a->name, a->type, a->count, a->value),
                       SH_ERR_UNSUPPORTED, what);
    }
    SH_CUDNN_CHECK(sh_cudnn_lib.BackendFinalize(d), SH_ERR_UNSUPPORTED, what);
    *out = d;
out:
    return st;
}

sh_cudnn_attribute sh_cudnn_for_device(cudnnBackendAttributeName_t name)
{
    return (sh_cudnn_attribute){name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                library.properties != NULL ? &library.properties : NULL};
}

/** pitch: elements from a pixel to the next. */
static sh_status tensor(sh_cudnn_graph *g, int64_t uid, cudnnDataType_t type, const int64_t dims[4],
                        int64_t pitch, bool is_virtual, sh_cudnn_descriptor *out)
{
    const int64_t strides[4] = {pitch * dims[2] * dims[3], 1, pitch * dims[3], pitch};
    const int64_t alignment = ALIGNMENT_BYTES;
    const sh_cudnn_attribute table[] = {
        {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type},
        {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims},
        {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides},
        {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid},
        {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment},
        {CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual},
    };

    return SH_CUDNN_BUILD(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR, "a tensor", table, out);
}

static sh_status convolution(sh_cudnn_graph *g, const sh_cudnn_conv *c, sh_cudnn_descriptor *out)
{
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t n_dims = 2;
    const sh_cudnn_attribute table[] = {
        {CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32},
        {CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode},
        {CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &n_dims},
        {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, c->pad},
        {CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, c->pad + 2},
        {CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, c->stride},
        {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, c->dilation},
    };

    return SH_CUDNN_BUILD(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, "a convolution", table, out);
}

/** The three operations differ in the names of their attributes alone. */
static const struct operation {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t x, w, y, conv, alpha, beta;
} operations[] = {
    [SH_CUDNN_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    [SH_CUDNN_GRAD_X] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    [SH_CUDNN_GRAD_W] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

/** from -> to, both f32. */
static sh_status identity(sh_cudnn_graph *g, sh_cudnn_descriptor from, sh_cudnn_descriptor to,
                          sh_cudnn_descriptor *out)
{
    sh_status st = SH_OK;
    const cudnnPointwiseMode_t mode = CUDNN_POINTWISE_IDENTITY;
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    sh_cudnn_descriptor what;
    const sh_cudnn_attribute about[] = {
        {CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode},
        {CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &f32},
    };

    SH_TRY(SH_CUDNN_BUILD(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, "a copy", about, &what));
    const sh_cudnn_attribute table[] = {
        {CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &what},
        {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &from},
        {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &to},
    };
    SH_TRY(SH_CUDNN_BUILD(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, "a copy", table, out));
out:
    return st;
}

static cudnnDataType_t type_of(sh_dtype dtype)
{
    return dtype == SH_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

/* The gradient of bf16 weights in f32: no engine stores it so, but some give it to a pointwise
 * operation before it is rounded, and a copy is one. */
sh_status sh_cudnn_build_graph(const sh_cudnn_conv *c, sh_cudnn_graph *g)
{
    sh_status st = SH_OK;
    const struct operation *op = &operations[c->kind];
    const cudnnDataType_t maps = type_of(c->dtype);
    const cudnnDataType_t weights = c->kind == SH_CUDNN_GRAD_W ? type_of(c->dw) : maps;
    const int64_t w_dims[4] = {c->y[1], c->x[1], c->kernel[0], c->kernel[1]};
    const bool copies = weights != maps;
    const float one = 1, zero = 0;
    sh_cudnn_descriptor x, w, y, sum, conv, all[2];

    SH_TRY(tensor(g, SH_CUDNN_UID_X, maps, c->x, c->x_pitch, false, &x));
    SH_TRY(tensor(g, SH_CUDNN_UID_W, weights, w_dims, c->x[1], false, &w));
    SH_TRY(tensor(g, SH_CUDNN_UID_Y, maps, c->y, c->y[1], false, &y));
    if (copies) SH_TRY(tensor(g, SH_CUDNN_UID_SUM, weights, w_dims, c->x[1], true, &sum));
    SH_TRY(convolution(g, c, &conv));
    const sh_cudnn_attribute table[] = {
        {op->x, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x},
        {op->w, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, copies ? &sum : &w},
        {op->y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y},
        {op->conv, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &conv},
        {op->alpha, CUDNN_TYPE_FLOAT, 1, &one},
        {op->beta, CUDNN_TYPE_FLOAT, 1, &zero},
    };
    SH_TRY(SH_CUDNN_BUILD(g, op->type, "a convolution", table, &all[0]));
    if (copies) SH_TRY(identity(g, sum, w, &all[1]));
    const sh_cudnn_attribute operations_of[] = {
        {CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, copies ? 2 : 1, all},
    };
    SH_TRY(SH_CUDNN_BUILD(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, "a graph", operations_of,
                          &g->operations));
out:
    return st;
}

/* ---- devices ---- */

/** Finalised properties: of a description, or of the handle's device. */
static sh_status properties_of(sh_cudnn_graph *g, const char *json, sh_cudnn_descriptor *out)
{
    const sh_cudnn_attribute table[] = {
        {CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
         json != NULL ? (int64_t)strlen(json) : 0, json},
        {CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1, json == NULL ? &library.handle : NULL},
    };

    return SH_CUDNN_BUILD(g, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, "a device's description", table,
                          out);
}

static char *json_of(sh_cudnn_descriptor properties)
{
    int64_t n = 0;

    (void)sh_cudnn_lib.BackendGetAttribute(properties, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                           CUDNN_TYPE_CHAR, 0, &n, NULL);
    char *json = calloc((size_t)n + 1, 1);
    if (json != NULL &&
        sh_cudnn_lib.BackendGetAttribute(properties, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                         CUDNN_TYPE_CHAR, n, &n, json) != CUDNN_STATUS_SUCCESS) {
        free(json);
        json = NULL;
    }
    return json;
}

sh_status sh_cudnn_library_describe_device(const char *json)
{
    sh_status st = SH_OK;
    sh_cudnn_graph g = {0};

    SH_TRY(sh_cudnn_library_open());
    SH_TRY(properties_of(&g, json, &library.properties));
    g.n = 0; /* the process keeps it */
out:
    sh_cudnn_clear_graph(&g);
    return st;
}

sh_status sh_cudnn_library_device(char **json)
{
    sh_status st = SH_OK;
    sh_cudnn_graph g = {0};
    sh_cudnn_descriptor properties = library.properties;

    SH_TRY(sh_cudnn_enter());
    if (properties == NULL) SH_TRY(properties_of(&g, NULL, &properties));
    *json = json_of(properties);
    SH_CHECK(*json != NULL, SH_ERR_UNSUPPORTED, "cuDNN does not describe its device");
out:
    sh_cudnn_clear_graph(&g);
    return st;
}

sh_status sh_cudnn_describe(char *out, size_t size)
{
    sh_status st = SH_OK;
    char *json = NULL, device[128] = "";

    SH_TRY(sh_cudnn_library_device(&json));
    const size_t version = sh_cudnn_lib.GetVersion();
    const char *name = strstr(json, "\"deviceName\"");
    if (name != NULL) (void)sscanf(name, "\"deviceName\" : \"%127[^\"]", device);
    snprintf(out, size, "cuDNN %zu.%zu.%zu, %s", version / 10000, version / 100 % 100,
             version % 100, device);
out:
    free(json);
    return st;
}
