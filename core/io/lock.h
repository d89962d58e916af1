/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The protocol by which programs that use one image keep out of each other's way, as QEMU speaks
 * it: locks on single bytes of the image file, held on the open file description.
 *
 * What a user of the image does is a set of permissions, and so is what it bears others doing. Each
 * permission has a byte that those who use it hold, and a byte that those who do not share it hold.
 * All locks are shared, so holding never fails; a conflict shows in looking for the other byte. */

#ifndef Q2_IO_LOCK_H
#define Q2_IO_LOCK_H

#include "core/base/error.h"

#include <stdbool.h>

/* Lock the open file `fd` as a reader, or as a writer if `write`; closing it unlocks. Both read
 * consistent data and share neither writing nor resizing, so readers coexist and a writer is alone.
 * Q2_ERR_LOCKED names the conflict (no lock is kept then). Where the file system cannot lock there
 * is nothing to respect: that is success with *ret_locked false. `name` is for messages. */
int q2_lock_take(int fd, const char *name, bool write, bool *ret_locked, struct q2_error *err);

#endif
