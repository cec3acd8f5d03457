// SPDX-License-Identifier: Apache-2.0
/** The classes of a classification: the individuals, or their sides, of the training part. */
#ifndef SH_TRAINER_CLASSES_H
#define SH_TRAINER_CLASSES_H

#include "dataio/sampler.h"
#include "models/loss/classes.h"
#include "models/store.h"

/** RUN/classes.csv: label, individual, side (empty where sides are no classes), crops; a line per
 *  class, in the order of the labels. Labels follow from the split and the data alone. */
SH_MUST_CHECK sh_status sh_classes_write(const sh_sampler *sampler, const sh_dataset *dataset,
                                         const char *path);

/** Weights [n_classes] such that in the mean over all crops each class counts as much: crops /
 *  (classes * crops of the class). *out is malloc'd, the caller frees. */
SH_MUST_CHECK sh_status sh_classes_balance(const sh_sampler *sampler, float **out);

/** The fish that each class is of, [n_classes]. *out is malloc'd, the caller frees. */
SH_MUST_CHECK sh_status sh_classes_fish(const sh_sampler *sampler, int32_t **out);

/** How well the classes that `store` has learnt (`loss.weight`) name the crops[n] of trained fish:
 *  the share of right answers, averaged within each fish, then over the fish. NaN where no crop is
 *  of a trained fish.
 *
 *  embeddings  [n, dim] as the run gives them */
SH_MUST_CHECK sh_status sh_classes_accuracy(const sh_sampler *sampler, const sh_dataset *dataset,
                                            const sh_class_config *classes, sh_store *store,
                                            const int64_t *crops, int64_t n,
                                            const float *embeddings, int64_t dim, double *accuracy);

#endif
