// SPDX-License-Identifier: Apache-2.0
/** Which network a weight file belongs to, judged by names and shapes alone. */
#ifndef SH_MODELS_WEIGHTS_RECOGNISE_H
#define SH_MODELS_WEIGHTS_RECOGNISE_H

#include "models/weights/weights.h"
#include "models/zoo/zoo.h"

SH_C_BEGIN

typedef struct sh_recognised {
    const sh_net *net;
    const char *names_of; /* the package whose names the file had: "Keras"; "" for our own */
    const char *note;     /* what else differs there; "" if nothing is known to */
    int n_classes;        /* of the classifier in the file; 0: it has none */
    int n_tensors;        /* that belong to the network */
    char others[256];     /* networks of the same names and shapes, which only differ in constants:
                             "tf_efficientnet_b0" */
    char extra[1024];     /* what is in the file besides, not counting counters; "" if nothing */
} sh_recognised;

/**
 * Find the network of a set, or check the set against the network named `net` (NULL: any), and
 * rename its tensors to ours.
 *
 * Every tensor before the classifier must be there; a classifier of any number of classes, or none,
 * is fine. Otherwise SH_ERR_MISMATCH lists what is missing or of another shape for the network that
 * comes nearest, and how to name one.
 */
SH_MUST_CHECK sh_status sh_weights_recognise(sh_weights *weights, const char *net,
                                             sh_recognised *out);

/** The slots of a whole public network, without memory for them. The caller owns *out. */
SH_MUST_CHECK sh_status sh_weights_slots_of(const sh_net *net, int n_classes, sh_store **out);

SH_C_END

#endif
