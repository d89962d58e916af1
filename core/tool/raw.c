/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/tool/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int
write_zeros(struct q2_file *file, uint64_t from, uint64_t to, struct q2_error *err)
{
    enum { CHUNK = 1 << 20 };
    void *zeros = calloc(1, CHUNK);
    int rc = zeros ? 0 : q2_error_set(err, Q2_ERR_NOMEM, "%s: out of memory", file->name);
    for (uint64_t offset = from; rc == 0 && offset < to; offset += CHUNK)
        rc = q2_file_write(file, offset, zeros, to - offset < CHUNK ? to - offset : CHUNK, err);
    free(zeros);
    return rc;
}

/* There is no such operation of q2_file, as nothing else needs it. */
static int
reserve(const char *name, uint64_t from, uint64_t to, struct q2_error *err)
{
    int fd = open(name, O_WRONLY | O_CLOEXEC);
    int errnum = fd < 0 ? errno : posix_fallocate(fd, (off_t)from, (off_t)(to - from));
    if (fd >= 0)
        close(fd);
    if (errnum == 0)
        return 0;
    return q2_error_set_errno(err, errnum == ENOSPC ? Q2_ERR_NOSPACE : Q2_ERR_IO, errnum,
                              "%s: no space reserved for %" PRIu64 " bytes at offset %" PRIu64,
                              name, to - from, from);
}

static int
check_device(struct q2_file *file, uint64_t size, struct q2_error *err)
{
    uint64_t has;
    int rc = q2_file_size(file, &has, err);
    if (rc == 0 && has < size)
        rc = q2_error_set(err, Q2_ERR_RANGE, "%s: the device has %" PRIu64 " bytes, not %" PRIu64,
                          file->name, has, size);
    return rc;
}

int
raw_resize(struct q2_file *file, uint64_t from, uint64_t to, enum q2_preallocation preallocation,
           struct q2_error *err)
{
    struct stat st;
    if (stat(file->name, &st) == 0 && S_ISBLK(st.st_mode))
        return check_device(file, to, err);
    int rc = q2_file_truncate(file, to, err);
    if (rc < 0 || to <= from)
        return rc;
    if (preallocation == Q2_PREALLOCATION_FULL)
        rc = write_zeros(file, from, to, err);
    else if (preallocation == Q2_PREALLOCATION_FALLOC)
        rc = reserve(file->name, from, to, err);
    if (rc < 0)
        q2_file_truncate(file, from, NULL);
    return rc;
}
