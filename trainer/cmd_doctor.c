// SPDX-License-Identifier: Apache-2.0
#include <dnnl.h>
#include <hdf5.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/cpu.h"
#include "comm/comm.h"
#include "models/backend.h"
#include "trainer/commands.h"

/* One line of the examination: what was found, and the remedy where something is missing. */
static void row(const char *what, const char *found, const char *remedy)
{
    printf("  %-18s %s\n", what, found);
    if (remedy != NULL) printf("  %-18s -> %s\n", "", remedy);
}

/* What a processor with these instructions costs; NULL: nothing. */
static const char *missing_instructions(const char *features)
{
    if (strstr(features, "avx512f") != NULL) return NULL;
    if (strstr(features, "avx2") != NULL && strstr(features, "fma") != NULL)
        return "no AVX-512: the kernels for AVX2 run, about half as fast";
    return "neither AVX-512 nor AVX2: the portable kernels run, three times slower; ask for newer "
           "nodes (Slurm: --constraint)";
}

static void examine_machine(void)
{
    char text[1024], line[1200];
    struct utsname kernel;
    struct statvfs disk;

    printf("machine\n");
    sh_cpu_model(text, sizeof(text));
    row("processor", text, NULL);
    sh_cpu_features(text, sizeof(text));
    row("instructions", text[0] ? text : "baseline only", missing_instructions(text));
    row("bf16", strstr(text, "avx512_bf16") != NULL ? "yes (dtype=bf16 is fast)" : "no",
        strstr(text, "avx512_bf16") != NULL ? NULL : "dtype=f32 is the faster choice here");
    sh_cpu_caches(text, sizeof(text));
    row("caches", text, NULL);
    snprintf(line, sizeof(line), "%d granted to this process", sh_cpu_cores_granted());
    row("cores", line, NULL);
    snprintf(line, sizeof(line), "%.1f GB", (double)sh_cpu_memory_bytes() / 1e9);
    row("memory", line,
        sh_cpu_memory_bytes() < (int64_t)2 << 30 ? "under 2 GB: use small batches" : NULL);
    if (statvfs(".", &disk) == 0) {
        double free_gb = (double)disk.f_bavail * (double)disk.f_frsize / 1e9;

        snprintf(line, sizeof(line), "%.1f GB free in this folder", free_gb);
        row("disk", line, free_gb < 1 ? "packs and checkpoints need room: free some" : NULL);
    }
    if (uname(&kernel) == 0) {
        snprintf(line, sizeof(line), "%s %s, %s", kernel.sysname, kernel.release, kernel.machine);
        row("system", line, NULL);
    }
}

static void examine_libraries(void)
{
    const dnnl_version_t *onednn = dnnl_version();
    unsigned major, minor, release;
    char line[256];

    printf("libraries\n");
    snprintf(line, sizeof(line), "%d.%d.%d", onednn->major, onednn->minor, onednn->patch);
    row("oneDNN", line,
        onednn->major != 2 ? "measured with 2.6.3; others may be slower (docs/decisions.md)"
                           : NULL);
    H5get_libversion(&major, &minor, &release);
    snprintf(line, sizeof(line), "%u.%u.%u", major, minor, release);
    row("HDF5", line, NULL);
    row("MPI", sh_comm_library(), NULL);
    row("jansson", JANSSON_VERSION, NULL);
}

static bool on_path(const char *program)
{
    const char *path = getenv("PATH");
    char candidate[4096];

    while (path != NULL && *path != '\0') {
        size_t n = strcspn(path, ":");

        snprintf(candidate, sizeof(candidate), "%.*s/%s", (int)n, path, program);
        if (access(candidate, X_OK) == 0) return true;
        path += n + (path[n] == ':');
    }
    return false;
}

static void examine_programs(void)
{
    static const struct {
        const char *program, *purpose, *remedy;
    } wanted[] = {
        {"mpirun", "several ranks", "Debian: apt-get install openmpi-bin"},
        {"srun", "Slurm jobs", "only on clusters; load the site's module"},
        {"h5dump", "looking into packs", "Debian: apt-get install hdf5-tools"},
    };

    printf("programs\n");
    for (size_t i = 0; i < SH_COUNT(wanted); i++) {
        bool found = on_path(wanted[i].program);
        char line[128];

        snprintf(line, sizeof(line), "%s (%s)", found ? "found" : "not found", wanted[i].purpose);
        row(wanted[i].program, line, found ? NULL : wanted[i].remedy);
    }
}

static void examine_devices(void)
{
    const sh_backend *cuda = NULL;
    sh_finding findings[SH_MAX_FINDINGS];
    int n = 0;

    printf("devices\n");
    row("cpu", "yes", NULL);
    if (sh_backend_find("cuda", &cuda) == SH_OK) {
        n = cuda->examine(findings, SH_MAX_FINDINGS - 1);
        sh_comm_examine(&findings[n++]);
    } else {
        sh_error_clear();
        row("cuda", "not in this build", NULL);
    }
    for (int i = 0; i < n; i++)
        row(findings[i].what, findings[i].found,
            findings[i].remedy[0] != '\0' ? findings[i].remedy : NULL);
}

sh_status sh_cmd_doctor(int argc, char **argv)
{
    sh_status st = SH_OK;
    sh_string_list args = {0};
    bool helped = false;
    const sh_cli cli = {
        .usage = "shoal doctor",
        .summary = "Says what this machine can do: processor, cores, memory, libraries, what is "
                   "missing and how to get it."};

    SH_TRY(sh_cli_parse(&cli, argc, argv, &args, &helped));
    if (helped) goto out;
    examine_machine();
    examine_libraries();
    examine_programs();
    examine_devices();
out:
    free(args.items);
    return st;
}
