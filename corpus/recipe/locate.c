/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Where the structures of the image are: one short function for each. */

#include "corpus/recipe/locate.h"

#include "core/format/luks.h"

/* The usual answer: entry `index` of `count`, `size` bytes each, in the array at `offset`. */
static int
entry_of(struct recipe_place *place, uint64_t offset, uint64_t index, uint64_t count, uint64_t size,
         int level)
{
    if (index >= count)
        return level;
    place->offset = offset + index * size;
    return RECIPE_FOUND;
}

static int
known(struct recipe_place *place, uint64_t offset)
{
    place->offset = offset;
    return offset ? RECIPE_FOUND : RECIPE_ABSENT;
}

/* ---- the first cluster ---- */

int
recipe_locate_header(const struct recipe_build *build, const uint64_t *index,
                     struct recipe_place *place)
{
    (void)build;
    (void)index;
    place->offset = 0;
    return RECIPE_FOUND;
}

int
recipe_locate_backing_name(const struct recipe_build *build, const uint64_t *index,
                           struct recipe_place *place)
{
    (void)index;
    place->length = build->backing_name ? build->header.backing_file_size : 0;
    return known(place, build->header.backing_file_offset);
}

const struct recipe_extension *
recipe_extension_find(const struct recipe_build *build, uint64_t which)
{
    if (which < RECIPE_MAX_EXTENSIONS && which < build->extension_count)
        return &build->extensions[which];
    for (unsigned i = 0; i < build->extension_count; i++)
        if (which == build->extensions[i].type)
            return &build->extensions[i];
    return NULL;
}

int
recipe_locate_extension(const struct recipe_build *build, const uint64_t *index,
                        struct recipe_place *place)
{
    const struct recipe_extension *extension = recipe_extension_find(build, *index);
    if (!extension)
        return *index > RECIPE_MAX_EXTENSIONS ? RECIPE_ABSENT : 0;
    place->offset = extension->offset;
    return RECIPE_FOUND;
}

int
recipe_locate_bitmaps_extension(const struct recipe_build *build, const uint64_t *index,
                                struct recipe_place *place)
{
    (void)index;
    const uint64_t type = Q2_EXTENSION_BITMAPS;
    return recipe_locate_extension(build, &type, place);
}

int
recipe_locate_crypto_extension(const struct recipe_build *build, const uint64_t *index,
                               struct recipe_place *place)
{
    (void)index;
    const uint64_t type = Q2_EXTENSION_CRYPTO;
    return recipe_locate_extension(build, &type, place);
}

/* ---- mapping ---- */

int
recipe_locate_l1(const struct recipe_build *build, const uint64_t *index,
                 struct recipe_place *place)
{
    (void)index;
    return known(place, build->header.l1_table_offset);
}

int
recipe_locate_l1_entry(const struct recipe_build *build, const uint64_t *index,
                       struct recipe_place *place)
{
    return entry_of(place, build->header.l1_table_offset, index[0], build->header.l1_size, 8, 0);
}

/* Entry `entry` of the table in slot `slot` of some L1 table. */
static int
entry_in(const struct recipe_build *build, struct recipe_table *const *l1, uint32_t l1_size,
         uint64_t slot, uint64_t entry, int level, struct recipe_place *place)
{
    if (slot >= l1_size)
        return level;
    if (!l1[slot])
        return RECIPE_ABSENT - level;
    return entry_of(place, l1[slot]->host, entry, build->geometry.l2_entries,
                    build->geometry.l2_entry_size, level + 1);
}

int
recipe_locate_l2_table(const struct recipe_build *build, const uint64_t *index,
                       struct recipe_place *place)
{
    return entry_in(build, build->l1, build->header.l1_size, index[0], 0, 0, place);
}

int
recipe_locate_l2_entry(const struct recipe_build *build, const uint64_t *index,
                       struct recipe_place *place)
{
    return entry_in(build, build->l1, build->header.l1_size, index[0], index[1], 0, place);
}

int
recipe_locate_l2_cluster(const struct recipe_build *build, const uint64_t *index,
                         struct recipe_place *place)
{
    const struct q2_geometry *geometry = &build->geometry;
    return entry_in(build, build->l1, build->header.l1_size, index[0] >> geometry->l2_bits,
                    index[0] & (geometry->l2_entries - 1), 0, place);
}

int
recipe_locate_map(const struct recipe_build *build, const uint64_t *index,
                  struct recipe_place *place)
{
    const uint64_t cluster = index[0] >> build->geometry.cluster_bits;
    return recipe_locate_l2_cluster(build, &cluster, place);
}

/* ---- refcounts ---- */

int
recipe_locate_refcount_table(const struct recipe_build *build, const uint64_t *index,
                             struct recipe_place *place)
{
    (void)index;
    return known(place, build->hosts.table);
}

int
recipe_locate_refcount_entry(const struct recipe_build *build, const uint64_t *index,
                             struct recipe_place *place)
{
    uint64_t bytes = build->hosts.table_clusters << build->geometry.cluster_bits;
    return entry_of(place, build->hosts.table, index[0], bytes / 8, 8, 0);
}

int
recipe_locate_refcount_block(const struct recipe_build *build, const uint64_t *index,
                             struct recipe_place *place)
{
    if (index[0] >= build->hosts.block_count)
        return 0;
    place->offset = build->hosts.blocks[index[0]];
    return RECIPE_FOUND;
}

int
recipe_locate_refcount(const struct recipe_build *build, const uint64_t *index,
                       struct recipe_place *place)
{
    const struct q2_geometry *geometry = &build->geometry;
    uint64_t block = index[0] >> geometry->refcount_block_bits;
    uint64_t entry = index[0] & ((UINT64_C(1) << geometry->refcount_block_bits) - 1);
    if (block >= build->hosts.block_count)
        return 0;
    place->offset = build->hosts.blocks[block] + ((entry << geometry->refcount_order) >> 3);
    return RECIPE_FOUND;
}

int
recipe_locate_refcount_of(const struct recipe_build *build, const uint64_t *index,
                          struct recipe_place *place)
{
    const uint64_t cluster = index[0] >> build->geometry.cluster_bits;
    return recipe_locate_refcount(build, &cluster, place);
}

/* ---- snapshots ---- */

int
recipe_locate_snapshot_table(const struct recipe_build *build, const uint64_t *index,
                             struct recipe_place *place)
{
    (void)index;
    return known(place, build->header.snapshots_offset);
}

int
recipe_locate_snapshot(const struct recipe_build *build, const uint64_t *index,
                       struct recipe_place *place)
{
    if (index[0] >= build->header.nb_snapshots)
        return 0;
    place->offset = build->snapshots[index[0]].fields.at;
    return RECIPE_FOUND;
}

int
recipe_locate_snapshot_l1(const struct recipe_build *build, const uint64_t *index,
                          struct recipe_place *place)
{
    if (index[0] >= build->header.nb_snapshots)
        return 0;
    return known(place, build->snapshots[index[0]].fields.l1_table_offset);
}

int
recipe_locate_snapshot_l1_entry(const struct recipe_build *build, const uint64_t *index,
                                struct recipe_place *place)
{
    if (index[0] >= build->header.nb_snapshots)
        return 0;
    const struct q2_snapshot *fields = &build->snapshots[index[0]].fields;
    return entry_of(place, fields->l1_table_offset, index[1], fields->l1_size, 8, 1);
}

int
recipe_locate_snapshot_l2_entry(const struct recipe_build *build, const uint64_t *index,
                                struct recipe_place *place)
{
    if (index[0] >= build->header.nb_snapshots)
        return 0;
    const struct recipe_snapshot *snapshot = &build->snapshots[index[0]];
    return entry_in(build, snapshot->l1, snapshot->fields.l1_size, index[1], index[2], 1, place);
}

int
recipe_locate_snapshot_l2_table(const struct recipe_build *build, const uint64_t *index,
                                struct recipe_place *place)
{
    const uint64_t first[] = {index[0], index[1], 0};
    return recipe_locate_snapshot_l2_entry(build, first, place);
}

int
recipe_locate_snapshot_l2_cluster(const struct recipe_build *build, const uint64_t *index,
                                  struct recipe_place *place)
{
    const struct q2_geometry *geometry = &build->geometry;
    const uint64_t split[] = {index[0], index[1] >> geometry->l2_bits,
                              index[1] & (geometry->l2_entries - 1)};
    return recipe_locate_snapshot_l2_entry(build, split, place);
}

int
recipe_locate_snapshot_map(const struct recipe_build *build, const uint64_t *index,
                           struct recipe_place *place)
{
    const uint64_t cluster[] = {index[0], index[1] >> build->geometry.cluster_bits};
    return recipe_locate_snapshot_l2_cluster(build, cluster, place);
}

/* ---- bitmaps ---- */

int
recipe_locate_bitmap_directory(const struct recipe_build *build, const uint64_t *index,
                               struct recipe_place *place)
{
    (void)index;
    return known(place, build->bitmap_directory);
}

int
recipe_locate_bitmap(const struct recipe_build *build, const uint64_t *index,
                     struct recipe_place *place)
{
    if (index[0] >= build->bitmap_count)
        return 0;
    place->offset = build->bitmaps[index[0]].fields.at;
    return RECIPE_FOUND;
}

int
recipe_locate_bitmap_table(const struct recipe_build *build, const uint64_t *index,
                           struct recipe_place *place)
{
    if (index[0] >= build->bitmap_count)
        return 0;
    return known(place, build->bitmaps[index[0]].fields.table_offset);
}

int
recipe_locate_bitmap_entry(const struct recipe_build *build, const uint64_t *index,
                           struct recipe_place *place)
{
    if (index[0] >= build->bitmap_count)
        return 0;
    const struct q2_bitmap *fields = &build->bitmaps[index[0]].fields;
    return entry_of(place, fields->table_offset, index[1], fields->table_size, 8, 1);
}

/* ---- encryption ---- */

int
recipe_locate_luks(const struct recipe_build *build, const uint64_t *index,
                   struct recipe_place *place)
{
    (void)index;
    return known(place, build->luks);
}

int
recipe_locate_luks_slot(const struct recipe_build *build, const uint64_t *index,
                        struct recipe_place *place)
{
    if (!build->luks)
        return 0;
    return entry_of(place, build->luks + Q2_LUKS_AT_SLOTS, index[0], Q2_LUKS_SLOTS,
                    Q2_LUKS_SLOT_LENGTH, 0);
}

int
recipe_locate_luks_material(const struct recipe_build *build, const uint64_t *index,
                            struct recipe_place *place)
{
    if (!build->luks)
        return 0;
    uint64_t each = (build->luks_length - Q2_LUKS_MATERIAL_START) / Q2_LUKS_SLOTS;
    return entry_of(place, build->luks + Q2_LUKS_MATERIAL_START, index[0], Q2_LUKS_SLOTS, each, 0);
}

/* ---- anything else ---- */

int
recipe_locate_leak(const struct recipe_build *build, const uint64_t *index,
                   struct recipe_place *place)
{
    if (index[0] >= build->leak_count)
        return 0;
    place->offset = build->leaks[index[0]];
    return RECIPE_FOUND;
}

int
recipe_locate_byte(const struct recipe_build *build, const uint64_t *index,
                   struct recipe_place *place)
{
    (void)build;
    place->offset = index[0];
    return RECIPE_FOUND;
}
