/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What reading and changing key slots share. Private to core/codec. */

#ifndef Q2_CODEC_AREA_H
#define Q2_CODEC_AREA_H

#include "core/codec/hash.h"
#include "core/codec/keys.h"

/* A decoded area with the names in it resolved. */
struct q2_luks_area {
    struct q2_luks_header header;
    struct q2_hash hash;
    uint64_t length; /* bytes, header included */
};

/* Decode a header and find its hash; whether there is such a cipher and whether it takes keys of
 * the header's length is tried out as well. Close what was opened. */
int q2_luks_area_open(const uint8_t *bytes, size_t length, struct q2_luks_area *ret_area,
                      struct q2_error *err);
void q2_luks_area_close(struct q2_luks_area *area);

/* The area's cipher with some key of header.key_bytes. */
int q2_luks_area_cipher(const struct q2_luks_area *area, const uint8_t *key,
                        struct q2_cipher **ret_cipher, struct q2_error *err);

/* What slot `slot` says; its material is counted in whole sectors. */
struct q2_luks_slot_info q2_luks_area_slot(const struct q2_luks_area *area, unsigned slot);

/* How many computations of the hash one try of a pass phrase takes. */
uint64_t q2_luks_area_work(const struct q2_luks_area *area, uint32_t iterations);

/* Q2_ERR_PASSPHRASE unless the digest is that of `key`, of header.key_bytes. */
int q2_luks_area_verify(const struct q2_luks_area *area, const uint8_t *key, struct q2_error *err);

/* The digest of `key` with the header's salt and iterations. */
int q2_luks_area_digest(const struct q2_luks_area *area, const uint8_t *key,
                        uint8_t digest[Q2_LUKS_DIGEST_LENGTH], struct q2_error *err);

/* Find the slots that a pass phrase opens: the first, or `all` of them. *ret_slots gets a bit for
 * each, at least one. Fails as q2_luks_unlock does. */
int q2_luks_area_search(const struct q2_luks_area *area, const uint8_t *bytes,
                        const void *passphrase, size_t length, uint64_t work_limit, bool all,
                        struct q2_luks_key *ret_key, unsigned *ret_slots, struct q2_error *err);

#endif
