// SPDX-License-Identifier: Apache-2.0
/**
 * The parameter store: every named tensor of a network, in flat f32 arenas of the backend's memory.
 *
 *   params  [n_params]             master weights, slot after slot, each slot at a multiple of 16
 *   states  [n_states]             running statistics
 *   reduce  [n_params + n_states]  what a batch contributes: gradients, then statistic deltas
 *
 * A slot's offset in params is also its offset in reduce; a state's offset in reduce is
 * n_params + its offset in states. Gaps between slots are always zero. Several programs share one
 * store; slots are added while programs are built, in forward order, then sh_store_allocate.
 */
#ifndef SH_MODELS_STORE_H
#define SH_MODELS_STORE_H

#include "models/backend.h"

SH_C_BEGIN

typedef struct sh_store sh_store;

typedef enum sh_slot_kind { SH_SLOT_PARAM, SH_SLOT_STATE } sh_slot_kind;

typedef struct sh_slot {
    char name[160]; /* state-dict name of the public model: "features.0.0.weight" */
    sh_slot_kind kind;
    int n_dims;
    int64_t dims[4];
    int64_t n_elems;
    int64_t offset;  /* elements, within params or states */
    float momentum;  /* states: new = (1 - momentum) old + momentum delta */
    bool trainable;  /* params: has a gradient and is updated; a running_mean: its batch norm uses
                        batch statistics and updates running ones. Default true */
    bool decay;      /* params: subject to weight decay; false for BN and biases (one dimension) */
    float lr_scale;  /* params: factor of the learning rate. Default 1 */
    int64_t grid[2]; /* a position embedding's rows and columns of patches; 0, 0: it is none */
} sh_slot;

SH_MUST_CHECK sh_status sh_store_create(const sh_backend *backend, sh_store **out);
void sh_store_destroy(sh_store **store);

/** Add a slot, or find it: the same name with the same shape returns the same index; another shape
 *  is SH_ERR_MISMATCH. Only before sh_store_allocate. */
SH_MUST_CHECK sh_status sh_store_add(sh_store *store, const char *name, sh_slot_kind kind,
                                     int n_dims, const int64_t *dims, int *index);

/** Reserve the arenas, zeroed. Once. */
SH_MUST_CHECK sh_status sh_store_allocate(sh_store *store);

const sh_backend *sh_store_backend(const sh_store *store);
int sh_store_n_slots(const sh_store *store);
const sh_slot *sh_store_slot(const sh_store *store, int index);
sh_slot *sh_store_slot_mutable(sh_store *store,
                               int index); /* trainable, decay, momentum, lr_scale, grid only */
int sh_store_find(const sh_store *store, const char *name); /* index, or -1 */
int64_t sh_store_n_params(const sh_store *store); /* elements of the params arena, padded */
int64_t sh_store_n_states(const sh_store *store);

sh_buffer *sh_store_params(sh_store *store);
sh_buffer *sh_store_states(sh_store *store);

/** Copy one slot from or to host memory, f32 [n_elems], row-major. */
SH_MUST_CHECK sh_status sh_store_write(sh_store *store, int index, const float *host);
SH_MUST_CHECK sh_status sh_store_read(sh_store *store, int index, float *host);

/** Initial weights, keyed by (seed, slot name): convolutions and linear layers Kaiming normal
 *  (fan out for conv, N(0, 0.01) for linear as torchvision's MobileNetV2), tokens and positions
 *  (three dimensions) N(0, 0.02), BN weight 1, layer scale (.gamma) 1e-5, the power of a
 *  generalised mean (.p) 3, other one-dimensional 0, running_mean 0, running_var 1. */
SH_MUST_CHECK sh_status sh_store_init(sh_store *store, uint64_t seed);

SH_C_END

#endif
