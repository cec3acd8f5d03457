// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <string.h>

#include "models/weights/pickle_machine.h"

enum { BLOCK_VALUES = 512 };

struct sh_pickle_block {
    sh_pickle_block *next;
    int n;
    sh_pickle_value values[BLOCK_VALUES];
};

static sh_status grow(const sh_pickle *m, sh_pickle_pointers *list)
{
    sh_status st = SH_OK;

    if (list->n == list->capacity) {
        int64_t capacity = list->capacity == 0 ? 8 : 2 * list->capacity;
        sh_pickle_value **items = realloc(list->items, (size_t)capacity * sizeof(*items));

        SH_CHECK(items != NULL, SH_ERR_NO_MEMORY, "%s: %lld values", m->label, (long long)capacity);
        list->items = items;
        list->capacity = capacity;
    }
out:
    return st;
}

sh_status sh_pickle_append(const sh_pickle *m, sh_pickle_pointers *list, sh_pickle_value *value)
{
    sh_status st = SH_OK;

    SH_TRY(grow(m, list));
    list->items[list->n++] = value;
out:
    return st;
}

sh_status sh_pickle_push(sh_pickle *m, sh_pickle_kind kind, sh_pickle_value **out)
{
    sh_status st = SH_OK;

    if (m->blocks == NULL || m->blocks->n == BLOCK_VALUES) {
        sh_pickle_block *b = calloc(1, sizeof(*b));

        SH_CHECK(b != NULL, SH_ERR_NO_MEMORY, "%s: pickle values", m->label);
        b->next = m->blocks;
        m->blocks = b;
    }
    sh_pickle_value *value = &m->blocks->values[m->blocks->n++];

    value->kind = kind;
    SH_TRY(sh_pickle_append(m, &m->stack, value));
    if (out != NULL) *out = value;
out:
    return st;
}

sh_status sh_pickle_take(sh_pickle *m, size_t n, const uint8_t **bytes)
{
    sh_status st = SH_OK;

    SH_CHECK(n <= m->n_bytes - m->at, SH_ERR_FORMAT, "%s: the pickle is truncated", m->label);
    *bytes = m->data + m->at;
    m->at += n;
out:
    return st;
}

sh_status sh_pickle_run(const uint8_t *data, size_t n_bytes, const char *label, sh_pickle **out,
                        size_t *n_used)
{
    sh_status st = SH_OK;
    sh_pickle *m = calloc(1, sizeof(*m));

    SH_CHECK(m != NULL, SH_ERR_NO_MEMORY, "%s: pickle machine", label);
    m->data = data;
    m->n_bytes = n_bytes;
    m->label = label;
    SH_TRY(grow(m, &m->stack)); /* never NULL, so that positions in it can be computed */
    while (m->root == NULL) {
        const uint8_t *code = NULL;

        SH_TRY(sh_pickle_take(m, 1, &code));
        SH_TRY(sh_pickle_step(m, *code));
    }
    if (n_used != NULL) *n_used = m->at;
    *out = m;
    m = NULL;
out:
    sh_pickle_destroy(&m);
    return st;
}

void sh_pickle_destroy(sh_pickle **pickle)
{
    sh_pickle *m = *pickle;

    if (m == NULL) return;
    while (m->blocks != NULL) {
        sh_pickle_block *next = m->blocks->next;

        for (int i = 0; i < m->blocks->n; i++) {
            sh_pickle_value *v = &m->blocks->values[i];

            if (v->kind == SH_PICKLE_TUPLE || v->kind == SH_PICKLE_LIST ||
                v->kind == SH_PICKLE_DICT)
                free(v->as.list.items);
        }
        free(m->blocks);
        m->blocks = next;
    }
    free(m->stack.items);
    free(m->memo.items);
    free(m->storages.items);
    free(m->marks);
    free(m);
    *pickle = NULL;
}

const sh_pickle_value *sh_pickle_root(const sh_pickle *m)
{
    return m->root;
}

int64_t sh_pickle_n_storages(const sh_pickle *m)
{
    return m->storages.n;
}

sh_pickle_value **sh_pickle_storages(const sh_pickle *m)
{
    return m->storages.items;
}

bool sh_pickle_is(const sh_pickle_value *value, const char *text)
{
    return value->kind == SH_PICKLE_STRING && value->as.string.n == strlen(text) &&
           memcmp(value->as.string.text, text, value->as.string.n) == 0;
}
