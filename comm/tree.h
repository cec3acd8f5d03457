// SPDX-License-Identifier: Apache-2.0
/**
 * The arithmetic of the fixed summation tree, without any communication (docs/exactness.md).
 *
 * A node is a range of shards [lo, hi). The root is [0, n); a node of more than one shard has the
 * children [lo, mid) and [mid, hi), mid = lo + the largest power of two below hi - lo. Nodes are
 * therefore the aligned ranges of 2^k shards, cut off at n.
 */
#ifndef SH_COMM_TREE_H
#define SH_COMM_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

typedef struct sh_tree_range {
    int lo, hi;
} sh_tree_range;

enum { SH_TREE_MAX_COVER = 64 }; /* 2 log2(n) bounds a cover, and n is an int */

/** Where [lo, hi), hi - lo >= 2, is divided. */
int sh_tree_split(int lo, int hi);

/** Is [lo, hi) a node of the tree over [0, n)? */
bool sh_tree_is_node(int n, int lo, int hi);

/** The largest nodes inside [begin, end), left to right, into cover[SH_TREE_MAX_COVER]; returns
 *  their number. */
int sh_tree_cover(int n, int begin, int end, sh_tree_range *cover);

/** All additions that n_inputs adjacent nodes, arriving left to right, allow: each is put on a
 *  stack, and then, n_joins[i] times after node i, the two on top become one. Returns the number of
 *  additions, n_inputs - 1 at most; *max_depth (may be NULL) is the most that the stack holds. */
int sh_tree_plan(int n, const sh_tree_range *inputs, int n_inputs, uint8_t *n_joins,
                 int *max_depth);

/** dst = a + b on the calling thread alone; dst may be a or b. */
void sh_tree_add_block(float *dst, const float *a, const float *b, int64_t n);

SH_C_END

#endif
