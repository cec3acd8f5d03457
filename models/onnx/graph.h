// SPDX-License-Identifier: Apache-2.0
/** Inside the ONNX writer: the graph being written, and how ops write themselves. */
#ifndef SH_MODELS_ONNX_GRAPH_H
#define SH_MODELS_ONNX_GRAPH_H

#include "models/graph.h"
#include "models/onnx/protobuf.h"

enum { SH_ONNX_NAME = 192, SH_ONNX_INPUTS = 8 };

/* How a value lies in the file. Ours are all [N,C,H,W]; in ONNX, rows are [N,C] and tokens
 * [N,T,C]. */
typedef enum sh_onnx_form { SH_ONNX_IMAGE, SH_ONNX_ROWS, SH_ONNX_TOKENS } sh_onnx_form;

typedef struct sh_onnx_name {
    char text[SH_ONNX_NAME];
} sh_onnx_name;

typedef struct sh_onnx_value {
    sh_onnx_name name;
    sh_onnx_form form;
} sh_onnx_value;

typedef struct sh_onnx_graph {
    const sh_program *p;
    sh_pb nodes, weights;  /* fields of GraphProto, in the order in which they came */
    sh_onnx_value *values; /* [n_values] of the program */
    bool *written;         /* [n_slots]: a weight is in the file already */
    int n_names;
} sh_onnx_graph;

/** An attribute of a node: integers, or one number. */
typedef struct sh_onnx_attr {
    const char *name; /* NULL: absent */
    int n_ints;       /* 0: `number` */
    int64_t ints[5];
    bool single; /* the attribute is one integer, not a list of them */
    float number;
    const char *text;
} sh_onnx_attr;

#define SH_ONNX_INTS(key, ...)                                                                     \
    ((sh_onnx_attr){.name = (key),                                                                 \
                    .n_ints = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),           \
                    .ints = {__VA_ARGS__}})
#define SH_ONNX_INT(key, value)                                                                    \
    ((sh_onnx_attr){.name = (key), .n_ints = 1, .ints = {(value)}, .single = true})
#define SH_ONNX_FLOAT(key, value) ((sh_onnx_attr){.name = (key), .number = (value)})
#define SH_ONNX_TEXT(key, value) ((sh_onnx_attr){.name = (key), .text = (value)})

/** A node with one output of a fresh name, which is returned. Inputs end with NULL, attributes
 *  with {0}. */
sh_onnx_name sh_onnx_node(sh_onnx_graph *g, const char *op, const char *const *inputs,
                          const sh_onnx_attr *attrs);
#define SH_ONNX_NODE(g, op, attrs, ...)                                                            \
    sh_onnx_node((g), (op), (const char *const[]){__VA_ARGS__, NULL}, (attrs))

/** Constants; the name under which they are in the file. */
sh_onnx_name sh_onnx_number(sh_onnx_graph *g, float value);
sh_onnx_name sh_onnx_integers(sh_onnx_graph *g, int n, const int64_t *values, bool scalar);
sh_onnx_name sh_onnx_tensor(sh_onnx_graph *g, const char *name, int n_dims, const int64_t *dims,
                            const float *data);

/** The weight that operand k of a node is, as it stands. */
SH_MUST_CHECK sh_status sh_onnx_weight(sh_onnx_graph *g, const sh_node *node, int k,
                                       sh_onnx_name *out);

/** Its elements: *data is malloc'd, the caller frees. */
SH_MUST_CHECK sh_status sh_onnx_weight_data(const sh_onnx_graph *g, const sh_node *node, int k,
                                            const sh_slot **slot, float **data);

/** Write a node of the program: models/onnx/ops.c. */
SH_MUST_CHECK sh_status sh_onnx_emit(sh_onnx_graph *g, const sh_node *node);

/** The name of a value in another form: [N,C] rows of [N,C,1,1], and back. */
sh_onnx_name sh_onnx_as(sh_onnx_graph *g, sh_value v, sh_onnx_form form);

#endif
