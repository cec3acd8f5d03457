// SPDX-License-Identifier: Apache-2.0
/** A network of a reference file, built for evaluation and for training on one backend, with the
 *  file's weights. */
#ifndef SH_TESTS_MODELS_REF_NET_H
#define SH_TESTS_MODELS_REF_NET_H

#include "host_value.h"
#include "ref_file.h"
#include "usable.h"

#include "models/zoo/zoo.h"

typedef struct fixture {
    hid_t file;
    char salt[256];
    sh_net net; /* a copy: the reference has neither dropout nor stochastic depth */
    const sh_backend *backend;
    sh_store *store;
    sh_program *eval, *train;
    sh_value eval_x, eval_y, x, y, dy, dx;
    sh_buffer *arena, *reduce;
    int64_t dims[4];
    int n_classes;
} fixture;

static inline void write_rule(const fixture *f, sh_program *p, sh_value v, const char *name,
                              double scale)
{
    sh_tensor_desc d = sh_program_desc(p, v);
    int64_t n = d.dims[0] * d.dims[1] * d.dims[2] * d.dims[3];
    double *values = malloc((size_t)n * sizeof(*values));
    uint64_t hash = ref_hash(f->salt, name);

    assert_non_null(values);
    for (int64_t i = 0; i < n; i++) values[i] = scale * ref_unit(hash, (uint64_t)i);
    write_value(p, f->arena, v, values);
    free(values);
}

static inline sh_program *create_program(fixture *f, sh_dtype dtype, bool training)
{
    sh_program *p = NULL;
    const sh_program_config config = {.backend = f->backend,
                                      .store = f->store,
                                      .dtype = dtype,
                                      .training = training,
                                      .share = 1,
                                      .prefix = ""};

    assert_ok(sh_program_create(&config, &p));
    return p;
}

static inline void fill_store(fixture *f)
{
    for (int i = 0; i < sh_store_n_slots(f->store); i++) {
        const sh_slot *slot = sh_store_slot(f->store, i);
        float *values = malloc((size_t)slot->n_elems * sizeof(*values));

        assert_non_null(values);
        ref_fill(f->salt, slot->name, slot->n_dims, slot->dims, slot->n_elems, values);
        assert_ok(sh_store_write(f->store, i, values));
        free(values);
    }
}

static inline size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static inline void build(fixture *f, sh_dtype dtype)
{
    f->eval = create_program(f, dtype, false);
    f->eval_x = sh_program_input(f->eval, "input", f->dims);
    f->eval_y = sh_program_output(f->eval, "logits",
                                  sh_net_classifier(f->eval, &f->net, f->eval_x, f->n_classes));
    assert_ok(sh_program_plan(f->eval));

    f->train = create_program(f, dtype, true);
    f->x = sh_program_input(f->train, "input", f->dims);
    f->y = sh_program_output(f->train, "logits",
                             sh_net_classifier(f->train, &f->net, f->x, f->n_classes));
    assert_ok(sh_program_differentiate(f->train, f->y, f->x, &f->dy, &f->dx));
    assert_ok(sh_program_plan(f->train));
    assert_ok(sh_store_allocate(f->store));
    fill_store(f);

    int64_t n = sh_store_n_params(f->store) + sh_store_n_states(f->store);

    assert_ok(f->backend->alloc(
        larger(sh_program_arena_bytes(f->eval), sh_program_arena_bytes(f->train)), &f->arena));
    assert_ok(f->backend->alloc((size_t)n * sizeof(float), &f->reduce));
}

/** False where this build lacks the backend or there is no reference file. */
static inline bool open_fixture(fixture *f, const char *net, const char *backend, sh_dtype dtype)
{
    const sh_net *found = NULL;
    char path[4200];
    double numbers[4];
    int64_t n = 0;

    memset(f, 0, sizeof(*f));
    assert_ok(sh_net_find(net, &found));
    f->net = *found;
    f->net.dropout = f->net.path_drop = 0;
    f->backend = usable_backend(backend);
    if (f->backend == NULL || !ref_find(net, path)) return false;
    f->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(f->file >= 0);
    ref_read_text(f->file, "salt", f->salt);
    ref_read_attribute(f->file, "input_shape", 4, numbers);
    for (int i = 0; i < 4; i++) f->dims[i] = (int64_t)numbers[i];
    ref_read_attribute(f->file, "bn_eps", 1, numbers);
    assert_float_equal(numbers[0], f->net.bn_eps, 1e-9);
    ref_read_attribute(f->file, "bn_momentum", 1, numbers);
    assert_float_equal(numbers[0], f->net.bn_momentum, 1e-7);
    free(ref_read(f->file, "eval/logits", &n));
    f->n_classes = (int)(n / f->dims[0]);
    assert_ok(sh_store_create(f->backend, &f->store));
    build(f, dtype);
    return true;
}

static inline void close_fixture(fixture *f)
{
    if (f->backend != NULL) {
        f->backend->free(&f->arena);
        f->backend->free(&f->reduce);
    }
    sh_program_destroy(&f->eval);
    sh_program_destroy(&f->train);
    sh_store_destroy(&f->store);
    if (f->file > 0) H5Fclose(f->file);
}

#endif
