// SPDX-License-Identifier: Apache-2.0
/** Running a planned program. */
#include "base/position.h"
#include "models/graph.h"

/** Where everything is found in this run. Without gaps: it is part of a key. */
typedef struct homes {
    char *base[SH_HOME_COUNT];
    const sh_run_scalars *scalars;
} homes;

static sh_status find_homes(sh_program *p, const sh_run_args *args, homes *out)
{
    sh_status st = SH_OK;
    const sh_backend *backend = p->config.backend;
    sh_store *store = p->config.store;

    SH_CHECK(p->planned, SH_ERR_USAGE, "the program is run before it is planned");
    SH_CHECK(args->arena != NULL && backend->bytes(args->arena) >= p->arena_bytes, SH_ERR_USAGE,
             "the program needs an arena of %zu bytes", p->arena_bytes);
    SH_CHECK(sh_store_params(store) != NULL, SH_ERR_USAGE,
             "the program is run before its store is allocated");
    SH_CHECK(args->scalars != NULL || !p->draws, SH_ERR_USAGE,
             "the program draws at random: it needs a seed and a step in the backend's memory");
    *out = (homes){.base = {[SH_HOME_ARENA] = backend->device_ptr(args->arena, 0),
                            [SH_HOME_PARAMS] = backend->device_ptr(sh_store_params(store), 0),
                            [SH_HOME_STATES] = backend->device_ptr(sh_store_states(store), 0)},
                   .scalars = args->scalars};
    if (args->reduce != NULL) {
        size_t n_bytes = (size_t)sh_store_n_params(store) * sizeof(float);
        out->base[SH_HOME_GRADS] = backend->device_ptr(args->reduce, 0);
        out->base[SH_HOME_DELTAS] = backend->device_ptr(args->reduce, n_bytes);
    }
out:
    return st;
}

static void *locate(const sh_program *p, const homes *at, sh_value v)
{
    if (v == SH_NO_VALUE) return NULL;
    return at->base[p->values[v].home] + p->values[v].offset;
}

/** Pack the node's weights, run it, or first the one and then the other. */
static sh_status run_node(const sh_program *p, const sh_node *node, const homes *at, bool packs,
                          bool runs)
{
    sh_status st = SH_OK;
    const sh_backend *backend = p->config.backend;
    const void *in[SH_NODE_INPUTS];
    void *out[SH_NODE_OUTPUTS];

    for (int k = 0; k < node->n_in; k++) in[k] = locate(p, at, node->in[k]);
    for (int k = 0; k < node->n_out; k++) out[k] = locate(p, at, node->out[k]);
    const sh_kernel_args args = {.in = in,
                                 .out = out,
                                 .scratch = at->base[SH_HOME_ARENA] + node->scratch_offset,
                                 .packed = at->base[SH_HOME_ARENA] + node->packed_offset,
                                 .scalars = at->scalars};
    if (backend->enter != NULL) backend->enter();
    if (packs && node->packed_bytes > 0) st = node->kernel->pack(&node->desc, node->state, &args);
    if (runs && st == SH_OK) st = node->kernel->run(&node->desc, node->state, &args);
    if (backend->leave != NULL) backend->leave();
    return st;
}

static sh_status make_constants(sh_program *p, const homes *at)
{
    sh_status st = SH_OK;

    for (int i = 0; p->keeps_constants && i < p->n_nodes; i++) {
        const sh_node *node = &p->nodes[i];
        SH_TRY(run_node(p, node, at, true, node->phase == SH_PHASE_CONSTANTS));
    }
    p->wants_constants = false;
out:
    return st;
}

/** Nodes that are launched together. Without gaps. */
typedef struct run {
    homes at;
    int begin, end;
} run;

_Static_assert(sizeof(run) == (SH_HOME_COUNT + 1) * sizeof(void *) + 2 * sizeof(int) &&
                   sizeof(run) <= SH_REPLAY_KEY_BYTES,
               "a key of a replay");

typedef struct launch {
    sh_program *program;
    sh_phase phase;
    run run;
} launch;

static sh_status launch_nodes(void *context)
{
    sh_status st = SH_OK;
    const launch *l = context;
    sh_program *p = l->program;

    for (int i = l->run.begin; i < l->run.end; i++) {
        if (p->nodes[i].phase != l->phase) continue;
        sh_position_node(i, sh_op_name(p->nodes[i].op));
        SH_TRY(run_node(p, &p->nodes[i], &l->run.at, !p->keeps_constants, true));
    }
out:
    return st;
}

/** Where the nodes end that are launched together with the first of [begin, end). */
static int end_of_run(const sh_run_args *args, int begin, int end)
{
    int stop = 0;

    if (!args->recorded) return begin + 1;
    while (stop < args->n_stops && args->stops[stop] < begin) stop++;
    return stop < args->n_stops && args->stops[stop] < end ? args->stops[stop] + 1 : end;
}

static sh_status run_nodes(sh_program *p, sh_phase phase, const homes *at, const sh_run_args *args)
{
    sh_status st = SH_OK;
    int begin = phase == SH_PHASE_FORWARD ? 0 : p->n_forward;
    int end = phase == SH_PHASE_FORWARD ? p->n_forward : p->n_nodes;

    while (begin < end) {
        launch l = {p, phase, {*at, begin, end_of_run(args, begin, end)}};

        if (args->recorded)
            SH_TRY(sh_replays_run(&p->replays, p->config.backend, &l.run, sizeof(l.run),
                                  launch_nodes, &l));
        else
            SH_TRY(launch_nodes(&l));
        begin = l.run.end;
        if (args->after_node != NULL) SH_TRY(args->after_node(args->context, begin - 1));
    }
out:
    return st;
}

sh_status sh_program_run(sh_program *p, sh_phase phase, const sh_run_args *args)
{
    sh_status st = SH_OK;
    homes at;

    SH_TRY(find_homes(p, args, &at));
    if (phase == SH_PHASE_CONSTANTS) {
        SH_TRY(make_constants(p, &at));
        goto out;
    }
    SH_CHECK(args->reduce != NULL || phase == SH_PHASE_FORWARD, SH_ERR_USAGE,
             "a backward phase needs memory for the gradients");
    SH_CHECK(!p->wants_constants, SH_ERR_USAGE,
             "the program goes forward before SH_PHASE_CONSTANTS was run");
    SH_TRY(run_nodes(p, phase, &at, args));
out:
    return st;
}

sh_status sh_program_run_node(sh_program *p, int node, const sh_run_args *args)
{
    sh_status st = SH_OK;
    homes at;

    SH_TRY(find_homes(p, args, &at));
    SH_CHECK(node >= 0 && node < p->n_nodes, SH_ERR_USAGE, "node %d of %d", node, p->n_nodes);
    SH_CHECK(args->reduce != NULL || p->nodes[node].phase != SH_PHASE_BACKWARD, SH_ERR_USAGE,
             "node %d belongs to the backward phase; give it memory for gradients", node);
    bool packs = !p->keeps_constants || p->nodes[node].phase == SH_PHASE_CONSTANTS;
    SH_TRY(run_node(p, &p->nodes[node], &at, packs, true));
out:
    return st;
}

size_t sh_program_arena_bytes(const sh_program *p)
{
    return p->arena_bytes;
}

sh_tensor_desc sh_program_desc(const sh_program *p, sh_value v)
{
    return p->values[v].desc;
}

static sh_status check_access(const sh_program *p, sh_value v)
{
    sh_status st = SH_OK;

    SH_CHECK(p->planned, SH_ERR_USAGE, "values have no memory before the program is planned");
    SH_CHECK(v >= 0 && v < p->n_values && (p->values[v].is_input || p->values[v].is_pinned),
             SH_ERR_USAGE, "value %d is neither an input nor an output of the program", v);
out:
    return st;
}

sh_status sh_program_write(sh_program *p, sh_buffer *arena, sh_value v, const void *host)
{
    sh_status st = SH_OK;

    SH_TRY(check_access(p, v));
    SH_TRY(p->config.backend->copy_in(arena, p->values[v].offset, host,
                                      sh_tensor_bytes(&p->values[v].desc)));
out:
    return st;
}

sh_status sh_program_read(sh_program *p, const sh_buffer *arena, sh_value v, void *host)
{
    sh_status st = SH_OK;

    SH_TRY(check_access(p, v));
    SH_TRY(p->config.backend->copy_out(arena, p->values[v].offset, host,
                                       sh_tensor_bytes(&p->values[v].desc)));
out:
    return st;
}

sh_status sh_program_place(sh_program *p, sh_buffer *arena, sh_value v, void **memory)
{
    sh_status st = SH_OK;

    SH_TRY(check_access(p, v));
    *memory = p->config.backend->device_ptr(arena, p->values[v].offset);
out:
    return st;
}

int sh_program_n_nodes(const sh_program *p)
{
    return p->n_nodes;
}

int sh_program_ready_node(const sh_program *p, int slot)
{
    const sh_slot *s = sh_store_slot(p->config.store, slot);
    sh_home home = s->kind == SH_SLOT_PARAM ? SH_HOME_GRADS : SH_HOME_DELTAS;
    int ready = -1;

    for (int i = 0; i < p->n_values; i++) {
        const sh_value_info *v = &p->values[i];
        if (v->home != home || v->offset != (size_t)s->offset * sizeof(float)) continue;
        if (v->producer >= 0 && v->last > ready) ready = v->last;
    }
    return ready;
}
