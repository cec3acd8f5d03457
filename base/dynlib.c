// SPDX-License-Identifier: Apache-2.0
#include "base/dynlib.h"

#include <dlfcn.h>
#include <glob.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define PACKAGES "/lib{,64}/python3*/{site,dist}-packages/nvidia/*/lib"
#define TOOLKIT "{/lib64,/lib}"

enum origin { PROGRAM, ROOT, NEAR, LOADER, FOLDER, VARIABLE };

/** Folders as glob(7) has them with braces, below what they are said to be of. */
static const struct place {
    enum origin of;
    const char *name; /* FOLDER: the folder. VARIABLE: of one folder, or several between colons */
    const char *folders;
} places[] = {
    {PROGRAM, NULL, "{,/../lib}"},
    {ROOT, NULL, "{,/lib,/lib64}"},
    {NEAR, NULL, "{,/../../*/lib}"},
    {LOADER, NULL, NULL},
    {VARIABLE, "LD_LIBRARY_PATH", ""},         /* the loader was there: for other versions */
    {FOLDER, "/usr", "/lib{64,/*-linux-gnu}"}, /* a bundle's loader may know other folders */
    {VARIABLE, "CUDA_HOME", TOOLKIT},
    {VARIABLE, "CUDA_PATH", TOOLKIT},
    {FOLDER, "/usr/local/cuda", TOOLKIT},
    {VARIABLE, "VIRTUAL_ENV", PACKAGES},
    {VARIABLE, "CONDA_PREFIX", "{/lib," PACKAGES "}"},
    {VARIABLE, "PATH", "/.." PACKAGES},
    {VARIABLE, "HOME", "/.local" PACKAGES},
};

typedef struct search {
    const sh_dynlib_spec *spec;
    void *calls;
    sh_dynlib *found;
    char refused[SH_DYNLIB_TEXT]; /* "FILE: why; FILE: why" */
    char other[SH_DYNLIB_PATH];   /* another version, or "" */
} search;

/** What is done with a file; true ends the search. */
typedef bool (*visit)(search *s, const char *file);

static void SH_PRINTF(2, 3) refuse(search *s, const char *fmt, ...)
{
    size_t n = strlen(s->refused);
    va_list args;

    if (n > 0) n += (size_t)snprintf(s->refused + n, sizeof(s->refused) - n, "; ");
    if (n >= sizeof(s->refused)) return;
    va_start(args, fmt);
    vsnprintf(s->refused + n, sizeof(s->refused) - n, fmt, args);
    va_end(args);
}

static void version_text(int version, char text[32])
{
    snprintf(text, 32, "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}

/* ---- one file ---- */

/** NULL, or the first function that it lacks. */
static const char *fill(const sh_dynlib_spec *spec, void *handle, void *calls)
{
    for (int i = 0; i < spec->n_functions; i++) {
        void *function = dlsym(handle, spec->functions[i]);

        if (function == NULL) return spec->functions[i];
        memcpy((char *)calls + (size_t)i * sizeof(function), &function, sizeof(function));
    }
    return NULL;
}

/** Can it be used? If not, the reason is kept. */
static bool serves(search *s, const char *file, void *handle)
{
    const sh_dynlib_spec *spec = s->spec;
    const char *lacking = fill(spec, handle, s->calls);
    char version[32], least[32];

    if (lacking != NULL) {
        refuse(s, "%s: lacks %s", file, lacking);
        return false;
    }
    s->found->version = spec->version != NULL ? spec->version(s->calls) : 0;
    if (spec->version == NULL || s->found->version >= spec->least_version) return true;
    version_text(s->found->version, version);
    version_text(spec->least_version, least);
    refuse(s, "%s: version %s, and %s is the oldest that will do", file, version, least);
    return false;
}

/** Where the library of a function is, in a folder without links; `file` where that cannot be told.
 */
static void locate(const search *s, const char *file)
{
    void *function;
    Dl_info info = {0};
    char given[SH_DYNLIB_PATH], folder[PATH_MAX];

    memcpy(&function, s->calls, sizeof(function));
    snprintf(s->found->path, sizeof(s->found->path), "%s", file);
    if (dladdr(function, &info) == 0) return;
    snprintf(given, sizeof(given), "%s", info.dli_fname);
    char *slash = strrchr(given, '/');
    if (slash == NULL) return;
    *slash = '\0';
    if (realpath(given, folder) == NULL ||
        sh_path_join(folder, slash + 1, s->found->path, sizeof(s->found->path)) != SH_OK)
        snprintf(s->found->path, sizeof(s->found->path), "%s", file);
}

/** Open a file by its path, or by its name alone as the loader finds it. */
static bool try_file(search *s, const char *file)
{
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    const char *why = handle == NULL ? dlerror() : NULL;
    bool by_name = strchr(file, '/') == NULL;

    if (handle == NULL) {
        /* What is said of the file itself is that it is not there; else it is of what it needs. */
        if (!by_name || strncmp(why, file, strlen(file)) != 0) refuse(s, "%s", why);
        return false;
    }
    if (!serves(s, file, handle)) {
        memset(s->calls, 0, (size_t)s->spec->n_functions * sizeof(void *));
        dlclose(handle);
        return false;
    }
    locate(s, file);
    return true;
}

static bool keep_other(search *s, const char *file)
{
    snprintf(s->other, sizeof(s->other), "%s", file);
    return true;
}

static bool open_needed(search *s, const char *file)
{
    if (dlopen(file, RTLD_NOW | RTLD_LOCAL) == NULL) refuse(s, "%s", dlerror());
    return false;
}

/* ---- all places ---- */

/** A folder's name, whatever signs are in it, for a pattern. */
static void quote(const char *folder, int n, char out[SH_DYNLIB_PATH])
{
    size_t n_out = 0;

    for (int i = 0; i < n && n_out + 2 < SH_DYNLIB_PATH; i++) {
        if (strchr("\\*?[]{},~", folder[i]) != NULL) out[n_out++] = '\\';
        out[n_out++] = folder[i];
    }
    out[n_out] = '\0';
}

/** Visit what matches, in one folder and those below it, until one ends the search. */
static bool visit_folder(search *s, const char *folder, int n, const char *below, const char *name,
                         visit each)
{
    char quoted[SH_DYNLIB_PATH], pattern[SH_DYNLIB_PATH + 256];
    glob_t files = {0};
    bool ended = false;

    if (n == 0) return false;
    quote(folder, n, quoted);
    snprintf(pattern, sizeof(pattern), "%s%s/%s", quoted, below, name);
    if (glob(pattern, GLOB_BRACE, NULL, &files) == 0) {
        for (size_t i = 0; i < files.gl_pathc && !ended; i++) ended = each(s, files.gl_pathv[i]);
    }
    globfree(&files);
    return ended;
}

/** Characters of a file's folder. */
static int folder_length(const char *path)
{
    return sh_path_name(path) == path ? 0 : (int)(sh_path_name(path) - path) - 1;
}

static bool visit_place(search *s, const struct place *p, const char *name, visit each)
{
    char program[SH_DYNLIB_PATH] = "";
    const char *value = NULL, *file = p->of == PROGRAM ? program : s->spec->near;

    if (p->of == PROGRAM && sh_path_program(program, sizeof(program)) != SH_OK) return false;
    if (p->of == PROGRAM || p->of == NEAR)
        return file != NULL && visit_folder(s, file, folder_length(file), p->folders, name, each);
    if (p->of == FOLDER)
        return visit_folder(s, p->name, (int)strlen(p->name), p->folders, name, each);
    const char *variable = p->of == ROOT ? s->spec->root : p->name;
    if (variable != NULL) value = getenv(variable);
    while (value != NULL && *value != '\0') {
        int n = (int)strcspn(value, ":");

        if (visit_folder(s, value, n, p->folders, name, each)) return true;
        value += n + (value[n] == ':');
    }
    return false;
}

static bool visit_all(search *s, const char *name, visit each)
{
    for (size_t i = 0; i < SH_COUNT(places); i++) {
        if (places[i].of == LOADER) {
            if (each == try_file && try_file(s, name)) return true;
        } else if (visit_place(s, &places[i], name, each)) {
            return true;
        }
    }
    return false;
}

sh_status sh_dynlib_open(const sh_dynlib_spec *spec, void *calls, sh_dynlib *out)
{
    sh_status st = SH_OK;
    sh_dynlib found = {0};
    search s = {.spec = spec, .calls = calls, .found = &found};
    bool has_root = spec->root != NULL;

    if (!visit_all(&s, spec->file, try_file)) {
        (void)visit_all(&s, spec->like, keep_other);
        SH_CHECK(s.refused[0] == '\0', SH_ERR_NOT_FOUND, "no %s that can be used: %s", spec->file,
                 s.refused);
        SH_FAIL(SH_ERR_NOT_FOUND,
                "no %s beside the program%s%s, where the loader looks, in CUDA's folders or in "
                "Python's packages%s%s%s",
                spec->file, has_root ? ", in " : "", has_root ? spec->root : "",
                s.other[0] != '\0' ? "; " : "", s.other,
                s.other[0] != '\0' ? " is another version" : "");
    }
    if (spec->needs != NULL)
        (void)visit_folder(&s, found.path, folder_length(found.path), "", spec->needs, open_needed);
    snprintf(found.passed_over, sizeof(found.passed_over), "%s", s.refused);
    *out = found;
out:
    return st;
}

void sh_dynlib_describe(const sh_dynlib *library, char *text, size_t size)
{
    char version[32] = "";

    if (library->version != 0) version_text(library->version, version);
    snprintf(text, size, "%s%s%s%s%s%s", version, version[0] != '\0' ? ", " : "", library->path,
             library->passed_over[0] != '\0' ? " (not " : "", library->passed_over,
             library->passed_over[0] != '\0' ? ")" : "");
}
