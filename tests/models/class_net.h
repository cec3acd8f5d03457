// SPDX-License-Identifier: Apache-2.0
/** Embeddings, a class head and its loss, as one program on one backend. */
#ifndef SH_TESTS_MODELS_CLASS_NET_H
#define SH_TESTS_MODELS_CLASS_NET_H

#include "models/class_step.h"
#include "models/host_value.h"

typedef struct class_result {
    sh_class_stats stats;
    double *grad;       /* [n, dim] of the embeddings */
    float *grad_weight; /* [columns, dim] */
} class_result;

static inline void class_free(class_result *r)
{
    free(r->grad);
    free(r->grad_weight);
}

/** Loss and gradients of x [n, dim] under weight [columns, dim], rows shared out to n_ranks. */
static inline class_result class_run(const char *backend_name, const sh_class_config *config,
                                     const float *class_weights, const int32_t *class_fish,
                                     const double *x, int64_t n, int64_t dim, const int32_t *labels,
                                     const float *weight, int n_ranks)
{
    const sh_backend *backend = NULL;
    sh_store *store = NULL;
    sh_program *p = NULL;
    sh_buffer *arena = NULL, *reduce = NULL;
    sh_value dy, dx;
    class_result r = {0};
    int64_t columns = sh_class_columns(config);
    float *logits = malloc((size_t)(n * columns) * sizeof(float));

    assert_ok(sh_backend_find(backend_name, &backend));
    assert_ok(sh_store_create(backend, &store));
    assert_ok(sh_program_create(
        &(sh_program_config){
            .backend = backend, .store = store, .training = true, .share = 1, .prefix = ""},
        &p));
    sh_value in = sh_program_input(p, "x", (int64_t[4]){n, dim, 1, 1});
    sh_value y = sh_program_output(p, "logits",
                                   sh_class_head(p, sh_op_flatten(p, in), "loss.weight", config));

    assert_ok(sh_program_differentiate(p, y, in, &dy, &dx));
    assert_ok(sh_program_plan(p));
    assert_ok(sh_store_allocate(store));
    assert_ok(sh_store_write(store, sh_store_find(store, "loss.weight"), weight));
    assert_ok(backend->alloc(sh_program_arena_bytes(p), &arena));
    assert_ok(backend->alloc((size_t)sh_store_n_params(store) * sizeof(float), &reduce));
    sh_run_args args = {.arena = arena, .reduce = reduce};

    write_value(p, arena, in, x);
    assert_ok(sh_program_run(p, SH_PHASE_FORWARD, &args));
    assert_ok(sh_program_read(p, arena, y, logits));
    class_outcome o = run_class_step(backend,
                                     &(class_inputs){.config = *config,
                                                     .weights = class_weights,
                                                     .fish = class_fish,
                                                     .labels = labels,
                                                     .logits = logits,
                                                     .n = n,
                                                     .weight = 1},
                                     n_ranks);

    r.stats = o.stats;
    assert_ok(sh_program_write(p, arena, dy, o.grad));
    assert_ok(sh_program_run(p, SH_PHASE_BACKWARD, &args));
    r.grad = read_value(p, arena, dx);
    r.grad_weight = malloc((size_t)(columns * dim) * sizeof(float));
    assert_ok(backend->copy_out(reduce, 0, r.grad_weight, (size_t)(columns * dim) * sizeof(float)));
    class_outcome_free(&o);
    backend->free(&arena);
    backend->free(&reduce);
    sh_program_destroy(&p);
    sh_store_destroy(&store);
    free(logits);
    return r;
}

#endif
