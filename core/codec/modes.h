/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Modes of operation over runs of sectors. Private to core/codec. */

#ifndef Q2_CODEC_MODES_H
#define Q2_CODEC_MODES_H

#include "core/codec/cipher.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    Q2_BLOCK = 16, /* bytes that AES takes at once */
    Q2_BATCH = 32, /* sectors that are worked on at once */
    Q2_BATCH_BYTES = Q2_BATCH * Q2_CIPHER_SECTOR,
};

/* How a sector's number becomes its initialization vector. */
enum q2_vectors {
    Q2_VECTORS_PLAIN,   /* its low 32 bits, little-endian */
    Q2_VECTORS_PLAIN64, /* all of it */
    Q2_VECTORS_ESSIV,   /* all of it, encrypted with a hash of the key */
};

/* What one thread at a time works with. The contexts do nothing but single blocks (ECB): calls into
 * libcrypto cost more than a sector does, so modes are put together here, a batch at a time. */
struct q2_lane {
    struct q2_lane *next;
    EVP_CIPHER_CTX *encrypt, *decrypt;
    EVP_CIPHER_CTX *tweak; /* of XTS, its second key, encrypting; otherwise NULL */
    EVP_CIPHER_CTX *essiv; /* encrypting; otherwise NULL */
    enum q2_vectors vectors;
    uint8_t iv[Q2_BATCH][Q2_BLOCK];
    uint8_t stream[Q2_BATCH_BYTES]; /* tweaks, key stream, or the ciphertext as it came */
};

/* Process up to Q2_BATCH sectors in place. False where libcrypto fails. */
typedef bool q2_mode_run(struct q2_lane *lane, bool encrypt, uint64_t first_sector, uint8_t *bytes,
                         size_t sectors);

q2_mode_run q2_mode_xts, q2_mode_cbc, q2_mode_ecb, q2_mode_ctr;

#endif
