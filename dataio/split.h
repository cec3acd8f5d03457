// SPDX-License-Identifier: Apache-2.0
/** Who is trained on, who validates, who tests: computed from a rule, kept with the run. */
#ifndef SH_DATAIO_SPLIT_H
#define SH_DATAIO_SPLIT_H

#include "dataio/dataset.h"

SH_C_BEGIN

typedef enum sh_part { SH_PART_NONE, SH_PART_TRAIN, SH_PART_VAL, SH_PART_TEST } sh_part;

typedef enum sh_split_by {
    SH_SPLIT_INDIVIDUAL, /* no individual in two parts */
    SH_SPLIT_RECORDING,  /* no recording in two parts; individuals may be */
    SH_SPLIT_TIME,       /* the latest recordings test */
    SH_SPLIT_RANDOM,     /* single crops: leaks, and the report says so */
    SH_SPLIT_COLUMN,     /* as the manifest says */
} sh_split_by;

typedef struct sh_split_config {
    sh_split_by by;
    float test, val; /* shares of individuals / recordings / crops, in [0, 1) */
    uint64_t seed;
    int fold, n_folds; /* n_folds > 0: test = fold `fold` of n_folds (each unit tests once) */
} sh_split_config;

typedef struct sh_split {
    int64_t n;
    uint8_t *part; /* [n] sh_part of each crop; unlabelled crops are SH_PART_NONE */
    bool leaks;    /* near-duplicates may stand in two parts: see sh_split_find_leaks */
} sh_split;

const char *sh_part_name(sh_part part); /* "train", "val", "test", "none" */

/** Compute. Pure in (names and labels of the dataset, config), whatever the order of packs and
 *  crops. Refuses splits that leave a part empty or with fewer than two individuals. Shares are
 *  rounded to whole units, one at least; with folds, `val` units follow the test fold around. A
 *  labelled crop without a recording trains in splits by recording and time, which then leak. */
SH_MUST_CHECK sh_status sh_split_compute(const sh_dataset *dataset, const sh_split_config *config,
                                         sh_split *out);

/** name,pack,individual,recording,side,part per line. */
SH_MUST_CHECK sh_status sh_split_write(const sh_split *split, const sh_dataset *dataset,
                                       const char *path);

/** Read back and match to the dataset; a crop without a line, or a line without a crop, is an
 * error. */
SH_MUST_CHECK sh_status sh_split_read(const sh_dataset *dataset, const char *path, sh_split *out);

/** Set leaks: does one individual in one recording (or, where recordings are unknown, one
 *  individual) stand in two parts? A camera is never part of the key. Random splits always leak. */
SH_MUST_CHECK sh_status sh_split_find_leaks(const sh_dataset *dataset, sh_split *split);

/** Refuse a split by individual in which an individual stands in two parts, naming it. */
SH_MUST_CHECK sh_status sh_split_verify(const sh_split *split, const sh_dataset *dataset,
                                        sh_split_by by);
void sh_split_clear(sh_split *split);

SH_C_END

#endif
