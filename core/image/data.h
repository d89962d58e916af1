/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Guest data at its place in the data file. Private to core/image; without the image's lock. */

#ifndef Q2_IMAGE_DATA_H
#define Q2_IMAGE_DATA_H

#include "core/image/internal.h"

/* Read `length` bytes at `host` of the data file into `iov`, from byte `skip` of it on. */
int q2_data_read(struct q2_image *image, uint64_t host, const struct iovec *iov, int iov_count,
                 size_t skip, uint64_t length, struct q2_error *err);

/* The sector number that the cipher is given for the byte at `guest`, which is stored at `host`. */
uint64_t q2_data_sector(const struct q2_image *image, uint64_t guest, uint64_t host);

/* Q2_ERR_PASSPHRASE where the image is encrypted and cannot be read. */
int q2_data_need_cipher(const struct q2_image *image, struct q2_error *err);

/* Whether what the image leaves unallocated at `guest` reads as zeros for want of a backing file.
 */
bool q2_nothing_below(const struct q2_image *image, uint64_t guest);

/* offset + length, or the largest number where that is too large. */
static inline uint64_t
q2_end(uint64_t offset, uint64_t length)
{
    return length > UINT64_MAX - offset ? UINT64_MAX : offset + length;
}

/* Q2_ERR_RANGE where the range does not lie inside the disk. */
int q2_image_check_range(const struct q2_image *image, const char *what, uint64_t offset,
                         uint64_t length, struct q2_error *err);

#endif
