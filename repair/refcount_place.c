/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Places for the refcount structures that have none: where the old table is found again, or
 * clusters that nothing uses. New blocks have to be counted as well, perhaps by further new blocks,
 * so this goes on until nothing is missing any more. */

#include "repair/refcount_plan.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/refcount.h"

#include <string.h>

static uint64_t
per_block(const struct q2_rebuild *rebuild)
{
    return UINT64_C(1) << rebuild->geometry->refcount_block_bits;
}

/* Whether refcounts of entry `index` are needed at all. */
static bool
is_needed(const struct q2_rebuild *rebuild, uint64_t index)
{
    uint64_t first = index << rebuild->geometry->refcount_block_bits;
    return q2_rebuild_any(rebuild, first, first + per_block(rebuild));
}

/* The first entry from `index` on that may be needed. */
static uint64_t
next_wanted(const struct q2_rebuild *rebuild, uint64_t index)
{
    unsigned bits = rebuild->geometry->refcount_block_bits;
    return q2_max(index, q2_rebuild_next(rebuild, index << bits) >> bits);
}

/* Entries that are needed; *ret_missing of them have no block; *ret_end is behind the last. */
static uint64_t
count_needed(const struct q2_rebuild *rebuild, uint64_t *ret_missing, uint64_t *ret_end)
{
    uint64_t entries =
        q2_max(q2_units(rebuild->end, rebuild->geometry->refcount_block_bits), rebuild->entries);
    uint64_t needed = 0, missing = 0, end = 0;
    for (uint64_t i = 0; i < rebuild->entries; i++)
        if (rebuild->table[i])
            end = i + 1;
    for (uint64_t i = next_wanted(rebuild, 0); i < entries; i = next_wanted(rebuild, i + 1)) {
        if (!is_needed(rebuild, i))
            continue;
        needed++;
        missing += i >= rebuild->entries || !rebuild->table[i];
        end = q2_max(end, i + 1);
    }
    *ret_missing = missing;
    *ret_end = end;
    return needed;
}

/* ---- the old table ---- */

/* Whether nothing but the refcount structures, as far as they are known, uses these clusters. */
static bool
unused(const struct q2_rebuild *rebuild, uint64_t first, uint64_t count)
{
    uint64_t clusters = rebuild->geometry->file_clusters;
    return first > 0 && first < clusters && count <= clusters - first &&
           !q2_rebuild_any(rebuild, first, first + count);
}

/* The offset that an entry of a table that may be the old one leads to, if a block can be there. */
static uint64_t
usable_block(const struct q2_rebuild *rebuild, uint64_t raw)
{
    uint64_t offset = raw & ~Q2_REFCOUNT_TABLE_RESERVED;
    bool aligned =
        !(raw & Q2_REFCOUNT_TABLE_RESERVED) && !(offset & (rebuild->geometry->cluster_size - 1));
    return aligned && unused(rebuild, offset >> rebuild->geometry->cluster_bits, 1) ? offset : 0;
}

/* Read a cluster of what may be the old table. Returns the number of its entries that are needed
 * and usable, and whose blocks agree with what is counted; all that agree go to `blocks`. */
static int
read_candidate(struct q2_rebuild *rebuild, uint64_t at, uint64_t part, uint64_t *blocks,
               uint64_t *ret_good, struct q2_error *err)
{
    uint64_t size = rebuild->geometry->cluster_size, per = size / 8;
    void *memory;
    int rc = q2_budget_calloc(&rebuild->scene->budget, size, 1, "a refcount table", &memory, err);
    if (rc < 0)
        return rc;
    const uint8_t *bytes = memory;
    if (q2_file_read_padded(rebuild->scene->file, at + part * size, memory, size, NULL) < 0)
        memset(memory, 0, size);
    for (uint64_t i = 0; i < per && part * per + i < rebuild->entries; i++) {
        uint64_t index = part * per + i;
        uint64_t offset = usable_block(rebuild, q2_load_be64(bytes + i * 8));
        struct q2_block_look look;
        blocks[index] = 0;
        if (!offset)
            continue;
        q2_rebuild_look(rebuild, index, offset, &look);
        if (!look.credible)
            continue;
        blocks[index] = offset;
        *ret_good += look.referenced > 0;
    }
    q2_budget_free(&rebuild->scene->budget, memory, size, 1);
    return 0;
}

/* Forget the table that the header leads to. */
static int
forget_table(struct q2_rebuild *rebuild, struct q2_error *err)
{
    unsigned bits = rebuild->geometry->cluster_bits;
    int rc = rebuild->usable ? q2_rebuild_drop(rebuild, rebuild->table_offset >> bits,
                                               rebuild->usable * 8 >> bits, err)
                             : 0;
    for (uint64_t i = 0; i < rebuild->entries && rc == 0; i++)
        if (rebuild->table[i]) {
            rc = q2_rebuild_drop(rebuild, rebuild->table[i] >> bits, 1, err);
            rebuild->table[i] = 0;
        }
    rebuild->table_offset = rebuild->usable = 0;
    rebuild->moved = true;
    return rc;
}

/* Make the table at `at`, of that many clusters, and its blocks those of the image. */
static int
adopt(struct q2_rebuild *rebuild, uint64_t at, uint64_t clusters, const uint64_t *blocks,
      struct q2_error *err)
{
    unsigned bits = rebuild->geometry->cluster_bits;
    int rc = forget_table(rebuild, err);
    if (rc == 0)
        rc = q2_rebuild_add(rebuild, at >> bits, clusters, err);
    for (uint64_t i = 0; i < rebuild->entries && rc == 0; i++) {
        /* Two entries may lead to one block, or to the table. */
        bool fits = blocks[i] && unused(rebuild, blocks[i] >> bits, 1);
        rebuild->table[i] = rebuild->old[i] = fits ? blocks[i] : 0;
        if (fits)
            rc = q2_rebuild_add(rebuild, blocks[i] >> bits, 1, err);
    }
    rebuild->table_offset = at;
    rebuild->usable = clusters << bits >> 3;
    return rc;
}

struct hunt {
    uint64_t *blocks;  /* by entry */
    uint64_t needed;   /* entries */
    uint64_t clusters; /* that the table needs */
    bool found;
};

/* Take the table at `at` for the old one if most of what it should lead to is there. */
static int
try_table(struct q2_rebuild *rebuild, struct hunt *hunt, uint64_t at, struct q2_error *err)
{
    unsigned bits = rebuild->geometry->cluster_bits;
    uint64_t good = 0;
    if (hunt->found || at & (rebuild->geometry->cluster_size - 1) ||
        !unused(rebuild, at >> bits, hunt->clusters))
        return 0;
    memset(hunt->blocks, 0, rebuild->entries * sizeof *hunt->blocks);
    int rc = 0;
    for (uint64_t part = 0; part < hunt->clusters && rc == 0; part++)
        rc = read_candidate(rebuild, at, part, hunt->blocks, &good, err);
    hunt->found = rc == 0 && good > 0 && good * 4 >= hunt->needed * 3;
    return hunt->found ? adopt(rebuild, at, hunt->clusters, hunt->blocks, err) : rc;
}

int
q2_rebuild_find_table(struct q2_rebuild *rebuild, struct q2_error *err)
{
    const struct q2_geometry *geometry = rebuild->geometry;
    uint64_t missing, end, at = rebuild->scene->check->header.refcount_table_offset;
    uint64_t count = rebuild->entries;
    struct hunt hunt = {.needed = count_needed(rebuild, &missing, &end)};
    if (rebuild->table_offset && missing < hunt.needed)
        return 0;
    end = q2_units(rebuild->end, geometry->refcount_block_bits);
    hunt.clusters = q2_units(end * 8, geometry->cluster_bits);
    void *blocks;
    int rc = q2_budget_calloc(&rebuild->scene->budget, count, 8, "a refcount table", &blocks, err);
    if (rc < 0)
        return rc;
    hunt.blocks = blocks;
    if (!rebuild->table_offset)
        rc = try_table(rebuild, &hunt, at & ~(geometry->cluster_size - 1), err);
    for (unsigned bit = 0; bit < 63 && rc == 0; bit++)
        rc = try_table(rebuild, &hunt, at ^ UINT64_C(1) << bit, err);
    q2_budget_free(&rebuild->scene->budget, blocks, count, 8);
    return rc;
}

/* ---- new places ---- */

/* Whether nothing uses a cluster, as far as can be told: what a block that is none says of it does
 * not matter. `look` is that of the block which counts it, in rebuild->recorded. */
static bool
is_free(const struct q2_rebuild *rebuild, uint64_t cluster, const struct q2_block_look *look)
{
    const struct q2_scene *scene = rebuild->scene;
    uint64_t index = cluster & (per_block(rebuild) - 1);
    bool counted = look->credible &&
                   q2_refcount_get(rebuild->recorded, rebuild->geometry->refcount_order, index);
    bool kept = cluster < scene->keep_clusters && q2_bit_test(scene->keep, cluster);
    return !counted && !kept && q2_rebuild_references(rebuild, cluster) == 0;
}

/* Free clusters inside the file, those included that only the old refcount structures used. While
 * any damage is left, what is free is not known. */
static int
reuse(struct q2_rebuild *rebuild, uint64_t count, uint64_t *ret_first, struct q2_error *err)
{
    struct q2_block_look look = {0};
    bool damage = q2_loose_damage(rebuild->scene);
    uint64_t run = 0;
    for (uint64_t cluster = 1; cluster < rebuild->geometry->file_clusters && !damage; cluster++) {
        uint64_t index = cluster >> rebuild->geometry->refcount_block_bits;
        if (cluster == 1 || (cluster & (per_block(rebuild) - 1)) == 0) {
            look = (struct q2_block_look){0};
            if (index < rebuild->entries && rebuild->old[index])
                q2_rebuild_look(rebuild, index, rebuild->old[index], &look);
        }
        run = is_free(rebuild, cluster, &look) ? run + 1 : 0;
        if (run < count)
            continue;
        *ret_first = cluster - count + 1;
        return 0;
    }
    return q2_error_set(err, Q2_ERR_NOSPACE, "%s: there is no room for new refcount blocks",
                        rebuild->scene->base->name);
}

/* `count` clusters in a row, which are counted from now on. */
static int
take(struct q2_rebuild *rebuild, uint64_t count, uint64_t *ret_first, struct q2_error *err)
{
    unsigned bits = rebuild->geometry->cluster_bits;
    uint64_t offset, first = 0;
    int rc;
    /* The scene does not know what has been found again. */
    do {
        rc = q2_scene_allocate(rebuild->scene, count, &offset, err);
        first = rc == 0 ? offset >> bits : 0;
    } while (rc == 0 && q2_rebuild_any(rebuild, first, first + count));
    if (rc == Q2_ERR_NOSPACE)
        rc = reuse(rebuild, count, &first, err);
    if (rc == 0)
        rc = q2_rebuild_add(rebuild, first, count, err);
    if (rc < 0)
        return rc;
    /* What they recorded is overwritten before it would be read. */
    for (uint64_t i = 0; i < rebuild->entries; i++)
        if (rebuild->old[i] && (rebuild->old[i] >> bits) - first < count)
            rebuild->old[i] = 0;
    *ret_first = first;
    return 0;
}

/* Entries that the table has to have for itself, the missing blocks, and all else. */
static uint64_t
entries_for(const struct q2_rebuild *rebuild, bool new_table)
{
    uint64_t missing, end;
    count_needed(rebuild, &missing, &end);
    if (rebuild->scene->options->fixed_size || (missing == 0 && !new_table))
        return q2_max(end, 1);
    unsigned bits = rebuild->geometry->cluster_bits, block = rebuild->geometry->refcount_block_bits;
    uint64_t entries = end, old = q2_units(rebuild->end, block);
    for (uint64_t last = UINT64_MAX; last != entries;) {
        last = entries;
        uint64_t table = new_table || entries > rebuild->usable ? q2_units(entries * 8, bits) : 0;
        uint64_t blocks = missing + (entries > old ? entries - old : 0);
        entries = q2_max(entries, q2_units(rebuild->end + table + blocks, block));
    }
    return q2_max(entries, 1);
}

static int
place_table(struct q2_rebuild *rebuild, struct q2_error *err)
{
    unsigned bits = rebuild->geometry->cluster_bits;
    uint64_t entries = entries_for(rebuild, !rebuild->table_offset), first;
    if (rebuild->table_offset && entries <= rebuild->usable)
        return 0;
    uint64_t clusters = q2_units(entries * 8, bits);
    if (clusters << bits > Q2_MAX_REFCOUNT_TABLE_BYTES)
        return q2_error_set(err, Q2_ERR_NOSPACE,
                            "%s: the refcount table would need %llu entries, more than it can have",
                            rebuild->scene->base->name, (unsigned long long)entries);
    int rc = rebuild->table_offset ? q2_rebuild_drop(rebuild, rebuild->table_offset >> bits,
                                                     rebuild->usable * 8 >> bits, err)
                                   : 0;
    if (rc == 0)
        rc = take(rebuild, clusters, &first, err);
    if (rc < 0)
        return rc;
    rebuild->moved = true;
    rebuild->table_offset = first << bits;
    rebuild->usable = clusters << bits >> 3;
    return q2_rebuild_extend(rebuild, rebuild->usable, err);
}

/* Blocks for all entries that miss one: in a row, if there is room for that. */
static int
place_blocks(struct q2_rebuild *rebuild, uint64_t missing, struct q2_error *err)
{
    uint64_t first = 0, left = 0;
    bool scattered = rebuild->scene->options->fixed_size;
    int rc = 0;
    for (uint64_t i = 0; i < rebuild->usable && missing && rc == 0; i++) {
        if (rebuild->table[i] || !is_needed(rebuild, i))
            continue;
        if (left == 0) {
            left = scattered ? 1 : missing;
            rc = take(rebuild, left, &first, err);
            if (rc == Q2_ERR_NOSPACE && left > 1) {
                scattered = true;
                left = 1;
                rc = take(rebuild, left, &first, err);
            }
            if (rc < 0)
                return rc;
        }
        rebuild->table[i] = first++ << rebuild->geometry->cluster_bits;
        rebuild->moved = true;
        left--;
        missing--;
    }
    return rc;
}

int
q2_rebuild_place(struct q2_rebuild *rebuild, struct q2_error *err)
{
    for (uint64_t missing = 1, end; missing;) {
        int rc = place_table(rebuild, err);
        if (rc < 0)
            return rc;
        count_needed(rebuild, &missing, &end);
        rc = missing ? place_blocks(rebuild, missing, err) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}
