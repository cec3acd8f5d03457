// SPDX-License-Identifier: Apache-2.0
/**
 * The networks, each described once, by its public name; cut at a named tap and given a head.
 *
 * A tap is a place in a network where it can end: "features.7", "layer3", "Mixed_6b", the public
 * name of the stage whose output is there, or the name that Keras has for it. Nothing behind the
 * tap enters the program or the store.
 */
#ifndef SH_MODELS_ZOO_H
#define SH_MODELS_ZOO_H

#include "models/program.h"

SH_C_BEGIN

typedef struct sh_trunk sh_trunk; /* a network being built: models/zoo/nets.h */

/** Another public name of a tap. */
typedef struct sh_tap_alias {
    const char *alias, *tap;
} sh_tap_alias;

typedef struct sh_net {
    const char *name;          /* "mobilenet_v2" */
    const char *title;         /* one line for --help */
    int in_channels;           /* 3, or 1 for grey */
    int default_size;          /* height and width that its authors used */
    float mean[3], std[3];     /* input = (pixel / 255 - mean) / std */
    float dropout;             /* before the classifier */
    float path_drop;           /* stochastic depth of the last block; 0: none */
    int n_features;            /* channels after the network's own pooling */
    float bn_eps, bn_momentum; /* PyTorch sense: new = (1 - momentum) old + momentum batch */

    const void *plan; /* what tells it from others of its family, for `features`; NULL: nothing */

    /** Image to the last feature map [N,C,H,W] (or tokens [N,C,T,1]), or to the tap on the way. */
    sh_value (*features)(sh_trunk *t, sh_value image);
    /** The last feature map to the network's own features [N, n_features, 1, 1]; NULL: the global
     *  average. */
    sh_value (*pool)(sh_trunk *t, sh_value x);
    /** The last feature map to the public network's logits [N, n_classes, 1, 1]; NULL: pool,
     *  dropout, linear `classifier`. */
    sh_value (*classify)(sh_trunk *t, sh_value x, int n_classes);
    const char *classifier; /* the last linear layer: "classifier.1", "_fc"; NULL if none */
    const char *head; /* what an identification head of one dense layer is called; NULL: "head".
                         Never a name in public files: their classifier would be taken for it */
    const sh_tap_alias *aliases; /* ended by {NULL, NULL}; NULL: none */
} sh_net;

/** Find a network; an unknown name is SH_ERR_USAGE listing the known ones. */
SH_MUST_CHECK sh_status sh_net_find(const char *name, const sh_net **out);

/** All networks, NULL-terminated. */
const sh_net *const *sh_net_list(void);

typedef struct sh_tap {
    char name[48];
    int64_t channels, height, width; /* at the network's default size */
} sh_tap;

/** The taps of a network in the order in which they are passed, without aliases: out[n], malloc'd,
 *  the caller frees. */
SH_MUST_CHECK sh_status sh_net_taps(const sh_net *net, sh_tap **out, int *n);

/** SH_ERR_USAGE listing the taps, unless `tap` is one of them, an alias or "". */
SH_MUST_CHECK sh_status sh_net_check_tap(const sh_net *net, const char *tap);

/** The whole public network for reference values and published classifiers. Output
 *  [N, n_classes, 1, 1], or the network's own features where it has no classifier. */
sh_value sh_net_classifier(sh_program *p, const sh_net *net, sh_value image, int n_classes);

typedef enum sh_pool {
    SH_POOL_NET,     /* the network's own; the global average at a tap */
    SH_POOL_AVG,     /* global average */
    SH_POOL_GEM,     /* generalised mean with a learned power, parameter `pool.p` [1] */
    SH_POOL_FLATTEN, /* every element, in the order (c, h, w): weights fit one image size */
    SH_POOL_TOKEN,   /* token 0 of a transformer */
} sh_pool;

enum { SH_HEAD_HIDDEN_MAX = 7 };

/** What is put on a network, in this order: tap, pool, dropout, dense layers, neck, length 1. */
typedef struct sh_head {
    const char *tap; /* where the network ends; "" or NULL: behind its last feature map */
    sh_pool pool;
    float dropout; /* before the first dense layer; identity unless training */
    int n_hidden, hidden[SH_HEAD_HIDDEN_MAX]; /* units of dense layers that `act` follows */
    sh_act act;
    int dim;        /* units of the last dense layer, with no activation; 0: none */
    bool bn_neck;   /* batch norm with parameters `neck`.* */
    bool normalize; /* scale rows to length 1 */
} sh_head;

/** The network up to the head's tap, and its pool: features [N, C, 1, 1]. An unknown tap fails the
 *  program with SH_ERR_USAGE listing the taps. */
sh_value sh_net_features(sh_program *p, const sh_net *net, sh_value image, const sh_head *head);

/** The rest of the head on features. Dense layers are `head.weight`, `head.bias` where there is
 *  one, `head.0.weight`, ... where there are several, or where net->head says so. Output
 *  [N, D, 1, 1]. */
sh_value sh_net_head(sh_program *p, const sh_net *net, sh_value features, const sh_head *head);

/** Network and identification head, one after the other. */
sh_value sh_net_embedding(sh_program *p, const sh_net *net, sh_value image, const sh_head *head);

/** The neck alone, and rows scaled to length 1, for what stands before or between them. */
sh_value sh_net_neck(sh_program *p, sh_value x);
sh_value sh_net_normalize(sh_program *p, sh_value x);

SH_C_END

#endif
