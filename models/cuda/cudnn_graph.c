// SPDX-License-Identifier: Apache-2.0
/* cuDNN's descriptors: each is created, given attributes from a table, finalised. Those of one
 * graph are destroyed together, in reverse order. */
#include "models/cuda/cudnn_graph.h"

#include <cudnn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "models/cuda/memory.h"

typedef cudnnBackendDescriptor_t descriptor;

enum {
    MAX_DESCRIPTORS = 48, /* of one graph with its plan */
    MAX_CONFIGS = 64,     /* asked of one heuristic */
    MAX_KNOBS = 16,
    MAX_NOTES = 16,
    MESSAGE_BYTES = 1024,
    ALIGNMENT_BYTES = 16,
};

/** Names of tensors within a graph. */
enum { UID_X = 1, UID_W, UID_Y, UID_SUM };

#define CUDNN_CHECK(call, status, what)                                                            \
    do {                                                                                           \
        cudnnStatus_t cudnn_check = (call);                                                        \
        char cudnn_said[MESSAGE_BYTES] = "";                                                       \
        if (cudnn_check != CUDNN_STATUS_SUCCESS)                                                   \
            cudnnGetLastErrorString(cudnn_said, sizeof(cudnn_said));                               \
        SH_CHECK(cudnn_check == CUDNN_STATUS_SUCCESS, status, "cuDNN: %s: %s: %s", what,           \
                 cudnnGetErrorString(cudnn_check), cudnn_said);                                    \
    } while (0)

/* ---- the library ---- */

static struct {
    pthread_once_t once;
    sh_status opened;
    char error[MESSAGE_BYTES];
    cudnnHandle_t handle;  /* NULL: plans for a described device */
    descriptor properties; /* of the described device, or NULL */
} library = {.once = PTHREAD_ONCE_INIT};

static sh_status open_handle(void)
{
    sh_status st = SH_OK;
    cudnnHandle_t handle = NULL;

    SH_TRY(sh_cuda_enter());
    CUDNN_CHECK(cudnnCreate(&handle), SH_ERR_UNSUPPORTED, "starting");
    CUDNN_CHECK(cudnnSetStream(handle, sh_cuda_stream()), SH_ERR_UNSUPPORTED, "its stream");
    library.handle = handle;
    handle = NULL;
out:
    if (handle != NULL) (void)cudnnDestroy(handle);
    return st;
}

static void open_once(void)
{
    if (library.properties != NULL) return;
    library.opened = open_handle();
    if (library.opened != SH_OK)
        snprintf(library.error, sizeof(library.error), "%s", sh_error_message());
}

static sh_status enter_library(void)
{
    sh_status st = SH_OK;

    pthread_once(&library.once, open_once);
    SH_CHECK(library.opened == SH_OK, library.opened, "%s", library.error);
out:
    return st;
}

/* ---- descriptors ---- */

typedef struct graph {
    descriptor all[MAX_DESCRIPTORS];
    int n;
    descriptor operations; /* the operation graph; one of `all` */
} graph;

struct sh_cudnn_plan {
    graph g;
    descriptor plan;
    int64_t workspace_bytes;
    graph operands; /* as a descriptor, kept for the next run, which mostly has the same */
    descriptor pack;
    sh_cudnn_operands packed;
};

typedef struct attribute {
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t count;
    const void *value;
} attribute;

static void clear_graph(graph *g)
{
    while (g->n > 0) (void)cudnnBackendDestroyDescriptor(g->all[--g->n]);
}

/** An unfinished descriptor of the graph. */
static sh_status add(graph *g, cudnnBackendDescriptorType_t type, descriptor *out)
{
    sh_status st = SH_OK;

    SH_CHECK(g->n < MAX_DESCRIPTORS, SH_ERR_INTERNAL, "more than %d descriptors", MAX_DESCRIPTORS);
    CUDNN_CHECK(cudnnBackendCreateDescriptor(type, &g->all[g->n]), SH_ERR_INTERNAL, "a descriptor");
    *out = g->all[g->n++];
out:
    return st;
}

/** A descriptor with its attributes; those without a value are left out. */
static sh_status build(graph *g, cudnnBackendDescriptorType_t type, const char *what,
                       const attribute *attributes, size_t n, descriptor *out)
{
    sh_status st = SH_OK;
    descriptor d;

    SH_TRY(add(g, type, &d));
    for (size_t i = 0; i < n; i++) {
        const attribute *a = &attributes[i];
        if (a->value == NULL) continue;
        CUDNN_CHECK(cudnnBackendSetAttribute(d, a->name, a->type, a->count, a->value),
                    SH_ERR_UNSUPPORTED, what);
    }
    CUDNN_CHECK(cudnnBackendFinalize(d), SH_ERR_UNSUPPORTED, what);
    *out = d;
out:
    return st;
}

#define BUILD(g, type, what, table, out) build(g, type, what, table, SH_COUNT(table), out)

/** The attribute only where there is a described device. */
static attribute for_device(cudnnBackendAttributeName_t name)
{
    return (attribute){name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                       library.properties != NULL ? &library.properties : NULL};
}

static sh_status tensor(graph *g, int64_t uid, cudnnDataType_t type, const int64_t dims[4],
                        bool is_virtual, descriptor *out)
{
    const int64_t strides[4] = {dims[1] * dims[2] * dims[3], 1, dims[1] * dims[3], dims[1]};
    const int64_t alignment = ALIGNMENT_BYTES;
    const attribute table[] = {
        {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type},
        {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims},
        {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides},
        {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid},
        {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment},
        {CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual},
    };

    return BUILD(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR, "a tensor", table, out);
}

static sh_status convolution(graph *g, const sh_cudnn_conv *c, descriptor *out)
{
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t n_dims = 2;
    const attribute table[] = {
        {CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32},
        {CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode},
        {CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &n_dims},
        {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, c->pad},
        {CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, c->pad + 2},
        {CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, c->stride},
        {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, c->dilation},
    };

    return BUILD(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, "a convolution", table, out);
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
static sh_status identity(graph *g, descriptor from, descriptor to, descriptor *out)
{
    sh_status st = SH_OK;
    const cudnnPointwiseMode_t mode = CUDNN_POINTWISE_IDENTITY;
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    descriptor what;
    const attribute about[] = {
        {CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode},
        {CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &f32},
    };

    SH_TRY(BUILD(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, "a copy", about, &what));
    const attribute table[] = {
        {CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &what},
        {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &from},
        {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &to},
    };
    SH_TRY(BUILD(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, "a copy", table, out));
out:
    return st;
}

static cudnnDataType_t type_of(sh_dtype dtype)
{
    return dtype == SH_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

/* The gradient of bf16 weights in f32: no engine stores it so, but some give it to a pointwise
 * operation before it is rounded, and a copy is one. */
static sh_status build_graph(const sh_cudnn_conv *c, graph *g)
{
    sh_status st = SH_OK;
    const struct operation *op = &operations[c->kind];
    const cudnnDataType_t maps = type_of(c->dtype);
    const cudnnDataType_t weights = c->kind == SH_CUDNN_GRAD_W ? type_of(c->dw) : maps;
    const int64_t w_dims[4] = {c->y[1], c->x[1], c->kernel[0], c->kernel[1]};
    const bool copies = weights != maps;
    const float one = 1, zero = 0;
    descriptor x, w, y, sum, conv, all[2];

    SH_TRY(tensor(g, UID_X, maps, c->x, false, &x));
    SH_TRY(tensor(g, UID_W, weights, w_dims, false, &w));
    SH_TRY(tensor(g, UID_Y, maps, c->y, false, &y));
    if (copies) SH_TRY(tensor(g, UID_SUM, weights, w_dims, true, &sum));
    SH_TRY(convolution(g, c, &conv));
    const attribute table[] = {
        {op->x, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x},
        {op->w, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, copies ? &sum : &w},
        {op->y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y},
        {op->conv, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &conv},
        {op->alpha, CUDNN_TYPE_FLOAT, 1, &one},
        {op->beta, CUDNN_TYPE_FLOAT, 1, &zero},
    };
    SH_TRY(BUILD(g, op->type, "a convolution", table, &all[0]));
    if (copies) SH_TRY(identity(g, sum, w, &all[1]));
    const attribute operations_of[] = {
        {CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, copies ? 2 : 1, all},
    };
    SH_TRY(BUILD(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, "a graph", operations_of,
                 &g->operations));
out:
    return st;
}

/* ---- choices ---- */

/** Whose results are not the same each time, or are less exact than f32 sums of the operands. */
static bool is_refused(descriptor engine, sh_dtype dtype)
{
    static const bool refused[CUDNN_NUMERICAL_NOTE_TYPE_COUNT] = {
        [CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS] = true,
        [CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION] = true,
        [CUDNN_NUMERICAL_NOTE_FFT] = true,
        [CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC] = true,
        [CUDNN_NUMERICAL_NOTE_WINOGRAD] = true,
        [CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4] = true,
        [CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6] = true,
        [CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13] = true,
    };
    cudnnBackendNumericalNote_t notes[MAX_NOTES];
    int64_t n = 0;

    if (cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, MAX_NOTES, &n,
                                 notes) != CUDNN_STATUS_SUCCESS)
        return true;
    for (int64_t i = 0; i < n; i++) {
        if ((size_t)notes[i] >= SH_COUNT(refused) || refused[notes[i]]) return true;
        if (dtype == SH_F32 && notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE) return true; /* TF32 */
    }
    return false;
}

/** "e62 2=7 13=1" of an engine's configuration. */
static sh_status write_choice(graph *g, descriptor config, descriptor engine, sh_cudnn_choice *out)
{
    sh_status st = SH_OK;
    descriptor knobs[MAX_KNOBS];
    int64_t index, n = 0, n_bytes;

    CUDNN_CHECK(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64,
                                         1, &n, &index),
                SH_ERR_INTERNAL, "an engine's number");
    n_bytes = snprintf(out->text, sizeof(out->text), "e%lld", (long long)index);
    for (int i = 0; i < MAX_KNOBS; i++)
        SH_TRY(add(g, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knobs[i]));
    CUDNN_CHECK(cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, MAX_KNOBS, &n, knobs),
                SH_ERR_INTERNAL, "an engine's knobs");
    SH_CHECK(n <= MAX_KNOBS, SH_ERR_INTERNAL, "cuDNN: an engine with %lld knobs", (long long)n);
    for (int64_t i = 0, one = 0; i < n; i++) {
        cudnnBackendKnobType_t type;
        int64_t value;
        CUDNN_CHECK(cudnnBackendGetAttribute(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE,
                                             CUDNN_TYPE_KNOB_TYPE, 1, &one, &type),
                    SH_ERR_INTERNAL, "a knob");
        CUDNN_CHECK(cudnnBackendGetAttribute(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE,
                                             CUDNN_TYPE_INT64, 1, &one, &value),
                    SH_ERR_INTERNAL, "a knob");
        n_bytes += snprintf(out->text + n_bytes, sizeof(out->text) - (size_t)n_bytes, " %d=%lld",
                            (int)type, (long long)value);
        SH_CHECK(n_bytes < (int64_t)sizeof(out->text), SH_ERR_INTERNAL, "cuDNN: a long choice");
    }
out:
    return st;
}

static bool is_among(const sh_cudnn_choice *choices, int n, const sh_cudnn_choice *one)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(choices[i].text, one->text) == 0) return true;
    }
    return false;
}

/** Append the choice that a configuration is, unless it is refused. */
static sh_status take_config(descriptor config, sh_dtype dtype, sh_cudnn_choice *out, int *n)
{
    sh_status st = SH_OK;
    graph g = {0};
    descriptor engine;
    int64_t one = 0;

    SH_TRY(add(&g, CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine));
    CUDNN_CHECK(cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &one, &engine),
                SH_ERR_INTERNAL, "an engine");
    if (is_refused(engine, dtype)) goto out;
    SH_TRY(write_choice(&g, config, engine, &out[*n]));
    *n += !is_among(out, *n, &out[*n]);
out:
    clear_graph(&g);
    return st;
}

/** What a heuristic proposes, up to *n = max. A graph that it knows nothing for is no failure. */
static sh_status ask(const graph *g, cudnnBackendHeurMode_t mode, sh_dtype dtype, int max,
                     sh_cudnn_choice *out, int *n)
{
    sh_status st = SH_OK;
    graph own = {0};
    descriptor heuristic, *configs = calloc(MAX_CONFIGS, sizeof(*configs));
    int64_t n_configs = 0;
    int n_made = 0;
    const attribute table[] = {
        {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->operations},
        {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode},
        for_device(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP),
    };

    SH_CHECK(configs != NULL, SH_ERR_NO_MEMORY, "cuDNN's configurations");
    if (BUILD(&own, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, "a heuristic", table, &heuristic) !=
        SH_OK) {
        sh_error_clear();
        goto out;
    }
    for (; n_made < MAX_CONFIGS; n_made++)
        CUDNN_CHECK(
            cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[n_made]),
            SH_ERR_INTERNAL, "a configuration");
    /* Where it has fewer than were asked for it may say that it failed; the count is right. */
    (void)cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                   CUDNN_TYPE_BACKEND_DESCRIPTOR, MAX_CONFIGS, &n_configs, configs);
    for (int64_t i = 0; i < n_configs && i < MAX_CONFIGS && *n < max; i++)
        SH_TRY(take_config(configs[i], dtype, out, n));
out:
    for (int i = 0; i < n_made; i++) (void)cudnnBackendDestroyDescriptor(configs[i]);
    free(configs);
    clear_graph(&own);
    return st;
}

static sh_status choices_of(const sh_cudnn_conv *conv, int max, sh_cudnn_choice *out, int *n)
{
    sh_status st = SH_OK;
    graph g = {0};
    sh_cudnn_choice *found = calloc((size_t)max + 1, sizeof(*found)); /* one to write into */

    SH_CHECK(found != NULL, SH_ERR_NO_MEMORY, "cuDNN's choices");
    SH_TRY(enter_library());
    SH_TRY(build_graph(conv, &g));
    *n = 0;
    SH_TRY(ask(&g, CUDNN_HEUR_MODE_A, conv->dtype, max, found, n));
    if (*n == 0) SH_TRY(ask(&g, CUDNN_HEUR_MODE_FALLBACK, conv->dtype, max, found, n));
    memcpy(out, found, (size_t)*n * sizeof(*out));
out:
    free(found);
    clear_graph(&g);
    return st;
}

/* ---- plans ---- */

static sh_status read_choice(graph *g, const char *choice, descriptor *config)
{
    sh_status st = SH_OK;
    descriptor engine, knobs[MAX_KNOBS];
    long long index, value;
    int type, n_chars = 0, n = 0;

    SH_CHECK(sscanf(choice, "e%lld%n", &index, &n_chars) == 1, SH_ERR_FORMAT,
             "\"%s\" is no choice of an engine of cuDNN", choice);
    const int64_t number = index;
    const attribute about[] = {
        {CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->operations},
        {CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &number},
        for_device(CUDNN_ATTR_ENGINE_DEVICEPROP),
    };
    SH_TRY(BUILD(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR, "an engine", about, &engine));
    for (const char *at = choice + n_chars; sscanf(at, " %d=%lld%n", &type, &value, &n_chars) == 2;
         at += n_chars) {
        const cudnnBackendKnobType_t knob = (cudnnBackendKnobType_t)type;
        const int64_t setting = value;
        const attribute table[] = {
            {CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &knob},
            {CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &setting},
        };
        SH_CHECK(n < MAX_KNOBS, SH_ERR_FORMAT, "\"%s\" has too many knobs", choice);
        SH_TRY(BUILD(g, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, "a knob", table, &knobs[n++]));
    }
    const attribute table[] = {
        {CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine},
        {CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, n, n > 0 ? knobs : NULL},
    };
    SH_TRY(BUILD(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, "a configuration", table, config));
out:
    return st;
}

static void release_plan(sh_cudnn_plan **plan)
{
    if (*plan == NULL) return;
    clear_graph(&(*plan)->operands);
    clear_graph(&(*plan)->g);
    free(*plan);
    *plan = NULL;
}

static sh_status plan_of(const sh_cudnn_conv *conv, const char *choice, sh_cudnn_plan **out)
{
    sh_status st = SH_OK;
    sh_cudnn_plan *p = calloc(1, sizeof(*p));
    descriptor config;
    int64_t n = 0;

    SH_CHECK(p != NULL, SH_ERR_NO_MEMORY, "a plan of cuDNN");
    SH_TRY(enter_library());
    SH_TRY(build_graph(conv, &p->g));
    SH_TRY(read_choice(&p->g, choice, &config));
    const attribute table[] = {
        {CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
         library.handle != NULL ? &library.handle : NULL},
        for_device(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP),
        {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config},
    };
    SH_TRY(BUILD(&p->g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, "a plan", table, &p->plan));
    CUDNN_CHECK(cudnnBackendGetAttribute(p->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                         CUDNN_TYPE_INT64, 1, &n, &p->workspace_bytes),
                SH_ERR_INTERNAL, "a plan's workspace");
    *out = p;
    p = NULL;
out:
    release_plan(&p);
    return st;
}

static size_t workspace_bytes(const sh_cudnn_plan *plan)
{
    return (size_t)plan->workspace_bytes;
}

static sh_status pack_operands(sh_cudnn_plan *plan, const sh_cudnn_operands *at)
{
    const int64_t uids[] = {UID_X, UID_W, UID_Y};
    const void *const pointers[] = {at->x, at->w, at->y};
    const attribute table[] = {
        {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, SH_COUNT(uids), uids},
        {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, SH_COUNT(pointers), pointers},
        {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &at->workspace},
    };

    clear_graph(&plan->operands);
    plan->packed = *at;
    return BUILD(&plan->operands, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, "operands", table,
                 &plan->pack);
}

static sh_status run(sh_cudnn_plan *plan, const sh_cudnn_operands *at)
{
    sh_status st = SH_OK;
    const sh_cudnn_operands *p = &plan->packed;

    if (plan->operands.n == 0 || p->x != at->x || p->w != at->w || p->y != at->y ||
        p->workspace != at->workspace)
        SH_TRY(pack_operands(plan, at));
    CUDNN_CHECK(cudnnBackendExecute(library.handle, plan->plan, plan->pack), SH_ERR_INTERNAL,
                "running a plan");
out:
    return st;
}

/* ---- devices ---- */

/** Finalised properties: of a description, or of the handle's device. */
static sh_status properties_of(graph *g, const char *json, descriptor *out)
{
    const attribute table[] = {
        {CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
         json != NULL ? (int64_t)strlen(json) : 0, json},
        {CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1, json == NULL ? &library.handle : NULL},
    };

    return BUILD(g, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, "a device's description", table, out);
}

static char *json_of(descriptor properties)
{
    int64_t n = 0;

    (void)cudnnBackendGetAttribute(properties, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                   CUDNN_TYPE_CHAR, 0, &n, NULL);
    char *json = calloc((size_t)n + 1, 1);
    if (json != NULL &&
        cudnnBackendGetAttribute(properties, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                 CUDNN_TYPE_CHAR, n, &n, json) != CUDNN_STATUS_SUCCESS) {
        free(json);
        json = NULL;
    }
    return json;
}

sh_status sh_cudnn_library_describe_device(const char *json)
{
    graph g = {0};
    sh_status st = properties_of(&g, json, &library.properties);

    if (st != SH_OK) clear_graph(&g); /* otherwise the process keeps it */
    return st;
}

sh_status sh_cudnn_library_device(char **json)
{
    sh_status st = SH_OK;
    graph g = {0};
    descriptor properties = library.properties;

    SH_TRY(enter_library());
    if (properties == NULL) SH_TRY(properties_of(&g, NULL, &properties));
    *json = json_of(properties);
    SH_CHECK(*json != NULL, SH_ERR_UNSUPPORTED, "cuDNN does not describe its device");
out:
    clear_graph(&g);
    return st;
}

static sh_status describe(char *out, size_t size)
{
    sh_status st = SH_OK;
    const size_t version = cudnnGetVersion();
    char *json = NULL, device[128] = "";

    SH_TRY(sh_cudnn_library_device(&json));
    const char *name = strstr(json, "\"deviceName\"");
    if (name != NULL) (void)sscanf(name, "\"deviceName\" : \"%127[^\"]", device);
    snprintf(out, size, "cuDNN %zu.%zu.%zu, %s", version / 10000, version / 100 % 100,
             version % 100, device);
out:
    free(json);
    return st;
}

const sh_cudnn_api sh_cudnn_library = {.describe = describe,
                                       .choices = choices_of,
                                       .plan = plan_of,
                                       .workspace_bytes = workspace_bytes,
                                       .run = run,
                                       .release = release_plan};
