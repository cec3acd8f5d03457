// SPDX-License-Identifier: Apache-2.0
/** What fusion rules ask of a program and do to it: for fuse.c and the files of its larger rules.
 */
#ifndef SH_MODELS_FUSE_H
#define SH_MODELS_FUSE_H

#include "models/graph.h"

/** A rule (see fuse.c) anchored at a BN_APPLY: what squeezes and excites its output normalises by
 *  itself. */
bool sh_fuse_squeeze(sh_program *p, sh_node *bn);

static inline sh_node *producer_of(sh_program *p, sh_value v, sh_op op)
{
    if (v == SH_NO_VALUE || p->values[v].producer < 0) return NULL;
    sh_node *node = &p->nodes[p->values[v].producer];
    return node->op == op ? node : NULL;
}

/** Absent operands read as SH_NO_VALUE, also those beyond the count. */
static inline sh_value input(const sh_node *node, int k)
{
    return k < node->n_in ? node->in[k] : SH_NO_VALUE;
}

static inline sh_value output(const sh_node *node, int k)
{
    return k < node->n_out ? node->out[k] : SH_NO_VALUE;
}

static inline void set_input(sh_node *node, int k, sh_value v)
{
    while (node->n_in <= k) node->in[node->n_in++] = SH_NO_VALUE;
    node->in[k] = v;
}

static inline void set_output(sh_program *p, sh_node *node, int k, sh_value v)
{
    while (node->n_out <= k) node->out[node->n_out++] = SH_NO_VALUE;
    node->out[k] = v;
    if (v != SH_NO_VALUE) p->values[v].producer = (int)(node - p->nodes);
}

static inline void remove_node(sh_node *node)
{
    node->op = SH_OP_COUNT;
}

/** The n-th node that reads v, or NULL. */
static inline sh_node *user_of(sh_program *p, sh_value v, int n)
{
    for (int i = 0; i < p->n_nodes; i++) {
        sh_node *node = &p->nodes[i];
        if (node->op == SH_OP_COUNT) continue;
        for (int k = 0; k < node->n_in; k++) {
            if (node->in[k] == v && n-- == 0) return node;
            if (node->in[k] == v) break;
        }
    }
    return NULL;
}

static inline int n_reads(const sh_node *node, sh_value v)
{
    int n = 0;

    for (int k = 0; k < node->n_in; k++) n += node->in[k] == v;
    return n;
}

/** Does the backend have a kernel for the merged node? */
static inline bool accepted(const sh_program *p, sh_node merged)
{
    sh_graph_describe(p, &merged);
    return p->config.backend->can_fuse(&merged.desc);
}

/** The BN_GRAD_* node of this op that takes g as dy for the batch norm `bn`, or NULL. */
static inline sh_node *bn_grad_user(sh_program *p, sh_op op, sh_value g, const sh_node *bn)
{
    for (int i = 0; i < p->n_nodes; i++) {
        sh_node *node = &p->nodes[i];
        if (node->op == op && node->in[0] == g && node->in[1] == bn->in[0]) return node;
    }
    return NULL;
}

#endif
