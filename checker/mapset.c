/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/mapset.h"

#include <stdlib.h>
#include <string.h>

/* All members stand one after the other in one array; a set is a range of it. Looking one up goes
 * through a hash table of set ids with open addressing. */
struct range {
    uint64_t first;
    uint32_t count;
    uint32_t hash;
};

struct q2_mapset {
    struct q2_budget *budget;
    uint32_t *members;
    uint64_t member_count, member_capacity;
    struct range *ranges; /* of set i + 1 */
    uint64_t range_count, range_capacity;
    q2_map_set *table;
    uint64_t table_size; /* a power of two */
};

int
q2_mapset_new(struct q2_budget *budget, struct q2_mapset **ret_sets, struct q2_error *err)
{
    struct q2_mapset *sets = calloc(1, sizeof *sets);
    if (!sets)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the sets of snapshots");
    sets->budget = budget;
    *ret_sets = sets;
    return 0;
}

void
q2_mapset_free(struct q2_mapset *sets)
{
    if (!sets)
        return;
    q2_budget_free(sets->budget, sets->members, sets->member_capacity, sizeof *sets->members);
    q2_budget_free(sets->budget, sets->ranges, sets->range_capacity, sizeof *sets->ranges);
    q2_budget_free(sets->budget, sets->table, sets->table_size, sizeof *sets->table);
    free(sets);
}

static uint32_t
hash_of(const uint32_t *members, size_t count)
{
    uint32_t hash = 2166136261U;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ members[i]) * 16777619U;
    return hash ^ (uint32_t)count;
}

static bool
equals(const struct q2_mapset *sets, q2_map_set set, const uint32_t *members, size_t count,
       uint32_t hash)
{
    const struct range *range = &sets->ranges[set - 1];
    return range->hash == hash && range->count == count &&
           memcmp(sets->members + range->first, members, count * sizeof *members) == 0;
}

/* Where the set is in the table, or the free place where it belongs. */
static uint64_t
place(const struct q2_mapset *sets, const uint32_t *members, size_t count, uint32_t hash)
{
    uint64_t at = hash & (sets->table_size - 1);
    while (sets->table[at] && !equals(sets, sets->table[at], members, count, hash))
        at = (at + 1) & (sets->table_size - 1);
    return at;
}

static int
grow(struct q2_mapset *sets, void *array, uint64_t *capacity, uint64_t needed, size_t size,
     struct q2_error *err)
{
    if (needed <= *capacity)
        return 0;
    uint64_t larger = needed > *capacity * 2 ? needed : *capacity * 2;
    void *memory;
    memcpy(&memory, array, sizeof memory);
    int rc =
        q2_budget_grow(sets->budget, *capacity, larger, size, "sets of snapshots", &memory, err);
    if (rc < 0)
        return rc;
    memcpy(array, &memory, sizeof memory);
    *capacity = larger;
    return 0;
}

static int
rehash(struct q2_mapset *sets, struct q2_error *err)
{
    if (sets->range_count * 2 < sets->table_size)
        return 0;
    uint64_t size = sets->table_size ? sets->table_size * 2 : 16;
    void *table;
    int rc =
        q2_budget_calloc(sets->budget, size, sizeof *sets->table, "sets of snapshots", &table, err);
    if (rc < 0)
        return rc;
    q2_budget_free(sets->budget, sets->table, sets->table_size, sizeof *sets->table);
    sets->table = table;
    sets->table_size = size;
    for (uint64_t i = 0; i < sets->range_count; i++) {
        const struct range *range = &sets->ranges[i];
        sets->table[place(sets, sets->members + range->first, range->count, range->hash)] =
            (q2_map_set)(i + 1);
    }
    return 0;
}

int
q2_mapset_intern(struct q2_mapset *sets, const uint32_t *members, size_t count, q2_map_set *ret_set,
                 struct q2_error *err)
{
    if (count == 0) {
        *ret_set = Q2_MAP_SET_NONE;
        return 0;
    }
    int rc = rehash(sets, err);
    if (rc < 0)
        return rc;
    uint32_t hash = hash_of(members, count);
    uint64_t at = place(sets, members, count, hash);
    if (sets->table[at]) {
        *ret_set = sets->table[at];
        return 0;
    }
    rc = grow(sets, &sets->members, &sets->member_capacity, sets->member_count + count,
              sizeof *sets->members, err);
    if (rc == 0)
        rc = grow(sets, &sets->ranges, &sets->range_capacity, sets->range_count + 1,
                  sizeof *sets->ranges, err);
    if (rc < 0)
        return rc;
    memcpy(sets->members + sets->member_count, members, count * sizeof *members);
    sets->ranges[sets->range_count] =
        (struct range){.first = sets->member_count, .count = (uint32_t)count, .hash = hash};
    sets->member_count += count;
    sets->table[at] = (q2_map_set)++sets->range_count;
    *ret_set = sets->table[at];
    return 0;
}

int
q2_mapset_absorb(struct q2_mapset *sets, const struct q2_mapset *from, q2_map_set **ret_ids,
                 uint64_t *ret_count, struct q2_error *err)
{
    uint64_t count = from->range_count + 1;
    void *memory;
    int rc = q2_budget_calloc(sets->budget, count, sizeof(q2_map_set), "sets of snapshots", &memory,
                              err);
    if (rc < 0)
        return rc;
    q2_map_set *ids = memory;
    for (uint64_t i = 1; i < count && rc == 0; i++) {
        const struct range *range = &from->ranges[i - 1];
        rc = q2_mapset_intern(sets, from->members + range->first, range->count, &ids[i], err);
    }
    if (rc < 0) {
        q2_budget_free(sets->budget, ids, count, sizeof *ids);
        return rc;
    }
    *ret_ids = ids;
    *ret_count = count;
    return 0;
}

size_t
q2_mapset_members(const struct q2_mapset *sets, q2_map_set set, const uint32_t **ret_members)
{
    if (set == Q2_MAP_SET_NONE || set > sets->range_count)
        return 0;
    *ret_members = sets->members + sets->ranges[set - 1].first;
    return sets->ranges[set - 1].count;
}
