// SPDX-License-Identifier: Apache-2.0
#include "models/weights/recognise.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/weights/alias.h"

enum { IMAGENET_CLASSES = 1000 };

/* With less of a network in a file, a list of what is missing would tell nothing. */
static const double least_share = 0.5;

/* A network and a way to name its tensors, and how much of the network the file then has. */
typedef struct candidate {
    const sh_net *net;
    const sh_alias *alias; /* NULL: the names as they stand */
    double share;
} candidate;

sh_status sh_weights_slots_of(const sh_net *net, int n_classes, sh_store **out)
{
    sh_status st = SH_OK;
    const sh_backend *backend = NULL;
    sh_store *store = NULL;
    sh_program *p = NULL;
    int64_t dims[4];
    const int64_t size = net->default_size;

    SH_TRY(sh_backend_find("ref", &backend));
    SH_TRY(sh_store_create(backend, &store));
    SH_TRY(sh_program_create(
        &(sh_program_config){.backend = backend, .store = store, .dtype = SH_F32, .share = 1}, &p));

    sh_value image =
        sh_program_input(p, "image", (const int64_t[]){1, net->in_channels, size, size});

    sh_program_dims(p, sh_net_classifier(p, net, image, n_classes), dims);
    SH_CHECK(dims[0] > 0, SH_ERR_INTERNAL, "%s cannot be built: %s", net->name, sh_error_message());
    *out = store;
    store = NULL;
out:
    sh_program_destroy(&p);
    sh_store_destroy(&store);
    return st;
}

static bool is_classifier(const sh_net *net, const char *name)
{
    const size_t n = net->classifier != NULL ? strlen(net->classifier) : 0;

    return n > 0 && strncmp(name, net->classifier, n) == 0 && name[n] == '.';
}

/* How much of the network, without its classifier, the set has. */
static double share_of(const sh_weights *weights, const sh_alias *alias, const sh_net *net,
                       const sh_store *store)
{
    int n_classifier = 0;

    for (int i = 0; i < sh_store_n_slots(store); i++)
        n_classifier += is_classifier(net, sh_store_slot(store, i)->name);

    /* A classifier of the usual size counts too: it may tell two networks apart. */
    const int n_match = sh_weights_match(weights, alias, store);

    return (double)n_match / (sh_store_n_slots(store) - n_classifier);
}

/* Of equals, the network whose own names they are goes before one that takes them by a table: they
 * differ in constants, and those are the names' package's. */
static void consider(candidate *best, const candidate *c, char *others, size_t size)
{
    const sh_net *other = c->net;
    const size_t n = strlen(others);

    if (c->share > best->share) {
        *best = *c;
        others[0] = '\0';
        return;
    }
    if (c->share < best->share || c->share == 0 || c->net == best->net) return;
    if (best->alias != NULL && c->alias == NULL) {
        other = best->net;
        *best = *c;
    }
    snprintf(others + n, size - n, "%s%s", n > 0 ? ", " : "", other->name);
}

/* The network that comes nearest. */
static sh_status find(const sh_weights *weights, const char *wanted, candidate *best, char *others,
                      size_t size)
{
    sh_status st = SH_OK;
    const sh_net *only = NULL;
    sh_store *store = NULL;

    if (wanted != NULL) SH_TRY(sh_net_find(wanted, &only));
    for (const sh_net *const *net = sh_net_list(); *net != NULL; net++) {
        if (only != NULL && *net != only) continue;
        SH_TRY(sh_weights_slots_of(*net, IMAGENET_CLASSES, &store));

        candidate c = {.net = *net, .share = share_of(weights, NULL, *net, store)};

        consider(best, &c, others, size);
        for (const sh_alias *a = sh_alias_list(); a->net != NULL; a++) {
            if (strcmp(a->net, (*net)->name) != 0) continue;
            c.alias = a;
            c.share = share_of(weights, a, *net, store);
            consider(best, &c, others, size);
        }
        sh_store_destroy(&store);
    }
    SH_CHECK(best->share > least_share, SH_ERR_MISMATCH,
             "%s: names and shapes of its tensors are not those of %s (first of them: %s); which "
             "names are known is in docs/weights.md",
             sh_weights_label(weights), wanted != NULL ? wanted : "a known network",
             sh_weights_get(weights, 0)->name);
out:
    sh_store_destroy(&store);
    return st;
}

/* Everything before the classifier must be there. */
static sh_status check_complete(const sh_weights *weights, const sh_net *net, const char *wanted,
                                sh_recognised *out)
{
    sh_status st = SH_OK;
    char text[1024] = "";
    size_t n = 0;
    int n_wrong = 0;
    sh_store *store = NULL;

    SH_TRY(
        sh_weights_slots_of(net, out->n_classes > 0 ? out->n_classes : IMAGENET_CLASSES, &store));
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const sh_slot *slot = sh_store_slot(store, i);
        const sh_weight *w = sh_weights_find(weights, slot->name);

        if (w != NULL && w->n_dims == slot->n_dims &&
            memcmp(w->dims, slot->dims, (size_t)slot->n_dims * sizeof(slot->dims[0])) == 0) {
            out->n_tensors++;
            continue;
        }
        if (w == NULL && is_classifier(net, slot->name)) continue;
        n_wrong++;
        if (n + 200 < sizeof(text))
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%.160s%s", n > 0 ? ", " : "",
                                  slot->name, w == NULL ? " (missing)" : " (of another shape)");
    }
    SH_CHECK(n_wrong == 0, SH_ERR_MISMATCH,
             "%s comes nearest to %s, but %d of its %d tensors do not fit: %s%s%s",
             sh_weights_label(weights), net->name, n_wrong, sh_store_n_slots(store), text,
             n_wrong > 6 ? ", ..." : "",
             wanted == NULL ? "; if it is another network, name it with --net" : "");
    n = 0;
    for (int64_t i = 0; i < sh_weights_count(weights); i++) {
        const char *name = sh_weights_get(weights, i)->name;

        if (sh_store_find(store, name) >= 0 || strstr(name, "num_batches_tracked") != NULL ||
            n + 200 > sizeof(out->extra))
            continue;
        n += (size_t)snprintf(out->extra + n, sizeof(out->extra) - n, "%s%.160s", n > 0 ? ", " : "",
                              name);
    }
out:
    sh_store_destroy(&store);
    return st;
}

sh_status sh_weights_recognise(sh_weights *weights, const char *net, sh_recognised *out)
{
    sh_status st = SH_OK;
    candidate best = {0};
    char name[160];

    *out = (sh_recognised){.names_of = "", .note = ""};
    SH_TRY(find(weights, net, &best, out->others, sizeof(out->others)));
    if (best.alias != NULL) {
        SH_TRY(sh_alias_apply(best.alias, weights));
        out->names_of = best.alias->source;
        if (best.alias->note != NULL) out->note = best.alias->note;
    }
    out->net = best.net;
    if (best.net->classifier != NULL) {
        snprintf(name, sizeof(name), "%s.weight", best.net->classifier);

        const sh_weight *w = sh_weights_find(weights, name);

        if (w != NULL && w->n_dims == 2) out->n_classes = (int)w->dims[0];
    }
    SH_TRY(check_complete(weights, best.net, net, out));
out:
    return st;
}
