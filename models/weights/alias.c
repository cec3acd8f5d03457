// SPDX-License-Identifier: Apache-2.0
#include "models/weights/alias.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/weights/internal.h"

enum { MAX_NUMBER = 99999 };

/* What a pattern caught. */
typedef struct catch
{
    int64_t values[26];
    int64_t number; /* of a {#}; 0 where there is none */
    size_t n_stem;  /* characters before a {#}; 0: none met */
    const char *rest;
}
catch;

/* Take a decimal number off the front of *text. */
static bool take_number(const char **text, int64_t *value)
{
    const char *t = *text;

    if (!isdigit((unsigned char)*t)) return false;
    for (*value = 0; isdigit((unsigned char)*t) && *value <= MAX_NUMBER; t++)
        *value = 10 * *value + (*t - '0');
    *text = t;
    return *value <= MAX_NUMBER;
}

/* Stage and block of a block that is numbered through. */
static bool take_apart(const sh_alias *alias, int64_t index, int64_t *stage, int64_t *block)
{
    for (int s = 0; alias->depths != NULL && alias->depths[s] > 0; s++) {
        if (index < alias->depths[s]) {
            *stage = s + alias->first_stage;
            *block = index;
            return true;
        }
        index -= alias->depths[s];
    }
    return false;
}

/* One {...} of a pattern; *pattern and *text move behind it. */
static bool take_field(const sh_alias *alias, const char **pattern, const char **text,
                       const char *name, catch *c)
{
    const char *p = *pattern + 1, *t = *text;
    int64_t value = 0;

    *pattern = strchr(p, '}') + 1;
    if (*p == '#') {
        c->n_stem = (size_t)(t - name);
        c->number = 0;
        if (*t != '_') return true;
        t++;
        if (!take_number(&t, &c->number)) return false;
    } else if (p[1] == ':') {
        if (!islower((unsigned char)*t)) return false;
        c->values[*p - 'a'] = *t++ - 'a';
    } else {
        if (!take_number(&t, &value)) return false;
        c->values[*p - 'a'] = value;
        if (p[1] == ',' && !take_apart(alias, value, &c->values[*p - 'a'], &c->values[p[2] - 'a']))
            return false;
    }
    *text = t;
    return true;
}

static bool fits(const sh_alias *alias, const char *pattern, const char *name, catch *c)
{
    const char *text = name;

    *c = (catch){.rest = ""};
    while (*pattern != '\0') {
        if (*pattern == '*') {
            c->rest = text;
            return *text != '\0';
        }
        if (*pattern == '{') {
            if (!take_field(alias, &pattern, &text, name, c)) return false;
        } else if (*pattern++ != *text++) {
            return false;
        }
    }
    return *text == '\0';
}

/* How many different layers of the set fit the rule and have a lower number. */
static int64_t rank_of(const sh_alias *alias, const sh_alias_rule *rule, const char *name,
                       const catch *c, const sh_weights *weights)
{
    int64_t rank = 0;
    catch other;
    const char *tail = name + c->n_stem;

    if (c->number > 0) tail += strcspn(tail, ".");
    for (int64_t i = 0; i < sh_weights_count(weights); i++) {
        const char *text = sh_weights_get(weights, i)->name;

        if (!fits(alias, rule->from, text, &other) || other.number >= c->number) continue;
        text += other.n_stem;
        text += strcspn(text, ".");
        rank += strcmp(text, tail) == 0; /* once per layer: the variable that is asked for */
    }
    return rank;
}

/* The rank-th layer of the sequence, and which time over it is. */
static const char *in_sequence(const sh_alias *alias, int64_t rank, int64_t *time)
{
    for (const sh_alias_group *g = alias->sequence; g != NULL && g->n > 0; g++) {
        int64_t n = 0;

        while (g->names[n] != NULL) n++;
        if (rank < n * g->n) {
            *time = rank / n;
            return g->names[rank % n];
        }
        rank -= n * g->n;
    }
    return NULL;
}

/* The number that a field {x}, {x,y}, {x+1} of `to` stands for; *p moves to its end. */
static int64_t field_value(const sh_alias *alias, const char **p, const catch *c)
{
    const char *f = *p + 1, *end = strchr(f, '}');
    int64_t value = c->values[*f++ - 'a'];

    if (*f == ',') {
        const int64_t n_stages = value - alias->first_stage;

        value = c->values[f[1] - 'a'];
        for (int64_t s = 0; s < n_stages && alias->depths[s] > 0; s++) value += alias->depths[s];
        f += 2;
    }
    if (*f == '+') value += f[1] - '0';
    if (*f == '-') value -= f[1] - '0';
    *p = end;
    return value;
}

/* Write the pattern `to` with what was caught. False where the name has no counterpart. */
static bool compose(const sh_alias *alias, const char *to, const catch *c, int64_t rank, char *out)
{
    size_t n = 0;

    for (const char *p = to; *p != '\0' && n < SH_ALIAS_NAME - 1; p++) {
        size_t room = SH_ALIAS_NAME - n;

        if (*p == '*') {
            n += (size_t)snprintf(out + n, room, "%s", c->rest);
        } else if (*p == '$') {
            catch inner = {.rest = ""};
            const char *name = in_sequence(alias, rank, &inner.values['i' - 'a']);

            if (name == NULL || !compose(alias, name, &inner, 0, out + n)) return false;
            n += strlen(out + n);
        } else if (*p == '{') {
            n += (size_t)snprintf(out + n, room, "%lld", (long long)field_value(alias, &p, c));
        } else {
            out[n++] = *p;
        }
    }
    if (n >= SH_ALIAS_NAME) return false;
    out[n] = '\0';
    return true;
}

const sh_alias_rule *sh_alias_translate(const sh_alias *alias, const char *name,
                                        const sh_weights *weights, char out[SH_ALIAS_NAME])
{
    catch c;

    for (const sh_alias_rule *rule = alias->rules; rule->from != NULL; rule++) {
        if (!fits(alias, rule->from, name, &c)) continue;

        int64_t rank = c.n_stem > 0 ? rank_of(alias, rule, name, &c, weights) : 0;

        if (compose(alias, rule->to, &c, rank, out)) return rule;
    }
    snprintf(out, SH_ALIAS_NAME, "%s", name);
    return NULL;
}

/* Columns (h, w, c) of a linear layer's weight [out, h w c] to (c, h, w). */
static sh_status reorder_columns(sh_weights *weights, int64_t index, const int hwc[3])
{
    sh_status st = SH_OK;
    const sh_weight *w = sh_weights_get(weights, index);
    const int64_t n_pixels = (int64_t)hwc[0] * hwc[1], n_columns = n_pixels * hwc[2];
    float *row = NULL, *data = sh_weights_data(weights, index);

    if (w->n_dims != 2 || w->dims[1] != n_columns) goto out; /* of another size: reported later */
    row = malloc((size_t)n_columns * sizeof(*row));
    SH_CHECK(row != NULL, SH_ERR_NO_MEMORY, "%s: %lld columns", w->name, (long long)n_columns);
    for (int64_t o = 0; o < w->dims[0]; o++) {
        float *at = data + o * n_columns;

        memcpy(row, at, (size_t)n_columns * sizeof(*row));
        for (int64_t pixel = 0; pixel < n_pixels; pixel++)
            for (int64_t c = 0; c < hwc[2]; c++) at[c * n_pixels + pixel] = row[pixel * hwc[2] + c];
    }
out:
    free(row);
    return st;
}

sh_status sh_alias_apply(const sh_alias *alias, sh_weights *weights)
{
    sh_status st = SH_OK;
    const int64_t n = sh_weights_count(weights);
    char(*names)[SH_ALIAS_NAME] = malloc((size_t)n * sizeof(*names));

    SH_CHECK(names != NULL, SH_ERR_NO_MEMORY, "%lld names", (long long)n);
    for (int64_t i = 0; i < n; i++) { /* all of them first: ranks are taken over the old names */
        const sh_alias_rule *rule =
            sh_alias_translate(alias, sh_weights_get(weights, i)->name, weights, names[i]);

        if (rule != NULL && rule->flattened[0] > 0)
            SH_TRY(reorder_columns(weights, i, rule->flattened));
    }
    for (int64_t i = 0; i < n; i++) SH_TRY(sh_weights_rename(weights, i, names[i]));
    SH_TRY(sh_weights_index(weights));
out:
    free(names);
    return st;
}
