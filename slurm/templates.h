// SPDX-License-Identifier: Apache-2.0
/** Batch scripts from templates (slurm/cpu.sbatch, slurm/gpu.sbatch, or a site's own). */
#ifndef SH_SLURM_TEMPLATES_H
#define SH_SLURM_TEMPLATES_H

#include "base/status.h"

SH_C_BEGIN

/** What stands for {{name}} in a template. */
typedef struct sh_template_value {
    const char *name, *text;
} sh_template_value;

/** The built-in templates: for nodes without and with GPUs. */
extern const char sh_template_cpu[], sh_template_gpu[];

/**
 * Fill a template in. Every {{name}} becomes its text; a line whose {{...}} are all empty is left
 * out, so that an option that a site does not use leaves no trace. A name without a value, or an
 * open "{{", is SH_ERR_FORMAT naming `label` and the line. The caller frees *out.
 */
SH_MUST_CHECK sh_status sh_template_fill(const char *label, const char *text,
                                         const sh_template_value *values, int n_values, char **out);

SH_C_END

#endif
