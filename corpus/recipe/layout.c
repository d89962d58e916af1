/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The end of a build: what the model holds becomes the metadata of the image. */

#include "corpus/recipe/build.h"

#include "core/base/bitset.h"
#include "core/base/checked.h"
#include "core/format/refcount.h"

#include <stdlib.h>
#include <string.h>

/* ---- snapshot table and bitmap directory ---- */

static uint64_t
snapshot_bytes(const struct recipe_snapshot *snapshot)
{
    const struct q2_snapshot *fields = &snapshot->fields;
    uint64_t length = (uint64_t)Q2_SNAPSHOT_FIXED_LENGTH + fields->extra_length +
                      fields->id_length + fields->name_length;
    return (length + 7) & ~UINT64_C(7);
}

/* Where the i-th text of an entry goes, in the order of the format. */
struct text {
    const void *bytes;
    size_t length;
};

static int
write_entry(struct recipe_build *build, uint64_t at, const uint8_t *fixed, size_t fixed_length,
            const struct text *texts, size_t text_count)
{
    int rc = q2_file_write(build->image, at, fixed, fixed_length, build->err);
    at += fixed_length;
    for (size_t i = 0; i < text_count && rc == 0; i++) {
        if (texts[i].length)
            rc = q2_file_write(build->image, at, texts[i].bytes, texts[i].length, build->err);
        at += texts[i].length;
    }
    return rc;
}

static struct text
text_of(const struct recipe_statement *statement, enum recipe_word word)
{
    const struct recipe_clause *clause = recipe_statement_clause(statement, word);
    return clause ? (struct text){clause->arguments[0].text, clause->arguments[0].text_length}
                  : (struct text){NULL, 0};
}

static int
write_snapshot(struct recipe_build *build, const struct recipe_snapshot *snapshot)
{
    enum { FIXED = Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH, EXTRA_LENGTH_AT = 36 };
    uint8_t fixed[FIXED];
    const struct q2_snapshot *fields = &snapshot->fields;
    q2_snapshot_encode(fields, fixed);
    q2_store_be32(fixed + EXTRA_LENGTH_AT, fields->extra_length);
    struct text texts[] = {
        text_of(snapshot->statement, WORD_EXTRA),
        text_of(snapshot->statement, WORD_ID),
        text_of(snapshot->statement, WORD_SNAPSHOT),
    };
    if (!texts[1].bytes)
        texts[1] = (struct text){snapshot->id, fields->id_length};
    return write_entry(build, fields->at, fixed, sizeof fixed, texts, 3);
}

static int
write_snapshots(struct recipe_build *build)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < build->header.nb_snapshots; i++)
        bytes += snapshot_bytes(&build->snapshots[i]);
    if (bytes == 0)
        return 0;
    int rc = recipe_allocate(build, q2_units(bytes, build->geometry.cluster_bits),
                             &build->header.snapshots_offset);
    uint64_t at = build->header.snapshots_offset;
    for (uint32_t i = 0; i < build->header.nb_snapshots && rc == 0; i++) {
        build->snapshots[i].fields.at = at;
        rc = write_snapshot(build, &build->snapshots[i]);
        at += snapshot_bytes(&build->snapshots[i]);
    }
    return rc;
}

static int
write_bitmap(struct recipe_build *build, const struct recipe_bitmap *bitmap)
{
    uint8_t fixed[Q2_BITMAP_FIXED_LENGTH];
    q2_bitmap_encode(&bitmap->fields, fixed);
    struct text texts[] = {
        text_of(bitmap->statement, WORD_EXTRA),
        text_of(bitmap->statement, WORD_BITMAP),
    };
    return write_entry(build, bitmap->fields.at, fixed, sizeof fixed, texts, 2);
}

static int
write_bitmaps(struct recipe_build *build)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < build->bitmap_count; i++)
        bytes += q2_bitmap_length(&build->bitmaps[i].fields);
    if (bytes == 0)
        return 0;
    build->bitmap_directory_size = bytes;
    int rc = recipe_allocate(build, q2_units(bytes, build->geometry.cluster_bits),
                             &build->bitmap_directory);
    uint64_t at = build->bitmap_directory;
    for (uint32_t i = 0; i < build->bitmap_count && rc == 0; i++) {
        build->bitmaps[i].fields.at = at;
        rc = write_bitmap(build, &build->bitmaps[i]);
        at += q2_bitmap_length(&build->bitmaps[i].fields);
    }
    return rc;
}

/* ---- mapping tables ---- */

static int
write_l1(struct recipe_build *build, struct recipe_table *const *l1, uint32_t entries,
         uint64_t offset, const uint64_t *copied)
{
    uint64_t per_cluster = build->geometry.cluster_size / 8;
    int rc = 0;
    for (uint64_t first = 0; first < entries && rc == 0; first += per_cluster) {
        uint64_t count = q2_min(per_cluster, entries - first);
        memset(build->cluster, 0, count * 8);
        for (uint64_t i = 0; i < count; i++) {
            const struct recipe_table *table = l1[first + i];
            if (!table)
                continue;
            bool flag =
                copied ? q2_bit_test(copied, first + i) : *recipe_refcount(build, table->host) == 1;
            q2_store_be64(build->cluster + i * 8, table->host | (flag ? Q2_ENTRY_COPIED : 0));
        }
        rc = recipe_put(build->image, offset + first * 8, build->cluster, count * 8, build->err);
    }
    return rc;
}

static int
write_l2(struct recipe_build *build, const struct recipe_table *table)
{
    const struct q2_geometry *geometry = &build->geometry;
    for (uint64_t i = 0; i < geometry->l2_entries; i++) {
        uint64_t raw = table->entries[i].raw;
        enum q2_cluster_kind kind = q2_l2_kind(geometry, raw);
        bool host = kind == Q2_CLUSTER_STANDARD || kind == Q2_CLUSTER_ZERO_ALLOCATED;
        /* The flags of tables that only snapshots reach were cleared when they were shared. */
        if (host && !geometry->data_file && table->active &&
            *recipe_refcount(build, q2_entry_offset(raw)) == 1)
            raw |= Q2_ENTRY_COPIED;
        uint8_t *at = build->cluster + i * geometry->l2_entry_size;
        q2_store_be64(at, raw);
        if (geometry->extended_l2)
            q2_store_be64(at + 8, table->entries[i].bitmap);
    }
    return recipe_put(build->image, table->host, build->cluster, geometry->cluster_size,
                      build->err);
}

static int
write_mapping(struct recipe_build *build)
{
    for (uint32_t slot = 0; slot < build->header.l1_size; slot++)
        if (build->l1[slot])
            build->l1[slot]->active = true;
    int rc = write_l1(build, build->l1, build->header.l1_size, build->header.l1_table_offset, NULL);
    for (uint32_t i = 0; i < build->header.nb_snapshots && rc == 0; i++) {
        const struct recipe_snapshot *snapshot = &build->snapshots[i];
        rc = write_l1(build, snapshot->l1, snapshot->fields.l1_size,
                      snapshot->fields.l1_table_offset, snapshot->copied);
    }
    for (const struct recipe_table *table = build->tables; table && rc == 0; table = table->next)
        rc = write_l2(build, table);
    return rc;
}

/* ---- refcounts ---- */

/* Move the refcount table to where it fits, for as long as moving it makes it grow. */
static int
fit_refcount_table(struct recipe_build *build)
{
    struct recipe_hosts *hosts = &build->hosts;
    for (;;) {
        uint64_t clusters = q2_units(hosts->block_count * 8, build->geometry.cluster_bits);
        if (clusters <= hosts->table_clusters)
            return 0;
        recipe_release(build, hosts->table, hosts->table_clusters);
        hosts->table_clusters = clusters;
        int rc = recipe_allocate(build, clusters, &hosts->table);
        if (rc)
            return rc;
    }
}

static int
write_refcounts(struct recipe_build *build)
{
    const struct q2_geometry *geometry = &build->geometry;
    const struct recipe_hosts *hosts = &build->hosts;
    int rc = 0;
    for (uint64_t i = 0; i < hosts->block_count && rc == 0; i++) {
        uint64_t first = i << geometry->refcount_block_bits;
        uint64_t end = q2_min(hosts->next, first + (UINT64_C(1) << geometry->refcount_block_bits));
        memset(build->cluster, 0, geometry->cluster_size);
        for (uint64_t cluster = first; cluster < end; cluster++)
            q2_refcount_set(build->cluster, geometry->refcount_order, cluster - first,
                            hosts->refcounts[cluster]);
        rc = recipe_put(build->image, hosts->blocks[i], build->cluster, geometry->cluster_size,
                        build->err);
        uint8_t entry[8];
        q2_store_be64(entry, hosts->blocks[i]);
        rc =
            rc ? rc
               : q2_file_write(build->image, hosts->table + i * 8, entry, sizeof entry, build->err);
    }
    return rc;
}

int
recipe_finish_image(struct recipe_build *build)
{
    int rc = write_snapshots(build);
    rc = rc ? rc : write_bitmaps(build);
    rc = rc ? rc : fit_refcount_table(build);
    if (rc)
        return rc;
    build->header.refcount_table_offset = build->hosts.table;
    build->header.refcount_table_clusters = (uint32_t)build->hosts.table_clusters;
    rc = write_mapping(build);
    rc = rc ? rc : write_refcounts(build);
    rc = rc ? rc : recipe_write_preamble(build);
    uint64_t size = build->hosts.next << build->geometry.cluster_bits;
    rc = rc ? rc : q2_file_truncate(build->image, size, build->err);
    if (rc == 0 && build->data)
        rc = q2_file_truncate(build->data, build->header.size, build->err);
    build->geometry.file_size = size;
    build->stage = STAGE_BUILT;
    return rc;
}
