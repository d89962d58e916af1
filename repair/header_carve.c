/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* From sightings to headers. For each cluster size that the distances between pointers suggest: an
 * L1 table is one whose pointers lead to tables; a refcount table one that leads to a block which
 * counts the header, the table and itself once each. All that can be combined is put on trial. */

#include "repair/header_carve.h"

#include "core/base/checked.h"
#include "core/format/entry.h"
#include "core/format/refcount.h"
#include "core/format/snapshot.h"
#include "repair/header_disk.h"

#include <string.h>

enum {
    MAX_L1 = 16,
    MAX_REFCOUNTS = 8,
    MAX_SIZES = 3,  /* cluster sizes to try, if there are votes for any */
    FEW_VOTES = 16, /* that mean nothing */
    MAX_EMPTY = 64, /* clusters in which an empty L1 table is looked for */
    PIECE = 64 << 10,
};

static bool
read_part(const struct q2_carving *carving, uint64_t offset, uint8_t *buffer, size_t length)
{
    struct q2_error ignored;
    return offset < carving->trial->file_size &&
           q2_file_read_padded(carving->trial->scene->file, offset, buffer, length, &ignored) == 0;
}

/* ---- roles ---- */

struct role {
    uint64_t pointers; /* of the first PIECE of the cluster */
    uint64_t tables;   /* of those, to tables */
    uint64_t flagged;  /* of those, with the COPIED flag */
    uint64_t odd;      /* entries that no L1 or refcount table has */
    uint64_t last;     /* index of the last that is not 0 */
    uint64_t first;    /* what the first entry is */
};

static void
look_at_role(const struct q2_carving *carving, uint64_t offset, struct role *role)
{
    static _Thread_local uint8_t buffer[PIECE];
    const struct q2_geometry *geometry = &carving->geometry;
    size_t length = (size_t)q2_min(geometry->cluster_size, PIECE);
    unsigned kind = geometry->extended_l2 ? Q2_PLACE_EXTENDED : Q2_PLACE_TABLE;
    *role = (struct role){.pointers = 0};
    if (!read_part(carving, offset, buffer, length))
        return;
    role->first = q2_load_be64(buffer);
    for (size_t i = 0; i < length / 8; i++) {
        uint64_t word = q2_load_be64(buffer + i * 8), target = q2_entry_offset(word);
        if (!word)
            continue;
        role->last = i;
        if ((word & Q2_L1_RESERVED) || !target || (target & (geometry->cluster_size - 1)) ||
            target >= carving->trial->file_size) {
            role->odd++;
            continue;
        }
        role->pointers++;
        role->flagged += (word & Q2_ENTRY_COPIED) != 0;
        role->tables +=
            (q2_sightings_at(&carving->sightings, target, geometry->cluster_bits) & kind) != 0;
    }
}

/* Nearly all lead to tables: some of those may be empty, or damaged. */
static bool
is_l1(const struct role *role)
{
    return role->pointers && !role->odd && role->tables * 4 >= role->pointers * 3;
}

static void
note_l1(struct q2_carving *carving, uint64_t offset, const struct role *role)
{
    uint64_t size = carving->geometry.cluster_size;
    if (carving->l1_count) {
        /* One that goes on in the next cluster. */
        uint64_t start = carving->l1[carving->l1_count - 1].offset;
        uint64_t entries = carving->l1[carving->l1_count - 1].entries;
        if (start + q2_units(entries * 8, carving->geometry.cluster_bits) * size == offset &&
            offset - start < Q2_MAX_L1_BYTES)
            carving->l1[carving->l1_count - 1].entries = (offset - start) / 8 + role->last + 1;
    }
    if (carving->l1_count == MAX_L1)
        return;
    carving->l1[carving->l1_count].offset = offset;
    carving->l1[carving->l1_count++].entries = role->last + 1;
}

static void
note_refcounts(struct q2_carving *carving, uint64_t offset, uint64_t block)
{
    uint8_t bytes[4096];
    const struct q2_geometry *geometry = &carving->geometry;
    size_t length = (size_t)q2_min(sizeof bytes, geometry->cluster_size);
    if ((block & (geometry->cluster_size - 1)) || !read_part(carving, block, bytes, length))
        return;
    for (unsigned order = 0; order <= Q2_MAX_REFCOUNT_ORDER; order++) {
        uint64_t counts = (uint64_t)length * 8 >> order;
        uint64_t table_at = offset >> geometry->cluster_bits;
        uint64_t block_at = block >> geometry->cluster_bits;
        bool good = q2_refcount_get(bytes, order, 0) == 1;
        if (table_at < counts)
            good &= q2_refcount_get(bytes, order, table_at) == 1;
        if (block_at < counts)
            good &= q2_refcount_get(bytes, order, block_at) == 1;
        if (!good || carving->refcount_count == MAX_REFCOUNTS)
            continue;
        /* As many clusters as the file needs, and any more that are counted behind. */
        uint64_t block_bits = geometry->cluster_bits + 3 - order, clusters = 1;
        clusters =
            q2_max(clusters, q2_units(q2_units(carving->trial->file_size,
                                               (unsigned)(block_bits + geometry->cluster_bits)) *
                                          8,
                                      geometry->cluster_bits));
        carving->refcounts[carving->refcount_count].offset = offset;
        carving->refcounts[carving->refcount_count].clusters = (uint32_t)clusters;
        carving->refcounts[carving->refcount_count++].order = order;
    }
}

static void
find_roles(struct q2_carving *carving)
{
    const struct q2_sightings *sightings = &carving->sightings;
    unsigned bits = carving->geometry.cluster_bits;
    uint64_t next = 0; /* cluster that has not been looked at */
    carving->l1_count = carving->refcount_count = 0;
    for (uint64_t i = 0; i < sightings->count; i++) {
        const struct q2_place *place = &sightings->places[i];
        uint64_t end = place->offset + (uint64_t)place->sectors * Q2_SCAN_SECTOR;
        uint64_t cluster = q2_max(place->offset >> bits, next);
        for (; cluster << bits < end; cluster++) {
            struct role role;
            uint64_t offset = cluster << bits;
            next = cluster + 1;
            if (!(q2_sightings_at(sightings, offset, bits) & Q2_PLACE_TABLE) || offset == 0)
                continue;
            look_at_role(carving, offset, &role);
            if (is_l1(&role))
                note_l1(carving, offset, &role);
            else if (role.pointers && !role.flagged && !role.odd && role.first)
                note_refcounts(carving, offset, role.first);
        }
    }
}

/* An image whose guest wrote nothing has no table that could be found: its L1 table is a cluster of
 * zeros that is counted. Software puts it near the others. */
static void
find_empty_l1(struct q2_carving *carving, uint64_t table_at, unsigned order)
{
    uint8_t block[4096], bytes[4096];
    const struct q2_geometry *geometry = &carving->geometry;
    uint64_t size = geometry->cluster_size, at;
    size_t length = (size_t)q2_min(sizeof block, size);
    if (!read_part(carving, table_at, bytes, 8) ||
        !read_part(carving, q2_load_be64(bytes), block, length))
        return;
    for (uint64_t i = 1; i < q2_min((uint64_t)length * 8 >> order, MAX_EMPTY); i++) {
        at = i * size;
        if (q2_refcount_get(block, order, i) != 1 || at == table_at ||
            !read_part(carving, at, bytes, length))
            continue;
        bool zero = true;
        for (size_t byte = 0; byte < length; byte++)
            zero &= bytes[byte] == 0;
        if (!zero || carving->l1_count == MAX_L1)
            continue;
        carving->l1[carving->l1_count].offset = at;
        carving->l1[carving->l1_count++].entries = 1;
    }
}

/* ---- the size of the disk ---- */

/* Where what is mapped ends: by the last entry of the last L2 table, bytes. */
static uint64_t
mapped_end(const struct q2_carving *carving, uint64_t l1_offset, uint64_t entries)
{
    const struct q2_geometry *geometry = &carving->geometry;
    uint64_t reach = q2_l2_reach(geometry), end = (entries - 1) * reach;
    uint8_t word[8], buffer[4096];
    if (!read_part(carving, l1_offset + (entries - 1) * 8, word, sizeof word))
        return entries * reach;
    uint64_t table = q2_entry_offset(q2_load_be64(word));
    size_t length = (size_t)q2_min(geometry->cluster_size, sizeof buffer);
    for (uint64_t at = 0; at < geometry->cluster_size; at += length) {
        if (!read_part(carving, table + at, buffer, length))
            return entries * reach;
        for (uint64_t i = 0; i < length / geometry->l2_entry_size; i++) {
            struct q2_l2_entry entry = q2_l2_load(geometry, buffer, i);
            if (entry.raw || entry.bitmap)
                end = (entries - 1) * reach +
                      ((at / geometry->l2_entry_size + i + 1) << geometry->cluster_bits);
        }
    }
    return end;
}

/* Fill in size and l1_size. */
static void
set_size(struct q2_carving *carving, struct q2_header *header, uint64_t entries,
         uint64_t snapshot_size)
{
    struct q2_disk_evidence evidence;
    const struct q2_geometry *geometry = &carving->geometry;
    uint64_t second = carving->sightings.disk_size;
    uint64_t least = mapped_end(carving, header->l1_table_offset, entries);
    uint64_t cluster = geometry->cluster_size;
    header->l1_size = (uint32_t)entries;
    header->size = entries * q2_l2_reach(geometry);
    q2_disk_evidence(carving->trial->scene->file, header, &evidence);
    if (evidence.exact && evidence.exact + cluster > least) {
        header->size = evidence.exact;
    } else if (!evidence.exact && second && second != UINT64_MAX && second + cluster > least &&
               second <= header->size) {
        header->size = second;
    } else if (snapshot_size && snapshot_size + cluster > least) {
        header->size = snapshot_size;
    } else if (evidence.least > header->size) {
        header->size = evidence.least;
    }
    uint64_t needed = q2_l1_entries_for(geometry, header->size);
    if (needed <= Q2_MAX_L1_BYTES / 8)
        header->l1_size = (uint32_t)q2_max(needed, 1);
}

enum q2_size_source
q2_carve_size_source(const struct q2_carving *carving, const struct q2_header *header,
                     const struct q2_check *check)
{
    struct q2_disk_evidence evidence;
    uint8_t entry[Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH];
    struct q2_snapshot snapshot;
    if (carving->has_known)
        return Q2_SIZE_HEADER;
    q2_disk_evidence(carving->trial->scene->file, header, &evidence);
    if (evidence.exact == header->size || carving->sightings.disk_size == header->size)
        return Q2_SIZE_PARTITION;
    if (check->map_count < 2 ||
        !read_part(carving, check->maps[check->map_count - 1].entry_at, entry, sizeof entry))
        return Q2_SIZE_MAPPED;
    q2_snapshot_decode(&check->geometry, entry, 0, &snapshot);
    return snapshot.has_disk_size && snapshot.disk_size == header->size ? Q2_SIZE_SNAPSHOT
                                                                        : Q2_SIZE_MAPPED;
}

/* ---- combinations ---- */

/* Snapshots that a table at `at` has, and what they know of the image. */
static uint32_t
count_snapshots(const struct q2_carving *carving, uint64_t at, uint64_t *ret_disk_size,
                bool *ret_short)
{
    uint8_t entry[4096];
    uint32_t count = 0;
    struct q2_geometry geometry = carving->geometry;
    geometry.version = 2; /* which asks for less */
    while (count < Q2_MAX_SNAPSHOTS && read_part(carving, at, entry, sizeof entry) &&
           q2_snapshot_plausible(&geometry, entry, sizeof entry, at)) {
        struct q2_snapshot snapshot;
        q2_snapshot_decode(&geometry, entry, at, &snapshot);
        *ret_short |= snapshot.extra_length < Q2_SNAPSHOT_EXTRA_LENGTH;
        *ret_disk_size = snapshot.has_disk_size ? snapshot.disk_size : 0;
        at += q2_snapshot_length(entry);
        count++;
    }
    return count;
}

static void
offer(struct q2_carving *carving, const struct q2_header *header)
{
    struct q2_candidate candidate = {.fresh = !carving->has_known};
    if (carving->has_known)
        candidate = carving->search.base;
    candidate.fresh = !carving->has_known;
    if (!carving->has_known)
        memset(candidate.bytes, 0, sizeof candidate.bytes);
    q2_header_encode(header, candidate.bytes);
    q2_search_offer(&carving->search, &candidate);
}

/* Each L1 table, with what else is given. */
static void
offer_tables(struct q2_carving *carving, struct q2_header *header, uint64_t snapshot_size)
{
    for (unsigned i = 0; i < carving->l1_count; i++) {
        header->l1_table_offset = carving->l1[i].offset;
        if (carving->has_known)
            header->l1_size =
                (uint32_t)q2_max(q2_l1_entries_for(&carving->geometry, header->size), 1);
        else
            set_size(carving, header, carving->l1[i].entries, snapshot_size);
        offer(carving, header);
        if (carving->has_known)
            continue;
        header->compression_type = 1;
        header->incompatible_features |= Q2_INCOMPATIBLE_COMPRESSION;
        offer(carving, header);
        header->compression_type = 0;
        header->incompatible_features &= ~(uint64_t)Q2_INCOMPATIBLE_COMPRESSION;
    }
}

static void
offer_snapshots(struct q2_carving *carving, struct q2_header *header)
{
    header->version = 3;
    header->nb_snapshots = 0;
    header->snapshots_offset = 0;
    offer_tables(carving, header, 0);
    for (unsigned i = 0; i < carving->sightings.snapshot_count; i++) {
        uint64_t at = carving->sightings.snapshots[i], disk_size = 0;
        bool is_short = false;
        if (at & (carving->geometry.cluster_size - 1))
            continue;
        header->nb_snapshots = count_snapshots(carving, at, &disk_size, &is_short);
        header->snapshots_offset = at;
        header->version = is_short ? 2 : 3;
        if (header->nb_snapshots)
            offer_tables(carving, header, disk_size);
    }
}

/* Each snapshot table, for a header that only lacks that. */
static void
offer_known_snapshots(struct q2_carving *carving, struct q2_header *header)
{
    for (unsigned i = 0; i < carving->sightings.snapshot_count; i++) {
        uint64_t at = carving->sightings.snapshots[i], disk_size = 0;
        bool is_short = false;
        header->snapshots_offset = at;
        header->nb_snapshots = count_snapshots(carving, at, &disk_size, &is_short);
        if (header->nb_snapshots && (at & (carving->geometry.cluster_size - 1)) == 0)
            offer(carving, header);
    }
}

static void
offer_all(struct q2_carving *carving, bool extended)
{
    struct q2_header header = {
        .magic = Q2_MAGIC,
        .version = 3,
        .cluster_bits = carving->geometry.cluster_bits,
        .refcount_order = 4,
        .header_length = Q2_HEADER_KNOWN_LENGTH,
        .incompatible_features = extended ? Q2_INCOMPATIBLE_EXTENDED_L2 : 0,
        .crypt_method = Q2_CRYPT_NONE,
    };
    for (unsigned i = 0; i < carving->sightings.luks_count; i++)
        if ((carving->sightings.luks[i] & (carving->geometry.cluster_size - 1)) == 0)
            header.crypt_method = Q2_CRYPT_LUKS;
    if (carving->has_known) {
        header = carving->known;
        if (carving->lost_snapshots)
            offer_known_snapshots(carving, &header);
        else
            offer_tables(carving, &header, 0);
        return;
    }
    bool empty = carving->l1_count == 0;
    for (unsigned i = 0; i < carving->refcount_count; i++) {
        if (empty)
            find_empty_l1(carving, carving->refcounts[i].offset, carving->refcounts[i].order);
        header.refcount_table_offset = carving->refcounts[i].offset;
        header.refcount_table_clusters = carving->refcounts[i].clusters;
        header.refcount_order = carving->refcounts[i].order;
        offer_snapshots(carving, &header);
    }
    /* They can be made anew. */
    if (carving->refcount_count == 0)
        offer_snapshots(carving, &header);
}

static void
try_size(struct q2_carving *carving, unsigned bits, bool extended)
{
    const struct q2_header header = {
        .version = 3,
        .cluster_bits = bits,
        .refcount_order = 4,
        .incompatible_features = extended ? Q2_INCOMPATIBLE_EXTENDED_L2 : 0,
    };
    q2_geometry_init(&carving->geometry, &header, carving->trial->file_size);
    find_roles(carving);
    offer_all(carving, extended);
}

int
q2_carve_headers(struct q2_carving *carving, struct q2_error *err)
{
    (void)err;
    if (carving->has_known) {
        try_size(carving, carving->known.cluster_bits,
                 carving->known.incompatible_features & Q2_INCOMPATIBLE_EXTENDED_L2);
        return 0;
    }
    for (unsigned extended = 0; extended <= 1; extended++) {
        unsigned least = extended ? Q2_MIN_EXTENDED_CLUSTER_BITS : Q2_MIN_CLUSTER_BITS;
        uint64_t votes[Q2_MAX_CLUSTER_BITS + 1], total = 0;
        memcpy(votes, carving->sightings.strides[extended], sizeof votes);
        for (unsigned bits = least; bits <= Q2_MAX_CLUSTER_BITS; bits++)
            total += votes[bits];
        for (unsigned turn = 0; turn < MAX_SIZES && total >= FEW_VOTES; turn++) {
            unsigned best = least;
            for (unsigned bits = least; bits <= Q2_MAX_CLUSTER_BITS; bits++)
                if (votes[bits] > votes[best])
                    best = bits;
            if (votes[best])
                try_size(carving, best, extended);
            votes[best] = 0;
        }
        /* Few clusters, or compressed ones, have no distance that says anything. */
        for (unsigned bits = least; bits <= Q2_MAX_CLUSTER_BITS && total < FEW_VOTES; bits++)
            try_size(carving, bits, extended);
    }
    return 0;
}
