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

/* ---- position embeddings ---- */

/* The cubic that PyTorch's and Pillow's antialiased bicubic filters use. */
static double cubic(double x)
{
    const double a = -0.5;

    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

/* Resample a line of `from` numbers, `stride` apart, to `to` numbers; the filter widens where the
 * grid shrinks. */
static void resample_line(const float *in, int64_t from, int64_t to, int64_t stride, float *out)
{
    const double scale = (double)from / (double)to, support = 2 * fmax(scale, 1);

    for (int64_t i = 0; i < to; i++) {
        const double center = ((double)i + 0.5) * scale;
        const int64_t begin = (int64_t)fmax(center - support + 0.5, 0);
        const int64_t end = (int64_t)fmin(center + support + 0.5, (double)from);
        double sum = 0, total = 0;

        for (int64_t k = begin; k < end; k++) {
            const double w = cubic(((double)k + 0.5 - center) / fmax(scale, 1));

            sum += w * (double)in[k * stride];
            total += w;
        }
        out[i * stride] = (float)(sum / total);
    }
}

/* [1, 1 + n n, C] to [1, 1 + rows columns, C]: the class token's stays, the others are resampled
 * along x, then along y. */
static sh_status resample_positions(sh_weights *weights, int64_t index, int64_t n,
                                    const int64_t grid[2])
{
    sh_status st = SH_OK;
    const sh_weight *w = sh_weights_get(weights, index);
    const int64_t width = w->dims[2], rows = grid[0], columns = grid[1];
    float *wide = malloc((size_t)(n * columns * width) * sizeof(*wide));
    float *all = malloc((size_t)((1 + rows * columns) * width) * sizeof(*all));

    SH_CHECK(wide != NULL && all != NULL, SH_ERR_NO_MEMORY, "%s", w->name);
    memcpy(all, w->data, (size_t)width * sizeof(*all));
    for (int64_t c = 0; c < width; c++) {
        for (int64_t y = 0; y < n; y++)
            resample_line(w->data + (1 + y * n) * width + c, n, columns, width,
                          wide + y * columns * width + c);
        for (int64_t x = 0; x < columns; x++)
            resample_line(wide + x * width + c, n, rows, columns * width,
                          all + (1 + x) * width + c);
    }
    sh_weights_replace(weights, index, 1, 1 + rows * columns, all);
    all = NULL;
out:
    free(wide);
    free(all);
    return st;
}

/* Side of the grid that a file's position embedding [1, 1 + side side, C] is of; 0: it is none. */
static int64_t grid_side(int n_dims, const int64_t *dims)
{
    if (n_dims != 3 || dims[0] != 1 || dims[1] < 2) return 0;

    const int64_t side = (int64_t)(sqrt((double)(dims[1] - 1)) + 0.5);

    return side * side == dims[1] - 1 ? side : 0;
}

static sh_status adapt_positions(sh_weights *weights, const sh_store *store)
{
    sh_status st = SH_OK;
    const int slot_index = sh_store_find(store, "pos_embed");

    for (int64_t i = 0; slot_index >= 0 && i < sh_weights_count(weights); i++) {
        const sh_weight *w = sh_weights_get(weights, i);
        const sh_slot *slot = sh_store_slot(store, slot_index);
        const int64_t from = grid_side(w->n_dims, w->dims);

        if (strcmp(w->name, slot->name) != 0 || from == 0 || slot->grid[0] == 0 ||
            w->dims[1] == slot->dims[1] || w->dims[2] != slot->dims[2])
            continue;
        SH_TRY(resample_positions(weights, i, from, slot->grid));
    }
out:
    return st;
}

/* ---- adapting ---- */

sh_status sh_weights_adapt(sh_weights *weights, const sh_net *net, const sh_store *store,
                           const sh_alias **alias)
{
    sh_status st = SH_OK;
    const sh_alias *best = NULL;
    int n_best = sh_weights_match(weights, NULL, store);

    for (const sh_alias *a = sh_alias_list(); a->net != NULL; a++) {
        if (strcmp(a->net, net->name) != 0) continue;
        /* Most files come under our own names. */
        if (sh_weights_count(weights) > MAX_TENSORS || 2 * n_best > sh_store_n_slots(store)) break;

        int n = sh_weights_match(weights, a, store);

        if (n <= n_best) continue;
        n_best = n;
        best = a;
    }
    if (best != NULL) SH_TRY(sh_alias_apply(best, weights));
    SH_TRY(adapt_positions(weights, store));
    if (alias != NULL) *alias = best;
out:
    return st;
}
