// SPDX-License-Identifier: Apache-2.0
/* Choices of engines and plans; what descriptors are is in cudnn_descriptors.c. */
#include "models/cuda/cudnn_descriptors.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_CONFIGS = 64, /* asked of one heuristic */
    MAX_KNOBS = 16,
    MAX_NOTES = 16,
};

struct sh_cudnn_plan {
    sh_cudnn_graph g;
    sh_cudnn_descriptor plan;
    int64_t workspace_bytes;
    sh_cudnn_graph operands; /* as a descriptor, kept for the next run, which mostly has the same */
    sh_cudnn_descriptor pack;
    sh_cudnn_operands packed;
};

/* ---- choices ---- */

/** Whose results are not the same each time, or are less exact than f32 sums of the operands. */
static bool is_refused(sh_cudnn_descriptor engine, const sh_cudnn_conv *conv)
{
    static const bool refused[CUDNN_NUMERICAL_NOTE_TYPE_COUNT] = {
        [CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS] = true,
        [CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION] = true,
        [CUDNN_NUMERICAL_NOTE_FFT] = true,
        [CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC] = true,
        [CUDNN_NUMERICAL_NOTE_WINOGRAD] = true,
        [CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4] = true,
        [CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6] = true,
        [CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13] = true,
    };
    cudnnBackendNumericalNote_t notes[MAX_NOTES];
    int64_t n = 0;

    if (sh_cudnn_lib.BackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                         CUDNN_TYPE_NUMERICAL_NOTE, MAX_NOTES, &n,
                                         notes) != CUDNN_STATUS_SUCCESS)
        return true;
    for (int64_t i = 0; i < n; i++) {
        if (conv->may_vary && notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) continue;
        if ((size_t)notes[i] >= SH_COUNT(refused) || refused[notes[i]]) return true;
        if (conv->dtype == SH_F32 && notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE)
            return true; /* TF32 */
    }
    return false;
}

/** "e62 2=7 13=1" of an engine's configuration. */
static sh_status write_choice(sh_cudnn_graph *g, sh_cudnn_descriptor config,
                              sh_cudnn_descriptor engine, sh_cudnn_choice *out)
{
    sh_status st = SH_OK;
    sh_cudnn_descriptor knobs[MAX_KNOBS];
    int64_t index, n = 0, n_bytes;

    SH_CUDNN_CHECK(sh_cudnn_lib.BackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX,
                                                    CUDNN_TYPE_INT64, 1, &n, &index),
                   SH_ERR_INTERNAL, "an engine's number");
    n_bytes = snprintf(out->text, sizeof(out->text), "e%lld", (long long)index);
    for (int i = 0; i < MAX_KNOBS; i++)
        SH_TRY(sh_cudnn_add(g, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knobs[i]));
    SH_CUDNN_CHECK(sh_cudnn_lib.BackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, MAX_KNOBS, &n,
                                                    knobs),
                   SH_ERR_INTERNAL, "an engine's knobs");
    SH_CHECK(n <= MAX_KNOBS, SH_ERR_INTERNAL, "cuDNN: an engine with %lld knobs", (long long)n);
    for (int64_t i = 0, one = 0; i < n; i++) {
        cudnnBackendKnobType_t type;
        int64_t value;
        SH_CUDNN_CHECK(sh_cudnn_lib.BackendGetAttribute(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE,
                                                        CUDNN_TYPE_KNOB_TYPE, 1, &one, &type),
                       SH_ERR_INTERNAL, "a knob");
        SH_CUDNN_CHECK(sh_cudnn_lib.BackendGetAttribute(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE,
                                                        CUDNN_TYPE_INT64, 1, &one, &value),
                       SH_ERR_INTERNAL, "a knob");
        n_bytes += snprintf(out->text + n_bytes, sizeof(out->text) - (size_t)n_bytes, " %d=%lld",
                            (int)type, (long long)value);
        SH_CHECK(n_bytes < (int64_t)sizeof(out->text), SH_ERR_INTERNAL, "cuDNN: a long choice");
    }
out:
    return st;
}

static bool is_among(const sh_cudnn_choice *choices, int n, const sh_cudnn_choice *one)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(choices[i].text, one->text) == 0) return true;
    }
    return false;
}

/** Append the choice that a configuration is, unless it is refused. */
static sh_status take_config(sh_cudnn_descriptor config, const sh_cudnn_conv *conv,
                             sh_cudnn_choice *out, int *n)
{
    sh_status st = SH_OK;
    sh_cudnn_graph g = {0};
    sh_cudnn_descriptor engine;
    int64_t one = 0;

    SH_TRY(sh_cudnn_add(&g, CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine));
    SH_CUDNN_CHECK(sh_cudnn_lib.BackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &one,
                                                    &engine),
                   SH_ERR_INTERNAL, "an engine");
    if (is_refused(engine, conv)) goto out;
    SH_TRY(write_choice(&g, config, engine, &out[*n]));
    *n += !is_among(out, *n, &out[*n]);
out:
    sh_cudnn_clear_graph(&g);
    return st;
}

/** What a heuristic proposes, up to *n = max. A graph that it knows nothing for is no failure. */
static sh_status ask(const sh_cudnn_graph *g, cudnnBackendHeurMode_t mode,
                     const sh_cudnn_conv *conv, int max, sh_cudnn_choice *out, int *n)
{
    sh_status st = SH_OK;
    sh_cudnn_graph own = {0};
    sh_cudnn_descriptor heuristic, *configs = calloc(MAX_CONFIGS, sizeof(*configs));
    int64_t n_configs = 0;
    int n_made = 0;
    const sh_cudnn_attribute table[] = {
        {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->operations},
        {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode},
        sh_cudnn_for_device(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP),
    };

    SH_CHECK(configs != NULL, SH_ERR_NO_MEMORY, "cuDNN's configurations");
    if (SH_CUDNN_BUILD(&own, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, "a heuristic", table,
                       &heuristic) != SH_OK) {
        sh_error_clear();
        goto out;
    }
    for (; n_made < MAX_CONFIGS; n_made++)
        SH_CUDNN_CHECK(sh_cudnn_lib.BackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
                                                            &configs[n_made]),
                       SH_ERR_INTERNAL, "a configuration");
    /* Where it has fewer than were asked for it may say that it failed; the count is right. */
    (void)sh_cudnn_lib.BackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                           CUDNN_TYPE_BACKEND_DESCRIPTOR, MAX_CONFIGS, &n_configs,
                                           configs);
    for (int64_t i = 0; i < n_configs && i < MAX_CONFIGS && *n < max; i++)
        SH_TRY(take_config(configs[i], conv, out, n));
out:
    for (int i = 0; i < n_made; i++) (void)sh_cudnn_lib.BackendDestroyDescriptor(configs[i]);
    free(configs);
    sh_cudnn_clear_graph(&own);
    return st;
}

static sh_status choices_of(const sh_cudnn_conv *conv, int max, sh_cudnn_choice *out, int *n)
{
    sh_status st = SH_OK;
    sh_cudnn_graph g = {0};
    sh_cudnn_choice *found = calloc((size_t)max + 1, sizeof(*found)); /* one to write into */

    SH_CHECK(found != NULL, SH_ERR_NO_MEMORY, "cuDNN's choices");
    SH_TRY(sh_cudnn_enter());
    SH_TRY(sh_cudnn_build_graph(conv, &g));
    *n = 0;
    SH_TRY(ask(&g, CUDNN_HEUR_MODE_A, conv, max, found, n));
    if (*n == 0) SH_TRY(ask(&g, CUDNN_HEUR_MODE_FALLBACK, conv, max, found, n));
    memcpy(out, found, (size_t)*n * sizeof(*out));
out:
    free(found);
    sh_cudnn_clear_graph(&g);
    return st;
}

/* ---- plans ---- */

static sh_status read_choice(sh_cudnn_graph *g, const sh_cudnn_conv *conv, const char *choice,
                             sh_cudnn_descriptor *config)
{
    sh_status st = SH_OK;
    sh_cudnn_descriptor engine, knobs[MAX_KNOBS];
    long long index, value;
    int type, n_chars = 0, n = 0;

    SH_CHECK(sscanf(choice, "e%lld%n", &index, &n_chars) == 1, SH_ERR_FORMAT,
             "\"%s\" is no choice of an engine of cuDNN", choice);
    const int64_t number = index;
    const sh_cudnn_attribute about[] = {
        {CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->operations},
        {CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &number},
        sh_cudnn_for_device(CUDNN_ATTR_ENGINE_DEVICEPROP),
    };
    SH_TRY(SH_CUDNN_BUILD(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR, "an engine", about, &engine));
    SH_CHECK(!is_refused(engine, conv), SH_ERR_UNSUPPORTED,
             "cuDNN's engine %lld does not repeat, or rounds more than the sum's order explains",
             index);
    for (const char *at = choice + n_chars; sscanf(at, " %d=%lld%n", &type, &value, &n_chars) == 2;
         at += n_chars) {
        const cudnnBackendKnobType_t knob = (cudnnBackendKnobType_t)type;
        const int64_t setting = value;
        const sh_cudnn_attribute table[] = {
            {CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &knob},
            {CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &setting},
        };
        SH_CHECK(n < MAX_KNOBS, SH_ERR_FORMAT, "\"%s\" has too many knobs", choice);
        SH_TRY(
            SH_CUDNN_BUILD(g, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, "a knob", table, &knobs[n++]));
    }
    const sh_cudnn_attribute table[] = {
        {CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine},
        {CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, n, n > 0 ? knobs : NULL},
    };
    SH_TRY(SH_CUDNN_BUILD(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, "a configuration", table, config));
out:
    return st;
}

static void release_plan(sh_cudnn_plan **plan)
{
    if (*plan == NULL) return;
    sh_cudnn_clear_graph(&(*plan)->operands);
    sh_cudnn_clear_graph(&(*plan)->g);
    free(*plan);
    *plan = NULL;
}

static sh_status plan_of(const sh_cudnn_conv *conv, const char *choice, sh_cudnn_plan **out)
{
    sh_status st = SH_OK;
    sh_cudnn_plan *p = calloc(1, sizeof(*p));
    sh_cudnn_descriptor config;
    int64_t n = 0;

    SH_CHECK(p != NULL, SH_ERR_NO_MEMORY, "a plan of cuDNN");
    SH_TRY(sh_cudnn_enter());
    SH_TRY(sh_cudnn_build_graph(conv, &p->g));
    SH_TRY(read_choice(&p->g, conv, choice, &config));
    const cudnnHandle_t handle = sh_cudnn_handle();
    const sh_cudnn_attribute table[] = {
        {CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, handle != NULL ? &handle : NULL},
        sh_cudnn_for_device(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP),
        {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config},
    };
    SH_TRY(
        SH_CUDNN_BUILD(&p->g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, "a plan", table, &p->plan));
    SH_CUDNN_CHECK(sh_cudnn_lib.BackendGetAttribute(p->plan,
                                                    CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                                    CUDNN_TYPE_INT64, 1, &n, &p->workspace_bytes),
                   SH_ERR_INTERNAL, "a plan's workspace");
    *out = p;
    p = NULL;
out:
    release_plan(&p);
    return st;
}

static size_t workspace_bytes(const sh_cudnn_plan *plan)
{
    return (size_t)plan->workspace_bytes;
}

static sh_status pack_operands(sh_cudnn_plan *plan, const sh_cudnn_operands *at)
{
    const int64_t uids[] = {SH_CUDNN_UID_X, SH_CUDNN_UID_W, SH_CUDNN_UID_Y};
    const void *const pointers[] = {at->x, at->w, at->y};
    const sh_cudnn_attribute table[] = {
        {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, SH_COUNT(uids), uids},
        {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, SH_COUNT(pointers), pointers},
        {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &at->workspace},
    };

    sh_cudnn_clear_graph(&plan->operands);
    plan->packed = *at;
    return SH_CUDNN_BUILD(&plan->operands, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, "operands", table,
                          &plan->pack);
}

static sh_status run(sh_cudnn_plan *plan, const sh_cudnn_operands *at)
{
    sh_status st = SH_OK;
    const sh_cudnn_operands *p = &plan->packed;

    if (plan->operands.n == 0 || p->x != at->x || p->w != at->w || p->y != at->y ||
        p->workspace != at->workspace)
        SH_TRY(pack_operands(plan, at));
    SH_CUDNN_CHECK(sh_cudnn_lib.BackendExecute(sh_cudnn_handle(), plan->plan, plan->pack),
                   SH_ERR_INTERNAL, "running a plan");
out:
    return st;
}

const sh_cudnn_api sh_cudnn_library = {.describe = sh_cudnn_describe,
                                       .examine = sh_cudnn_examine,
                                       .choices = choices_of,
                                       .plan = plan_of,
                                       .workspace_bytes = workspace_bytes,
                                       .run = run,
                                       .release = release_plan};
