/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* One small vtable under everything that reads or writes an image.
 *
 * Files stack: an overlay over a posix file is a dry run, a recorder over a memory file is a crash
 * test. An implementation embeds `struct q2_file` as its first member and fills in the operations
 * it has; the q2_file_* wrappers below are what callers use. All operations may be called from
 * several threads at once. */

#ifndef Q2_IO_FILE_H
#define Q2_IO_FILE_H

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* The largest size of a file, which is also where the last byte of any range must end. */
#define Q2_FILE_SIZE_MAX ((uint64_t)INT64_MAX)

struct q2_file;

/* The wrappers check arguments before an operation sees them: no range is empty or ends past
 * Q2_FILE_SIZE_MAX, and nothing that changes the file reaches one opened for reading. */
struct q2_file_ops {
    /* Read into `iov` from byte `offset`; short only at the end of the file. */
    int (*preadv)(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
                  size_t *ret_done, struct q2_error *err);
    /* Write all of `iov` at byte `offset`, growing the file where needed. */
    int (*pwritev)(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
                   struct q2_error *err);
    /* Make all completed writes durable. */
    int (*flush)(struct q2_file *file, struct q2_error *err);
    /* Set the length to `size` bytes; growth reads as zeros. */
    int (*truncate)(struct q2_file *file, uint64_t size, struct q2_error *err);
    int (*size)(struct q2_file *file, uint64_t *ret_size, struct q2_error *err);
    /* Whether the byte at `offset` (inside the file) is data or in a hole, and where that extent
     * ends. NULL: everything is data. */
    int (*extent)(struct q2_file *file, uint64_t offset, bool *ret_data, uint64_t *ret_end,
                  struct q2_error *err);
    /* Make [offset, offset + length) read as zeros and give its space back, without changing the
     * size; what lies past the end is ignored. NULL: zeros are written. */
    int (*punch)(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err);
    /* Take the space that [offset, offset + length) needs, which grows the file as writing there
     * would; what it holds stays, what is new reads as zeros. NULL: zeros are written where the
     * file grows. */
    int (*reserve)(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err);
    /* Hint that [offset, offset + length) will be read soon. NULL: ignored. */
    void (*prefetch)(struct q2_file *file, uint64_t offset, uint64_t length);
    /* Number of bytes that the file occupies where it is stored. NULL: its size. */
    int (*allocated)(struct q2_file *file, uint64_t *ret_bytes, struct q2_error *err);
    /* Release everything, `file` included. Does not flush. */
    void (*close)(struct q2_file *file);
};

struct q2_file {
    const struct q2_file_ops *ops;
    char *name; /* for messages; owned */
    bool writable;
};

/* Read exactly `length` bytes; Q2_ERR_EOF where the file ends before. */
int q2_file_read(struct q2_file *file, uint64_t offset, void *buffer, size_t length,
                 struct q2_error *err);

/* Read `length` bytes; what lies past the end of the file reads as zeros, as the last cluster of an
 * image may be cut short. A read that stops before the end is Q2_ERR_EOF, never zeros. */
int q2_file_read_padded(struct q2_file *file, uint64_t offset, void *buffer, size_t length,
                        struct q2_error *err);

/* Write exactly `length` bytes. Q2_ERR_READ_ONLY on a file opened for reading. */
int q2_file_write(struct q2_file *file, uint64_t offset, const void *buffer, size_t length,
                  struct q2_error *err);

/* The operations of the vtable, with arguments checked. Q2_ERR_RANGE: the range ends past
 * Q2_FILE_SIZE_MAX, or an extent is asked for past the end. Q2_ERR_READ_ONLY: as above. */
int q2_file_preadv(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
                   size_t *ret_done, struct q2_error *err);
int q2_file_pwritev(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
                    struct q2_error *err);
int q2_file_flush(struct q2_file *file, struct q2_error *err);
int q2_file_truncate(struct q2_file *file, uint64_t size, struct q2_error *err);
int q2_file_size(struct q2_file *file, uint64_t *ret_size, struct q2_error *err);
int q2_file_extent(struct q2_file *file, uint64_t offset, bool *ret_data, uint64_t *ret_end,
                   struct q2_error *err);
int q2_file_punch(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err);
int q2_file_reserve(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err);
void q2_file_prefetch(struct q2_file *file, uint64_t offset, uint64_t length);
int q2_file_allocated(struct q2_file *file, uint64_t *ret_bytes, struct q2_error *err);

/* Close and free. NULL is allowed. */
void q2_file_close(struct q2_file *file);

static inline void
q2_cleanup_file(struct q2_file **file)
{
    q2_file_close(*file);
}
#define Q2_AUTOCLOSE __attribute__((cleanup(q2_cleanup_file)))

/* ---- for implementations ---- */

/* Number of bytes in `iov`; the wrappers have checked that it does not overflow. */
static inline size_t
q2_iov_total(const struct iovec *iov, int iov_count)
{
    size_t total = 0;
    for (int i = 0; i < iov_count; i++)
        total += iov[i].iov_len;
    return total;
}

/* Write zeros over [offset, offset + length), as far as the file goes: the punch of those that
 * cannot make holes. */
int q2_file_write_zeros(struct q2_file *file, uint64_t offset, uint64_t length,
                        struct q2_error *err);

/* Grow the file to `end` by writing zeros: the reserve of those that cannot do better. */
int q2_file_grow_zeros(struct q2_file *file, uint64_t end, struct q2_error *err);

/* Prepare the embedded part. Copies `name`. */
int q2_file_init(struct q2_file *file, const struct q2_file_ops *ops, const char *name,
                 bool writable, struct q2_error *err);
/* Release what q2_file_init took, not `file` itself. */
void q2_file_fini(struct q2_file *file);

#endif
