/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Parts of scattered buffers, named by their distance from the start. */

#ifndef Q2_IO_IOV_H
#define Q2_IO_IOV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Fill `part` (room for `room`) with what lies in [skip, skip + length) of `iov`. Returns the
 * number of elements; *ret_length is less than `length` where there was no room for all. */
int q2_iov_part(const struct iovec *iov, int iov_count, size_t skip, size_t length,
                struct iovec *part, int room, size_t *ret_length);

void q2_iov_from(const struct iovec *iov, int iov_count, size_t skip, const void *buffer,
                 size_t length);
void q2_iov_to(const struct iovec *iov, int iov_count, size_t skip, void *buffer, size_t length);
void q2_iov_zero(const struct iovec *iov, int iov_count, size_t skip, size_t length);

#endif
