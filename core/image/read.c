/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Reading guest data: one run at a time, looked up under the lock and read without it. The range is
 * held all along, so that what was looked up stays true. */

#include "core/codec/cipher.h"
#include "core/image/codecs.h"
#include "core/image/data.h"
#include "core/image/disk.h"
#include "core/io/iov.h"

#include <inttypes.h>
#include <string.h>

enum {
    PARTS = 64,          /* buffers that one read or write fills */
    BOUNCE = 256 * 1024, /* bytes that are decrypted at once */
};

/* A request and how far it is: guest bytes are those of the cursor, buffers those behind `done`. */
struct cursor {
    uint64_t guest;
    const struct iovec *iov;
    int iov_count;
    size_t done;
};

static void
advance(struct cursor *at, uint64_t length)
{
    at->guest += length;
    at->done += length;
}

/* ---- plain data ---- */

int
q2_data_read(struct q2_image *image, uint64_t host, const struct iovec *iov, int iov_count,
             size_t skip, uint64_t length, struct q2_error *err)
{
    if (!image->data)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "%s: its data file has not been opened",
                            image->file->name);
    for (uint64_t done = 0; done < length;) {
        struct iovec part[PARTS];
        size_t now, got;
        int count = q2_iov_part(iov, iov_count, skip + done, length - done, part, PARTS, &now);
        /* As it is before: others may write behind the end that the read then finds. */
        uint64_t known = image->known_end;
        int rc = q2_file_preadv(image->data, part, count, host + done, &got, err);
        if (rc < 0)
            return rc;
        done += got;
        if (got == now)
            continue;
        /* The last cluster of a file may be cut short, but bytes that were there do not vanish. */
        if (image->data == image->file && host + done < known)
            return q2_error_set(err, Q2_ERR_EOF,
                                "%s: the file ends at 0x%" PRIx64 ", though it had 0x%" PRIx64
                                " bytes: something else has cut it",
                                image->file->name, host + done, known);
        q2_iov_zero(iov, iov_count, skip + done, length - done);
        break;
    }
    return 0;
}

/* ---- encrypted data ---- */

uint64_t
q2_data_sector(const struct q2_image *image, uint64_t guest, uint64_t host)
{
    bool legacy = image->header.crypt_method == Q2_CRYPT_AES;
    return (legacy ? guest : host) >> Q2_CIPHER_SECTOR_BITS;
}

int
q2_data_need_cipher(const struct q2_image *image, struct q2_error *err)
{
    if (image->cipher)
        return 0;
    return q2_error_set(err, Q2_ERR_PASSPHRASE,
                        "%s: the image is encrypted and has been opened "
                        "without a pass phrase",
                        image->file->name);
}

/* Sectors are decrypted as a whole, in a buffer of their own where the request's are not fit. */
static int
read_encrypted(struct q2_image *image, const struct cursor *at, uint64_t host, uint64_t length,
               struct q2_error *err)
{
    int rc = q2_data_need_cipher(image, err);
    if (rc < 0)
        return rc;
    Q2_AUTOFREE uint8_t *bounce = malloc(q2_min(length, BOUNCE) + 2 * Q2_CIPHER_SECTOR);
    if (!bounce)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory to decrypt");
    for (uint64_t done = 0; done < length;) {
        uint64_t guest = at->guest + done, lead = guest % Q2_CIPHER_SECTOR;
        uint64_t now = q2_min(length - done, BOUNCE);
        uint64_t whole = q2_units(lead + now, Q2_CIPHER_SECTOR_BITS) << Q2_CIPHER_SECTOR_BITS;
        struct iovec iov = {.iov_base = bounce, .iov_len = whole};
        rc = q2_data_read(image, host + done - lead, &iov, 1, 0, whole, err);
        if (rc == 0)
            rc = q2_cipher_decrypt(image->cipher,
                                   q2_data_sector(image, guest - lead, host + done - lead), bounce,
                                   whole, err);
        if (rc < 0)
            return rc;
        q2_iov_from(at->iov, at->iov_count, at->done + done, bounce + lead, now);
        done += now;
    }
    return 0;
}

/* ---- what the image does not have ---- */

bool
q2_nothing_below(const struct q2_image *image, uint64_t guest)
{
    /* The VM state area has nothing below it. */
    return !image->backing || guest >= q2_min(q2_disk_size(image->backing), image->size);
}

static int
read_backing(struct q2_image *image, const struct cursor *at, uint64_t length, struct q2_error *err)
{
    uint64_t size = image->backing ? q2_min(q2_disk_size(image->backing), image->size) : 0;
    uint64_t there = at->guest < size ? q2_min(length, size - at->guest) : 0;
    for (uint64_t done = 0; done < there;) {
        struct iovec part[PARTS];
        size_t now;
        int count =
            q2_iov_part(at->iov, at->iov_count, at->done + done, there - done, part, PARTS, &now);
        int rc = q2_disk_readv(image->backing, at->guest + done, part, count, err);
        if (rc < 0)
            return rc;
        done += now;
    }
    q2_iov_zero(at->iov, at->iov_count, at->done + there, length - there);
    return 0;
}

/* ---- runs ---- */

static int
read_run(struct q2_image *image, const struct cursor *at, const struct q2_run *run,
         struct q2_error *err)
{
    switch (run->kind) {
    case Q2_CLUSTER_UNALLOCATED:
        return read_backing(image, at, run->length, err);
    case Q2_CLUSTER_ZERO:
    case Q2_CLUSTER_ZERO_ALLOCATED:
        q2_iov_zero(at->iov, at->iov_count, at->done, run->length);
        return 0;
    case Q2_CLUSTER_COMPRESSED:
        return q2_codecs_read(image->codecs, image->file, &run->packed,
                              at->guest - run->packed_guest, run->length, at->iov, at->iov_count,
                              at->done, err);
    case Q2_CLUSTER_STANDARD:
        if (image->geometry.encrypted)
            return read_encrypted(image, at, run->host, run->length, err);
        return q2_data_read(image, run->host, at->iov, at->iov_count, at->done, run->length, err);
    }
    __builtin_unreachable();
}

int
q2_guest_read(struct q2_image *image, uint64_t guest, const struct iovec *iov, int iov_count,
              struct q2_error *err)
{
    struct cursor at = {.guest = guest, .iov = iov, .iov_count = iov_count};
    uint64_t length = q2_iov_total(iov, iov_count);
    while (at.done < length) {
        struct q2_run run;
        pthread_mutex_lock(&image->lock);
        int rc = q2_map_run(image, at.guest, length - at.done, &run, err);
        pthread_mutex_unlock(&image->lock);
        if (rc == 0)
            rc = read_run(image, &at, &run, err);
        if (rc < 0)
            return rc;
        advance(&at, run.length);
    }
    return 0;
}

/* ---- requests ---- */

int
q2_image_check_range(const struct q2_image *image, const char *what, uint64_t offset,
                     uint64_t length, struct q2_error *err)
{
    if (q2_range_inside(offset, length, image->size))
        return 0;
    return q2_error_set(err, Q2_ERR_RANGE,
                        "%s: cannot %s %" PRIu64 " bytes at %" PRIu64 ": the disk has %" PRIu64,
                        image->file->name, what, length, offset, image->size);
}

int
q2_image_readv(struct q2_image *image, uint64_t offset, const struct iovec *iov, int iov_count,
               struct q2_error *err)
{
    uint64_t length = q2_iov_total(iov, iov_count);
    struct q2_range range;
    q2_range_hold(&image->ranges, &range, offset, q2_end(offset, length), false);
    /* The size cannot change while the range is held. */
    int rc = q2_image_check_range(image, "read", offset, length, err);
    if (rc == 0)
        rc = q2_guest_read(image, offset, iov, iov_count, err);
    q2_range_release(&image->ranges, &range);
    return rc;
}

int
q2_image_read(struct q2_image *image, uint64_t offset, void *buffer, size_t length,
              struct q2_error *err)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    return q2_image_readv(image, offset, &iov, 1, err);
}
