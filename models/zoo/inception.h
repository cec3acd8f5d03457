// SPDX-License-Identifier: Apache-2.0
/** Blocks of parallel branches, as tables; for the Inception networks. */
#ifndef SH_MODELS_ZOO_INCEPTION_H
#define SH_MODELS_ZOO_INCEPTION_H

#include "models/zoo/nets.h"

SH_C_BEGIN

typedef enum sh_branch_from {
    SH_FROM_LAYER, /* the layer before in the table */
    SH_FROM_SAME,  /* what the layer before takes */
    SH_FROM_INPUT, /* the block's input */
    SH_FROM_POOL,  /* the pooled input */
} sh_branch_from;

/** A convolution (without bias), batch norm, ReLU. Layers of stride 2 are not padded, others keep
 *  height and width. */
typedef struct sh_branch_layer {
    const char *name; /* after the block's prefix; NULL: no convolution, the source itself */
    sh_branch_from from;
    bool out;                        /* a part of the block's output, in the order of the table */
    int channels, kernel[2], stride; /* stride 0: 1 */
} sh_branch_layer;

typedef struct sh_branches {
    const sh_branch_layer *layers;
    int n_layers;
    bool max; /* the pool, 3x3: maximum with stride 2 and no padding; otherwise the average */
} sh_branches;

#define SH_BRANCHES(table, ...)                                                                    \
    {                                                                                              \
        .layers = table, .n_layers = SH_COUNT(table), __VA_ARGS__                                  \
    }

/** Convolution `prefix``name`.conv without padding or bias, batch norm `prefix``name`.bn, ReLU. */
sh_value sh_inception_conv(sh_trunk *t, sh_value x, const char *prefix, const char *name,
                           const sh_conv_attrs *attrs);

/** All branches and the concatenation of their outputs.
 *
 *  average  how the average pool takes its border; not read where the block pools by maxima */
sh_value sh_inception_block(sh_trunk *t, sh_value x, const char *prefix, const sh_branches *block,
                            bool count_padding);

/** What Inception-v3 and Inception-ResNet-v2 begin with: five convolutions and two maxima, each a
 *  tap. names[7] as in the order of the layers. Ended: check t->ended. */
sh_value sh_inception_stem(sh_trunk *t, sh_value image, const char *const names[7]);

SH_C_END

#endif
