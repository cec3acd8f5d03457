// SPDX-License-Identifier: Apache-2.0
#include "base/cpu.h"

#include <ctype.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

enum { LINE_BYTES = 8192, PATH_BYTES = 4096 };

/* ---- control groups ---- */

/* This process's group of `controller` ("" for version 2) into path; false if it has none. */
static bool cgroup_of(const char *controller, char path[PATH_BYTES])
{
    FILE *file = fopen("/proc/self/cgroup", "r");
    char line[LINE_BYTES];
    bool found = false;

    if (file == NULL) return false;
    while (!found && fgets(line, sizeof(line), file) != NULL) {
        char *controllers = strchr(line, ':'), *group = NULL;

        if (controllers != NULL) group = strchr(++controllers, ':');
        if (group == NULL) continue;
        *group++ = '\0';
        group[strcspn(group, "\n")] = '\0';
        for (char *rest = controllers, *name; !found && (name = strsep(&rest, ",")) != NULL;)
            found = strcmp(name, controller) == 0;
        if (found) snprintf(path, PATH_BYTES, "%s", group);
    }
    fclose(file);
    return found;
}

/* Numbers in the first line of a file; "max" reads as -1. Returns how many there were. */
static int read_numbers(const char *path, double *a, double *b)
{
    FILE *file = fopen(path, "r");
    char line[128] = "", *rest = line, *word;
    double *const out[] = {a, b};
    int n = 0;

    if (file == NULL) return 0;
    if (fgets(line, sizeof(line), file) == NULL) line[0] = '\0';
    fclose(file);
    line[strcspn(line, "\n")] = '\0';
    while (n < 2 && (word = strsep(&rest, " ")) != NULL && *word != '\0')
        *out[n++] = strcmp(word, "max") == 0 ? -1 : atof(word);
    return n;
}

/* The smallest limit of this process's group and those above it; `limit_of` reads one folder. */
static double smallest_limit(const char *controller, const char *root,
                             double (*limit_of)(const char *folder))
{
    char group[PATH_BYTES], folder[PATH_BYTES + 64];
    double smallest = -1;

    if (!cgroup_of(controller, group)) return -1;
    for (;;) {
        snprintf(folder, sizeof(folder), "%s%s", root, strcmp(group, "/") == 0 ? "" : group);
        double limit = limit_of(folder);

        if (limit >= 0 && (smallest < 0 || limit < smallest)) smallest = limit;
        char *last = strrchr(group, '/');

        if (last == NULL || group[1] == '\0') break;
        last[last == group] = '\0'; /* the parent; "/" stays */
    }
    return smallest;
}

static double cores_v2(const char *folder)
{
    char path[PATH_BYTES + 128];
    double quota = -1, period = -1;

    snprintf(path, sizeof(path), "%s/cpu.max", folder);
    return read_numbers(path, &quota, &period) == 2 && quota > 0 ? quota / period : -1;
}

static double cores_v1(const char *folder)
{
    char path[PATH_BYTES + 128];
    double quota = -1, period = -1, unused;

    snprintf(path, sizeof(path), "%s/cpu.cfs_quota_us", folder);
    if (read_numbers(path, &quota, &unused) < 1 || quota <= 0) return -1;
    snprintf(path, sizeof(path), "%s/cpu.cfs_period_us", folder);
    return read_numbers(path, &period, &unused) >= 1 && period > 0 ? quota / period : -1;
}

static double memory_v2(const char *folder)
{
    char path[PATH_BYTES + 128];
    double bytes = -1, unused;

    snprintf(path, sizeof(path), "%s/memory.max", folder);
    return read_numbers(path, &bytes, &unused) >= 1 ? bytes : -1;
}

static double memory_v1(const char *folder)
{
    char path[PATH_BYTES + 128];
    double bytes = -1, unused;

    snprintf(path, sizeof(path), "%s/memory.limit_in_bytes", folder);
    return read_numbers(path, &bytes, &unused) >= 1 ? bytes : -1;
}

int sh_cpu_cores_quota(void)
{
    const double quotas[] = {smallest_limit("", "/sys/fs/cgroup", cores_v2),
                             smallest_limit("cpu", "/sys/fs/cgroup/cpu", cores_v1)};
    int cores = INT_MAX;

    for (size_t i = 0; i < SH_COUNT(quotas); i++) {
        if (quotas[i] < 0 || quotas[i] >= cores) continue;
        cores = (int)quotas[i] + (quotas[i] > (int)quotas[i]);
    }
    return cores;
}

int sh_cpu_cores_granted(void)
{
    int quota = sh_cpu_cores_quota(), cores;
    cpu_set_t set;

    /* More than 1024 processors do not fit cpu_set_t; then all of them count. */
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        cores = CPU_COUNT(&set);
    else
        cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (cores > quota) cores = quota;
    return cores < 1 ? 1 : cores;
}

int64_t sh_cpu_memory_bytes(void)
{
    const double limits[] = {smallest_limit("", "/sys/fs/cgroup", memory_v2),
                             smallest_limit("memory", "/sys/fs/cgroup/memory", memory_v1)};
    double bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);

    for (size_t i = 0; i < SH_COUNT(limits); i++) {
        if (limits[i] >= 0 && limits[i] < bytes) bytes = limits[i];
    }
    return (int64_t)bytes;
}

int64_t sh_cpu_peak_resident_bytes(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
}

/* ---- the processor ---- */

/* The value of the first line of /proc/cpuinfo with this key; "" if there is none. */
static void cpuinfo(const char *key, char *value, size_t size)
{
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[LINE_BYTES];

    value[0] = '\0';
    if (file == NULL) return;
    while (fgets(line, sizeof(line), file) != NULL) {
        char *colon = strchr(line, ':');

        if (colon == NULL || strncmp(line, key, strlen(key)) != 0) continue;
        if (!isspace((unsigned char)line[strlen(key)]) && line[strlen(key)] != ':') continue;
        colon += 1 + (colon[1] == ' ');
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(value, size, "%s", colon);
        break;
    }
    fclose(file);
}

void sh_cpu_model(char *text, size_t size)
{
    char name[256], family[32], model[32], stepping[32];

    cpuinfo("model name", name, sizeof(name));
    cpuinfo("cpu family", family, sizeof(family));
    cpuinfo("model", model, sizeof(model));
    cpuinfo("stepping", stepping, sizeof(stepping));
    if (name[0] != '\0' && family[0] != '\0')
        snprintf(text, size, "%s, family %s model %s stepping %s", name, family, model, stepping);
    else
        snprintf(text, size, "%s", name[0] != '\0' ? name : "unknown");
}

void sh_cpu_features(char *text, size_t size)
{
    static const char *const wanted[] = {
        "sse4_1",      "sse4_2",      "avx",      "avx2",     "fma",      "f16c",
        "avx_vnni",    "avx512f",     "avx512bw", "avx512dq", "avx512vl", "avx512_vnni",
        "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "asimd",
        "asimdhp",     "sve",         "sve2",     "bf16",
    };
    char flags[LINE_BYTES], *rest = flags;
    size_t used = 0;

    text[0] = '\0';
    cpuinfo("flags", flags, sizeof(flags));
    if (flags[0] == '\0') cpuinfo("Features", flags, sizeof(flags)); /* as ARM kernels call them */
    for (char *flag; (flag = strsep(&rest, " ")) != NULL;) {
        for (size_t i = 0; i < SH_COUNT(wanted); i++) {
            if (strcmp(flag, wanted[i]) != 0 || used >= size) continue;
            used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? " " : "", flag);
        }
    }
}

void sh_cpu_caches(char *text, size_t size)
{
    snprintf(text, size, "L1d %ld KiB, L2 %ld KiB, L3 %ld KiB",
             sysconf(_SC_LEVEL1_DCACHE_SIZE) / 1024, sysconf(_SC_LEVEL2_CACHE_SIZE) / 1024,
             sysconf(_SC_LEVEL3_CACHE_SIZE) / 1024);
}
