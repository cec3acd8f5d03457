// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "dataio/import.h"

enum { PATH_BYTES = 4096, MAX_DEPTH = 64 };

/* Whether a file is taken for an image; its content decides later. */
static const char *const image_suffixes[] = {
    "jpg",  "jpeg", "jpe", "jfif", "png",  "pgm", "ppm", "pnm", "tif", "tiff", "heic",
    "heif", "gif",  "bmp", "webp", "avif", "pbm", "pam", "jp2", "jxl", "psd",
};

/* A sighting without a named recording is a recording of its day: pairs of one day are not scored.
 */
static const char *day_of(int64_t seconds, char out[32])
{
    time_t time = (time_t)seconds;
    struct tm tm = {0};

    gmtime_r(&time, &tm);
    strftime(out, 32, "%Y-%m-%d", &tm);
    return out;
}

sh_status sh_import_plan_add(sh_import_plan *plan, const sh_import_item *item)
{
    sh_status st = SH_OK;
    sh_import_item copy = *item;
    char day[32];
    const char **texts[] = {
        &copy.path,          &copy.name,          &copy.labels.individual, &copy.labels.recording,
        &copy.labels.camera, &copy.labels.species};
    int32_t index = 0;

    if (copy.labels.recording == NULL && copy.labels.time != SH_NO_TIME)
        copy.labels.recording = day_of(copy.labels.time, day);
    if (plan->texts == NULL) SH_TRY(sh_strings_create(&plan->texts));
    if (plan->n == plan->capacity) {
        int64_t capacity = plan->capacity > 0 ? 2 * plan->capacity : 1024;
        sh_import_item *items = realloc(plan->items, (size_t)capacity * sizeof(*items));

        SH_CHECK(items != NULL, SH_ERR_NO_MEMORY, "%lld images", (long long)capacity);
        plan->items = items;
        plan->capacity = capacity;
    }
    for (size_t i = 0; i < SH_COUNT(texts); i++) {
        if (*texts[i] == NULL) continue;
        SH_TRY(sh_strings_add(plan->texts, *texts[i], &index, NULL));
        *texts[i] = sh_strings_get(plan->texts, index);
    }
    plan->items[plan->n++] = copy;
out:
    return st;
}

static int compare_items(const void *a, const void *b)
{
    const sh_import_item *x = a, *y = b;

    return strcmp(x->name, y->name);
}

sh_status sh_import_plan_sort(sh_import_plan *plan)
{
    sh_status st = SH_OK;

    if (plan->n > 0) qsort(plan->items, (size_t)plan->n, sizeof(*plan->items), compare_items);
    for (int64_t i = 1; i < plan->n; i++)
        SH_CHECK(strcmp(plan->items[i - 1].name, plan->items[i].name) != 0, SH_ERR_USAGE,
                 "two images are called %s: %s and %s; import the folder above both, or remove "
                 "one",
                 plan->items[i].name, plan->items[i - 1].path, plan->items[i].path);
out:
    return st;
}

void sh_import_plan_clear(sh_import_plan *plan)
{
    free(plan->items);
    sh_drop_list_clear(&plan->dropped);
    sh_strings_destroy(&plan->texts);
    *plan = (sh_import_plan){0};
}

static bool looks_like_image(const char *name)
{
    const char *dot = strrchr(name, '.');

    for (size_t i = 0; dot != NULL && i < SH_COUNT(image_suffixes); i++)
        if (strcasecmp(dot + 1, image_suffixes[i]) == 0) return true;
    return false;
}

/* Compiled rules and the plan that they fill. */
typedef struct planner {
    sh_pattern **patterns;
    int n_patterns;
    bool keep_unmatched;
    sh_import_plan *plan;
} planner;

static sh_status label_file(planner *p, const char *path, const char *name)
{
    sh_status st = SH_OK;
    sh_import_item item = {.path = path, .name = name, .labels = SH_LABELS_NONE};
    bool matched = p->n_patterns == 0;
    char individual[PATH_BYTES];
    const char *slash = strchr(name, '/');

    item.rule = matched ? SH_RULE_FOLDER : SH_RULE_UNMATCHED;
    if (matched && slash != NULL) {
        snprintf(individual, sizeof(individual), "%.*s", (int)(slash - name), name);
        item.labels.individual = individual;
    }
    for (int i = 0; i < p->n_patterns && !matched; i++) {
        SH_TRY(sh_pattern_match(p->patterns[i], name, p->plan->texts, &matched, &item.labels));
        if (matched) item.rule = i;
    }
    if (!matched && !p->keep_unmatched)
        SH_TRY(sh_drop_list_add(&p->plan->dropped, name, "matches no --pattern"));
    else
        SH_TRY(sh_import_plan_add(p->plan, &item));
out:
    return st;
}

/* Why a file is left out without a look at it, or NULL. */
static const char *refusal(const char *name)
{
    const char *base = sh_path_name(name);

    if (!sh_is_utf8(name)) return "its name is no UTF-8: rename it";
    if (strlen(name) > SH_PACK_MAX_NAME) return "its name is longer than 1023 bytes: rename it";
    if (base[0] == '.') return "hidden";
    if (!looks_like_image(base)) return "not an image, by its name";
    return NULL;
}

static sh_status visit_file(planner *p, const char *path, const char *name)
{
    const char *why = refusal(name);

    return why != NULL ? sh_drop_list_add(&p->plan->dropped, name, why) : label_file(p, path, name);
}

/* All below `path`, whose name in the pack begins with `prefix`. */
static sh_status visit_folder(planner *p, const char *path, const char *prefix, int depth)
{
    sh_status st = SH_OK;
    char child[PATH_BYTES], name[PATH_BYTES];
    struct dirent *entry;
    struct stat info;
    DIR *dir = opendir(path);

    SH_CHECK(dir != NULL, SH_ERR_IO, "cannot list folder %s: %s", path, strerror(errno));
    SH_CHECK(depth < MAX_DEPTH, SH_ERR_USAGE, "%s is more than %d folders deep: a circle of links?",
             path, MAX_DEPTH);
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        SH_TRY(sh_path_join(path, entry->d_name, child, sizeof(child)));
        SH_CHECK((size_t)snprintf(name, sizeof(name), "%s%s", prefix, entry->d_name) <
                     sizeof(name) - 1,
                 SH_ERR_USAGE, "path too long: %.200s...", child);
        if (stat(child, &info) != 0)
            SH_TRY(sh_drop_list_add(&p->plan->dropped, name, strerror(errno)));
        else if (S_ISREG(info.st_mode))
            SH_TRY(visit_file(p, child, name));
        else if (!S_ISDIR(info.st_mode))
            SH_TRY(sh_drop_list_add(&p->plan->dropped, name, "neither a file nor a folder"));
        else if (entry->d_name[0] == '.')
            SH_TRY(sh_drop_list_add(&p->plan->dropped, name, "a hidden folder"));
        else
            SH_TRY(visit_folder(p, child, strcat(name, "/"), depth + 1));
    }
out:
    if (dir != NULL) closedir(dir);
    return st;
}

sh_status sh_import_plan_folders(const char *const *sources, int n_sources,
                                 const sh_folder_rules *rules, sh_import_plan *out)
{
    sh_status st = SH_OK;
    planner p = {.keep_unmatched = rules->keep_unmatched, .plan = out};

    p.patterns = calloc((size_t)rules->n_patterns + 1, sizeof(sh_pattern *));
    SH_CHECK(p.patterns != NULL, SH_ERR_NO_MEMORY, "%d patterns", rules->n_patterns);
    if (out->texts == NULL) SH_TRY(sh_strings_create(&out->texts));
    for (int i = 0; i < rules->n_patterns; i++) {
        SH_TRY(sh_pattern_parse(rules->patterns[i], &p.patterns[i]));
        p.n_patterns++;
    }
    for (int i = 0; i < n_sources; i++) {
        const char *slash = strrchr(sources[i], '/');

        SH_CHECK(sh_file_exists(sources[i]), SH_ERR_NOT_FOUND, "%s: no such file or folder",
                 sources[i]);
        if (sh_file_is_dir(sources[i]))
            SH_TRY(visit_folder(&p, sources[i], "", 0));
        else
            SH_TRY(visit_file(&p, sources[i], slash != NULL ? slash + 1 : sources[i]));
    }
    SH_TRY(sh_drop_list_sort(&out->dropped));
    SH_TRY(sh_import_plan_sort(out));
out:
    for (int i = 0; i < p.n_patterns; i++) sh_pattern_free(&p.patterns[i]);
    free(p.patterns);
    return st;
}

bool sh_parse_time(const char *text, int64_t *out)
{
    static const char *const formats[] = {
        "%Y-%m-%d",          "%Y-%m-%dT%H:%M",     "%Y-%m-%d %H:%M",     "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%SZ",
    };

    for (size_t i = 0; i < SH_COUNT(formats); i++) {
        struct tm tm = {0};
        const char *end = strptime(text, formats[i], &tm);

        if (end == NULL || *end != '\0') continue;
        *out = timegm(&tm);
        return true;
    }
    return false;
}
