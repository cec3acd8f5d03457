// SPDX-License-Identifier: Apache-2.0
/**
 * What becomes of batch statistics once the building is over.
 *
 * A training program is built with batch statistics throughout. Which batch norms are frozen is
 * only known once the store's slots are marked; and what a shard adds to the running statistics is
 * contributed together with the gradients, so that a forward phase alone leaves no trace and one
 * that is run twice (a mined batch in two passes) counts once.
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

static void freeze(sh_program *p, sh_node *export, const sh_value running[2])
{
    const sh_value batch[2] = {export->in[0], export->in[1]};

    p->nodes[p->values[batch[0]].producer].op = SH_OP_COUNT;
    export->op = SH_OP_COUNT;
    for (int k = 0; k < 2; k++) read_instead(p, batch[k], running[k]);
}

sh_status sh_settle_statistics(sh_program *p)
{
    sh_status st = SH_OK;
    int n_forward = p->n_nodes;

    p->building = SH_PHASE_BACKWARD;
    for (int i = 0; i < n_forward; i++) {
        sh_node node = p->nodes[i];
        if (node.op != SH_OP_BN_EXPORT) continue;
        const sh_value running[2] = {running_value(p, node.out[0]), running_value(p, node.out[1])};
        if (!sh_store_slot(p->config.store, p->values[running[0]].slot)->trainable) {
            freeze(p, &p->nodes[i], running);
            continue;
        }
        p->nodes[i].op = SH_OP_COUNT;
        SH_TRY(sh_graph_node(p, node.op, &node.attrs, node.n_in, node.in, node.n_out, node.out));
    }
    sh_graph_compact(p);
out:
    return st;
}
