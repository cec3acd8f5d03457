// SPDX-License-Identifier: Apache-2.0
#include "models/loss/groups.h"

#include <stdlib.h>
#include <string.h>

sh_status sh_groups_create(int64_t n_max, sh_groups *out)
{
    sh_status st = SH_OK;
    size_t n = (size_t)n_max;
    sh_groups g = {0};

    g.order = calloc(n, sizeof(*g.order));
    g.begin = calloc(n, sizeof(*g.begin));
    g.end = calloc(n, sizeof(*g.end));
    g.place = calloc(n, sizeof(*g.place));
    g.keys = calloc(n, sizeof(*g.keys));
    g.labels = calloc(n, sizeof(*g.labels));
    SH_CHECK(g.order != NULL && g.begin != NULL && g.end != NULL && g.place != NULL &&
                 g.keys != NULL && g.labels != NULL,
             SH_ERR_NO_MEMORY, "mining: groups of %zu rows", n);
    *out = g;
    g = (sh_groups){0};
out:
    sh_groups_clear(&g);
    return st;
}

void sh_groups_clear(sh_groups *groups)
{
    free(groups->order);
    free(groups->begin);
    free(groups->end);
    free(groups->place);
    free(groups->keys);
    free(groups->labels);
    *groups = (sh_groups){0};
}

static int compare_keys(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

void sh_groups_fill(sh_groups *g, const int32_t *labels, int64_t n)
{
    size_t bytes = (size_t)n * sizeof(*labels);

    if (g->n == n && memcmp(g->labels, labels, bytes) == 0) return;
    memcpy(g->labels, labels, bytes);
    g->n = n;
    for (int64_t i = 0; i < n; i++)
        g->keys[i] = (uint64_t)(uint32_t)labels[i] << 32 | (uint64_t)(uint32_t)i;
    qsort(g->keys, (size_t)n, sizeof(*g->keys), compare_keys);
    for (int64_t begin = 0, end = 0; begin < n; begin = end) {
        while (end < n && g->keys[end] >> 32 == g->keys[begin] >> 32) end++;
        for (int64_t at = begin; at < end; at++) {
            int32_t row = (int32_t)(uint32_t)g->keys[at];

            g->order[at] = row;
            g->place[row] = (int32_t)at;
            g->begin[row] = (int32_t)begin;
            g->end[row] = (int32_t)end;
        }
    }
}

int64_t sh_groups_from(const sh_groups *g, int64_t i, int64_t row)
{
    int64_t lo = g->begin[i], hi = g->end[i];

    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;

        if (g->order[mid] < row) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}
