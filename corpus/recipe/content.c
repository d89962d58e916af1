/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Statements that write, zero, discard and allocate guest clusters. Each changes the guest's view
 * first and then makes the clusters it touched agree with it. */

#include "corpus/recipe/build.h"

#include "core/base/checked.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t ALL_SUBCLUSTERS = UINT32_MAX;

/* The part of a guest range that lies in one cluster. */
struct piece {
    uint64_t guest; /* offset of the cluster, bytes */
    uint64_t from;  /* inside the cluster, bytes */
    uint64_t to;
};

static struct piece
piece_at(const struct recipe_build *build, uint64_t offset, uint64_t end)
{
    uint64_t size = build->geometry.cluster_size, from = offset & (size - 1);
    return (struct piece){.guest = offset - from,
                          .from = from,
                          .to = q2_min(size, from + (end - offset))};
}

/* The subclusters that a piece touches, as bits of the allocation bitmap. */
static uint64_t
subclusters_of(const struct recipe_build *build, const struct piece *piece)
{
    uint64_t size = build->geometry.cluster_size / Q2_SUBCLUSTERS;
    unsigned first = (unsigned)(piece->from / size), last = (unsigned)((piece->to - 1) / size);
    return (ALL_SUBCLUSTERS >> (31 - last)) & (ALL_SUBCLUSTERS << first);
}

/* Read the range that most content statements begin with and hold it against the disk. Zero
 * `grain`: any alignment. */
static int
read_range(struct recipe_build *build, const struct recipe_clause *clause, uint64_t grain,
           uint64_t *ret_offset, uint64_t *ret_end)
{
    uint64_t offset = 0, length = 0;
    int rc = recipe_number(build, clause, 0, &offset);
    rc = rc ? rc : recipe_number(build, clause, 1, &length);
    if (rc)
        return rc;
    if (!q2_range_inside(offset, length, build->header.size))
        return recipe_fail(build, "the range ends beyond the disk of %" PRIu64 " bytes",
                           build->header.size);
    uint64_t end = offset + length;
    if (grain && (offset % grain || (end % grain && end != build->header.size)))
        return recipe_fail(build, "the range must be aligned to %" PRIu64 " bytes", grain);
    *ret_offset = offset;
    *ret_end = end;
    return 0;
}

/* ---- host clusters for data ---- */

/* Give an entry a host cluster of its own, that may be written in place. */
static int
claim(struct recipe_build *build, uint64_t guest, struct q2_l2_entry *entry, uint64_t *ret_host,
      bool *ret_fresh)
{
    const struct q2_geometry *geometry = &build->geometry;
    enum q2_cluster_kind kind = q2_l2_kind(geometry, entry->raw);
    bool has = kind == Q2_CLUSTER_STANDARD || kind == Q2_CLUSTER_ZERO_ALLOCATED;
    uint64_t host = q2_entry_offset(entry->raw);
    *ret_fresh = false;
    if (geometry->data_file) {
        *ret_host = guest;
        return 0;
    }
    if (!has || *recipe_refcount(build, host) != 1) {
        int rc = recipe_allocate(build, 1, &host);
        if (rc)
            return rc;
        *ret_fresh = true;
        recipe_release_entry(build, entry->raw);
        /* The copy of a compressed cluster has all of it. */
        if (kind == Q2_CLUSTER_COMPRESSED && geometry->extended_l2)
            entry->bitmap = ALL_SUBCLUSTERS;
    }
    *ret_host = host;
    return 0;
}

static uint64_t
entry_for(const struct recipe_build *build, uint64_t host)
{
    /* Offset 0 of a data file is told from nothing by the flag. */
    return host | (build->geometry.data_file ? Q2_ENTRY_COPIED : 0);
}

/* Copy bytes of one cluster from the guest's view to where it is stored. */
static int
copy_out(struct recipe_build *build, uint64_t guest, uint64_t host, uint64_t from, uint64_t to,
         bool fresh)
{
    struct q2_file *file = build->geometry.data_file ? build->data : build->image;
    if (!file)
        return 0;
    if (build->geometry.data_file)
        to = q2_min(to, build->header.size - guest);
    size_t length = (size_t)(to - from);
    int rc = q2_file_read_padded(build->view, guest + from, build->cluster, length, build->err);
    if (rc)
        return rc;
    return fresh ? recipe_put(file, host + from, build->cluster, length, build->err)
                 : q2_file_write(file, host + from, build->cluster, length, build->err);
}

/* Copy the subclusters of `mask`. */
static int
copy_subclusters(struct recipe_build *build, uint64_t guest, uint64_t host, uint64_t mask,
                 bool fresh)
{
    uint64_t size = build->geometry.cluster_size / Q2_SUBCLUSTERS;
    int rc = 0;
    for (unsigned i = 0; i < Q2_SUBCLUSTERS && rc == 0; i++)
        if (mask >> i & 1)
            rc = copy_out(build, guest, host, i * size, (i + 1) * size, fresh);
    return rc;
}

static int
store_piece(struct recipe_build *build, const struct piece *piece)
{
    struct q2_l2_entry *entry = NULL;
    uint64_t host = 0;
    bool fresh = false;
    int rc = recipe_map_writable(build, piece->guest, &entry);
    rc = rc ? rc : claim(build, piece->guest, entry, &host, &fresh);
    if (rc)
        return rc;
    entry->raw = entry_for(build, host);
    if (!build->geometry.extended_l2)
        return copy_out(build, piece->guest, host, 0, build->geometry.cluster_size, fresh);
    uint64_t mask = subclusters_of(build, piece);
    entry->bitmap = (entry->bitmap | mask) & ~(mask << 32);
    return copy_subclusters(build, piece->guest, host, fresh ? entry->bitmap : mask, fresh);
}

int
recipe_store(struct recipe_build *build, uint64_t guest, uint64_t length)
{
    uint64_t end = guest + length;
    int rc = 0;
    while (guest < end && rc == 0) {
        struct piece piece = piece_at(build, guest, end);
        rc = store_piece(build, &piece);
        guest = piece.guest + piece.to;
    }
    return rc;
}

int
recipe_write(struct recipe_build *build, const struct recipe_statement *statement)
{
    const struct recipe_clause *head = &statement->clauses[0];
    uint64_t offset = 0, end = 0;
    int rc = read_range(build, head, 0, &offset, &end);
    rc = rc ? rc : recipe_view_fill(build, offset, end - offset, &head->arguments[2].pattern);
    return rc ? rc : recipe_store(build, offset, end - offset);
}

int
recipe_write_compressed(struct recipe_build *build, const struct recipe_statement *statement)
{
    const struct recipe_clause *head = &statement->clauses[0];
    uint64_t offset = 0, end = 0, size = build->geometry.cluster_size;
    if (build->geometry.data_file)
        return recipe_fail(build, "an external data file cannot hold compressed clusters");
    if (build->geometry.encrypted)
        return recipe_fail(build, "an encrypted image cannot hold compressed clusters");
    int rc = read_range(build, head, size, &offset, &end);
    rc = rc ? rc : recipe_view_fill(build, offset, end - offset, &head->arguments[2].pattern);
    for (; rc == 0 && offset < end; offset += size)
        rc = recipe_store_packed(build, offset);
    return rc;
}

/* ---- zeros ---- */

/* Take an entry's host cluster away unless it keeps what is left of the cluster. */
static void
release_host(struct recipe_build *build, struct q2_l2_entry *entry)
{
    recipe_release_entry(build, entry->raw);
    entry->raw = 0;
}

static int
zero_subclusters(struct recipe_build *build, const struct piece *piece, struct q2_l2_entry *entry,
                 bool keep)
{
    uint64_t mask = subclusters_of(build, piece), host = 0;
    bool fresh = false, packed = entry->raw & Q2_ENTRY_COMPRESSED;
    if (packed && mask == ALL_SUBCLUSTERS) {
        release_host(build, entry);
        packed = false;
    }
    if (packed || keep) {
        int rc = claim(build, piece->guest, entry, &host, &fresh);
        if (rc)
            return rc;
        entry->raw = entry_for(build, host);
        if (fresh)
            rc = copy_subclusters(build, piece->guest, host, entry->bitmap & ~mask, true);
        if (rc)
            return rc;
    }
    entry->bitmap = (entry->bitmap & ~mask) | mask << 32;
    if (!keep && (entry->bitmap & ALL_SUBCLUSTERS) == 0)
        release_host(build, entry);
    return 0;
}

static int
zero_piece(struct recipe_build *build, const struct piece *piece, bool keep)
{
    struct q2_l2_entry *entry = NULL;
    int rc = recipe_map_writable(build, piece->guest, &entry);
    if (rc)
        return rc;
    if (build->geometry.extended_l2)
        return zero_subclusters(build, piece, entry, keep);
    if (!keep) {
        release_host(build, entry);
        entry->raw = Q2_ENTRY_ZERO;
        return 0;
    }
    uint64_t host = 0;
    bool fresh = false;
    rc = claim(build, piece->guest, entry, &host, &fresh);
    if (rc == 0)
        entry->raw = entry_for(build, host) | Q2_ENTRY_ZERO;
    return rc;
}

int
recipe_zero(struct recipe_build *build, const struct recipe_statement *statement)
{
    const struct q2_geometry *geometry = &build->geometry;
    bool keep = recipe_statement_clause(statement, WORD_ALLOCATED);
    uint64_t grain =
        geometry->extended_l2 ? geometry->cluster_size / Q2_SUBCLUSTERS : geometry->cluster_size;
    uint64_t offset = 0, end = 0;
    if (geometry->version < 3)
        return recipe_fail(build, "version 2 has no zero clusters");
    int rc = read_range(build, &statement->clauses[0], grain, &offset, &end);
    rc = rc ? rc : recipe_view_zero(build, offset, end - offset);
    /* A raw data file must show the zeros without the metadata. */
    if (rc == 0 && (build->header.autoclear_features & Q2_AUTOCLEAR_RAW_DATA))
        return recipe_store(build, offset, end - offset);
    while (rc == 0 && offset < end) {
        struct piece piece = piece_at(build, offset, end);
        rc = zero_piece(build, &piece, keep);
        offset = piece.guest + piece.to;
    }
    return rc;
}

int
recipe_discard(struct recipe_build *build, const struct recipe_statement *statement)
{
    uint64_t offset = 0, end = 0, size = build->geometry.cluster_size;
    int rc = read_range(build, &statement->clauses[0], size, &offset, &end);
    rc = rc ? rc : recipe_view_backing(build, offset, end - offset);
    for (; rc == 0 && offset < end; offset += size) {
        const struct q2_l2_entry *old = recipe_map(build, offset);
        if (!old || (old->raw == 0 && old->bitmap == 0))
            continue;
        struct q2_l2_entry *entry = NULL;
        rc = recipe_map_writable(build, offset, &entry);
        if (rc)
            break;
        recipe_release_entry(build, entry->raw);
        *entry = (struct q2_l2_entry){0};
    }
    return rc;
}

/* ---- allocation without data ---- */

int
recipe_preallocate(struct recipe_build *build, const struct recipe_statement *statement)
{
    const struct recipe_clause *head = &statement->clauses[0];
    uint64_t offset = 0, end = build->header.size, size = build->geometry.cluster_size;
    int rc = head->count ? read_range(build, head, size, &offset, &end) : 0;
    for (; rc == 0 && offset < end; offset += size) {
        const struct q2_l2_entry *old = recipe_map(build, offset);
        if (old && (old->raw || old->bitmap))
            continue;
        struct q2_l2_entry *entry = NULL;
        uint64_t host = 0;
        bool fresh = false;
        rc = recipe_map_writable(build, offset, &entry);
        rc = rc ? rc : claim(build, offset, entry, &host, &fresh);
        if (rc == 0)
            entry->raw = entry_for(build, host);
    }
    return rc;
}

/* The mask of a clause of `subclusters`; 0 if it is not there. */
static int
read_mask(struct recipe_build *build, const struct recipe_statement *statement,
          enum recipe_word word, uint64_t *ret_mask)
{
    const struct recipe_clause *clause = recipe_statement_clause(statement, word);
    *ret_mask = 0;
    if (!clause)
        return 0;
    int rc = recipe_number(build, clause, 0, ret_mask);
    if (rc == 0 && *ret_mask > ALL_SUBCLUSTERS)
        return recipe_fail(build, "a cluster has 32 subclusters");
    return rc;
}

/* What the guest sees of a cluster with these subclusters. */
static int
view_subclusters(struct recipe_build *build, const struct recipe_statement *statement,
                 uint64_t guest, uint64_t alloc, uint64_t zero)
{
    const struct recipe_clause *clause = recipe_statement_clause(statement, WORD_PATTERN);
    static const struct recipe_pattern zeros = {.kind = PATTERN_BYTE};
    const struct recipe_pattern *pattern = clause ? &clause->arguments[0].pattern : &zeros;
    uint64_t size = build->geometry.cluster_size / Q2_SUBCLUSTERS;
    int rc = 0;
    for (unsigned i = 0; i < Q2_SUBCLUSTERS && rc == 0; i++) {
        if (alloc >> i & 1)
            rc = recipe_view_fill(build, guest + i * size, size, pattern);
        else if (zero >> i & 1)
            rc = recipe_view_zero(build, guest + i * size, size);
        else
            rc = recipe_view_backing(build, guest + i * size, size);
    }
    return rc;
}

int
recipe_subclusters(struct recipe_build *build, const struct recipe_statement *statement)
{
    uint64_t guest = 0, alloc = 0, zero = 0, size = build->geometry.cluster_size;
    bool keep = recipe_statement_clause(statement, WORD_ALLOCATED);
    if (!build->geometry.extended_l2)
        return recipe_fail(build, "only images with extended-l2 have subclusters");
    int rc = recipe_number(build, &statement->clauses[0], 0, &guest);
    rc = rc ? rc : read_mask(build, statement, WORD_ALLOC, &alloc);
    rc = rc ? rc : read_mask(build, statement, WORD_ZEROS, &zero);
    if (rc)
        return rc;
    build->at = statement->clauses[0].at;
    if (guest % size || !q2_range_inside(guest, size, build->header.size))
        return recipe_fail(build, "the offset must be that of a whole cluster of the disk");
    if (alloc & zero)
        return recipe_fail(build, "a subcluster cannot be allocated and zero; damage the field "
                                  "'map(OFFSET).bitmap' instead");
    struct q2_l2_entry *entry = NULL;
    uint64_t host = 0;
    bool fresh = false;
    rc = view_subclusters(build, statement, guest, alloc, zero);
    rc = rc ? rc : recipe_map_writable(build, guest, &entry);
    if (rc)
        return rc;
    recipe_release_entry(build, entry->raw);
    *entry = (struct q2_l2_entry){.bitmap = alloc | zero << 32};
    if (!alloc && !keep)
        return 0;
    rc = claim(build, guest, entry, &host, &fresh);
    if (rc)
        return rc;
    entry->raw = entry_for(build, host);
    return copy_subclusters(build, guest, host, alloc, true);
}

int
recipe_resize(struct recipe_build *build, const struct recipe_statement *statement)
{
    uint64_t size = 0, old = build->header.size, grain = build->geometry.cluster_size;
    int rc = recipe_number(build, &statement->clauses[0], 0, &size);
    if (rc)
        return rc;
    if (size % grain || old % grain)
        return recipe_fail(build, "only a whole number of clusters can be resized");
    if (build->bitmap_count)
        return recipe_fail(build, "bitmaps must come after the last resize");
    rc = recipe_grow_l1(build, q2_l1_entries_for(&build->geometry, size));
    for (uint64_t at = size; rc == 0 && at < old; at += grain) {
        struct q2_l2_entry *entry = NULL;
        if (!recipe_map(build, at)) {
            at = (at | (q2_l2_reach(&build->geometry) - 1)) + 1 - grain;
            continue;
        }
        rc = recipe_map_writable(build, at, &entry);
        if (rc)
            return rc;
        recipe_release_entry(build, entry->raw);
        *entry = (struct q2_l2_entry){0};
    }
    if (rc == 0 && size < old)
        rc = recipe_view_zero(build, size, old - size);
    if (rc == 0 && size > old)
        rc = recipe_view_backing(build, old, size - old);
    build->header.size = build->geometry.disk_size = size;
    return rc;
}

int
recipe_leak(struct recipe_build *build, const struct recipe_statement *statement)
{
    const struct recipe_clause *head = &statement->clauses[0];
    uint64_t count = 0, offset = 0;
    uint64_t *grown = reallocarray(build->leaks, build->leak_count + 1, sizeof *grown);
    if (!grown)
        return q2_error_set(build->err, Q2_ERR_NOMEM, "out of memory for a leak");
    build->leaks = grown;
    int rc = recipe_number(build, head, 0, &count);
    rc = rc ? rc : recipe_allocate(build, count, &offset);
    if (rc)
        return rc;
    grown[build->leak_count++] = offset;
    if (head->count < 2)
        return 0;
    return recipe_fill_file(build->image, offset, count << build->geometry.cluster_bits,
                            &head->arguments[1].pattern, build->err);
}
