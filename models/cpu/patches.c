// SPDX-License-Identifier: Apache-2.0
/* Convolutions that cut an image into patches: as large as their stride, unpadded. Each patch is a
 * pixel of a map with as many channels as it has numbers, in the order of the weights, so the image
 * is rewritten as that map and the pointwise kernels do the rest. oneDNN's own way for the weight
 * gradient in f32 is an unrolled copy and a plain matrix product for each image. */
#include <stdlib.h>

#include "models/cpu/kernels.h"

enum { LANES = 16, MAX_IN = SH_CONV_INPUTS, MAX_OUT = SH_CONV_OUTPUTS };

typedef struct plan {
    const sh_kernel *kernel; /* of the map */
    void *state;
    sh_node_desc desc;
    sh_op_attrs attrs;
    sh_tensor_desc x, w; /* the map; the weights as a matrix */
    const sh_tensor_desc *in[MAX_IN], *out[MAX_OUT];
    size_t map_bytes;
} plan;

/** The node over the map. It points into *p, which must stay where it is. */
static void describe(const sh_node_desc *d, plan *p)
{
    bool forward = d->op == SH_OP_CONV;
    const sh_tensor_desc *x = d->in[0], *w = forward ? d->in[SH_CONV_W] : d->out[0];
    const sh_tensor_desc *y = forward ? d->out[SH_CONV_Y] : d->in[1];
    int64_t n_numbers = w->dims[1] * w->dims[2] * w->dims[3];

    *p = (plan){
        .kernel = forward ? &sh_cpu_conv_pointwise : &sh_cpu_conv_grad_w_pointwise,
        .attrs = *d->attrs,
        .x = {.dtype = x->dtype,
              .layout = SH_NCHW16C,
              .dims = {x->dims[0], n_numbers, y->dims[2], y->dims[3]}},
        .w = {.dtype = w->dtype, .layout = w->layout, .dims = {w->dims[0], n_numbers, 1, 1}}};
    p->attrs.stride[0] = p->attrs.stride[1] = 1;
    for (int i = 0; i < d->n_inputs; i++) p->in[i] = d->in[i];
    for (int i = 0; i < d->n_outputs; i++) p->out[i] = d->out[i];
    p->in[0] = &p->x;
    if (forward)
        p->in[SH_CONV_W] = &p->w;
    else
        p->out[0] = &p->w;
    p->desc = *d;
    p->desc.attrs = &p->attrs;
    p->desc.in = p->in;
    p->desc.out = p->out;
    p->map_bytes = sh_cpu_align(sh_tensor_bytes(&p->x));
}

static const char *why_not(const sh_node_desc *d)
{
    const sh_op_attrs *a = d->attrs;
    const sh_tensor_desc *w = d->op == SH_OP_CONV ? d->in[SH_CONV_W] : d->out[0];
    plan p;

    if (d->in[0]->layout != SH_NCHW) return "not of an image";
    if (a->groups != 1 || w->dims[2] * w->dims[3] == 1) return "not patches";
    for (int i = 0; i < 2; i++) {
        if (a->stride[i] != w->dims[2 + i] || a->dilation[i] != 1) return "not patches";
        if (a->pad[i] != 0 || a->pad[2 + i] != 0) return "padded patches";
    }
    if (d->op == SH_OP_CONV && sh_cpu_in(d, SH_CONV_MEAN)) return "fused batch norm";
    describe(d, &p);
    return p.kernel->why_not(&p.desc);
}

static void release(void *state)
{
    plan *p = state;

    if (p->state != NULL && p->kernel->release != NULL) p->kernel->release(p->state);
    free(p);
}

static sh_status prepare(const sh_node_desc *d, void **state, size_t *scratch_bytes)
{
    sh_status st = SH_OK;
    plan *p = calloc(1, sizeof(*p));
    size_t inner_bytes = 0;

    SH_CHECK(p != NULL, SH_ERR_NO_MEMORY, "patches");
    describe(d, p);
    SH_TRY(p->kernel->prepare(&p->desc, &p->state, &inner_bytes));
    *scratch_bytes = p->map_bytes + inner_bytes;
    *state = p;
    p = NULL;
out:
    if (p != NULL) release(p);
    return st;
}

/** Block `block` of image n of the map: 16 numbers of each patch. */
static void cut_block(const plan *p, const sh_tensor_desc *image, const sh_op_attrs *a, int64_t n,
                      int64_t block, const char *from, char *to)
{
    size_t size = sh_dtype_size(image->dtype);
    int64_t height = image->dims[2], width = image->dims[3];
    int64_t rows = a->stride[0], columns = a->stride[1], at[LANES];
    int n_lanes = 0;

    for (int64_t c = LANES * block; c < p->x.dims[1] && n_lanes < LANES; c++, n_lanes++)
        at[n_lanes] = (c / (rows * columns) * height + c / columns % rows) * width + c % columns;
    from += (size_t)(n * image->dims[1] * height * width) * size;
    to +=
        (size_t)((n * sh_cpu_blocks(p->x.dims[1]) + block) * p->x.dims[2] * p->x.dims[3] * LANES) *
        size;
    for (int64_t y = 0; y < p->x.dims[2]; y++)
        for (int64_t x = 0; x < p->x.dims[3]; x++, to += LANES * size) {
            const char *patch = from + (size_t)(y * rows * width + x * columns) * size;

            for (int i = 0; i < n_lanes; i++) memcpy(to + i * size, patch + at[i] * size, size);
            memset(to + n_lanes * size, 0, (LANES - n_lanes) * size);
        }
}

static sh_status run(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const plan *p = state;
    const void *in[MAX_IN];
    int64_t blocks = sh_cpu_blocks(p->x.dims[1]);
    sh_kernel_args inner = *args;

#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t n = 0; n < p->x.dims[0]; n++)
        for (int64_t block = 0; block < blocks; block++)
            cut_block(p, d->in[0], d->attrs, n, block, args->in[0], args->scratch);
    for (int i = 0; i < d->n_inputs; i++) in[i] = args->in[i];
    in[0] = args->scratch;
    inner.in = in;
    inner.scratch = (char *)args->scratch + p->map_bytes;
    return p->kernel->run(&p->desc, p->state, &inner);
}

static size_t packed_bytes(const void *state)
{
    const plan *p = state;

    return p->kernel->packed_bytes(p->state);
}

static sh_status pack(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    const plan *p = state;

    (void)d;
    return p->kernel->pack(&p->desc, p->state, args);
}

#define PATCHES(kernel_op)                                                                         \
    {                                                                                              \
        .name = "cpu:patches", .op = kernel_op, .why_not = why_not, .prepare = prepare,            \
        .packed_bytes = packed_bytes, .pack = pack, .run = run, .release = release                 \
    }

const sh_kernel sh_cpu_conv_patches = PATCHES(SH_OP_CONV);
const sh_kernel sh_cpu_conv_grad_w_patches = PATCHES(SH_OP_CONV_GRAD_W);
