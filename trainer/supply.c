// SPDX-License-Identifier: Apache-2.0
#include "trainer/supply.h"

#include <stdio.h>

#include "base/cpu.h"
#include "base/log.h"

enum { CACHE_SHARE = 4 }; /* one part in so many of a host's memory */

static const double WAITING = 0.10; /* of a window: worth a line */
static const double IDLE = 0.60;    /* threads that compute less of their time wait for storage */
static const double MEGABYTE = 1e6;
static const double FULLY_CACHED = 0.99;

size_t sh_supply_cache_bytes(int64_t cache_mb, int n_ranks)
{
    if (cache_mb >= 0) return (size_t)cache_mb << 20;
    return (size_t)(sh_cpu_memory_bytes() / CACHE_SHARE / n_ranks);
}

/* loader.cache_mb that holds them. */
static long long megabytes_for(int64_t n_bytes)
{
    return (long long)(n_bytes >> 20) + 1;
}

void sh_supply_describe_cache(const sh_supply *supply)
{
    double decoded = (double)supply->decoded_bytes, room = (double)supply->cache_bytes;

    if (room >= decoded)
        sh_log_info("decoded, the crops take %.0f MB; each rank keeps up to %.0f MB in memory: all "
                    "of them",
                    decoded / MEGABYTE, room / MEGABYTE);
    else
        sh_log_info("decoded, the crops take %.0f MB; each rank keeps up to %.0f MB in memory: "
                    "%.0f %%, the others are decoded each time (loader.cache_mb=%lld for all)",
                    decoded / MEGABYTE, room / MEGABYTE, 100 * room / decoded,
                    megabytes_for(supply->decoded_bytes));
}

static void advise(const sh_supply *s, double busy, char *text, size_t size)
{
    if (s->cache_bytes < (size_t)s->decoded_bytes)
        snprintf(text, size, "loader.cache_mb=%lld would keep all decoded crops in memory",
                 megabytes_for(s->decoded_bytes));
    else if (busy < IDLE)
        snprintf(text, size,
                 "the loader's threads wait too: for storage (loader.copy_to=FOLDER reads from a "
                 "disk of the node), or for a core");
    else if (s->threads < s->cores)
        snprintf(text, size, "loader.threads=%d would use all cores that the rank has", s->cores);
    else
        snprintf(text, size, "more cores for each rank, or a smaller size");
}

bool sh_supply_look(sh_supply_meter *meter, const sh_supply *supply, double now,
                    const sh_loader_stats *stats, char text[SH_SUPPLY_TEXT])
{
    const sh_loader_stats *before = &meter->before;
    char advice[SH_SUPPLY_TEXT / 2];

    if (stats->n_crops < before->n_crops) meter->begin = 0; /* another loader's */
    double seconds = now - meter->begin, n_crops = (double)(stats->n_crops - before->n_crops);

    if (meter->is_over || (meter->begin > 0 && seconds < SH_SUPPLY_WINDOW_SECONDS)) return false;
    double waited = (stats->wait_seconds - before->wait_seconds) / seconds;
    double busy = (stats->busy_seconds - before->busy_seconds) / seconds / supply->threads;
    double cached = n_crops > 0 ? (double)(stats->n_cached - before->n_cached) / n_crops : 0;
    bool is_filling = supply->cache_bytes >= (size_t)supply->decoded_bytes && cached < FULLY_CACHED;

    meter->is_over = meter->begin > 0 && waited > WAITING && !is_filling;
    if (meter->is_over) {
        advise(supply, busy, advice, sizeof(advice));
        snprintf(
            text, SH_SUPPLY_TEXT,
            "steps wait for images: %.0f %% of the last %.0f s, at %.0f images/s; the loader's "
            "%d threads were busy for %.0f %% of it, %.0f %% of the crops came from memory. "
            "What would help: %s",
            100 * waited, seconds, n_crops / seconds, supply->threads, 100 * busy, 100 * cached,
            advice);
    }
    meter->begin = now;
    meter->before = *stats;
    return meter->is_over;
}
