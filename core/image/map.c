/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* From guest offsets to L2 entries ("Cluster mapping" in the specification): finding L2 tables,
 * making them, copying those that are shared. */

#include "core/image/refcounts.h"
#include "core/image/strict.h"

#include <inttypes.h>
#include <string.h>

/* ---- L2 tables ---- */

/* Host offset of the L2 table for L1 entry `index`; 0: there is none. */
static int
table_of(struct q2_image *image, uint64_t index, uint64_t *ret_offset, struct q2_error *err)
{
    const struct q2_geometry *geometry = &image->geometry;
    if (!image->l1)
        return q2_error_set(err, Q2_ERR_IO, "%s: the image could not be read anew",
                            image->file->name);
    uint64_t raw = index < image->header.l1_size ? image->l1[index] : 0;
    uint64_t offset = q2_entry_offset(raw);
    bool simple = (raw & q2_entry_odd_bits(geometry)) == 0;
    if (raw && !(simple && offset && offset < geometry->file_size)) {
        struct q2_strict strict;
        q2_strict_init(&strict, image->file->name);
        q2_l1_entry_validate(geometry, raw, image->header.l1_table_offset + index * 8,
                             &strict.sink);
        int rc = q2_strict_result(&strict, err);
        if (rc < 0)
            return rc;
    }
    *ret_offset = offset;
    return 0;
}

static uint64_t
l1_index(const struct q2_image *image, uint64_t guest)
{
    return guest >> (image->geometry.cluster_bits + image->geometry.l2_bits);
}

static uint64_t
l2_index(const struct q2_image *image, uint64_t guest)
{
    return (guest >> image->geometry.cluster_bits) & (image->geometry.l2_entries - 1);
}

/* Entry for `guest` in the table at `table`. */
static int
slice_of(struct q2_image *image, uint64_t table, uint64_t guest, uint8_t **ret_bytes,
         uint64_t *ret_count, struct q2_error *err)
{
    uint64_t at = l2_index(image, guest) * image->geometry.l2_entry_size;
    uint64_t slice_bytes = q2_cache_slice_bytes(image->l2_cache);
    int rc = q2_cache_get(image->l2_cache, table + at, ret_bytes, err);
    if (rc == 0)
        *ret_count = (slice_bytes - (at & (slice_bytes - 1))) / image->geometry.l2_entry_size;
    return rc;
}

int
q2_l2_look(struct q2_image *image, uint64_t guest, uint8_t **ret_bytes, uint64_t *ret_count,
           struct q2_error *err)
{
    uint64_t table;
    int rc = table_of(image, l1_index(image, guest), &table, err);
    if (rc < 0)
        return rc;
    if (table)
        return slice_of(image, table, guest, ret_bytes, ret_count, err);
    *ret_bytes = NULL;
    *ret_count = image->geometry.l2_entries - l2_index(image, guest);
    return 0;
}

/* Make the cluster at `offset` read as zeros. Those that were never written do already, once the
 * file reaches that far. */
static int
clear_cluster(struct q2_image *image, uint64_t offset, bool virgin, struct q2_error *err)
{
    uint64_t cluster_size = image->geometry.cluster_size, size;
    if (virgin) {
        int rc = q2_file_size(image->file, &size, err);
        if (rc == 0 && size < offset + cluster_size)
            rc = q2_file_truncate(image->file, offset + cluster_size, err);
        return rc;
    }
    Q2_AUTOFREE uint8_t *zeros = calloc(1, cluster_size);
    if (!zeros)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for an L2 table");
    return q2_meta_write(image, Q2_CLAIM_L2, offset, zeros, cluster_size, err);
}

/* Copy the shared L2 table at `from` to the cluster at `to`. */
static int
copy_table(struct q2_image *image, uint64_t from, uint64_t to, struct q2_error *err)
{
    uint64_t cluster_size = image->geometry.cluster_size;
    Q2_AUTOFREE uint8_t *bytes = malloc(cluster_size);
    if (!bytes)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for an L2 table");
    int rc = q2_meta_read(image, from, bytes, cluster_size, err);
    if (rc == 0)
        rc = q2_meta_write(image, Q2_CLAIM_L2, to, bytes, cluster_size, err);
    return rc;
}

/* Give L1 entry `index` a table of its own: a new one, or a copy of that at `old`. */
static int
own_table(struct q2_image *image, uint64_t index, uint64_t old, uint64_t *ret_table,
          struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    uint64_t table, virgin = image->virgin;
    int rc = q2_allocate(image, 1, Q2_CLAIM_L2, &table, err);
    if (rc < 0)
        return rc;
    q2_cache_forget(image->l2_cache, table, image->geometry.cluster_size);
    rc = old ? copy_table(image, old, table, err)
             : clear_cluster(image, table, table >> bits >= virgin, err);
    if (rc < 0) {
        q2_free_now(image, table >> bits, 1);
        return rc;
    }
    q2_l1_set(image, index, table | Q2_ENTRY_COPIED);
    if (old)
        q2_free_later(image, old >> bits, 1);
    *ret_table = table;
    return 0;
}

int
q2_l2_open(struct q2_image *image, uint64_t guest, uint8_t **ret_bytes, uint64_t *ret_count,
           struct q2_error *err)
{
    uint64_t index = l1_index(image, guest), table;
    if (index >= image->header.l1_size)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: guest offset 0x%" PRIx64 " is beyond the L1 table",
                            image->file->name, guest);
    int rc = table_of(image, index, &table, err);
    if (rc == 0 && !(table && (image->l1[index] & Q2_ENTRY_COPIED)))
        rc = own_table(image, index, table, &table, err);
    if (rc == 0)
        rc = slice_of(image, table, guest, ret_bytes, ret_count, err);
    return rc;
}

/* ---- entries ---- */

static bool
simple_entry(const struct q2_geometry *geometry, const struct q2_l2_entry *entry)
{
    uint64_t offset = q2_entry_offset(entry->raw);
    if (geometry->data_file || (entry->raw & q2_entry_odd_bits(geometry)) != 0)
        return false;
    if (geometry->extended_l2 &&
        (!offset ? (uint32_t)entry->bitmap : (uint32_t)entry->bitmap & (entry->bitmap >> 32)))
        return false;
    return offset ? offset < geometry->file_size : entry->raw == 0;
}

int
q2_l2_entry_at(struct q2_image *image, const uint8_t *bytes, uint64_t index, uint64_t guest,
               struct q2_l2_entry *ret_entry, struct q2_error *err)
{
    struct q2_l2_entry entry = q2_l2_load(&image->geometry, bytes, index);
    if (!simple_entry(&image->geometry, &entry)) {
        struct q2_strict strict;
        uint64_t table = q2_entry_offset(image->l1[l1_index(image, guest)]);
        q2_strict_init(&strict, image->file->name);
        q2_l2_entry_validate(&image->geometry, &entry,
                             table + l2_index(image, guest) * image->geometry.l2_entry_size,
                             guest & ~(image->geometry.cluster_size - 1), &strict.sink);
        int rc = q2_strict_result(&strict, err);
        if (rc < 0)
            return rc;
    }
    *ret_entry = entry;
    return 0;
}

void
q2_l2_store(struct q2_image *image, uint8_t *bytes, uint64_t index, const struct q2_l2_entry *entry)
{
    uint8_t *at = bytes + index * image->geometry.l2_entry_size;
    q2_store_be64(at, entry->raw);
    if (image->geometry.extended_l2)
        q2_store_be64(at + 8, entry->bitmap);
    q2_cache_dirty(image->l2_cache, bytes);
}

void
q2_l2_release(struct q2_image *image, const struct q2_l2_entry *entry)
{
    const struct q2_geometry *geometry = &image->geometry;
    unsigned bits = geometry->cluster_bits;
    switch (q2_l2_kind(geometry, entry->raw)) {
    case Q2_CLUSTER_COMPRESSED: {
        struct q2_compressed_range range = q2_compressed_decode(geometry, entry->raw);
        uint64_t first = range.offset >> bits;
        q2_free_data_later(image, first, ((range.offset + range.length - 1) >> bits) - first + 1);
        break;
    }
    case Q2_CLUSTER_STANDARD:
    case Q2_CLUSTER_ZERO_ALLOCATED:
        if (!geometry->data_file)
            q2_free_data_later(image, q2_entry_offset(entry->raw) >> bits, 1);
        break;
    case Q2_CLUSTER_UNALLOCATED:
    case Q2_CLUSTER_ZERO:
        break;
    }
}

/* ---- runs ---- */

/* Subclusters from `sub` on that have the same state in an extended entry; *ret_kind is what they
 * are. */
static unsigned
alike(const struct q2_l2_entry *entry, unsigned sub, enum q2_cluster_kind whole,
      enum q2_cluster_kind *ret_kind)
{
    uint32_t allocated = (uint32_t)entry->bitmap >> sub;
    uint32_t zero = (uint32_t)(entry->bitmap >> 32) >> sub;
    uint32_t same_allocated = allocated & 1 ? allocated : ~allocated;
    uint32_t same_zero = zero & 1 ? zero : ~zero;
    uint32_t differ = ~(same_allocated & same_zero);
    unsigned count = differ ? (unsigned)__builtin_ctz(differ) : Q2_SUBCLUSTERS;
    bool host = whole == Q2_CLUSTER_STANDARD;
    *ret_kind = allocated & 1 ? Q2_CLUSTER_STANDARD
                : zero & 1    ? (host ? Q2_CLUSTER_ZERO_ALLOCATED : Q2_CLUSTER_ZERO)
                              : Q2_CLUSTER_UNALLOCATED;
    return (unsigned)q2_min(count, Q2_SUBCLUSTERS - sub);
}

/* The run at `guest` that one entry makes. */
static void
entry_run(const struct q2_image *image, const struct q2_l2_entry *entry, uint64_t guest,
          struct q2_run *ret_run)
{
    const struct q2_geometry *geometry = &image->geometry;
    uint64_t inside = guest & (geometry->cluster_size - 1);
    struct q2_run run = {.kind = q2_l2_kind(geometry, entry->raw),
                         .length = geometry->cluster_size - inside};
    enum q2_cluster_kind whole = run.kind;
    if (run.kind == Q2_CLUSTER_COMPRESSED) {
        run.packed = q2_compressed_decode(geometry, entry->raw);
        run.packed_guest = guest - inside;
    } else if (geometry->extended_l2) {
        unsigned sub = (unsigned)(inside >> image->sub_bits);
        unsigned count = alike(entry, sub, run.kind, &run.kind);
        run.length = ((uint64_t)(sub + count) << image->sub_bits) - inside;
    }
    run.has_host = whole == Q2_CLUSTER_STANDARD || whole == Q2_CLUSTER_ZERO_ALLOCATED;
    if (run.has_host) {
        run.host = q2_entry_offset(entry->raw) + inside;
        run.copied = entry->raw & Q2_ENTRY_COPIED;
    }
    *ret_run = run;
}

static bool
continues(const struct q2_run *run, const struct q2_run *next)
{
    if (run->kind != next->kind || run->kind == Q2_CLUSTER_COMPRESSED ||
        run->copied != next->copied || run->has_host != next->has_host)
        return false;
    return !run->has_host || run->host + run->length == next->host;
}

int
q2_map_run(struct q2_image *image, uint64_t guest, uint64_t length, struct q2_run *ret_run,
           struct q2_error *err)
{
    const struct q2_geometry *geometry = &image->geometry;
    uint8_t *bytes;
    uint64_t count;
    int rc = q2_l2_look(image, guest, &bytes, &count, err);
    if (rc < 0)
        return rc;
    if (!bytes) {
        uint64_t inside = guest & (geometry->cluster_size - 1);
        *ret_run =
            (struct q2_run){.kind = Q2_CLUSTER_UNALLOCATED,
                            .length = q2_min(length, (count << geometry->cluster_bits) - inside)};
        return 0;
    }
    struct q2_run run = {0};
    for (uint64_t index = 0; index < count && run.length < length;) {
        uint64_t at = guest + run.length;
        struct q2_l2_entry entry;
        struct q2_run next;
        rc = q2_l2_entry_at(image, bytes, index, at, &entry, err);
        if (rc < 0 && run.length == 0)
            return rc;
        if (rc < 0)
            break; /* whoever comes there will hear of it */
        entry_run(image, &entry, at, &next);
        if (run.length == 0)
            run = next;
        else if (continues(&run, &next))
            run.length += next.length;
        else
            break;
        if (((at + next.length) & (geometry->cluster_size - 1)) == 0)
            index++;
    }
    run.length = q2_min(run.length, length);
    *ret_run = run;
    return 0;
}
