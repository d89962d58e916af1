/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Hashes by the names that LUKS headers use, and PBKDF2 (RFC 8018, section 5.2) with HMAC over
 * them. Private to core/codec. */

#ifndef Q2_CODEC_HASH_H
#define Q2_CODEC_HASH_H

#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>

enum { Q2_HASH_MAX = 64 }; /* bytes of the longest digest */

/* May be used by several threads at once. */
struct q2_hash {
    void *md;      /* libcrypto's */
    size_t length; /* of a digest, bytes */
};

/* Q2_ERR_UNSUPPORTED for a name that is unknown or whose hash the system's libcrypto lacks. */
int q2_hash_open(const char *name, struct q2_hash *ret_hash, struct q2_error *err);
void q2_hash_close(struct q2_hash *hash);

/* The digest of `length` bytes, hash->length long. */
int q2_hash_digest(const struct q2_hash *hash, const void *bytes, size_t length, uint8_t *digest,
                   struct q2_error *err);

struct q2_pbkdf2 {
    const void *passphrase;
    size_t passphrase_length; /* bytes */
    const uint8_t *salt;
    size_t salt_length;
    uint32_t iterations; /* 1 to 2^31 - 1, otherwise Q2_ERR_RANGE */
};

/* Derive a key of `key_length` bytes. */
int q2_hash_pbkdf2(const struct q2_hash *hash, const struct q2_pbkdf2 *job, uint8_t *key,
                   size_t key_length, struct q2_error *err);

/* How many iterations for a key of `key_length` bytes this machine does in a second of CPU time;
 * job->iterations is not looked at. Takes about a tenth of that to find out. */
int q2_hash_pbkdf2_rate(const struct q2_hash *hash, const struct q2_pbkdf2 *job, size_t key_length,
                        uint64_t *ret_rate, struct q2_error *err);

#endif
