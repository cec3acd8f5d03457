// SPDX-License-Identifier: Apache-2.0
/*
 * Dense and grouped convolutions by oneDNN, in two variants: with operands where they stand, taken
 * only where oneDNN has a compiled (jit, brgemm) implementation for these layouts; and with
 * oneDNN's own choice of layouts and reorders around, for shapes that the first cannot do.
 *
 * Blocked tensors are described to oneDNN with their padding channels as ordinary ones: these hold
 * zeros, and so does the padding of the weights, so that they stay zero and oneDNN need not touch
 * them. Primitives, memory objects and offsets are made once; a run sets pointers and executes.
 */
#include "models/cpu/kernels.h"

#include <dnnl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

typedef enum pass { FORWARD, BACKWARD_X, BACKWARD_W } pass;
typedef enum variant { DIRECT, ANY } variant;

static dnnl_engine_t engine;
static dnnl_stream_t stream;
static dnnl_primitive_attr_t
    user_scratch; /* scratchpads are ours, so that a step allocates nothing */
static bool is_ready;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void start_library(void)
{
    is_ready = dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success &&
               dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) == dnnl_success &&
               dnnl_primitive_attr_create(&user_scratch) == dnnl_success &&
               dnnl_primitive_attr_set_scratchpad_mode(user_scratch, dnnl_scratchpad_mode_user) ==
                   dnnl_success;
}

#define DN_CHECK(call)                                                                             \
    SH_CHECK((call) == dnnl_success, SH_ERR_UNSUPPORTED, "oneDNN refused: %s", #call)

/* ---- activations of the result ---- */

typedef struct eltwise {
    sh_act act;
    dnnl_alg_kind_t kind;
    float alpha, beta;
} eltwise;

static const eltwise *find_eltwise(sh_act act)
{
    static const eltwise rows[] = {{SH_ACT_RELU, dnnl_eltwise_relu, 0, 0},
                                   {SH_ACT_RELU6, dnnl_eltwise_clip, 0, 6},
                                   {SH_ACT_SILU, dnnl_eltwise_swish, 1, 0}};

    for (size_t i = 0; i < SH_COUNT(rows); i++)
        if (rows[i].act == act) return &rows[i];
    return NULL;
}

/** What a primitive is asked for beside its shapes: our scratch, and the activation if any. */
static sh_status make_attributes(sh_act act, dnnl_primitive_attr_t *out)
{
    sh_status st = SH_OK;
    dnnl_post_ops_t ops = NULL;
    const eltwise *e = find_eltwise(act);

    DN_CHECK(dnnl_primitive_attr_clone(out, user_scratch));
    if (e == NULL) goto out;
    DN_CHECK(dnnl_post_ops_create(&ops));
    DN_CHECK(dnnl_post_ops_append_eltwise(ops, 1, e->kind, e->alpha, e->beta));
    DN_CHECK(dnnl_primitive_attr_set_post_ops(*out, ops));
out:
    if (ops) dnnl_post_ops_destroy(ops);
    return st;
}

/* ---- shapes ---- */

typedef struct shapes {
    pass pass;
    const sh_tensor_desc *x, *w, *y;
    bool has_bias;
    sh_act act;                         /* of the result, forward */
    dnnl_dims_t x_dims, y_dims, w_dims; /* padding channels counted */
    int w_rank;                         /* 5 with groups */
    dnnl_dims_t strides, dilation, pad_begin, pad_end;
    dnnl_data_type_t type;
} shapes;

static int64_t stored_channels(const sh_tensor_desc *d)
{
    return sh_tensor_stored_channels(d);
}

static shapes shapes_of(const sh_node_desc *d)
{
    shapes s = {.pass = FORWARD};
    const sh_op_attrs *a = d->attrs;

    switch (d->op) {
    case SH_OP_CONV_GRAD_X:
        s.pass = BACKWARD_X, s.y = d->in[0], s.w = d->in[1], s.x = d->out[0];
        break;
    case SH_OP_CONV_GRAD_W:
        s.pass = BACKWARD_W, s.x = d->in[0], s.y = d->in[1], s.w = d->out[0];
        s.has_bias = sh_cpu_out(d, 1) != NULL;
        break;
    default:
        s.x = d->in[SH_CONV_X], s.w = d->in[SH_CONV_W], s.y = d->out[SH_CONV_Y];
        s.has_bias = sh_cpu_in(d, SH_CONV_BIAS) != NULL;
        s.act = a->y_act;
        break;
    }
    s.type = s.x->dtype == SH_BF16 ? dnnl_bf16 : dnnl_f32;
    int64_t in = stored_channels(s.x), out = stored_channels(s.y);
    for (int i = 0; i < 4; i++) s.x_dims[i] = s.x->dims[i], s.y_dims[i] = s.y->dims[i];
    s.x_dims[1] = in, s.y_dims[1] = out;
    bool is_depthwise = a->groups > 1 && a->groups == s.x->dims[1];
    int64_t groups = is_depthwise ? in : a->groups, at = 0;
    s.w_rank = groups > 1 ? 5 : 4;
    if (groups > 1) s.w_dims[at++] = groups;
    s.w_dims[at++] = out / groups;
    s.w_dims[at++] = in / groups;
    for (int i = 0; i < 2; i++) {
        s.w_dims[at++] = s.w->dims[2 + i];
        s.strides[i] = a->stride[i];
        s.dilation[i] = a->dilation[i] - 1;
        s.pad_begin[i] = a->pad[i];
        /* what the output really reads; rows beyond are cut off */
        s.pad_end[i] = (s.y->dims[2 + i] - 1) * a->stride[i] +
                       a->dilation[i] * (s.w->dims[2 + i] - 1) + 1 - s.x->dims[2 + i] - a->pad[i];
    }
    return s;
}

static const char *why_not_shapes(const sh_node_desc *d, const shapes *s)
{
    pthread_once(&once, start_library);
    if (!is_ready) return "oneDNN does not start";
    if (d->op == SH_OP_CONV && (sh_cpu_in(d, SH_CONV_MEAN) || sh_cpu_out(d, SH_CONV_Y_MEAN)))
        return "fused batch norm";
    if (d->op == SH_OP_CONV && sh_cpu_in(d, SH_CONV_RESIDUAL)) return "adds a residual";
    if (s->x->dtype != s->y->dtype) return "input and output differ in dtype";
    if (s->x->dtype != SH_F32 && s->x->dtype != SH_BF16) return "neither f32 nor bf16";
    bool is_depthwise = d->attrs->groups == s->x->dims[1] && s->w->dims[0] == s->x->dims[1];
    if (d->attrs->groups > 1 && !is_depthwise &&
        (stored_channels(s->x) != s->x->dims[1] || stored_channels(s->y) != s->y->dims[1]))
        return "groups with padding channels";
    if (d->attrs->groups > 1 && is_depthwise && stored_channels(s->x) != stored_channels(s->y))
        return "depthwise between layouts";
    if (d->attrs->y_act != SH_ACT_NONE && find_eltwise(d->attrs->y_act) == NULL)
        return "an activation of its result that is not ReLU, ReLU6 or SiLU";
    return NULL;
}

static dnnl_format_tag_t tag_of(const sh_tensor_desc *d)
{
    return d->layout == SH_NCHW16C ? dnnl_nChw16c : d->layout == SH_NHWC ? dnnl_nhwc : dnnl_nchw;
}

/* ---- descriptions ---- */

typedef struct described {
    dnnl_primitive_desc_t pd;
    dnnl_memory_desc_t x, w, y, bias; /* as the primitive wants them */
} described;

static sh_status describe_primitive(const shapes *s, variant how, described *out)
{
    sh_status st = SH_OK;
    dnnl_memory_desc_t x, y, w, w_grad, bias;
    dnnl_primitive_desc_t forward = NULL, pd = NULL;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_convolution_desc_t desc;
    const dnnl_dims_t bias_dims = {s->y_dims[1]};

    DN_CHECK(dnnl_memory_desc_init_by_tag(&x, 4, s->x_dims, s->type,
                                          how == ANY ? dnnl_format_tag_any : tag_of(s->x)));
    DN_CHECK(dnnl_memory_desc_init_by_tag(&y, 4, s->y_dims, s->type,
                                          how == ANY ? dnnl_format_tag_any : tag_of(s->y)));
    DN_CHECK(dnnl_memory_desc_init_by_tag(&w, s->w_rank, s->w_dims, s->type, dnnl_format_tag_any));
    DN_CHECK(
        dnnl_memory_desc_init_by_tag(&w_grad, s->w_rank, s->w_dims, dnnl_f32, dnnl_format_tag_any));
    DN_CHECK(dnnl_memory_desc_init_by_tag(&bias, 1, bias_dims, dnnl_f32, dnnl_a));
    const dnnl_memory_desc_t *b = s->has_bias ? &bias : NULL;
    DN_CHECK(dnnl_dilated_convolution_forward_desc_init(
        &desc, dnnl_forward_training, dnnl_convolution_direct, &x, &w,
        s->pass == FORWARD ? b : NULL, &y, s->strides, s->dilation, s->pad_begin, s->pad_end));
    SH_TRY(make_attributes(s->pass == FORWARD ? s->act : SH_ACT_NONE, &attributes));
    DN_CHECK(dnnl_primitive_desc_create(&forward, &desc, attributes, engine, NULL));
    if (s->pass == FORWARD) {
        pd = forward;
        forward = NULL;
    } else if (s->pass == BACKWARD_X) {
        DN_CHECK(dnnl_dilated_convolution_backward_data_desc_init(
            &desc, dnnl_convolution_direct, &x, &w, &y, s->strides, s->dilation, s->pad_begin,
            s->pad_end));
        DN_CHECK(dnnl_primitive_desc_create(&pd, &desc, user_scratch, engine, forward));
    } else {
        DN_CHECK(dnnl_dilated_convolution_backward_weights_desc_init(
            &desc, dnnl_convolution_direct, &x, &w_grad, b, &y, s->strides, s->dilation,
            s->pad_begin, s->pad_end));
        DN_CHECK(dnnl_primitive_desc_create(&pd, &desc, user_scratch, engine, forward));
    }
    static const dnnl_query_t x_query[] = {dnnl_query_src_md, dnnl_query_diff_src_md,
                                           dnnl_query_src_md};
    static const dnnl_query_t w_query[] = {dnnl_query_weights_md, dnnl_query_weights_md,
                                           dnnl_query_diff_weights_md};
    static const dnnl_query_t y_query[] = {dnnl_query_dst_md, dnnl_query_diff_dst_md,
                                           dnnl_query_diff_dst_md};
    *out = (described){.pd = pd,
                       .x = *dnnl_primitive_desc_query_md(pd, x_query[s->pass], 0),
                       .w = *dnnl_primitive_desc_query_md(pd, w_query[s->pass], 0),
                       .y = *dnnl_primitive_desc_query_md(pd, y_query[s->pass], 0),
                       .bias = bias};
    pd = NULL;
out:
    if (attributes) dnnl_primitive_attr_destroy(attributes);
    if (forward) dnnl_primitive_desc_destroy(forward);
    if (pd) dnnl_primitive_desc_destroy(pd);
    return st;
}

static const char *implementation(const_dnnl_primitive_desc_t pd)
{
    const char *name = "unknown";

    (void)dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
    return name;
}

static size_t scratch_bytes_of(const_dnnl_primitive_desc_t pd)
{
    const dnnl_memory_desc_t *pad = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);

    return pad ? dnnl_memory_desc_get_size(pad) : 0;
}

static const char *why_not(const sh_node_desc *d, variant how)
{
    shapes s = shapes_of(d);
    described found = {.pd = NULL};
    const char *reason = why_not_shapes(d, &s);

    if (reason) return reason;
    if (describe_primitive(&s, how, &found) != SH_OK) {
        sh_error_clear();
        return "oneDNN has no implementation";
    }
    const char *name = implementation(found.pd);
    if (strncmp(name, "ref", 3) == 0)
        reason = "oneDNN has only its reference";
    else if (how == DIRECT && strstr(name, "gemm:"))
        reason = "oneDNN has only plain matrix products for these layouts";
    dnnl_primitive_desc_destroy(found.pd);
    return reason;
}

static const char *why_not_direct(const sh_node_desc *d)
{
    return why_not(d, DIRECT);
}

static const char *why_not_any(const sh_node_desc *d)
{
    return why_not(d, ANY);
}

/* ---- preparation ---- */

/** A copy between two layouts; absent where they are equal. */
typedef struct reorder {
    dnnl_primitive_t primitive;
    dnnl_memory_t from, to;
} reorder;

typedef struct plan {
    shapes shapes;
    char name[96];
    dnnl_primitive_t primitive;
    dnnl_memory_t x, w, y, bias, scratchpad;
    reorder x_in, y_in, w_in, out; /* out: of y, dx or dw */
    /* scratch; SIZE_MAX: the operand is used where it stands */
    size_t x_at, y_at, w_at, w_plain_at, bias_at, scratchpad_at;
    size_t packed_bytes; /* of w as the primitive reads it */
    bool pads_weights;
} plan;

static sh_status make_reorder(const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to,
                              reorder *out)
{
    sh_status st = SH_OK;
    dnnl_primitive_desc_t pd = NULL;

    if (dnnl_memory_desc_equal(from, to)) goto out;
    DN_CHECK(dnnl_reorder_primitive_desc_create(&pd, from, engine, to, engine, user_scratch));
    const dnnl_memory_desc_t *needs = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    SH_CHECK(needs == NULL || dnnl_memory_desc_get_size(needs) == 0, SH_ERR_UNSUPPORTED,
             "oneDNN wants scratch for a reorder");
    DN_CHECK(dnnl_primitive_create(&out->primitive, pd));
    DN_CHECK(dnnl_memory_create(&out->from, from, engine, DNNL_MEMORY_NONE));
    DN_CHECK(dnnl_memory_create(&out->to, to, engine, DNNL_MEMORY_NONE));
out:
    if (pd) dnnl_primitive_desc_destroy(pd);
    return st;
}

static void release_reorder(reorder *r)
{
    if (r->primitive) dnnl_primitive_destroy(r->primitive);
    if (r->from) dnnl_memory_destroy(r->from);
    if (r->to) dnnl_memory_destroy(r->to);
}

static void release(void *state)
{
    plan *p = state;
    dnnl_memory_t memories[] = {p->x, p->w, p->y, p->bias, p->scratchpad};

    for (size_t i = 0; i < SH_COUNT(memories); i++)
        if (memories[i]) dnnl_memory_destroy(memories[i]);
    release_reorder(&p->x_in);
    release_reorder(&p->y_in);
    release_reorder(&p->w_in);
    release_reorder(&p->out);
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    free(p);
}

/** Reorders between the operands as they stand and as the primitive wants them. */
static sh_status prepare_reorders(plan *p, const described *found)
{
    sh_status st = SH_OK;
    const shapes *s = &p->shapes;
    dnnl_memory_desc_t x, y, w;

    DN_CHECK(dnnl_memory_desc_init_by_tag(&x, 4, s->x_dims, s->type, tag_of(s->x)));
    DN_CHECK(dnnl_memory_desc_init_by_tag(&y, 4, s->y_dims, s->type, tag_of(s->y)));
    DN_CHECK(dnnl_memory_desc_init_by_tag(&w, s->w_rank, s->w_dims, dnnl_f32,
                                          s->w_rank == 5 ? dnnl_goihw : dnnl_oihw));
    switch (s->pass) {
    case FORWARD:
        SH_TRY(make_reorder(&x, &found->x, &p->x_in));
        SH_TRY(make_reorder(&w, &found->w, &p->w_in));
        SH_TRY(make_reorder(&found->y, &y, &p->out));
        break;
    case BACKWARD_X:
        SH_TRY(make_reorder(&y, &found->y, &p->y_in));
        SH_TRY(make_reorder(&w, &found->w, &p->w_in));
        SH_TRY(make_reorder(&found->x, &x, &p->out));
        break;
    case BACKWARD_W:
        SH_TRY(make_reorder(&x, &found->x, &p->x_in));
        SH_TRY(make_reorder(&y, &found->y, &p->y_in));
        SH_TRY(make_reorder(&found->w, &w, &p->out));
        break;
    }
out:
    return st;
}

static sh_status prepare(const sh_node_desc *d, variant how, void **state, size_t *scratch_bytes)
{
    sh_status st = SH_OK;
    plan *p = calloc(1, sizeof(*p));
    described found = {.pd = NULL};
    size_t at = 0;

    SH_CHECK(p != NULL, SH_ERR_NO_MEMORY, "oneDNN convolution");
    p->shapes = shapes_of(d);
    SH_TRY(describe_primitive(&p->shapes, how, &found));
    snprintf(p->name, sizeof(p->name), "onednn:%s%s", implementation(found.pd),
             how == ANY ? "+reorder" : "");
    DN_CHECK(dnnl_primitive_create(&p->primitive, found.pd));
    const dnnl_memory_desc_t *pad =
        dnnl_primitive_desc_query_md(found.pd, dnnl_query_scratchpad_md, 0);
    DN_CHECK(dnnl_memory_create(&p->x, &found.x, engine, DNNL_MEMORY_NONE));
    DN_CHECK(dnnl_memory_create(&p->w, &found.w, engine, DNNL_MEMORY_NONE));
    DN_CHECK(dnnl_memory_create(&p->y, &found.y, engine, DNNL_MEMORY_NONE));
    DN_CHECK(dnnl_memory_create(&p->bias, &found.bias, engine, DNNL_MEMORY_NONE));
    DN_CHECK(dnnl_memory_create(&p->scratchpad, pad, engine, DNNL_MEMORY_NONE));
    SH_TRY(prepare_reorders(p, &found));
    const shapes *s = &p->shapes;
    size_t plain = sizeof(float);
    for (int i = 0; i < s->w_rank; i++) plain *= (size_t)s->w_dims[i];
    p->pads_weights =
        stored_channels(s->x) != s->x->dims[1] || stored_channels(s->y) != s->y->dims[1];
    p->w_plain_at = p->pads_weights ? sh_cpu_take(&at, plain) : SIZE_MAX;
    bool reads_w = s->pass != BACKWARD_W;
    p->packed_bytes = reads_w ? dnnl_memory_desc_get_size(&found.w) : 0;
    p->w_at = reads_w ? SIZE_MAX : sh_cpu_take(&at, dnnl_memory_desc_get_size(&found.w));
    p->bias_at = sh_cpu_take(&at, (size_t)s->y_dims[1] * sizeof(float));
    bool is_out[3] = {p->shapes.pass == BACKWARD_X, false, p->shapes.pass == FORWARD};
    bool x_moves = p->x_in.primitive || (is_out[0] && p->out.primitive);
    bool y_moves = p->y_in.primitive || (is_out[2] && p->out.primitive);
    p->x_at = x_moves ? sh_cpu_take(&at, dnnl_memory_desc_get_size(&found.x)) : SIZE_MAX;
    p->y_at = y_moves ? sh_cpu_take(&at, dnnl_memory_desc_get_size(&found.y)) : SIZE_MAX;
    p->scratchpad_at = sh_cpu_take(&at, scratch_bytes_of(found.pd));
    *scratch_bytes = at;
    *state = p;
    p = NULL;
out:
    if (found.pd) dnnl_primitive_desc_destroy(found.pd);
    if (p) release(p);
    return st;
}

static sh_status prepare_direct(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    return prepare(d, DIRECT, state, scratch_bytes);
}

static sh_status prepare_any(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    return prepare(d, ANY, state, scratch_bytes);
}

/* ---- running ---- */

/** Weights of padded channels, [groups][out][in][taps], from or to the parameter's own shape. */
static void copy_weights(const shapes *s, float *padded, float *plain, bool to_padded)
{
    const dnnl_dim_t *d = s->w_dims + (s->w_rank - 4);
    int64_t taps = d[2] * d[3], groups = s->w_rank == 5 ? s->w_dims[0] : 1;
    int64_t n_out = s->w->dims[0], n_in = s->w->dims[1];

    if (to_padded) memset(padded, 0, (size_t)(groups * d[0] * d[1] * taps) * sizeof(float));
    for (int64_t o = 0; o < n_out; o++) {
        float *a = padded + o * d[1] * taps, *b = plain + o * n_in * taps;
        if (to_padded)
            memcpy(a, b, (size_t)(n_in * taps) * sizeof(float));
        else
            memcpy(b, a, (size_t)(n_in * taps) * sizeof(float));
    }
}

static sh_status run_reorder(const reorder *r, void *from, void *to)
{
    sh_status st = SH_OK;
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, r->from}, {DNNL_ARG_TO, r->to}};

    DN_CHECK(dnnl_memory_set_data_handle(r->from, from));
    DN_CHECK(dnnl_memory_set_data_handle(r->to, to));
    DN_CHECK(dnnl_primitive_execute(r->primitive, stream, 2, args));
out:
    return st;
}

/** Bring an operand to where the primitive takes it; returns that place. */
static sh_status bring(const reorder *r, void *operand, char *moved, void **at)
{
    sh_status st = SH_OK;

    *at = operand;
    if (!r->primitive) goto out;
    SH_TRY(run_reorder(r, operand, moved));
    *at = moved;
out:
    return st;
}

typedef struct places {
    void *x, *w, *y, *bias;
} places;

static sh_status execute(const plan *p, const places *at, char *scratch)
{
    sh_status st = SH_OK;
    static const int roles[3][4] = {
        {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS},
        {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST, DNNL_ARG_BIAS},
        {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_BIAS}};
    const int *role = roles[p->shapes.pass];
    const dnnl_exec_arg_t args[] = {{role[0], p->x},
                                    {role[1], p->w},
                                    {role[2], p->y},
                                    {DNNL_ARG_SCRATCHPAD, p->scratchpad},
                                    {role[3], p->bias}};

    DN_CHECK(dnnl_memory_set_data_handle(p->x, at->x));
    DN_CHECK(dnnl_memory_set_data_handle(p->w, at->w));
    DN_CHECK(dnnl_memory_set_data_handle(p->y, at->y));
    DN_CHECK(dnnl_memory_set_data_handle(p->bias, at->bias));
    DN_CHECK(dnnl_memory_set_data_handle(p->scratchpad, scratch + p->scratchpad_at));
    DN_CHECK(dnnl_primitive_execute(p->primitive, stream, p->shapes.has_bias ? 5 : 4, args));
out:
    return st;
}

static size_t packed_bytes(const void *state)
{
    return ((const plan *)state)->packed_bytes;
}

static sh_status pack(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    sh_status st = SH_OK;
    const plan *p = state;
    char *plain = (char *)args->scratch + p->w_plain_at;
    void *w = (void *)args->in[1];

    (void)d;
    if (p->pads_weights) copy_weights(&p->shapes, (float *)plain, w, true);
    if (p->pads_weights) w = plain;
    if (p->w_in.primitive)
        SH_TRY(run_reorder(&p->w_in, w, args->packed));
    else
        memcpy(args->packed, w, p->packed_bytes);
out:
    return st;
}

static sh_status run_forward(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    sh_status st = SH_OK;
    const plan *p = state;
    char *scratch = args->scratch;
    bool is_forward = p->shapes.pass == FORWARD;
    void *x = is_forward ? (void *)args->in[SH_CONV_X] : args->out[0];
    void *y = is_forward ? args->out[SH_CONV_Y] : (void *)args->in[0];
    const float *bias = is_forward ? sh_cpu_arg(d, args, SH_CONV_BIAS) : NULL;
    places at = {.x = x, .y = y, .w = args->packed, .bias = scratch + p->bias_at};

    SH_TRY(bring(&p->x_in, x, scratch + p->x_at, &at.x));
    SH_TRY(bring(&p->y_in, y, scratch + p->y_at, &at.y));
    if (bias) {
        memset(at.bias, 0, (size_t)p->shapes.y_dims[1] * sizeof(float));
        memcpy(at.bias, bias, (size_t)p->shapes.y->dims[1] * sizeof(float));
    }
    void *result = is_forward ? y : x;
    char *moved = scratch + (is_forward ? p->y_at : p->x_at);
    if (p->out.primitive && is_forward) at.y = moved;
    if (p->out.primitive && !is_forward) at.x = moved;
    SH_TRY(execute(p, &at, scratch));
    if (p->out.primitive) SH_TRY(run_reorder(&p->out, moved, result));
out:
    return st;
}

static sh_status run_backward_w(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    sh_status st = SH_OK;
    const plan *p = state;
    char *scratch = args->scratch;
    float *plain = (float *)(scratch + p->w_plain_at), *dbias = sh_cpu_result(d, args, 1);
    void *dw = p->pads_weights ? (void *)plain : args->out[0];
    places at = {.bias = scratch + p->bias_at, .w = p->out.primitive ? scratch + p->w_at : dw};

    SH_TRY(bring(&p->x_in, (void *)args->in[0], scratch + p->x_at, &at.x));
    SH_TRY(bring(&p->y_in, (void *)args->in[1], scratch + p->y_at, &at.y));
    SH_TRY(execute(p, &at, scratch));
    if (p->out.primitive) SH_TRY(run_reorder(&p->out, at.w, dw));
    if (p->pads_weights) copy_weights(&p->shapes, plain, args->out[0], false);
    if (dbias) memcpy(dbias, at.bias, (size_t)p->shapes.y->dims[1] * sizeof(float));
out:
    return st;
}

static const char *describe(void *state)
{
    return ((const plan *)state)->name;
}

#define ONEDNN(kernel_op, variant, function)                                                       \
    {                                                                                              \
        .name = "cpu:onednn_" #variant, .op = kernel_op, .why_not = why_not_##variant,             \
        .prepare = prepare_##variant, .packed_bytes = packed_bytes, .pack = pack, .run = function, \
        .release = release, .describe = describe                                                   \
    }
const sh_kernel sh_cpu_conv_onednn = ONEDNN(SH_OP_CONV, direct, run_forward);
const sh_kernel sh_cpu_conv_grad_x_onednn = ONEDNN(SH_OP_CONV_GRAD_X, direct, run_forward);
const sh_kernel sh_cpu_conv_grad_w_onednn = ONEDNN(SH_OP_CONV_GRAD_W, direct, run_backward_w);
const sh_kernel sh_cpu_conv_onednn_any = ONEDNN(SH_OP_CONV, any, run_forward);
const sh_kernel sh_cpu_conv_grad_x_onednn_any = ONEDNN(SH_OP_CONV_GRAD_X, any, run_forward);
const sh_kernel sh_cpu_conv_grad_w_onednn_any = ONEDNN(SH_OP_CONV_GRAD_W, any, run_backward_w);
