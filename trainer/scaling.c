// SPDX-License-Identifier: Apache-2.0
#include "trainer/scaling.h"

#include <math.h>

#include "comm/comm.h"
#include "comm/tree.h"

/* Subtrees that `rank` sends whole: a range of shards that is no node of the tree is several. */
static int n_subtrees(const sh_scaling *s, int n_ranks, int rank)
{
    sh_tree_range cover[SH_TREE_MAX_COVER];
    int begin, end;

    sh_shards_of_rank(s->n_shards, n_ranks, rank, &begin, &end);
    return sh_tree_cover(s->n_shards, begin, end, cover);
}

/* Every rank owns a slice of each bucket, 1 / n_ranks of the vector in all. It collects the others'
 * subtrees of its slice, adds them, and shares the sum. */
static double sum_exact(const sh_scaling *s, int n_ranks, int local, double vector_bytes)
{
    double slice = vector_bytes / n_ranks, n_remote = n_ranks - local;
    int n_all = 0, n_most = 0;

    for (int r = 0; r < n_ranks; r++) {
        int n = n_subtrees(s, n_ranks, r);

        n_all += n;
        n_most = n > n_most ? n : n_most;
    }
    double out = local * n_most * n_remote * slice;
    double in = local * slice * n_all * n_remote / n_ranks;
    double link = fmax(out, in) + local * n_remote * slice;
    double memory = (n_all - 1) * slice + 2.0 * (n_ranks - 1) * slice;

    return link / s->link_bytes_per_s + memory / s->memory_bytes_per_s + 2 * s->latency_seconds;
}

/* Open MPI sums in place along a binomial tree of ranks and spreads the result along another: at
 * each level the whole vector passes a link, wherever the ranks are. Buckets that travel up while
 * others travel down make it shorter. */
static double sum_fast(const sh_scaling *s, int n_ranks, int local, double vector_bytes)
{
    double n_levels = ceil(log2(n_ranks));
    double link = n_ranks > local ? 2 * n_levels * vector_bytes : 0;

    return link / s->link_bytes_per_s + 2 * n_levels * vector_bytes / s->memory_bytes_per_s +
           2 * n_levels * s->latency_seconds;
}

/* A bucket is exchanged as soon as the last shard's backward pass has made it; the last one made
 * has nothing left to hide behind. */
static double waiting(const sh_scaling *s, double sum)
{
    double last_shard = (double)s->batch / s->n_shards * s->image_seconds * s->backward_share;
    double hidden = last_shard * (s->n_buckets - 1) / s->n_buckets;

    return fmax(sum - hidden, sum / s->n_buckets);
}

void sh_scaling_predict(const sh_scaling *s, int n_ranks, sh_scaling_step *out)
{
    int most_shards = (s->n_shards + n_ranks - 1) / n_ranks;
    int local = n_ranks < s->ranks_per_host ? n_ranks : s->ranks_per_host;
    double images = (double)s->batch * most_shards / s->n_shards;
    double vector_bytes = sizeof(float) * (double)s->n_elems;
    double rows_bytes = sizeof(float) * (double)s->batch * (double)s->dim;

    *out = (sh_scaling_step){.compute = images * s->image_seconds,
                             .update = s->update_seconds,
                             .mining = images * (double)s->batch * s->pair_seconds,
                             .input = images * s->load_seconds};
    if (n_ranks > 1) {
        out->gather = rows_bytes * local * (n_ranks - local) / n_ranks / s->link_bytes_per_s +
                      s->latency_seconds;
        out->sum_exact = sum_exact(s, n_ranks, local, vector_bytes);
        out->sum_fast = sum_fast(s, n_ranks, local, vector_bytes);
        out->wait_exact = waiting(s, out->sum_exact);
        out->wait_fast = waiting(s, out->sum_fast);
    }
    double alone = out->compute + out->gather + out->mining + out->update;

    out->exact = fmax(alone + out->wait_exact, out->input);
    out->fast = fmax(alone + out->wait_fast, out->input);
}
