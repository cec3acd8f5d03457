// SPDX-License-Identifier: Apache-2.0
/** What of a configuration is about shallow training. */
#include <stdio.h>
#include <string.h>

#include "trainer/config.h"

enum { LIST_BYTES = 512 };

bool sh_config_is_shallow(const sh_config *c, int stage)
{
    return c->shallow.views > 0 && (sh_config_n_stages(c) == 0 || c->stages[stage].shallow);
}

/* The distortions that are asked for, as key=value, one after another. */
static void list_augment(const sh_config *c, char text[LIST_BYTES])
{
    const sh_option_table *table = sh_config_options();

    text[0] = '\0';
    for (int i = 0; i < table->n; i++) {
        const sh_option *option = &table->rows[i];
        size_t used = strlen(text);
        char value[32];

        if (strncmp(option->key, "augment.", 8) != 0) continue;
        sh_options_format(option, c, value, sizeof(value));
        if (strcmp(value, "0") == 0) continue;
        snprintf(text + used, LIST_BYTES - used, "%s%s=%s", used > 0 ? " " : "", option->key,
                 value);
    }
}

sh_status sh_config_check_shallow(const sh_config *c)
{
    sh_status st = SH_OK;
    char augment[LIST_BYTES];
    int n_stages = sh_config_n_stages(c);
    bool any = n_stages == 0 && c->shallow.views > 0;

    for (int i = 0; i < n_stages; i++) {
        SH_CHECK(
            !c->stages[i].shallow || c->shallow.views > 0, SH_ERR_USAGE,
            "stages.%d.shallow needs to know how many views of a crop to keep: shallow.views=1 "
            "for the crop as it is, or more for views drawn from augment.*",
            i);
        any = any || c->stages[i].shallow;
    }
    SH_CHECK(any || c->shallow.views == 0, SH_ERR_USAGE,
             "shallow.views=%lld, but no stage is shallow: set stages.0.shallow=true, or "
             "shallow.views=0",
             (long long)c->shallow.views);
    list_augment(c, augment);
    SH_CHECK(c->shallow.views != 1 || augment[0] == '\0', SH_ERR_USAGE,
             "shallow.views=1 keeps each crop as it is, so these would do nothing: %s. Set them to "
             "0, or keep views drawn from them: shallow.views=8",
             augment);
    SH_CHECK(c->shallow.views <= 1 || augment[0] != '\0', SH_ERR_USAGE,
             "shallow.views=%lld would keep the same features as often: no augment.* is set to "
             "draw views from; set shallow.views=1",
             (long long)c->shallow.views);
out:
    return st;
}
