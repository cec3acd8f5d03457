// SPDX-License-Identifier: Apache-2.0
/* MobileNetV3-small (Howard et al. 2019) as torchvision has it. */
#include "models/zoo/nets.h"

enum { STEM_CHANNELS = 16, CLASSIFIER_WIDTH = 1024 };

typedef struct residual {
    int kernel, hidden, out_channels;
    bool has_se; /* squeeze-and-excitation */
    sh_act act;
    int stride;
} residual;

static const residual residuals[] = {
    {3, 16, 16, true, SH_ACT_RELU, 2},        {3, 72, 24, false, SH_ACT_RELU, 2},
    {3, 88, 24, false, SH_ACT_RELU, 1},       {5, 96, 40, true, SH_ACT_HARD_SWISH, 2},
    {5, 240, 40, true, SH_ACT_HARD_SWISH, 1}, {5, 240, 40, true, SH_ACT_HARD_SWISH, 1},
    {5, 120, 48, true, SH_ACT_HARD_SWISH, 1}, {5, 144, 48, true, SH_ACT_HARD_SWISH, 1},
    {5, 288, 96, true, SH_ACT_HARD_SWISH, 2}, {5, 576, 96, true, SH_ACT_HARD_SWISH, 1},
    {5, 576, 96, true, SH_ACT_HARD_SWISH, 1},
};

/* Convolution `name`.0, batch norm `name`.1, activation. */
static sh_value conv(sh_trunk *t, sh_value x, const char *name, sh_act act, sh_conv_attrs attrs)
{
    for (int i = 0; i < 4; i++) attrs.pad[i] = attrs.kernel[0] / 2;
    return sh_trunk_conv(t, x, sh_layer_name_format("%s.0", name).text,
                         sh_layer_name_format("%s.1", name).text, act, &attrs);
}

/* The parts of block `index` are numbered through; absent ones shift the numbers. */
static sh_layer_name part_name(int index, int part, const char *layer)
{
    return sh_layer_name_format("features.%d.block.%d%s", index, part, layer);
}

static sh_value squeeze_excite(sh_program *p, sh_value x, int index, int part, int n_channels)
{
    const int n_squeezed = (n_channels / 4 + 4) / 8 * 8; /* a quarter, in steps of 8 */
    sh_value s = sh_op_global_avg_pool(p, x);

    s = sh_op_conv(p, s, part_name(index, part, ".fc1").text,
                   &(sh_conv_attrs){.out_channels = n_squeezed, .kernel = {1, 1}, .bias = true});
    s = sh_op_act(p, s, SH_ACT_RELU);
    s = sh_op_conv(p, s, part_name(index, part, ".fc2").text,
                   &(sh_conv_attrs){.out_channels = n_channels, .kernel = {1, 1}, .bias = true});
    return sh_op_mul_channels(p, x, sh_op_act(p, s, SH_ACT_HARD_SIGMOID));
}

/* Expand (absent where it would not), filter each channel, weigh channels, project. */
static sh_value block(sh_trunk *t, sh_value x, int index, int in_channels, const residual *r)
{
    int part = 0;
    sh_value y = x;

    if (r->hidden != in_channels)
        y = conv(t, y, part_name(index, part++, "").text, r->act,
                 (sh_conv_attrs){.out_channels = r->hidden, .kernel = {1, 1}});
    y = conv(t, y, part_name(index, part++, "").text, r->act,
             (sh_conv_attrs){.out_channels = r->hidden,
                             .kernel = {r->kernel, r->kernel},
                             .stride = r->stride,
                             .groups = r->hidden});
    if (r->has_se) y = squeeze_excite(t->p, y, index, part++, r->hidden);
    y = conv(t, y, part_name(index, part, "").text, SH_ACT_NONE,
             (sh_conv_attrs){.out_channels = r->out_channels, .kernel = {1, 1}});
    return r->stride == 1 && in_channels == r->out_channels ? sh_op_add(t->p, x, y) : y;
}

static sh_value features(sh_trunk *t, sh_value image)
{
    int channels = STEM_CHANNELS, index = 1;
    sh_value x = conv(t, image, "features.0", SH_ACT_HARD_SWISH,
                      (sh_conv_attrs){.out_channels = channels, .kernel = {3, 3}, .stride = 2});

    if (sh_trunk_ends(t, x, "features.0")) return x;
    for (size_t i = 0; i < SH_COUNT(residuals); i++) {
        x = block(t, x, index, channels, &residuals[i]);
        if (sh_trunk_ends(t, x, "features.%d", index++)) return x;
        channels = residuals[i].out_channels;
    }
    x = conv(t, x, "features.12", SH_ACT_HARD_SWISH,
             (sh_conv_attrs){.out_channels = t->net->n_features, .kernel = {1, 1}});
    sh_trunk_ends(t, x, "features.12");
    return x;
}

static sh_value classify(sh_trunk *t, sh_value x, int n_classes)
{
    x = sh_op_linear(t->p, sh_op_global_avg_pool(t->p, x), "classifier.0", CLASSIFIER_WIDTH, true);
    x = sh_op_act(t->p, x, SH_ACT_HARD_SWISH);
    if (t->net->dropout > 0) x = sh_op_dropout(t->p, x, t->net->dropout);
    return sh_op_linear(t->p, x, t->net->classifier, n_classes, true);
}

const sh_net sh_net_mobilenet_v3_small = {
    .name = "mobilenet_v3_small",
    .title = "MobileNetV3-small, 0.9 million weights without classifier (names as in torchvision)",
    SH_NET_IMAGENET_INPUT,
    .default_size = 224,
    .dropout = 0.2f,
    .n_features = 576,
    .bn_eps = 1e-3f,
    .bn_momentum = 0.01f,
    .features = features,
    .classify = classify,
    .classifier = "classifier.3",
};
