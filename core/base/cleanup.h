/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Scope-bound ownership. Always initialise such a variable (`= NULL`): an uninitialised one frees
 * garbage on the first early return. */

#ifndef Q2_BASE_CLEANUP_H
#define Q2_BASE_CLEANUP_H

#include <stdlib.h>

static inline void
q2_cleanup_free(void *pointer)
{
    free(*(void **)pointer);
}

#define Q2_AUTOFREE __attribute__((cleanup(q2_cleanup_free)))

/* Give the value of a scope-bound pointer to the caller and disarm the cleanup. */
#define Q2_STEAL(pointer)                          \
    ({                                             \
        __typeof__(pointer) q2_stolen = (pointer); \
        (pointer) = NULL;                          \
        q2_stolen;                                 \
    })

#endif
