// SPDX-License-Identifier: Apache-2.0
/* Which package's names a file uses, and weights whose size depends on the image's. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/weights/alias.h"
#include "models/weights/internal.h"

/* More than any network has; ranks (alias.h) take the square of it. */
enum { MAX_TENSORS = 20000 };

static bool fits(const sh_weight *weight, const char *name, const sh_store *store)
{
    const int index = sh_store_find(store, name);
    const sh_slot *slot = index >= 0 ? sh_store_slot(store, index) : NULL;

    return slot != NULL && weight->n_dims == slot->n_dims &&
           memcmp(weight->dims, slot->dims, (size_t)slot->n_dims * sizeof(slot->dims[0])) == 0;
}

int sh_weights_match(const sh_weights *weights, const sh_alias *alias, const sh_store *store)
{
    int n = 0;
    char name[SH_ALIAS_NAME];

    for (int64_t i = 0; i < sh_weights_count(weights); i++) {
        const sh_weight *weight = sh_weights_get(weights, i);

        if (alias != NULL) sh_alias_translate(alias, weight->name, weights, name);
        n += fits(weight, alias != NULL ? name : weight->name, store);
    }
    return n;
}

sh_status sh_weights_adapt(sh_weights *weights, const sh_store *store, const sh_alias **alias)
{
    sh_status st = SH_OK;
    const sh_alias *best = NULL;
    int n_best = sh_weights_match(weights, NULL, store);

    for (const sh_alias *a = sh_alias_list(); a->net != NULL; a++) {
        /* Most files come under our own names. */
        if (sh_weights_count(weights) > MAX_TENSORS || 2 * n_best > sh_store_n_slots(store)) break;

        int n = sh_weights_match(weights, a, store);

        if (n <= n_best) continue;
        n_best = n;
        best = a;
    }
    if (best != NULL) SH_TRY(sh_alias_apply(best, weights));
    if (alias != NULL) *alias = best;
out:
    return st;
}
