/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* QEMU's image locks. First hold, then look: of two programs that start together at least one then
 * sees the other, while looking first would let both in. */

#include "core/io/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>

/* Bytes of the image file; the numbers are part of the protocol. */
enum {
    USED_BASE = 100,     /* + permission: held by those who use it */
    UNSHARED_BASE = 200, /* + permission: held by those who bear no other user of it */
};

enum {
    PERMISSION_READ = 0, /* read data that is consistent */
    PERMISSION_WRITE = 1,
    PERMISSION_WRITE_UNCHANGED = 2, /* write what is there already */
    PERMISSION_RESIZE = 3,
    PERMISSIONS = 4,
};

enum {
    READER_USES = 1 << PERMISSION_READ,
    WRITER_USES = READER_USES | 1 << PERMISSION_WRITE | 1 << PERMISSION_RESIZE,
    UNSHARED = 1 << PERMISSION_WRITE | 1 << PERMISSION_RESIZE,
};

static const char *const permission_names[PERMISSIONS] = {
    [PERMISSION_READ] = "read",
    [PERMISSION_WRITE] = "write",
    [PERMISSION_WRITE_UNCHANGED] = "rewrite",
    [PERMISSION_RESIZE] = "resize",
};

/* File systems and kernels without such locks say so in several ways. */
static bool
is_unsupported(int errnum)
{
    return errnum == EINVAL || errnum == ENOLCK || errnum == ENOSYS || errnum == EOPNOTSUPP ||
           errnum == ENOTTY;
}

static int
command(int fd, int cmd, short type, int64_t start, int64_t length, struct flock *ret_lock)
{
    *ret_lock =
        (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return fcntl(fd, cmd, ret_lock) < 0 ? errno : 0;
}

/* Hold the byte of each permission in `set`. Returns an errno value. */
static int
hold(int fd, unsigned set, int64_t base)
{
    struct flock lock;
    int errnum = 0;
    for (int i = 0; i < PERMISSIONS && errnum == 0; i++) {
        if (set & 1U << i)
            errnum = command(fd, F_OFD_SETLK, F_RDLCK, base + i, 1, &lock);
    }
    return errnum;
}

static void
let_go(int fd)
{
    struct flock lock;
    command(fd, F_OFD_SETLK, F_UNLCK, USED_BASE, PERMISSIONS, &lock);
    command(fd, F_OFD_SETLK, F_UNLCK, UNSHARED_BASE, PERMISSIONS, &lock);
}

/* Look for another holder of the byte of any permission in `set`; an exclusive lock is asked about
 * because that is what any lock conflicts with. Returns an errno value, EAGAIN for a conflict. */
static int
look(int fd, unsigned set, int base, int *ret_byte)
{
    for (int i = 0; i < PERMISSIONS; i++) {
        struct flock lock;
        if (!(set & 1U << i))
            continue;
        int errnum = command(fd, F_OFD_GETLK, F_WRLCK, base + i, 1, &lock);
        if (errnum)
            return errnum;
        if (lock.l_type != F_UNLCK) {
            *ret_byte = base + i;
            return EAGAIN;
        }
    }
    return 0;
}

static int
hold_and_look(int fd, unsigned uses, int *ret_byte)
{
    int errnum = hold(fd, uses, USED_BASE);
    if (errnum == 0)
        errnum = hold(fd, UNSHARED, UNSHARED_BASE);
    if (errnum == 0)
        errnum = look(fd, UNSHARED, USED_BASE, ret_byte);
    if (errnum == 0)
        errnum = look(fd, uses, UNSHARED_BASE, ret_byte);
    return errnum;
}

static int
refuse(const char *name, int byte, struct q2_error *err)
{
    if (byte >= UNSHARED_BASE)
        return q2_error_set(err, Q2_ERR_LOCKED,
                            "%s: another process uses the image and lets no other %s it (lock on "
                            "byte %d)",
                            name, permission_names[byte - UNSHARED_BASE], byte);
    if (byte >= USED_BASE)
        return q2_error_set(err, Q2_ERR_LOCKED,
                            "%s: another process has the image open to %s it (lock on byte %d)",
                            name, permission_names[byte - USED_BASE], byte);
    return q2_error_set(err, Q2_ERR_LOCKED,
                        "%s: another process holds an exclusive lock on the image", name);
}

int
q2_lock_take(int fd, const char *name, bool write, bool *ret_locked, struct q2_error *err)
{
    int byte = 0;
    int errnum = hold_and_look(fd, write ? WRITER_USES : READER_USES, &byte);
    if (errnum == 0) {
        *ret_locked = true;
        return 0;
    }
    let_go(fd);
    if (errnum == EAGAIN || errnum == EACCES)
        return refuse(name, byte, err);
    if (!is_unsupported(errnum))
        return q2_error_set_errno(err, Q2_ERR_IO, errnum, "%s: cannot lock the image", name);
    *ret_locked = false;
    return 0;
}
