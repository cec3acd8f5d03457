// SPDX-License-Identifier: Apache-2.0
#include "models/cuda/verdict.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEAST_CAPABILITY = 80, /* kernels have bf16 */
    LEAST_FREE_MB = 2048,  /* a small network's step */
};

/** The first driver for each major version of CUDA (its release notes). */
static const struct {
    int cuda, driver;
} first_drivers[] = {{11, 450}, {12, 525}, {13, 580}};

static const char listing[] =
    "sinfo -o '%f %G' lists what there is (Slurm: --constraint=NAME, --gres=gpu:NAME:1)";

/* ---- architectures ---- */

typedef struct architecture {
    int number;     /* 10 major + minor; 0: a word for several, as "native" */
    bool is_exact;  /* "90a": for that device alone */
    bool is_binary; /* for the devices of its major version */
    bool is_ptx;    /* for all later ones, which their drivers compile */
} architecture;

/** The next of "80-real 90a-real 90", from *at on. */
static bool next_architecture(const char **at, architecture *out)
{
    char text[32];
    int n_chars = 0;

    if (sscanf(*at, "%31s%n", text, &n_chars) != 1) return false;
    *at += n_chars;
    char *suffix = text;
    *out = (architecture){.number = (int)strtol(text, &suffix, 10)};
    out->is_exact = *suffix == 'a';
    out->is_binary = strstr(suffix, "-virtual") == NULL;
    out->is_ptx = strstr(suffix, "-real") == NULL;
    return true;
}

static bool runs_on(const architecture *a, int capability)
{
    if (a->number == 0) return true; /* the compiler knows */
    if (a->is_exact) return a->number == capability;
    if (a->is_ptx && a->number <= capability) return true;
    return a->is_binary && a->number / 10 == capability / 10 && a->number <= capability;
}

static bool has_code_for(const char *built_for, int capability)
{
    architecture a;
    bool has = false;

    while (next_architecture(&built_for, &a)) has |= runs_on(&a, capability);
    return has;
}

/** "sm_80, sm_90a, sm_90 and later" */
static void describe_architectures(const char *built_for, char *text, size_t size)
{
    architecture a;
    size_t n = 0;

    text[0] = '\0';
    while (n < size && next_architecture(&built_for, &a))
        n += (size_t)snprintf(text + n, size - n, "%ssm_%d%s%s", n > 0 ? ", " : "", a.number,
                              a.is_exact ? "a" : "", a.is_ptx && !a.is_exact ? " and later" : "");
}

/* ---- verdicts ---- */

static void judge_driver(const sh_cuda_facts *f, sh_finding *out)
{
    int major = f->runtime / 1000, first = 0;
    char which[64] = "a newer one";

    if (f->driver == 0) {
        snprintf(out->remedy, sizeof(out->remedy),
                 "only nodes with a GPU have a driver (Slurm: --gres=gpu:1), and containers that "
                 "are given it (apptainer --nv, docker --gpus all)");
        return;
    }
    for (size_t i = 0; i < SH_COUNT(first_drivers); i++) {
        if (first_drivers[i].cuda == major) first = first_drivers[i].driver;
    }
    if (first > 0) snprintf(which, sizeof(which), "%d or later", first);
    snprintf(out->remedy, sizeof(out->remedy),
             "the driver is too old for CUDA %d: ask for %s (nvidia-smi names the one that is "
             "there), or build with CUDA %d",
             major, which, f->driver / 1000);
}

static void judge_failure(const sh_cuda_facts *f, sh_finding *out)
{
    static const char *const remedies[] = {
        [SH_CUDA_NO_DEVICE] = "ask for a device (Slurm: --gres=gpu:1); nvidia-smi -L lists those "
                              "of this machine",
        [SH_CUDA_TAKEN] = "another process has the device to itself: ask for one of your own "
                          "(Slurm: --gres=gpu:1); nvidia-smi names it",
        [SH_CUDA_FULL] = "others hold all its memory: ask for a device of your own (Slurm: "
                         "--gres=gpu:1); nvidia-smi names them",
        [SH_CUDA_OTHER_REASON] = "see whether nvidia-smi works here; if not, it is for the "
                                 "machine's administrator, and another node may do"};
    bool is_hidden = f->failure == SH_CUDA_NO_DEVICE && f->visible != NULL;

    snprintf(out->remedy, sizeof(out->remedy), "%s", remedies[f->failure]);
    if (is_hidden)
        snprintf(out->remedy, sizeof(out->remedy),
                 "CUDA_VISIBLE_DEVICES=\"%s\" hides what there may be: unset it, or %s", f->visible,
                 remedies[f->failure]);
}

static void judge_device(const sh_cuda_facts *f, sh_finding *out)
{
    char built_for[256];

    if (f->capability < LEAST_CAPABILITY) {
        snprintf(out->remedy, sizeof(out->remedy), "too old: ask for sm_80 (A100) or later; %s",
                 listing);
    } else if (!has_code_for(f->built_for, f->capability)) {
        describe_architectures(f->built_for, built_for, sizeof(built_for));
        snprintf(out->remedy, sizeof(out->remedy),
                 "this build is for %s: ask for one of these, or build with "
                 "-DCMAKE_CUDA_ARCHITECTURES=%d; %s",
                 built_for, f->capability, listing);
    } else if (f->free_bytes >> 20 < LEAST_FREE_MB) {
        snprintf(out->remedy, sizeof(out->remedy),
                 "others hold its memory: ask for a device of your own (Slurm: --gres=gpu:1); "
                 "nvidia-smi names them");
    }
}

void sh_cuda_verdict(const sh_cuda_facts *f, sh_finding *out)
{
    char versions[128];

    *out = (sh_finding){.what = "cuda", .is_needed = true};
    if (f->driver == 0)
        snprintf(versions, sizeof(versions), "built with CUDA %d.%d, no driver", f->runtime / 1000,
                 f->runtime % 1000 / 10);
    else
        snprintf(versions, sizeof(versions), "built with CUDA %d.%d, driver for %d.%d",
                 f->runtime / 1000, f->runtime % 1000 / 10, f->driver / 1000,
                 f->driver % 1000 / 10);
    if (f->driver / 1000 < f->runtime / 1000) {
        snprintf(out->found, sizeof(out->found), "%s", versions);
        judge_driver(f, out);
    } else if (f->failure != SH_CUDA_OPENED) {
        snprintf(out->found, sizeof(out->found), "%s; %s", versions, f->error);
        judge_failure(f, out);
    } else {
        snprintf(out->found, sizeof(out->found), "%s, sm_%d, %zu of %zu MB free, %s", f->name,
                 f->capability, f->free_bytes >> 20, f->all_bytes >> 20, versions);
        judge_device(f, out);
    }
}
