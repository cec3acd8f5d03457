// SPDX-License-Identifier: Apache-2.0
#include "models/zoo/inception.h"

enum { LAYERS_MAX = 16 };

sh_value sh_inception_conv(sh_trunk *t, sh_value x, const char *prefix, const char *name,
                           const sh_conv_attrs *attrs)
{
    return sh_trunk_conv(t, x, sh_layer_name_format("%s%s.conv", prefix, name).text,
                         sh_layer_name_format("%s%s.bn", prefix, name).text, SH_ACT_RELU, attrs);
}

static sh_value branch_layer(sh_trunk *t, sh_value x, const char *prefix, const sh_branch_layer *l)
{
    sh_conv_attrs attrs = {
        .out_channels = l->channels, .kernel = {l->kernel[0], l->kernel[1]}, .stride = l->stride};

    if (l->name == NULL) return x;
    for (int i = 0; i < 4 && l->stride != 2; i++) attrs.pad[i] = l->kernel[i % 2] / 2;
    return sh_inception_conv(t, x, prefix, l->name, &attrs);
}

static sh_value pooled(sh_trunk *t, sh_value x, bool max, bool count_padding)
{
    if (max) return sh_op_max_pool(t->p, x, &(sh_pool_attrs){.kernel = {3, 3}, .stride = {2, 2}});
    return sh_op_avg_pool(t->p, x,
                          &(sh_pool_attrs){.kernel = {3, 3},
                                           .stride = {1, 1},
                                           .pad = {1, 1, 1, 1},
                                           .count_padding = count_padding});
}

sh_value sh_inception_block(sh_trunk *t, sh_value x, const char *prefix, const sh_branches *block,
                            bool count_padding)
{
    sh_value outs[LAYERS_MAX], source = x, y = x, pool = SH_NO_VALUE;
    int n_outs = 0;

    for (int i = 0; i < block->n_layers; i++) {
        const sh_branch_layer *l = &block->layers[i];

        if (l->from == SH_FROM_POOL && pool == SH_NO_VALUE)
            pool = pooled(t, x, block->max, count_padding);
        if (l->from != SH_FROM_SAME)
            source = l->from == SH_FROM_LAYER ? y : l->from == SH_FROM_INPUT ? x : pool;
        y = branch_layer(t, source, prefix, l);
        if (l->out) outs[n_outs++] = y;
    }
    return sh_op_concat(t->p, n_outs, outs);
}

sh_value sh_inception_stem(sh_trunk *t, sh_value image, const char *const names[7])
{
    static const struct {
        int channels, kernel, stride, pad; /* no channels: a maximum */
    } layers[7] = {{32, 3, 2, 0}, {32, 3, 1, 0},  {64, 3, 1, 1}, {0, 3, 2, 0},
                   {80, 1, 1, 0}, {192, 3, 1, 0}, {0, 3, 2, 0}};
    sh_value x = image;

    for (size_t i = 0; i < SH_COUNT(layers); i++) {
        const int k = layers[i].kernel, s = layers[i].stride, pad = layers[i].pad;

        if (layers[i].channels == 0)
            x = sh_op_max_pool(t->p, x, &(sh_pool_attrs){.kernel = {k, k}, .stride = {s, s}});
        else
            x = sh_inception_conv(t, x, "", names[i],
                                  &(sh_conv_attrs){.out_channels = layers[i].channels,
                                                   .kernel = {k, k},
                                                   .stride = s,
                                                   .pad = {pad, pad, pad, pad}});
        if (sh_trunk_ends(t, x, "%s", names[i])) return x;
    }
    return x;
}
