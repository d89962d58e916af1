/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Pass phrases are what a file holds, to the byte, or what its base64 says; what QEMU would not
 * take is refused. */

#include "core/base/cleanup.h"
#include "core/codec/secret.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A descriptor of a file with these bytes. */
static int
file_with(const void *bytes, size_t length)
{
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, length, file), length);
    cr_assert_eq(fflush(file), 0);
    int fd = dup(fileno(file));
    fclose(file);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static int
read_from(const void *bytes, size_t length, enum q2_secret_format format, struct q2_secret *secret,
          struct q2_error *err)
{
    int fd = file_with(bytes, length);
    int r = q2_secret_read_fd(fd, "the file", format, secret, err);
    close(fd);
    return r;
}

static void
expect(const char *text, size_t length, enum q2_secret_format format, const char *expected)
{
    struct q2_secret secret = {NULL, 0};
    struct q2_error err = {0};
    cr_assert_eq(read_from(text, length, format, &secret, &err), 0, "%s", err.message);
    cr_assert_eq(secret.length, strlen(expected), "%s", text);
    cr_assert_str_eq((char *)secret.bytes, expected);
    q2_secret_destroy(&secret);
    cr_assert(!secret.bytes && !secret.length);
}

static void
expect_refusal(const char *text, size_t length, enum q2_secret_format format, int code,
               const char *message)
{
    struct q2_secret secret = {NULL, 0};
    struct q2_error err = {0};
    cr_assert_eq(read_from(text, length, format, &secret, &err), code, "%s", text);
    cr_assert_str_eq(err.message, message);
    cr_assert(!secret.bytes && !secret.length);
}

Test(codec_secret, raw_files_are_taken_literally)
{
    static const char *const texts[] = {
        "", "abc", "abc\n", "\n", " a b ", "gr\xc3\xbc\xc3\x9f", "\xe2\x82\xac \xf0\x9f\x94\x91"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        expect(texts[i], strlen(texts[i]), Q2_SECRET_RAW, texts[i]);
}

/* RFC 4648, section 10. */
Test(codec_secret, base64)
{
    static const char *const vectors[][2] = {{"", ""},
                                             {"Zg==", "f"},
                                             {"Zm8=", "fo"},
                                             {"Zm9v", "foo"},
                                             {"Zm9vYg==", "foob"},
                                             {"Zm9vYmE=", "fooba"},
                                             {"Zm9vYmFy", "foobar"},
                                             {"Zm9v\n", "foo"},
                                             {"Zm\r\n9v\n", "foo"},
                                             {"w7w/", "\xc3\xbc?"},
                                             {"w74+", "\xc3\xbe>"}};
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
        expect(vectors[i][0], strlen(vectors[i][0]), Q2_SECRET_BASE64, vectors[i][1]);
}

Test(codec_secret, what_is_not_base64)
{
    static const char *const texts[] = {"Z",    "Zg",     "Zg=",      "Zm9vYg=", "Z===", "====",
                                        "Zg=a", "Zg==Zg", "Zg==Zg==", "Zm 9v",   "Zm9*", "Zm9-"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        expect_refusal(texts[i], strlen(texts[i]), Q2_SECRET_BASE64, Q2_ERR_FORMAT,
                       "the file: the pass phrase is not base64");
}

Test(codec_secret, what_is_not_text)
{
    static const char *const texts[] = {"\x80",
                                        "a\xff",
                                        "\xc3",
                                        "\xc0\xaf",
                                        "\xe0\x9f\xbf",
                                        "\xed\xa0\x80",
                                        "\xe2\x82",
                                        "\xf0\x8f\xbf\xbf",
                                        "\xf4\x90\x80\x80",
                                        "\xf5\x80\x80\x80",
                                        "\xc3("};
    const char *message = "the file: the pass phrase is not UTF-8, or has a NUL in it";
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        expect_refusal(texts[i], strlen(texts[i]), Q2_SECRET_RAW, Q2_ERR_FORMAT, message);
    expect_refusal("a\0b", 3, Q2_SECRET_RAW, Q2_ERR_FORMAT, message);
    expect_refusal("AAAA", 4, Q2_SECRET_BASE64, Q2_ERR_FORMAT, message);
}

Test(codec_secret, length_is_bounded)
{
    Q2_AUTOFREE char *text = malloc(Q2_SECRET_MAX + 2);
    memset(text, 'x', Q2_SECRET_MAX + 1);
    text[Q2_SECRET_MAX + 1] = 0;
    expect_refusal(text, Q2_SECRET_MAX + 1, Q2_SECRET_RAW, Q2_ERR_RANGE,
                   "the file: a pass phrase has at most 65536 bytes");
    text[Q2_SECRET_MAX] = 0;
    expect(text, Q2_SECRET_MAX, Q2_SECRET_RAW, text);

    /* One that never ends. */
    struct q2_secret secret = {NULL, 0};
    cr_assert_eq(q2_secret_read("/dev/zero", Q2_SECRET_RAW, &secret, NULL), Q2_ERR_RANGE);
}

Test(codec_secret, pipes_are_read_to_their_end)
{
    int ends[2];
    struct q2_secret secret = {NULL, 0};
    char path[64];
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(write(ends[1], "from a ", 7), 7);
    cr_assert_eq(write(ends[1], "pipe", 4), 4);
    close(ends[1]);
    snprintf(path, sizeof path, "/dev/fd/%d", ends[0]);
    cr_assert_eq(q2_secret_read(path, Q2_SECRET_RAW, &secret, NULL), 0);
    cr_assert_str_eq((char *)secret.bytes, "from a pipe");
    q2_secret_destroy(&secret);
    q2_secret_destroy(&secret);
    q2_secret_destroy(NULL);
    close(ends[0]);
}

Test(codec_secret, files_that_cannot_be_read)
{
    struct q2_secret secret = {NULL, 0};
    struct q2_error err = {0};
    cr_assert_eq(q2_secret_read("/nowhere/at/all", Q2_SECRET_RAW, &secret, &err), Q2_ERR_OPEN);
    cr_assert_str_eq(err.message, "/nowhere/at/all: cannot be opened: No such file or directory");
    cr_assert_eq(q2_secret_read("/", Q2_SECRET_RAW, &secret, &err), Q2_ERR_IO);
    cr_assert_str_eq(err.message, "/: the pass phrase cannot be read: Is a directory");
    cr_assert_null(secret.bytes);
}
