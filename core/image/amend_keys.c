/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* LUKS key slots of an open image. A slot that comes has its key material on the disk before the
 * header says that it is in use; one that goes is out of the header before its material is
 * overwritten. So every slot that a crash leaves in use can be unlocked. */

#include "core/codec/keys.h"
#include "core/codec/secret.h"
#include "core/image/amend.h"
#include "core/image/internal.h"

enum { MAX_AREA = 64 << 20 };

/* The LUKS header with its key material. */
struct keys {
    uint8_t *area;
    size_t length;
};

static int
keys_read(struct q2_image *image, struct keys *keys, struct q2_error *err)
{
    uint64_t length = image->area.crypto_length;
    if (image->header.crypt_method != Q2_CRYPT_LUKS || !image->area.has_crypto)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: the image is not encrypted with LUKS and has no key slots",
                            image->file->name);
    if (!image->luks_key)
        return q2_error_set(err, Q2_ERR_PASSPHRASE,
                            "%s: key slots change only in images opened with a pass phrase",
                            image->file->name);
    if (length < Q2_LUKS_HEADER_LENGTH || length > MAX_AREA)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: an encryption header of %llu bytes cannot be one",
                            image->file->name, (unsigned long long)length);
    keys->area = malloc(length);
    if (!keys->area)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for the encryption header",
                            image->file->name);
    keys->length = length;
    return q2_meta_read(image, image->area.crypto_offset, keys->area, length, err);
}

static int
write_header(struct q2_image *image, const struct keys *keys, struct q2_error *err)
{
    int rc = q2_meta_write(image, Q2_CLAIM_CRYPTO, image->area.crypto_offset, keys->area,
                           Q2_LUKS_HEADER_LENGTH, err);
    return rc < 0 ? rc : q2_image_barrier(image, err);
}

/* The key material of the slots whose bits are set. */
static int
write_material(struct q2_image *image, const struct keys *keys, unsigned slots,
               struct q2_error *err)
{
    struct q2_luks_slot_info info[Q2_LUKS_SLOTS];
    int rc = q2_luks_slots(keys->area, keys->length, info, err);
    for (unsigned i = 0; rc == 0 && i < Q2_LUKS_SLOTS; i++) {
        if (!(slots >> i & 1) || !info[i].usable)
            continue;
        rc = q2_meta_write(image, Q2_CLAIM_CRYPTO,
                           image->area.crypto_offset + info[i].material_offset,
                           keys->area + info[i].material_offset, info[i].material_length, err);
    }
    return rc < 0 ? rc : q2_image_barrier(image, err);
}

int
q2_image_add_key(struct q2_image *image, const struct q2_secret *secret, int slot,
                 uint32_t iterations, unsigned iteration_ms, struct q2_error *err)
{
    struct q2_luks_options options = {.iterations = iterations, .iter_time = iteration_ms};
    struct q2_exclusive exclusive;
    struct keys keys = {0};
    unsigned used = 0;
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    rc = keys_read(image, &keys, err);
    if (rc == 0)
        rc = q2_luks_add_key(keys.area, keys.length, image->luks_key, secret->bytes, secret->length,
                             slot, &options, &used, err);
    if (rc == 0)
        rc = write_material(image, &keys, 1U << used, err);
    if (rc == 0)
        rc = write_header(image, &keys, err);
    free(keys.area);
    q2_exclusive_end(image, &exclusive);
    return rc;
}

int
q2_image_remove_key(struct q2_image *image, const struct q2_secret *secret, int slot, bool force,
                    struct q2_error *err)
{
    struct q2_exclusive exclusive;
    struct keys keys = {0};
    unsigned slots = 0;
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    rc = keys_read(image, &keys, err);
    if (rc == 0 && slot >= 0) {
        rc = q2_luks_remove_slot(keys.area, keys.length, (unsigned)slot, force, err);
        slots = slot < Q2_LUKS_SLOTS ? 1U << slot : 0;
    } else if (rc == 0 && secret) {
        rc = q2_luks_remove_passphrase(keys.area, keys.length, secret->bytes, secret->length, force,
                                       0, &slots, err);
    } else if (rc == 0) {
        rc = q2_error_set(err, Q2_ERR_RANGE, "%s: neither a key slot nor a pass phrase is given",
                          image->file->name);
    }
    if (rc == 0)
        rc = write_header(image, &keys, err);
    if (rc == 0)
        rc = write_material(image, &keys, slots, err);
    free(keys.area);
    q2_exclusive_end(image, &exclusive);
    return rc;
}
