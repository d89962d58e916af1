/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Encryption of guest clusters and of LUKS key material: AES over sectors of 512 bytes, each with
 * an initialization vector that is made of its number ("Data encryption" in the specification).
 *
 * Which number that is depends on the header's crypt_method: with legacy AES it counts from the
 * start of the virtual disk (guest offset / 512), with LUKS from the start of the image file or of
 * the external data file (host offset / 512). A cipher may be used by any number of threads. */

#ifndef Q2_CODEC_CIPHER_H
#define Q2_CODEC_CIPHER_H

#include "core/base/error.h"

#include <stddef.h>
#include <stdint.h>

enum {
    Q2_CIPHER_SECTOR_BITS = 9,
    Q2_CIPHER_SECTOR = 1 << Q2_CIPHER_SECTOR_BITS, /* bytes */
    Q2_CIPHER_MAX_KEY = 64,                        /* bytes: two keys of AES-256, for XTS */
};

struct q2_cipher;

/* The cipher of crypt_method 1: AES-128 in CBC mode with plain64 vectors. The key is the pass
 * phrase itself, cut or zero-padded to 16 bytes, so that every pass phrase "works": a wrong one
 * yields noise. */
int q2_cipher_new_aes(const void *passphrase, size_t length, struct q2_cipher **ret_cipher,
                      struct q2_error *err);

/* The cipher that a LUKS header names: `name` "aes"; `mode` xts, cbc, ecb or ctr, then "-" and how
 * vectors are made: plain, plain64, or essiv:HASH. The length of the key, in bytes, selects between
 * AES-128, AES-192 and AES-256; XTS takes two keys of that length. Q2_ERR_UNSUPPORTED for every
 * other cipher or mode, Q2_ERR_RANGE for a key of another length. The key is copied. */
int q2_cipher_new(const char *name, const char *mode, const uint8_t *key, size_t key_bytes,
                  struct q2_cipher **ret_cipher, struct q2_error *err);

/* Forgets the key. */
void q2_cipher_free(struct q2_cipher *cipher);

/* In place. `length` is in bytes and a multiple of Q2_CIPHER_SECTOR, otherwise Q2_ERR_RANGE;
 * `first_sector` is the number of the first sector. On any other error (memory) `bytes` are
 * undefined. */
int q2_cipher_encrypt(struct q2_cipher *cipher, uint64_t first_sector, void *bytes, size_t length,
                      struct q2_error *err);
int q2_cipher_decrypt(struct q2_cipher *cipher, uint64_t first_sector, void *bytes, size_t length,
                      struct q2_error *err);

#endif
