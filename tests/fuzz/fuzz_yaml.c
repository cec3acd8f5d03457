// SPDX-License-Identifier: Apache-2.0
/** Any bytes as an experiment file: read, checked, written back and read again as the same. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static sh_config config, again;
    const sh_option_table *table = sh_config_options();
    char *text = NULL;
    size_t n = 0;

    memset(&config, 0, sizeof(config));
    memset(&again, 0, sizeof(again));
    if (sh_options_defaults(table, &config) != SH_OK) abort();
    /* What stands at its default in a numbered section is not written. */
    if (sh_options_defaults(table, &again) != SH_OK) abort();
    if (sh_options_parse(table, (const char *)data, size, "fuzz.yaml", &config) != SH_OK) return 0;
    if (sh_options_write(table, &config, &text, &n) != SH_OK) abort();
    if (sh_options_parse(table, text, n, "written", &again) != SH_OK) {
        fprintf(stderr, "%s\n%s\n", sh_error_message(), text);
        abort();
    }
    if (sh_options_check_resume(table, &config, &again) != SH_OK) abort();
    if (sh_config_check(&config) == SH_OK) {
        for (int64_t step = 0; step < 3; step++) (void)sh_config_learning_rate(&config, step);
        if (sh_config_shards(&config) < 1) abort();
    }
    free(text);
    return 0;
}
