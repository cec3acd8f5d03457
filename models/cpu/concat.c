// SPDX-License-Identifier: Apache-2.0
/* Concatenation along channels and its derivative: slabs are copied whole where every part but the
 * last fills its blocks, else pixel by pixel. */
#include "models/cpu/kernels.h"

/** The parts and the whole of a node. */
typedef struct parts {
    int n;
    const sh_tensor_desc *const *part;
    const sh_tensor_desc *whole;
    bool aligned; /* every part begins with a block of the whole */
} parts;

static parts parts_of(const sh_node_desc *d)
{
    bool joins = d->op == SH_OP_CONCAT;
    parts p = {.n = joins ? d->n_inputs : d->n_outputs,
               .part = joins ? d->in : d->out,
               .whole = joins ? d->out[0] : d->in[0],
               .aligned = true};

    for (int i = 0; i + 1 < p.n; i++) p.aligned = p.aligned && p.part[i]->dims[1] % 16 == 0;
    return p;
}

static const char *why_not(const sh_node_desc *d)
{
    parts p = parts_of(d);

    if (!sh_cpu_is_blocked(p.whole)) return "not in blocks of 16 channels";
    for (int i = 0; i < p.n; i++) {
        if (!p.part[i] || p.part[i]->layout != p.whole->layout ||
            p.part[i]->dtype != p.whole->dtype)
            return "mixes dtypes or layouts";
    }
    return NULL;
}

/** n channels of an image from channel c of `from` to channel k of `to`. */
static void copy_channels(const char *from, int64_t c, char *to, int64_t k, int64_t n,
                          int64_t pixels, size_t size)
{
    while (n > 0) {
        int64_t run = 16 - c % 16 < 16 - k % 16 ? 16 - c % 16 : 16 - k % 16;
        if (run > n) run = n;
        for (int64_t p = 0; p < pixels; p++)
            memcpy(to + (size_t)((k / 16 * pixels + p) * 16 + k % 16) * size,
                   from + (size_t)((c / 16 * pixels + p) * 16 + c % 16) * size, (size_t)run * size);
        c += run;
        k += run;
        n -= run;
    }
}

/** The last block's channels beyond n_channels become zero. */
static void clear_padding(char *image, int64_t n_channels, int64_t pixels, size_t size)
{
    int64_t last = n_channels % 16;
    char *block = image + (size_t)(n_channels / 16 * pixels * 16) * size;

    for (int64_t p = 0; last > 0 && p < pixels; p++)
        memset(block + (size_t)(p * 16 + last) * size, 0, (size_t)(16 - last) * size);
}

static size_t image_bytes(const sh_tensor_desc *d)
{
    return sh_tensor_bytes(d) / (size_t)d->dims[0];
}

/* An image at a time. */
static void run_image(const sh_node_desc *d, const parts *p, const sh_kernel_args *args, int64_t n)
{
    int64_t pixels = p->whole->dims[2] * p->whole->dims[3], c = 0;
    size_t size = sh_dtype_size(p->whole->dtype), whole = image_bytes(p->whole);
    bool joins = d->op == SH_OP_CONCAT;

    for (int i = 0; i < p->n; i++) {
        int64_t channels = p->part[i]->dims[1];
        size_t at = (size_t)n * image_bytes(p->part[i]);
        if (joins) {
            copy_channels((const char *)args->in[i] + at, 0,
                          (char *)args->out[0] + (size_t)n * whole, c, channels, pixels, size);
        } else {
            char *to = (char *)args->out[i] + at;
            copy_channels((const char *)args->in[0] + (size_t)n * whole, c, to, 0, channels, pixels,
                          size);
            clear_padding(to, channels, pixels, size);
        }
        c += channels;
    }
    if (joins) clear_padding((char *)args->out[0] + (size_t)n * whole, c, pixels, size);
}

/* Slab i of the whole, from or to the part that holds it. */
static void run_slab(const sh_node_desc *d, const parts *p, const sh_kernel_args *args, int64_t i)
{
    const sh_cpu_maps *maps = sh_cpu_simd_get()->maps;
    int64_t blocks = sh_cpu_blocks(p->whole->dims[1]), block = i % blocks, part = 0;
    int64_t pixels = p->whole->dims[2] * p->whole->dims[3];
    size_t slab = (size_t)(pixels * 16) * sh_dtype_size(p->whole->dtype);
    bool stream = sh_cpu_is_large(sh_tensor_bytes(p->whole));

    for (; block >= sh_cpu_blocks(p->part[part]->dims[1]); part++)
        block -= sh_cpu_blocks(p->part[part]->dims[1]);
    size_t at = (size_t)(i / blocks * sh_cpu_blocks(p->part[part]->dims[1]) + block) * slab;
    const char *from = d->op == SH_OP_CONCAT ? (const char *)args->in[part] + at
                                             : (const char *)args->in[0] + (size_t)i * slab;
    char *to = d->op == SH_OP_CONCAT ? (char *)args->out[0] + (size_t)i * slab
                                     : (char *)args->out[part] + at;
    maps->copy(from, to, slab, stream);
}

static sh_status run(const sh_node_desc *d, void *state, const sh_kernel_args *args)
{
    parts p = parts_of(d);
    int64_t images = p.whole->dims[0], blocks = sh_cpu_blocks(p.whole->dims[1]);

    (void)state;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < (p.aligned ? images * blocks : images); i++) {
        if (p.aligned)
            run_slab(d, &p, args, i);
        else
            run_image(d, &p, args, i);
    }
    return SH_OK;
}

const sh_kernel sh_cpu_concat = {
    .name = "cpu:concat", .op = SH_OP_CONCAT, .why_not = why_not, .run = run};
const sh_kernel sh_cpu_concat_grad = {
    .name = "cpu:concat_grad", .op = SH_OP_CONCAT_GRAD, .why_not = why_not, .run = run};
