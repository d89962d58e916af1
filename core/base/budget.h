/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A cap on memory whose size depends on the image. Whatever a header claims, allocations that it
 * sizes come from a budget, and passing the budget is an error with a number in it, never an OOM
 * kill. Thread-safe. */

#ifndef Q2_BASE_BUDGET_H
#define Q2_BASE_BUDGET_H

#include "core/base/error.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct q2_budget {
    uint64_t limit; /* bytes */
    _Atomic uint64_t used;
    _Atomic uint64_t peak;
};

void q2_budget_init(struct q2_budget *budget, uint64_t limit);

/* Allocate `count` zeroed objects of `size` bytes. Fails with Q2_ERR_BUDGET or Q2_ERR_NOMEM and an
 * error that says what the memory was for (`purpose`, a noun phrase). Free with q2_budget_free. */
int q2_budget_calloc(struct q2_budget *budget, uint64_t count, size_t size, const char *purpose,
                     void **ret_memory, struct q2_error *err);

/* Grow *memory from `old_count` to `new_count` objects of `size` bytes; new objects are zeroed.
 * On failure *memory is unchanged and still owned by the caller. */
int q2_budget_grow(struct q2_budget *budget, uint64_t old_count, uint64_t new_count, size_t size,
                   const char *purpose, void **memory, struct q2_error *err);

/* Free memory of `count` objects of `size` bytes. NULL is allowed. */
void q2_budget_free(struct q2_budget *budget, void *memory, uint64_t count, size_t size);

#endif
