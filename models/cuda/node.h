// SPDX-License-Identifier: Apache-2.0
/** What the host side of the kernel files asks of nodes. */
#ifndef SH_MODELS_CUDA_NODE_H
#define SH_MODELS_CUDA_NODE_H

#include "models/backend.h"

static inline bool has_input(const sh_node_desc *desc, int i)
{
    return i < desc->n_inputs && desc->in[i] != NULL;
}

static inline bool has_output(const sh_node_desc *desc, int i)
{
    return i < desc->n_outputs && desc->out[i] != NULL;
}

template <typename T> static inline const T *input(const sh_kernel_args *args, int i)
{
    return static_cast<const T *>(args->in[i]);
}

template <typename T> static inline T *output(const sh_kernel_args *args, int i)
{
    return static_cast<T *>(args->out[i]);
}

/** The operand, or NULL where it is absent. */
static inline const float *optional_input(const sh_node_desc *desc, const sh_kernel_args *args,
                                          int i)
{
    return has_input(desc, i) ? input<float>(args, i) : NULL;
}

static inline float *optional_output(const sh_node_desc *desc, const sh_kernel_args *args, int i)
{
    return has_output(desc, i) ? output<float>(args, i) : NULL;
}

static inline int64_t pixels_of(const sh_tensor_desc *d)
{
    return d->dims[2] * d->dims[3];
}

static inline int64_t elems_of(const sh_tensor_desc *d)
{
    return d->dims[0] * d->dims[1] * pixels_of(d);
}

/** Rows of channels? One pixel is that in any layout but the blocked one. */
static inline bool is_rows(const sh_tensor_desc *d)
{
    bool is_float = d->dtype == SH_F32 || d->dtype == SH_BF16;

    return is_float && (d->layout == SH_NHWC || (d->layout == SH_NCHW && pixels_of(d) == 1));
}

/** Rows of channels, or an image input with padding channels? What a convolution reads. */
static inline bool is_image(const sh_tensor_desc *d)
{
    return is_rows(d) || (d->dtype == SH_BF16 && d->layout == SH_NHWC8);
}

/** For ops of which every operand is rows of channels, or a vector. */
static inline const char *why_not_rows(const sh_node_desc *desc)
{
    for (int i = 0; i < desc->n_inputs; i++) {
        if (desc->in[i] != NULL && !is_rows(desc->in[i])) return "an input is not rows of channels";
    }
    for (int i = 0; i < desc->n_outputs; i++) {
        if (desc->out[i] != NULL && !is_rows(desc->out[i]))
            return "an output is not rows of channels";
    }
    return NULL;
}

#endif
