// SPDX-License-Identifier: Apache-2.0
/**
 * The rule for squeeze and excitation behind a batch norm.
 *
 * y = act(bn(x)) is read by a global mean and by the product with what is made of that mean. Both
 * normalise for themselves, forward and backward, so that y, its gradient by either way and their
 * sum are never stored: of 21 passes over such tensors 13 remain.
 */
#include "models/fuse.h"

/** The nodes around y. Backward ones are NULL where only the forward is there. */
typedef struct squeeze {
    const sh_node *bn;
    sh_node *pool, *mul;
    sh_node *mul_grad, *pool_grad, *add, *reduce, *apply; /* apply may be absent */
} squeeze;

/** Everything that reads y. */
static bool find_readers(sh_program *p, sh_value y, squeeze *s)
{
    for (int i = 0; user_of(p, y, i) != NULL; i++) {
        sh_node *user = user_of(p, y, i), **found = NULL;

        if (user->op == SH_OP_AVG_POOL) found = &s->pool;
        if (user->op == SH_OP_MUL_CHANNELS && user->in[0] == y) found = &s->mul;
        if (user->op == SH_OP_MUL_CHANNELS_GRAD && user->in[1] == y) found = &s->mul_grad;
        if (found == NULL || *found != NULL || n_reads(user, y) != 1) return false;
        *found = user;
    }
    return s->pool != NULL && s->mul != NULL;
}

/** The gradient of y, the sum of both ways, read by the batch norm's gradient alone. */
static bool find_gradient(sh_program *p, squeeze *s)
{
    sh_value by_product = s->mul_grad->out[0];

    if (output(s->mul_grad, 1) == SH_NO_VALUE) return false;
    if (sh_graph_n_uses(p, by_product) != 1 || p->values[by_product].is_pinned) return false;
    s->add = user_of(p, by_product, 0);
    if (s->add->op != SH_OP_ADD) return false;
    sh_value by_mean = s->add->in[0] == by_product ? s->add->in[1] : s->add->in[0];
    sh_value sum = s->add->out[0];
    s->pool_grad = producer_of(p, by_mean, SH_OP_AVG_POOL_GRAD);
    if (s->pool_grad == NULL || s->pool_grad->about != s->pool->out[0]) return false;
    if (sh_graph_n_uses(p, by_mean) != 1 || p->values[by_mean].is_pinned) return false;
    s->reduce = bn_grad_user(p, SH_OP_BN_GRAD_REDUCE, sum, s->bn);
    s->apply = bn_grad_user(p, SH_OP_BN_GRAD_APPLY, sum, s->bn);
    if (s->reduce == NULL || s->reduce->attrs.act != s->bn->attrs.act) return false;
    if (input(s->reduce, 6) != SH_NO_VALUE || p->values[sum].is_pinned) return false;
    return sh_graph_n_uses(p, sum) == 1 + (s->apply != NULL);
}

/** `node` becomes `op` with the batch norm's attributes and these inputs. */
static sh_node merged_node(const squeeze *s, const sh_node *node, sh_op op, int n_in,
                           const sh_value *in)
{
    sh_node merged = *node;

    merged.op = op;
    merged.attrs = s->bn->attrs;
    merged.n_in = 0;
    for (int k = 0; k < n_in; k++) set_input(&merged, k, in[k]);
    return merged;
}

static bool fuse_gradient(sh_program *p, const squeeze *s, sh_node *factor_grad, sh_node *grad)
{
    const sh_value *bn = s->bn->in;
    const sh_value dy = s->mul_grad->in[0], factor = s->mul_grad->in[2];
    const sh_value factor_in[6] = {dy, bn[0], bn[1], bn[2], bn[3], bn[4]};
    const sh_value grad_in[8] = {dy,    bn[0], bn[1],  bn[2],
                                 bn[3], bn[4], factor, s->pool_grad->in[0]};

    *factor_grad = merged_node(s, s->mul_grad, SH_OP_SE_FACTOR_GRAD, 6, factor_in);
    factor_grad->n_out = 1;
    factor_grad->out[0] = s->mul_grad->out[1];
    *grad = merged_node(s, s->reduce, SH_OP_SE_GRAD, 8, grad_in);
    grad->n_out = 3;
    grad->out[0] = s->add->out[0];
    for (int k = 0; k < 2; k++) grad->out[1 + k] = s->reduce->out[k];
    return accepted(p, *factor_grad) && accepted(p, *grad);
}

static void put(sh_program *p, sh_node *place, sh_node merged)
{
    *place = merged;
    for (int k = 0; k < merged.n_out; k++) set_output(p, place, k, merged.out[k]);
}

bool sh_fuse_squeeze(sh_program *p, sh_node *bn)
{
    squeeze s = {.bn = bn};
    sh_node factor_grad, grad;

    if (bn->op != SH_OP_BN_APPLY || input(bn, 5) != SH_NO_VALUE) return false;
    if (p->values[bn->out[0]].is_pinned || !find_readers(p, bn->out[0], &s)) return false;
    const sh_value squeeze_in[5] = {bn->in[0], bn->in[1], bn->in[2], bn->in[3], bn->in[4]};
    const sh_value excite_in[6] = {bn->in[0], s.mul->in[1], bn->in[1],
                                   bn->in[2], bn->in[3],    bn->in[4]};
    sh_node pooled = merged_node(&s, s.pool, SH_OP_SE_SQUEEZE, 5, squeeze_in);
    sh_node excited = merged_node(&s, s.mul, SH_OP_SE_EXCITE, 6, excite_in);
    if (!accepted(p, pooled) || !accepted(p, excited)) return false;
    if (s.mul_grad != NULL) {
        if (!find_gradient(p, &s) || !fuse_gradient(p, &s, &factor_grad, &grad)) return false;
        put(p, s.mul_grad, factor_grad);
        remove_node(s.pool_grad);
        remove_node(s.add);
        put(p, s.reduce, grad);
        if (s.apply != NULL) s.apply->attrs.act = SH_ACT_NONE; /* its dy arrives masked */
    }
    put(p, s.pool, pooled);
    put(p, s.mul, excited);
    remove_node(bn);
    return true;
}
