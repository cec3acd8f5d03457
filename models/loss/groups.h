// SPDX-License-Identifier: Apache-2.0
/** Rows of a batch that carry the same number (a label, a fish). */
#ifndef SH_MODELS_LOSS_GROUPS_H
#define SH_MODELS_LOSS_GROUPS_H

#include <stdint.h>

#include "base/status.h"

SH_C_BEGIN

typedef struct sh_groups {
    int32_t *order;  /* [n] rows, group after group, ascending within each */
    int32_t *begin;  /* [n] where row i's group begins in order */
    int32_t *end;    /* [n] and ends */
    int32_t *place;  /* [n] where row i itself stands in order */
    uint64_t *keys;  /* [n] scratch of the sort */
    int32_t *labels; /* [n] of which these are the groups; n 0: of none */
    int64_t n;
} sh_groups;

SH_MUST_CHECK sh_status sh_groups_create(int64_t n_max, sh_groups *out);
void sh_groups_clear(sh_groups *groups);
/** Nothing to do where the labels are those of the last call: a step asks twice. */
void sh_groups_fill(sh_groups *groups, const int32_t *labels, int64_t n);

/** Other rows of row i's group. */
static inline int64_t sh_groups_others(const sh_groups *g, int64_t i)
{
    return g->end[i] - g->begin[i] - 1;
}

/** Number `slot` of the other rows of row i's group, ascending. */
static inline int32_t sh_groups_other(const sh_groups *g, int64_t i, int64_t slot)
{
    int64_t at = g->begin[i] + slot;

    return g->order[at < g->place[i] ? at : at + 1];
}

/** The slot at which row j of the same group stands among row i's others. */
static inline int64_t sh_groups_slot(const sh_groups *g, int64_t i, int64_t j)
{
    return g->place[j] - g->begin[i] - (g->place[j] > g->place[i]);
}

/** Position in order, within row i's group, of the first row >= `row`. */
int64_t sh_groups_from(const sh_groups *g, int64_t i, int64_t row);

SH_C_END

#endif
