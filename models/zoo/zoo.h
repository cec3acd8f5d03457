// SPDX-License-Identifier: Apache-2.0
/** The networks, each described once, by its public name. */
#ifndef SH_MODELS_ZOO_H
#define SH_MODELS_ZOO_H

#include "models/program.h"

SH_C_BEGIN

typedef struct sh_net {
    const char *name;          /* "mobilenet_v2" */
    const char *title;         /* one line for --help */
    int in_channels;           /* 3, or 1 for grey */
    int default_size;          /* height and width that its authors used */
    float mean[3], std[3];     /* input = (pixel / 255 - mean) / std */
    float dropout;             /* before the classifier */
    int n_features;            /* channels after the trunk's pooling */
    float bn_eps, bn_momentum; /* PyTorch sense: new = (1 - momentum) old + momentum batch */

    /** Image to pooled features [N, n_features, 1, 1], or to the final output for a net that has
     *  no separate head (siamese_orl). */
    sh_value (*trunk)(sh_program *p, sh_value image);
    const char *classifier; /* the linear classifier: "classifier.1", "_fc"; NULL if none */
} sh_net;

/** Find a network; an unknown name is SH_ERR_USAGE listing the known ones. */
SH_MUST_CHECK sh_status sh_net_find(const char *name, const sh_net **out);

/** All networks, NULL-terminated. */
const sh_net *const *sh_net_list(void);

/** The whole public network: trunk, dropout, classifier. Output [N, n_classes], or the trunk's own
 *  where the network has no classifier. */
sh_value sh_net_classifier(sh_program *p, const sh_net *net, sh_value image, int n_classes);

/** Trunk and identification head: dropout, linear `head.weight`/`head.bias` to `dim`, and L2
 *  normalisation where `normalize`. dim = 0 keeps the trunk's features. */
sh_value sh_net_embedding(sh_program *p, const sh_net *net, sh_value image, int dim, float dropout,
                          bool normalize);

SH_C_END

#endif
