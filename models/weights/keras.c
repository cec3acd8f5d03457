// SPDX-License-Identifier: Apache-2.0
/*
 * Keras .h5 files in the layout of keras.applications: a group per layer, in it datasets named
 * after the variables ("block1_conv1/block1_conv1/kernel:0"; in the oldest files
 * "block1_conv1/block1_conv1_W_1:0"), perhaps all within "model_weights". They are turned into
 * PyTorch's terms here: "block1_conv1.weight", [out, in, height, width]. What a layer is called in
 * our networks is a matter of aliases (models/weights/alias.h).
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/weights/hdf5.h"

enum { NAME_BYTES = 512 };

/* How a variable's dimensions are ordered: PyTorch's i-th is Keras's order[i]-th. */
typedef struct variable {
    const char *name, *ours;
    int n_dims; /* 0: any, order kept */
    int order[4];
} variable;

static const variable variables[] = {
    {"kernel", "weight", 4, {3, 2, 0, 1}},
    {"kernel", "weight", 2, {1, 0}},
    {"W", "weight", 4, {3, 2, 0, 1}},
    {"W", "weight", 2, {1, 0}},
    {"depthwise_kernel", "weight", 4, {2, 3, 0, 1}}, /* [h, w, channels, 1] */
    {"pointwise_kernel", "pointwise.weight", 4, {3, 2, 0, 1}},
    {"bias", "bias", 0, {0}},
    {"b", "bias", 0, {0}},
    {"gamma", "weight", 0, {0}},
    {"beta", "bias", 0, {0}},
    {"moving_mean", "running_mean", 0, {0}},
    {"moving_variance", "running_var", 0, {0}},
};

/* Cut a path into layer and variable: the last two components, without the ":0" of TensorFlow; in
 * the oldest files the variable repeats the layer and is numbered. */
static bool split_path(const char *path, char layer[NAME_BYTES], char leaf[NAME_BYTES])
{
    const char *slash = strrchr(path, '/');
    const char *begin = slash;

    if (slash == NULL || (size_t)(strlen(path)) >= NAME_BYTES) return false;
    while (begin > path && begin[-1] != '/') begin--;
    snprintf(layer, NAME_BYTES, "%.*s", (int)(slash - begin), begin);
    snprintf(leaf, NAME_BYTES, "%.*s", (int)strcspn(slash + 1, ":"), slash + 1);

    size_t n = strlen(layer);

    if (strncmp(leaf, layer, n) == 0 && leaf[n] == '_') {
        memmove(leaf, leaf + n + 1, strlen(leaf + n + 1) + 1);
        n = strlen(leaf);
        while (n > 0 && isdigit((unsigned char)leaf[n - 1])) n--;
        if (n > 1 && leaf[n - 1] == '_') leaf[n - 1] = '\0';
    }
    return true;
}

/* Keras 3 calls the kernel of a depthwise convolution "kernel" too; its layers' names tell. */
static const variable *find_variable(const char *layer, const char *leaf, int n_dims)
{
    if (strcmp(leaf, "kernel") == 0 && n_dims == 4 &&
        (strstr(layer, "depthwise") != NULL || strstr(layer, "dwconv") != NULL))
        leaf = "depthwise_kernel";
    for (size_t i = 0; i < SH_COUNT(variables); i++)
        if (strcmp(variables[i].name, leaf) == 0 &&
            (variables[i].n_dims == 0 || variables[i].n_dims == n_dims))
            return &variables[i];
    return NULL;
}

static sh_status add_dataset(void *context, const sh_h5_dataset *dataset)
{
    sh_status st = SH_OK;
    sh_weights *weights = context;
    sh_weight_view view = dataset->view;
    char layer[NAME_BYTES], leaf[NAME_BYTES], name[2 * NAME_BYTES];

    if (strncmp(dataset->path, "optimizer_weights/", 18) == 0) goto out;
    if (!split_path(dataset->path, layer, leaf)) goto out; /* a number beside the layers */

    const variable *v = find_variable(layer, leaf, view.n_dims);

    SH_CHECK(v == NULL || strcmp(v->name, "depthwise_kernel") != 0 || view.dims[3] == 1,
             SH_ERR_UNSUPPORTED, "%s: /%s: a depth multiplier of %lld is not read",
             sh_weights_label(weights), dataset->path, (long long)view.dims[3]);
    snprintf(name, sizeof(name), "%s.%s", layer, v != NULL ? v->ours : leaf);
    view.name = name;
    view.n_name = strlen(name);
    for (int i = 0; v != NULL && i < v->n_dims; i++) {
        view.dims[i] = dataset->view.dims[v->order[i]];
        view.strides[i] = dataset->view.strides[v->order[i]];
    }
    SH_TRY(sh_weights_add(weights, &view));
out:
    return st;
}

/* The layer of a running variance that comes without a weight, or 0 characters. */
static size_t layer_without_gamma(const sh_weights *weights, const sh_weight *weight)
{
    static const char part[] = ".running_var";
    const size_t n_part = sizeof(part) - 1, n_name = strlen(weight->name);
    char name[2 * NAME_BYTES + 16];

    if (n_name <= n_part || strcmp(weight->name + n_name - n_part, part) != 0) return 0;
    snprintf(name, sizeof(name), "%.*s.weight", (int)(n_name - n_part), weight->name);
    return sh_weights_find(weights, name) == NULL ? n_name - n_part : 0;
}

/* A batch norm made with scale=False has no gamma: it is 1. */
static sh_status add_missing_gammas(sh_weights *weights)
{
    static const float one = 1;
    sh_status st = SH_OK;
    const int64_t n = sh_weights_count(weights);
    size_t *n_layer = calloc((size_t)n + 1, sizeof(*n_layer));
    char name[2 * NAME_BYTES + 16];

    SH_CHECK(n_layer != NULL, SH_ERR_NO_MEMORY, "%s: %lld tensors", sh_weights_label(weights),
             (long long)n);
    SH_TRY(sh_weights_index(weights));
    for (int64_t i = 0; i < n; i++)
        n_layer[i] = layer_without_gamma(weights, sh_weights_get(weights, i));
    for (int64_t i = 0; i < n; i++) {
        const sh_weight *var = sh_weights_get(weights, i);

        if (n_layer[i] == 0) continue;
        snprintf(name, sizeof(name), "%.*s.weight", (int)n_layer[i], var->name);

        const sh_weight_view ones = {.name = name,
                                     .n_name = strlen(name),
                                     .type = sh_elem_by_name("F32"),
                                     .stored = (const uint8_t *)&one,
                                     .n_stored = 1,
                                     .n_dims = 1,
                                     .dims = {var->n_elems}};

        SH_TRY(sh_weights_add(weights, &ones));
    }
out:
    free(n_layer);
    return st;
}

sh_status sh_keras_parse(const uint8_t *data, size_t n_bytes, sh_weights *weights)
{
    sh_status st = SH_OK;

    sh_weights_set_budget(weights, (int64_t)n_bytes);
    SH_TRY(sh_h5_visit(data, n_bytes, sh_weights_label(weights), add_dataset, weights));
    SH_TRY(add_missing_gammas(weights));
out:
    return st;
}
