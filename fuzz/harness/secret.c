/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Pass phrases as files have them: what is accepted is text of the right length, base64 is what
 * OpenSSL makes of the same bytes, and the two ways of writing a pass phrase agree.
 *
 * Input: the format, then the bytes of the file. */

#include "core/codec/secret.h"
#include "fuzz/fuzz.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_LENGTH = 4096 };

/* The same file by its name. */
static void
read_by_name(int fd, enum q2_secret_format format, int rc, const struct q2_secret *secret)
{
    char path[64];
    struct q2_secret again = {0};
    struct q2_error err = {0};
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int other = q2_secret_read(path, format, &again, &err);
    Q2_REQUIRE(other == rc && (rc < 0 || (again.length == secret->length &&
                                          memcmp(again.bytes, secret->bytes, again.length) == 0)),
               "%d by descriptor, %d by name", rc, other);
    q2_secret_destroy(&again);
    snprintf(path, sizeof path, "/proc/self/fd/%d/none", fd);
    other = q2_secret_read(path, format, &again, &err);
    Q2_REQUIRE(other == Q2_ERR_OPEN, "what is not there gives %d", other);
}

static int
read_secret(const void *bytes, size_t length, enum q2_secret_format format,
            struct q2_secret *ret_secret, struct q2_error *err)
{
    int fd = memfd_create("secret", MFD_CLOEXEC);
    Q2_REQUIRE(fd >= 0 && write(fd, bytes, length) == (ssize_t)length &&
                   lseek(fd, 0, SEEK_SET) == 0,
               "no file in memory");
    int rc = q2_secret_read_fd(fd, "secret", format, ret_secret, err);
    Q2_REQUIRE(rc == 0 || err->message[0], "refused without a word");
    read_by_name(fd, format, rc, ret_secret);
    close(fd);
    return rc;
}

/* What OpenSSL decodes from the same text without its line ends; negative: it is not base64. */
static int
decode(const uint8_t *text, size_t length, uint8_t *ret_bytes)
{
    uint8_t joined[MAX_LENGTH + 1];
    size_t count = 0, padding = 0;
    for (size_t i = 0; i < length; i++)
        if (text[i] != '\n' && text[i] != '\r')
            joined[count++] = text[i];
    /* It takes white space and padding of any kind. */
    if (count % 4 || memchr(joined, ' ', count) || memchr(joined, '\t', count) ||
        memchr(joined, '-', count))
        return -1;
    while (padding < count && joined[count - 1 - padding] == '=')
        padding++;
    if (padding > 2 || memchr(joined, '=', count - padding))
        return -1;
    int decoded = count > 0 ? EVP_DecodeBlock(ret_bytes, joined, (int)count) : 0;
    return decoded < 0 ? -1 : decoded - (int)padding;
}

static void
run(const uint8_t *input, size_t length)
{
    struct q2_fuzz_cursor cursor = {input, length};
    struct q2_secret secret = {0}, again = {0};
    struct q2_error err = {0};
    uint8_t bytes[MAX_LENGTH + 4], text[2 * MAX_LENGTH];
    bool base64 = q2_fuzz_u8(&cursor) & 1;
    int rc = read_secret(cursor.at, cursor.left, base64 ? Q2_SECRET_BASE64 : Q2_SECRET_RAW, &secret,
                         &err);
    int wanted = base64 ? decode(cursor.at, cursor.left, bytes) : (int)cursor.left;
    Q2_REQUIRE(rc < 0 || (int)secret.length == wanted, "%zu bytes, not %d", secret.length, wanted);
    Q2_REQUIRE(rc < 0 || memcmp(secret.bytes, base64 ? bytes : cursor.at, secret.length) == 0,
               "other bytes");
    if (rc == 0) {
        Q2_REQUIRE(strlen((const char *)secret.bytes) == secret.length, "a NUL in a pass phrase");
        int used = EVP_EncodeBlock(text, secret.bytes, (int)secret.length);
        rc = read_secret(text, (size_t)used, Q2_SECRET_BASE64, &again, &err);
        Q2_REQUIRE(rc == 0 && again.length == secret.length &&
                       memcmp(again.bytes, secret.bytes, secret.length) == 0,
                   "it is another pass phrase in base64");
    }
    q2_secret_destroy(&secret);
    q2_secret_destroy(&again);
}

const struct q2_harness q2_harness = {"secret", Q2_FUZZ_BYTES, 1 + MAX_LENGTH, run};
