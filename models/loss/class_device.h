// SPDX-License-Identifier: Apache-2.0
/** A classification in a backend's memory: what models/loss/classes.c hands over to it. */
#ifndef SH_MODELS_LOSS_CLASS_DEVICE_H
#define SH_MODELS_LOSS_CLASS_DEVICE_H

#include "models/loss/class_kernels.h"

SH_C_BEGIN

typedef struct sh_class_device sh_class_device;

/** Arguments as sh_class_loss_create has them, checked. The caller owns *out; config must outlive
 *  it. */
SH_MUST_CHECK sh_status sh_class_device_create(const sh_class_config *config,
                                               const sh_backend *backend,
                                               const float *class_weights,
                                               const int32_t *class_fish, int64_t n_max,
                                               sh_class_device **out);
void sh_class_device_destroy(sh_class_device **device);

/** sh_class_loss_begin, _choose and _apply of a batch that is checked. */
SH_MUST_CHECK sh_status sh_class_device_begin(sh_class_device *device, const int32_t *labels,
                                              int64_t n);
SH_MUST_CHECK sh_status sh_class_device_choose(sh_class_device *device, const float *logits,
                                               int64_t row_begin, int64_t row_end,
                                               sh_class_row *rows);
SH_MUST_CHECK sh_status sh_class_device_apply(sh_class_device *device, const sh_class_row *rows,
                                              const float *logits, int64_t row_begin,
                                              int64_t row_end, float weight, sh_class_stats *stats,
                                              float *grad);

SH_C_END

#endif
