// SPDX-License-Identifier: Apache-2.0
/**
 * What benches measure a backend with: the clock of what computes, what memory and arithmetic can
 * do at most, cold caches. Each backend that has a device has one; the others share the host's.
 *
 * None of this is for training: it waits, allocates and takes its time.
 */
#ifndef SH_MODELS_METER_H
#define SH_MODELS_METER_H

#include "models/backend.h"

SH_C_BEGIN

/** A multiply-add counts as two operations. 0: not known. */
typedef struct sh_peaks {
    double f32_flops, bf16_flops;   /* per second */
    double read_bytes, triad_bytes; /* per second, from memory: reading; reading two streams and
                                       writing a third past the caches */
    double bytes;                   /* mean of the two: what a mix of both can expect */
} sh_peaks;

typedef struct sh_watch sh_watch; /* opaque; points in the order of what computes */
typedef struct sh_flush sh_flush; /* opaque */

typedef struct sh_meter {
    const char *peaks_of; /* what `peaks` measures, for people */

    /** Measure for about a second, of several tries the best. Reserves memory meanwhile. */
    sh_status (*peaks)(sh_peaks *out);

    /** A clock that reads when what was asked for before a point has been computed, and not when
     *  it was asked for. The caller owns *out. */
    sh_status (*watch_create)(int n_points, sh_watch **out);
    void (*watch_destroy)(sh_watch **watch); /* NULL is fine */
    sh_status (*watch_put)(sh_watch *watch, int point);
    /** Seconds between two points that were put; waits for them. */
    sh_status (*watch_read)(const sh_watch *watch, int from, int to, double *seconds);

    /** Push everything out of the caches, before what is computed next. */
    sh_status (*flush_create)(sh_flush **out);
    sh_status (*flush_run)(sh_flush *flush);
    void (*flush_destroy)(sh_flush **flush); /* NULL is fine */

    /** Bytes of the device's memory that this process has allocated; NULL: it is the host's. */
    size_t (*held_bytes)(void);
} sh_meter;

/** Never NULL. */
const sh_meter *sh_meter_of(const sh_backend *backend);

SH_C_END

#endif
