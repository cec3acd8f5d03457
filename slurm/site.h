// SPDX-License-Identifier: Apache-2.0
/**
 * What a site wants of batch jobs: partition, account, modules, how ranks are started. A small YAML
 * file that `shoal submit --init-site` drafts by asking Slurm; slurm/README.md explains each line.
 */
#ifndef SH_SLURM_SITE_H
#define SH_SLURM_SITE_H

#include "base/options.h"

SH_C_BEGIN

typedef enum sh_launcher { SH_LAUNCHER_SRUN, SH_LAUNCHER_MPIRUN } sh_launcher;

typedef struct sh_site {
    char partition[SH_OPTION_TEXT], gpu_partition[SH_OPTION_TEXT];
    char account[SH_OPTION_TEXT], qos[SH_OPTION_TEXT], constraint[SH_OPTION_TEXT];
    char memory[SH_OPTION_TEXT];
    char time[SH_OPTION_TEXT];
    int64_t ranks_per_node, cpus_per_rank;
    int launcher; /* sh_launcher */
    char mpi[SH_OPTION_TEXT];
    bool requeue;
    int64_t warn_seconds;
    char modules[SH_OPTION_LIST_TEXT];
    char setup[SH_OPTION_LIST_TEXT];
    char cpu_template[SH_OPTION_TEXT], gpu_template[SH_OPTION_TEXT];
} sh_site;

/** The option table of the site file. */
const sh_option_table *sh_site_options(void);

/** Path of the site file: $SHOAL_HOME/site.yaml, by default ~/.local/share/shoal/site.yaml. */
SH_MUST_CHECK sh_status sh_site_path(char *path, size_t size);

/** Defaults, then the site file where there is one. */
SH_MUST_CHECK sh_status sh_site_load(const char *path, sh_site *out);

/** A draft of the site file from what sinfo, scontrol and srun say, with what was found as
 *  comments. SH_ERR_NOT_FOUND where Slurm is not there. The caller frees *text. */
SH_MUST_CHECK sh_status sh_site_draft(char **text);

SH_C_END

#endif
