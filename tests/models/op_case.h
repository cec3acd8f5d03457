// SPDX-License-Identifier: Apache-2.0
/** One op on one backend: operands with known contents, run through a given kernel. */
#ifndef TESTS_MODELS_OP_CASE_H
#define TESTS_MODELS_OP_CASE_H

#include <stdbool.h>
#include <stdlib.h>

#include "base/rng.h"
#include "models/backend.h"

enum { MAX_IN = 16, MAX_OUT = 8 };

/** What an operand is, which decides its layout and its values. */
typedef enum role {
    ABSENT,
    IMAGE,      /* activation that is a network's input */
    ACTIVATION, /* normal values */
    CLAMPED,    /* activation as ReLU6 leaves it: many exact 0 and 6 */
    PARAM,      /* f32: normal values */
    WEIGHT,     /* f32, but of values that bf16 holds where the case is bf16: kernels may round */
    VARIANCE,   /* f32: positive */
    MATRIX,     /* row-major, the case's dtype */
    MATRIX_F32,
} role;

typedef struct operand {
    role role;
    int64_t dims[4];
} operand;

typedef struct op_case {
    sh_op op;
    sh_op_attrs attrs;
    operand in[MAX_IN], out[MAX_OUT];
    int n_in, n_out;
    sh_dtype dtype;
} op_case;

/** Logical contents, f32 NCHW. */
typedef struct op_result {
    float *out[MAX_OUT]; /* malloc'd; NULL where absent */
    bool padding_is_zero;
    bool repeats;         /* a second run gave the same bytes */
    bool in_place_agrees; /* so did output 0 on top of input 0, where the op allows it */
} op_result;

static inline int64_t operand_elems(const operand *o)
{
    return o->dims[0] * o->dims[1] * o->dims[2] * o->dims[3];
}

static inline sh_tensor_desc operand_desc(const op_case *c, const operand *o,
                                          const sh_backend *backend, bool plain)
{
    sh_tensor_desc d = {.dtype = c->dtype, .layout = SH_NCHW};

    memcpy(d.dims, o->dims, sizeof(d.dims));
    if (o->role >= PARAM && o->role != MATRIX) d.dtype = SH_F32;
    if (!plain && (o->role == IMAGE || o->role == ACTIVATION || o->role == CLAMPED)) {
        d.layout = backend->layout_of(d.dtype, d.dims, o->role == IMAGE);
    }
    return d;
}

/** Normal variable i of input k. Kept, since thousands of cases ask for the same ones. */
static inline double operand_normal(int k, int64_t i)
{
    static struct {
        double *values;
        int64_t n;
    } drawn[MAX_IN];
    double *values = drawn[k].values;

    if (i >= drawn[k].n) {
        int64_t n = 2 * i + 1024;
        drawn[k].values = values = realloc(values, (size_t)n * sizeof(*values));
        assert_non_null(values);
        for (int64_t j = drawn[k].n; j < n; j++)
            values[j] = sh_rng_normal(sh_rng_make(17, SH_RNG_TEST, (uint64_t)k, 0), (uint64_t)j);
        drawn[k].n = n;
    }
    return values[i];
}

/** Element i of input k: the same for every backend, and representable in the operand's dtype. */
static inline float operand_value(const op_case *c, int k, int64_t i)
{
    const operand *o = &c->in[k];
    double x = operand_normal(k, i);

    if (o->role == VARIANCE) return (float)(0.3 + x * x);
    if (o->role == CLAMPED) x = 3 + 4 * x < 0 ? 0 : 3 + 4 * x > 6 ? 6 : 3 + 4 * x;
    if (o->role == PARAM || o->role == MATRIX_F32 || c->dtype == SH_F32) return (float)x;
    return sh_bf16_to_f32(sh_bf16_from_f32((float)x));
}

/** Logical f32 NCHW to or from stored bytes. Returns whether stored padding was zero. */
static inline bool transfer(const sh_tensor_desc *d, float *dense, void *stored, bool is_store)
{
    bool is_zero = true;

    if (is_store) memset(stored, 0, sh_tensor_bytes(d));
    for (int64_t n = 0; n < d->dims[0]; n++) {
        for (int64_t c = 0; c < sh_tensor_stored_channels(d); c++) {
            for (int64_t p = 0; p < d->dims[2] * d->dims[3]; p++) {
                int64_t at = sh_tensor_offset(d, n, c, p / d->dims[3], p % d->dims[3]);
                int64_t i = (n * d->dims[1] + c) * d->dims[2] * d->dims[3] + p;
                uint16_t *half = (uint16_t *)stored + at;
                float *full = (float *)stored + at;
                bool is_half = d->dtype == SH_BF16;
                if (c >= d->dims[1]) {
                    is_zero = is_zero && (is_half ? *half == 0 : *full == 0);
                } else if (is_store) {
                    if (is_half)
                        *half = sh_bf16_from_f32(dense[i]);
                    else
                        *full = dense[i];
                } else {
                    dense[i] = is_half ? sh_bf16_to_f32(*half) : *full;
                }
            }
        }
    }
    return is_zero;
}

/** Operands in a backend's memory. */
typedef struct op_run {
    const op_case *c;
    const sh_backend *backend;
    sh_tensor_desc desc[MAX_IN + MAX_OUT];
    const sh_tensor_desc *in_desc[MAX_IN], *out_desc[MAX_OUT];
    sh_buffer *buffer[MAX_IN + MAX_OUT], *scratch, *packed, *scalars;
    sh_node_desc node;
} op_run;

static inline sh_status op_run_load(op_run *r)
{
    sh_status st = SH_OK;
    float *dense = NULL;
    void *stored = NULL;

    for (int k = 0; k < r->c->n_in; k++) {
        if (r->in_desc[k] == NULL) continue;
        int64_t n = operand_elems(&r->c->in[k]);
        dense = malloc((size_t)n * sizeof(float));
        stored = malloc(sh_tensor_bytes(r->in_desc[k]));
        for (int64_t i = 0; i < n; i++) dense[i] = operand_value(r->c, k, i);
        transfer(r->in_desc[k], dense, stored, true);
        SH_TRY(r->backend->copy_in(r->buffer[k], 0, stored, sh_tensor_bytes(r->in_desc[k])));
        free(dense);
        free(stored);
        dense = stored = NULL;
    }
out:
    free(dense);
    free(stored);
    return st;
}

static inline sh_status op_run_open(const op_case *c, const sh_backend *backend, bool plain,
                                    op_run *r)
{
    sh_status st = SH_OK;
    static const sh_run_scalars scalars = {.seed = 5, .step = 3, .first_slot = 11};

    *r = (op_run){.c = c, .backend = backend};
    for (int k = 0; k < c->n_in + c->n_out; k++) {
        bool is_in = k < c->n_in;
        const operand *o = is_in ? &c->in[k] : &c->out[k - c->n_in];
        if (o->role == ABSENT) continue;
        r->desc[k] = operand_desc(c, o, backend, plain);
        if (is_in)
            r->in_desc[k] = &r->desc[k];
        else
            r->out_desc[k - c->n_in] = &r->desc[k];
        SH_TRY(backend->alloc(sh_tensor_bytes(&r->desc[k]), &r->buffer[k]));
    }
    r->node = (sh_node_desc){.op = c->op,
                             .attrs = &r->c->attrs,
                             .n_inputs = c->n_in,
                             .n_outputs = c->n_out,
                             .in = r->in_desc,
                             .out = r->out_desc};
    SH_TRY(op_run_load(r));
    SH_TRY(backend->alloc(sizeof(scalars), &r->scalars));
    SH_TRY(backend->copy_in(r->scalars, 0, &scalars, sizeof(scalars)));
out:
    return st;
}

static inline void op_run_close(op_run *r)
{
    for (int k = 0; k < MAX_IN + MAX_OUT; k++) r->backend->free(&r->buffer[k]);
    r->backend->free(&r->scratch);
    r->backend->free(&r->packed);
    r->backend->free(&r->scalars);
}

/** Pack the weights where the kernel does that. Afterwards those of forward ops are spoilt: no run
 *  may read them. */
static inline sh_status op_run_pack(op_run *r, const sh_kernel *kernel, void *state)
{
    sh_status st = SH_OK;
    const void *in[MAX_IN] = {NULL};
    void *out[MAX_OUT] = {NULL};
    size_t n_bytes = kernel->packed_bytes == NULL ? 0 : kernel->packed_bytes(state);
    void *junk = NULL;

    if (n_bytes == 0) goto out;
    SH_TRY(r->backend->alloc(n_bytes, &r->packed));
    for (int k = 0; k < r->c->n_in; k++)
        if (r->in_desc[k] != NULL) in[k] = r->backend->device_ptr(r->buffer[k], 0);
    const sh_kernel_args args = {
        .in = in,
        .out = out,
        .scratch = r->scratch == NULL ? NULL : r->backend->device_ptr(r->scratch, 0),
        .packed = r->backend->device_ptr(r->packed, 0)};
    if (r->backend->enter != NULL) r->backend->enter();
    st = kernel->pack(&r->node, state, &args);
    if (r->backend->leave != NULL) r->backend->leave();
    if (r->c->op != SH_OP_CONV && r->c->op != SH_OP_LINEAR) goto out;
    n_bytes = sh_tensor_bytes(r->in_desc[SH_CONV_W]);
    junk = malloc(n_bytes);
    memset(junk, 0xFF, n_bytes);
    SH_TRY(r->backend->copy_in(r->buffer[SH_CONV_W], 0, junk, n_bytes));
out:
    free(junk);
    return st;
}

/** Run once; outputs beforehand hold what no kernel may leave or read: NaN, also in padding. */
static inline sh_status op_run_once(op_run *r, const sh_kernel *kernel, void *state, bool in_place)
{
    sh_status st = SH_OK;
    const void *in[MAX_IN] = {NULL};
    void *out[MAX_OUT] = {NULL};
    void *junk = NULL;

    for (int k = 0; k < r->c->n_in; k++) {
        if (r->in_desc[k] != NULL) in[k] = r->backend->device_ptr(r->buffer[k], 0);
    }
    for (int k = 0; k < r->c->n_out; k++) {
        if (r->out_desc[k] == NULL) continue;
        size_t n_bytes = sh_tensor_bytes(r->out_desc[k]);
        junk = malloc(n_bytes);
        memset(junk, 0xFF, n_bytes);
        SH_TRY(r->backend->copy_in(r->buffer[r->c->n_in + k], 0, junk, n_bytes));
        free(junk);
        junk = NULL;
        out[k] = r->backend->device_ptr(r->buffer[r->c->n_in + k], 0);
    }
    if (in_place) out[0] = r->backend->device_ptr(r->buffer[0], 0);
    const sh_kernel_args args = {
        .in = in,
        .out = out,
        .scratch = r->scratch == NULL ? NULL : r->backend->device_ptr(r->scratch, 0),
        .packed = r->packed == NULL ? NULL : r->backend->device_ptr(r->packed, 0),
        .scalars = r->backend->device_ptr(r->scalars, 0)};
    if (r->backend->enter != NULL) r->backend->enter();
    st = kernel->run(&r->node, state, &args);
    if (r->backend->leave != NULL) r->backend->leave();
out:
    free(junk);
    return st;
}

/** Output k as logical f32; from input 0's memory when it was computed in place. */
static inline sh_status op_run_read(op_run *r, int k, bool in_place, float **out, bool *is_zero)
{
    sh_status st = SH_OK;
    const sh_tensor_desc *d = r->out_desc[k];
    void *stored = malloc(sh_tensor_bytes(d));
    float *dense = malloc((size_t)operand_elems(&r->c->out[k]) * sizeof(float));

    SH_TRY(r->backend->copy_out(r->buffer[in_place ? 0 : r->c->n_in + k], 0, stored,
                                sh_tensor_bytes(d)));
    *is_zero = transfer(d, dense, stored, false);
    *out = dense;
    dense = NULL;
out:
    free(dense);
    free(stored);
    return st;
}

static inline void op_result_clear(op_result *result)
{
    for (int k = 0; k < MAX_OUT; k++) free(result->out[k]);
    memset(result, 0, sizeof(*result));
}

/** Compare a repeated run with the first. */
static inline sh_status op_run_again(op_run *r, const sh_kernel *kernel, void *state, bool in_place,
                                     const op_result *first, bool *agrees)
{
    sh_status st = SH_OK;
    float *again = NULL;
    bool is_zero = true;

    SH_TRY(op_run_once(r, kernel, state, in_place));
    for (int k = 0; k < r->c->n_out; k++) {
        if (r->out_desc[k] == NULL) continue;
        SH_TRY(op_run_read(r, k, in_place && k == 0, &again, &is_zero));
        size_t n_bytes = (size_t)operand_elems(&r->c->out[k]) * sizeof(float);
        *agrees = *agrees && is_zero && memcmp(again, first->out[k], n_bytes) == 0;
        free(again);
        again = NULL;
    }
out:
    free(again);
    return st;
}

/** Run a kernel (the caller asked why_not) and read everything back. */
static inline sh_status op_case_run(const op_case *c, const sh_backend *backend,
                                    const sh_kernel *kernel, bool plain, bool try_in_place,
                                    op_result *result)
{
    sh_status st = SH_OK;
    op_run r = {.backend = backend};
    void *state = NULL;
    size_t scratch_bytes = 0;

    *result = (op_result){.padding_is_zero = true, .repeats = true, .in_place_agrees = true};
    SH_TRY(op_run_open(c, backend, plain, &r));
    if (kernel->prepare != NULL) SH_TRY(kernel->prepare(&r.node, &state, &scratch_bytes));
    if (scratch_bytes > 0) SH_TRY(backend->alloc(scratch_bytes, &r.scratch));
    SH_TRY(op_run_pack(&r, kernel, state));
    SH_TRY(op_run_once(&r, kernel, state, false));
    for (int k = 0; k < c->n_out; k++) {
        bool is_zero = true;
        if (r.out_desc[k] == NULL) continue;
        SH_TRY(op_run_read(&r, k, false, &result->out[k], &is_zero));
        result->padding_is_zero = result->padding_is_zero && is_zero;
    }
    SH_TRY(op_run_again(&r, kernel, state, false, result, &result->repeats));
    if (try_in_place) {
        SH_TRY(op_run_again(&r, kernel, state, true, result, &result->in_place_agrees));
    }
out:
    if (kernel->release != NULL) kernel->release(state);
    op_run_close(&r);
    return st;
}

/** Does the backend's kernel accept the case in the backend's layouts? NULL: yes. */
static inline const char *op_case_why_not(const op_case *c, const sh_backend *backend,
                                          const sh_kernel *kernel, bool plain)
{
    op_run r;
    const char *reason = "no memory";

    if (op_run_open(c, backend, plain, &r) == SH_OK) reason = kernel->why_not(&r.node);
    op_run_close(&r);
    return reason;
}

/** Sum of squared differences over sum of squares of the reference. */
static inline double nmse(const float *x, const float *ref, int64_t n)
{
    double error = 0, power = 0;

    for (int64_t i = 0; i < n; i++) {
        error += ((double)x[i] - ref[i]) * ((double)x[i] - ref[i]);
        power += (double)ref[i] * ref[i];
    }
    return power > 0 ? error / power : error;
}

#endif
