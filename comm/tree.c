// SPDX-License-Identifier: Apache-2.0
#include "comm/tree.h"

#include "comm/comm.h"

enum {
    BLOCK_FLOATS = 4096,
    THREADED_FLOATS = 1 << 16, /* below this, waking threads costs more than the addition */
};

int sh_tree_split(int lo, int hi)
{
    int half = 1;

    while (half * 2 < hi - lo) half *= 2;
    return lo + half;
}

bool sh_tree_is_node(int n, int lo, int hi)
{
    int length = 1;

    if (lo < 0 || hi > n || lo >= hi) return false;
    while (length < hi - lo) length *= 2;
    return lo % length == 0 && (hi - lo == length || hi == n);
}

static int cover_node(sh_tree_range node, int begin, int end, sh_tree_range *cover, int n_cover)
{
    if (node.hi <= begin || node.lo >= end) return n_cover;
    if (node.lo >= begin && node.hi <= end) {
        cover[n_cover] = node;
        return n_cover + 1;
    }
    int mid = sh_tree_split(node.lo, node.hi);

    n_cover = cover_node((sh_tree_range){node.lo, mid}, begin, end, cover, n_cover);
    return cover_node((sh_tree_range){mid, node.hi}, begin, end, cover, n_cover);
}

int sh_tree_cover(int n, int begin, int end, sh_tree_range *cover)
{
    return cover_node((sh_tree_range){0, n}, begin, end, cover, 0);
}

int sh_tree_plan(int n, const sh_tree_range *inputs, int n_inputs, uint8_t *n_joins, int *max_depth)
{
    sh_tree_range stack[SH_TREE_MAX_COVER];
    int depth = 0, deepest = 0, n_all = 0;

    for (int i = 0; i < n_inputs; i++) {
        stack[depth++] = inputs[i];
        n_joins[i] = 0;
        if (depth > deepest) deepest = depth;
        /* Like the carries of a binary counter: each arrival may complete several parents. */
        while (depth >= 2) {
            sh_tree_range *left = &stack[depth - 2], *right = &stack[depth - 1];

            if (!sh_tree_is_node(n, left->lo, right->hi) ||
                sh_tree_split(left->lo, right->hi) != left->hi)
                break;
            n_joins[i]++;
            n_all++;
            left->hi = right->hi;
            depth--;
        }
    }
    if (max_depth != NULL) *max_depth = deepest;
    return n_all;
}

/* Each element is one rounded addition, so neither vector width nor threads change a bit. */
void sh_tree_add_block(float *dst, const float *a, const float *b, int64_t n)
{
    /* Written as vectors, since dst may be a or b and compilers then hesitate. */
    typedef float vector __attribute__((vector_size(32), aligned(4), may_alias));
    enum { LANES = 8 };
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        *(vector *)(dst + i) = *(const vector *)(a + i) + *(const vector *)(b + i);
    for (; i < n; i++) dst[i] = a[i] + b[i];
}

void sh_tree_add(float *dst, const float *a, const float *b, int64_t n)
{
#pragma omp parallel for schedule(static) if (n >= THREADED_FLOATS)
    for (int64_t at = 0; at < n; at += BLOCK_FLOATS)
        sh_tree_add_block(dst + at, a + at, b + at, n - at < BLOCK_FLOATS ? n - at : BLOCK_FLOATS);
}

static int64_t share_begin(int64_t n, int64_t n_parts, int64_t part)
{
    int64_t extra = n % n_parts;

    return n / n_parts * part + (part < extra ? part : extra);
}

void sh_shards_of_rank(int n_shards, int size, int rank, int *begin, int *end)
{
    *begin = (int)share_begin(n_shards, size, rank);
    *end = (int)share_begin(n_shards, size, rank + 1);
}

int sh_rank_of_shard(int n_shards, int size, int shard)
{
    int rank = 0, begin, end;

    for (;; rank++) {
        sh_shards_of_rank(n_shards, size, rank, &begin, &end);
        if (shard < end || rank == size - 1) return rank;
    }
}

void sh_items_of_shard(int64_t n_items, int n_shards, int shard, int64_t *begin, int64_t *end)
{
    *begin = share_begin(n_items, n_shards, shard);
    *end = share_begin(n_items, n_shards, shard + 1);
}
