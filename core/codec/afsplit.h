/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The anti-forensic splitter of LUKS1 ("AFsplit" and "AFmerge" in its specification, section 2.4):
 * a key is spread over so many stripes that losing any one of them loses the key, for disks may
 * keep old copies of single sectors. Private to core/codec. */

#ifndef Q2_CODEC_AFSPLIT_H
#define Q2_CODEC_AFSPLIT_H

#include "core/codec/hash.h"

/* Split `length` bytes of key (at most Q2_CIPHER_MAX_KEY) into `stripes` * `length` bytes. */
int q2_af_split(const struct q2_hash *hash, const uint8_t *key, size_t length, uint32_t stripes,
                uint8_t *material, struct q2_error *err);

/* The reverse. Any material merges to some key. */
int q2_af_merge(const struct q2_hash *hash, const uint8_t *material, size_t length,
                uint32_t stripes, uint8_t *key, struct q2_error *err);

#endif
