// SPDX-License-Identifier: Apache-2.0
/**
 * Losses of classification over the global batch: cross-entropy, ArcFace, sub-centre ArcFace.
 *
 * The class weights are a parameter of the program (sh_class_head), so their gradient is summed
 * over shards and ranks as every other. The loss works on rows of logits, which stay on the rank
 * that computed them:
 *
 *   begin    which classes the rows are of
 *   choose   for the owned rows: what each costs and whether its class was found
 *   gather   these rows of all ranks (the caller, through comm)
 *   apply    loss of the whole batch, and the gradient of the owned logits
 *
 * The bytes of loss and gradient depend neither on the number of ranks nor of threads.
 *
 * With z the scaled logits of a row, p = softmax(z), y its label and w the class weights,
 *
 *   cost = -(1 - e) w_y log p_y - e / C sum_c w_c log p_c,  e the smoothing
 *   loss = sum over rows of cost / sum over rows of w_y
 *
 * which is PyTorch's CrossEntropyLoss. ArcFace (Deng et al. 2019) takes cosines and has
 * z_c = scale cos t_c, but for the row's own class z_y = scale cos(t_y + margin); beyond
 * t_y = pi - margin, where that would rise again, scale (cos t_y - margin sin margin), as
 * pytorch-metric-learning has it. With several centres to a class (Deng et al. 2020) its cosine is
 * the largest of theirs, the first of equals.
 *
 * Where: in host memory, or in that of a backend with kernels for it (class_kernels.h), so that
 * logits and their gradients need not leave it. Logits, gathered rows, stats and gradients are in
 * the one or the other; labels in the host's always. In a backend's memory nothing here waits for
 * it, and choose and apply do nothing but launch kernels, the same for all batches of one size.
 *
 * Where the sides of a fish are classes of their own, a row is never held against the other side of
 * its fish: that class is left out of the row's softmax, and of C.
 */
#ifndef SH_MODELS_LOSS_CLASSES_H
#define SH_MODELS_LOSS_CLASSES_H

#include "models/program.h"

SH_C_BEGIN

typedef enum sh_class_kind {
    SH_CLASS_NONE, /* there is no classification */
    SH_CLASS_CROSS_ENTROPY,
    SH_CLASS_ARCFACE,
} sh_class_kind;

typedef struct sh_class_config {
    sh_class_kind kind;
    int64_t n_classes;
    int64_t n_centres; /* of each class; above 1 with ArcFace only */
    float scale;       /* ArcFace */
    float margin;      /* ArcFace, radians, from 0 to pi / 2 */
    float smoothing;
} sh_class_config;

/** Columns of a row of logits: n_classes * n_centres, the centres of a class side by side. */
int64_t sh_class_columns(const sh_class_config *config);

/** Logits [N, columns, 1, 1], f32, of features [N, D, 1, 1]: their products with the rows of
 *  parameter `name` [columns, D], or the cosines between both (ArcFace). */
sh_value sh_class_head(sh_program *p, sh_value features, const char *name,
                       const sh_class_config *config);

typedef struct sh_class_stats {
    double loss;
    int64_t n_rows;    /* rows with a label */
    int64_t n_correct; /* of these, with the largest logit (cosine) at their own class */
} sh_class_stats;

/** What a row contributes; gathered. */
typedef struct sh_class_row {
    double cost;
    int64_t is_correct; /* 0 or 1; 64 bits, so that there is no padding to compare */
} sh_class_row;

typedef struct sh_class_loss sh_class_loss;

/** The backend in whose memory classifications work when `backend` (NULL: none) runs the network:
 *  `backend`, or NULL for the host's memory, where it has no kernels for them. */
const sh_backend *sh_class_loss_memory(const sh_backend *backend);

/** In the memory that sh_class_loss_memory says. class_weights and class_fish [n_classes], the
 * individual that each class is of, in host memory, are copied; NULL: all weights 1, every class of
 * another fish. The caller owns *out. */
SH_MUST_CHECK sh_status sh_class_loss_create(const sh_class_config *config,
                                             const sh_backend *backend, const float *class_weights,
                                             const int32_t *class_fish, int64_t n_max,
                                             sh_class_loss **out);
void sh_class_loss_destroy(sh_class_loss **loss);

/**
 * Here are the rows of the next batch; their logits may still be missing. Where the loss works in a
 * backend's memory, labels are sent there without waiting: the backend has been waited for since
 * the batch before began, as whoever read its stats has.
 *
 * labels  [n] of the whole batch, from 0; negative: the row has none and costs nothing. A label
 *         beyond n_classes is SH_ERR_MISMATCH. They stay as they are until the next begin
 */
SH_MUST_CHECK sh_status sh_class_loss_begin(sh_class_loss *loss, const int32_t *labels, int64_t n);

/** What the rows row_begin .. row_end - 1 of the batch that has begun cost, from their logits
 *  [row_end - row_begin, columns], into rows [row_end - row_begin]. */
SH_MUST_CHECK sh_status sh_class_loss_choose(sh_class_loss *loss, const float *logits,
                                             int64_t row_begin, int64_t row_end,
                                             sh_class_row *rows);

/** From all rows of the batch: its stats, the same on every rank, and the gradient of the owned
 *  logits, multiplied by `weight` as the stats are not, grad [row_end - row_begin, columns] (NULL:
 *  stats only). Without a label in the whole batch loss and gradient are 0. */
SH_MUST_CHECK sh_status sh_class_loss_apply(sh_class_loss *loss, const sh_class_row *rows,
                                            const float *logits, int64_t row_begin, int64_t row_end,
                                            float weight, sh_class_stats *stats, float *grad);

SH_C_END

#endif
