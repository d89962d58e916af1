/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/refcount_plan.h"

#include "checker/refcounts.h"
#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/refcount.h"

#include <stdlib.h>
#include <string.h>

static unsigned
block_bits(const struct q2_rebuild *rebuild)
{
    return rebuild->geometry->refcount_block_bits;
}

static int
obtain(struct q2_rebuild *rebuild, uint64_t count, size_t size, void *ret_memory,
       struct q2_error *err)
{
    void *memory;
    int rc = q2_budget_calloc(&rebuild->scene->budget, count, size, "rebuilding refcounts", &memory,
                              err);
    if (rc == 0)
        memcpy(ret_memory, &memory, sizeof memory);
    return rc;
}

int
q2_rebuild_extend(struct q2_rebuild *rebuild, uint64_t entries, struct q2_error *err)
{
    if (entries <= rebuild->entries)
        return 0;
    uint64_t **arrays[] = {&rebuild->table, &rebuild->old};
    for (size_t i = 0; i < 2; i++) {
        void *memory = *arrays[i];
        int rc = q2_budget_grow(&rebuild->scene->budget, rebuild->entries, entries, 8,
                                "rebuilding refcounts", &memory, err);
        if (rc < 0 && i == 1) { /* both have the same length */
            q2_budget_free(&rebuild->scene->budget, rebuild->table, entries, 8);
            q2_budget_free(&rebuild->scene->budget, rebuild->old, rebuild->entries, 8);
            rebuild->table = rebuild->old = NULL;
            rebuild->entries = 0;
        }
        if (rc < 0)
            return rc;
        *arrays[i] = memory;
    }
    rebuild->entries = entries;
    return 0;
}

int
q2_rebuild_init(struct q2_rebuild *rebuild, struct q2_scene *scene, struct q2_error *err)
{
    const struct q2_check *check = scene->check;
    uint64_t size = check->geometry.cluster_size;
    *rebuild = (struct q2_rebuild){.scene = scene,
                                   .geometry = &check->geometry,
                                   .end = check->geometry.file_clusters};
    int rc = obtain(rebuild, size, 1, &rebuild->recorded, err);
    if (rc == 0)
        rc = obtain(rebuild, size, 1, &rebuild->wanted, err);
    if (rc == 0)
        rc = q2_tally_new(&scene->budget, &rebuild->added, err);
    if (rc == 0)
        rc = q2_tally_new(&scene->budget, &rebuild->dropped, err);
    uint64_t entries =
        q2_units(q2_max(check->geometry.file_clusters, 1), check->geometry.refcount_block_bits);
    return rc < 0 ? rc : q2_rebuild_extend(rebuild, q2_max(check->refcount_entries, entries), err);
}

void
q2_rebuild_destroy(struct q2_rebuild *rebuild)
{
    struct q2_budget *budget = &rebuild->scene->budget;
    uint64_t size = rebuild->geometry->cluster_size;
    q2_budget_free(budget, rebuild->table, rebuild->entries, 8);
    q2_budget_free(budget, rebuild->old, rebuild->entries, 8);
    q2_budget_free(budget, rebuild->recorded, size, 1);
    q2_budget_free(budget, rebuild->wanted, size, 1);
    q2_budget_free(budget, rebuild->found, rebuild->found_words * 2, 8);
    q2_tally_free(rebuild->added);
    q2_tally_free(rebuild->dropped);
}

/* ---- references ---- */

static int
change(struct q2_tally *tally, uint64_t first, uint64_t count, struct q2_error *err)
{
    struct q2_tally_cursor cursor;
    q2_tally_cursor_init(&cursor, tally);
    int rc = q2_tally_add(&cursor, first, count, 1, 0, err);
    q2_tally_release(&cursor);
    return rc;
}

int
q2_rebuild_add(struct q2_rebuild *rebuild, uint64_t first, uint64_t count, struct q2_error *err)
{
    rebuild->end = q2_max(rebuild->end, first + count);
    return change(rebuild->added, first, count, err);
}

int
q2_rebuild_drop(struct q2_rebuild *rebuild, uint64_t first, uint64_t count, struct q2_error *err)
{
    return change(rebuild->dropped, first, count, err);
}

static uint64_t
references_in(const struct q2_tally *tally, uint64_t cluster)
{
    const struct q2_chunk *chunk = q2_tally_chunk(tally, cluster >> Q2_CHUNK_BITS);
    return chunk ? q2_chunk_references(chunk, (unsigned)(cluster % Q2_CHUNK_CLUSTERS)) : 0;
}

uint64_t
q2_rebuild_references(const struct q2_rebuild *rebuild, uint64_t cluster)
{
    uint64_t sum, dropped = references_in(rebuild->dropped, cluster);
    if (!q2_add(references_in(rebuild->scene->check->tally, cluster),
                references_in(rebuild->added, cluster), &sum))
        sum = UINT64_MAX;
    return sum > dropped ? sum - dropped : 0;
}

bool
q2_rebuild_dropped(const struct q2_rebuild *rebuild, uint64_t cluster)
{
    return references_in(rebuild->dropped, cluster) > 0;
}

/* The first cluster from *cluster on, and below `end`, that a tally has references to. */
static bool
next_seen(const struct q2_tally *tally, uint64_t *cluster, uint64_t end)
{
    uint64_t number = *cluster >> Q2_CHUNK_BITS;
    const struct q2_chunk *chunk;
    for (; (chunk = q2_tally_next(tally, &number)) != NULL; number++) {
        uint64_t base = number << Q2_CHUNK_BITS;
        if (base >= end)
            return false;
        uint64_t at = q2_max(*cluster, base);
        for (uint64_t stop = q2_min(end, base + Q2_CHUNK_CLUSTERS); at < stop;) {
            uint64_t word = chunk->seen[(at - base) / 64] >> (at % 64);
            if (word) {
                *cluster = at + (unsigned)__builtin_ctzll(word);
                return *cluster < end;
            }
            at = (at | 63) + 1;
        }
    }
    return false;
}

uint64_t
q2_rebuild_next(const struct q2_rebuild *rebuild, uint64_t cluster)
{
    uint64_t added = cluster, counted = cluster;
    if (!next_seen(rebuild->added, &added, UINT64_MAX))
        added = UINT64_MAX;
    if (!next_seen(rebuild->scene->check->tally, &counted, UINT64_MAX))
        counted = UINT64_MAX;
    return q2_min(added, counted);
}

bool
q2_rebuild_any(const struct q2_rebuild *rebuild, uint64_t first, uint64_t end)
{
    uint64_t cluster = first;
    if (next_seen(rebuild->added, &cluster, end))
        return true;
    for (cluster = first; next_seen(rebuild->scene->check->tally, &cluster, end); cluster++)
        if (q2_rebuild_references(rebuild, cluster))
            return true;
    return false;
}

/* ---- which blocks stay ---- */

/* An entry of the table that leads to a cluster which something else uses too. */
struct shared_entry {
    uint64_t offset, index;
};

static int
compare_shared(const void *left, const void *right)
{
    const struct shared_entry *a = left, *b = right;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return (a->index > b->index) - (a->index < b->index);
}

static int
forget_block(struct q2_rebuild *rebuild, uint64_t index, struct q2_error *err)
{
    uint64_t cluster = rebuild->table[index] >> rebuild->geometry->cluster_bits;
    rebuild->table[index] = 0;
    rebuild->moved = true;
    return q2_rebuild_drop(rebuild, cluster, 1, err);
}

/* Entries [first, end) of the list lead to one cluster. If nothing else does, it stays the block of
 * the entry that it suits best, and otherwise of none. */
static int
part(struct q2_rebuild *rebuild, const struct shared_entry *list, uint64_t first, uint64_t end,
     struct q2_error *err)
{
    uint64_t cluster = list[first].offset >> rebuild->geometry->cluster_bits, best = UINT64_MAX;
    bool own = q2_rebuild_references(rebuild, cluster) == end - first;
    for (uint64_t i = first; i < end; i++) {
        uint64_t index = list[i].index, start = index << block_bits(rebuild);
        struct q2_block_look look = {0};
        if (!q2_rebuild_any(rebuild, start, start + (UINT64_C(1) << block_bits(rebuild))))
            continue;
        q2_rebuild_look(rebuild, index, list[i].offset, &look);
        if (!look.credible || look.referenced == 0)
            rebuild->old[index] = 0;
        else if (!own)
            rebuild->doubtful = true;
        if (own && (best == UINT64_MAX || (look.credible && !rebuild->old[list[best].index])))
            best = i;
    }
    int rc = 0;
    for (uint64_t i = first; i < end && rc == 0; i++) {
        if (i == best)
            continue;
        rebuild->old[list[i].index] = own ? 0 : rebuild->old[list[i].index];
        rc = forget_block(rebuild, list[i].index, err);
    }
    return rc;
}

static bool
is_shared(const struct q2_rebuild *rebuild, uint64_t offset)
{
    return q2_rebuild_references(rebuild, offset >> rebuild->geometry->cluster_bits) > 1;
}

static int
sift_shared(struct q2_rebuild *rebuild, struct q2_error *err)
{
    uint64_t count = 0;
    struct shared_entry *list;
    for (uint64_t i = 0; i < rebuild->entries; i++)
        count += rebuild->table[i] && is_shared(rebuild, rebuild->table[i]);
    if (count == 0)
        return 0;
    int rc = obtain(rebuild, count, sizeof *list, &list, err);
    if (rc < 0)
        return rc;
    uint64_t at = 0;
    for (uint64_t i = 0; i < rebuild->entries; i++)
        if (rebuild->table[i] && is_shared(rebuild, rebuild->table[i]))
            list[at++] = (struct shared_entry){.offset = rebuild->table[i], .index = i};
    qsort(list, count, sizeof *list, compare_shared);
    for (uint64_t first = 0, end; first < count && rc == 0; first = end) {
        for (end = first + 1; end < count && list[end].offset == list[first].offset;)
            end++;
        rc = part(rebuild, list, first, end, err);
    }
    q2_budget_free(&rebuild->scene->budget, list, count, sizeof *list);
    return rc;
}

/* What cannot be read cannot be written in place with any confidence, and its old bytes cannot be
 * kept for undoing it. What is none, by all appearances, may be evidence of other damage. */
static int
sift_content(struct q2_rebuild *rebuild, struct q2_error *err)
{
    bool damage = q2_loose_damage(rebuild->scene);
    if (!damage && !q2_scene_count(rebuild->scene, Q2_PROBLEM_REFCOUNT_BLOCK_UNREADABLE))
        return 0;
    int rc = 0;
    for (uint64_t i = 0; i < rebuild->entries && rc == 0; i++) {
        struct q2_block_look look;
        if (!rebuild->table[i])
            continue;
        q2_rebuild_look(rebuild, i, rebuild->table[i], &look);
        if (!look.readable)
            rebuild->old[i] = 0;
        if (!look.readable || (damage && !look.zero && !look.credible))
            rc = forget_block(rebuild, i, err);
    }
    return rc;
}

/* Clusters of the table, from its first on, that can be used: nothing else has them, and they can
 * be read. */
static uint64_t
sound_clusters(const struct q2_rebuild *rebuild)
{
    const struct q2_check *check = rebuild->scene->check;
    unsigned bits = rebuild->geometry->cluster_bits;
    uint64_t first = check->header.refcount_table_offset >> bits, count = 0;
    uint64_t all = check->header.refcount_table_clusters, per = rebuild->geometry->cluster_size / 8;
    bool unreadable = q2_scene_count(rebuild->scene, Q2_PROBLEM_REFCOUNT_TABLE_UNREADABLE) > 0;
    for (; count < all && q2_scene_references(rebuild->scene, first + count) == 1; count++)
        for (uint64_t i = count * per; unreadable && i < (count + 1) * per; i++)
            if (check->refcount_table[i] == Q2_REFCOUNT_BLOCK_UNKNOWN)
                return count;
    return count;
}

/* Whether the rest of the table, behind what can be used, says where blocks are all the same: then
 * what else leads there is wrong, and to move the table away would make it look right. */
static bool
is_table_doubtful(const struct q2_rebuild *rebuild, uint64_t clusters)
{
    const struct q2_check *check = rebuild->scene->check;
    uint64_t first = check->header.refcount_table_offset >> rebuild->geometry->cluster_bits;
    uint64_t per = rebuild->geometry->cluster_size / 8;
    if (rebuild->moved) /* some of what it says is wrong */
        return false;
    for (uint64_t i = clusters * per; i < check->refcount_entries; i++)
        if (rebuild->table[i] && q2_scene_references(rebuild->scene, first + i / per) > 1)
            return true;
    return false;
}

int
q2_rebuild_sift(struct q2_rebuild *rebuild, struct q2_error *err)
{
    const struct q2_check *check = rebuild->scene->check;
    static const enum q2_problem wrong_entries[] = {
        Q2_PROBLEM_REFCOUNT_TABLE_RESERVED,
        Q2_PROBLEM_REFCOUNT_BLOCK_UNALIGNED,
        Q2_PROBLEM_REFCOUNT_BLOCK_PAST_END,
    };
    rebuild->moved = !(check->usable & Q2_USABLE_REFCOUNTS);
    if (rebuild->moved)
        return 0;
    for (uint64_t i = 0; i < check->refcount_entries; i++) {
        uint64_t block = q2_refcount_block(check, i);
        rebuild->table[i] = rebuild->old[i] = block == Q2_REFCOUNT_BLOCK_UNKNOWN ? 0 : block;
    }
    for (size_t i = 0; i < sizeof wrong_entries / sizeof wrong_entries[0]; i++)
        rebuild->moved |= q2_scene_count(rebuild->scene, wrong_entries[i]) > 0;
    uint64_t clusters = sound_clusters(rebuild);
    rebuild->usable = clusters << rebuild->geometry->cluster_bits >> 3;
    if (clusters)
        rebuild->table_offset = check->header.refcount_table_offset;
    if (clusters < check->header.refcount_table_clusters) {
        rebuild->doubtful = is_table_doubtful(rebuild, clusters);
        rebuild->moved = true;
        /* What the rest says comes from somebody else. */
        for (uint64_t i = rebuild->usable; i < rebuild->entries; i++) {
            int rc = rebuild->table[i] ? forget_block(rebuild, i, err) : 0;
            rebuild->old[i] = 0;
            if (rc < 0)
                return rc;
        }
        uint64_t first = check->header.refcount_table_offset >> rebuild->geometry->cluster_bits;
        int rc = q2_rebuild_drop(rebuild, first + clusters,
                                 check->header.refcount_table_clusters - clusters, err);
        if (rc < 0)
            return rc;
    }
    int rc = sift_shared(rebuild, err);
    return rc < 0 ? rc : sift_content(rebuild, err);
}
