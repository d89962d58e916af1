/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Hashes and PBKDF2 against published vectors; the anti-forensic splitter by its promise: all of
 * the material or nothing. */

#include "core/base/cleanup.h"
#include "core/codec/afsplit.h"
#include "core/codec/hash.h"

#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct q2_hash
hash_for(const char *name)
{
    struct q2_hash hash = {NULL, 0};
    struct q2_error err = {0};
    cr_assert_eq(q2_hash_open(name, &hash, &err), 0, "%s", err.message);
    return hash;
}

static void
to_hex(const uint8_t *bytes, size_t length, char *hex)
{
    for (size_t i = 0; i < length; i++)
        sprintf(hex + 2 * i, "%02x", bytes[i]);
}

/* The digest of "abc", as each standard gives it. */
static const struct known {
    const char *name;
    size_t length;
    const char *begin;
} known[] = {
    {"sha1", 20, "a9993e364706816aba3e"},      {"sha224", 28, "23097d223405d8228642"},
    {"sha256", 32, "ba7816bf8f01cfea4141"},    {"sha384", 48, "cb00753f45a35e8bb5a0"},
    {"sha512", 64, "ddaf35a193617abacc41"},    {"md5", 16, "900150983cd24fb0d696"},
    {"ripemd160", 20, "8eb208f7e05d987a9b04"}, {"sm3", 32, "66c7f0f462eeedd9d1f2"},
};

Test(codec_hash, names_of_hashes)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        struct q2_hash hash = hash_for(known[i].name);
        uint8_t digest[Q2_HASH_MAX];
        char hex[2 * Q2_HASH_MAX + 1];
        cr_assert_eq(hash.length, known[i].length);
        cr_assert_eq(q2_hash_digest(&hash, "abc", 3, digest, NULL), 0);
        to_hex(digest, 10, hex);
        cr_assert_str_eq(hex, known[i].begin, "%s", known[i].name);
        q2_hash_close(&hash);
    }
}

Test(codec_hash, unknown_names)
{
    static const char *const names[] = {"", "SHA256", "sha257", "sha", "whirlpool"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct q2_hash hash = {NULL, 0};
        struct q2_error err = {0};
        cr_assert_eq(q2_hash_open(names[i], &hash, &err), Q2_ERR_UNSUPPORTED);
        cr_assert_null(hash.md);
        cr_assert_neq(strstr(err.message, "is not supported"), NULL);
    }
}

/* RFC 6070 and RFC 7914, section 11. */
static const struct derived {
    const char *hash, *passphrase, *salt;
    uint32_t iterations;
    size_t length;
    const char *key;
} derived[] = {
    {"sha1", "password", "salt", 1, 20, "0c60c80f961f0e71f3a9b524af6012062fe037a6"},
    {"sha1", "password", "salt", 2, 20, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"},
    {"sha1", "password", "salt", 4096, 20, "4b007901b765489abead49d926f721d065a429c1"},
    {"sha1", "passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt", 4096, 25,
     "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"},
    {"sha256", "passwd", "salt", 1, 64,
     "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"
     "49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"},
};

Test(codec_hash, published_vectors_of_pbkdf2)
{
    for (size_t i = 0; i < sizeof derived / sizeof derived[0]; i++) {
        const struct derived *d = &derived[i];
        struct q2_hash hash = hash_for(d->hash);
        struct q2_pbkdf2 job = {d->passphrase, strlen(d->passphrase), (const uint8_t *)d->salt,
                                strlen(d->salt), d->iterations};
        uint8_t key[64];
        char hex[129];
        cr_assert_eq(q2_hash_pbkdf2(&hash, &job, key, d->length, NULL), 0);
        to_hex(key, d->length, hex);
        cr_assert_eq(strncmp(hex, d->key, strlen(d->key)), 0, "%s", hex);
        q2_hash_close(&hash);
    }
}

/* SHA-256 has a way of its own; libcrypto judges it, around the sizes of its blocks. */
Test(codec_hash, our_pbkdf2_is_libcryptos)
{
    static const size_t passphrases[] = {0, 1, 63, 64, 65, 200}, keys[] = {1, 32, 33, 64, 100};
    struct q2_hash hash = hash_for("sha256");
    uint8_t passphrase[200], expected[100], got[100];
    for (size_t i = 0; i < sizeof passphrase; i++)
        passphrase[i] = (uint8_t)(i * 7 + 1);
    for (size_t i = 0; i < 6 * 5 * 3; i++) {
        size_t length = passphrases[i % 6], key = keys[i / 6 % 5];
        uint32_t iterations = i / 30 == 0 ? 1 : i / 30 == 1 ? 2 : 60000;
        struct q2_pbkdf2 job = {passphrase, length, passphrase + 50, 1 + i, iterations};
        cr_assert_eq(q2_hash_pbkdf2(&hash, &job, got, key, NULL), 0);
        cr_assert_eq(PKCS5_PBKDF2_HMAC((const char *)passphrase, (int)length, job.salt,
                                       (int)job.salt_length, (int)iterations, EVP_sha256(),
                                       (int)key, expected),
                     1);
        cr_assert_arr_eq(got, expected, key, "%zu bytes, key of %zu, %u iterations", length, key,
                         iterations);
    }
    q2_hash_close(&hash);
}

Test(codec_hash, impossible_counts)
{
    struct q2_hash hash = hash_for("sha256");
    static const uint32_t counts[] = {0, UINT32_C(0x80000000), UINT32_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct q2_pbkdf2 job = {"abc", 3, (const uint8_t *)"salt", 4, counts[i]};
        uint8_t key[32];
        cr_assert_eq(q2_hash_pbkdf2(&hash, &job, key, sizeof key, NULL), Q2_ERR_RANGE);
    }
    q2_hash_close(&hash);
}

/* A key of twice a digest's length takes twice the time. What else runs on the machine may make
 * either measurement wrong, but not again and again in the same direction. */
Test(codec_hash, rates_are_measured)
{
    struct q2_hash hash = hash_for("sha256");
    struct q2_pbkdf2 job = {"abc", 3, (const uint8_t *)"salt", 4, 0};
    bool slower = false;
    for (int tries = 0; tries < 5 && !slower; tries++) {
        uint64_t once = 0, twice = 0;
        cr_assert_eq(q2_hash_pbkdf2_rate(&hash, &job, 32, &once, NULL), 0);
        cr_assert_eq(q2_hash_pbkdf2_rate(&hash, &job, 64, &twice, NULL), 0);
        cr_assert_gt(twice, 1000);
        slower = twice < once * 3 / 4 && twice > once / 4;
    }
    cr_assert(slower);
    q2_hash_close(&hash);
}

/* ---- the splitter ---- */

static void
check_split(const char *name, size_t length, uint32_t stripes)
{
    struct q2_hash hash = hash_for(name);
    Q2_AUTOFREE uint8_t *key = malloc(length), *merged = malloc(length);
    Q2_AUTOFREE uint8_t *material = malloc(length * stripes);
    for (size_t i = 0; i < length; i++)
        key[i] = (uint8_t)(i * 11 + 1);
    cr_assert_eq(q2_af_split(&hash, key, length, stripes, material, NULL), 0);
    cr_assert_eq(q2_af_merge(&hash, material, length, stripes, merged, NULL), 0);
    cr_assert_arr_eq(merged, key, length);

    size_t at = (size_t)rand() % (length * stripes);
    material[at] ^= 0x10;
    cr_assert_eq(q2_af_merge(&hash, material, length, stripes, merged, NULL), 0);
    cr_assert_neq(memcmp(merged, key, length), 0, "%s: byte %zu does not matter", name, at);
    q2_hash_close(&hash);
}

Test(codec_hash, splitting_and_merging_are_inverse)
{
    static const size_t lengths[] = {16, 24, 32, 48, 64};
    srand(1);
    for (size_t h = 0; h < sizeof known / sizeof known[0]; h++)
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
            for (uint32_t stripes = 1; stripes <= 100; stripes += 33)
                check_split(known[h].name, lengths[i], stripes);
    check_split("sha256", 64, 4000);
}

/* Two splits of one key share nothing but what is too short to tell. */
Test(codec_hash, splits_are_random)
{
    struct q2_hash hash = hash_for("sha256");
    const uint8_t key[32] = {0};
    uint8_t a[320], b[320];
    cr_assert_eq(q2_af_split(&hash, key, sizeof key, 10, a, NULL), 0);
    cr_assert_eq(q2_af_split(&hash, key, sizeof key, 10, b, NULL), 0);
    for (size_t at = 0; at < sizeof a; at += sizeof key)
        cr_assert_neq(memcmp(a + at, b + at, sizeof key), 0);
    q2_hash_close(&hash);
}
