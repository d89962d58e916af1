/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Work on untrusted bytes is done in a process of its own that has shut itself in
 * (checker/console/sandbox.h): it can write to the image and to the journal that were opened for
 * it, and to nothing else. The process outside looks at no byte of either; it removes files that
 * turn out not to be needed. */

#ifndef Q2_REPAIR_TOOL_SHUT_H
#define Q2_REPAIR_TOOL_SHUT_H

#include <stdbool.h>
#include <stddef.h>

/* Run `inside` there and return what it returns, an exit status; what it prints is flushed before.
 * It dies with this process. Signals that ask the program to end are passed on to it, and raised
 * again by shut_raise, once the caller has cleaned up. */
int shut_in(bool write, bool quiet, int (*inside)(void *data), void *data);
void shut_raise(void);

/* Memory that both processes see, zeroed; NULL if there is none. Lives until the end. */
void *shut_share(size_t size);

/* Inside: from here on the end has to wait, and from there on no more. */
void shut_hold(void);
void shut_release(void);

#endif
