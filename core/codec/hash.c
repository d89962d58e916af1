/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/codec/hash.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/base/parallel.h"
#include "core/codec/pbkdf2_sha256.h"
#include "core/codec/random.h"
#include "core/format/problem.h"

#include <limits.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <time.h>

enum {
    WORTH_A_THREAD = 50000, /* iterations */
    MAX_THREADS = 4,
};

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

/* ---- PBKDF2 ---- */

/* The blocks of a key: each is a job of its own. */
struct blocks {
    const struct q2_hash *hash;
    const struct q2_pbkdf2 *job;
    uint8_t *key;
    size_t key_length;
};

/* One block, by the fast way. Its first iteration, which covers the salt, is libcrypto's: that
 * makes a key of one block out of a salt with the block's number behind it. */
static int
derive_block(void *data, unsigned worker, uint64_t turn, struct q2_error *err)
{
    const struct blocks *blocks = data;
    const struct q2_pbkdf2 *job = blocks->job;
    uint8_t first[Q2_SHA256_LENGTH], block[Q2_SHA256_LENGTH], number[4];
    size_t at = turn * Q2_SHA256_LENGTH;
    unsigned length = sizeof first;
    (void)worker;
    Q2_AUTOFREE uint8_t *message = malloc(job->salt_length + sizeof number);
    if (!message)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for PBKDF2");
    memcpy(message, job->salt, job->salt_length);
    q2_store_be32(message + job->salt_length, (uint32_t)turn + 1);
    if (!HMAC(blocks->hash->md, job->passphrase, (int)job->passphrase_length, message,
              job->salt_length + sizeof number, first, &length))
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for PBKDF2");
    q2_pbkdf2_sha256_block(job->passphrase, job->passphrase_length, job->iterations, first, block);
    memcpy(blocks->key + at, block, q2_min(sizeof block, blocks->key_length - at));
    q2_wipe(first, sizeof first);
    q2_wipe(block, sizeof block);
    return 0;
}

/* The blocks side by side: a key for XTS has two. */
static int
derive_fast(const struct q2_hash *hash, const struct q2_pbkdf2 *job, unsigned threads, uint8_t *key,
            size_t key_length, struct q2_error *err)
{
    struct blocks blocks = {.hash = hash, .job = job, .key = key, .key_length = key_length};
    struct q2_loop loop = {.threads = 1, .turn = derive_block, .data = &blocks};
    loop.turns = (key_length + Q2_SHA256_LENGTH - 1) / Q2_SHA256_LENGTH;
    if (job->iterations >= WORTH_A_THREAD && loop.turns > 1)
        loop.threads = (unsigned)q2_min(loop.turns, threads);
    return q2_loop_run(&loop, err);
}

static int
derive(const struct q2_hash *hash, const struct q2_pbkdf2 *job, unsigned threads, uint8_t *key,
       size_t key_length, struct q2_error *err)
{
    if (job->iterations == 0 || job->iterations > INT_MAX)
        return q2_error_set(err, Q2_ERR_RANGE, "PBKDF2 cannot do %u iterations", job->iterations);
    if (job->passphrase_length > INT_MAX)
        return q2_error_set(err, Q2_ERR_RANGE, "a pass phrase of %zu bytes is too long",
                            job->passphrase_length);
    if (EVP_MD_is_a(hash->md, "SHA256"))
        return derive_fast(hash, job, threads, key, key_length, err);
    if (PKCS5_PBKDF2_HMAC(job->passphrase, (int)job->passphrase_length, job->salt,
                          (int)job->salt_length, (int)job->iterations, hash->md, (int)key_length,
                          key) != 1)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for PBKDF2");
    return 0;
}

int
q2_hash_pbkdf2(const struct q2_hash *hash, const struct q2_pbkdf2 *job, uint8_t *key,
               size_t key_length, struct q2_error *err)
{
    return derive(hash, job, MAX_THREADS, key, key_length, err);
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
        int r = derive(hash, &trial, 1, key, key_length, err);
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
