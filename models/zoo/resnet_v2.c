// SPDX-License-Identifier: Apache-2.0
/* ResNet-101V2 (He et al. 2016, "identity mappings") as Keras has it, under Keras' layer names:
 * activation before the convolutions, the stride of a stage in its last block, whose shortcut then
 * takes every second pixel. */
#include "models/zoo/nets.h"

enum { EXPANSION = 4 };

typedef struct stage {
    int width, n_blocks, stride;
} stage;

static const stage stages[] = {{64, 3, 2}, {128, 4, 2}, {256, 23, 2}, {512, 3, 1}};

/* Batch norm and ReLU. */
static sh_value activate(sh_trunk *t, sh_value x, const char *prefix, const char *name)
{
    x = sh_trunk_norm(t, x, sh_layer_name_format("%s%s", prefix, name).text);
    return sh_op_act(t->p, x, SH_ACT_RELU);
}

static sh_value conv(sh_trunk *t, sh_value x, const char *prefix, const char *name,
                     const sh_conv_attrs *attrs)
{
    return sh_op_conv(t->p, x, sh_layer_name_format("%s%s", prefix, name).text, attrs);
}

static sh_value block(sh_trunk *t, sh_value x, const char *prefix, int width, int stride,
                      bool is_first)
{
    const sh_conv_attrs widen = {.out_channels = EXPANSION * width, .kernel = {1, 1}, .bias = true};
    sh_value active = activate(t, x, prefix, "preact_bn");
    sh_value shortcut = x;
    sh_value y = conv(t, active, prefix, "1_conv",
                      &(sh_conv_attrs){.out_channels = width, .kernel = {1, 1}});

    y = conv(t, activate(t, y, prefix, "1_bn"), prefix, "2_conv",
             &(sh_conv_attrs){
                 .out_channels = width, .kernel = {3, 3}, .stride = stride, .pad = {1, 1, 1, 1}});
    y = conv(t, activate(t, y, prefix, "2_bn"), prefix, "3_conv", &widen);
    if (is_first)
        shortcut = conv(t, active, prefix, "0_conv", &widen);
    else if (stride > 1)
        shortcut =
            sh_op_max_pool(t->p, x, &(sh_pool_attrs){.kernel = {1, 1}, .stride = {stride, stride}});
    return sh_op_add(t->p, shortcut, y);
}

static sh_value features(sh_trunk *t, sh_value image)
{
    sh_value x = sh_op_conv(
        t->p, image, "conv1_conv",
        &(sh_conv_attrs){
            .out_channels = 64, .kernel = {7, 7}, .stride = 2, .pad = {3, 3, 3, 3}, .bias = true});

    if (sh_trunk_ends(t, x, "conv1_conv")) return x;
    /* No activation before it, so the zeros around the map take part in the maxima. */
    x = sh_op_max_pool(
        t->p, x,
        &(sh_pool_attrs){
            .kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1, 1, 1}, .count_padding = true});
    if (sh_trunk_ends(t, x, "pool1_pool")) return x;
    for (size_t i = 0; i < SH_COUNT(stages); i++)
        for (int k = 1; k <= stages[i].n_blocks; k++) {
            const sh_layer_name prefix = sh_layer_name_format("conv%zu_block%d_", i + 2, k);
            const bool is_last = k == stages[i].n_blocks;

            x = block(t, x, prefix.text, stages[i].width, is_last ? stages[i].stride : 1, k == 1);
            if (sh_trunk_ends(t, x, "%sout", prefix.text)) return x;
        }
    x = activate(t, x, "", "post_bn");
    sh_trunk_ends(t, x, "post_relu");
    return x;
}

const sh_net sh_net_resnet101_v2 = {
    .name = "resnet101_v2",
    .title = "ResNet-101V2, 42.5 million weights without classifier (names as in Keras)",
    SH_NET_SYMMETRIC_INPUT,
    .default_size = 224,
    .n_features = 2048,
    .bn_eps = 1.001e-5f,
    .bn_momentum = 0.01f,
    .features = features,
    .classifier = "predictions",
};
