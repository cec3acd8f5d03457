// SPDX-License-Identifier: Apache-2.0
/* EfficientNet-Lite0: EfficientNet-B0's blocks without squeeze-and-excitation and with ReLU6, in
 * TensorFlow's SAME padding, so that an even size is padded more at the bottom and right. Names as
 * in the PyPI package efficientnet-lite-pytorch, whose published weights load one to one. */
#include "models/zoo/nets.h"

/* A group of blocks: the first has this stride, the others 1. */
typedef struct group {
    int kernel, stride, expand, out_channels, n;
} group;

static const group groups[] = {
    {3, 1, 1, 16, 1},  {3, 2, 6, 24, 2},  {5, 2, 6, 40, 2},  {3, 2, 6, 80, 3},
    {5, 1, 6, 112, 3}, {5, 2, 6, 192, 4}, {3, 1, 6, 320, 1},
};

static sh_value conv_bn(sh_trunk *t, sh_value x, const char *prefix, const char *conv,
                        const char *bn, sh_act act, const sh_conv_attrs *attrs)
{
    return sh_trunk_conv(t, x, sh_layer_name_format("%s%s", prefix, conv).text,
                         sh_layer_name_format("%s%s", prefix, bn).text, act, attrs);
}

static sh_value block(sh_trunk *t, sh_value x, int index, int in_channels, const group *g,
                      int stride)
{
    int hidden = in_channels * g->expand;
    const sh_layer_name name = sh_layer_name_format("_blocks.%d.", index);
    const char *prefix = name.text;
    sh_value y = x;

    if (g->expand > 1)
        y = conv_bn(t, y, prefix, "_expand_conv", "_bn0", SH_ACT_RELU6,
                    &(sh_conv_attrs){.out_channels = hidden, .kernel = {1, 1}, .same = true});
    y = conv_bn(t, y, prefix, "_depthwise_conv", "_bn1", SH_ACT_RELU6,
                &(sh_conv_attrs){.out_channels = hidden,
                                 .kernel = {g->kernel, g->kernel},
                                 .stride = stride,
                                 .groups = hidden,
                                 .same = true});
    y = conv_bn(t, y, prefix, "_project_conv", "_bn2", SH_ACT_NONE,
                &(sh_conv_attrs){.out_channels = g->out_channels, .kernel = {1, 1}, .same = true});
    return stride == 1 && in_channels == g->out_channels ? sh_op_add(t->p, x, y) : y;
}

static sh_value features(sh_trunk *t, sh_value image)
{
    int channels = 32, index = 0;
    sh_value x = conv_bn(
        t, image, "", "_conv_stem", "_bn0", SH_ACT_RELU6,
        &(sh_conv_attrs){.out_channels = channels, .kernel = {3, 3}, .stride = 2, .same = true});

    if (sh_trunk_ends(t, x, "_conv_stem")) return x;
    for (size_t i = 0; i < SH_COUNT(groups); i++)
        for (int k = 0; k < groups[i].n; k++) {
            x = block(t, x, index, channels, &groups[i], k == 0 ? groups[i].stride : 1);
            if (sh_trunk_ends(t, x, "_blocks.%d", index++)) return x;
            channels = groups[i].out_channels;
        }
    x = conv_bn(t, x, "", "_conv_head", "_bn1", SH_ACT_RELU6,
                &(sh_conv_attrs){.out_channels = 1280, .kernel = {1, 1}, .same = true});
    sh_trunk_ends(t, x, "_conv_head");
    return x;
}

const sh_net sh_net_efficientnet_lite0 = {
    .name = "efficientnet_lite0",
    .title =
        "EfficientNet-Lite0, 3.4 million weights without classifier (published ImageNet weights)",
    .in_channels = 3,
    .default_size = 224,
    /* (pixel - 127) / 128 */
    .mean = {127.0f / 255, 127.0f / 255, 127.0f / 255},
    .std = {128.0f / 255, 128.0f / 255, 128.0f / 255},
    .dropout = 0.2f,
    .n_features = 1280,
    .bn_eps = 1e-3f,
    .bn_momentum = 0.01f,
    .features = features,
    .classifier = "_fc",
};
