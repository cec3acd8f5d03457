// SPDX-License-Identifier: Apache-2.0
/**
 * Fusion: rewriting neighbouring nodes into one, where the backend says that it has a kernel for
 * it.
 *
 * A rule looks at one node; if the pattern that it anchors is there and the backend accepts the
 * merged node (sh_backend.can_fuse), it edits the list in place and marks what is absorbed as
 * removed. Rules run in the order of the table, each over all nodes, so a later rule may build on
 * what an earlier one made. Values keep their numbers; a value that nothing writes any more costs
 * nothing.
 *
 * Together they turn conv -> BN -> act -> conv, forward and backward, into one node per
 * convolution and pass, which reads and writes only what convolutions themselves put out.
 *
 * To add a rule: give the op the operands (models/ops.h) and a reference kernel, write the rewrite
 * here, add a row, and give tests/models/test_gradients.c a network that holds the pattern.
 */
#include <stdlib.h>

#include "models/fuse.h"

/* ---- forward: normalisation, residual, activation ---- */

/** ADD(bn, r) -> BN_APPLY with residual r. Of two batch norms the later one takes the other in: its
 *  derivative runs first and hands the gradient on. */
static bool add_into_bn(sh_program *p, sh_node *add)
{
    if (add->op != SH_OP_ADD || add->phase != SH_PHASE_FORWARD) return false;
    sh_node *bn = NULL;
    for (int k = 0; k < 2; k++) {
        sh_node *candidate = producer_of(p, add->in[k], SH_OP_BN_APPLY);
        if (candidate == NULL || candidate->attrs.act != SH_ACT_NONE) continue;
        if (input(candidate, 5) != SH_NO_VALUE || p->values[add->in[k]].is_pinned) continue;
        if (sh_graph_n_uses(p, add->in[k]) == 1 && (bn == NULL || candidate > bn)) bn = candidate;
    }
    if (bn == NULL) return false;
    sh_node merged = *bn;
    set_input(&merged, 5, add->in[0] == bn->out[0] ? add->in[1] : add->in[0]);
    merged.out[0] = add->out[0];
    if (!accepted(p, merged)) return false;
    remove_node(bn);
    *add = merged; /* stands where the residual is ready */
    set_output(p, add, 0, merged.out[0]);
    return true;
}

/** ACT(bn) -> BN_APPLY with the activation. */
static bool act_into_bn(sh_program *p, sh_node *act)
{
    if (act->op != SH_OP_ACT) return false;
    sh_node *bn = producer_of(p, act->in[0], SH_OP_BN_APPLY);
    if (bn == NULL || bn->attrs.act != SH_ACT_NONE || p->values[act->in[0]].is_pinned) return false;
    if (sh_graph_n_uses(p, act->in[0]) != 1) return false;
    sh_node merged = *bn;
    merged.attrs.act = act->attrs.act;
    merged.out[0] = act->out[0];
    if (!accepted(p, merged)) return false;
    *bn = merged;
    set_output(p, bn, 0, merged.out[0]);
    remove_node(act);
    return true;
}

/* ---- backward: the activation's mask inside batch norm's gradient ---- */

/** Does every reader of g other than the two stand behind `apply`? */
static bool others_follow(sh_program *p, sh_value g, const sh_node *reduce, const sh_node *apply)
{
    for (int i = 0; user_of(p, g, i) != NULL; i++) {
        const sh_node *user = user_of(p, g, i);
        if (user != reduce && user != apply && (apply == NULL || user < apply)) return false;
    }
    return true;
}

/** ACT_GRAD(dy, y) -> g feeding batch norm's gradient: the latter takes dy and masks it itself.
 * With a residual it takes the mask from y, and gives g to whoever else wants it. An activation
 * whose slope is a function of its input is still a node of its own behind the batch norm, which
 * can take it in once the gradient does not read that input any more. */
static bool act_grad_into_bn_grad(sh_program *p, sh_node *act_grad)
{
    if (act_grad->op != SH_OP_ACT_GRAD) return false;
    sh_value dy = act_grad->in[0], y = act_grad->in[1], g = act_grad->out[0];
    const sh_node *bn = producer_of(p, y, SH_OP_BN_APPLY);
    bool by_input = sh_act_needs_input(act_grad->attrs.act);
    if (bn == NULL || p->values[g].is_pinned) return false;
    if (bn->attrs.act != (by_input ? SH_ACT_NONE : act_grad->attrs.act)) return false;
    sh_node *reduce = bn_grad_user(p, SH_OP_BN_GRAD_REDUCE, g, bn);
    sh_node *apply = bn_grad_user(p, SH_OP_BN_GRAD_APPLY, g, bn);
    bool has_residual = input(bn, 5) != SH_NO_VALUE;
    if (by_input && has_residual) return false;
    int n_others = sh_graph_n_uses(p, g) - (reduce != NULL) - (apply != NULL);
    if (n_others > 0 && (!has_residual || !others_follow(p, g, reduce, apply))) return false;
    if (reduce == NULL && apply == NULL) return false;

    sh_node *const targets[2] = {reduce, apply};
    static const int y_operand[2] = {6, 8};
    sh_node merged[2];
    for (int i = 0; i < 2; i++) {
        if (targets[i] == NULL) continue;
        merged[i] = *targets[i];
        merged[i].attrs.act = act_grad->attrs.act;
        merged[i].in[0] = dy;
        if (has_residual) set_input(&merged[i], y_operand[i], y);
        if (i == 1 && n_others > 0) {
            merged[i].n_out = 2;
            merged[i].out[1] = g;
        }
        if (!accepted(p, merged[i])) return false;
    }
    for (int i = 0; i < 2; i++) {
        if (targets[i] != NULL) *targets[i] = merged[i];
    }
    if (n_others > 0) set_output(p, apply, 1, g);
    remove_node(act_grad);
    return true;
}

/* ---- convolutions and the batch norms around them ---- */

/** BN_STATS of a convolution's output -> given by the convolution. */
static bool stats_into_conv(sh_program *p, sh_node *stats)
{
    if (stats->op != SH_OP_BN_STATS) return false;
    sh_node *conv = producer_of(p, stats->in[0], SH_OP_CONV);
    if (conv == NULL || output(conv, SH_CONV_Y_MEAN) != SH_NO_VALUE) return false;
    sh_node merged = *conv;
    merged.n_out = SH_CONV_OUTPUTS;
    merged.out[SH_CONV_Y_MEAN] = stats->out[0];
    merged.out[SH_CONV_Y_VAR] = stats->out[1];
    if (!accepted(p, merged)) return false;
    set_output(p, conv, SH_CONV_Y_MEAN, stats->out[0]);
    set_output(p, conv, SH_CONV_Y_VAR, stats->out[1]);
    remove_node(stats);
    return true;
}

/** CONV_GRAD_W and CONV_GRAD_X of one convolution (or the one that there is) -> CONV_GRAD. */
static bool join_conv_grads(sh_program *p, sh_node *node)
{
    if (node->op != SH_OP_CONV_GRAD_W && node->op != SH_OP_CONV_GRAD_X) return false;
    const sh_node *conv = producer_of(p, node->about, SH_OP_CONV);
    sh_node *grad_w = node->op == SH_OP_CONV_GRAD_W ? node : NULL;
    sh_node *grad_x = grad_w == NULL ? node : NULL;
    sh_value dy = grad_w != NULL ? node->in[1] : node->in[0];
    if (conv == NULL) return false;
    /* W stands before X, so that from W on a partner lies ahead. */
    for (sh_node *n = node + 1; grad_w != NULL && n < p->nodes + p->n_nodes; n++) {
        if (n->op != SH_OP_CONV_GRAD_X || n->about != node->about || n->in[0] != dy) continue;
        grad_x = n;
        break;
    }
    sh_node merged = *node;
    merged.op = SH_OP_CONV_GRAD;
    merged.n_in = merged.n_out = 0;
    set_input(&merged, SH_CONV_GRAD_X_IN, conv->in[SH_CONV_X]);
    set_input(&merged, SH_CONV_GRAD_DY, dy);
    set_input(&merged, SH_CONV_GRAD_W_IN, conv->in[SH_CONV_W]);
    merged.n_out = grad_w == NULL ? 1 : 1 + grad_w->n_out;
    merged.out[SH_CONV_GRAD_DX] = grad_x == NULL ? SH_NO_VALUE : grad_x->out[0];
    for (int k = 1; k < merged.n_out; k++) merged.out[k] = grad_w->out[k - 1];
    if (!accepted(p, merged)) return false;
    if (grad_x != NULL) remove_node(grad_x);
    *node = merged; /* the earlier of the two: whoever reads dw or dx stands behind it */
    for (int k = 0; k < merged.n_out; k++) set_output(p, node, k, merged.out[k]);
    return true;
}

/** Where a convolution's prologue begins, or -1 if v is not (only) its input or it has one. */
static int prologue_of(const sh_node *node, sh_value v)
{
    int first = node->op == SH_OP_CONV        ? SH_CONV_MEAN
                : node->op == SH_OP_CONV_GRAD ? SH_CONV_GRAD_MEAN
                                              : -1;

    if (first < 0 || node->in[0] != v || n_reads(node, v) != 1) return -1;
    return input(node, first) == SH_NO_VALUE ? first : -1;
}

static sh_node with_prologue(const sh_node *node, const sh_node *bn)
{
    sh_node merged = *node;
    int first = prologue_of(node, bn->out[0]);

    merged.in[0] = bn->in[0];
    for (int k = 0; k < 4; k++) set_input(&merged, first + k, bn->in[1 + k]);
    merged.attrs.act = bn->attrs.act;
    merged.attrs.eps = bn->attrs.eps;
    return merged;
}

/** BN_APPLY read by convolutions alone -> done by them on load, and again in their gradients, so
 *  that its output is never stored. */
static bool bn_into_prologue(sh_program *p, sh_node *bn)
{
    if (bn->op != SH_OP_BN_APPLY || input(bn, 5) != SH_NO_VALUE) return false;
    sh_value y = bn->out[0];
    if (p->values[y].is_pinned || user_of(p, y, 0) == NULL) return false;
    for (int i = 0; user_of(p, y, i) != NULL; i++) {
        const sh_node *user = user_of(p, y, i);
        if (prologue_of(user, y) < 0 || !accepted(p, with_prologue(user, bn))) return false;
    }
    while (user_of(p, y, 0) != NULL) {
        sh_node *user = user_of(p, y, 0);
        *user = with_prologue(user, bn);
    }
    remove_node(bn);
    return true;
}

/** BN_GRAD_REDUCE of what a CONV_GRAD with that batch norm as prologue gives -> its epilogue. */
static bool reduce_into_conv_grad(sh_program *p, sh_node *reduce)
{
    if (reduce->op != SH_OP_BN_GRAD_REDUCE || input(reduce, 6) != SH_NO_VALUE) return false;
    sh_value da = reduce->in[0];
    sh_node *conv = producer_of(p, da, SH_OP_CONV_GRAD);
    if (conv == NULL || conv->in[0] != reduce->in[1] || p->values[da].is_pinned) return false;
    if (output(conv, SH_CONV_GRAD_DGAMMA) != SH_NO_VALUE) return false;
    for (int k = 0; k < 4; k++) {
        if (input(conv, SH_CONV_GRAD_MEAN + k) != reduce->in[2 + k]) return false;
    }
    if (conv->attrs.act != reduce->attrs.act || conv->attrs.eps != reduce->attrs.eps) return false;
    sh_node *apply = NULL;
    for (int i = 0; user_of(p, da, i) != NULL; i++) {
        sh_node *user = user_of(p, da, i);
        if (user == reduce) continue;
        if (apply != NULL || user->op != SH_OP_BN_GRAD_APPLY || user->in[0] != da) return false;
        if (user->in[1] != reduce->in[1] || input(user, 8) != SH_NO_VALUE) return false;
        apply = user;
    }
    sh_node merged = *conv;
    merged.n_out = SH_CONV_GRAD_OUTPUTS;
    for (int k = conv->n_out; k < SH_CONV_GRAD_DGAMMA; k++) merged.out[k] = SH_NO_VALUE;
    merged.out[SH_CONV_GRAD_DGAMMA] = reduce->out[0];
    merged.out[SH_CONV_GRAD_DBETA] = reduce->out[1];
    if (!accepted(p, merged)) return false;
    set_output(p, conv, SH_CONV_GRAD_DGAMMA, reduce->out[0]);
    set_output(p, conv, SH_CONV_GRAD_DBETA, reduce->out[1]);
    if (apply != NULL) apply->attrs.act = SH_ACT_NONE; /* dx arrives masked */
    remove_node(reduce);
    return true;
}

/** BN_GRAD_APPLY read by one CONV_GRAD alone, as the gradient of its y -> made on load. */
static bool apply_into_conv_grad(sh_program *p, sh_node *apply)
{
    if (apply->op != SH_OP_BN_GRAD_APPLY || apply->attrs.act != SH_ACT_NONE) return false;
    if (output(apply, 1) != SH_NO_VALUE || p->values[apply->out[0]].is_pinned) return false;
    sh_value dx = apply->out[0];
    sh_node *conv = user_of(p, dx, 0);
    if (conv == NULL || conv->op != SH_OP_CONV_GRAD || sh_graph_n_uses(p, dx) != 1) return false;
    if (conv->in[SH_CONV_GRAD_DY] != dx || conv->about != apply->in[1]) return false;
    if (input(conv, SH_CONV_GRAD_Y) != SH_NO_VALUE) return false;
    static const int from[6] = {1, 2, 3, 4, 6, 7}; /* x, mean, var, gamma, dgamma, dbeta */
    sh_node merged = *conv;
    merged.in[SH_CONV_GRAD_DY] = apply->in[0];
    for (int k = 0; k < 6; k++) set_input(&merged, SH_CONV_GRAD_Y + k, input(apply, from[k]));
    merged.attrs.y_eps = apply->attrs.eps;
    if (!accepted(p, merged)) return false;
    *conv = merged;
    remove_node(apply);
    return true;
}

/* ---- convolutions that end with what follows them ---- */

/** The kernel that the backend would take. */
static const sh_kernel *kernel_for(const sh_program *p, sh_node node)
{
    const sh_kernel *const *kernels = p->config.backend->kernels_of(node.op);

    sh_graph_describe(p, &node);
    for (int i = 0; kernels[i] != NULL; i++) {
        if (kernels[i]->why_not(&node.desc) == NULL) return kernels[i];
    }
    return NULL;
}

/** Is nothing learned, so that no gradient asks for what a convolution puts out, and may values
 *  have other bytes than in training? */
static bool infers(const sh_program *p)
{
    const sh_program_config *c = &p->config;

    return !c->training && !c->unfolded && p->n_nodes <= p->n_forward;
}

/** The convolution that gives v for one reader alone and may end with what follows. */
static sh_node *open_conv(sh_program *p, sh_value v)
{
    sh_node *conv = producer_of(p, v, SH_OP_CONV);

    if (conv == NULL || conv->attrs.y_act != SH_ACT_NONE || p->values[v].is_pinned) return NULL;
    if (conv->out[SH_CONV_Y] != v || output(conv, SH_CONV_Y_MEAN) != SH_NO_VALUE) return NULL;
    return sh_graph_n_uses(p, v) == 1 ? conv : NULL;
}

/** ACT(conv) -> CONV with y_act, where that does not cost the convolution its kernel. */
static bool act_into_conv(sh_program *p, sh_node *act)
{
    if (act->op != SH_OP_ACT) return false;
    sh_node *conv = open_conv(p, act->in[0]);
    if (conv == NULL) return false;
    sh_node merged = *conv;
    merged.attrs.y_act = act->attrs.act;
    merged.out[SH_CONV_Y] = act->out[0];
    if (!accepted(p, merged) || kernel_for(p, merged) != kernel_for(p, *conv)) return false;
    *conv = merged;
    set_output(p, conv, SH_CONV_Y, merged.out[SH_CONV_Y]);
    remove_node(act);
    return true;
}

/** ADD(conv, r) -> CONV with residual r, where nothing is learned and it costs no kernel. */
static bool add_into_conv(sh_program *p, sh_node *add)
{
    if (add->op != SH_OP_ADD || !infers(p)) return false;
    for (int k = 0; k < 2; k++) {
        sh_node *conv = open_conv(p, add->in[k]);
        if (conv == NULL || input(conv, SH_CONV_RESIDUAL) != SH_NO_VALUE) continue;
        sh_node merged = *conv;
        set_input(&merged, SH_CONV_RESIDUAL, add->in[1 - k]);
        merged.out[SH_CONV_Y] = add->out[0];
        if (!accepted(p, merged) || kernel_for(p, merged) != kernel_for(p, *conv)) continue;
        remove_node(conv);
        *add = merged; /* stands where the residual is ready */
        set_output(p, add, SH_CONV_Y, merged.out[SH_CONV_Y]);
        return true;
    }
    return false;
}

/** BN_APPLY(conv) -> CONV with folded weights, where nothing is learned and it costs no kernel. The
 *  folding is a node in front, of the constants phase. */
static bool bn_into_weights(sh_program *p, sh_node *bn)
{
    if (bn->op != SH_OP_BN_APPLY || !infers(p)) return false;
    sh_node *conv = open_conv(p, bn->in[0]);
    if (conv == NULL || input(conv, SH_CONV_RESIDUAL) != SH_NO_VALUE) return false;
    const sh_tensor_desc w = p->values[conv->in[SH_CONV_W]].desc;
    const sh_tensor_desc bias = p->values[bn->in[4]].desc;
    sh_value folded[2] = {sh_graph_value(p, &w, sh_graph_label(p, conv)), SH_NO_VALUE};
    folded[1] = sh_graph_value(p, &bias, sh_graph_label(p, bn));
    if (folded[0] == SH_NO_VALUE || folded[1] == SH_NO_VALUE) return false;
    sh_node merged = *conv, fold = *conv;
    merged.in[SH_CONV_W] = folded[0];
    set_input(&merged, SH_CONV_BIAS, folded[1]);
    if (input(bn, 5) != SH_NO_VALUE) set_input(&merged, SH_CONV_RESIDUAL, bn->in[5]);
    merged.attrs.y_act = bn->attrs.act;
    merged.out[SH_CONV_Y] = bn->out[0];
    if (!accepted(p, merged) || kernel_for(p, merged) != kernel_for(p, *conv)) return false;
    fold.op = SH_OP_FOLD_BN;
    fold.attrs = bn->attrs;
    fold.n_in = 1;
    fold.in[0] = conv->in[SH_CONV_W];
    for (int k = 1; k < 5; k++) set_input(&fold, k, bn->in[k]);
    if (input(conv, SH_CONV_BIAS) != SH_NO_VALUE) set_input(&fold, 5, conv->in[SH_CONV_BIAS]);
    fold.n_out = 0;
    *conv = fold; /* in its place: the convolution moves to where its one reader stood */
    *bn = merged;
    for (int k = 0; k < 2; k++) set_output(p, conv, k, folded[k]);
    set_output(p, bn, SH_CONV_Y, merged.out[SH_CONV_Y]);
    return true;
}

/* ---- the table ---- */

static const struct rule {
    const char *name;
    bool (*rewrite)(sh_program *p, sh_node *anchor);
} rules[] = {
    {"bn + add", add_into_bn},
    {"bn + act", act_into_bn},
    {"act_grad + bn_grad", act_grad_into_bn_grad},
    {"bn + act by its input", act_into_bn},
    {"conv + bn_stats", stats_into_conv},
    {"conv_grad_w + conv_grad_x", join_conv_grads},
    {"conv + bn, folded", bn_into_weights},
    {"bn + conv", bn_into_prologue},
    {"conv + add", add_into_conv},
    {"conv + act", act_into_conv},
    {"bn + squeeze and excitation", sh_fuse_squeeze},
    {"conv_grad + bn_grad_reduce", reduce_into_conv_grad},
    {"bn_grad_apply + conv_grad", apply_into_conv_grad},
};

sh_status sh_fuse(sh_program *p)
{
    if (p->config.backend->can_fuse == NULL) return SH_OK;
    for (size_t r = 0; r < SH_COUNT(rules); r++) {
        for (int i = 0; i < p->n_nodes; i++) (void)rules[r].rewrite(p, &p->nodes[i]);
    }
    sh_graph_compact(p);
    return SH_OK;
}
