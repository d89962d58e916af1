/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* LUKS key slots, on bytes in memory.
 *
 * An "area" is what the full disk encryption header pointer points to: the LUKS1 header and behind
 * it the key material of 8 slots. Each slot that is in use holds the same master key, split into
 * stripes and encrypted with a pass phrase of its own; the header's digest tells whether a key that
 * comes out is the right one.
 *
 * Nothing here reads or writes files. What changes an area says which bytes are to be written, and
 * in which order, so that a crash in between loses no slot that was there before. */

#ifndef Q2_CODEC_KEYS_H
#define Q2_CODEC_KEYS_H

#include "core/base/error.h"
#include "core/codec/cipher.h"
#include "core/format/luks.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    Q2_LUKS_ANY_SLOT = -1,
    Q2_LUKS_ITER_TIME = 2000, /* ms: how long a try of a pass phrase should take by default */
    Q2_LUKS_MIN_ITERATIONS = 1000,
};

/* How much work a header may ask for before q2_luks_unlock gives up on it, in computations of a
 * hash: an iteration costs one for each digest's length that its key has. Minutes of work: far more
 * than `iter-time` is ever set to, while what a header can claim is days. */
#define Q2_LUKS_WORK_LIMIT UINT64_C(200000000)

struct q2_luks_key {
    size_t length; /* bytes; 0: none */
    uint8_t bytes[Q2_CIPHER_MAX_KEY];
};

/* Forget the key. NULL is allowed. */
void q2_luks_key_wipe(struct q2_luks_key *key);

/* Find the master key with a pass phrase of `length` bytes: slots that are in use are tried in
 * turn. The area need not obey all rules of q2_luks_validate; a slot that cannot be used (its
 * material lies outside of the area, its stripes or iterations are absurd) is passed over. At most
 * `work_limit` computations of a hash are done, 0 for Q2_LUKS_WORK_LIMIT.
 *
 * Q2_ERR_PASSPHRASE if the pass phrase opens no slot, Q2_ERR_FORMAT if the header is none or no
 * slot can be used, Q2_ERR_RANGE if no slot opens but some were passed over because of the limit,
 * Q2_ERR_UNSUPPORTED for a cipher, mode or hash that is not built in. */
int q2_luks_unlock(const uint8_t *area, size_t area_length, const void *passphrase, size_t length,
                   uint64_t work_limit, struct q2_luks_key *ret_key, unsigned *ret_slot,
                   struct q2_error *err);

/* The cipher for guest data, from the names in the area and the master key. */
int q2_luks_cipher(const uint8_t *area, size_t area_length, const struct q2_luks_key *key,
                   struct q2_cipher **ret_cipher, struct q2_error *err);

struct q2_luks_slot_info {
    bool active;
    uint32_t iterations;
    uint32_t stripes;
    uint64_t material_offset; /* bytes from the start of the area */
    uint64_t material_length; /* bytes */
    bool usable;              /* whether its key material lies inside the area */
};

/* What the 8 slots say. */
int q2_luks_slots(const uint8_t *area, size_t area_length,
                  struct q2_luks_slot_info ret_slots[Q2_LUKS_SLOTS], struct q2_error *err);

/* What `encrypt.*` creation options say; all zero for QEMU's defaults. */
struct q2_luks_options {
    const char *cipher_name; /* NULL: "aes" */
    const char *cipher_mode; /* NULL: "xts-plain64" */
    const char *hash;        /* NULL: "sha256" */
    uint32_t key_bytes;      /* of the master key; 0: AES-256, that is 64 with XTS and 32 without */
    uint32_t iter_time;      /* ms; 0: Q2_LUKS_ITER_TIME */
    uint32_t iterations;     /* of the pass phrase and of the digest; 0: measured for iter_time */
};

/* Make an area with a new master key and the pass phrase in slot 0, laid out as QEMU does. The
 * caller frees *ret_area; its length, in bytes, goes to the full disk encryption header pointer. */
int q2_luks_format(const struct q2_luks_options *options, const void *passphrase, size_t length,
                   uint8_t **ret_area, size_t *ret_area_length, struct q2_luks_key *ret_key,
                   struct q2_error *err);

/* Let a further pass phrase open the image: in `slot`, which must not be in use (Q2_ERR_EXISTS), or
 * in the first free one for Q2_LUKS_ANY_SLOT (Q2_ERR_NOSPACE if there is none). Q2_ERR_PASSPHRASE
 * if `key` is not the area's master key. Of the options only iter_time and iterations count; NULL
 * for defaults. Write the slot's key material first, flush, then the header. The area is unchanged
 * on failure. */
int q2_luks_add_key(uint8_t *area, size_t area_length, const struct q2_luks_key *key,
                    const void *passphrase, size_t length, int slot,
                    const struct q2_luks_options *options, unsigned *ret_slot,
                    struct q2_error *err);

/* Free a slot and overwrite its key material with random bytes. The last slot in use goes only with
 * `force` (otherwise Q2_ERR_RANGE): without any slot the guest's data is lost. Q2_ERR_NOT_FOUND for
 * a slot that is not in use, unless `force`. Write the header first, flush, then the key material.
 * The area is unchanged on failure. */
int q2_luks_remove_slot(uint8_t *area, size_t area_length, unsigned slot, bool force,
                        struct q2_error *err);

/* The same for every slot that the pass phrase opens: *ret_slots gets a bit for each. Q2_ERR_RANGE
 * where those are all slots in use, unless `force`. Otherwise fails as q2_luks_unlock does. */
int q2_luks_remove_passphrase(uint8_t *area, size_t area_length, const void *passphrase,
                              size_t length, bool force, uint64_t work_limit, unsigned *ret_slots,
                              struct q2_error *err);

#endif
