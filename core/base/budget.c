/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/base/budget.h"

#include "core/base/checked.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void
q2_budget_init(struct q2_budget *budget, uint64_t limit)
{
    budget->limit = limit;
    atomic_init(&budget->used, 0);
    atomic_init(&budget->peak, 0);
}

static int
take(struct q2_budget *budget, uint64_t bytes, const char *purpose, struct q2_error *err)
{
    uint64_t used = atomic_load(&budget->used), after;
    do {
        if (!q2_add(used, bytes, &after) || after > budget->limit)
            return q2_error_set(err, Q2_ERR_BUDGET,
                                "%s would need %" PRIu64 " bytes on top of %" PRIu64
                                " in use, over the memory limit of %" PRIu64 " bytes",
                                purpose, bytes, used, budget->limit);
    } while (!atomic_compare_exchange_weak(&budget->used, &used, after));

    uint64_t peak = atomic_load(&budget->peak);
    while (peak < after && !atomic_compare_exchange_weak(&budget->peak, &peak, after))
        ;
    return 0;
}

static void
give_back(struct q2_budget *budget, uint64_t bytes)
{
    atomic_fetch_sub(&budget->used, bytes);
}

static int
size_of(uint64_t count, size_t size, const char *purpose, uint64_t *ret_bytes, struct q2_error *err)
{
    if (!q2_mul(count, size, ret_bytes) || *ret_bytes > PTRDIFF_MAX)
        return q2_error_set(err, Q2_ERR_BUDGET,
                            "%s would need %" PRIu64 " objects of %zu bytes, more than any memory "
                            "limit",
                            purpose, count, size);
    return 0;
}

int
q2_budget_calloc(struct q2_budget *budget, uint64_t count, size_t size, const char *purpose,
                 void **ret_memory, struct q2_error *err)
{
    void *memory = NULL;
    int rc = q2_budget_grow(budget, 0, count, size, purpose, &memory, err);
    if (rc == 0)
        *ret_memory = memory;
    return rc;
}

int
q2_budget_grow(struct q2_budget *budget, uint64_t old_count, uint64_t new_count, size_t size,
               const char *purpose, void **memory, struct q2_error *err)
{
    uint64_t bytes = 0, old_bytes = old_count * size;
    int rc = size_of(new_count, size, purpose, &bytes, err);
    if (rc < 0)
        return rc;
    rc = take(budget, bytes - old_bytes, purpose, err);
    if (rc < 0)
        return rc;

    /* Fresh memory comes from calloc, which leaves untouched pages unmapped. */
    void *grown = *memory ? realloc(*memory, bytes ? bytes : 1) : calloc(1, bytes ? bytes : 1);
    if (!grown) {
        give_back(budget, bytes - old_bytes);
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for %" PRIu64 " bytes", purpose,
                            bytes);
    }
    if (*memory)
        memset((char *)grown + old_bytes, 0, bytes - old_bytes);
    *memory = grown;
    return 0;
}

void
q2_budget_free(struct q2_budget *budget, void *memory, uint64_t count, size_t size)
{
    if (!memory)
        return;
    free(memory);
    give_back(budget, count * size);
}
