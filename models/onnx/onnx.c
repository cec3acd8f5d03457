// SPDX-License-Identifier: Apache-2.0
#include "models/onnx/onnx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "models/onnx/graph.h"

enum { IR_VERSION = 8, OPSET = 17 };

/* Field numbers of onnx.proto. */
enum { MODEL_IR = 1, MODEL_PRODUCER = 2, MODEL_PRODUCER_VERSION = 3, MODEL_GRAPH = 7 };
enum { MODEL_OPSET = 8, MODEL_METADATA = 14, OPSET_VERSION = 2, ENTRY_KEY = 1, ENTRY_VALUE = 2 };
enum { GRAPH_NODE = 1, GRAPH_NAME = 2, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12 };
enum { NODE_INPUT = 1, NODE_OUTPUT = 2, NODE_NAME = 3, NODE_OP = 4, NODE_ATTRIBUTE = 5 };
enum { ATTR_NAME = 1, ATTR_F = 2, ATTR_I = 3, ATTR_S = 4, ATTR_INTS = 8, ATTR_TYPE = 20 };
enum { TYPE_FLOAT = 1, TYPE_INT = 2, TYPE_STRING = 3, TYPE_INTS = 7 };
enum { TENSOR_DIMS = 1, TENSOR_TYPE = 2, TENSOR_NAME = 8, TENSOR_RAW = 9 };
enum { ELEM_FLOAT = 1, ELEM_INT64 = 7 };
enum { INFO_NAME = 1, INFO_TYPE = 2, TYPE_TENSOR = 1, TENSOR_ELEM = 1, TENSOR_SHAPE = 2 };
enum { SHAPE_DIM = 1, DIM_VALUE = 1, DIM_PARAM = 2 };

/* ---- nodes ---- */

static sh_onnx_name fresh(sh_onnx_graph *g, const char *what)
{
    sh_onnx_name name;

    snprintf(name.text, sizeof(name.text), "%s_%d", what, g->n_names++);
    return name;
}

static void put_attr(sh_pb *node, const sh_onnx_attr *attr)
{
    sh_pb message = {0};

    sh_pb_text(&message, ATTR_NAME, attr->name);
    if (attr->text != NULL) {
        sh_pb_text(&message, ATTR_S, attr->text);
    } else if (attr->n_ints == 0) {
        sh_pb_float(&message, ATTR_F, attr->number);
    } else {
        for (int i = 0; i < attr->n_ints; i++)
            sh_pb_int(&message, attr->single ? ATTR_I : ATTR_INTS, attr->ints[i]);
    }
    sh_pb_int(&message, ATTR_TYPE,
              attr->text != NULL  ? TYPE_STRING
              : attr->n_ints == 0 ? TYPE_FLOAT
              : attr->single      ? TYPE_INT
                                  : TYPE_INTS);
    sh_pb_message(node, NODE_ATTRIBUTE, &message);
}

sh_onnx_name sh_onnx_node(sh_onnx_graph *g, const char *op, const char *const *inputs,
                          const sh_onnx_attr *attrs)
{
    sh_pb node = {0};
    const sh_onnx_name out = fresh(g, op);

    for (int i = 0; inputs[i] != NULL; i++) sh_pb_text(&node, NODE_INPUT, inputs[i]);
    sh_pb_text(&node, NODE_OUTPUT, out.text);
    sh_pb_text(&node, NODE_NAME, out.text);
    sh_pb_text(&node, NODE_OP, op);
    for (int i = 0; attrs != NULL && attrs[i].name != NULL; i++) put_attr(&node, &attrs[i]);
    sh_pb_message(&g->nodes, GRAPH_NODE, &node);
    return out;
}

/* ---- constants ---- */

static void put_tensor(sh_onnx_graph *g, const char *name, int elem, int n_dims,
                       const int64_t *dims, const void *data, size_t n_bytes)
{
    sh_pb tensor = {0};

    for (int i = 0; i < n_dims; i++) sh_pb_int(&tensor, TENSOR_DIMS, dims[i]);
    sh_pb_int(&tensor, TENSOR_TYPE, elem);
    sh_pb_text(&tensor, TENSOR_NAME, name);
    sh_pb_bytes(&tensor, TENSOR_RAW, data, n_bytes);
    sh_pb_message(&g->weights, GRAPH_INITIALIZER, &tensor);
}

sh_onnx_name sh_onnx_number(sh_onnx_graph *g, float value)
{
    const sh_onnx_name name = fresh(g, "number");

    put_tensor(g, name.text, ELEM_FLOAT, 0, NULL, &value, sizeof(value));
    return name;
}

sh_onnx_name sh_onnx_integers(sh_onnx_graph *g, int n, const int64_t *values, bool scalar)
{
    const sh_onnx_name name = fresh(g, "integers");
    const int64_t dims[1] = {n};

    put_tensor(g, name.text, ELEM_INT64, scalar ? 0 : 1, dims, values, (size_t)n * sizeof(*values));
    return name;
}

sh_onnx_name sh_onnx_tensor(sh_onnx_graph *g, const char *name, int n_dims, const int64_t *dims,
                            const float *data)
{
    const sh_onnx_name out = fresh(g, name);
    size_t n = 1;

    for (int i = 0; i < n_dims; i++) n *= (size_t)dims[i];
    put_tensor(g, out.text, ELEM_FLOAT, n_dims, dims, data, n * sizeof(*data));
    return out;
}

sh_status sh_onnx_weight_data(const sh_onnx_graph *g, const sh_node *node, int k,
                              const sh_slot **slot, float **data)
{
    sh_status st = SH_OK;
    float *values = NULL;
    const int index = g->p->values[node->in[k]].slot;

    SH_CHECK(index >= 0, SH_ERR_INTERNAL, "operand %d of %s is no weight", k,
             sh_graph_label(g->p, node));
    *slot = sh_store_slot(g->p->config.store, index);
    values = malloc((size_t)(*slot)->n_elems * sizeof(*values));
    SH_CHECK(values != NULL, SH_ERR_NO_MEMORY, "%s", (*slot)->name);
    SH_TRY(sh_store_read(g->p->config.store, index, values));
    *data = values;
    values = NULL;
out:
    free(values);
    return st;
}

sh_status sh_onnx_weight(sh_onnx_graph *g, const sh_node *node, int k, sh_onnx_name *out)
{
    sh_status st = SH_OK;
    const sh_slot *slot = NULL;
    float *data = NULL;

    SH_TRY(sh_onnx_weight_data(g, node, k, &slot, &data));
    snprintf(out->text, sizeof(out->text), "%s", slot->name);

    bool *written = &g->written[g->p->values[node->in[k]].slot];

    if (!*written)
        put_tensor(g, slot->name, ELEM_FLOAT, slot->n_dims, slot->dims, data,
                   (size_t)slot->n_elems * sizeof(*data));
    *written = true;
out:
    free(data);
    return st;
}

/* ---- the file ---- */

/* dims[0] < 0: any number of images. */
static void put_info(sh_pb *graph, int field, const char *name, int n_dims, const int64_t *dims)
{
    sh_pb info = {0}, type = {0}, tensor = {0}, shape = {0};

    for (int i = 0; i < n_dims; i++) {
        sh_pb dim = {0};

        if (dims[i] < 0)
            sh_pb_text(&dim, DIM_PARAM, "images");
        else
            sh_pb_int(&dim, DIM_VALUE, dims[i]);
        sh_pb_message(&shape, SHAPE_DIM, &dim);
    }
    sh_pb_int(&tensor, TENSOR_ELEM, ELEM_FLOAT);
    sh_pb_message(&tensor, TENSOR_SHAPE, &shape);
    sh_pb_message(&type, TYPE_TENSOR, &tensor);
    sh_pb_text(&info, INFO_NAME, name);
    sh_pb_message(&info, INFO_TYPE, &type);
    sh_pb_message(graph, field, &info);
}

/* A node that only gives an output its name. */
static void name_output(sh_onnx_graph *g, sh_value output)
{
    const char *name = g->p->values[output].label;
    const sh_onnx_name rows = sh_onnx_as(g, output, SH_ONNX_ROWS);
    sh_pb node = {0};

    sh_pb_text(&node, NODE_INPUT, rows.text);
    sh_pb_text(&node, NODE_OUTPUT, name);
    sh_pb_text(&node, NODE_NAME, name);
    sh_pb_text(&node, NODE_OP, "Identity");
    sh_pb_message(&g->nodes, GRAPH_NODE, &node);
}

static sh_status walk(sh_onnx_graph *g, sh_value input, int n_outputs, const sh_value *outputs,
                      sh_pb *graph)
{
    sh_status st = SH_OK;
    const sh_program *p = g->p;
    const int64_t *in = p->values[input].desc.dims;
    const char *in_name = p->values[input].label;

    snprintf(g->values[input].name.text, SH_ONNX_NAME, "%s", in_name);
    for (int i = 0; i < p->n_nodes; i++) SH_TRY(sh_onnx_emit(g, &p->nodes[i]));
    for (int i = 0; i < n_outputs; i++) name_output(g, outputs[i]);
    graph->failed |= g->nodes.failed | g->weights.failed;
    *graph = g->nodes; /* repeated fields may follow in any order: nodes, weights, the rest */
    g->nodes = (sh_pb){0};
    sh_pb_text(graph, GRAPH_NAME, "shoal");
    put_info(graph, GRAPH_INPUT, in_name, 4, (const int64_t[]){-1, in[1], in[2], in[3]});
    for (int i = 0; i < n_outputs; i++) {
        const int64_t *out = p->values[outputs[i]].desc.dims;

        put_info(graph, GRAPH_OUTPUT, p->values[outputs[i]].label, 2,
                 (const int64_t[]){-1, out[1]});
    }
out:
    return st;
}

static void put_model(sh_pb *model, const char *const (*metadata)[2], int n_metadata)
{
    sh_pb opset = {0};

    sh_pb_int(model, MODEL_IR, IR_VERSION);
    sh_pb_text(model, MODEL_PRODUCER, "shoal");
    sh_pb_text(model, MODEL_PRODUCER_VERSION, SHOAL_VERSION);
    sh_pb_int(&opset, OPSET_VERSION, OPSET);
    sh_pb_message(model, MODEL_OPSET, &opset);
    for (int i = 0; i < n_metadata; i++) {
        sh_pb entry = {0};

        sh_pb_text(&entry, ENTRY_KEY, metadata[i][0]);
        sh_pb_text(&entry, ENTRY_VALUE, metadata[i][1]);
        sh_pb_message(model, MODEL_METADATA, &entry);
    }
}

sh_status sh_onnx_write(const char *path, const sh_program *program, sh_value input, int n_outputs,
                        const sh_value *outputs, const char *const (*metadata)[2], int n_metadata)
{
    sh_status st = SH_OK;
    sh_onnx_graph g = {.p = program};
    sh_pb graph = {0}, model = {0};

    SH_CHECK(program->status == SH_OK, program->status, "%s", program->error);
    SH_CHECK(!program->planned && !program->config.training && program->config.dtype == SH_F32,
             SH_ERR_INTERNAL, "ONNX is written from an inference program in f32, before planning");
    g.values = calloc((size_t)program->n_values, sizeof(*g.values));
    g.written = calloc((size_t)sh_store_n_slots(program->config.store) + 1, sizeof(*g.written));
    SH_CHECK(g.values != NULL && g.written != NULL, SH_ERR_NO_MEMORY, "ONNX graph");
    SH_TRY(walk(&g, input, n_outputs, outputs, &graph));
    put_model(&model, metadata, n_metadata);
    /* The graph in two pieces saves a copy of all weights: fields of one message may be split. */
    sh_pb_message(&model, MODEL_GRAPH, &graph);
    sh_pb_message(&model, MODEL_GRAPH, &g.weights);
    SH_CHECK(!model.failed, SH_ERR_NO_MEMORY, "%s", path);
    SH_CHECK(model.n_bytes < (size_t)INT32_MAX, SH_ERR_UNSUPPORTED,
             "%s: an ONNX file ends at 2 GB; this network needs %zu bytes", path, model.n_bytes);
    SH_TRY(sh_file_put(path, model.data, model.n_bytes));
out:
    sh_pb_clear(&g.nodes);
    sh_pb_clear(&g.weights);
    sh_pb_clear(&graph);
    sh_pb_clear(&model);
    free(g.values);
    free(g.written);
    return st;
}
