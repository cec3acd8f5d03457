// SPDX-License-Identifier: Apache-2.0
/* EfficientNets with squeeze-and-excitation and SiLU: B0 and B5 (Tan and Le 2019) as torchvision
 * and timm pad them, the same with TensorFlow's SAME padding (as first published, and in
 * lukemelas' package), and timm's EfficientNetV2-RW-M, the backbone of MiewID.
 *
 * The packages differ in names, padding and BN constants only, so blocks are described once and
 * every package has a table of names. Weights under other names: models/weights/alias.h. */
#include "models/zoo/nets.h"

/* The layers of a block, in the order in which they run. */
typedef enum layer {
    EXPAND,
    EXPAND_BN,
    FILTER,
    FILTER_BN,
    SQUEEZE,
    EXCITE,
    PROJECT,
    PROJECT_BN,
    N_PARTS
} layer;

/* FUSED: a dense convolution filters and expands at once, without squeeze-and-excitation. */
typedef enum kind { PLAIN, EXPANDED, FUSED, N_KINDS } kind;

/* A stage: the first of its blocks has this stride, the others 1. */
typedef struct stage {
    kind kind;
    int kernel, stride, expand, out_channels, n;
} stage;

/* What a package calls the layers. */
typedef struct scheme {
    const char *stem, *stem_bn, *head, *head_bn;
    const char *blocks, *in_block; /* before and after a block's number */
    bool is_flat;                  /* blocks are numbered through, not "stage.block" */
    int first_stage;
    const char *parts[N_KINDS][N_PARTS]; /* NULL: not in such a block */
} scheme;

typedef struct body {
    const stage *stages;
    int n_stages, n_blocks, stem_channels;
} body;

typedef struct variant {
    const body *body;
    const scheme *names;
    bool same; /* TensorFlow's padding */
} variant;

static const scheme torchvision = {
    .stem = "features.0.0",
    .stem_bn = "features.0.1",
    .head = "features.8.0",
    .head_bn = "features.8.1",
    .blocks = "features.",
    .in_block = "block.",
    .first_stage = 1,
    .parts = {[PLAIN] = {NULL, NULL, "0.0", "0.1", "1.fc1", "1.fc2", "2.0", "2.1"},
              [EXPANDED] = {"0.0", "0.1", "1.0", "1.1", "2.fc1", "2.fc2", "3.0", "3.1"}},
};

static const scheme timm = {
    .stem = "conv_stem",
    .stem_bn = "bn1",
    .head = "conv_head",
    .head_bn = "bn2",
    .blocks = "blocks.",
    .in_block = "",
    .parts = {[PLAIN] = {NULL, NULL, "conv_dw", "bn1", "se.conv_reduce", "se.conv_expand",
                         "conv_pw", "bn2"},
              [EXPANDED] = {"conv_pw", "bn1", "conv_dw", "bn2", "se.conv_reduce", "se.conv_expand",
                            "conv_pwl", "bn3"},
              [FUSED] = {NULL, NULL, "conv_exp", "bn1", NULL, NULL, "conv_pwl", "bn2"}},
};

static const scheme lukemelas = {
    .stem = "_conv_stem",
    .stem_bn = "_bn0",
    .head = "_conv_head",
    .head_bn = "_bn1",
    .blocks = "_blocks.",
    .in_block = "",
    .is_flat = true,
    .parts = {[PLAIN] = {NULL, NULL, "_depthwise_conv", "_bn1", "_se_reduce", "_se_expand",
                         "_project_conv", "_bn2"},
              [EXPANDED] = {"_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_se_reduce",
                            "_se_expand", "_project_conv", "_bn2"}},
};

static const stage b0_stages[] = {
    {PLAIN, 3, 1, 1, 16, 1},     {EXPANDED, 3, 2, 6, 24, 2},  {EXPANDED, 5, 2, 6, 40, 2},
    {EXPANDED, 3, 2, 6, 80, 3},  {EXPANDED, 5, 1, 6, 112, 3}, {EXPANDED, 5, 2, 6, 192, 4},
    {EXPANDED, 3, 1, 6, 320, 1},
};

static const stage b5_stages[] = {
    {PLAIN, 3, 1, 1, 24, 3},     {EXPANDED, 3, 2, 6, 40, 5},  {EXPANDED, 5, 2, 6, 64, 5},
    {EXPANDED, 3, 2, 6, 128, 7}, {EXPANDED, 5, 1, 6, 176, 7}, {EXPANDED, 5, 2, 6, 304, 9},
    {EXPANDED, 3, 1, 6, 512, 3},
};

static const stage v2_rw_m_stages[] = {
    {FUSED, 3, 1, 1, 32, 3},     {FUSED, 3, 2, 4, 56, 5},      {FUSED, 3, 2, 4, 80, 5},
    {EXPANDED, 3, 2, 4, 152, 8}, {EXPANDED, 3, 1, 6, 192, 15}, {EXPANDED, 3, 2, 6, 328, 24},
};

static const body b0 = {
    .stages = b0_stages, .n_stages = SH_COUNT(b0_stages), .n_blocks = 16, .stem_channels = 32};
static const body b5 = {
    .stages = b5_stages, .n_stages = SH_COUNT(b5_stages), .n_blocks = 39, .stem_channels = 48};
static const body v2_rw_m = {.stages = v2_rw_m_stages,
                             .n_stages = SH_COUNT(v2_rw_m_stages),
                             .n_blocks = 60,
                             .stem_channels = 32};

/* ---- names ---- */

/* Where a block stands. */
typedef struct place {
    kind kind;
    int stage, block, index; /* stage of the net, block of the stage, block of the net */
} place;

static sh_layer_name name_of(const scheme *names, const place *at, layer part)
{
    const char *name = names->parts[at->kind][part];

    if (names->is_flat)
        return sh_layer_name_format("%s%d.%s%s", names->blocks, at->index, names->in_block, name);
    return sh_layer_name_format("%s%d.%d.%s%s", names->blocks, at->stage + names->first_stage,
                                at->block, names->in_block, name);
}

static sh_layer_name tap_of(const scheme *names, const place *at)
{
    if (names->is_flat) return sh_layer_name_format("%s%d", names->blocks, at->index);
    return sh_layer_name_format("%s%d.%d", names->blocks, at->stage + names->first_stage,
                                at->block);
}

/* ---- layers ---- */

/* Convolution, batch norm, activation. */
static sh_value conv(sh_trunk *t, sh_value x, const char *name, const char *bn, sh_act act,
                     sh_conv_attrs attrs)
{
    const variant *plan = t->net->plan;
    const int edge = plan->same ? 0 : attrs.kernel[0] / 2;

    attrs.same = plan->same;
    for (int i = 0; i < 4; i++) attrs.pad[i] = edge;
    return sh_trunk_conv(t, x, name, bn, act, &attrs);
}

/* Multiply each channel of each image by a factor, made from the means of all its channels. */
static sh_value squeeze_excite(sh_program *p, const scheme *names, const place *at, sh_value x,
                               int n_squeezed, int n_channels)
{
    sh_value s = sh_op_global_avg_pool(p, x);

    s = sh_op_conv(p, s, name_of(names, at, SQUEEZE).text,
                   &(sh_conv_attrs){.out_channels = n_squeezed, .kernel = {1, 1}, .bias = true});
    s = sh_op_act(p, s, SH_ACT_SILU);
    s = sh_op_conv(p, s, name_of(names, at, EXCITE).text,
                   &(sh_conv_attrs){.out_channels = n_channels, .kernel = {1, 1}, .bias = true});
    return sh_op_mul_channels(p, x, sh_op_act(p, s, SH_ACT_SIGMOID));
}

static sh_value block(sh_trunk *t, sh_value x, int in_channels, const place *at)
{
    const variant *plan = t->net->plan;
    const scheme *names = plan->names;
    const stage *s = &plan->body->stages[at->stage];
    const int hidden = in_channels * s->expand, stride = at->block == 0 ? s->stride : 1;
    sh_value y = x;

    if (s->kind == EXPANDED)
        y = conv(t, y, name_of(names, at, EXPAND).text, name_of(names, at, EXPAND_BN).text,
                 SH_ACT_SILU, (sh_conv_attrs){.out_channels = hidden, .kernel = {1, 1}});
    y = conv(t, y, name_of(names, at, FILTER).text, name_of(names, at, FILTER_BN).text, SH_ACT_SILU,
             (sh_conv_attrs){.out_channels = hidden,
                             .kernel = {s->kernel, s->kernel},
                             .stride = stride,
                             .groups = s->kind == FUSED ? 1 : hidden});
    if (s->kind != FUSED) y = squeeze_excite(t->p, names, at, y, in_channels / 4, hidden);
    y = conv(t, y, name_of(names, at, PROJECT).text, name_of(names, at, PROJECT_BN).text,
             SH_ACT_NONE, (sh_conv_attrs){.out_channels = s->out_channels, .kernel = {1, 1}});
    if (stride != 1 || in_channels != s->out_channels) return y;
    /* The later a block, the more often it is left out. */
    y = sh_op_path_drop(t->p, y,
                        t->net->path_drop * (float)at->index / (float)plan->body->n_blocks);
    return sh_op_add(t->p, x, y);
}

static sh_value features(sh_trunk *t, sh_value image)
{
    const variant *plan = t->net->plan;
    const scheme *names = plan->names;
    int channels = plan->body->stem_channels;
    place at = {.index = 0};
    sh_value x = conv(t, image, names->stem, names->stem_bn, SH_ACT_SILU,
                      (sh_conv_attrs){.out_channels = channels, .kernel = {3, 3}, .stride = 2});

    for (at.stage = 0; at.stage < plan->body->n_stages; at.stage++) {
        const stage *s = &plan->body->stages[at.stage];

        at.kind = s->kind;
        for (at.block = 0; at.block < s->n; at.block++, at.index++) {
            x = block(t, x, channels, &at);
            channels = s->out_channels;
            if (sh_trunk_ends(t, x, "%s", tap_of(names, &at).text)) return x;
        }
    }
    x = conv(t, x, names->head, names->head_bn, SH_ACT_SILU,
             (sh_conv_attrs){.out_channels = t->net->n_features, .kernel = {1, 1}});
    sh_trunk_ends(t, x, "%s", names->head);
    return x;
}

/* ---- the networks ---- */

/* What every B0 and every B5 has, and the two sets of batch norm constants. */
#define B0_FIELDS                                                                                  \
    SH_NET_IMAGENET_INPUT, .default_size = 224, .dropout = 0.2f, .path_drop = 0.2f,                \
                           .n_features = 1280, .features = features
#define B5_FIELDS                                                                                  \
    SH_NET_IMAGENET_INPUT, .default_size = 456, .dropout = 0.4f, .path_drop = 0.2f,                \
                           .n_features = 2048, .features = features
#define PYTORCH_NORM .bn_eps = 1e-5f, .bn_momentum = 0.1f
#define TENSORFLOW_NORM .bn_eps = 1e-3f, .bn_momentum = 0.01f

const sh_net sh_net_efficientnet_b0 = {
    .name = "efficientnet_b0",
    .title = "EfficientNet-B0, 4.0 million weights without classifier (names as in torchvision; "
             "timm's load)",
    B0_FIELDS,
    PYTORCH_NORM,
    .plan = &(const variant){.body = &b0, .names = &torchvision},
    .classifier = "classifier.1",
};

static const sh_tap_alias b5_taps[] = {
    {"block3b_add", "features.3.1"}, {"block3c_add", "features.3.2"}, {NULL, NULL}};

const sh_net sh_net_efficientnet_b5 = {
    .name = "efficientnet_b5",
    .title = "EfficientNet-B5, 28.3 million weights without classifier (names as in torchvision)",
    B5_FIELDS,
    TENSORFLOW_NORM,
    .plan = &(const variant){.body = &b5, .names = &torchvision},
    .classifier = "classifier.1",
    .aliases = b5_taps,
};

const sh_net sh_net_timm_efficientnet_b5 = {
    .name = "timm_efficientnet_b5",
    .title = "EfficientNet-B5 with the batch norm constants of timm (names as in timm)",
    B5_FIELDS,
    PYTORCH_NORM,
    .plan = &(const variant){.body = &b5, .names = &timm},
    .classifier = "classifier",
};

const sh_net sh_net_tf_efficientnet_b0 = {
    .name = "tf_efficientnet_b0",
    .title = "EfficientNet-B0 in TensorFlow's padding (names as in lukemelas' package)",
    B0_FIELDS,
    TENSORFLOW_NORM,
    .plan = &(const variant){.body = &b0, .names = &lukemelas, .same = true},
    .classifier = "_fc",
};

const sh_net sh_net_tf_efficientnet_b5 = {
    .name = "tf_efficientnet_b5",
    .title = "EfficientNet-B5 in TensorFlow's padding (names as in lukemelas' package)",
    B5_FIELDS,
    TENSORFLOW_NORM,
    .plan = &(const variant){.body = &b5, .names = &lukemelas, .same = true},
    .classifier = "_fc",
};

const sh_net sh_net_efficientnetv2_rw_m = {
    .name = "efficientnetv2_rw_m",
    .title = "EfficientNetV2-RW-M, the backbone of MiewID, 51.1 million weights without classifier "
             "(timm)",
    SH_NET_IMAGENET_INPUT,
    .default_size = 320,
    .dropout = 0,
    .path_drop = 0,
    .n_features = 2152,
    PYTORCH_NORM,
    .plan = &(const variant){.body = &v2_rw_m, .names = &timm},
    .features = features,
    .classifier = "classifier",
};
