// SPDX-License-Identifier: Apache-2.0
/**
 * Inside a program: values, nodes and what planning adds to them. For the files of this folder
 * only.
 *
 * Invariants
 * - Nodes are in execution order. Nodes [0, n_forward) are the forward phase; later ones backward.
 *   n_forward is fixed by the first sh_program_differentiate, or by plan.
 * - A value has one producer (node index) or is an input, a parameter or a state (producer -1).
 * - An inference program's nodes of the constants phase stand among those of the forward phase,
 *   before whatever reads them.
 * - Values live in one of five homes. Offsets are bytes within the home and final after plan.
 * - Fusion and recomputation edit the node list before placement; a removed node has op
 *   SH_OP_COUNT until the list is compacted.
 */
#ifndef SH_MODELS_GRAPH_H
#define SH_MODELS_GRAPH_H

#include "models/program.h"
#include "models/replay.h"

enum { SH_NODE_INPUTS = 16, SH_NODE_OUTPUTS = 8, SH_LABEL_SIZE = 160 };

typedef enum sh_home {
    SH_HOME_ARENA,
    SH_HOME_PARAMS,
    SH_HOME_STATES,
    SH_HOME_GRADS,  /* reduce, parameter part */
    SH_HOME_DELTAS, /* reduce, statistics part */
    SH_HOME_COUNT
} sh_home;

typedef struct sh_value_info {
    sh_tensor_desc desc;
    char label[SH_LABEL_SIZE];
    sh_home home;
    int slot;        /* of the store; -1 for arena values */
    bool is_input;   /* written by the host before its phase runs */
    bool is_pinned;  /* read by the host after a phase: lives to the end */
    bool wants_grad; /* the differentiation under way needs its gradient */
    sh_phase phase;  /* of an input: when it is written */
    int producer;    /* node, or -1 */
    int first, last; /* nodes between which the value must keep its memory; filled by plan */
    sh_value alias;  /* value whose memory this one takes over, or SH_NO_VALUE */
    size_t offset;   /* bytes within home */
} sh_value_info;

typedef struct sh_node {
    sh_op op;
    sh_op_attrs attrs;
    sh_phase phase;
    int n_in, n_out;
    sh_value in[SH_NODE_INPUTS]; /* SH_NO_VALUE: absent optional operand */
    sh_value out[SH_NODE_OUTPUTS];
    sh_value about; /* backward: the forward value whose derivative this is part of */

    /* filled by plan */
    const sh_tensor_desc *in_desc[SH_NODE_INPUTS], *out_desc[SH_NODE_OUTPUTS];
    sh_node_desc desc;
    const sh_kernel *kernel;
    void *state;
    size_t scratch_bytes, scratch_offset, packed_bytes, packed_offset;
    char *refusals; /* malloc'd, or NULL */
} sh_node;

struct sh_program {
    sh_program_config config;
    char *prefix;
    sh_value_info *values;
    int n_values, value_capacity;
    sh_node *nodes;
    int n_nodes, node_capacity;
    int n_forward; /* -1 until known */
    int n_dropouts;
    sh_phase building; /* phase of nodes being added */
    sh_value deriving; /* becomes their `about` */
    size_t arena_bytes;
    sh_replays replays;
    bool planned;
    bool draws;           /* some node draws at random */
    bool keeps_constants; /* inference: the constants phase leaves them for every forward */
    bool wants_constants; /* it has not run yet */
    sh_status status;     /* first failure of the building */
    char error[512];
};

/** What every backend agrees on about an op. */
typedef struct sh_op_info {
    const char *name;
    int min_inputs, max_inputs, min_outputs, max_outputs;

    /** Shape of output 0 of a forward op; NULL for ops that only autodiff emits. */
    sh_status (*infer)(const sh_op_attrs *attrs, const sh_tensor_desc *const *in, int64_t dims[4]);

    /** Emit the derivative; NULL: gradients stop here. See models/derive.h. */
    sh_status (*derive)(sh_program *p, int node, sh_value *grads);

    /** Multiply and add count as two. */
    double (*flops)(const sh_node_desc *desc);

    /** Input that output 0 may overwrite when it dies here; -1: none. Every kernel must allow it.
     */
    int in_place;
} sh_op_info;

extern const sh_op_info sh_op_table[SH_OP_COUNT];

/* ---- program.c: used by derivatives, autodiff and fusion ---- */

/** New arena value; SH_NO_VALUE and a sticky error when memory is short. */
sh_value sh_graph_value(sh_program *p, const sh_tensor_desc *desc, const char *label);

/** Append a node of the current phase. Outputs' producer is set. */
sh_status sh_graph_node(sh_program *p, sh_op op, const sh_op_attrs *attrs, int n_in,
                        const sh_value *in, int n_out, const sh_value *out);

/** Remember the first failure. */
void sh_graph_fail(sh_program *p, sh_status status);

/** Number of operands, over all nodes, that are v. */
int sh_graph_n_uses(const sh_program *p, sh_value v);

/** Fill node->desc (pointers into the program's values and the node itself). */
void sh_graph_describe(const sh_program *p, sh_node *node);

/** What a node is about: the label of its first output. */
const char *sh_graph_label(const sh_program *p, const sh_node *node);

/** Drop nodes whose op is SH_OP_COUNT and renumber producers, n_forward. */
void sh_graph_compact(sh_program *p);

/* ---- builder.c: used by the builder functions ---- */

/** Stride, dilation, groups, share and scale 1, everything else 0. */
extern const sh_op_attrs sh_graph_plain_attrs;

/** May v be built on? If not, the failure is remembered. */
bool sh_graph_usable(sh_program *p, sh_value v);

/** Append a forward node with one output, whose shape the op's table row gives. */
sh_value sh_graph_emit(sh_program *p, sh_op op, const sh_op_attrs *attrs, int n_in,
                       const sh_value *in, const char *label);

/** `name`.`part` as a parameter. */
sh_value sh_graph_named_param(sh_program *p, const char *name, const char *part, int n_dims,
                              const int64_t *dims);

/** TensorFlow's SAME: output side = ceil(side / stride), the odd pixel of padding comes last. */
void sh_graph_same_padding(const int64_t *dims, const sh_op_attrs *attrs, const int kernel[2],
                           int pad[4]);

/* ---- derive.c ---- */
sh_status sh_derive_conv(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_bn_apply(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_act(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_add(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_avg_pool(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_linear(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_flatten(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_dropout(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_reflect_pad(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_l2_norm(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_cast(sh_program *p, int node, sh_value *grads);

/* ---- derive_blocks.c ---- */
sh_status sh_derive_max_pool(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_mean_pool(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_adaptive_pool(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_gem_pool(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_concat(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_mul_channels(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_scale(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_add_scaled(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_path_drop(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_layer_norm(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_attention(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_tokens(sh_program *p, int node, sh_value *grads);
sh_status sh_derive_take_token(sh_program *p, int node, sh_value *grads);

/* ---- derive.c: what derivatives are made of ---- */

/** Does the gradient have to flow through v? */
bool sh_derive_wants(const sh_program *p, sh_value v);

/** A new value shaped as `like`. */
sh_value sh_derive_like(sh_program *p, sh_value like, const char *what);

/** Emit `op` with one output shaped as x and make it x's gradient. */
sh_status sh_derive_one(sh_program *p, sh_op op, const sh_op_attrs *attrs, int n_in,
                        const sh_value *in, sh_value x, sh_value *grads);

/** The same for ops of one operand whose derivative takes dy alone. */
sh_status sh_derive_unary(sh_program *p, int node, sh_op op, sh_value *grads);

/** Emit `op` with outputs shaped as the n_x values xs and make them their gradients. Outputs that
 *  nobody wants are left out, but for the first. */
sh_status sh_derive_many(sh_program *p, sh_op op, const sh_op_attrs *attrs, int n_in,
                         const sh_value *in, int n_x, const sh_value *xs, sh_value *grads);

/* ---- autodiff.c ---- */

/** Add g to the gradient of v: the first contribution is taken as it is, later ones through ADD. */
sh_status sh_autodiff_accumulate(sh_program *p, sh_value *grads, sh_value v, sh_value g);

/* ---- statistics.c ---- */

/** End the building: freeze batch norms whose running_mean is not trainable, move BN_EXPORT nodes
 * to the backward phase, fix n_forward. Values keep their numbers. */
sh_status sh_settle_statistics(sh_program *p);

/* ---- fuse.c ---- */

/** Merge neighbouring nodes where the backend accepts it. */
sh_status sh_fuse(sh_program *p);

#endif
