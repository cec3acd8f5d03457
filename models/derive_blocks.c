// SPDX-License-Identifier: Apache-2.0
/** Derivatives of what residual, inception and transformer networks are made of. See derive.c. */
#include "models/graph.h"

sh_status sh_derive_max_pool(sh_program *p, int index, sh_value *grads)
{
    const sh_node node = p->nodes[index];
    const sh_value in[2] = {grads[node.out[0]], node.in[0]};

    return sh_derive_one(p, SH_OP_MAX_POOL_GRAD, &node.attrs, 2, in, node.in[0], grads);
}

sh_status sh_derive_mean_pool(sh_program *p, int index, sh_value *grads)
{
    return sh_derive_unary(p, index, SH_OP_MEAN_POOL_GRAD, grads);
}

sh_status sh_derive_adaptive_pool(sh_program *p, int index, sh_value *grads)
{
    return sh_derive_unary(p, index, SH_OP_ADAPTIVE_POOL_GRAD, grads);
}

/** Ops of (x, second): the gradient node takes (dy, x, second) and gives the gradients of both. */
static sh_status derive_binary(sh_program *p, int index, sh_op op, sh_value *grads)
{
    const sh_node node = p->nodes[index];
    const sh_value in[3] = {grads[node.out[0]], node.in[0], node.in[1]};

    return sh_derive_many(p, op, &node.attrs, 3, in, 2, node.in, grads);
}

sh_status sh_derive_gem_pool(sh_program *p, int index, sh_value *grads)
{
    return derive_binary(p, index, SH_OP_GEM_POOL_GRAD, grads);
}

sh_status sh_derive_mul_channels(sh_program *p, int index, sh_value *grads)
{
    return derive_binary(p, index, SH_OP_MUL_CHANNELS_GRAD, grads);
}

sh_status sh_derive_scale(sh_program *p, int index, sh_value *grads)
{
    return derive_binary(p, index, SH_OP_SCALE_GRAD, grads);
}

/* All outputs are there: each one's channels begin where those before it end. */
sh_status sh_derive_concat(sh_program *p, int index, sh_value *grads)
{
    sh_status st = SH_OK;
    const sh_node node = p->nodes[index];
    sh_value out[SH_NODE_OUTPUTS];

    for (int i = 0; i < node.n_in; i++) out[i] = sh_derive_like(p, node.in[i], "grad");
    SH_TRY(
        sh_graph_node(p, SH_OP_CONCAT_GRAD, &node.attrs, 1, &grads[node.out[0]], node.n_in, out));
    for (int i = 0; i < node.n_in; i++) {
        if (!sh_derive_wants(p, node.in[i])) continue;
        SH_TRY(sh_autodiff_accumulate(p, grads, node.in[i], out[i]));
    }
out:
    return st;
}

sh_status sh_derive_add_scaled(sh_program *p, int index, sh_value *grads)
{
    sh_status st = SH_OK;
    const sh_node node = p->nodes[index];
    sh_value dy = grads[node.out[0]];

    SH_TRY(sh_derive_one(p, SH_OP_ADD_SCALED, &node.attrs, 1, &dy, node.in[0], grads));
    if (sh_derive_wants(p, node.in[1])) {
        SH_TRY(sh_autodiff_accumulate(p, grads, node.in[1], dy));
    }
out:
    return st;
}

sh_status sh_derive_path_drop(sh_program *p, int index, sh_value *grads)
{
    return sh_derive_unary(p, index, SH_OP_PATH_DROP, grads);
}

/* dgamma and dbeta come together, wanted or not. */
sh_status sh_derive_layer_norm(sh_program *p, int index, sh_value *grads)
{
    sh_status st = SH_OK;
    const sh_node node = p->nodes[index];
    const sh_value in[3] = {grads[node.out[0]], node.in[0], node.in[1]};
    bool has_sums = sh_derive_wants(p, node.in[1]) || sh_derive_wants(p, node.in[2]);
    sh_value out[3];

    for (int i = 0; i < 3; i++) out[i] = sh_derive_like(p, node.in[i], "grad");
    SH_TRY(sh_graph_node(p, SH_OP_LAYER_NORM_GRAD, &node.attrs, 3, in, has_sums ? 3 : 1, out));
    for (int i = 0; i < 3; i++) {
        if (!sh_derive_wants(p, node.in[i])) continue;
        SH_TRY(sh_autodiff_accumulate(p, grads, node.in[i], out[i]));
    }
out:
    return st;
}

sh_status sh_derive_attention(sh_program *p, int index, sh_value *grads)
{
    const sh_node node = p->nodes[index];
    const sh_value in[4] = {grads[node.out[0]], node.in[0], node.out[0], node.out[1]};

    return sh_derive_one(p, SH_OP_ATTENTION_GRAD, &node.attrs, 4, in, node.in[0], grads);
}

sh_status sh_derive_tokens(sh_program *p, int index, sh_value *grads)
{
    const sh_node node = p->nodes[index];

    return sh_derive_many(p, SH_OP_TOKENS_GRAD, &node.attrs, 1, &grads[node.out[0]], 3, node.in,
                          grads);
}

sh_status sh_derive_take_token(sh_program *p, int index, sh_value *grads)
{
    return sh_derive_unary(p, index, SH_OP_TAKE_TOKEN_GRAD, grads);
}
