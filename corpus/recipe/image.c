/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Host clusters and the active mapping. Clusters are handed out in ascending order and never
 * reused; a refcount block is placed where the first cluster that needs it is asked for. */

#include "corpus/recipe/build.h"

#include "core/base/bitset.h"
#include "core/base/checked.h"
#include "core/format/refcount.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a recipe may ask for; keeps the model below a gigabyte. */
static const uint64_t MAX_CLUSTERS = UINT64_C(1) << 25;

int
recipe_fail(struct recipe_build *build, const char *format, ...)
{
    char message[Q2_ERROR_MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return recipe_error(build->err, Q2_ERR_FORMAT, build->recipe->name, build->at, "%s", message);
}

/* ---- host clusters ---- */

static int
make_room(struct recipe_build *build, uint64_t clusters)
{
    struct recipe_hosts *hosts = &build->hosts;
    uint64_t needed;
    if (!q2_add(hosts->next, clusters, &needed) || needed > MAX_CLUSTERS)
        return recipe_fail(build, "the image file would have too many clusters");
    if (needed <= hosts->room)
        return 0;
    uint64_t room = q2_max(needed, hosts->room * 2);
    uint64_t *grown = reallocarray(hosts->refcounts, room, sizeof *grown);
    if (!grown)
        return q2_error_set(build->err, Q2_ERR_NOMEM, "out of memory for refcounts");
    hosts->refcounts = grown;
    hosts->room = room;
    return 0;
}

static uint64_t
take_clusters(struct recipe_build *build, uint64_t count)
{
    struct recipe_hosts *hosts = &build->hosts;
    uint64_t first = hosts->next;
    for (uint64_t i = 0; i < count; i++)
        hosts->refcounts[hosts->next++] = 1;
    return first << build->geometry.cluster_bits;
}

static int
add_refcount_block(struct recipe_build *build)
{
    struct recipe_hosts *hosts = &build->hosts;
    int rc = make_room(build, 1);
    if (rc)
        return rc;
    uint64_t *grown = reallocarray(hosts->blocks, hosts->block_count + 1, sizeof *grown);
    if (!grown)
        return q2_error_set(build->err, Q2_ERR_NOMEM, "out of memory for refcount blocks");
    hosts->blocks = grown;
    grown[hosts->block_count++] = take_clusters(build, 1);
    return 0;
}

int
recipe_allocate(struct recipe_build *build, uint64_t count, uint64_t *ret_offset)
{
    struct recipe_hosts *hosts = &build->hosts;
    int rc = make_room(build, count);
    /* A new block may itself push the range into what the next block counts. */
    while (rc == 0 &&
           (hosts->next + count - 1) >> build->geometry.refcount_block_bits >= hosts->block_count) {
        rc = add_refcount_block(build);
        rc = rc ? rc : make_room(build, count);
    }
    if (rc)
        return rc;
    *ret_offset = take_clusters(build, count);
    return 0;
}

int
recipe_allocate_first(struct recipe_build *build)
{
    int rc = make_room(build, 2);
    if (rc)
        return rc;
    take_clusters(build, 1);
    build->hosts.table = take_clusters(build, 1);
    build->hosts.table_clusters = 1;
    return add_refcount_block(build);
}

int
recipe_refer(struct recipe_build *build, uint64_t offset)
{
    uint64_t *refcount = recipe_refcount(build, offset);
    if (*refcount == q2_refcount_max(build->geometry.refcount_order))
        return recipe_fail(build, "a refcount would be %" PRIu64 "; refcount-bits allows less",
                           *refcount + 1);
    ++*refcount;
    return 0;
}

void
recipe_release(struct recipe_build *build, uint64_t offset, uint64_t clusters)
{
    for (uint64_t i = 0; i < clusters; i++)
        --*recipe_refcount(build, offset + (i << build->geometry.cluster_bits));
}

/* The host clusters that an entry uses. */
static void
clusters_of(const struct recipe_build *build, uint64_t raw, uint64_t *ret_offset,
            uint64_t *ret_count)
{
    unsigned bits = build->geometry.cluster_bits;
    *ret_offset = q2_entry_offset(raw);
    *ret_count = 0;
    enum q2_cluster_kind kind = q2_l2_kind(&build->geometry, raw);
    if (kind == Q2_CLUSTER_COMPRESSED) {
        struct q2_compressed_range range = q2_compressed_decode(&build->geometry, raw);
        uint64_t last = (range.offset + range.length - 1) >> bits;
        *ret_offset = range.offset >> bits << bits;
        *ret_count = last - (range.offset >> bits) + 1;
    } else if (!build->geometry.data_file &&
               (kind == Q2_CLUSTER_STANDARD || kind == Q2_CLUSTER_ZERO_ALLOCATED)) {
        *ret_count = 1;
    }
}

int
recipe_refer_entry(struct recipe_build *build, uint64_t raw)
{
    uint64_t offset, count;
    clusters_of(build, raw, &offset, &count);
    int rc = 0;
    for (uint64_t i = 0; i < count && rc == 0; i++)
        rc = recipe_refer(build, offset + (i << build->geometry.cluster_bits));
    return rc;
}

void
recipe_release_entry(struct recipe_build *build, uint64_t raw)
{
    uint64_t offset, count;
    clusters_of(build, raw, &offset, &count);
    recipe_release(build, offset, count);
}

/* ---- mapping tables ---- */

int
recipe_grow_l1(struct recipe_build *build, uint64_t entries)
{
    uint32_t old = build->header.l1_size;
    if (entries <= old)
        return 0;
    if (entries > Q2_MAX_L1_BYTES / 8)
        return recipe_fail(build, "the L1 table would have %" PRIu64 " entries, more than 32 MiB",
                           entries);
    struct recipe_table **grown = reallocarray(build->l1, entries, sizeof *grown);
    if (!grown)
        return q2_error_set(build->err, Q2_ERR_NOMEM, "out of memory for an L1 table");
    memset(grown + old, 0, (entries - old) * sizeof *grown);
    build->l1 = grown;
    uint64_t offset = 0;
    int rc = recipe_allocate(build, q2_units(entries * 8, build->geometry.cluster_bits), &offset);
    if (rc)
        return rc;
    recipe_release(build, build->header.l1_table_offset,
                   q2_units((uint64_t)old * 8, build->geometry.cluster_bits));
    build->header.l1_table_offset = offset;
    build->header.l1_size = (uint32_t)entries;
    return 0;
}

/* A new table, with the entries of `model` if it is not NULL. */
static int
add_table(struct recipe_build *build, const struct recipe_table *model,
          struct recipe_table **ret_table)
{
    struct recipe_table *table = calloc(1, sizeof *table);
    struct q2_l2_entry *entries = calloc(build->geometry.l2_entries, sizeof *entries);
    if (!table || !entries) {
        free(table);
        free(entries);
        return q2_error_set(build->err, Q2_ERR_NOMEM, "out of memory for an L2 table");
    }
    if (model)
        memcpy(entries, model->entries, build->geometry.l2_entries * sizeof *entries);
    table->entries = entries;
    table->next = build->tables;
    build->tables = table;
    *ret_table = table;
    return recipe_allocate(build, 1, &table->host);
}

int
recipe_map_writable(struct recipe_build *build, uint64_t guest, struct q2_l2_entry **ret_entry)
{
    const struct q2_geometry *geometry = &build->geometry;
    uint64_t cluster = guest >> geometry->cluster_bits;
    struct recipe_table **slot = &build->l1[cluster >> geometry->l2_bits];
    bool shared = *slot && *recipe_refcount(build, (*slot)->host) > 1;
    if (!*slot || shared) {
        struct recipe_table *table = NULL;
        int rc = add_table(build, *slot, &table);
        if (rc)
            return rc;
        if (shared)
            recipe_release(build, (*slot)->host, 1);
        *slot = table;
    }
    *ret_entry = &(*slot)->entries[cluster & (geometry->l2_entries - 1)];
    return 0;
}

const struct q2_l2_entry *
recipe_map(const struct recipe_build *build, uint64_t guest)
{
    const struct q2_geometry *geometry = &build->geometry;
    uint64_t cluster = guest >> geometry->cluster_bits, slot = cluster >> geometry->l2_bits;
    if (slot >= build->header.l1_size || !build->l1[slot])
        return NULL;
    return &build->l1[slot]->entries[cluster & (geometry->l2_entries - 1)];
}

void
recipe_clear_l1(struct recipe_build *build, uint64_t first, uint64_t end)
{
    for (uint64_t slot = first; slot < end; slot++) {
        struct recipe_table *table = build->l1[slot];
        if (!table)
            continue;
        for (uint64_t i = 0; i < build->geometry.l2_entries; i++)
            recipe_release_entry(build, table->entries[i].raw);
        recipe_release(build, table->host, 1);
        build->l1[slot] = NULL;
    }
}

void
recipe_model_fini(struct recipe_build *build)
{
    while (build->tables) {
        struct recipe_table *next = build->tables->next;
        free(build->tables->entries);
        free(build->tables);
        build->tables = next;
    }
    for (uint32_t i = 0; i < build->header.nb_snapshots; i++) {
        free(build->snapshots[i].l1);
        free(build->snapshots[i].copied);
    }
    free(build->snapshots);
    free(build->bitmaps);
    free(build->leaks);
    free(build->l1);
    free(build->hosts.refcounts);
    free(build->hosts.blocks);
    free(build->cluster);
    free(build->packed);
}
