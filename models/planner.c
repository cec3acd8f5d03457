// SPDX-License-Identifier: Apache-2.0
/** Planning: fuse, choose kernels, and give every value of the arena a place by its lifetime. */
#include <stdlib.h>

#include "models/graph.h"

enum { ARENA_ALIGN_BYTES = 64 };

/** A stretch of arena that is needed from node `first` to node `last`. */
typedef struct block {
    size_t n_bytes, offset;
    int first, last;
    int owner;  /* value, or negative: a node's scratch or packed weights */
    size_t *to; /* where the offset is wanted */
} block;

static size_t aligned(size_t n_bytes)
{
    return (n_bytes + ARENA_ALIGN_BYTES - 1) / ARENA_ALIGN_BYTES * ARENA_ALIGN_BYTES;
}

/* ---- kernels ---- */

/** Take the first kernel that can do the node; keep what the faster ones said. */
static sh_status choose_kernel(const sh_program *p, sh_node *node)
{
    sh_status st = SH_OK;
    const sh_kernel *const *kernels = p->config.backend->kernels_of(node->op);
    size_t n_bytes = 0;
    FILE *text = open_memstream(&node->refusals, &n_bytes);

    SH_CHECK(text != NULL, SH_ERR_NO_MEMORY, "kernel choice");
    for (int i = 0; kernels != NULL && kernels[i] != NULL; i++) {
        const char *reason = kernels[i]->why_not(&node->desc);
        if (reason == NULL) {
            node->kernel = kernels[i];
            break;
        }
        fprintf(text, "%s%s: %s", i > 0 ? "; " : "", kernels[i]->name, reason);
    }
    SH_CHECK(fclose(text) == 0, SH_ERR_NO_MEMORY, "kernel choice");
    SH_CHECK(node->kernel != NULL, SH_ERR_UNSUPPORTED, "backend %s has no kernel for %s of %s: %s",
             p->config.backend->name, sh_op_name(node->op), sh_graph_label(p, node),
             node->refusals);
    if (node->kernel->prepare != NULL) {
        SH_TRY(node->kernel->prepare(&node->desc, &node->state, &node->scratch_bytes));
    }
    if (node->kernel->packed_bytes != NULL)
        node->packed_bytes = node->kernel->packed_bytes(node->state);
out:
    return st;
}

/* ---- constants ---- */

static bool is_constant(const sh_program *p, const sh_node *node)
{
    for (int k = 0; k < node->n_in; k++) {
        if (node->in[k] == SH_NO_VALUE) continue;
        const sh_value_info *v = &p->values[node->in[k]];
        bool is_made = v->producer >= 0 && p->nodes[v->producer].phase == SH_PHASE_CONSTANTS;
        if (v->home != SH_HOME_PARAMS && v->home != SH_HOME_STATES && !is_made) return false;
    }
    return node->n_in > 0;
}

static void find_constants(sh_program *p)
{
    p->keeps_constants = !p->config.training && p->n_forward == p->n_nodes;
    for (int i = 0; p->keeps_constants && i < p->n_nodes; i++) {
        sh_node *node = &p->nodes[i];
        if (is_constant(p, node)) node->phase = SH_PHASE_CONSTANTS;
        p->wants_constants |= node->phase == SH_PHASE_CONSTANTS || node->packed_bytes > 0;
    }
}

/** Constants that a forward reads live for ever; of those that are packed, the packed form does. */
static void keep_constants(sh_program *p)
{
    for (int i = 0; i < p->n_nodes; i++) {
        const sh_node *node = &p->nodes[i];
        for (int k = 0; k < node->n_in && node->phase != SH_PHASE_CONSTANTS; k++) {
            bool is_packed = k == SH_CONV_W && node->packed_bytes > 0;
            if (node->in[k] == SH_NO_VALUE || is_packed) continue;
            sh_value_info *v = &p->values[node->in[k]];
            if (v->producer < 0 || p->nodes[v->producer].phase != SH_PHASE_CONSTANTS) continue;
            v->first = -1;
            v->last = p->n_nodes;
        }
        for (int k = 0; k < node->n_out && node->phase == SH_PHASE_CONSTANTS; k++) {
            sh_value_info *v = &p->values[node->out[k]];
            if (v->is_pinned) v->first = -1;
        }
    }
}

/* ---- lifetimes ---- */

static void find_lifetimes(sh_program *p)
{
    for (int i = 0; i < p->n_values; i++) {
        sh_value_info *v = &p->values[i];
        v->first = v->producer;
        v->last = v->producer;
        if (v->is_input) v->first = v->phase == SH_PHASE_FORWARD ? -1 : p->n_forward;
        if (v->is_input || v->is_pinned) v->last = p->n_nodes;
    }
    for (int i = 0; i < p->n_nodes; i++) {
        for (int k = 0; k < p->nodes[i].n_in; k++) {
            sh_value in = p->nodes[i].in[k];
            if (in != SH_NO_VALUE && p->values[in].last < i) p->values[in].last = i;
        }
    }
    keep_constants(p);
}

/** Let an elementwise output take over the memory of an input that dies in the same node. */
static void share_in_place(sh_program *p)
{
    for (int i = 0; i < p->n_nodes; i++) {
        const sh_node *node = &p->nodes[i];
        int slot = sh_op_table[node->op].in_place;
        if (slot < 0 || node->phase == SH_PHASE_CONSTANTS) continue;
        sh_value_info *in = &p->values[node->in[slot]], *out = &p->values[node->out[0]];
        int n_same = 0;
        for (int k = 0; k < node->n_in; k++) n_same += node->in[k] == node->in[slot];
        if (n_same != 1 || in->home != SH_HOME_ARENA || out->home != SH_HOME_ARENA) continue;
        if (in->is_input || in->is_pinned || in->last != i) continue;
        if (in->desc.dtype != out->desc.dtype || in->desc.layout != out->desc.layout) continue;
        out->alias = node->in[slot];
    }
}

static sh_value root_of(const sh_program *p, sh_value v)
{
    while (p->values[v].alias != SH_NO_VALUE) v = p->values[v].alias;
    return v;
}

/* ---- placement ---- */

static int by_size(const void *a, const void *b)
{
    const block *x = a, *y = b;

    if (x->n_bytes != y->n_bytes) return x->n_bytes > y->n_bytes ? -1 : 1;
    return x->owner < y->owner ? -1 : x->owner > y->owner;
}

static int by_offset(const void *a, const void *b)
{
    const block *const *x = a, *const *y = b;

    return (*x)->offset < (*y)->offset ? -1 : (*x)->offset > (*y)->offset;
}

static int collect_blocks(sh_program *p, block *blocks)
{
    int n = 0;

    for (int i = 0; i < p->n_values; i++) {
        sh_value_info *v = &p->values[i];
        bool is_used = v->is_input || v->producer >= 0;
        if (v->home != SH_HOME_ARENA || v->alias != SH_NO_VALUE || !is_used) continue;
        blocks[n++] = (block){.n_bytes = aligned(sh_tensor_bytes(&v->desc)),
                              .first = v->first,
                              .last = v->last,
                              .owner = i,
                              .to = &v->offset};
    }
    for (int i = 0; i < p->n_nodes; i++) {
        sh_node *node = &p->nodes[i];
        block scratch = {.n_bytes = aligned(node->scratch_bytes),
                         .first = i,
                         .last = i,
                         .owner = -1 - i,
                         .to = &node->scratch_offset};
        block packed = {.n_bytes = aligned(node->packed_bytes),
                        .first = p->keeps_constants ? -1 : i,
                        .last = p->keeps_constants ? p->n_nodes : i,
                        .owner = -1 - p->n_nodes - i,
                        .to = &node->packed_offset};
        if (scratch.n_bytes > 0) blocks[n++] = scratch;
        if (packed.n_bytes > 0) blocks[n++] = packed;
    }
    return n;
}

/** Largest first, each at the lowest gap that fits among those alive at the same time. */
static size_t place_blocks(block *blocks, int n, const block **alive)
{
    size_t total = 0;

    qsort(blocks, (size_t)n, sizeof(*blocks), by_size);
    for (int i = 0; i < n; i++) {
        block *b = &blocks[i];
        int n_alive = 0;
        for (int k = 0; k < i; k++) {
            if (blocks[k].first <= b->last && b->first <= blocks[k].last) {
                alive[n_alive++] = &blocks[k];
            }
        }
        qsort(alive, (size_t)n_alive, sizeof(*alive), by_offset);
        size_t at = 0;
        for (int k = 0; k < n_alive; k++) {
            if (alive[k]->offset >= at + b->n_bytes) break;
            size_t end = alive[k]->offset + alive[k]->n_bytes;
            if (end > at) at = end;
        }
        b->offset = at;
        if (at + b->n_bytes > total) total = at + b->n_bytes;
    }
    return total;
}

static sh_status place(sh_program *p)
{
    sh_status st = SH_OK;
    uint32_t n_max = (uint32_t)p->n_values + 2 * (uint32_t)p->n_nodes;
    block *blocks = calloc(n_max, sizeof(*blocks));
    const block **alive = calloc(n_max, sizeof(*alive));

    SH_CHECK(blocks != NULL && alive != NULL, SH_ERR_NO_MEMORY, "planning %u values", n_max);
    for (int i = 0; i < p->n_values; i++) {
        if (p->values[i].alias == SH_NO_VALUE) continue;
        sh_value_info *root = &p->values[root_of(p, i)];
        if (p->values[i].last > root->last) root->last = p->values[i].last;
    }
    int n = collect_blocks(p, blocks);
    p->arena_bytes = place_blocks(blocks, n, alive);
    if (p->arena_bytes == 0) p->arena_bytes = ARENA_ALIGN_BYTES;
    for (int i = 0; i < n; i++) *blocks[i].to = blocks[i].offset;
    for (int i = 0; i < p->n_values; i++) {
        if (p->values[i].alias != SH_NO_VALUE) {
            p->values[i].offset = p->values[root_of(p, i)].offset;
        }
    }
out:
    free(blocks);
    free(alive);
    return st;
}

sh_status sh_program_plan(sh_program *p)
{
    sh_status st = SH_OK;

    SH_CHECK(p->status == SH_OK, p->status, "%s", p->error);
    SH_CHECK(!p->planned, SH_ERR_USAGE, "the program is already planned");
    if (p->n_forward < 0) SH_TRY(sh_settle_statistics(p));
    SH_TRY(sh_fuse(p));
    for (int i = 0; i < p->n_nodes; i++) {
        sh_node *node = &p->nodes[i];
        sh_graph_describe(p, node);
        SH_TRY(choose_kernel(p, node));
        p->draws = p->draws || node->op == SH_OP_DROPOUT || node->op == SH_OP_PATH_DROP;
    }
    find_constants(p);
    find_lifetimes(p);
    share_in_place(p);
    SH_TRY(place(p));
    p->planned = true;
out:
    sh_graph_fail(p, st);
    return st;
}
