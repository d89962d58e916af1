/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Ciphers against published vectors, and against libcrypto's own modes one sector at a time, which
 * our batches do not use. */

#include "core/base/cleanup.h"
#include "core/codec/cipher.h"
#include "core/codec/modes.h"

#include <criterion/criterion.h>
#include <endian.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct q2_cipher *
cipher_for(const char *mode, const uint8_t *key, size_t key_bytes)
{
    struct q2_cipher *cipher = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_cipher_new("aes", mode, key, key_bytes, &cipher, &err), 0, "%s", err.message);
    return cipher;
}

static void
from_hex(const char *hex, uint8_t *bytes)
{
    for (unsigned byte; sscanf(hex, "%2x", &byte) == 1; hex += 2)
        *bytes++ = (uint8_t)byte;
}

/* ---- published vectors ---- */

static void
check_vector(const char *mode, const char *key_hex, uint64_t sector, const uint8_t *plain,
             const char *begin_hex, const char *end_hex)
{
    uint8_t key[Q2_CIPHER_MAX_KEY], begin[32], end[16], bytes[512];
    from_hex(key_hex, key);
    from_hex(begin_hex, begin);
    from_hex(end_hex, end);
    memcpy(bytes, plain, sizeof bytes);
    struct q2_cipher *cipher = cipher_for(mode, key, strlen(key_hex) / 2);
    cr_assert_eq(q2_cipher_encrypt(cipher, sector, bytes, sizeof bytes, NULL), 0);
    cr_assert_arr_eq(bytes, begin, strlen(begin_hex) / 2);
    cr_assert_arr_eq(bytes + 512 - strlen(end_hex) / 2, end, strlen(end_hex) / 2);
    cr_assert_eq(q2_cipher_decrypt(cipher, sector, bytes, sizeof bytes, NULL), 0);
    cr_assert_arr_eq(bytes, plain, sizeof bytes);
    q2_cipher_free(cipher);
}

/* IEEE Std 1619-2007, annex B, vectors 4, 10 and 11; FIPS 197, appendix C. */
Test(codec_cipher, published_vectors)
{
    uint8_t plain[512];
    for (size_t i = 0; i < sizeof plain; i++)
        plain[i] = (uint8_t)i;
    check_vector("xts-plain64", "2718281828459045235360287471352631415926535897932384626433832795",
                 0, plain, "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c", "");
    static const char keys[] = "2718281828459045235360287471352662497757247093699959574966967627"
                               "3141592653589793238462643383279502884197169399375105820974944592";
    check_vector("xts-plain64", keys, 0xff, plain,
                 "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b", "");
    check_vector("xts-plain", keys, UINT64_C(0xdeadbeef000000ff), plain, "1c3b3a102f770386", "");
    check_vector("xts-plain64", keys, 0xffff, plain, "77a31251618a15e6b92d1d66dffe7b50", "");

    for (size_t i = 0; i < sizeof plain; i++)
        plain[i] = (uint8_t)(i % 16 * 0x11);
    check_vector("ecb-plain64", "000102030405060708090a0b0c0d0e0f", 7, plain,
                 "69c4e0d86a7b0430d8cdb78070b4c55a69c4e0d86a7b0430d8cdb78070b4c55a",
                 "69c4e0d86a7b0430d8cdb78070b4c55a");
    check_vector("ecb-plain", "000102030405060708090a0b0c0d0e0f1011121314151617", 7, plain,
                 "dda97ca4864cdfe06eaf70a0ec0d7191", "dda97ca4864cdfe06eaf70a0ec0d7191");
    check_vector("ecb-plain64", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
                 7, plain, "8ea2b7ca516745bfeafc49904b496089", "");
}

/* ---- libcrypto's modes ---- */

static void
oracle_run(const char *name, const uint8_t *key, const uint8_t *iv, uint8_t *bytes, int length)
{
    EVP_CIPHER *evp = EVP_CIPHER_fetch(NULL, name, NULL);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int done = 0;
    cr_assert_not_null(evp);
    cr_assert_eq(EVP_CipherInit_ex2(context, evp, key, iv, 1, NULL), 1);
    EVP_CIPHER_CTX_set_padding(context, 0);
    cr_assert_eq(EVP_CipherUpdate(context, bytes, &done, bytes, length), 1);
    cr_assert_eq(done, length);
    EVP_CIPHER_CTX_free(context);
    EVP_CIPHER_free(evp);
}

static const struct peer {
    const char *mode, *evp;
    size_t key_bytes;
    unsigned iv_bytes;    /* of the sector's number */
    const char *md, *ecb; /* of ESSIV */
} peers[] = {
    {"xts-plain64", "AES-128-XTS", 32, 8, NULL, NULL},
    {"xts-plain64", "AES-256-XTS", 64, 8, NULL, NULL},
    {"xts-plain", "AES-256-XTS", 64, 4, NULL, NULL},
    {"xts-essiv:sha256", "AES-256-XTS", 64, 8, "SHA256", "AES-256-ECB"},
    {"cbc-plain64", "AES-128-CBC", 16, 8, NULL, NULL},
    {"cbc-plain", "AES-192-CBC", 24, 4, NULL, NULL},
    {"cbc-plain64", "AES-256-CBC", 32, 8, NULL, NULL},
    {"cbc-essiv:sha256", "AES-256-CBC", 32, 8, "SHA256", "AES-256-ECB"},
    {"cbc-essiv:sha256", "AES-128-CBC", 16, 8, "SHA256", "AES-256-ECB"},
    {"cbc-essiv:md5", "AES-256-CBC", 32, 8, "MD5", "AES-128-ECB"},
    {"ecb-plain64", "AES-256-ECB", 32, 8, NULL, NULL},
    {"ctr-plain64", "AES-128-CTR", 16, 8, NULL, NULL},
    {"ctr-essiv:sha256", "AES-256-CTR", 32, 8, "SHA256", "AES-256-ECB"},
};

static void
oracle_sector(const struct peer *peer, const uint8_t *key, uint64_t sector, uint8_t *bytes)
{
    uint8_t iv[16] = {0}, salt[64];
    sector = htole64(sector);
    memcpy(iv, &sector, peer->iv_bytes);
    if (peer->md) {
        cr_assert_eq(EVP_Q_digest(NULL, peer->md, NULL, key, peer->key_bytes, salt, NULL), 1);
        oracle_run(peer->ecb, salt, NULL, iv, sizeof iv);
    }
    oracle_run(peer->evp, key, iv, bytes, 512);
}

/* Runs of every length up to beyond two batches, around places where a number gets longer. */
static void
check_peer(const struct peer *peer)
{
    enum { SECTORS = 70 };
    static const uint64_t starts[] = {0, 250, UINT64_C(0xfffffff0), UINT64_C(0x7ffffffffffff0)};
    uint8_t key[Q2_CIPHER_MAX_KEY];
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)(rand() >> 7);
    struct q2_cipher *cipher = cipher_for(peer->mode, key, peer->key_bytes);
    for (size_t at = 0; at < sizeof starts / sizeof starts[0]; at++) {
        Q2_AUTOFREE uint8_t *plain = malloc(SECTORS * 512), *expected = malloc(SECTORS * 512);
        for (size_t i = 0; i < SECTORS * 512; i++)
            plain[i] = (uint8_t)(rand() >> 7);
        memcpy(expected, plain, SECTORS * 512);
        for (size_t i = 0; i < SECTORS; i++)
            oracle_sector(peer, key, starts[at] + i, expected + i * 512);
        for (size_t sectors = 0; sectors <= SECTORS;
             sectors += sectors < 3 ? 1 : 31 - sectors % 2) {
            /* Allocated to the byte, so that a sanitizer sees any step beyond. */
            Q2_AUTOFREE uint8_t *bytes = malloc(sectors * 512 + 1);
            memcpy(bytes + 1, plain, sectors * 512);
            cr_assert_eq(q2_cipher_encrypt(cipher, starts[at], bytes + 1, sectors * 512, NULL), 0);
            cr_assert_arr_eq(bytes + 1, expected, sectors * 512, "%s, %zu sectors", peer->mode,
                             sectors);
            cr_assert_eq(q2_cipher_decrypt(cipher, starts[at], bytes + 1, sectors * 512, NULL), 0);
            cr_assert_arr_eq(bytes + 1, plain, sectors * 512, "%s, %zu sectors", peer->mode,
                             sectors);
        }
    }
    q2_cipher_free(cipher);
}

Test(codec_cipher, batches_are_sectors_one_by_one)
{
    srand(1);
    for (size_t i = 0; i < sizeof peers / sizeof peers[0]; i++)
        check_peer(&peers[i]);
}

/* A counter carries from byte to byte, through all of the block. No sector is known whose vector is
 * close to that: a key stream that was chosen for it takes the place of ESSIV. */
Test(codec_cipher, counters_carry)
{
    static const uint8_t key[16] = "0123456789abcde";
    uint8_t vector[16], counter[16], bytes[512] = {0}, expected[512] = {0};
    int done;
    memset(vector, 0xff, sizeof vector);
    vector[0] = 0x7f;
    vector[15] = 0xf3;
    struct q2_lane *lane = calloc(1, sizeof *lane);
    lane->encrypt = EVP_CIPHER_CTX_new();
    lane->essiv = EVP_CIPHER_CTX_new();
    lane->vectors = Q2_VECTORS_ESSIV;
    EVP_CipherInit_ex2(lane->encrypt, EVP_aes_128_ecb(), key, NULL, 0, NULL);
    EVP_CIPHER_CTX_set_padding(lane->encrypt, 0);
    cr_assert_eq(EVP_CipherUpdate(lane->encrypt, counter, &done, vector, sizeof vector), 1);
    EVP_CipherInit_ex2(lane->encrypt, EVP_aes_128_ecb(), key, NULL, 1, NULL);
    EVP_CipherInit_ex2(lane->essiv, EVP_aes_128_ctr(), key, counter, 1, NULL);
    cr_assert(q2_mode_ctr(lane, true, 0, bytes, 1));
    cr_assert_arr_eq(lane->iv[0], vector, sizeof vector);
    oracle_run("AES-128-CTR", key, vector, expected, sizeof expected);
    cr_assert_arr_eq(bytes, expected, sizeof expected);
    EVP_CIPHER_CTX_free(lane->encrypt);
    EVP_CIPHER_CTX_free(lane->essiv);
    free(lane);
}

/* libcrypto has no XTS with AES-192. Its definition, block by block. */
Test(codec_cipher, xts_with_aes_192)
{
    uint8_t key[48], tweak[16] = {0}, expected[512] = {0}, bytes[512] = {0};
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)(i * 7);
    tweak[0] = 0x39;
    tweak[1] = 0x30;
    oracle_run("AES-192-ECB", key + 24, NULL, tweak, 16);
    for (size_t at = 0; at < 512; at += 16) {
        for (size_t i = 0; i < 16; i++)
            expected[at + i] = (uint8_t)at ^ tweak[i];
        oracle_run("AES-192-ECB", key, NULL, expected + at, 16);
        for (size_t i = 0; i < 16; i++)
            expected[at + i] ^= tweak[i];
        unsigned carry = 0;
        for (size_t i = 0; i < 16; i++) {
            unsigned doubled = (unsigned)tweak[i] << 1 | carry;
            tweak[i] = (uint8_t)doubled;
            carry = doubled >> 8;
        }
        tweak[0] ^= carry ? 0x87 : 0;
        memset(bytes + at, (int)at, 16);
    }
    struct q2_cipher *cipher = cipher_for("xts-plain64", key, sizeof key);
    cr_assert_eq(q2_cipher_encrypt(cipher, 12345, bytes, sizeof bytes, NULL), 0);
    cr_assert_arr_eq(bytes, expected, sizeof bytes);
    q2_cipher_free(cipher);
}

/* ---- legacy AES ---- */

static void
check_legacy(const char *passphrase, const char *key)
{
    uint8_t bytes[1024] = "some text", expected[1024] = "some text", padded[16] = {0};
    static const struct peer peer = {"cbc-plain64", "AES-128-CBC", 16, 8, NULL, NULL};
    memcpy(padded, key, strlen(key));
    struct q2_cipher *cipher = NULL;
    cr_assert_eq(q2_cipher_new_aes(passphrase, strlen(passphrase), &cipher, NULL), 0);
    cr_assert_eq(q2_cipher_encrypt(cipher, 3, bytes, sizeof bytes, NULL), 0);
    oracle_sector(&peer, padded, 3, expected);
    oracle_sector(&peer, padded, 4, expected + 512);
    cr_assert_arr_eq(bytes, expected, sizeof bytes);
    q2_cipher_free(cipher);
}

Test(codec_cipher, a_legacy_key_is_the_pass_phrase)
{
    check_legacy("", "");
    check_legacy("abc", "abc");
    check_legacy("0123456789abcdef", "0123456789abcdef");
    check_legacy("0123456789abcdefgh", "0123456789abcdef");
}

/* ---- refusals ---- */

static const struct refused {
    const char *name, *mode;
    size_t key_bytes;
    int code;
    const char *message;
} refused[] = {
    {"serpent", "xts-plain64", 64, Q2_ERR_UNSUPPORTED, "cipher \"serpent\" is not supported"},
    {"twofish", "cbc-plain64", 32, Q2_ERR_UNSUPPORTED, "cipher \"twofish\" is not supported"},
    {"a\x1b[s", "xts-plain64", 64, Q2_ERR_UNSUPPORTED, "cipher \"a\\x1b[s\" is not supported"},
    {"", "xts-plain64", 64, Q2_ERR_UNSUPPORTED, "cipher \"\" is not supported"},
    {"aes", "xts", 64, Q2_ERR_UNSUPPORTED, "cipher mode \"xts\" is not supported"},
    {"aes", "xt-plain", 64, Q2_ERR_UNSUPPORTED, "cipher mode \"xt-plain\" is not supported"},
    {"aes", "lrw-plain64", 32, Q2_ERR_UNSUPPORTED, "cipher mode \"lrw-plain64\" is not supported"},
    {"aes", "cbc-", 32, Q2_ERR_UNSUPPORTED, "cipher mode \"cbc-\" is not supported"},
    {"aes", "cbc-essiv", 32, Q2_ERR_UNSUPPORTED, "cipher mode \"cbc-essiv\" is not supported"},
    {"aes", "cbc-plain6", 32, Q2_ERR_UNSUPPORTED, "cipher mode \"cbc-plain6\" is not supported"},
    {"aes", "cbc-essiv:sha3", 32, Q2_ERR_UNSUPPORTED, "hash \"sha3\" is not supported"},
    {"aes", "cbc-essiv:sha1", 32, Q2_ERR_UNSUPPORTED,
     "ESSIV with sha1 needs AES with a key of 20 bytes, which there is not"},
    {"aes", "cbc-plain64", 0, Q2_ERR_RANGE, "AES in mode cbc-plain64 has no keys of 0 bytes"},
    {"aes", "cbc-plain64", 64, Q2_ERR_RANGE, "AES in mode cbc-plain64 has no keys of 64 bytes"},
    {"aes", "xts-plain64", 16, Q2_ERR_RANGE, "AES in mode xts-plain64 has no keys of 16 bytes"},
    {"aes", "xts-plain64", 33, Q2_ERR_RANGE, "AES in mode xts-plain64 has no keys of 33 bytes"},
    {"aes", "cbc-essiv:sha256", 1 << 30, Q2_ERR_RANGE,
     "AES in mode cbc-essiv:sha256 has no keys of 1073741824 bytes"},
};

Test(codec_cipher, what_is_refused)
{
    const uint8_t key[Q2_CIPHER_MAX_KEY] = {0};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        const struct refused *r = &refused[i];
        struct q2_cipher *cipher = NULL;
        struct q2_error err = {0};
        cr_assert_eq(q2_cipher_new(r->name, r->mode, key, r->key_bytes, &cipher, &err), r->code,
                     "%s %s", r->name, r->mode);
        cr_assert_str_eq(err.message, r->message);
        cr_assert_eq(err.code, (enum q2_error_code)r->code);
        cr_assert_null(cipher);
    }
}

Test(codec_cipher, only_whole_sectors)
{
    const uint8_t key[Q2_CIPHER_MAX_KEY] = {1};
    uint8_t bytes[1023] = {0};
    struct q2_error err = {0};
    struct q2_cipher *cipher = cipher_for("xts-plain64", key, sizeof key);
    cr_assert_eq(q2_cipher_decrypt(cipher, 9, bytes, sizeof bytes, &err), Q2_ERR_RANGE);
    cr_assert_str_eq(err.message,
                     "1023 bytes to decrypt at sector 9 are no whole number of sectors");
    for (size_t i = 0; i < sizeof bytes; i++)
        cr_assert_eq(bytes[i], 0);
    q2_cipher_free(cipher);
    q2_cipher_free(NULL);
}
