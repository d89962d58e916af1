/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/base/error.h"

#include <stdio.h>
#include <string.h>

int
q2_error_set(struct q2_error *err, enum q2_error_code code, const char *format, ...)
{
    if (!err)
        return code;
    va_list args;
    va_start(args, format);
    err->code = code;
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return code;
}

int
q2_error_set_errno(struct q2_error *err, enum q2_error_code code, int errnum, const char *format,
                   ...)
{
    if (!err)
        return code;
    va_list args;
    va_start(args, format);
    err->code = code;
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);

    size_t used = strlen(err->message);
    char text[128];
    snprintf(err->message + used, sizeof err->message - used, ": %s",
             strerror_r(errnum, text, sizeof text));
    return code;
}

const char *
q2_error_text(enum q2_error_code code)
{
    switch (code) {
    case Q2_OK:
        return "success";
    case Q2_ERR_NOMEM:
        return "out of memory";
    case Q2_ERR_BUDGET:
        return "memory budget exceeded";
    case Q2_ERR_IO:
        return "input/output error";
    case Q2_ERR_EOF:
        return "unexpected end of file";
    case Q2_ERR_NOSPACE:
        return "no space left";
    case Q2_ERR_OPEN:
        return "cannot be opened";
    case Q2_ERR_RANGE:
        return "number out of range";
    case Q2_ERR_FORMAT:
        return "malformed";
    case Q2_ERR_UNSUPPORTED:
        return "not supported";
    case Q2_ERR_NOT_QCOW2:
        return "not a qcow2 image";
    case Q2_ERR_LOCKED:
        return "locked by another process";
    case Q2_ERR_READ_ONLY:
        return "opened for reading only";
    case Q2_ERR_CORRUPT:
        return "the image is corrupt";
    case Q2_ERR_NOT_FOUND:
        return "not found";
    case Q2_ERR_EXISTS:
        return "exists already";
    case Q2_ERR_PASSPHRASE:
        return "wrong pass phrase";
    case Q2_ERR_STOPPED:
        return "stopped";
    }
    return "unknown error";
}
