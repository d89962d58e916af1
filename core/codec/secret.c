/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/codec/secret.h"

#include "core/codec/random.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- base64 ---- */

static int
digit(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* In place, as the result is shorter. False unless the text is whole groups of four characters, at
 * most two "=" at the end included. */
static bool
decode_base64(uint8_t *bytes, size_t *length)
{
    uint32_t group = 0;
    unsigned digits = 0, padding = 0;
    size_t done = 0;
    for (size_t i = 0; i < *length; i++) {
        uint8_t c = bytes[i];
        if (c == '\n' || c == '\r')
            continue;
        int value = c == '=' ? 0 : digit(c);
        padding += c == '=';
        if (value < 0 || (padding && c != '=') || padding > 2)
            return false;
        group = group << 6 | (uint32_t)value;
        if (++digits % 4)
            continue;
        bytes[done++] = (uint8_t)(group >> 16);
        bytes[done++] = (uint8_t)(group >> 8);
        bytes[done++] = (uint8_t)group;
    }
    *length = done - padding;
    return digits % 4 == 0;
}

/* ---- UTF-8 ---- */

/* The length of the character that `bytes` begin with (RFC 3629, section 4), 0 if it is none. */
static size_t
character(const uint8_t *bytes, size_t length)
{
    uint8_t first = bytes[0];
    if (first < 0x80)
        return first != 0;
    size_t size = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (size == 0 || size > length)
        return 0;
    for (size_t i = 1; i < size; i++)
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    uint8_t second = bytes[1];
    bool overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
    bool surrogate = first == 0xed && second >= 0xa0;
    bool beyond = first == 0xf4 && second >= 0x90;
    return overlong || surrogate || beyond ? 0 : size;
}

static bool
is_text(const uint8_t *bytes, size_t length)
{
    for (size_t at = 0, step; at < length; at += step)
        if ((step = character(bytes + at, length - at)) == 0)
            return false;
    return true;
}

/* ---- reading ---- */

/* Up to the end, or one byte more than is allowed. */
static int
read_all(int fd, const char *name, struct q2_secret *secret, struct q2_error *err)
{
    while (secret->length <= Q2_SECRET_MAX) {
        ssize_t n = read(fd, secret->bytes + secret->length, Q2_SECRET_MAX + 1 - secret->length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return q2_error_set_errno(err, Q2_ERR_IO, errno, "%s: the pass phrase cannot be read",
                                      name);
        if (n == 0)
            return 0;
        secret->length += (size_t)n;
    }
    return q2_error_set(err, Q2_ERR_RANGE, "%s: a pass phrase has at most %d bytes", name,
                        Q2_SECRET_MAX);
}

static int
check(const char *name, enum q2_secret_format format, struct q2_secret *secret,
      struct q2_error *err)
{
    if (format == Q2_SECRET_BASE64 && !decode_base64(secret->bytes, &secret->length))
        return q2_error_set(err, Q2_ERR_FORMAT, "%s: the pass phrase is not base64", name);
    if (!is_text(secret->bytes, secret->length))
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: the pass phrase is not UTF-8, or has a NUL in it", name);
    secret->bytes[secret->length] = 0;
    return 0;
}

int
q2_secret_read_fd(int fd, const char *name, enum q2_secret_format format,
                  struct q2_secret *ret_secret, struct q2_error *err)
{
    /* All of it at once: memory that grows leaves copies behind. */
    struct q2_secret secret = {calloc(1, Q2_SECRET_MAX + 1), 0};
    if (!secret.bytes)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for a pass phrase", name);
    int r = read_all(fd, name, &secret, err);
    if (r == 0)
        r = check(name, format, &secret, err);
    if (r < 0) {
        q2_secret_destroy(&secret);
        return r;
    }
    *ret_secret = secret;
    return 0;
}

int
q2_secret_read(const char *path, enum q2_secret_format format, struct q2_secret *ret_secret,
               struct q2_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return q2_error_set_errno(err, Q2_ERR_OPEN, errno, "%s: cannot be opened", path);
    int r = q2_secret_read_fd(fd, path, format, ret_secret, err);
    close(fd);
    return r;
}

void
q2_secret_destroy(struct q2_secret *secret)
{
    if (!secret || !secret->bytes)
        return;
    q2_wipe(secret->bytes, Q2_SECRET_MAX + 1);
    free(secret->bytes);
    *secret = (struct q2_secret){NULL, 0};
}
