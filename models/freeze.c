// SPDX-License-Identifier: Apache-2.0
/**
 * Frozen batch norm. A training program is built with batch statistics; which of them are frozen is
 * only known once the store's slots are marked, so the graph is edited before it is used.
 */
#include "models/graph.h"

/** The running statistic that a BN_EXPORT's output belongs to, as a value. */
static sh_value running_value(const sh_program *p, sh_value delta)
{
    for (int i = 0; i < p->n_values; i++) {
        const sh_value_info *v = &p->values[i];
        if (v->home == SH_HOME_STATES && v->offset == p->values[delta].offset) return i;
    }
    return SH_NO_VALUE;
}

/** Let every reader of a batch's statistic read the running one. */
static void read_instead(sh_program *p, sh_value batch, sh_value running)
{
    for (int i = 0; i < p->n_nodes; i++) {
        sh_node *node = &p->nodes[i];
        for (int k = 0; k < node->n_in; k++) {
            if (node->in[k] != batch) continue;
            node->in[k] = running;
            if (node->op == SH_OP_BN_APPLY) node->attrs.frozen = 1;
        }
    }
}

void sh_freeze(sh_program *p)
{
    for (int i = 0; i < p->n_nodes; i++) {
        sh_node *export = &p->nodes[i];
        if (export->op != SH_OP_BN_EXPORT) continue;
        const sh_value batch[2] = {export->in[0], export->in[1]};
        const sh_value running[2] = {running_value(p, export->out[0]),
                                     running_value(p, export->out[1])};
        if (sh_store_slot(p->config.store, p->values[running[0]].slot)->trainable) continue;
        export->op = SH_OP_COUNT;
        p->nodes[p->values[batch[0]].producer].op = SH_OP_COUNT;
        for (int k = 0; k < 2; k++) read_instead(p, batch[k], running[k]);
    }
    sh_graph_compact(p);
}
