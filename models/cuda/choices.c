// SPDX-License-Identifier: Apache-2.0
#include "models/cuda/choices.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "models/cuda/cudnn_graph.h"
#include "models/cuda/memory.h"

typedef struct entry {
    char *key, *choice; /* one allocation, at key */
} entry;

static struct {
    pthread_mutex_t lock;
    entry *entries; /* sorted by key */
    int n, capacity;
    bool measure;
    bool may_vary; /* kernels need not repeat */
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

/** Where key is or belongs. */
static int place_of(const char *key, bool *found)
{
    int low = 0, high = table.n;

    *found = false;
    while (low < high) {
        int mid = (low + high) / 2, order = strcmp(table.entries[mid].key, key);
        *found = order == 0;
        if (*found) return mid;
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static sh_status insert(const char *key, const char *choice)
{
    sh_status st = SH_OK;
    const size_t n_key = strlen(key) + 1, n_choice = strlen(choice) + 1;
    char *text = NULL;
    bool found;
    int at = place_of(key, &found);

    SH_CHECK(!found, SH_ERR_INTERNAL, "two choices for %s", key);
    SH_CHECK(n_choice <= SH_CHOICE_BYTES, SH_ERR_FORMAT, "%s: a choice of %zu bytes", key,
             n_choice);
    if (table.n == table.capacity) {
        int capacity = table.capacity == 0 ? 64 : 2 * table.capacity;
        entry *entries = realloc(table.entries, (size_t)capacity * sizeof(*entries));
        SH_CHECK(entries != NULL, SH_ERR_NO_MEMORY, "%d choices", capacity);
        table.entries = entries;
        table.capacity = capacity;
    }
    text = malloc(n_key + n_choice);
    SH_CHECK(text != NULL, SH_ERR_NO_MEMORY, "a choice");
    memcpy(text, key, n_key);
    memcpy(text + n_key, choice, n_choice);
    memmove(&table.entries[at + 1], &table.entries[at],
            (size_t)(table.n - at) * sizeof(*table.entries));
    table.entries[at] = (entry){text, text + n_key};
    table.n++;
out:
    return st;
}

static void clear(void)
{
    for (int i = 0; i < table.n; i++) free(table.entries[i].key);
    table.n = 0;
}

/** Insert the lines behind the first. */
static sh_status read_lines(char *lines)
{
    sh_status st = SH_OK;
    char *rest = NULL;

    for (char *line = strtok_r(lines, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        char *colon = strstr(line, ": ");
        SH_CHECK(colon != NULL && colon[2] != '\0', SH_ERR_FORMAT,
                 "\"%s\" is no choice of a kernel: those are \"what: choice\"", line);
        *colon = '\0';
        SH_TRY(insert(line, colon + 2));
    }
out:
    return st;
}

static sh_status describe(char *out, size_t size)
{
    sh_status st = SH_OK;
    const sh_cudnn_api *cudnn = sh_cuda_cudnn();

    snprintf(out, size, "no cuDNN");
    if (cudnn != NULL) SH_TRY(cudnn->describe(out, size));
out:
    return st;
}

sh_status sh_cuda_set_choices(const char *text, bool measure, bool repeatable)
{
    sh_status st = SH_OK;
    char here[SH_CHOICE_BYTES], *copy = strdup(text);

    pthread_mutex_lock(&table.lock);
    clear();
    table.measure = measure;
    table.may_vary = !repeatable;
    SH_CHECK(copy != NULL, SH_ERR_NO_MEMORY, "choices of kernels");
    if (text[0] == '\0') goto out;
    SH_TRY(describe(here, sizeof(here)));
    char *end = strchr(copy, '\n');
    SH_CHECK(end != NULL, SH_ERR_FORMAT, "choices of kernels without their first line");
    *end = '\0';
    SH_CHECK(strcmp(copy, here) == 0, SH_ERR_MISMATCH,
             "kernels were chosen for \"%s\", and here is \"%s\": go on there, or choose anew "
             "(retune=true)",
             copy, here);
    SH_TRY(read_lines(end + 1));
out:
    pthread_mutex_unlock(&table.lock);
    free(copy);
    return st;
}

sh_status sh_cuda_get_choices(char **text)
{
    sh_status st = SH_OK;
    char here[SH_CHOICE_BYTES], *written = NULL;
    size_t n_bytes = 0;
    FILE *out = open_memstream(&written, &n_bytes);

    pthread_mutex_lock(&table.lock);
    SH_CHECK(out != NULL, SH_ERR_NO_MEMORY, "choices of kernels");
    SH_TRY(describe(here, sizeof(here)));
    fprintf(out, "%s\n", here);
    for (int i = 0; i < table.n; i++)
        fprintf(out, "%s: %s\n", table.entries[i].key, table.entries[i].choice);
    int failed = fclose(out);
    out = NULL;
    SH_CHECK(failed == 0, SH_ERR_NO_MEMORY, "choices of kernels");
    *text = written;
    written = NULL;
out:
    pthread_mutex_unlock(&table.lock);
    if (out != NULL) fclose(out);
    free(written);
    return st;
}

bool sh_cuda_measures(void)
{
    pthread_mutex_lock(&table.lock);
    bool measure = table.measure;
    pthread_mutex_unlock(&table.lock);
    return measure;
}

bool sh_cuda_repeats(void)
{
    pthread_mutex_lock(&table.lock);
    bool may_vary = table.may_vary;
    pthread_mutex_unlock(&table.lock);
    return !may_vary;
}

bool sh_cuda_find_choice(const char *key, char out[SH_CHOICE_BYTES])
{
    bool found;

    pthread_mutex_lock(&table.lock);
    int at = place_of(key, &found);
    if (found) snprintf(out, SH_CHOICE_BYTES, "%s", table.entries[at].choice);
    pthread_mutex_unlock(&table.lock);
    return found;
}

sh_status sh_cuda_add_choice(const char *key, const char *choice)
{
    pthread_mutex_lock(&table.lock);
    sh_status st = insert(key, choice);
    pthread_mutex_unlock(&table.lock);
    return st;
}
