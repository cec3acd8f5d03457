// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

static int this_rank = 0;
static int rank_count = 1;

static pthread_mutex_t progress_lock = PTHREAD_MUTEX_INITIALIZER;
static size_t progress_width = 0; /* columns that the standing progress line covers */
static double progress_time = -1e9;

enum { PROGRESS_LOG_SECONDS = 10 };

void sh_log_set_rank(int rank, int n_ranks)
{
    this_rank = rank;
    rank_count = n_ranks;
}

/* Blank the progress line so that an ordinary line can take its place. Lock held. */
static void erase_progress(void)
{
    if (progress_width > 0) fprintf(stderr, "\r%*s\r", (int)progress_width, "");
    progress_width = 0;
}

void sh_log(sh_log_level level, const char *fmt, ...)
{
    static const char *const prefix[] = {"error: ", "warning: ", ""};
    char line[4096];
    char rank[32] = "";
    va_list args;

    if (level == SH_LOG_INFO && rank_count > 1 && this_rank != 0) return;
    if (rank_count > 1 && this_rank != 0) snprintf(rank, sizeof(rank), "[rank %d] ", this_rank);
    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    pthread_mutex_lock(&progress_lock);
    erase_progress();
    fprintf(stderr, "shoal: %s%s%s\n", rank, prefix[level], line);
    pthread_mutex_unlock(&progress_lock);
}

void sh_log_progress(const char *fmt, ...)
{
    char line[512];
    va_list args;

    if (this_rank != 0) return;
    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    pthread_mutex_lock(&progress_lock);
    if (isatty(STDERR_FILENO)) {
        erase_progress();
        fprintf(stderr, "\r%s", line);
        progress_width = strlen(line);
    } else if (sh_clock_seconds() - progress_time >= PROGRESS_LOG_SECONDS) {
        progress_time = sh_clock_seconds();
        fprintf(stderr, "shoal: %s\n", line);
    }
    pthread_mutex_unlock(&progress_lock);
}

void sh_log_progress_end(void)
{
    pthread_mutex_lock(&progress_lock);
    if (progress_width > 0) fprintf(stderr, "\n");
    progress_width = 0;
    progress_time = -1e9;
    pthread_mutex_unlock(&progress_lock);
}
