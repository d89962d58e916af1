/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The wrappers that callers use. Whatever can be said about arguments is said here, once, so that
 * implementations see only ranges that make sense. */

#include "core/io/file.h"

#include "core/base/checked.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int
check_range(const struct q2_file *file, const char *verb, uint64_t offset, uint64_t length,
            struct q2_error *err)
{
    if (q2_range_inside(offset, length, Q2_FILE_SIZE_MAX))
        return 0;
    return q2_error_set(err, Q2_ERR_RANGE,
                        "%s: cannot %s %" PRIu64 " bytes at offset %" PRIu64
                        ": no file is that large",
                        file->name, verb, length, offset);
}

static int
check_writable(const struct q2_file *file, const char *verb, uint64_t offset, uint64_t length,
               struct q2_error *err)
{
    if (file->writable)
        return 0;
    return q2_error_set(err, Q2_ERR_READ_ONLY,
                        "%s: cannot %s %" PRIu64 " bytes at offset %" PRIu64
                        ": opened for reading only",
                        file->name, verb, length, offset);
}

static int
check_change(const struct q2_file *file, const char *verb, uint64_t offset, uint64_t length,
             struct q2_error *err)
{
    int rc = check_writable(file, verb, offset, length, err);
    return rc < 0 ? rc : check_range(file, verb, offset, length, err);
}

/* The total of lengths that the caller chose: unlike q2_iov_total it trusts nothing, and a sum that
 * overflows becomes one that no range check accepts. */
static uint64_t
checked_total(const struct iovec *iov, int iov_count)
{
    uint64_t total = 0;
    for (int i = 0; i < iov_count; i++) {
        if (!q2_add(total, iov[i].iov_len, &total))
            return UINT64_MAX;
    }
    return total;
}

int
q2_file_preadv(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
               size_t *ret_done, struct q2_error *err)
{
    uint64_t length = checked_total(iov, iov_count);
    int rc = check_range(file, "read", offset, length, err);
    if (rc < 0)
        return rc;
    if (length == 0) {
        *ret_done = 0;
        return 0;
    }
    return file->ops->preadv(file, iov, iov_count, offset, ret_done, err);
}

int
q2_file_pwritev(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
                struct q2_error *err)
{
    uint64_t length = checked_total(iov, iov_count);
    int rc = check_change(file, "write", offset, length, err);
    if (rc < 0 || length == 0)
        return rc;
    return file->ops->pwritev(file, iov, iov_count, offset, err);
}

int
q2_file_read(struct q2_file *file, uint64_t offset, void *buffer, size_t length,
             struct q2_error *err)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    size_t done = 0;
    int rc = q2_file_preadv(file, &iov, 1, offset, &done, err);
    if (rc < 0)
        return rc;
    if (done < length)
        return q2_error_set(err, Q2_ERR_EOF,
                            "%s: cannot read %zu bytes at offset %" PRIu64
                            ": only %zu of them are in the file",
                            file->name, length, offset, done);
    return 0;
}

/* A short read is the end of the file only if the size agrees: zeros in place of bytes that exist
 * would be silent corruption. Another thread may be growing the file, so look again while something
 * changes. */
int
q2_file_read_padded(struct q2_file *file, uint64_t offset, void *buffer, size_t length,
                    struct q2_error *err)
{
    uint8_t *bytes = buffer;
    size_t filled = 0;
    uint64_t size, last_size = UINT64_MAX;
    while (filled < length) {
        struct iovec iov = {.iov_base = bytes + filled, .iov_len = length - filled};
        size_t done = 0;
        int rc = q2_file_preadv(file, &iov, 1, offset + filled, &done, err);
        if (rc < 0)
            return rc;
        filled += done;
        if (filled == length)
            break;

        rc = q2_file_size(file, &size, err);
        if (rc < 0)
            return rc;
        if (size <= offset + filled) {
            memset(bytes + filled, 0, length - filled);
            break;
        }
        if (done == 0 && size == last_size)
            return q2_error_set(err, Q2_ERR_EOF,
                                "%s: cannot read %zu bytes at offset %" PRIu64
                                ": reading stops at %" PRIu64 " of %" PRIu64 " bytes",
                                file->name, length, offset, offset + filled, size);
        last_size = size;
    }
    return 0;
}

int
q2_file_write(struct q2_file *file, uint64_t offset, const void *buffer, size_t length,
              struct q2_error *err)
{
    /* struct iovec serves both directions and so has no const; nothing writes through it here. */
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = length};
    return q2_file_pwritev(file, &iov, 1, offset, err);
}

int
q2_file_flush(struct q2_file *file, struct q2_error *err)
{
    /* Nothing was written through a file opened for reading. */
    return file->writable ? file->ops->flush(file, err) : 0;
}

int
q2_file_truncate(struct q2_file *file, uint64_t size, struct q2_error *err)
{
    if (!file->writable)
        return q2_error_set(err, Q2_ERR_READ_ONLY,
                            "%s: cannot set the size to %" PRIu64 " bytes: opened for reading only",
                            file->name, size);
    if (size > Q2_FILE_SIZE_MAX)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: cannot set the size to %" PRIu64 " bytes: no file is that large",
                            file->name, size);
    return file->ops->truncate(file, size, err);
}

int
q2_file_size(struct q2_file *file, uint64_t *ret_size, struct q2_error *err)
{
    return file->ops->size(file, ret_size, err);
}

static int
no_extent(const struct q2_file *file, uint64_t offset, uint64_t size, struct q2_error *err)
{
    return q2_error_set(err, Q2_ERR_RANGE,
                        "%s: no extent at offset %" PRIu64 ": the file ends at %" PRIu64,
                        file->name, offset, size);
}

int
q2_file_extent(struct q2_file *file, uint64_t offset, bool *ret_data, uint64_t *ret_end,
               struct q2_error *err)
{
    bool data = true;
    uint64_t size, end;
    int rc = q2_file_size(file, &size, err);
    if (rc < 0)
        return rc;
    if (offset >= size)
        return no_extent(file, offset, size, err);
    end = size;
    if (file->ops->extent)
        rc = file->ops->extent(file, offset, &data, &end, err);
    if (rc < 0)
        return rc;
    if (end <= offset) /* shrunk meanwhile; an extent without a byte would stall a walk */
        return no_extent(file, offset, end, err);
    *ret_data = data;
    *ret_end = end;
    return 0;
}

int
q2_file_punch(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err)
{
    int rc = check_change(file, "punch a hole of", offset, length, err);
    if (rc < 0 || length == 0)
        return rc;
    if (file->ops->punch)
        return file->ops->punch(file, offset, length, err);
    return q2_file_write_zeros(file, offset, length, err);
}

int
q2_file_reserve(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err)
{
    int rc = check_change(file, "reserve", offset, length, err);
    if (rc < 0 || length == 0)
        return rc;
    if (file->ops->reserve)
        return file->ops->reserve(file, offset, length, err);
    return q2_file_grow_zeros(file, offset + length, err);
}

void
q2_file_prefetch(struct q2_file *file, uint64_t offset, uint64_t length)
{
    if (file->ops->prefetch && length && q2_range_inside(offset, length, Q2_FILE_SIZE_MAX))
        file->ops->prefetch(file, offset, length);
}

int
q2_file_allocated(struct q2_file *file, uint64_t *ret_bytes, struct q2_error *err)
{
    if (file->ops->allocated)
        return file->ops->allocated(file, ret_bytes, err);
    return q2_file_size(file, ret_bytes, err);
}

void
q2_file_close(struct q2_file *file)
{
    if (file)
        file->ops->close(file);
}

int
q2_file_init(struct q2_file *file, const struct q2_file_ops *ops, const char *name, bool writable,
             struct q2_error *err)
{
    char *copy = strdup(name);
    if (!copy)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory to keep the name", name);
    *file = (struct q2_file){.ops = ops, .name = copy, .writable = writable};
    return 0;
}

void
q2_file_fini(struct q2_file *file)
{
    free(file->name);
    file->name = NULL;
}

/* Zeros over [offset, end), whether the file goes that far or not. */
static int
put_zeros(struct q2_file *file, uint64_t offset, uint64_t end, struct q2_error *err)
{
    static const uint8_t zeros[64 * 1024];
    int rc = 0;
    while (rc == 0 && offset < end) {
        size_t piece = (size_t)q2_min(end - offset, sizeof zeros);
        rc = q2_file_write(file, offset, zeros, piece, err);
        offset += piece;
    }
    return rc;
}

int
q2_file_write_zeros(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err)
{
    uint64_t size;
    int rc = q2_file_size(file, &size, err);
    if (rc < 0 || offset >= size)
        return rc;
    return put_zeros(file, offset, offset + q2_min(length, size - offset), err);
}

int
q2_file_grow_zeros(struct q2_file *file, uint64_t end, struct q2_error *err)
{
    uint64_t size;
    int rc = q2_file_size(file, &size, err);
    return rc < 0 ? rc : put_zeros(file, size, end, err);
}
