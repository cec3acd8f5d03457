// SPDX-License-Identifier: Apache-2.0
#include "models/program.h"

#include <stdlib.h>

#include "models/graph.h"

sh_status sh_program_create(const sh_program_config *config, sh_program **out)
{
    sh_status st = SH_OK;
    sh_program *p = NULL;

    SH_CHECK(config->dtype == SH_F32 || config->dtype == SH_BF16, SH_ERR_USAGE,
             "a program computes in f32 or bf16, not %s", sh_dtype_name(config->dtype));
    p = calloc(1, sizeof(*p));
    SH_CHECK(p != NULL, SH_ERR_NO_MEMORY, "program, %zu bytes", sizeof(*p));
    p->config = *config;
    p->n_forward = -1;
    p->deriving = SH_NO_VALUE;
    p->prefix = strdup(config->prefix != NULL ? config->prefix : "");
    SH_CHECK(p->prefix != NULL, SH_ERR_NO_MEMORY, "program prefix");
    *out = p;
    p = NULL;
out:
    sh_program_destroy(&p);
    return st;
}

void sh_program_destroy(sh_program **program)
{
    sh_program *p = *program;

    if (p == NULL) return;
    sh_replays_clear(&p->replays, p->config.backend);
    for (int i = 0; i < p->n_nodes; i++) {
        sh_node *node = &p->nodes[i];
        if (node->kernel != NULL && node->kernel->release != NULL) {
            node->kernel->release(node->state);
        }
        free(node->refusals);
    }
    free(p->nodes);
    free(p->values);
    free(p->prefix);
    free(p);
    *program = NULL;
}

/* ---- the graph ---- */

void sh_graph_fail(sh_program *p, sh_status status)
{
    if (status == SH_OK || p->status != SH_OK) return;
    p->status = status;
    snprintf(p->error, sizeof(p->error), "%s", sh_error_message());
}

sh_value sh_graph_value(sh_program *p, const sh_tensor_desc *desc, const char *label)
{
    /* Filled before the array may move: desc and label may point into it. */
    sh_value_info value = {.desc = *desc, .slot = -1, .producer = -1, .alias = SH_NO_VALUE};

    snprintf(value.label, sizeof(value.label), "%s", label);
    if (p->n_values == p->value_capacity) {
        int capacity = p->value_capacity == 0 ? 256 : 2 * p->value_capacity;
        sh_value_info *values = realloc(p->values, (size_t)capacity * sizeof(*values));
        if (values == NULL) {
            sh_graph_fail(p, sh_error_set(SH_ERR_NO_MEMORY, "program, %d values", capacity));
            return SH_NO_VALUE;
        }
        p->values = values;
        p->value_capacity = capacity;
    }
    p->values[p->n_values] = value;
    return p->n_values++;
}

sh_status sh_graph_node(sh_program *p, sh_op op, const sh_op_attrs *attrs, int n_in,
                        const sh_value *in, int n_out, const sh_value *out)
{
    sh_status st = SH_OK;

    const sh_op_info *info = &sh_op_table[op];
    SH_CHECK(p->status == SH_OK, p->status, "%s", p->error);
    SH_CHECK(n_in >= info->min_inputs && n_in <= info->max_inputs && n_out >= info->min_outputs &&
                 n_out <= info->max_outputs,
             SH_ERR_INTERNAL, "%s with %d inputs and %d outputs", info->name, n_in, n_out);
    if (p->n_nodes == p->node_capacity) {
        int capacity = p->node_capacity == 0 ? 128 : 2 * p->node_capacity;
        sh_node *nodes = realloc(p->nodes, (size_t)capacity * sizeof(*nodes));
        SH_CHECK(nodes != NULL, SH_ERR_NO_MEMORY, "program, %d nodes", capacity);
        p->nodes = nodes;
        p->node_capacity = capacity;
    }
    sh_node *node = &p->nodes[p->n_nodes];
    memset(node, 0, sizeof(*node));
    node->op = op;
    node->attrs = *attrs;
    node->phase = p->building;
    node->about = p->deriving;
    node->n_in = n_in;
    node->n_out = n_out;
    for (int i = 0; i < n_in; i++) node->in[i] = in[i];
    for (int i = 0; i < n_out; i++) {
        node->out[i] = out[i];
        if (out[i] != SH_NO_VALUE) p->values[out[i]].producer = p->n_nodes;
    }
    p->n_nodes++;
out:
    return st;
}

void sh_program_cut(sh_program *p, sh_value v)
{
    if (!sh_graph_usable(p, v)) return;
    p->n_nodes = 0;
    for (int i = 0; i < p->n_values; i++) {
        p->values[i].producer = -1;
        p->values[i].is_input = i == v;
        p->values[i].is_pinned = false;
    }
}

int sh_graph_n_uses(const sh_program *p, sh_value v)
{
    int n = 0;

    for (int i = 0; i < p->n_nodes; i++) {
        if (p->nodes[i].op == SH_OP_COUNT) continue;
        for (int k = 0; k < p->nodes[i].n_in; k++) n += p->nodes[i].in[k] == v;
    }
    return n;
}

void sh_graph_describe(const sh_program *p, sh_node *node)
{
    for (int k = 0; k < node->n_in; k++) {
        node->in_desc[k] = node->in[k] == SH_NO_VALUE ? NULL : &p->values[node->in[k]].desc;
    }
    for (int k = 0; k < node->n_out; k++) {
        node->out_desc[k] = node->out[k] == SH_NO_VALUE ? NULL : &p->values[node->out[k]].desc;
    }
    node->desc = (sh_node_desc){.op = node->op,
                                .attrs = &node->attrs,
                                .n_inputs = node->n_in,
                                .n_outputs = node->n_out,
                                .in = node->in_desc,
                                .out = node->out_desc};
}

const char *sh_graph_label(const sh_program *p, const sh_node *node)
{
    for (int k = 0; k < node->n_out; k++) {
        if (node->out[k] != SH_NO_VALUE) return p->values[node->out[k]].label;
    }
    return "";
}

void sh_graph_compact(sh_program *p)
{
    int n = 0, n_forward = 0;

    for (int i = 0; i < p->n_values; i++) p->values[i].producer = -1;
    for (int i = 0; i < p->n_nodes; i++) {
        if (p->nodes[i].op == SH_OP_COUNT) continue;
        if (n != i) p->nodes[n] = p->nodes[i];
        sh_node *node = &p->nodes[n];
        n_forward += node->phase == SH_PHASE_FORWARD;
        for (int k = 0; k < node->n_out; k++) {
            if (node->out[k] != SH_NO_VALUE) p->values[node->out[k]].producer = n;
        }
        n++;
    }
    p->n_nodes = n;
    p->n_forward = n_forward;
}
