// SPDX-License-Identifier: Apache-2.0
/** Programs for people: one line per node. */
#include "models/graph.h"

static double operand_bytes(const sh_node *node)
{
    double n = 0;

    for (int k = 0; k < node->n_in; k++) {
        if (node->in_desc[k] != NULL) n += (double)sh_tensor_bytes(node->in_desc[k]);
    }
    for (int k = 0; k < node->n_out; k++) {
        if (node->out_desc[k] != NULL) n += (double)sh_tensor_bytes(node->out_desc[k]);
    }
    return n;
}

/** The first operand that is there. */
static const sh_tensor_desc *first_of(const sh_tensor_desc *const *descs, int n)
{
    int i = 0;

    while (i < n - 1 && descs[i] == NULL) i++;
    return descs[i];
}

void sh_program_node_info(const sh_program *p, int index, sh_node_info *out)
{
    const sh_node *node = &p->nodes[index];
    bool describes = node->kernel != NULL && node->kernel->describe != NULL;

    *out = (sh_node_info){.op = sh_op_name(node->op),
                          .kernel = node->kernel == NULL ? "" : node->kernel->name,
                          .label = sh_graph_label(p, node),
                          .refusals = node->refusals != NULL ? node->refusals : "",
                          .phase = node->phase,
                          .flops = sh_op_table[node->op].flops(&node->desc),
                          .bytes = operand_bytes(node),
                          .in0 = *first_of(node->in_desc, node->n_in),
                          .out0 = *first_of(node->out_desc, node->n_out)};
    if (describes) out->kernel = node->kernel->describe(node->state);
}

static void print_operand(const sh_program *p, sh_value v, FILE *out)
{
    static const char *const homes[] = {[SH_HOME_ARENA] = "@",
                                        [SH_HOME_PARAMS] = "param@",
                                        [SH_HOME_STATES] = "state@",
                                        [SH_HOME_GRADS] = "grad@",
                                        [SH_HOME_DELTAS] = "delta@"};

    if (v == SH_NO_VALUE) {
        fprintf(out, " -");
        return;
    }
    const sh_value_info *info = &p->values[v];
    const int64_t *d = info->desc.dims;
    fprintf(out, " %%%d:%s", v, sh_dtype_name(info->desc.dtype));
    if (d[2] * d[3] > 1) {
        fprintf(out, ".%s[%lld,%lld,%lld,%lld]", sh_layout_name(info->desc.layout), (long long)d[0],
                (long long)d[1], (long long)d[2], (long long)d[3]);
    } else {
        fprintf(out, "[%lld,%lld]", (long long)d[0], (long long)d[1]);
    }
    fprintf(out, "%s%zu", homes[info->home], info->offset);
}

void sh_program_print(const sh_program *p, FILE *out)
{
    double flops = 0, bytes = 0;

    for (int i = 0; i < p->n_nodes; i++) {
        sh_node_info info;
        sh_program_node_info(p, i, &info);
        if (i == 0 || i == p->n_forward) fprintf(out, i == 0 ? "forward\n" : "backward\n");
        fprintf(out, "%4d %-15s %-28s %9.3f MB %9.3f MFLOP ", i, info.op, info.kernel,
                info.bytes / 1e6, info.flops / 1e6);
        for (int k = 0; k < p->nodes[i].n_in; k++) print_operand(p, p->nodes[i].in[k], out);
        fprintf(out, " ->");
        for (int k = 0; k < p->nodes[i].n_out; k++) print_operand(p, p->nodes[i].out[k], out);
        fprintf(out, "  %s\n", info.label);
        flops += info.flops;
        bytes += info.bytes;
    }
    fprintf(out, "%d nodes, %.3f GFLOP, %.3f GB moved, arena %.3f MB\n", p->n_nodes, flops / 1e9,
            bytes / 1e9, (double)p->arena_bytes / 1e6);
}
