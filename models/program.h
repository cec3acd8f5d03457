// SPDX-License-Identifier: Apache-2.0
/**
 * Programs: a step as a list of nodes over memory planned once.
 *
 *   create -> build (sh_op_*, sh_program_output) -> differentiate -> plan -> run, run, run ...
 *
 * The builder functions return value handles and remember the first failure, so that a network
 * reads as a list of layers: check once, in sh_program_plan. After plan nothing is allocated,
 * looked up or decided.
 *
 * A program is built for one number of images (a shard). Forward nodes come first; everything that
 * sh_program_differentiate adds comes after them, and the two ranges are run separately
 * (SH_PHASE_FORWARD, SH_PHASE_BACKWARD) so that a loss over the whole global batch can stand
 * between. Backward needs the arena as forward left it.
 *
 * Inputs keep what was written to them through both phases; a cotangent is written after forward,
 * which may use its memory. Outputs and wanted gradients stay readable to the end of backward.
 *
 * A program that does not train and was not differentiated infers: what is made of parameters alone
 * (folded batch norms, weights in the order of the kernels) is made by a phase of its own,
 * SH_PHASE_CONSTANTS, to be run once for an arena and again whenever parameters have changed.
 *
 * Which slots are trainable is read when a program is differentiated, or planned without that:
 * mark slots between building and that. A parameter that is not trainable gets no gradient, and
 * nothing upstream of the last trainable one is differentiated, nor has stochastic depth there; a
 * batch norm whose running_mean is marked not trainable uses its running statistics as constants.
 */
#ifndef SH_MODELS_PROGRAM_H
#define SH_MODELS_PROGRAM_H

#include <stdio.h>

#include "models/backend.h"
#include "models/store.h"

SH_C_BEGIN

typedef struct sh_program sh_program;
typedef int sh_value; /* index of a value in its program */
#define SH_NO_VALUE (-1)

typedef struct sh_program_config {
    const sh_backend *backend;
    sh_store *store;    /* not owned; slots are added to it */
    sh_dtype dtype;     /* of activations: SH_F32 or SH_BF16 */
    bool training;      /* batch statistics and dropout; false: running statistics, no dropout */
    bool unfolded;      /* not training: batch norms and sums are not folded, so that values
                           have the bytes of a training program in which all of it is frozen */
    float share;        /* images of this shard / images of the global batch; 1 when alone */
    const char *prefix; /* put before every parameter's name; "" for none */
} sh_program_config;

SH_MUST_CHECK sh_status sh_program_create(const sh_program_config *config, sh_program **out);
void sh_program_destroy(sh_program **program);

/* ---- building; all values are [N,C,H,W] ---- */

/** An image batch in the program's dtype, in the layout that the backend wants for images. */
sh_value sh_program_input(sh_program *p, const char *name, const int64_t dims[4]);

/** Parameter (state-dict name, PyTorch shape) or running statistic. */
sh_value sh_program_param(sh_program *p, const char *name, int n_dims, const int64_t *dims);
sh_value sh_program_state(sh_program *p, const char *name, int64_t n_channels, float momentum);

typedef struct sh_conv_attrs {
    int out_channels, kernel[2], stride, dilation, groups;
    int pad[4]; /* top, left, bottom, right; ignored when same */
    bool same;  /* TensorFlow SAME padding from the actual size */
    bool bias;
} sh_conv_attrs;

/** Convolution with parameters `name`.weight (and `name`.bias). Zero stride, dilation, groups
 * mean 1. */
sh_value sh_op_conv(sh_program *p, sh_value x, const char *name, const sh_conv_attrs *attrs);

/** Batch norm with parameters `name`.{weight,bias,running_mean,running_var}. Training: batch
 *  statistics, and this shard's share of the new running statistics is exported. */
sh_value sh_op_batch_norm(sh_program *p, sh_value x, const char *name, float eps, float momentum);

sh_value sh_op_act(sh_program *p, sh_value x, sh_act act);
sh_value sh_op_add(sh_program *p, sh_value a, sh_value b);
/** a + scale b. */
sh_value sh_op_add_scaled(sh_program *p, sh_value a, sh_value b, float scale);
/** x [N,C,H,W] times s [N,C,1,1]. */
sh_value sh_op_mul_channels(sh_program *p, sh_value x, sh_value s);
/** x times parameter `name` [C], per channel. */
sh_value sh_op_scale(sh_program *p, sh_value x, const char *name);
/** Channels of 1 to SH_CONCAT_MAX values of equal N, H, W one after another. */
sh_value sh_op_concat(sh_program *p, int n, const sh_value *xs);
enum { SH_CONCAT_MAX = 8 };

typedef struct sh_pool_attrs {
    int kernel[2], stride[2]; /* zero stride: the kernel's */
    int pad[4];               /* top, left, bottom, right, each below the kernel; not when same */
    bool same;                /* TensorFlow SAME padding from the actual size */
    bool count_padding;       /* padding counts as zeros; otherwise not at all */
} sh_pool_attrs;

sh_value sh_op_max_pool(sh_program *p, sh_value x, const sh_pool_attrs *attrs);
sh_value sh_op_avg_pool(sh_program *p, sh_value x, const sh_pool_attrs *attrs);
sh_value sh_op_global_avg_pool(sh_program *p, sh_value x);
/** Means of windows that divide the image evenly, to height x width; x itself where it has that
 * size already. Windows overlap where the sides do not divide; a smaller image is repeated. */
sh_value sh_op_adaptive_avg_pool(sh_program *p, sh_value x, int height, int width);
/** Generalised mean with one learned power, parameter `name` [1]: (mean max(x, eps)^p)^(1/p). */
sh_value sh_op_gem_pool(sh_program *p, sh_value x, const char *name, float eps);

/** Linear layer with parameters `name`.weight [out, in] (and `name`.bias): rows [N, in, 1, 1], or
 *  each token of [N, in, T, 1]. */
sh_value sh_op_linear(sh_program *p, sh_value x, const char *name, int out_features, bool bias);
sh_value sh_op_flatten(sh_program *p, sh_value x);
sh_value sh_op_dropout(sh_program *p, sh_value x, float rate); /* identity unless training */
/** Stochastic depth: each image's x whole, divided by 1 - rate, or zero; identity unless training.
 */
sh_value sh_op_path_drop(sh_program *p, sh_value x, float rate);
sh_value sh_op_reflect_pad(sh_program *p, sh_value x, const int pad[4]);
/** Rows of length 1, y = x / max(|x|, SH_L2_NORM_EPS): in f32, whatever the program's dtype is. */
sh_value sh_op_l2_norm(sh_program *p, sh_value x);

/* Transformers: tokens are [N, C, T, 1]. */

/** Normalise the channels of each pixel or token; parameters `name`.{weight,bias} [C]. */
sh_value sh_op_layer_norm(sh_program *p, sh_value x, const char *name, float eps);

/** Self-attention softmax(q k^T / sqrt(C / heads)) v of qkv [N, 3 C, T, 1]: q, k, v of C channels
 *  each, a head's channels consecutive. Gives [N, C, T, 1]. */
sh_value sh_op_attention(sh_program *p, sh_value qkv, int heads);

/** Patches [N, C, h, w], row-major, behind the class token `cls` [1, 1, C], with positions `pos`
 *  [1, 1 + h w, C] added to all: [N, C, 1 + h w, 1]. */
sh_value sh_op_tokens(sh_program *p, sh_value patches, const char *cls, const char *pos);

/** [N, C, T, 1] -> [N, C, 1, 1]. */
sh_value sh_op_take_token(sh_program *p, sh_value x, int index);

/** Logical shape of a value built so far, for builders that need it; {0} after a failure. */
void sh_program_dims(const sh_program *p, sh_value v, int64_t dims[4]);

/** Begin the program at v instead of at its image: v, in the program's dtype, becomes an input, and
 *  everything built so far that led to it is dropped. Parameters below v stay in the store and get
 *  no gradient; dropout behind v draws as in the whole program. */
void sh_program_cut(sh_program *p, sh_value v);

/** Name an output. It becomes f32 row-major, [N, C H W], whatever the program's dtype is. */
sh_value sh_program_output(sh_program *p, const char *name, sh_value v);

/** Add the derivative of sum(output * cotangent). The cotangent becomes a new input, f32 [N, D],
 *  returned in *cotangent. Gradients of the trainable parameters that output depends on go to the
 *  reduce arena; where wanted, *input_grad gets the gradient of `input` as a readable value
 *  (input = SH_NO_VALUE: none). */
SH_MUST_CHECK sh_status sh_program_differentiate(sh_program *p, sh_value output, sh_value input,
                                                 sh_value *cotangent, sh_value *input_grad);

/** The same for the sum over several outputs: one walk back for all of them, each with a cotangent
 * of its own, cotangents[n_outputs]. */
SH_MUST_CHECK sh_status sh_program_differentiate_all(sh_program *p, int n_outputs,
                                                     const sh_value *outputs, sh_value input,
                                                     sh_value *cotangents, sh_value *input_grad);

/** Fuse, choose kernels, place values. Reports the first failure of the whole building. */
SH_MUST_CHECK sh_status sh_program_plan(sh_program *p);

/* ---- running ---- */

typedef enum sh_phase { SH_PHASE_FORWARD, SH_PHASE_BACKWARD, SH_PHASE_CONSTANTS } sh_phase;

typedef struct sh_run_args {
    sh_buffer *arena;  /* sh_program_arena_bytes; one per shard that is in flight */
    sh_buffer *reduce; /* [n_params + n_states] f32: the backward phase overwrites its gradients
                          AND its statistic deltas; the forward phase never touches it, so that a
                          forward whose results are only looked at leaves no trace. May be NULL for
                          a forward. */
    /* In the backend's memory (device_ptr of one of its buffers). May be NULL for a program without
       dropout and stochastic depth. */
    const sh_run_scalars *scalars;
    /** Where the backend can: nodes are launched together, from the second run on these same
        buffers by a recording of them. */
    bool recorded;
    /** Optional: called after each node, with its index, to start or poll communication. Where
     *  nodes are launched together, only after those of `stops` and after the last one. */
    sh_status (*after_node)(void *context, int node);
    void *context;
    const int *stops; /* [n_stops] nodes, ascending */
    int n_stops;
} sh_run_args;

size_t sh_program_arena_bytes(const sh_program *p);

/** SH_ERR_USAGE where an inference program goes forward before its constants were made. The
 *  constants phase of a program that trains does nothing. */
SH_MUST_CHECK sh_status sh_program_run(sh_program *p, sh_phase phase, const sh_run_args *args);

/** How the host must lay out what it writes to, or reads from, a value. */
sh_tensor_desc sh_program_desc(const sh_program *p, sh_value v);
SH_MUST_CHECK sh_status sh_program_write(sh_program *p, sh_buffer *arena, sh_value v,
                                         const void *host);
SH_MUST_CHECK sh_status sh_program_read(sh_program *p, const sh_buffer *arena, sh_value v,
                                        void *host);

/** Where such a value lies in the backend's memory: for its kernels, and copies within it. */
SH_MUST_CHECK sh_status sh_program_place(sh_program *p, sh_buffer *arena, sh_value v,
                                         void **memory);

/** Index of the last node that writes or reads the reduce range of `slot`; -1 if none does. */
int sh_program_ready_node(const sh_program *p, int slot);
int sh_program_n_nodes(const sh_program *p);

/* ---- looking ---- */

/** One line per node: op, kernel, shapes, layouts, arena offsets, bytes, FLOPs. */
void sh_program_print(const sh_program *p, FILE *out);

typedef struct sh_node_info {
    const char *op;
    const char *kernel;   /* what really runs */
    const char *label;    /* parameter name or value that it belongs to */
    const char *refusals; /* why faster kernels were not taken; "" if the first was */
    sh_phase phase;
    double flops; /* multiply and add count as two */
    double bytes; /* operands read once, results written once */
    sh_tensor_desc in0, out0;
} sh_node_info;

void sh_program_node_info(const sh_program *p, int node, sh_node_info *out);

/** Run one node alone (operands as they stand in the arena): for benches. */
SH_MUST_CHECK sh_status sh_program_run_node(sh_program *p, int node, const sh_run_args *args);

SH_C_END

#endif
