/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/slices.h"

#include "core/base/checked.h"

#include <string.h>

enum {
    SHORTEST = 512,       /* bytes of a table that are read at once at least */
    TOGETHER = 512 << 10, /* bytes of all tables that should be in memory at once */
};

void
q2_slices_init(struct q2_slices *slices, struct q2_check *check, uint64_t longest)
{
    *slices = (struct q2_slices){.check = check, .longest = longest};
}

static void
release(struct q2_slices *slices)
{
    struct q2_budget *budget = &slices->check->budget;
    q2_budget_free(budget, slices->buffers, slices->tables, sizeof *slices->buffers);
    q2_budget_free(budget, slices->claims, slices->tables, sizeof *slices->claims);
    q2_budget_free(budget, slices->bytes, slices->capacity, 1);
    slices->buffers = NULL;
    slices->claims = NULL;
    slices->bytes = NULL;
}

void
q2_slices_destroy(struct q2_slices *slices)
{
    if (slices->check)
        release(slices);
    *slices = (struct q2_slices){0};
}

static int
make_room(struct q2_slices *slices, uint64_t tables, uint64_t capacity, struct q2_error *err)
{
    static const char purpose[] = "reading the L2 tables";
    struct q2_budget *budget = &slices->check->budget;
    void *buffers = NULL, *claims = NULL, *bytes = NULL;
    release(slices);
    slices->tables = tables;
    slices->capacity = capacity;
    int rc = q2_budget_calloc(budget, tables, sizeof *slices->buffers, purpose, &buffers, err);
    slices->buffers = buffers;
    if (rc == 0)
        rc = q2_budget_calloc(budget, tables, sizeof *slices->claims, purpose, &claims, err);
    slices->claims = claims;
    if (rc == 0)
        rc = q2_budget_calloc(budget, capacity, 1, purpose, &bytes, err);
    slices->bytes = bytes;
    return rc;
}

int
q2_slices_fit(struct q2_slices *slices, const struct q2_window *window, struct q2_error *err)
{
    uint64_t tables = q2_max(window->table_count, 1);
    slices->length = q2_min(slices->check->geometry.cluster_size, slices->longest);
    while (slices->length > SHORTEST && slices->length * tables > TOGETHER)
        slices->length /= 2;
    if (tables <= slices->tables && slices->length * tables <= slices->capacity)
        return 0;
    return make_room(slices, q2_max(tables, slices->tables),
                     q2_max(slices->length * tables, slices->capacity), err);
}

uint64_t
q2_slices_read(struct q2_slices *slices, const struct q2_window *window, uint64_t part)
{
    uint64_t failed = 0;
    for (uint64_t t = 0; t < window->table_count; t++) {
        slices->buffers[t] = slices->bytes + t * slices->length;
        int rc = q2_read_table(slices->check, window->tables[t].offset, part, slices->buffers[t],
                               slices->length);
        if (rc < 0)
            memset(slices->buffers[t], 0, slices->length);
        failed += rc == Q2_ERR_IO;
    }
    return failed;
}
