// SPDX-License-Identifier: Apache-2.0
/* MobileNetV2 (Sandler et al. 2018) as torchvision has it: names, padding, BN constants. */
#include "models/zoo/nets.h"

/* A group of inverted residuals: the first has this stride, the others 1. */
typedef struct group {
    int expand, out_channels, n, stride;
} group;

static const group groups[] = {
    {1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2},  {6, 64, 4, 2},
    {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1},
};

static sh_value conv_bn(sh_program *p, sh_value x, const char *conv, const char *bn,
                        const sh_conv_attrs *attrs)
{
    const sh_net *net = &sh_net_mobilenet_v2;

    return sh_op_batch_norm(p, sh_op_conv(p, x, conv, attrs), bn, net->bn_eps, net->bn_momentum);
}

/* Convolution, BN, ReLU6, whose parameters are `name`.0 and `name`.1. */
static sh_value conv_bn_relu(sh_program *p, sh_value x, const char *name,
                             const sh_conv_attrs *attrs)
{
    x = conv_bn(p, x, sh_layer_name_format("%s.0", name).text,
                sh_layer_name_format("%s.1", name).text, attrs);
    return sh_op_act(p, x, SH_ACT_RELU6);
}

/* Expand (absent where it would not), filter each channel, project, and add the input where the
 * shapes allow it. Parts are numbered, so the absent part shifts the numbers. */
static sh_value inverted_residual(sh_program *p, sh_value x, int index, int in_channels,
                                  const group *g, int stride)
{
    int hidden = in_channels * g->expand, part = 0;
    sh_value y = x;

    if (g->expand > 1)
        y = conv_bn_relu(p, y, sh_layer_name_format("features.%d.conv.%d", index, part++).text,
                         &(sh_conv_attrs){.out_channels = hidden, .kernel = {1, 1}});
    y = conv_bn_relu(p, y, sh_layer_name_format("features.%d.conv.%d", index, part++).text,
                     &(sh_conv_attrs){.out_channels = hidden,
                                      .kernel = {3, 3},
                                      .stride = stride,
                                      .groups = hidden,
                                      .pad = {1, 1, 1, 1}});
    y = conv_bn(p, y, sh_layer_name_format("features.%d.conv.%d", index, part).text,
                sh_layer_name_format("features.%d.conv.%d", index, part + 1).text,
                &(sh_conv_attrs){.out_channels = g->out_channels, .kernel = {1, 1}});
    return stride == 1 && in_channels == g->out_channels ? sh_op_add(p, x, y) : y;
}

static sh_value trunk(sh_program *p, sh_value image)
{
    int channels = 32, index = 1;
    sh_value x = conv_bn_relu(
        p, image, "features.0",
        &(sh_conv_attrs){
            .out_channels = channels, .kernel = {3, 3}, .stride = 2, .pad = {1, 1, 1, 1}});

    for (size_t i = 0; i < SH_COUNT(groups); i++)
        for (int k = 0; k < groups[i].n; k++) {
            int stride = k == 0 ? groups[i].stride : 1;

            x = inverted_residual(p, x, index++, channels, &groups[i], stride);
            channels = groups[i].out_channels;
        }
    x = conv_bn_relu(p, x, "features.18", &(sh_conv_attrs){.out_channels = 1280, .kernel = {1, 1}});
    return sh_op_global_avg_pool(p, x);
}

const sh_net sh_net_mobilenet_v2 = {
    .name = "mobilenet_v2",
    .title = "MobileNetV2, 2.2 million weights without classifier (names as in torchvision)",
    .in_channels = 3,
    .default_size = 224,
    .mean = {0.485f, 0.456f, 0.406f},
    .std = {0.229f, 0.224f, 0.225f},
    .dropout = 0.2f,
    .n_features = 1280,
    .bn_eps = 1e-5f,
    .bn_momentum = 0.1f,
    .trunk = trunk,
    .classifier = "classifier.1",
};
