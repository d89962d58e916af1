/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* How functions fail: a negative code that callers can branch on, and a message for people.
 *
 * A fallible function returns 0 or one of the codes below and, when the caller passed an error
 * object, leaves in it one sentence that names the file, the offset and the value at fault. */

#ifndef Q2_BASE_ERROR_H
#define Q2_BASE_ERROR_H

#include <stdarg.h>

/* The numbers are stable and gapped: a new code takes a free number near its relatives. */
enum q2_error_code {
    Q2_OK = 0,
    Q2_ERR_NOMEM = -10,       /* the system gave no memory */
    Q2_ERR_BUDGET = -11,      /* the memory budget does not allow it */
    Q2_ERR_IO = -20,          /* the system reported an I/O error */
    Q2_ERR_EOF = -21,         /* the file ends before the bytes asked for */
    Q2_ERR_NOSPACE = -22,     /* no space left where the bytes should go */
    Q2_ERR_OPEN = -23,        /* the file cannot be opened */
    Q2_ERR_RANGE = -30,       /* a number is outside what the operation can take */
    Q2_ERR_FORMAT = -40,      /* the bytes break a rule of the format */
    Q2_ERR_UNSUPPORTED = -41, /* well formed, but uses a feature that is unknown or not built in */
    Q2_ERR_NOT_QCOW2 = -42,   /* no qcow2 image at all */
    Q2_ERR_LOCKED = -50,      /* another process holds a conflicting lock on the image */
    Q2_ERR_READ_ONLY = -51,   /* a write was asked of something opened for reading */
    Q2_ERR_PASSPHRASE = -52,  /* the pass phrase or key does not open the encryption */
    Q2_ERR_CORRUPT = -43,     /* the image is marked corrupt, or was just found to be */
    Q2_ERR_NOT_FOUND = -70,   /* there is nothing by that name */
    Q2_ERR_EXISTS = -71,      /* there is something by that name already */
    Q2_ERR_STOPPED = -60,     /* the caller asked to stop */
};

enum { Q2_ERROR_MESSAGE_SIZE = 512 };

/* Embed it with `= {0}`; it owns nothing and needs no destructor. */
struct q2_error {
    enum q2_error_code code;
    char message[Q2_ERROR_MESSAGE_SIZE];
};

/* Fill `err` (which may be NULL) with `code` and a formatted sentence without a full stop or a
 * newline. Returns `code`, so that `return q2_error_set(...)` is the whole error path. */
int q2_error_set(struct q2_error *err, enum q2_error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same, with ": " and the text of the errno value appended. */
int q2_error_set_errno(struct q2_error *err, enum q2_error_code code, int errnum,
                       const char *format, ...) __attribute__((format(printf, 4, 5)));

/* A few words for a code, for callers that have no message. Never NULL. */
const char *q2_error_text(enum q2_error_code code);

#endif
