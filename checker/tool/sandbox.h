/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The process shuts itself in before it looks at untrusted bytes: afterwards it can compute, read
 * and write the descriptors it has, and start threads; it can open nothing, reach no network and
 * start no process, whatever a bug in a decoder lets an image do. */

#ifndef Q2_CHECKER_TOOL_SANDBOX_H
#define Q2_CHECKER_TOOL_SANDBOX_H

enum sandbox_layer {
    SANDBOX_LANDLOCK = 1 << 0, /* no file system access, no TCP, no signals to others */
    SANDBOX_SECCOMP = 1 << 1,  /* no system calls but those of a list */
    SANDBOX_ALL = SANDBOX_LANDLOCK | SANDBOX_SECCOMP,
};

/* Enter it for good; to be called while the process has one thread. Returns the layers that hold
 * now: a kernel may lack either. Forbidden system calls fail with EPERM (clone3 with ENOSYS, so
 * that the C library falls back to clone). */
unsigned q2_sandbox_enter(void);

#endif
