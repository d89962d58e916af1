/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/codec/hash.h"

#include "core/codec/random.h"
#include "core/format/problem.h"

#include <limits.h>
#include <openssl/evp.h>
#include <string.h>
#include <time.h>

static const struct name {
    const char *luks, *libcrypto;
} names[] = {
    {"sha256", "SHA256"}, {"sha1", "SHA1"}, {"sha512", "SHA512"},       {"sha384", "SHA384"},
    {"sha224", "SHA224"}, {"md5", "MD5"},   {"ripemd160", "RIPEMD160"}, {"sm3", "SM3"},
};

static EVP_MD *
fetch(const char *name)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i].luks, name) == 0)
            return EVP_MD_fetch(NULL, names[i].libcrypto, NULL);
    return NULL;
}

int
q2_hash_open(const char *name, struct q2_hash *ret_hash, struct q2_error *err)
{
    EVP_MD *md = fetch(name);
    if (!md) {
        char printable[80];
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "hash \"%s\" is not supported",
                            q2_printable(printable, sizeof printable, name, strlen(name)));
    }
    *ret_hash = (struct q2_hash){md, (size_t)EVP_MD_get_size(md)};
    return 0;
}

void
q2_hash_close(struct q2_hash *hash)
{
    EVP_MD_free(hash->md);
    hash->md = NULL;
}

int
q2_hash_digest(const struct q2_hash *hash, const void *bytes, size_t length, uint8_t *digest,
               struct q2_error *err)
{
    if (EVP_Digest(bytes, length, digest, NULL, hash->md, NULL) != 1)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a hash");
    return 0;
}

int
q2_hash_pbkdf2(const struct q2_hash *hash, const struct q2_pbkdf2 *job, uint8_t *key,
               size_t key_length, struct q2_error *err)
{
    if (job->iterations == 0 || job->iterations > INT_MAX)
        return q2_error_set(err, Q2_ERR_RANGE, "PBKDF2 cannot do %u iterations", job->iterations);
    if (job->passphrase_length > INT_MAX)
        return q2_error_set(err, Q2_ERR_RANGE, "a pass phrase of %zu bytes is too long",
                            job->passphrase_length);
    if (PKCS5_PBKDF2_HMAC(job->passphrase, (int)job->passphrase_length, job->salt,
                          (int)job->salt_length, (int)job->iterations, hash->md, (int)key_length,
                          key) != 1)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for PBKDF2");
    return 0;
}

static uint64_t
cpu_time_us(void)
{
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

int
q2_hash_pbkdf2_rate(const struct q2_hash *hash, const struct q2_pbkdf2 *job, size_t key_length,
                    uint64_t *ret_rate, struct q2_error *err)
{
    enum { LONG_ENOUGH_US = 100000 };
    struct q2_pbkdf2 trial = *job;
    uint8_t key[2 * Q2_HASH_MAX];
    if (key_length > sizeof key)
        return q2_error_set(err, Q2_ERR_RANGE, "a key of %zu bytes is too long", key_length);
    for (trial.iterations = 4096;; trial.iterations *= 2) {
        uint64_t start = cpu_time_us();
        int r = q2_hash_pbkdf2(hash, &trial, key, key_length, err);
        q2_wipe(key, sizeof key);
        if (r < 0)
            return r;
        uint64_t taken = cpu_time_us() - start;
        /* A clock that stands still must not keep us here. */
        if (taken >= LONG_ENOUGH_US || trial.iterations >= UINT32_C(1) << 24) {
            *ret_rate = (uint64_t)trial.iterations * 1000000 / (taken ? taken : 1);
            return 0;
        }
    }
}
