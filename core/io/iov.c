/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/io/iov.h"

#include <string.h>

int
q2_iov_part(const struct iovec *iov, int iov_count, size_t skip, size_t length, struct iovec *part,
            int room, size_t *ret_length)
{
    int count = 0;
    size_t done = 0;
    for (int i = 0; i < iov_count && done < length && count < room; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t now = iov[i].iov_len - skip;
        now = now < length - done ? now : length - done;
        part[count++] =
            (struct iovec){.iov_base = (uint8_t *)iov[i].iov_base + skip, .iov_len = now};
        done += now;
        skip = 0;
    }
    *ret_length = done;
    return count;
}

/* Call `visit` for each stretch of [skip, skip + length). */
static void
each(const struct iovec *iov, int iov_count, size_t skip, size_t length,
     void (*visit)(void *at, void *buffer, size_t length), void *buffer)
{
    for (size_t done = 0; done < length;) {
        struct iovec part;
        size_t now;
        if (q2_iov_part(iov, iov_count, skip + done, length - done, &part, 1, &now) == 0)
            return;
        visit(part.iov_base, buffer ? (uint8_t *)buffer + done : NULL, now);
        done += now;
    }
}

static void
copy_in(void *at, void *buffer, size_t length)
{
    memcpy(at, buffer, length);
}

static void
copy_out(void *at, void *buffer, size_t length)
{
    memcpy(buffer, at, length);
}

static void
clear(void *at, void *buffer, size_t length)
{
    (void)buffer;
    memset(at, 0, length);
}

void
q2_iov_from(const struct iovec *iov, int iov_count, size_t skip, const void *buffer, size_t length)
{
    each(iov, iov_count, skip, length, copy_in, (void *)(uintptr_t)buffer);
}

void
q2_iov_to(const struct iovec *iov, int iov_count, size_t skip, void *buffer, size_t length)
{
    each(iov, iov_count, skip, length, copy_out, buffer);
}

void
q2_iov_zero(const struct iovec *iov, int iov_count, size_t skip, size_t length)
{
    each(iov, iov_count, skip, length, clear, NULL);
}
