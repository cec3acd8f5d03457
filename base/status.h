// SPDX-License-Identifier: Apache-2.0
/**
 * Errors: one enum, three macros, one exit per function.
 *
 * The function that first knows of a fault describes it once with SH_FAIL or
 * SH_CHECK: name the file, field or rank and the remedy. Callers pass the
 * status up unchanged with SH_TRY. The message waits in thread-local memory
 * (sh_error_message) until somebody prints it - trainer/main.c for a fatal
 * fault - or handles it, as the importer does when it lists unreadable images.
 *
 * A function that uses these macros has `sh_status st = SH_OK;` at its top and
 * one label `out:` before its only return.
 */
#ifndef SH_BASE_STATUS_H
#define SH_BASE_STATUS_H

#include <stddef.h>

#ifdef __cplusplus
#define SH_C_BEGIN extern "C" {
#define SH_C_END }
#else
#define SH_C_BEGIN
#define SH_C_END
#endif

#define SH_MUST_CHECK __attribute__((warn_unused_result))
#define SH_PRINTF(fmt_index, first_arg) __attribute__((format(printf, fmt_index, first_arg)))

SH_C_BEGIN

typedef enum sh_status {
    SH_OK = 0,
    SH_ERR_USAGE,       /* wrong option, configuration or argument; exit code 2 */
    SH_ERR_IO,          /* the operating system refused a read or write */
    SH_ERR_NO_ROOM,     /* it refused a write since the disk or a quota is full; exit code 74 */
    SH_ERR_FORMAT,      /* a file is damaged, foreign or of another version */
    SH_ERR_NO_MEMORY,   /* an allocation failed */
    SH_ERR_UNSUPPORTED, /* valid, but not something this build or backend can do */
    SH_ERR_MISMATCH,    /* two things that must agree do not (ranks, resumed options, shapes) */
    SH_ERR_COMM,        /* another rank failed, or the message layer did */
    SH_ERR_NOT_FOUND,   /* a name, file or entry that was asked for is not there */
    SH_ERR_STOPPED,     /* stopped on request, state saved; exit code 75 */
    SH_ERR_INTERNAL,    /* our own mistake */
} sh_status;

/** Name of a status ("format error"), a static string. */
const char *sh_status_name(sh_status status);

/** The message of this thread's last failure; "" if none. Valid until the next failure. */
const char *sh_error_message(void);

/** Store a failure's message for this thread. Returns `status`. Use SH_FAIL instead. */
sh_status sh_error_set(sh_status status, const char *fmt, ...) SH_PRINTF(2, 3);

/** Forget this thread's message, after a failure was handled. */
void sh_error_clear(void);

SH_C_END

/** Pass a failure up unchanged. */
#define SH_TRY(call)                                                                               \
    do {                                                                                           \
        st = (call);                                                                               \
        if (st != SH_OK) goto out;                                                                 \
    } while (0)

/** Describe a failure where it is first known, and leave. */
#define SH_FAIL(status, ...)                                                                       \
    do {                                                                                           \
        st = sh_error_set((status), __VA_ARGS__);                                                  \
        goto out;                                                                                  \
    } while (0)

/** Leave with a described failure unless `condition` holds. */
#define SH_CHECK(condition, status, ...)                                                           \
    do {                                                                                           \
        if (!(condition)) SH_FAIL((status), __VA_ARGS__);                                          \
    } while (0)

#define SH_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
