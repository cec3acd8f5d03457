// SPDX-License-Identifier: Apache-2.0
/* Who is to blame: from what one rank knows to a verdict. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "comm/watch.h"

enum { MAX_BLAMED = 16, MAX_DESCRIBED = 256 };

/* Silences of one event begin within a beat or two of each other: once one rank is lost, those that
 * have been silent for nearly as long are named with it. */
static const double same_event_s = 2;

/* A rank that hears no judge waits for the judges' own verdict to come first. */
static const double patience_s = 1;

typedef struct text {
    char *at;
    size_t left;
} text;

static void append(text *t, const char *fmt, ...) SH_PRINTF(2, 3);

static void append(text *t, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    int n = vsnprintf(t->at, t->left, fmt, args);

    va_end(args);
    if (n < 0) return;
    size_t used = (size_t)n < t->left ? (size_t)n : t->left - 1;

    t->at += used;
    t->left -= used;
}

void sh_watch_choose_judges(sh_watch *w)
{
    w->judges[0] = 0;
    w->judges[1] = w->n_ranks > 1 ? 1 : 0;
    for (int r = w->n_ranks - 1; r > 0; r--)
        if (strcmp(w->ranks[r].host, w->ranks[0].host) != 0) w->judges[1] = r;
}

bool sh_watch_is_judge(const sh_watch *w, int rank)
{
    return rank == w->judges[0] || rank == w->judges[1];
}

static bool is_lost(const sh_watch *w, int rank, double after_s)
{
    const sh_watch_rank *r = &w->ranks[rank];

    return rank != w->self && !r->left && (r->ended || r->silent_s > after_s);
}

/* Hosts besides this one that have ranks in the job, and those of them that are silent altogether.
 * A host whose processes ended can be reached. */
static void count_hosts(const sh_watch *w, double after_s, int *n_others, int *n_silent)
{
    *n_others = *n_silent = 0;
    for (int r = 0; r < w->n_ranks; r++) {
        const char *host = w->ranks[r].host;
        bool is_first = true, silent = true;

        if (strcmp(host, w->ranks[w->self].host) == 0) continue;
        for (int o = 0; o < w->n_ranks; o++) {
            if (strcmp(w->ranks[o].host, host) != 0) continue;
            if (o < r) is_first = false;
            if (w->ranks[o].left || w->ranks[o].ended || w->ranks[o].silent_s <= after_s)
                silent = false;
        }
        if (!is_first) continue;
        *n_others += 1;
        *n_silent += silent;
    }
}

static void blame_lost(const sh_watch *w, int rank, text *t)
{
    const sh_watch_rank *r = &w->ranks[rank];
    const char *link = "";

    if (w->n_ranks == 2 && strcmp(r->host, w->ranks[w->self].host) != 0)
        link = " - seen from the only other rank";
    if (r->ended)
        append(t, "rank %d on %s is gone: its process ended without a goodbye (killed, or crashed)",
               rank, r->host);
    else
        append(t,
               "rank %d on %s is lost: no sign of life for %.1f s (stopped, or its host or link is "
               "down%s)",
               rank, r->host, r->silent_s, link);
    append(t, ". Last seen %s: %s\n", sh_activity_name(r->position.activity), r->position.what);
}

static bool judge_lives(const sh_watch *w, text *t)
{
    double limit = w->config->lost_seconds;
    int n_lost = 0, n_named = 0, n_others, n_silent;

    for (int r = 0; r < w->n_ranks; r++) n_lost += is_lost(w, r, limit);
    if (n_lost == 0) return false;
    count_hosts(w, limit - same_event_s, &n_others, &n_silent);
    if (n_others >= 2 && n_silent == n_others) {
        append(t, "rank %d on %s is cut off: it hears none of the other %d hosts for %.1f s\n",
               w->self, w->ranks[w->self].host, n_others, limit);
        return true;
    }
    for (int r = 0; r < w->n_ranks && n_named < MAX_BLAMED; r++) {
        if (!is_lost(w, r, limit - same_event_s)) continue;
        blame_lost(w, r, t);
        n_named++;
    }
    return true;
}

static double budget_of(const sh_watchdog_config *c, sh_activity activity)
{
    switch (activity) {
    case SH_AT_COMPUTE: return c->compute_seconds;
    case SH_AT_FILES: return c->files_seconds;
    case SH_AT_COLLECTIVE: /* judged together: who waits is not to blame */
    case SH_AT_WORK:
    case SH_AT_COUNT: break;
    }
    return 0;
}

/* How many ranks are at the same place as this one. */
static int n_together(const sh_watch *w, int rank)
{
    int n = 0;

    for (int r = 0; r < w->n_ranks; r++)
        n += !w->ranks[r].left &&
             strcmp(w->ranks[r].position.what, w->ranks[rank].position.what) == 0;
    return n;
}

/* All wait for each other: either they wait for different things, and the fewest are to blame, or
 * messages do not arrive. Leaving is getting on: the others may just not have been told yet that
 * the barrier before it is over, for which they waited as long as the one that left wrote its
 * files. */
static bool judge_collective(const sh_watch *w, text *t)
{
    double limit = w->config->collective_seconds;
    int n = 0, odd = -1;

    for (int r = 0; r < w->n_ranks; r++) {
        const sh_watch_rank *rank = &w->ranks[r];

        if (rank->left && rank->silent_s <= limit) return false;
        if (rank->left) continue;
        if (rank->position.activity != SH_AT_COLLECTIVE || rank->still_s <= limit) return false;
        if (odd < 0 || n_together(w, r) < n_together(w, odd)) odd = r;
        n++;
    }
    if (limit <= 0 || n < 2) return false;
    if (n_together(w, odd) == n)
        append(
            t,
            "no rank got on for %.0f s: all %d wait in %s. The network, or the message layer, is "
            "stuck\n",
            limit, n, w->ranks[odd].position.what);
    else
        append(
            t,
            "no rank got on for %.0f s: all %d wait for each other in different collectives, and "
            "rank %d on %s is in %s\n",
            limit, n, odd, w->ranks[odd].host, w->ranks[odd].position.what);
    return true;
}

static bool judge_progress(const sh_watch *w, text *t)
{
    int n_named = 0;

    for (int r = 0; r < w->n_ranks && n_named < MAX_BLAMED; r++) {
        const sh_watch_rank *rank = &w->ranks[r];
        double budget = budget_of(w->config, rank->position.activity);

        if (rank->left || budget <= 0 || rank->still_s <= budget) continue;
        append(t, "rank %d on %s is stuck: for %.0f s it has not got on, %s: %s\n", r, rank->host,
               rank->still_s, sh_activity_name(rank->position.activity), rank->position.what);
        n_named++;
    }
    return n_named > 0 || judge_collective(w, t);
}

/* Of a rank that is no judge: are both unheard, though neither said goodbye? */
static bool judge_judges(const sh_watch *w, text *t)
{
    double limit = w->config->lost_seconds + patience_s;

    for (int j = 0; j < 2; j++)
        if (!is_lost(w, w->judges[j], limit)) return false;
    append(t,
           "rank %d on %s is cut off: no sign of life from rank %d on %s nor from rank %d on %s "
           "for %.1f s\n",
           w->self, w->ranks[w->self].host, w->judges[0], w->ranks[w->judges[0]].host, w->judges[1],
           w->ranks[w->judges[1]].host, limit);
    return true;
}

bool sh_watch_judge(const sh_watch *w, char *verdict, size_t size)
{
    text t = {verdict, size};
    int first = w->judges[0];

    if (!sh_watch_is_judge(w, w->self)) return judge_judges(w, &t);
    /* The second judge speaks where the first one cannot. */
    if (w->self != first && !w->ranks[first].left && !is_lost(w, first, w->config->lost_seconds))
        return false;
    return judge_lives(w, &t) || judge_progress(w, &t);
}

void sh_watch_describe(const sh_watch *w, char *out, size_t size)
{
    text t = {out, size};

    out[0] = '\0';
    for (int r = 0; r < w->n_ranks && r < MAX_DESCRIBED; r++) {
        const sh_watch_rank *rank = &w->ranks[r];

        append(&t, "rank %d on %s: ", r, rank->host);
        if (rank->left)
            append(&t, "has left\n");
        else if (!rank->heard)
            append(&t, "unknown from here\n");
        else
            append(&t, "%s for %.1f s%s: %s\n", sh_activity_name(rank->position.activity),
                   rank->still_s, rank->ended ? " (gone)" : "", rank->position.what);
    }
}
