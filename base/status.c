// SPDX-License-Identifier: Apache-2.0
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[2048];

static const char *const names[] = {
    [SH_OK] = "ok",
    [SH_ERR_USAGE] = "usage error",
    [SH_ERR_IO] = "input/output error",
    [SH_ERR_NO_ROOM] = "no room on the disk",
    [SH_ERR_FORMAT] = "format error",
    [SH_ERR_NO_MEMORY] = "out of memory",
    [SH_ERR_UNSUPPORTED] = "unsupported",
    [SH_ERR_MISMATCH] = "mismatch",
    [SH_ERR_COMM] = "communication error",
    [SH_ERR_NOT_FOUND] = "not found",
    [SH_ERR_STOPPED] = "stopped on request",
    [SH_ERR_INTERNAL] = "internal error",
};

const char *sh_status_name(sh_status status)
{
    return (size_t)status < SH_COUNT(names) ? names[status] : "unknown status";
}

const char *sh_error_message(void)
{
    return message;
}

void sh_error_clear(void)
{
    message[0] = '\0';
}

sh_status sh_error_set(sh_status status, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    return status;
}
