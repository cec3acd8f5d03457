// SPDX-License-Identifier: Apache-2.0
/* ResNet-50 and ResNet-101 (He et al. 2016) as torchvision has them: the stride of a bottleneck is
 * in its 3x3 convolution. */
#include "models/zoo/nets.h"

enum { N_LAYERS = 4, EXPANSION = 4 };

typedef struct bottleneck {
    const char *prefix; /* "layer1.0." */
    int width, stride;
    bool has_downsample; /* the shortcut is a convolution */
} bottleneck;

static sh_value conv_bn(sh_trunk *t, sh_value x, const char *prefix, const char *conv,
                        const char *bn, sh_act act, const sh_conv_attrs *attrs)
{
    return sh_trunk_conv(t, x, sh_layer_name_format("%s%s", prefix, conv).text,
                         sh_layer_name_format("%s%s", prefix, bn).text, act, attrs);
}

static sh_value block(sh_trunk *t, sh_value x, const bottleneck *b)
{
    const int n_out = EXPANSION * b->width;
    sh_value shortcut = x;
    sh_value y = conv_bn(t, x, b->prefix, "conv1", "bn1", SH_ACT_RELU,
                         &(sh_conv_attrs){.out_channels = b->width, .kernel = {1, 1}});

    y = conv_bn(
        t, y, b->prefix, "conv2", "bn2", SH_ACT_RELU,
        &(sh_conv_attrs){
            .out_channels = b->width, .kernel = {3, 3}, .stride = b->stride, .pad = {1, 1, 1, 1}});
    y = conv_bn(t, y, b->prefix, "conv3", "bn3", SH_ACT_NONE,
                &(sh_conv_attrs){.out_channels = n_out, .kernel = {1, 1}});
    if (b->has_downsample)
        shortcut =
            conv_bn(t, x, b->prefix, "downsample.0", "downsample.1", SH_ACT_NONE,
                    &(sh_conv_attrs){.out_channels = n_out, .kernel = {1, 1}, .stride = b->stride});
    return sh_op_act(t->p, sh_op_add(t->p, y, shortcut), SH_ACT_RELU);
}

static sh_value features(sh_trunk *t, sh_value image)
{
    const int *depths = t->net->plan; /* [N_LAYERS]: bottlenecks of each layer */
    sh_value x = sh_trunk_conv(
        t, image, "conv1", "bn1", SH_ACT_RELU,
        &(sh_conv_attrs){.out_channels = 64, .kernel = {7, 7}, .stride = 2, .pad = {3, 3, 3, 3}});

    if (sh_trunk_ends(t, x, "conv1")) return x;
    x = sh_op_max_pool(t->p, x,
                       &(sh_pool_attrs){.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1, 1, 1}});
    if (sh_trunk_ends(t, x, "maxpool")) return x;
    for (int layer = 0; layer < N_LAYERS; layer++) {
        for (int k = 0; k < depths[layer]; k++) {
            const sh_layer_name prefix = sh_layer_name_format("layer%d.%d.", layer + 1, k);
            const bottleneck b = {.prefix = prefix.text,
                                  .width = 64 << layer,
                                  .stride = k == 0 && layer > 0 ? 2 : 1,
                                  .has_downsample = k == 0};

            x = block(t, x, &b);
            if (sh_trunk_ends(t, x, "layer%d.%d", layer + 1, k)) return x;
        }
        if (sh_trunk_ends(t, x, "layer%d", layer + 1)) return x;
    }
    return x;
}

const sh_net sh_net_resnet50 = {
    .name = "resnet50",
    .title = "ResNet-50, 23.5 million weights without classifier (names as in torchvision)",
    SH_NET_IMAGENET_INPUT,
    .default_size = 224,
    .n_features = 2048,
    .bn_eps = 1e-5f,
    .bn_momentum = 0.1f,
    .plan = (const int[N_LAYERS]){3, 4, 6, 3},
    .features = features,
    .classifier = "fc",
};

const sh_net sh_net_resnet101 = {
    .name = "resnet101",
    .title = "ResNet-101, 42.5 million weights without classifier (names as in torchvision)",
    SH_NET_IMAGENET_INPUT,
    .default_size = 224,
    .n_features = 2048,
    .bn_eps = 1e-5f,
    .bn_momentum = 0.1f,
    .plan = (const int[N_LAYERS]){3, 4, 23, 3},
    .features = features,
    .classifier = "fc",
};
