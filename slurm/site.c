// SPDX-License-Identifier: Apache-2.0
#include "slurm/site.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/process.h"

static const char *const launchers[] = {"srun", "mpirun", NULL};

#define ROW(key, type, field, fallback, min, max, list, unit, help)                                \
    {                                                                                              \
        key, type, offsetof(sh_site, field), fallback, SH_FREE, min, max, list, unit, help         \
    }
#define TEXT(key, fallback, help) ROW(#key, SH_OPT_TEXT, key, fallback, 0, 0, NULL, "", help)
#define INT(key, fallback, min, max, unit, help)                                                   \
    ROW(#key, SH_OPT_INT, key, fallback, min, max, NULL, unit, help)

/* clang-format off */
static const sh_option rows[] = {
    TEXT(partition, "", "partition of CPU jobs; empty: the site's default"),
    TEXT(gpu_partition, "", "partition of jobs with --gpus; empty: the one above"),
    TEXT(account, "", "account that is charged; empty: the user's default"),
    TEXT(qos, "", "quality of service"),
    TEXT(constraint, "", "features that nodes must have; nodes of one kind keep a run's bytes the same"),
    TEXT(memory, "", "memory per node (\"16G\"); empty: what the site gives"),
    TEXT(time, "1:00:00", "time limit of one job where --time is not given; a run goes on in further jobs"),
    INT(ranks_per_node, "1", 1, 1024, "ranks", "ranks on each CPU node; on GPU nodes there is one for each GPU"),
    INT(cpus_per_rank, "1", 1, 1024, "cores", "cores, and so compute threads, of each rank"),
    ROW("launcher", SH_OPT_CHOICE, launcher, "srun", 0, 0, launchers, "", "what starts the ranks inside a job"),
    TEXT(mpi, "pmix", "plugin for `srun --mpi=`, of those that `srun --mpi=list` shows; empty: the site's default"),
    ROW("requeue", SH_OPT_BOOL, requeue, "true", 0, 0, NULL, "", "does Slurm queue a job again here? false: each job has a successor that waits for it"),
    INT(warn_seconds, "120", 10, 86400, "seconds", "how long before its time limit a job is told to save itself; Slurm may be up to 60 s late or early"),
    ROW("modules", SH_OPT_LIST, modules, "", 0, 0, NULL, "", "environment modules to load"),
    ROW("setup", SH_OPT_LIST, setup, "", 0, 0, NULL, "", "lines of shell that every job begins with, after the modules"),
    TEXT(cpu_template, "", "file to use instead of the built-in slurm/cpu.sbatch"),
    TEXT(gpu_template, "", "the same for slurm/gpu.sbatch"),
};
/* clang-format on */

const sh_option_table *sh_site_options(void)
{
    static const sh_option_table table = {rows, SH_COUNT(rows), "shoal submit --init-site"};

    return &table;
}

sh_status sh_site_path(char *path, size_t size)
{
    return sh_path_home("site.yaml", path, size);
}

sh_status sh_site_load(const char *path, sh_site *out)
{
    sh_status st = SH_OK;

    SH_TRY(sh_options_defaults(sh_site_options(), out));
    if (sh_file_exists(path)) SH_TRY(sh_options_read(sh_site_options(), path, out));
out:
    return st;
}

/* ---- the draft ---- */

/* What a command answers, with stdout and stderr joined (srun lists its plugins on either); NULL
 * where it cannot be asked. The caller frees. */
static char *ask(const char *const *argv)
{
    sh_process_result result = {0};
    char *answer = NULL;

    if (sh_process_run(argv, &result) != SH_OK) {
        sh_error_clear();
    } else if (result.code == 0) {
        size_t size = strlen(result.out) + strlen(result.err) + 1;

        answer = malloc(size);
        if (answer != NULL) snprintf(answer, size, "%s%s", result.out, result.err);
    }
    sh_process_result_clear(&result);
    return answer;
}

/* The value of "key = value" in `scontrol show config`; -1 where it is missing. */
static int config_number(const char *config, const char *key)
{
    const char *at = strstr(config, key);

    at = at != NULL ? strchr(at, '=') : NULL;
    return at != NULL ? atoi(at + 1) : -1;
}

/* Lines of `sinfo -o "%P|%l|%D|%c|%m|%G|%f"`: which partition is the default, which has GPUs. */
static void read_partitions(char *answer, sh_site *site, FILE *notes)
{
    fprintf(notes, "# Partitions (time limit, nodes, cores of a node, MB of a node, devices, "
                   "features):\n");
    for (char *save = NULL, *line = strtok_r(answer, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        char name[256], devices[256];
        int cores;

        fprintf(notes, "#   %s\n", line);
        if (sscanf(line, "%255[^|]|%*[^|]|%*[^|]|%d%*[^|]|%*[^|]|%255[^|]", name, &cores,
                   devices) != 3 &&
            sscanf(line, "%255[^|]|%*[^|]|%*[^|]|%d|%*[^|]|%255[^|]", name, &cores, devices) != 3)
            continue;
        char *star = strchr(name, '*');

        if (star != NULL) {
            *star = '\0';
            site->cpus_per_rank = cores;
            snprintf(site->partition, sizeof(site->partition), "%s", name);
        }
        if (strstr(devices, "gpu") != NULL && site->gpu_partition[0] == '\0')
            snprintf(site->gpu_partition, sizeof(site->gpu_partition), "%s", name);
    }
}

static void read_plugins(const char *answer, sh_site *site, FILE *notes)
{
    fprintf(notes, "# `srun --mpi=list`:");
    for (const char *c = answer; *c != '\0'; c++) fputc(*c == '\n' || *c == '\t' ? ' ' : *c, notes);
    fputc('\n', notes);
    if (strstr(answer, "pmix") != NULL) return;
    /* Open MPI meets its ranks over PMIx; where srun has none, its own launcher does. */
    site->launcher = SH_LAUNCHER_MPIRUN;
    site->mpi[0] = '\0';
}

static void write_draft(const sh_site *site, const char *notes, FILE *out)
{
    char value[SH_OPTION_LIST_TEXT];

    fprintf(out,
            "# SPDX-License-Identifier: Apache-2.0\n"
            "# What batch jobs need to know about this site. Drafted by `shoal submit --init-site`;"
            "\n# check each line, above all partition, account and modules.\n%s",
            notes);
    for (size_t i = 0; i < SH_COUNT(rows); i++) {
        sh_options_format(&rows[i], site, value, sizeof(value));
        bool is_list = rows[i].type == SH_OPT_LIST, is_text = rows[i].type == SH_OPT_TEXT;

        fprintf(out, "\n# %s\n%s: %s%s%s\n", rows[i].help, rows[i].key,
                is_text ? "\"" : (is_list ? "[" : ""), value,
                is_text ? "\"" : (is_list ? "]" : ""));
    }
}

sh_status sh_site_draft(char **text)
{
    static const char *const ask_config[] = {"scontrol", "show", "config", NULL};
    static const char *const ask_partitions[] = {"sinfo", "-h", "-o", "%P|%l|%D|%c|%m|%G|%f", NULL};
    static const char *const ask_plugins[] = {"srun", "--mpi=list", NULL};
    sh_status st = SH_OK;
    char *config = ask(ask_config), *partitions = ask(ask_partitions), *plugins = ask(ask_plugins);
    char *notes = NULL, *draft = NULL;
    size_t n_notes = 0, n_draft = 0;
    sh_site *site = calloc(1, sizeof(*site));
    FILE *note = open_memstream(&notes, &n_notes), *out = open_memstream(&draft, &n_draft);

    SH_CHECK(site != NULL && note != NULL && out != NULL, SH_ERR_NO_MEMORY, "site file");
    SH_CHECK(config != NULL && partitions != NULL, SH_ERR_NOT_FOUND,
             "Slurm does not answer (`scontrol show config`, `sinfo`): is this a login node of the "
             "cluster?");
    SH_TRY(sh_options_defaults(sh_site_options(), site));
    site->requeue = config_number(config, "JobRequeue") != 0;
    read_partitions(partitions, site, note);
    read_plugins(plugins != NULL ? plugins : "", site, note);
    fflush(note);
    write_draft(site, notes, out);
    SH_CHECK(fclose(out) == 0, SH_ERR_NO_MEMORY, "site file");
    out = NULL;
    *text = draft;
    draft = NULL;
out:
    if (note != NULL) fclose(note);
    if (out != NULL) fclose(out);
    free(notes);
    free(draft);
    free(site);
    free(config);
    free(partitions);
    free(plugins);
    return st;
}
