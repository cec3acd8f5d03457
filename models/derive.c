// SPDX-License-Identifier: Apache-2.0
/**
 * Derivatives: for each forward op, the nodes that turn the gradient of its output into gradients
 * of its inputs. Named in the op table (models/ops.c), called by autodiff in reverse node order.
 */
#include "models/graph.h"

/* Nodes may move in memory while others are appended: a derivative works on a copy. */

sh_value sh_derive_like(sh_program *p, sh_value like, const char *what)
{
    char label[SH_LABEL_SIZE];
    const sh_tensor_desc desc = p->values[like].desc;

    snprintf(label, sizeof(label), "%.*s:%s", (int)sizeof(label) - 24, p->values[like].label, what);
    return sh_graph_value(p, &desc, label);
}

bool sh_derive_wants(const sh_program *p, sh_value v)
{
    return v != SH_NO_VALUE && p->values[v].wants_grad;
}

sh_status sh_derive_one(sh_program *p, sh_op op, const sh_op_attrs *attrs, int n_in,
                        const sh_value *in, sh_value x, sh_value *grads)
{
    sh_status st = SH_OK;

    if (!sh_derive_wants(p, x)) goto out;
    sh_value dx = sh_derive_like(p, x, "grad");
    SH_TRY(sh_graph_node(p, op, attrs, n_in, in, 1, &dx));
    SH_TRY(sh_autodiff_accumulate(p, grads, x, dx));
out:
    return st;
}

sh_status sh_derive_unary(sh_program *p, int index, sh_op op, sh_value *grads)
{
    const sh_node node = p->nodes[index];

    return sh_derive_one(p, op, &node.attrs, 1, &grads[node.out[0]], node.in[0], grads);
}

sh_status sh_derive_many(sh_program *p, sh_op op, const sh_op_attrs *attrs, int n_in,
                         const sh_value *in, int n_x, const sh_value *xs, sh_value *grads)
{
    sh_status st = SH_OK;
    sh_value out[SH_NODE_OUTPUTS] = {SH_NO_VALUE};
    int n_out = 0;

    for (int i = 0; i < n_x; i++) {
        bool is_wanted = sh_derive_wants(p, xs[i]);
        out[i] = is_wanted || i == 0 ? sh_derive_like(p, xs[i], "grad") : SH_NO_VALUE;
        if (is_wanted) n_out = i + 1;
    }
    if (n_out == 0) goto out;
    SH_TRY(sh_graph_node(p, op, attrs, n_in, in, n_out, out));
    for (int i = 0; i < n_out; i++) {
        if (sh_derive_wants(p, xs[i])) SH_TRY(sh_autodiff_accumulate(p, grads, xs[i], out[i]));
    }
out:
    return st;
}

/** Gradients of weight and bias, shared by convolution and linear. */
static sh_status derive_weights(sh_program *p, sh_op op, const sh_node *node, sh_value dy,
                                sh_value *grads)
{
    sh_status st = SH_OK;
    sh_value w = node->in[1], bias = node->n_in > 2 ? node->in[2] : SH_NO_VALUE;
    const sh_value in[2] = {node->in[0], dy};
    sh_value out[2] = {SH_NO_VALUE, SH_NO_VALUE};

    if (!sh_derive_wants(p, w) && !sh_derive_wants(p, bias)) goto out;
    out[0] = sh_derive_like(p, w, "grad");
    if (sh_derive_wants(p, bias)) out[1] = sh_derive_like(p, bias, "grad");
    SH_TRY(sh_graph_node(p, op, &node->attrs, 2, in, out[1] == SH_NO_VALUE ? 1 : 2, out));
    if (sh_derive_wants(p, w)) SH_TRY(sh_autodiff_accumulate(p, grads, w, out[0]));
    if (sh_derive_wants(p, bias)) SH_TRY(sh_autodiff_accumulate(p, grads, bias, out[1]));
out:
    return st;
}

/* A map by weights: their gradient comes first, it is exchanged while the rest of backward runs. */
static sh_status derive_weighted(sh_program *p, int index, sh_op op_w, sh_op op_x, sh_value *grads)
{
    sh_status st = SH_OK;
    const sh_node node = p->nodes[index];
    sh_value dy = grads[node.out[0]];
    const sh_value in[2] = {dy, node.in[1]};

    SH_TRY(derive_weights(p, op_w, &node, dy, grads));
    SH_TRY(sh_derive_one(p, op_x, &node.attrs, 2, in, node.in[0], grads));
out:
    return st;
}

sh_status sh_derive_conv(sh_program *p, int index, sh_value *grads)
{
    return derive_weighted(p, index, SH_OP_CONV_GRAD_W, SH_OP_CONV_GRAD_X, grads);
}

sh_status sh_derive_linear(sh_program *p, int index, sh_value *grads)
{
    return derive_weighted(p, index, SH_OP_LINEAR_GRAD_W, SH_OP_LINEAR_GRAD_X, grads);
}

/* The batch statistics' own derivative is part of BN_GRAD_APPLY, so gradients never pass through
 * BN_STATS. With constant statistics the sums are needed for gamma and beta only. */
sh_status sh_derive_bn_apply(sh_program *p, int index, sh_value *grads)
{
    sh_status st = SH_OK;
    const sh_node node = p->nodes[index];
    sh_value x = node.in[0], gamma = node.in[3], beta = node.in[4];
    sh_value dy = grads[node.out[0]], sums[2] = {SH_NO_VALUE, SH_NO_VALUE};

    if (sh_derive_wants(p, gamma) || sh_derive_wants(p, beta) ||
        (sh_derive_wants(p, x) && !node.attrs.frozen)) {
        const sh_value in[6] = {dy, x, node.in[1], node.in[2], gamma, beta};
        sums[0] = sh_derive_like(p, gamma, "grad");
        sums[1] = sh_derive_like(p, beta, "grad");
        SH_TRY(sh_graph_node(p, SH_OP_BN_GRAD_REDUCE, &node.attrs, 6, in, 2, sums));
        if (sh_derive_wants(p, gamma)) SH_TRY(sh_autodiff_accumulate(p, grads, gamma, sums[0]));
        if (sh_derive_wants(p, beta)) SH_TRY(sh_autodiff_accumulate(p, grads, beta, sums[1]));
    }
    if (node.attrs.frozen) sums[0] = sums[1] = SH_NO_VALUE;
    const sh_value in[8] = {dy, x, node.in[1], node.in[2], gamma, beta, sums[0], sums[1]};
    SH_TRY(sh_derive_one(p, SH_OP_BN_GRAD_APPLY, &node.attrs, 8, in, x, grads));
out:
    return st;
}

sh_status sh_derive_act(sh_program *p, int index, sh_value *grads)
{
    const sh_node node = p->nodes[index];
    bool needs_input = sh_act_needs_input(node.attrs.act);
    const sh_value in[2] = {grads[node.out[0]], needs_input ? node.in[0] : node.out[0]};

    return sh_derive_one(p, SH_OP_ACT_GRAD, &node.attrs, 2, in, node.in[0], grads);
}

sh_status sh_derive_add(sh_program *p, int index, sh_value *grads)
{
    sh_status st = SH_OK;
    const sh_node node = p->nodes[index];

    for (int i = 0; i < 2; i++) {
        if (!sh_derive_wants(p, node.in[i])) continue;
        SH_TRY(sh_autodiff_accumulate(p, grads, node.in[i], grads[node.out[0]]));
    }
out:
    return st;
}

sh_status sh_derive_avg_pool(sh_program *p, int index, sh_value *grads)
{
    return sh_derive_unary(p, index, SH_OP_AVG_POOL_GRAD, grads);
}

sh_status sh_derive_flatten(sh_program *p, int index, sh_value *grads)
{
    return sh_derive_unary(p, index, SH_OP_FLATTEN_GRAD, grads);
}

sh_status sh_derive_dropout(sh_program *p, int index, sh_value *grads)
{
    return sh_derive_unary(p, index, SH_OP_DROPOUT, grads);
}

sh_status sh_derive_reflect_pad(sh_program *p, int index, sh_value *grads)
{
    return sh_derive_unary(p, index, SH_OP_REFLECT_PAD_GRAD, grads);
}

sh_status sh_derive_cast(sh_program *p, int index, sh_value *grads)
{
    return sh_derive_unary(p, index, SH_OP_CAST, grads);
}

sh_status sh_derive_l2_norm(sh_program *p, int index, sh_value *grads)
{
    const sh_node node = p->nodes[index];
    const sh_value in[3] = {grads[node.out[0]], node.in[0], node.out[0]};

    return sh_derive_one(p, SH_OP_L2_NORM_GRAD, &node.attrs, 3, in, node.in[0], grads);
}
