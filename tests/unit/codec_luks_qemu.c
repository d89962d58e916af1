/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* QEMU is the judge: we read what it encrypts, and it reads what we encrypt, with its headers and
 * with ours. */

#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/codec/keys.h"
#include "core/format/extension.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CLUSTER = 65536, GUEST = 3 * CLUSTER + 4096, SPAN = 8192 };

struct image {
    char path[64];
    int fd;
    uint64_t area_at;
    size_t area_length;
    uint8_t *area;
};

/* ---- QEMU's programs ---- */

/* Exit status, -1 if there is no such program; what it says goes to `ret_output`. */
static int
run(char *const argv[], char *ret_output, size_t size)
{
    int out[2], status;
    cr_assert_eq(pipe(out), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        dup2(out[1], 1);
        dup2(out[1], 2);
        close(out[0]);
        close(out[1]);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(out[1]);
    size_t used = 0;
    for (ssize_t got = 1; got > 0 && used<size - 1; used += got> 0 ? (size_t)got : 0)
        got = read(out[0], ret_output + used, size - 1 - used);
    ret_output[used] = 0;
    close(out[0]);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status), "%s: %s", argv[0], ret_output);
    return WEXITSTATUS(status) == 127 ? -1 : WEXITSTATUS(status);
}

#define RUN(output, ...) run((char *const[]){__VA_ARGS__, NULL}, output, sizeof output)

static void
need_qemu(void)
{
    char output[4096];
    if (RUN(output, "qemu-img", "--version") != 0 || RUN(output, "qemu-io", "--version") != 0)
        cr_skip_test("qemu-img and qemu-io are not installed");
}

static int
qemu_io(const struct image *image, const char *format, const char *passphrase, const char *command,
        char output[4096])
{
    char secret[128], options[256];
    snprintf(secret, sizeof secret, "secret,id=s,data=%s", passphrase);
    snprintf(options, sizeof options,
             "driver=qcow2,encrypt.format=%s,encrypt.key-secret=s,file.filename=%s", format,
             image->path);
    return run((char *const[]){"qemu-io", "--object", secret, "--image-opts", "-c", (char *)command,
                               options, NULL},
               output, 4096);
}

/* A read whose pattern does not match is not an error to qemu-io's exit status alone. */
static void
qemu_does(const struct image *image, const char *format, const char *passphrase,
          const char *command)
{
    char output[4096];
    int r = qemu_io(image, format, passphrase, command, output);
    cr_assert(r == 0 && !strstr(output, "failed") && strstr(output, "8192/8192"), "%s: %s", command,
              output);
}

static struct image
image_new(const char *options)
{
    struct image image = {.path = "/tmp/q2_luks_XXXXXX"};
    char output[4096], all[512];
    int fd = mkstemp(image.path);
    cr_assert_geq(fd, 0);
    close(fd);
    snprintf(all, sizeof all, "encrypt.key-secret=s,%s", options);
    int r = RUN(output, "qemu-img", "create", "-q", "--object", "secret,id=s,data=abc", "-f",
                "qcow2", "-o", all, image.path, "1M");
    cr_assert_eq(r, 0, "%s", output);
    image.fd = open(image.path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(image.fd, 0);
    return image;
}

static void
image_free(struct image *image)
{
    close(image->fd);
    unlink(image->path);
    free(image->area);
}

/* ---- the image ---- */

static void
load(const struct image *image, uint64_t offset, void *bytes, size_t length)
{
    cr_assert_eq(pread(image->fd, bytes, length, (off_t)offset), (ssize_t)length);
}

static void
store(const struct image *image, uint64_t offset, const void *bytes, size_t length)
{
    cr_assert_eq(pwrite(image->fd, bytes, length, (off_t)offset), (ssize_t)length);
}

static uint64_t
load_number(const struct image *image, uint64_t offset)
{
    uint8_t bytes[8];
    load(image, offset, bytes, sizeof bytes);
    return q2_load_be64(bytes);
}

/* Where the data of the full disk encryption header pointer is. */
static uint64_t
pointer_at(const struct image *image)
{
    uint8_t head[4096];
    struct q2_extension extension;
    load(image, 0, head, sizeof head);
    uint64_t at = q2_load_be32(head + 100);
    while (q2_extension_next(head, sizeof head, &at, &extension) == 1)
        if (extension.type == Q2_EXTENSION_CRYPTO)
            return extension.offset + Q2_EXTENSION_HEADER_LENGTH;
    cr_assert(false, "%s has no full disk encryption header pointer", image->path);
    return 0;
}

static void
load_area(struct image *image)
{
    uint64_t at = pointer_at(image);
    image->area_at = load_number(image, at);
    image->area_length = load_number(image, at + 8);
    free(image->area);
    image->area = malloc(image->area_length);
    load(image, image->area_at, image->area, image->area_length);
}

static void
store_area(struct image *image, const uint8_t *area, size_t length)
{
    uint8_t number[8];
    cr_assert_leq(length, image->area_length);
    store(image, image->area_at, area, length);
    q2_store_be64(number, length);
    store(image, pointer_at(image) + 8, number, sizeof number);
}

/* Where the cluster of guest offset GUEST is, and the offset in it. */
static uint64_t
host_offset(const struct image *image)
{
    const uint64_t mask = UINT64_C(0x00fffffffffffe00);
    uint64_t l2 = load_number(image, load_number(image, 40)) & mask;
    uint64_t cluster = load_number(image, l2 + GUEST / CLUSTER * 8) & mask;
    cr_assert_neq(cluster, 0);
    return cluster + GUEST % CLUSTER;
}

static bool
all_are(const uint8_t *bytes, uint8_t value)
{
    for (size_t i = 0; i < SPAN; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

/* QEMU writes, we read; we write, QEMU reads. */
static void
exchange(const struct image *image, const char *format, const char *passphrase,
         struct q2_cipher *cipher)
{
    uint8_t bytes[SPAN];
    qemu_does(image, format, passphrase, "write -P 0x5a 200704 8192");
    uint64_t at = host_offset(image);
    uint64_t sector = (strcmp(format, "aes") == 0 ? GUEST : at) / 512;
    load(image, at, bytes, sizeof bytes);
    cr_assert(!all_are(bytes, 0x5a));
    cr_assert_eq(q2_cipher_decrypt(cipher, sector, bytes, sizeof bytes, NULL), 0);
    cr_assert(all_are(bytes, 0x5a), "what QEMU wrote reads as %02x %02x %02x %02x", bytes[0],
              bytes[1], bytes[512], bytes[SPAN - 1]);

    memset(bytes, 0xa5, sizeof bytes);
    cr_assert_eq(q2_cipher_encrypt(cipher, sector, bytes, sizeof bytes, NULL), 0);
    store(image, at, bytes, sizeof bytes);
    qemu_does(image, format, passphrase, "read -P 0xa5 200704 8192");
}

/* ---- QEMU's headers ---- */

static const char *const created[] = {
    "encrypt.format=luks,encrypt.iter-time=10",
    "encrypt.format=luks,encrypt.iter-time=10,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,"
    "encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256,encrypt.hash-alg=sha1",
    "encrypt.format=luks,encrypt.iter-time=10,encrypt.cipher-alg=aes-192,encrypt.hash-alg=sha512",
    "encrypt.format=luks,encrypt.iter-time=10,encrypt.cipher-alg=aes-256,encrypt.cipher-mode=ctr,"
    "encrypt.ivgen-alg=plain,encrypt.hash-alg=ripemd160",
};

Test(codec_luks_qemu, images_that_qemu_creates)
{
    need_qemu();
    for (size_t i = 0; i < sizeof created / sizeof created[0]; i++) {
        struct image image = image_new(created[i]);
        struct q2_luks_key key = {0, {0}};
        struct q2_cipher *cipher = NULL;
        struct q2_error err = {0};
        unsigned slot = 99;
        load_area(&image);
        cr_assert_eq(q2_luks_unlock(image.area, image.area_length, "ab", 2, 0, &key, &slot, &err),
                     Q2_ERR_PASSPHRASE, "%s", err.message);
        cr_assert_eq(q2_luks_unlock(image.area, image.area_length, "abc", 3, 0, &key, &slot, &err),
                     0, "%s: %s", created[i], err.message);
        cr_assert_eq(slot, 0);
        cr_assert_eq(q2_luks_cipher(image.area, image.area_length, &key, &cipher, NULL), 0);
        exchange(&image, "luks", "abc", cipher);
        q2_cipher_free(cipher);
        image_free(&image);
    }
}

Test(codec_luks_qemu, ciphers_that_qemu_alone_has)
{
    need_qemu();
    struct image image =
        image_new("encrypt.format=luks,encrypt.iter-time=10,encrypt.cipher-alg=serpent-256");
    struct q2_luks_key key;
    struct q2_error err = {0};
    unsigned slot;
    load_area(&image);
    cr_assert_eq(q2_luks_unlock(image.area, image.area_length, "abc", 3, 0, &key, &slot, &err),
                 Q2_ERR_UNSUPPORTED);
    cr_assert_str_eq(err.message, "cipher \"serpent\" is not supported");
    image_free(&image);
}

Test(codec_luks_qemu, legacy_aes)
{
    need_qemu();
    static const char *const passphrases[] = {"abc", "a pass phrase of more than 16 bytes"};
    for (size_t i = 0; i < 2; i++) {
        struct image image = image_new("encrypt.format=aes");
        struct q2_cipher *cipher = NULL;
        const char *passphrase = passphrases[i];
        cr_assert_eq(q2_cipher_new_aes(passphrase, strlen(passphrase), &cipher, NULL), 0);
        exchange(&image, "aes", passphrase, cipher);
        q2_cipher_free(cipher);
        image_free(&image);
    }
}

/* ---- our headers ---- */

/* Every mode and length of key that QEMU opens. */
static const struct q2_luks_options ours[] = {
    {.iterations = 1000},
    {.cipher_mode = "xts-plain64", .key_bytes = 32, .hash = "sha1", .iterations = 1000},
    {.cipher_mode = "xts-plain64", .key_bytes = 48, .hash = "sha224", .iterations = 1000},
    {.cipher_mode = "xts-plain", .hash = "sha384", .iterations = 1000},
    {.cipher_mode = "xts-essiv:sha256", .hash = "sha512", .iterations = 1000},
    {.cipher_mode = "cbc-plain64", .key_bytes = 16, .hash = "md5", .iterations = 1000},
    {.cipher_mode = "cbc-plain64", .key_bytes = 32, .hash = "ripemd160", .iterations = 1000},
    {.cipher_mode = "cbc-plain", .key_bytes = 32, .iterations = 1000},
    {.cipher_mode = "cbc-essiv:sha256", .key_bytes = 32, .iterations = 1000},
    {.cipher_mode = "cbc-essiv:sha256", .key_bytes = 16, .iterations = 1000},
    {.cipher_mode = "cbc-essiv:md5", .key_bytes = 32, .iterations = 1000},
    {.cipher_mode = "ecb-plain64", .key_bytes = 16, .iterations = 1000},
    {.cipher_mode = "ecb-plain", .key_bytes = 32, .iterations = 1000},
    {.cipher_mode = "ctr-plain64", .key_bytes = 16, .iterations = 1000},
    {.cipher_mode = "ctr-plain64", .key_bytes = 32, .iterations = 1000},
    {.cipher_mode = "ctr-essiv:sha256", .key_bytes = 32, .iterations = 1000},
};

Test(codec_luks_qemu, images_that_we_format)
{
    need_qemu();
    struct image image = image_new("encrypt.format=luks,encrypt.iter-time=10");
    load_area(&image);
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        Q2_AUTOFREE uint8_t *area = NULL;
        size_t length;
        struct q2_luks_key key;
        struct q2_cipher *cipher = NULL;
        cr_assert_eq(q2_luks_format(&ours[i], "our own", 7, &area, &length, &key, NULL), 0);
        cr_assert_eq(q2_luks_cipher(area, length, &key, &cipher, NULL), 0);
        store_area(&image, area, length);
        exchange(&image, "luks", "our own", cipher);
        q2_cipher_free(cipher);
    }
    image_free(&image);
}

/* Slots that we add and remove are there, and gone, for QEMU; and the other way round. */
Test(codec_luks_qemu, key_slots)
{
    need_qemu();
    struct image image = image_new("encrypt.format=luks,encrypt.iter-time=10");
    struct q2_luks_key key;
    struct q2_luks_options options = {.iterations = 1000};
    char output[4096], secret[] = "secret,id=s,data=second", opts[256];
    unsigned slot;
    load_area(&image);
    cr_assert_eq(q2_luks_unlock(image.area, image.area_length, "abc", 3, 0, &key, &slot, NULL), 0);
    cr_assert_eq(q2_luks_add_key(image.area, image.area_length, &key, "second", 6, -1, &options,
                                 &slot, NULL),
                 0);
    store_area(&image, image.area, image.area_length);
    qemu_does(&image, "luks", "second", "write -P 0x11 200704 8192");
    qemu_does(&image, "luks", "abc", "read -P 0x11 200704 8192");

    cr_assert_eq(q2_luks_remove_slot(image.area, image.area_length, 0, false, NULL), 0);
    store_area(&image, image.area, image.area_length);
    qemu_does(&image, "luks", "second", "read -P 0x11 200704 8192");
    cr_assert_neq(qemu_io(&image, "luks", "abc", "read 200704 8192", output), 0);
    cr_assert_not_null(strstr(output, "Invalid password"), "%s", output);

    snprintf(opts, sizeof opts, "driver=qcow2,encrypt.key-secret=s,file.filename=%s", image.path);
    for (int tries = 0, r = 1; r != 0; tries++) {
        r = RUN(output, "qemu-img", "amend", "--object", secret, "--object",
                "secret,id=n,data=third", "-o",
                "encrypt.state=active,encrypt.new-secret=n,encrypt.keyslot=6,encrypt.iter-time=10",
                "--image-opts", opts);
        cr_assert(r == 0 || (tries < 20 && strstr(output, "CPU usage")), "%s", output);
    }
    load_area(&image);
    cr_assert_eq(q2_luks_unlock(image.area, image.area_length, "third", 5, 0, &key, &slot, NULL),
                 0);
    cr_assert_eq(slot, 6);
    cr_assert_eq(q2_luks_unlock(image.area, image.area_length, "second", 6, 0, &key, &slot, NULL),
                 0);
    cr_assert_eq(slot, 0 + 1);
    image_free(&image);
}
