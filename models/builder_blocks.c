// SPDX-License-Identifier: Apache-2.0
/** The public builder: what residual, inception and transformer networks add. */
#include "models/graph.h"

sh_value sh_op_add_scaled(sh_program *p, sh_value a, sh_value b, float scale)
{
    const sh_value in[2] = {b, a};
    sh_op_attrs attrs = sh_graph_plain_attrs;

    if (!sh_graph_usable(p, a) || !sh_graph_usable(p, b)) return SH_NO_VALUE;
    attrs.scale = scale;
    return sh_graph_emit(p, SH_OP_ADD_SCALED, &attrs, 2, in, "add_scaled");
}

sh_value sh_op_mul_channels(sh_program *p, sh_value x, sh_value s)
{
    const sh_value in[2] = {x, s};

    if (!sh_graph_usable(p, x) || !sh_graph_usable(p, s)) return SH_NO_VALUE;
    return sh_graph_emit(p, SH_OP_MUL_CHANNELS, &sh_graph_plain_attrs, 2, in, "mul_channels");
}

sh_value sh_op_scale(sh_program *p, sh_value x, const char *name)
{
    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    const int64_t dims[1] = {p->values[x].desc.dims[1]};
    const sh_value in[2] = {x, sh_program_param(p, name, 1, dims)};
    if (p->status != SH_OK) return SH_NO_VALUE;
    return sh_graph_emit(p, SH_OP_SCALE, &sh_graph_plain_attrs, 2, in, name);
}

sh_value sh_op_concat(sh_program *p, int n, const sh_value *xs)
{
    if (n < 1 || n > SH_CONCAT_MAX) {
        sh_graph_fail(p, sh_error_set(SH_ERR_USAGE, "concatenation of %d values; 1 to %d can be", n,
                                      SH_CONCAT_MAX));
        return SH_NO_VALUE;
    }
    for (int i = 0; i < n; i++) {
        if (!sh_graph_usable(p, xs[i])) return SH_NO_VALUE;
    }
    return sh_graph_emit(p, SH_OP_CONCAT, &sh_graph_plain_attrs, n, xs, "concat");
}

static sh_value pool(sh_program *p, sh_op op, sh_value x, const sh_pool_attrs *pool_attrs,
                     const char *label)
{
    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    sh_op_attrs attrs = sh_graph_plain_attrs;
    for (int i = 0; i < 2; i++) {
        attrs.kernel[i] = pool_attrs->kernel[i];
        attrs.stride[i] = pool_attrs->stride[i] > 0 ? pool_attrs->stride[i] : attrs.kernel[i];
    }
    attrs.count_padding = pool_attrs->count_padding;
    memcpy(attrs.pad, pool_attrs->pad, sizeof(attrs.pad));
    if (pool_attrs->same) {
        sh_graph_same_padding(p->values[x].desc.dims, &attrs, attrs.kernel, attrs.pad);
    }
    return sh_graph_emit(p, op, &attrs, 1, &x, label);
}

sh_value sh_op_max_pool(sh_program *p, sh_value x, const sh_pool_attrs *attrs)
{
    return pool(p, SH_OP_MAX_POOL, x, attrs, "max_pool");
}

sh_value sh_op_avg_pool(sh_program *p, sh_value x, const sh_pool_attrs *attrs)
{
    return pool(p, SH_OP_MEAN_POOL, x, attrs, "avg_pool");
}

sh_value sh_op_adaptive_avg_pool(sh_program *p, sh_value x, int height, int width)
{
    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    const int64_t *dims = p->values[x].desc.dims;
    if (dims[2] == height && dims[3] == width) return x;
    sh_op_attrs attrs = sh_graph_plain_attrs;
    attrs.kernel[0] = height;
    attrs.kernel[1] = width;
    return sh_graph_emit(p, SH_OP_ADAPTIVE_POOL, &attrs, 1, &x, "adaptive_pool");
}

sh_value sh_op_gem_pool(sh_program *p, sh_value x, const char *name, float eps)
{
    sh_op_attrs attrs = sh_graph_plain_attrs;
    const int64_t dims[1] = {1};

    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    attrs.eps = eps;
    const sh_value in[2] = {x, sh_program_param(p, name, 1, dims)};
    if (p->status != SH_OK) return SH_NO_VALUE;
    return sh_graph_emit(p, SH_OP_GEM_POOL, &attrs, 2, in, name);
}

sh_value sh_op_path_drop(sh_program *p, sh_value x, float rate)
{
    sh_op_attrs attrs = sh_graph_plain_attrs;

    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    if (!(rate >= 0 && rate < 1)) {
        sh_graph_fail(
            p, sh_error_set(SH_ERR_USAGE, "stochastic depth rate %g is not in [0, 1)", rate));
        return SH_NO_VALUE;
    }
    attrs.rate = rate;
    attrs.stream = p->n_dropouts++;
    if (!p->config.training || rate == 0) return x;
    return sh_graph_emit(p, SH_OP_PATH_DROP, &attrs, 1, &x, "path_drop");
}

/* ---- transformers ---- */

sh_value sh_op_layer_norm(sh_program *p, sh_value x, const char *name, float eps)
{
    sh_op_attrs attrs = sh_graph_plain_attrs;

    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    const int64_t dims[1] = {p->values[x].desc.dims[1]};
    sh_value gamma = sh_graph_named_param(p, name, "weight", 1, dims);
    const sh_value in[3] = {x, gamma, sh_graph_named_param(p, name, "bias", 1, dims)};
    if (p->status != SH_OK) return SH_NO_VALUE;
    attrs.eps = eps;
    return sh_graph_emit(p, SH_OP_LAYER_NORM, &attrs, 3, in, name);
}

sh_value sh_op_attention(sh_program *p, sh_value qkv, int heads)
{
    sh_status st = SH_OK;
    sh_op_attrs attrs = sh_graph_plain_attrs;
    sh_value out[2] = {SH_NO_VALUE, SH_NO_VALUE};

    if (!sh_graph_usable(p, qkv)) return SH_NO_VALUE;
    attrs.heads = heads;
    sh_tensor_desc y = p->values[qkv].desc;
    const sh_tensor_desc *const in_desc[1] = {&y};
    int64_t dims[4];
    SH_TRY(sh_op_table[SH_OP_ATTENTION].infer(&attrs, in_desc, dims));
    memcpy(y.dims, dims, sizeof(dims));
    y.layout = p->config.backend->layout_of(y.dtype, y.dims, false);
    out[0] = sh_graph_value(p, &y, "attention");
    const sh_tensor_desc lse = {
        .dtype = SH_F32, .layout = SH_NCHW, .dims = {dims[0], heads, dims[2], 1}};
    out[1] = sh_graph_value(p, &lse, "attention:lse");
    SH_TRY(sh_graph_node(p, SH_OP_ATTENTION, &attrs, 1, &qkv, 2, out));
out:
    sh_graph_fail(p, st);
    return p->status == SH_OK ? out[0] : SH_NO_VALUE;
}

sh_value sh_op_tokens(sh_program *p, sh_value patches, const char *cls, const char *pos)
{
    if (!sh_graph_usable(p, patches)) return SH_NO_VALUE;
    const int64_t *d = p->values[patches].desc.dims;
    const int64_t rows = d[2], columns = d[3];
    const int64_t cls_dims[3] = {1, 1, d[1]}, pos_dims[3] = {1, 1 + rows * columns, d[1]};
    sh_value in[3] = {patches, sh_program_param(p, cls, 3, cls_dims), SH_NO_VALUE};
    in[2] = sh_program_param(p, pos, 3, pos_dims);
    if (p->status != SH_OK) return SH_NO_VALUE;
    int64_t *grid = sh_store_slot_mutable(p->config.store, p->values[in[2]].slot)->grid;
    grid[0] = rows;
    grid[1] = columns;
    return sh_graph_emit(p, SH_OP_TOKENS, &sh_graph_plain_attrs, 3, in, "tokens");
}

sh_value sh_op_take_token(sh_program *p, sh_value x, int index)
{
    sh_op_attrs attrs = sh_graph_plain_attrs;

    if (!sh_graph_usable(p, x)) return SH_NO_VALUE;
    attrs.index = index;
    return sh_graph_emit(p, SH_OP_TAKE_TOKEN, &attrs, 1, &x, "token");
}
