/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The process shuts itself in before it looks at untrusted bytes: afterwards it can compute, read
 * and write the descriptors it has, and start threads; it can open nothing, reach no network and
 * start no process, whatever a bug in a decoder lets an image do. */

#ifndef Q2_CHECKER_CONSOLE_SANDBOX_H
#define Q2_CHECKER_CONSOLE_SANDBOX_H

#include <stdbool.h>

enum sandbox_layer {
    SANDBOX_LANDLOCK = 1 << 0, /* no file system access, no TCP, no signals to others */
    SANDBOX_SECCOMP = 1 << 1,  /* no system calls but those of a list */
    SANDBOX_ALL = SANDBOX_LANDLOCK | SANDBOX_SECCOMP,
};

/* Enter it for good; to be called while the process has one thread. `write`: a descriptor that is
 * open for writing can also be extended, punched and made durable. Returns the layers that hold
 * now: a kernel may lack either. Forbidden system calls fail with EPERM (clone3 with ENOSYS, so
 * that the C library falls back to clone). */
unsigned q2_sandbox_enter(bool write);

/* The same, and say on stderr, unless `quiet`, what the system lacks. */
void sandbox_enter_or_say(bool write, bool quiet);

#endif
