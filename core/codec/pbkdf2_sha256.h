/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* PBKDF2 with HMAC over SHA-256, which nearly all LUKS headers use, at the speed of the hash.
 * libcrypto's own sets its digest object up anew for each iteration and takes three times as long,
 * which a user waits for whenever an image is opened. Private to core/codec. */

#ifndef Q2_CODEC_PBKDF2_SHA256_H
#define Q2_CODEC_PBKDF2_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { Q2_SHA256_LENGTH = 32 };

/* Iterations 2 to `iterations` for one block of the derived key: `first` is the result of the first
 * iteration, `block` becomes the sum of all. The pass phrase has `length` bytes. */
void q2_pbkdf2_sha256_block(const void *passphrase, size_t length, uint32_t iterations,
                            const uint8_t first[Q2_SHA256_LENGTH], uint8_t block[Q2_SHA256_LENGTH]);

#endif
