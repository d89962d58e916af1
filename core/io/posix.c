/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Regular files and block devices. A path is a path: no protocol prefix, no other file that the
 * content may name, and nothing that opening could block on or set in motion. */

#include "core/io/posix.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/io/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    WINDOW = 64,                /* buffers handed to the system at once */
    PREFETCH_STEP = 128 * 1024, /* the kernel reads ahead little more than this per call */
    PREFETCH_MAX = 64 * 1024 * 1024,
    SECTOR = 512, /* unit of st_blocks, whatever the device */
};

struct posix_file {
    struct q2_file file;
    int fd;
    bool is_device;
};

static struct posix_file *
posix_of(struct q2_file *file)
{
    return (struct posix_file *)file;
}

static enum q2_error_code
code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return Q2_ERR_NOSPACE;
    case ENOMEM:
        return Q2_ERR_NOMEM;
    case EROFS:
    case EPERM: /* sealed, immutable or append-only */
        return Q2_ERR_READ_ONLY;
    default:
        return Q2_ERR_IO;
    }
}

static int
fail(const struct posix_file *posix, const char *verb, uint64_t offset, uint64_t length, int errnum,
     struct q2_error *err)
{
    return q2_error_set_errno(err, code_of_errno(errnum), errnum,
                              "%s: cannot %s %" PRIu64 " bytes at offset %" PRIu64,
                              posix->file.name, verb, length, offset);
}

/* The buffers that are left of an iovec array after `skip` bytes, a window at a time. */
struct cursor {
    const struct iovec *iov;
    int count;
    size_t skip; /* bytes of iov[0] that are done */
};

static int
cursor_window(const struct cursor *cursor, struct iovec window[WINDOW])
{
    int count = cursor->count < WINDOW ? cursor->count : WINDOW;
    for (int i = 0; i < count; i++)
        window[i] = cursor->iov[i];
    if (count) {
        window[0].iov_base = (char *)window[0].iov_base + cursor->skip;
        window[0].iov_len -= cursor->skip;
    }
    return count;
}

static void
cursor_advance(struct cursor *cursor, size_t bytes)
{
    cursor->skip += bytes;
    while (cursor->count && cursor->skip >= cursor->iov->iov_len) {
        cursor->skip -= cursor->iov->iov_len;
        cursor->iov++;
        cursor->count--;
    }
}

/* Move bytes until all are moved or the system moves none. Returns an errno value. */
static int
transfer(const struct posix_file *posix, const struct iovec *iov, int iov_count, uint64_t offset,
         bool write, size_t *ret_done)
{
    struct cursor cursor = {.iov = iov, .count = iov_count};
    struct iovec window[WINDOW];
    size_t done = 0;
    cursor_advance(&cursor, 0); /* past empty buffers */
    while (cursor.count) {
        int count = cursor_window(&cursor, window);
        off_t at = (off_t)(offset + done);
        ssize_t moved =
            write ? pwritev(posix->fd, window, count, at) : preadv(posix->fd, window, count, at);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved < 0)
            return errno;
        if (moved == 0)
            break;
        done += (size_t)moved;
        cursor_advance(&cursor, (size_t)moved);
    }
    *ret_done = done;
    return 0;
}

static int
posix_preadv(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
             size_t *ret_done, struct q2_error *err)
{
    struct posix_file *posix = posix_of(file);
    int errnum = transfer(posix, iov, iov_count, offset, false, ret_done);
    return errnum ? fail(posix, "read", offset, q2_iov_total(iov, iov_count), errnum, err) : 0;
}

static int
posix_pwritev(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
              struct q2_error *err)
{
    struct posix_file *posix = posix_of(file);
    size_t total = q2_iov_total(iov, iov_count), done = 0;
    int errnum = transfer(posix, iov, iov_count, offset, true, &done);
    if (errnum == 0 && done < total)
        errnum = EIO; /* neither progress nor a reason */
    return errnum ? fail(posix, "write", offset, total, errnum, err) : 0;
}

static int
posix_flush(struct q2_file *file, struct q2_error *err)
{
    int rc;
    do {
        rc = fdatasync(posix_of(file)->fd);
    } while (rc < 0 && errno == EINTR);
    if (rc < 0)
        return q2_error_set_errno(err, code_of_errno(errno), errno,
                                  "%s: cannot make writes durable", file->name);
    return 0;
}

static int
posix_size(struct q2_file *file, uint64_t *ret_size, struct q2_error *err)
{
    struct posix_file *posix = posix_of(file);
    struct stat st;
    uint64_t bytes = 0;
    int rc = posix->is_device ? ioctl(posix->fd, BLKGETSIZE64, &bytes) : fstat(posix->fd, &st);
    if (rc < 0)
        return q2_error_set_errno(err, Q2_ERR_IO, errno, "%s: cannot tell the size", file->name);
    *ret_size = posix->is_device ? bytes : (uint64_t)st.st_size;
    return 0;
}

static int
truncate_device(struct q2_file *file, uint64_t size, struct q2_error *err)
{
    uint64_t now;
    int rc = posix_size(file, &now, err);
    if (rc < 0 || size == now)
        return rc;
    return q2_error_set(err, size > now ? Q2_ERR_NOSPACE : Q2_ERR_UNSUPPORTED,
                        "%s: cannot set the size to %" PRIu64
                        " bytes: a block device, which stays at %" PRIu64,
                        file->name, size, now);
}

static int
posix_truncate(struct q2_file *file, uint64_t size, struct q2_error *err)
{
    struct posix_file *posix = posix_of(file);
    int rc;
    if (posix->is_device)
        return truncate_device(file, size, err);
    do {
        rc = ftruncate(posix->fd, (off_t)size);
    } while (rc < 0 && errno == EINTR);
    if (rc < 0)
        return q2_error_set_errno(err, code_of_errno(errno), errno,
                                  "%s: cannot set the size to %" PRIu64 " bytes", file->name, size);
    return 0;
}

/* Systems that cannot tell holes say EINVAL; then all is data. ENXIO: no data up to the end. */
static int
posix_extent(struct q2_file *file, uint64_t offset, bool *ret_data, uint64_t *ret_end,
             struct q2_error *err)
{
    struct posix_file *posix = posix_of(file);
    off_t start = (off_t)offset;
    off_t data = lseek(posix->fd, start, SEEK_DATA);
    off_t end = data == start ? lseek(posix->fd, start, SEEK_HOLE) : data;
    if (end < 0 && errno != EINVAL && errno != EOPNOTSUPP && errno != ENXIO)
        return fail(posix, "find the extent of", offset, 1, errno, err);
    bool is_data = data == start || (data < 0 && errno != ENXIO);

    uint64_t until = (uint64_t)end;
    if (end < 0) {
        int rc = posix_size(file, &until, err);
        if (rc < 0)
            return rc;
    }
    *ret_data = is_data;
    *ret_end = until;
    return 0;
}

static int
posix_punch(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err)
{
    struct posix_file *posix = posix_of(file);
    int rc;
    do {
        rc = fallocate(posix->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                       (off_t)length);
    } while (rc < 0 && errno == EINTR);
    if (rc == 0)
        return 0;
    /* No holes here, or not at this alignment, as with devices. */
    if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL || errno == ENODEV)
        return q2_file_write_zeros(file, offset, length, err);
    return fail(posix, "punch a hole of", offset, length, errno, err);
}

static int
posix_reserve(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err)
{
    int rc;
    do {
        rc = fallocate(posix_of(file)->fd, 0, (off_t)offset, (off_t)length);
    } while (rc < 0 && errno == EINTR);
    if (rc == 0)
        return 0;
    /* Nothing to reserve on devices; elsewhere, only bytes that are written take space. */
    if (errno == EOPNOTSUPP || errno == ENOSYS || errno == ENODEV)
        return q2_file_grow_zeros(file, offset + length, err);
    return fail(posix_of(file), "reserve", offset, length, errno, err);
}

static void
posix_prefetch(struct q2_file *file, uint64_t offset, uint64_t length)
{
    uint64_t end = offset + q2_min(length, PREFETCH_MAX);
    for (; offset < end; offset += PREFETCH_STEP)
        posix_fadvise(posix_of(file)->fd, (off_t)offset, (off_t)q2_min(end - offset, PREFETCH_STEP),
                      POSIX_FADV_WILLNEED);
}

static int
posix_allocated(struct q2_file *file, uint64_t *ret_bytes, struct q2_error *err)
{
    struct posix_file *posix = posix_of(file);
    struct stat st;
    if (posix->is_device)
        return posix_size(file, ret_bytes, err);
    if (fstat(posix->fd, &st) < 0)
        return q2_error_set_errno(err, Q2_ERR_IO, errno, "%s: cannot tell the space it takes",
                                  file->name);
    *ret_bytes = (uint64_t)st.st_blocks * SECTOR;
    return 0;
}

static void
posix_close(struct q2_file *file)
{
    struct posix_file *posix = posix_of(file);
    if (posix->fd >= 0)
        close(posix->fd);
    q2_file_fini(file);
    free(posix);
}

static const struct q2_file_ops posix_ops = {
    .preadv = posix_preadv,
    .pwritev = posix_pwritev,
    .flush = posix_flush,
    .truncate = posix_truncate,
    .size = posix_size,
    .extent = posix_extent,
    .punch = posix_punch,
    .reserve = posix_reserve,
    .prefetch = posix_prefetch,
    .allocated = posix_allocated,
    .close = posix_close,
};

static int
check_kind(const char *path, mode_t mode, struct q2_error *err)
{
    const char *kind = "of an unknown kind";
    if (S_ISREG(mode) || S_ISBLK(mode))
        return 0;
    if (S_ISDIR(mode))
        kind = "a directory";
    else if (S_ISFIFO(mode))
        kind = "a fifo";
    else if (S_ISSOCK(mode))
        kind = "a socket";
    else if (S_ISCHR(mode))
        kind = "a character device";
    return q2_error_set(err, Q2_ERR_OPEN,
                        "%s: is %s, where a regular file or a block device is needed", path, kind);
}

/* Look at the kind before opening, because opening a device may do something, and after it, because
 * the path may have changed meanwhile. O_NONBLOCK: opening a fifo then waits for nobody. */
static int
open_fd(const char *path, unsigned flags, int *ret_fd, mode_t *ret_mode, struct q2_error *err)
{
    bool create = flags & Q2_OPEN_CREATE, write = create || (flags & Q2_OPEN_WRITE);
    int how = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (write ? O_RDWR : O_RDONLY) |
              (create ? O_CREAT | O_EXCL : 0);
    struct stat st;
    int rc = 0;
    if (!create && stat(path, &st) == 0)
        rc = check_kind(path, st.st_mode, err);
    if (rc < 0)
        return rc;

    int fd = open(path, how, 0644);
    if (fd < 0)
        return q2_error_set_errno(err, Q2_ERR_OPEN, errno, "%s: cannot be %s", path,
                                  create  ? "created"
                                  : write ? "opened for writing"
                                          : "opened");
    if (fstat(fd, &st) < 0)
        rc = q2_error_set_errno(err, Q2_ERR_OPEN, errno, "%s: cannot be examined", path);
    else
        rc = check_kind(path, st.st_mode, err);
    if (rc == 0 && fcntl(fd, F_SETFL, 0) < 0) /* blocking again */
        rc = q2_error_set_errno(err, Q2_ERR_OPEN, errno, "%s: cannot be set up", path);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    *ret_mode = st.st_mode;
    return 0;
}

int
q2_file_open(const char *path, unsigned flags, struct q2_file **ret_file, struct q2_error *err)
{
    bool write = flags & (Q2_OPEN_WRITE | Q2_OPEN_CREATE), locked;
    Q2_AUTOFREE struct posix_file *fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory to open it", path);
    fresh->fd = -1;
    int rc = q2_file_init(&fresh->file, &posix_ops, path, write, err);
    if (rc < 0)
        return rc;

    Q2_AUTOCLOSE struct q2_file *file = &Q2_STEAL(fresh)->file;
    struct posix_file *posix = posix_of(file);
    mode_t mode = 0;
    rc = open_fd(path, flags, &posix->fd, &mode, err);
    if (rc < 0)
        return rc;
    posix->is_device = S_ISBLK(mode);
    if (!(flags & Q2_OPEN_FORCE_SHARE))
        rc = q2_lock_take(posix->fd, path, write, &locked, err);
    if (rc == 0)
        *ret_file = Q2_STEAL(file);
    return rc;
}
