// SPDX-License-Identifier: Apache-2.0
/** The arguments that `shoal train`, `shoal submit` and `shoal bench train` share: experiment, run
 *  folder, key=value. */
#ifndef SH_TRAINER_EXPERIMENT_H
#define SH_TRAINER_EXPERIMENT_H

#include "base/cli.h"
#include "trainer/config.h"
#include "trainer/run.h"

typedef struct sh_experiment {
    const char *yaml;         /* NULL: none was given */
    char run[SH_RUN_PATH];    /* --run, or runs/<name of the experiment> */
    const char **assignments; /* key=value */
    int n_assignments;
} sh_experiment;

/** Sort the words of a command line; `run` is --run, or NULL. The words must outlive *out, which
 *  the caller clears. */
SH_MUST_CHECK sh_status sh_experiment_parse(const sh_string_list *words, const char *run,
                                            sh_experiment *out);
void sh_experiment_clear(sh_experiment *experiment);

/** The configuration that is asked for, with paths and backbones resolved. Where the run exists and
 *  no experiment is given, its own configuration is the base. Without a limit to the training it is
 *  SH_ERR_USAGE. */
SH_MUST_CHECK sh_status sh_experiment_load(const sh_experiment *experiment, sh_config *out);

#endif
