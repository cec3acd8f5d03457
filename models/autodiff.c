// SPDX-License-Identifier: Apache-2.0
/** Reverse-mode differentiation: backward nodes are appended to the program as ordinary nodes. */
#include <stdlib.h>

#include "models/graph.h"

/** Mark what the derivative must flow through: trainable parameters, `input`, and every value
 *  computed from one of them. */
static void mark_wanted(sh_program *p, sh_value input)
{
    for (int i = 0; i < p->n_values; i++) {
        sh_value_info *v = &p->values[i];
        v->wants_grad = i == input || (v->home == SH_HOME_PARAMS &&
                                       sh_store_slot(p->config.store, v->slot)->trainable);
    }
    for (int i = 0; i < p->n_forward; i++) {
        const sh_node *node = &p->nodes[i];
        bool any = false;
        if (sh_op_table[node->op].derive == NULL) continue;
        for (int k = 0; k < node->n_in; k++) {
            any = any || (node->in[k] != SH_NO_VALUE && p->values[node->in[k]].wants_grad);
        }
        for (int k = 0; any && k < node->n_out; k++) p->values[node->out[k]].wants_grad = true;
    }
}

/** Stochastic depth rests where it acts on nothing that is learnt, so that the frozen part of a
 *  network computes as in inference. */
static void rest_path_drops(sh_program *p)
{
    for (int i = 0; i < p->n_forward; i++) {
        sh_node *drop = &p->nodes[i];
        if (drop->op != SH_OP_PATH_DROP || p->values[drop->in[0]].wants_grad) continue;
        for (int n = 0; n < p->n_nodes; n++) {
            for (int k = 0; k < p->nodes[n].n_in; k++) {
                if (p->nodes[n].in[k] == drop->out[0]) p->nodes[n].in[k] = drop->in[0];
            }
        }
        drop->op = SH_OP_COUNT;
    }
    sh_graph_compact(p);
}

sh_status sh_autodiff_accumulate(sh_program *p, sh_value *grads, sh_value v, sh_value g)
{
    sh_status st = SH_OK;
    static const sh_op_attrs plain = {.stride = {1, 1}, .dilation = {1, 1}, .groups = 1};

    if (grads[v] == SH_NO_VALUE) {
        grads[v] = g;
        goto out;
    }
    const sh_value in[2] = {grads[v], g};
    const sh_tensor_desc desc = p->values[g].desc;
    char label[SH_LABEL_SIZE];
    snprintf(label, sizeof(label), "%s", p->values[g].label);
    sh_value sum = sh_graph_value(p, &desc, label);
    SH_TRY(sh_graph_node(p, SH_OP_ADD, &plain, 2, in, 1, &sum));
    grads[v] = sum;
out:
    return st;
}

/** The gradient that an earlier differentiation left for the same parameter, or SH_NO_VALUE. */
static sh_value earlier_gradient(const sh_program *p, size_t offset, int n_values)
{
    for (int i = 0; i < n_values; i++) {
        if (p->values[i].home == SH_HOME_GRADS && p->values[i].offset == offset) return i;
    }
    return SH_NO_VALUE;
}

/** Move the parameters' gradients to the reduce arena, adding to those of an earlier output. */
static sh_status place_gradients(sh_program *p, sh_value *grads, int n_values)
{
    sh_status st = SH_OK;

    for (int i = 0; i < n_values; i++) {
        if (p->values[i].home != SH_HOME_PARAMS || grads[i] == SH_NO_VALUE) continue;
        sh_value earlier = earlier_gradient(p, p->values[i].offset, n_values);
        if (earlier != SH_NO_VALUE) {
            p->values[earlier].home = SH_HOME_ARENA;
            SH_TRY(sh_autodiff_accumulate(p, grads, i, earlier));
        }
        sh_value_info *g = &p->values[grads[i]];
        g->home = SH_HOME_GRADS;
        g->offset = p->values[i].offset;
        memmove(g->label, p->values[i].label, sizeof(g->label));
    }
out:
    return st;
}

/** The cotangent of an output: where its gradient begins. */
static sh_status seed(sh_program *p, sh_value output, sh_value *grads, sh_value *cotangent)
{
    sh_status st = SH_OK;

    SH_CHECK(p->values[output].wants_grad, SH_ERR_USAGE,
             "output %s depends on nothing that is to be differentiated", p->values[output].label);
    const sh_tensor_desc desc = p->values[output].desc;
    sh_value dy = sh_graph_value(p, &desc, "cotangent");
    SH_CHECK(dy != SH_NO_VALUE, p->status, "%s", p->error);
    p->values[dy].is_input = true;
    p->values[dy].phase = SH_PHASE_BACKWARD;
    grads[output] = dy;
    *cotangent = dy;
out:
    return st;
}

static sh_status differentiate(sh_program *p, int n_outputs, const sh_value *outputs,
                               sh_value input, sh_value *grads, int n_values, sh_value *cotangents,
                               sh_value *input_grad)
{
    sh_status st = SH_OK;

    p->building = SH_PHASE_BACKWARD;
    mark_wanted(p, input);
    rest_path_drops(p);
    for (int i = 0; i < n_outputs; i++) SH_TRY(seed(p, outputs[i], grads, &cotangents[i]));
    for (int i = p->n_forward - 1; i >= 0; i--) {
        const sh_node *node = &p->nodes[i];
        if (sh_op_table[node->op].derive == NULL) continue;
        if (grads[node->out[0]] == SH_NO_VALUE || !p->values[node->out[0]].wants_grad) continue;
        p->deriving = node->out[0];
        SH_TRY(sh_op_table[node->op].derive(p, i, grads));
    }
    SH_TRY(place_gradients(p, grads, n_values));
    if (input != SH_NO_VALUE) {
        SH_CHECK(grads[input] != SH_NO_VALUE, SH_ERR_USAGE, "output %s does not depend on %s",
                 p->values[outputs[0]].label, p->values[input].label);
        p->values[grads[input]].is_pinned = true;
        *input_grad = grads[input];
    }
out:
    return st;
}

sh_status sh_program_differentiate_all(sh_program *p, int n_outputs, const sh_value *outputs,
                                       sh_value input, sh_value *cotangents, sh_value *input_grad)
{
    sh_status st = SH_OK;
    sh_value *grads = NULL;
    int n_values = p->n_values;

    SH_CHECK(p->status == SH_OK, p->status, "%s", p->error);
    SH_CHECK(!p->planned, SH_ERR_USAGE, "a planned program cannot be differentiated");
    for (int i = 0; i < n_outputs; i++)
        SH_CHECK(outputs[i] >= 0 && outputs[i] < n_values && p->values[outputs[i]].is_pinned &&
                     p->values[outputs[i]].producer >= 0,
                 SH_ERR_USAGE, "only a program's output can be differentiated");
    SH_CHECK(input == SH_NO_VALUE || (input >= 0 && input < n_values && input_grad != NULL),
             SH_ERR_USAGE, "the gradient of value %d cannot be had", input);
    if (p->n_forward < 0) SH_TRY(sh_settle_statistics(p));
    grads = malloc((size_t)n_values * sizeof(*grads));
    SH_CHECK(grads != NULL, SH_ERR_NO_MEMORY, "gradients of %d values", n_values);
    for (int i = 0; i < n_values; i++) grads[i] = SH_NO_VALUE;
    SH_TRY(differentiate(p, n_outputs, outputs, input, grads, n_values, cotangents, input_grad));
out:
    free(grads);
    sh_graph_fail(p, st);
    return st;
}

sh_status sh_program_differentiate(sh_program *p, sh_value output, sh_value input,
                                   sh_value *cotangent, sh_value *input_grad)
{
    return sh_program_differentiate_all(p, 1, &output, input, cotangent, input_grad);
}
