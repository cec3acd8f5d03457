// SPDX-License-Identifier: Apache-2.0
/** Tests of how a job ends: the program starts itself under a launcher, with the name of a part to
 *  play, and looks at exit code and output. */
#ifndef SH_TESTS_COMM_PARTS_H
#define SH_TESTS_COMM_PARTS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

enum { OUTPUT_BYTES = 1 << 16 };

/* Run this program as `part` behind `prefix` (a launcher, or settings); exit code, output in text.
 */
static int run_part(const char *prefix, const char *part, char text[OUTPUT_BYTES], double *seconds)
{
    char self[1024] = "", command[2048];
    double start = sh_clock_seconds();
    size_t n = 0;

    assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
    snprintf(command, sizeof(command), "timeout -k 2 40 %s '%s' %s 2>&1", prefix, self, part);
    FILE *pipe = popen(command, "r");

    assert_non_null(pipe);
    while (n < OUTPUT_BYTES - 1) {
        size_t got = fread(text + n, 1, OUTPUT_BYTES - 1 - n, pipe);

        if (got == 0) break;
        n += got;
    }
    text[n] = '\0';
    int rc = pclose(pipe);

    *seconds = sh_clock_seconds() - start;
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

static const char mpirun3[] = "mpirun --oversubscribe --allow-run-as-root -n 3";

static int n_lines_with(const char *text, const char *what)
{
    int n = 0;

    for (const char *at = strstr(text, what); at != NULL; at = strstr(at + 1, what)) n++;
    return n;
}

#endif
