// SPDX-License-Identifier: Apache-2.0
/**
 * Other public names for the tensors of our networks. Packages (torchvision, timm, Keras, ...)
 * publish weights of one network under different names; a table of rules turns theirs into ours.
 *
 * A rule is a pair of patterns over whole names; the first whose `from` fits is applied, and a name
 * that fits none is kept. In `from`:
 *   text       itself
 *   {x}        a decimal number, called x (one letter)
 *   {x:a}      one lower-case letter as a number from 0
 *   {x,y}      a block's number over the whole network, taken apart into stage x (from first_stage)
 *              and block y of the stage (from 0) by `depths`
 *   {#}        the end of a layer that Keras numbered itself ("conv2d", "conv2d_7"); the layers
 *              that fit the rule, in the order of their numbers, are those of `sequence`
 *   *          the rest, at the end only
 * In `to`: {x}; {x,y} the number over the whole network; with a digit added or taken away ({x+1});
 * $ the name from `sequence`; * the rest.
 */
#ifndef SH_MODELS_WEIGHTS_ALIAS_H
#define SH_MODELS_WEIGHTS_ALIAS_H

#include "models/weights/weights.h"

SH_C_BEGIN

enum { SH_ALIAS_NAME = 512 };

typedef struct sh_alias_rule {
    const char *from, *to;
    int flattened[3]; /* height, width, channels: a linear layer behind a flatten that put channels
                         last; its columns are put in our order, channels first */
} sh_alias_rule;

/** Layers in the order in which a program created them: `names` in turn, all of them n times over;
 *  {i} in a name counts the times. */
typedef struct sh_alias_group {
    int n;
    const char *const *names; /* ended by NULL */
} sh_alias_group;

struct sh_alias {
    const char *net;                /* our network: "mobilenet_v2" */
    const char *source;             /* whose names: "Keras" */
    const sh_alias_rule *rules;     /* ended by from = NULL */
    const int *depths;              /* blocks of each stage, ended by 0 */
    int first_stage;                /* what the first of them is called */
    const sh_alias_group *sequence; /* ended by n = 0 */
    const char *note;               /* what else differs, for the card; NULL: nothing */
};

/** All tables (models/weights/alias_tables.c), ended by net = NULL. */
const sh_alias *sh_alias_list(void);

/** Our name for `name`, one of the set's. Returns the rule that was applied, or NULL: the name is
 *  kept. */
const sh_alias_rule *sh_alias_translate(const sh_alias *alias, const char *name,
                                        const sh_weights *weights, char out[SH_ALIAS_NAME]);

/** Rename the tensors of a set as the table says and put flattened columns in order. */
SH_MUST_CHECK sh_status sh_alias_apply(const sh_alias *alias, sh_weights *weights);

SH_C_END

#endif
