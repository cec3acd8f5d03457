// SPDX-License-Identifier: Apache-2.0
/* MobileNetV2 (Sandler et al. 2018) as torchvision has it: names, padding, BN constants; and the
 * same as Keras computes it, with TensorFlow's SAME padding, other BN constants and images in
 * [-1, 1]. */
#include "models/zoo/nets.h"

/* A group of inverted residuals: the first has this stride, the others 1. */
typedef struct group {
    int expand, out_channels, n, stride;
} group;

static const group groups[] = {
    {1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2},  {6, 64, 4, 2},
    {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1},
};

typedef struct variant {
    bool same; /* TensorFlow's padding */
} variant;

/* Convolution, BN, ReLU6, whose parameters are `name`.0 and `name`.1. */
static sh_value conv_bn_relu(sh_trunk *t, sh_value x, const char *name, const sh_conv_attrs *attrs)
{
    return sh_trunk_conv(t, x, sh_layer_name_format("%s.0", name).text,
                         sh_layer_name_format("%s.1", name).text, SH_ACT_RELU6, attrs);
}

/* A 3x3 convolution's attributes. */
static sh_conv_attrs filter(int channels, int stride, int n_groups, bool same)
{
    return (sh_conv_attrs){.out_channels = channels,
                           .kernel = {3, 3},
                           .stride = stride,
                           .groups = n_groups,
                           .pad = {1, 1, 1, 1},
                           .same = same};
}

/* Expand (absent where it would not), filter each channel, project, and add the input where the
 * shapes allow it. Parts are numbered, so the absent part shifts the numbers. */
static sh_value inverted_residual(sh_trunk *t, sh_value x, int index, int in_channels,
                                  const group *g, int stride, bool same)
{
    int hidden = in_channels * g->expand, part = 0;
    const sh_conv_attrs depthwise = filter(hidden, stride, hidden, same);
    sh_value y = x;

    if (g->expand > 1)
        y = conv_bn_relu(t, y, sh_layer_name_format("features.%d.conv.%d", index, part++).text,
                         &(sh_conv_attrs){.out_channels = hidden, .kernel = {1, 1}});
    y = conv_bn_relu(t, y, sh_layer_name_format("features.%d.conv.%d", index, part++).text,
                     &depthwise);
    y = sh_trunk_conv(t, y, sh_layer_name_format("features.%d.conv.%d", index, part).text,
                      sh_layer_name_format("features.%d.conv.%d", index, part + 1).text,
                      SH_ACT_NONE,
                      &(sh_conv_attrs){.out_channels = g->out_channels, .kernel = {1, 1}});
    return stride == 1 && in_channels == g->out_channels ? sh_op_add(t->p, x, y) : y;
}

static sh_value features(sh_trunk *t, sh_value image)
{
    const bool same = ((const variant *)t->net->plan)->same;
    int channels = 32, index = 1;
    const sh_conv_attrs stem = filter(channels, 2, 1, same);
    sh_value x = conv_bn_relu(t, image, "features.0", &stem);

    if (sh_trunk_ends(t, x, "features.0")) return x;
    for (size_t i = 0; i < SH_COUNT(groups); i++)
        for (int k = 0; k < groups[i].n; k++) {
            int stride = k == 0 ? groups[i].stride : 1;

            x = inverted_residual(t, x, index, channels, &groups[i], stride, same);
            if (sh_trunk_ends(t, x, "features.%d", index++)) return x;
            channels = groups[i].out_channels;
        }
    x = conv_bn_relu(t, x, "features.18", &(sh_conv_attrs){.out_channels = 1280, .kernel = {1, 1}});
    sh_trunk_ends(t, x, "features.18");
    return x;
}

/* Keras' names; a block's output is its last layer's. */
static const sh_tap_alias aliases[] = {
    {"Conv1_relu", "features.0"},
    {"expanded_conv_project_BN", "features.1"},
    {"block_1_project_BN", "features.2"},
    {"block_2_add", "features.3"},
    {"block_3_project_BN", "features.4"},
    {"block_4_add", "features.5"},
    {"block_5_add", "features.6"},
    {"block_6_project_BN", "features.7"},
    {"block_7_add", "features.8"},
    {"block_8_add", "features.9"},
    {"block_9_add", "features.10"},
    {"block_10_project_BN", "features.11"},
    {"block_11_add", "features.12"},
    {"block_12_add", "features.13"},
    {"block_13_project_BN", "features.14"},
    {"block_14_add", "features.15"},
    {"block_15_add", "features.16"},
    {"block_16_project_BN", "features.17"},
    {"out_relu", "features.18"},
    {NULL, NULL},
};

const sh_net sh_net_mobilenet_v2 = {
    .name = "mobilenet_v2",
    .title = "MobileNetV2, 2.2 million weights without classifier (names as in torchvision)",
    SH_NET_IMAGENET_INPUT,
    .default_size = 224,
    .dropout = 0.2f,
    .n_features = 1280,
    .bn_eps = 1e-5f,
    .bn_momentum = 0.1f,
    .plan = &(const variant){.same = false},
    .features = features,
    .classifier = "classifier.1",
    .aliases = aliases,
};

const sh_net sh_net_mobilenet_v2_keras = {
    .name = "mobilenet_v2_keras",
    .title = "MobileNetV2 as Keras computes it, under torchvision's names",
    SH_NET_SYMMETRIC_INPUT,
    .default_size = 224,
    .n_features = 1280,
    .bn_eps = 1e-3f,
    .bn_momentum = 0.001f,
    .plan = &(const variant){.same = true},
    .features = features,
    .classifier = "classifier.1",
    .aliases = aliases,
};
