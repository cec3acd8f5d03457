// SPDX-License-Identifier: Apache-2.0
#include "models/graph.h"
#include "models/loss/classes.h"

/** Append a node with one f32 output of rows [n, columns]. */
static sh_value rows_of(sh_program *p, sh_op op, int n_in, const sh_value *in, int64_t n,
                        int64_t columns, const char *label)
{
    const sh_tensor_desc desc = {.dtype = SH_F32, .layout = SH_NCHW, .dims = {n, columns, 1, 1}};
    sh_value y = sh_graph_value(p, &desc, label);

    if (y == SH_NO_VALUE) return y;
    sh_graph_fail(p, sh_graph_node(p, op, &sh_graph_plain_attrs, n_in, in, 1, &y));
    return p->status == SH_OK ? y : SH_NO_VALUE;
}

sh_value sh_class_head(sh_program *p, sh_value features, const char *name,
                       const sh_class_config *config)
{
    int64_t x[4], columns = sh_class_columns(config);

    sh_program_dims(p, features, x);
    sh_value in[2] = {features, sh_program_param(p, name, 2, (int64_t[2]){columns, x[1]})};

    if (config->kind == SH_CLASS_ARCFACE) {
        for (int i = 0; i < 2; i++) in[i] = sh_op_l2_norm(p, in[i]);
    } else if (p->status == SH_OK && p->values[features].desc.dtype != SH_F32) {
        in[0] = rows_of(p, SH_OP_CAST, 1, &features, x[0], x[1], name);
    }
    if (p->status != SH_OK) return SH_NO_VALUE;
    return rows_of(p, SH_OP_LINEAR, 2, in, x[0], columns, name);
}
