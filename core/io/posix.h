/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Files and block devices of the system, with QEMU's image locking protocol. */

#ifndef Q2_IO_POSIX_H
#define Q2_IO_POSIX_H

#include "core/io/file.h"

enum q2_open_flags {
    Q2_OPEN_WRITE = 1 << 0,       /* read and write; otherwise read only */
    Q2_OPEN_CREATE = 1 << 1,      /* make a new empty file to write; fails if it exists */
    Q2_OPEN_FORCE_SHARE = 1 << 2, /* ignore other processes' locks and take none */
};

/* Open `path`, a regular file or a block device; anything else is refused without being waited for.
 * The path is taken literally: no protocol prefix means anything. Without Q2_OPEN_FORCE_SHARE the
 * image is locked as QEMU locks it (shared byte-range locks on the open file description, held
 * until close), and Q2_ERR_LOCKED says that another process, such as a running VM, uses it in a
 * conflicting way. Two files of one process conflict as those of two do: close the reader before
 * opening to write. */
int q2_file_open(const char *path, unsigned flags, struct q2_file **ret_file, struct q2_error *err);

#endif
