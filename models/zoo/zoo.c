// SPDX-License-Identifier: Apache-2.0
#include "models/zoo/zoo.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/graph.h"
#include "models/zoo/nets.h"

static const sh_net *const nets[] = {
    &sh_net_mobilenet_v2,
    &sh_net_mobilenet_v2_keras,
    &sh_net_mobilenet_v3_small,
    &sh_net_efficientnet_lite0,
    &sh_net_efficientnet_b0,
    &sh_net_efficientnet_b5,
    &sh_net_timm_efficientnet_b5,
    &sh_net_tf_efficientnet_b0,
    &sh_net_tf_efficientnet_b5,
    &sh_net_efficientnetv2_rw_m,
    &sh_net_vit_small_patch16_224,
    &sh_net_vit_small_patch16_224_dino,
    &sh_net_vit_small_patch14_dinov2,
    &sh_net_resnet50,
    &sh_net_resnet101,
    &sh_net_resnet101_v2,
    &sh_net_vgg16,
    &sh_net_vgg16_bn,
    &sh_net_inception_v3,
    &sh_net_inception_v3_keras,
    &sh_net_inception_resnet_v2,
    &sh_net_siamese_orl,
    NULL,
};

/* As in the published implementation of generalised-mean pooling. */
static const float gem_eps = 1e-6f;

static const float neck_eps = 1e-5f, neck_momentum = 0.1f;

/* ---- finding ---- */

const sh_net *const *sh_net_list(void)
{
    return nets;
}

sh_status sh_net_find(const char *name, const sh_net **out)
{
    sh_status st = SH_OK;
    char known[1024] = "";
    size_t n = 0;

    for (int i = 0; nets[i] != NULL; i++) {
        if (strcmp(nets[i]->name, name) == 0) {
            *out = nets[i];
            goto out;
        }
        if (n < sizeof(known))
            n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s", i == 0 ? "" : ", ",
                                  nets[i]->name);
    }
    SH_FAIL(SH_ERR_USAGE, "unknown network '%s'; known are %s", name, known);
out:
    return st;
}

/* ---- for the files of networks ---- */

sh_layer_name sh_layer_name_format(const char *fmt, ...)
{
    sh_layer_name name;
    va_list args;

    va_start(args, fmt);
    vsnprintf(name.text, sizeof(name.text), fmt, args);
    va_end(args);
    return name;
}

bool sh_trunk_ends(sh_trunk *t, sh_value x, const char *fmt, ...)
{
    sh_layer_name name;
    va_list args;

    va_start(args, fmt);
    vsnprintf(name.text, sizeof(name.text), fmt, args);
    va_end(args);
    if (t->visit != NULL) t->visit(t->context, x, name.text);
    t->ended = strcmp(t->tap, name.text) == 0;
    return t->ended;
}

sh_value sh_trunk_norm(sh_trunk *t, sh_value x, const char *name)
{
    return sh_op_batch_norm(t->p, x, name, t->net->bn_eps, t->net->bn_momentum);
}

sh_value sh_trunk_conv(sh_trunk *t, sh_value x, const char *conv, const char *bn, sh_act act,
                       const sh_conv_attrs *attrs)
{
    return sh_op_act(t->p, sh_trunk_norm(t, sh_op_conv(t->p, x, conv, attrs), bn), act);
}

/* ---- taps ---- */

static const char *without_alias(const sh_net *net, const char *tap)
{
    for (const sh_tap_alias *a = net->aliases; a != NULL && a->alias != NULL; a++)
        if (strcmp(a->alias, tap) == 0) return a->tap;
    return tap;
}

typedef struct tap_list {
    sh_program *p;
    sh_tap *taps;
    int n, capacity;
    bool no_memory;
} tap_list;

static void collect_tap(void *context, sh_value x, const char *name)
{
    tap_list *list = context;
    int64_t dims[4];

    if (list->n == list->capacity) {
        int capacity = 2 * list->capacity + 16;
        sh_tap *grown = realloc(list->taps, (size_t)capacity * sizeof(*grown));

        if (grown == NULL) {
            list->no_memory = true;
            return;
        }
        list->taps = grown;
        list->capacity = capacity;
    }
    sh_tap *tap = &list->taps[list->n++];

    sh_program_dims(list->p, x, dims);
    snprintf(tap->name, sizeof(tap->name), "%s", name);
    tap->channels = dims[1];
    tap->height = dims[2];
    tap->width = dims[3];
}

sh_status sh_net_taps(const sh_net *net, sh_tap **out, int *n)
{
    sh_status st = SH_OK;
    const sh_backend *backend = NULL;
    sh_store *store = NULL;
    tap_list list = {0};

    SH_TRY(sh_backend_find("ref", &backend));
    SH_TRY(sh_store_create(backend, &store));
    const sh_program_config config = {
        .backend = backend, .store = store, .dtype = SH_F32, .share = 1, .prefix = ""};
    SH_TRY(sh_program_create(&config, &list.p));
    sh_trunk t = {.p = list.p, .net = net, .tap = "", .visit = collect_tap, .context = &list};
    sh_value image = sh_program_input(
        list.p, "image", (int64_t[4]){1, net->in_channels, net->default_size, net->default_size});

    net->features(&t, image);
    SH_CHECK(!list.no_memory, SH_ERR_NO_MEMORY, "taps of %s", net->name);
    SH_TRY(list.p->status);
    *out = list.taps;
    *n = list.n;
    list.taps = NULL;
out:
    free(list.taps);
    sh_program_destroy(&list.p);
    sh_store_destroy(&store);
    return st;
}

/* The refusal of an unknown tap. */
static sh_status no_such_tap(const sh_net *net, const char *tap, const sh_tap *taps, int n)
{
    sh_status st = SH_OK;
    char known[2048] = "";
    size_t used = 0;

    for (int i = 0; i < n && used < sizeof(known); i++)
        used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", i == 0 ? "" : ", ",
                                 taps[i].name);
    for (const sh_tap_alias *a = net->aliases; a != NULL && a->alias != NULL; a++)
        if (used < sizeof(known))
            used += (size_t)snprintf(known + used, sizeof(known) - used, ", %s", a->alias);
    SH_FAIL(SH_ERR_USAGE, "%s has no tap '%s'; it has %s", net->name, tap, known);
out:
    return st;
}

sh_status sh_net_check_tap(const sh_net *net, const char *tap)
{
    sh_status st = SH_OK;
    sh_tap *taps = NULL;
    int n = 0;

    if (tap[0] == '\0') goto out;
    SH_TRY(sh_net_taps(net, &taps, &n));
    for (int i = 0; i < n; i++)
        if (strcmp(taps[i].name, without_alias(net, tap)) == 0) goto out;
    SH_TRY(no_such_tap(net, tap, taps, n));
out:
    free(taps);
    return st;
}

/* ---- heads ---- */

static sh_value own_pool(sh_trunk *t, sh_value x)
{
    return t->net->pool != NULL ? t->net->pool(t, x) : sh_op_global_avg_pool(t->p, x);
}

sh_value sh_net_classifier(sh_program *p, const sh_net *net, sh_value image, int n_classes)
{
    sh_trunk t = {.p = p, .net = net, .tap = ""};
    sh_value x = net->features(&t, image);

    if (net->classify != NULL) return net->classify(&t, x, n_classes);
    x = own_pool(&t, x);
    if (net->classifier == NULL) return x;
    if (net->dropout > 0) x = sh_op_dropout(p, x, net->dropout);
    return sh_op_linear(p, x, net->classifier, n_classes, true);
}

static sh_value pooled(sh_trunk *t, sh_value x, sh_pool pool)
{
    switch (pool) {
    case SH_POOL_NET: return t->ended ? sh_op_global_avg_pool(t->p, x) : own_pool(t, x);
    case SH_POOL_AVG: return sh_op_global_avg_pool(t->p, x);
    case SH_POOL_GEM: return sh_op_gem_pool(t->p, x, "pool.p", gem_eps);
    case SH_POOL_FLATTEN: return sh_op_flatten(t->p, x);
    case SH_POOL_TOKEN: return sh_op_take_token(t->p, x, 0);
    }
    return SH_NO_VALUE;
}

static sh_value dense_layers(sh_program *p, const sh_net *net, sh_value x, const sh_head *head)
{
    int n = head->n_hidden + (head->dim > 0);
    const char *only = net->head != NULL ? net->head : "head";

    for (int i = 0; i < n; i++) {
        bool hidden = i < head->n_hidden;
        sh_layer_name name = sh_layer_name_format("head.%d", i);

        x = sh_op_linear(p, x, n == 1 ? only : name.text, hidden ? head->hidden[i] : head->dim,
                         true);
        if (hidden) x = sh_op_act(p, x, head->act);
    }
    return x;
}

sh_value sh_net_neck(sh_program *p, sh_value x)
{
    return sh_op_batch_norm(p, x, "neck", neck_eps, neck_momentum);
}

sh_value sh_net_normalize(sh_program *p, sh_value x)
{
    return sh_op_l2_norm(p, x);
}

sh_value sh_net_features(sh_program *p, const sh_net *net, sh_value image, const sh_head *head)
{
    const char *tap = head->tap != NULL ? head->tap : "";
    sh_trunk t = {.p = p, .net = net, .tap = without_alias(net, tap)};
    sh_value x = net->features(&t, image);

    if (tap[0] != '\0' && !t.ended) {
        sh_graph_fail(p, sh_net_check_tap(net, tap));
        return SH_NO_VALUE;
    }
    return pooled(&t, x, head->pool);
}

sh_value sh_net_head(sh_program *p, const sh_net *net, sh_value x, const sh_head *head)
{
    if (head->dropout > 0) x = sh_op_dropout(p, x, head->dropout);
    x = dense_layers(p, net, x, head);
    if (head->bn_neck) x = sh_net_neck(p, x);
    return head->normalize ? sh_net_normalize(p, x) : x;
}

sh_value sh_net_embedding(sh_program *p, const sh_net *net, sh_value image, const sh_head *head)
{
    return sh_net_head(p, net, sh_net_features(p, net, image, head), head);
}
