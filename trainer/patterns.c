// SPDX-License-Identifier: Apache-2.0
#include "trainer/patterns.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"

enum { N_NEAR = 6, LIST_BYTES = 1024 };

/* Length of the common beginning of a pattern and a name; a wildcard ends it. */
static size_t common_length(const char *pattern, const char *name)
{
    size_t n = 0;

    while (pattern[n] != '\0' && pattern[n] == name[n]) n++;
    return n;
}

/* Names that begin as the pattern does, at most N_NEAR of them, and how many more there are. */
static sh_status no_match(const char *option, const char *pattern, const sh_store *store)
{
    char list[LIST_BYTES] = "";
    size_t best = 0;
    int n = 0;

    for (int i = 0; i < sh_store_n_slots(store); i++) {
        size_t length = common_length(pattern, sh_store_slot(store, i)->name);

        if (length > best) best = length;
    }
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        const char *name = sh_store_slot(store, i)->name;

        if (common_length(pattern, name) < best || n++ >= N_NEAR) continue;
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", n > 1 ? ", " : "", name);
    }
    if (n > N_NEAR)
        snprintf(list + strlen(list), sizeof(list) - strlen(list), " and %d more", n - N_NEAR);
    return sh_error_set(SH_ERR_USAGE, "%s: \"%s\" matches no parameter; near names: %s", option,
                        pattern, list);
}

static sh_status freeze_matching(const char *item, sh_store *store)
{
    sh_status st = SH_OK;
    bool thaw = item[0] == '!';
    const char *pattern = item + thaw;
    int n = 0;

    for (int i = 0; i < sh_store_n_slots(store); i++) {
        if (fnmatch(pattern, sh_store_slot(store, i)->name, 0) != 0) continue;
        sh_store_slot_mutable(store, i)->trainable = thaw;
        n++;
    }
    if (n == 0) st = no_match("freeze", pattern, store);
    return st;
}

static sh_status scale_matching(const char *item, sh_store *store)
{
    sh_status st = SH_OK;
    const char *equals = strrchr(item, '=');
    char pattern[SH_OPTION_TEXT];
    char *end = NULL;
    int n = 0;

    SH_CHECK(equals != NULL && equals - item < SH_OPTION_TEXT, SH_ERR_USAGE,
             "optimizer.lr_scale: \"%s\" is not PATTERN=FACTOR", item);
    double factor = strtod(equals + 1, &end);

    SH_CHECK(end != equals + 1 && *end == '\0' && isfinite(factor) && factor > 0, SH_ERR_USAGE,
             "optimizer.lr_scale: \"%s\" needs a factor above 0 (to train nothing, use freeze)",
             item);
    snprintf(pattern, sizeof(pattern), "%.*s", (int)(equals - item), item);
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        if (fnmatch(pattern, sh_store_slot(store, i)->name, 0) != 0) continue;
        sh_store_slot_mutable(store, i)->lr_scale = (float)factor;
        n++;
    }
    if (n == 0) st = no_match("optimizer.lr_scale", pattern, store);
out:
    return st;
}

/* Call `apply` for every line of `text`. */
static sh_status for_each_line(const char *text, sh_status (*apply)(const char *, sh_store *),
                               sh_store *store)
{
    sh_status st = SH_OK;
    char item[SH_OPTION_TEXT];

    while (text != NULL && *text != '\0') {
        size_t n = strcspn(text, "\n");

        SH_CHECK(n < sizeof(item), SH_ERR_USAGE, "pattern too long: %.60s...", text);
        snprintf(item, sizeof(item), "%.*s", (int)n, text);
        SH_TRY(apply(item, store));
        text += n + (text[n] == '\n');
    }
out:
    return st;
}

/* The slot that `name` becomes when its last part is replaced by `part`; -1: there is none. */
static int sibling(const sh_store *store, const char *name, const char *part)
{
    char text[sizeof(((sh_slot *)0)->name)];
    const char *dot = strrchr(name, '.');

    if (dot == NULL) return -1;
    snprintf(text, sizeof(text), "%.*s%s", (int)(dot + 1 - name), name, part);
    return sh_store_find(store, text);
}

/* Both statistics of a batch norm rest where one of them was named or its scale is frozen. */
static void settle_statistics(sh_store *store)
{
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        sh_slot *slot = sh_store_slot_mutable(store, i);

        if (slot->kind != SH_SLOT_STATE) continue;
        int scale = sibling(store, slot->name, "weight");

        if (scale < 0) scale = sibling(store, slot->name, "bias");
        if (scale >= 0 && !sh_store_slot(store, scale)->trainable) slot->trainable = false;
    }
    for (int i = 0; i < sh_store_n_slots(store); i++) {
        static const char *const parts[] = {"running_mean", "running_var"};
        const sh_slot *slot = sh_store_slot(store, i);

        if (slot->kind != SH_SLOT_STATE || slot->trainable) continue;
        for (size_t k = 0; k < SH_COUNT(parts); k++) {
            int other = sibling(store, slot->name, parts[k]);

            if (other >= 0) sh_store_slot_mutable(store, other)->trainable = false;
        }
    }
}

sh_status sh_patterns_mark(const char *freeze, const char *lr_scale, sh_store *store)
{
    sh_status st = SH_OK;

    for (int i = 0; i < sh_store_n_slots(store); i++) {
        sh_slot *slot = sh_store_slot_mutable(store, i);

        slot->trainable = true;
        slot->lr_scale = 1;
    }
    SH_TRY(for_each_line(freeze, freeze_matching, store));
    settle_statistics(store);
    SH_TRY(for_each_line(lr_scale, scale_matching, store));
out:
    return st;
}
