// SPDX-License-Identifier: Apache-2.0
/**
 * Losses of classification in the memory of a backend that the host's loops cannot reach: what such
 * a backend brings (sh_backend.classes). models/loss/class_device.c calls it.
 *
 * The operations are those of the host's loops, in their order (models/loss/classes.c). Pointers
 * are the backend's; work is queued in order with its kernels.
 */
#ifndef SH_MODELS_LOSS_CLASS_KERNELS_H
#define SH_MODELS_LOSS_CLASS_KERNELS_H

#include "models/loss/classes.h"

SH_C_BEGIN

typedef struct sh_class_batch {
    const sh_class_config *config; /* the host's */
    const float *weights;          /* [n_classes], or NULL: all 1 */
    const int32_t *fish;           /* [n_classes], or NULL: all differ */
    const int32_t *labels;         /* [n] below n_classes; negative: the row has none */
    int64_t n;
    void *scratch; /* scratch_bytes for at least n rows */
} sh_class_batch;

/* Calls queue kernels and do nothing else, so that they can be recorded. */
typedef struct sh_class_kernels {
    /** For batches of up to n rows. */
    size_t (*scratch_bytes)(int64_t n);

    /** What the rows row_begin .. row_end - 1 cost: logits [row_end - row_begin, columns], rows
     *  [row_end - row_begin]. */
    sh_status (*choose)(const sh_class_batch *batch, const float *logits, int64_t row_begin,
                        int64_t row_end, sh_class_row *rows);

    /** From all n rows: their stats, and the gradient of the own logits, multiplied by `weight`,
     *  grad [row_end - row_begin, columns] (NULL: stats only). */
    sh_status (*apply)(const sh_class_batch *batch, const sh_class_row *rows, const float *logits,
                       int64_t row_begin, int64_t row_end, float weight, sh_class_stats *stats,
                       float *grad);
} sh_class_kernels;

SH_C_END

#endif
