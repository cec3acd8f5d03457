// SPDX-License-Identifier: Apache-2.0
#include "trainer/backbone.h"

#include <stdlib.h>
#include <string.h>

static bool is_head(const char *name)
{
    static const char *const prefixes[] = {"head.", "neck.", "pool.", "loss."};

    for (size_t i = 0; i < SH_COUNT(prefixes); i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) return true;
    return false;
}

sh_status sh_backbone_write(const char *path, const sh_weights *weights, const sh_store *store,
                            bool without_head, const char *const (*metadata)[2], int n_metadata,
                            int *n_written)
{
    sh_status st = SH_OK;
    const int n_slots = sh_store_n_slots(store);
    sh_weight_out *tensors = calloc((size_t)n_slots + 1, sizeof(*tensors));
    int n = 0;

    SH_CHECK(tensors != NULL, SH_ERR_NO_MEMORY, "%d tensors", n_slots);
    for (int i = 0; i < n_slots; i++) {
        const sh_weight *w = sh_weights_find(weights, sh_store_slot(store, i)->name);

        if (w == NULL || (without_head && is_head(w->name))) continue;
        tensors[n] =
            (sh_weight_out){.name = w->name, .dtype = SH_F32, .n_dims = w->n_dims, .data = w->data};
        memcpy(tensors[n++].dims, w->dims, sizeof(w->dims));
    }
    SH_TRY(sh_weights_write(path, tensors, n, metadata, n_metadata, NULL, NULL));
    *n_written = n;
out:
    free(tensors);
    return st;
}

static json_t *three(const float values[3], int n)
{
    json_t *list = json_array();

    for (int i = 0; i < n; i++) json_array_append_new(list, json_real((double)values[i]));
    return list;
}

sh_status sh_backbone_describe(const sh_net *net, int height, int width, json_t **out)
{
    sh_status st = SH_OK;
    sh_tap *taps = NULL;
    int n_taps = 0;
    json_t *names = json_array(), *card = NULL;

    SH_CHECK(names != NULL, SH_ERR_NO_MEMORY, "card");
    SH_TRY(sh_net_taps(net, &taps, &n_taps));
    for (int i = 0; i < n_taps; i++)
        SH_CHECK(json_array_append_new(names, json_string(taps[i].name)) == 0, SH_ERR_NO_MEMORY,
                 "card");
    card = json_pack("{s:s, s:s, s:{s:[i,i], s:s, s:s, s:o, s:o}, s:O}", "net", net->name, "title",
                     net->title, "preprocessing", "size", height, width, "channels",
                     net->in_channels == 3 ? "RGB" : "grey", "formula",
                     "(pixel / 255 - mean) / std", "mean", three(net->mean, net->in_channels),
                     "std", three(net->std, net->in_channels), "taps", names);
    SH_CHECK(card != NULL, SH_ERR_NO_MEMORY, "card");
    *out = card;
out:
    json_decref(names);
    free(taps);
    return st;
}
