// SPDX-License-Identifier: Apache-2.0
#include "dataio/strings.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { BLOCK_BYTES = 1 << 16 };

/* Text lives in blocks that never move, so that pointers to it stay valid. */
typedef struct block {
    struct block *next;
    size_t n_used, capacity;
    char text[];
} block;

struct sh_strings {
    block *blocks;
    const char **items;
    int32_t n, capacity;
    int32_t *slots;   /* open addressing; -1 is free */
    uint32_t n_slots; /* a power of two, at least 2 n */
    size_t longest;
};

sh_status sh_strings_create(sh_strings **out)
{
    sh_status st = SH_OK;
    sh_strings *s = calloc(1, sizeof(*s));

    SH_CHECK(s != NULL, SH_ERR_NO_MEMORY, "a string table");
    *out = s;
out:
    return st;
}

void sh_strings_destroy(sh_strings **strings)
{
    sh_strings *s = *strings;

    if (s == NULL) return;
    while (s->blocks != NULL) {
        block *next = s->blocks->next;

        free(s->blocks);
        s->blocks = next;
    }
    free(s->items);
    free(s->slots);
    free(s);
    *strings = NULL;
}

/* The slot that holds `text`, or the free one where it belongs. n_slots > 0. */
static uint32_t find_slot(const sh_strings *s, const char *text)
{
    uint32_t at = (uint32_t)sh_hash_content(text, strlen(text)).lo & (s->n_slots - 1);

    while (s->slots[at] >= 0 && strcmp(s->items[s->slots[at]], text) != 0)
        at = (at + 1) & (s->n_slots - 1);
    return at;
}

static sh_status grow(sh_strings *s)
{
    sh_status st = SH_OK;
    int32_t capacity = s->capacity > 0 ? 2 * s->capacity : 64;
    const char **items = NULL;
    int32_t *slots = NULL;

    if (s->n < s->capacity) goto out;
    SH_CHECK(s->capacity < INT32_MAX / 8, SH_ERR_UNSUPPORTED, "more than %d names", s->capacity);
    items = realloc(s->items, (size_t)capacity * sizeof(*items));
    SH_CHECK(items != NULL, SH_ERR_NO_MEMORY, "%d names", capacity);
    s->items = items;
    slots = malloc(2 * (size_t)capacity * sizeof(*slots));
    SH_CHECK(slots != NULL, SH_ERR_NO_MEMORY, "%d names", capacity);
    free(s->slots);
    s->slots = slots;
    s->n_slots = 2 * (uint32_t)capacity;
    s->capacity = capacity;
    memset(slots, 0xFF, s->n_slots * sizeof(*slots));
    for (int32_t i = 0; i < s->n; i++) s->slots[find_slot(s, s->items[i])] = i;
out:
    return st;
}

static sh_status copy_text(sh_strings *s, const char *text, const char **out)
{
    sh_status st = SH_OK;
    size_t n = strlen(text) + 1;

    if (s->blocks == NULL || s->blocks->capacity - s->blocks->n_used < n) {
        size_t capacity = n > BLOCK_BYTES ? n : BLOCK_BYTES;
        block *b = malloc(sizeof(*b) + capacity);

        SH_CHECK(b != NULL, SH_ERR_NO_MEMORY, "a string of %zu bytes", n);
        *b = (block){.next = s->blocks, .capacity = capacity};
        s->blocks = b;
    }
    *out = memcpy(s->blocks->text + s->blocks->n_used, text, n);
    s->blocks->n_used += n;
out:
    return st;
}

sh_status sh_strings_add(sh_strings *strings, const char *text, int32_t *index, bool *added)
{
    sh_status st = SH_OK;
    const char *copy = NULL;

    SH_TRY(grow(strings));
    uint32_t slot = find_slot(strings, text);
    bool is_new = strings->slots[slot] < 0;

    if (is_new) {
        SH_TRY(copy_text(strings, text, &copy));
        strings->slots[slot] = strings->n;
        strings->items[strings->n++] = copy;
        if (strlen(text) > strings->longest) strings->longest = strlen(text);
    }
    *index = strings->slots[slot];
    if (added != NULL) *added = is_new;
out:
    return st;
}

int32_t sh_strings_find(const sh_strings *strings, const char *text)
{
    return strings->n > 0 ? strings->slots[find_slot(strings, text)] : -1;
}

int32_t sh_strings_count(const sh_strings *strings)
{
    return strings->n;
}

const char *sh_strings_get(const sh_strings *strings, int32_t index)
{
    return index >= 0 && index < strings->n ? strings->items[index] : "";
}

size_t sh_strings_longest(const sh_strings *strings)
{
    return strings->longest;
}

static int compare_items(const void *a, const void *b, void *context)
{
    const sh_strings *s = context;

    return strcmp(s->items[*(const int32_t *)a], s->items[*(const int32_t *)b]);
}

sh_status sh_strings_sort(const sh_strings *strings, int32_t **order)
{
    sh_status st = SH_OK;
    int32_t *indices = malloc(((size_t)strings->n + 1) * sizeof(*indices));

    SH_CHECK(indices != NULL, SH_ERR_NO_MEMORY, "%d names to sort", strings->n);
    for (int32_t i = 0; i < strings->n; i++) indices[i] = i;
    qsort_r(indices, (size_t)strings->n, sizeof(*indices), compare_items, (void *)strings);
    *order = indices;
out:
    return st;
}
