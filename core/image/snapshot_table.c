/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/image/snapshot_table.h"

#include "core/base/endian.h"
#include "core/image/snapshots.h"
#include "core/image/strict.h"

#include <limits.h>
#include <string.h>

/* An entry is at most 40 + 1024 + 2 * 65535 bytes: a window holds any of them. */
enum { WINDOW_BYTES = 256 << 10 };

/* Where an entry says how much extra data it has, in bytes from its start. */
enum { AT_EXTRA_LENGTH = 36 };

void
q2_snapshot_entry_destroy(struct q2_snapshot_entry *entry)
{
    free(entry->id);
    free(entry->name);
    free(entry->extra);
}

void
q2_snapshots_free(struct q2_snapshots *snapshots)
{
    if (!snapshots)
        return;
    for (unsigned i = 0; i < snapshots->count; i++)
        q2_snapshot_entry_destroy(&snapshots->entries[i]);
    free(snapshots->entries);
    free(snapshots);
}

static int
no_memory(const struct q2_image *image, struct q2_error *err)
{
    return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for the snapshot table",
                        q2_image_name(image));
}

static struct q2_snapshots *
new_snapshots(uint64_t capacity)
{
    struct q2_snapshots *snapshots = calloc(1, sizeof *snapshots);
    if (!snapshots)
        return NULL;
    snapshots->entries = calloc(capacity ? capacity : 1, sizeof *snapshots->entries);
    if (snapshots->entries)
        return snapshots;
    free(snapshots);
    return NULL;
}

/* ---- reading ---- */

struct reading {
    struct q2_image *image;
    uint8_t *window;
    uint64_t window_at; /* where it begins in the file, bytes */
    uint64_t window_length;
    uint64_t at;  /* of the next entry, bytes */
    uint64_t end; /* of what the table may occupy, bytes */
};

/* The `length` bytes of the file at the entry at hand. */
static int
peek(struct reading *reading, uint64_t length, const uint8_t **ret_bytes, struct q2_error *err)
{
    struct q2_image *image = reading->image;
    if (!q2_range_inside(reading->at, length, reading->end))
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: the snapshot table entry at offset 0x%llx ends past the %s",
                            q2_image_name(image), (unsigned long long)reading->at,
                            reading->end == image->geometry.file_size ? "end of the file"
                                                                      : "largest size of a table");
    if (reading->at < reading->window_at ||
        !q2_range_inside(reading->at - reading->window_at, length, reading->window_length)) {
        uint64_t now = q2_min(WINDOW_BYTES, reading->end - reading->at);
        int rc = q2_meta_read(image, reading->at, reading->window, now, err);
        if (rc < 0)
            return rc;
        reading->window_at = reading->at;
        reading->window_length = now;
    }
    *ret_bytes = reading->window + (reading->at - reading->window_at);
    return 0;
}

static void *
copy_bytes(const void *from, size_t length, size_t size)
{
    uint8_t *copy = calloc(1, size);
    if (copy && length)
        memcpy(copy, from, length);
    return copy;
}

/* Take what follows the fixed part: extra data, id and name. */
static int
take_rest(struct reading *reading, const uint8_t *rest, struct q2_snapshot_entry *entry,
          struct q2_error *err)
{
    const struct q2_snapshot *fixed = &entry->fixed;
    const uint8_t *id = rest + fixed->extra_length, *name = id + fixed->id_length;
    entry->id = copy_bytes(id, fixed->id_length, fixed->id_length + 1U);
    entry->name = copy_bytes(name, fixed->name_length, fixed->name_length + 1U);
    if (fixed->extra_length)
        entry->extra = copy_bytes(rest, fixed->extra_length, fixed->extra_length);
    if (!entry->id || !entry->name || (fixed->extra_length && !entry->extra))
        return no_memory(reading->image, err);
    return 0;
}

static int
read_entry(struct reading *reading, struct q2_snapshot_entry *entry, struct q2_error *err)
{
    struct q2_image *image = reading->image;
    const struct q2_geometry *geometry = &image->geometry;
    struct q2_strict strict;
    const uint8_t *bytes;
    uint8_t start[Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH] = {0};
    int rc = peek(reading, Q2_SNAPSHOT_FIXED_LENGTH, &bytes, err);
    if (rc < 0)
        return rc;
    memcpy(start, bytes, Q2_SNAPSHOT_FIXED_LENGTH);
    q2_snapshot_decode(geometry, start, reading->at, &entry->fixed);

    uint64_t extra = entry->fixed.extra_length;
    uint64_t length =
        Q2_SNAPSHOT_FIXED_LENGTH + extra + entry->fixed.id_length + entry->fixed.name_length;
    if (extra <= Q2_SNAPSHOT_MAX_EXTRA) {
        rc = peek(reading, length, &bytes, err);
        if (rc < 0)
            return rc;
        memcpy(start + Q2_SNAPSHOT_FIXED_LENGTH, bytes + Q2_SNAPSHOT_FIXED_LENGTH,
               q2_min(extra, Q2_SNAPSHOT_EXTRA_LENGTH));
        q2_snapshot_decode(geometry, start, reading->at, &entry->fixed);
    }
    q2_strict_init(&strict, q2_image_name(image));
    q2_snapshot_validate(geometry, &entry->fixed, 0, &strict.sink);
    rc = q2_strict_result(&strict, err);
    if (rc == 0)
        rc = take_rest(reading, bytes + Q2_SNAPSHOT_FIXED_LENGTH, entry, err);
    /* The padding behind the last entry need not be in the file. */
    reading->at += q2_snapshot_length(start);
    return rc;
}

static int
read_table(struct reading *reading, struct q2_snapshots *snapshots, struct q2_error *err)
{
    const struct q2_header *header = &reading->image->header;
    uint64_t size = reading->image->geometry.file_size;
    reading->at = header->snapshots_offset;
    reading->end =
        reading->at > size ? reading->at : q2_min(size, reading->at + Q2_MAX_SNAPSHOT_TABLE_BYTES);
    while (snapshots->count < header->nb_snapshots) {
        int rc = read_entry(reading, &snapshots->entries[snapshots->count++], err);
        if (rc < 0)
            return rc;
    }
    snapshots->length = reading->at - header->snapshots_offset;
    return 0;
}

int
q2_snapshots_load(struct q2_image *image, struct q2_snapshots **ret_snapshots, struct q2_error *err)
{
    uint32_t count = image->header.nb_snapshots;
    if (count == 0) {
        *ret_snapshots = NULL;
        return 0;
    }
    if (count > Q2_MAX_SNAPSHOTS || count > image->geometry.file_size / Q2_SNAPSHOT_FIXED_LENGTH)
        return q2_error_set(err, Q2_ERR_FORMAT, "%s: nb_snapshots %u at offset 60 is too large",
                            q2_image_name(image), count);
    Q2_AUTOFREE uint8_t *window = malloc(q2_min(WINDOW_BYTES, image->geometry.file_size));
    struct q2_snapshots *snapshots = new_snapshots(count);
    int rc = window && snapshots ? 0 : no_memory(image, err);
    if (rc == 0)
        rc = read_table(&(struct reading){.image = image, .window = window}, snapshots, err);
    if (rc < 0)
        q2_snapshots_free(snapshots);
    else
        *ret_snapshots = snapshots;
    return rc;
}

static int
claim_range(struct q2_image *image, uint64_t offset, uint64_t length, enum q2_claim claim,
            struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    return length ? q2_claims_add(image->claims, offset >> bits, q2_units(length, bits), claim, err)
                  : 0;
}

int
q2_snapshots_claim(struct q2_image *image, struct q2_error *err)
{
    const struct q2_snapshots *snapshots = image->snapshots;
    if (!snapshots)
        return 0;
    int rc = claim_range(image, image->header.snapshots_offset, snapshots->length,
                         Q2_CLAIM_SNAPSHOTS, err);
    uint64_t claimed = 0; /* bytes; more than the file has only where tables overlap */
    for (unsigned i = 0; i < snapshots->count && rc == 0; i++) {
        const struct q2_snapshot *fixed = &snapshots->entries[i].fixed;
        claimed += (uint64_t)fixed->l1_size * 8;
        if (claimed > image->geometry.file_size)
            return q2_error_set(err, Q2_ERR_FORMAT,
                                "%s: the L1 tables of the snapshots, such as that at 0x%llx, "
                                "overlap: the file has no room for all of them",
                                q2_image_name(image), (unsigned long long)fixed->l1_table_offset);
        rc = claim_range(image, fixed->l1_table_offset, (uint64_t)fixed->l1_size * 8,
                         Q2_CLAIM_SNAPSHOT_L1, err);
    }
    return rc;
}

/* ---- writing ---- */

static uint64_t
entry_length(const struct q2_snapshot *fixed)
{
    uint64_t length = (uint64_t)Q2_SNAPSHOT_FIXED_LENGTH + fixed->extra_length + fixed->id_length +
                      fixed->name_length;
    return (length + 7) & ~UINT64_C(7);
}

uint64_t
q2_snapshots_length(const struct q2_snapshots *snapshots)
{
    uint64_t length = 0;
    for (unsigned i = 0; i < snapshots->count; i++)
        length += entry_length(&snapshots->entries[i].fixed);
    return length;
}

void
q2_snapshots_encode(const struct q2_snapshots *snapshots, uint8_t *bytes)
{
    for (unsigned i = 0; i < snapshots->count; i++) {
        const struct q2_snapshot_entry *entry = &snapshots->entries[i];
        const struct q2_snapshot *fixed = &entry->fixed;
        uint8_t start[Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH];
        q2_snapshot_encode(fixed, start);
        /* Extra data stays as long as it was. */
        q2_store_be32(start + AT_EXTRA_LENGTH, fixed->extra_length);
        memset(bytes, 0, entry_length(fixed));
        memcpy(bytes, start, Q2_SNAPSHOT_FIXED_LENGTH);
        uint8_t *to = bytes + Q2_SNAPSHOT_FIXED_LENGTH;
        if (fixed->extra_length)
            memcpy(to, entry->extra, fixed->extra_length);
        memcpy(to + fixed->extra_length, entry->id, fixed->id_length);
        memcpy(to + fixed->extra_length + fixed->id_length, entry->name, fixed->name_length);
        bytes += entry_length(fixed);
    }
}

static int
copy_entry(const struct q2_image *image, const struct q2_snapshot_entry *from,
           struct q2_snapshot_entry *to, struct q2_error *err)
{
    const struct q2_snapshot *fixed = &from->fixed;
    to->fixed = *fixed;
    to->id = copy_bytes(from->id, fixed->id_length, fixed->id_length + 1U);
    to->name = copy_bytes(from->name, fixed->name_length, fixed->name_length + 1U);
    if (fixed->extra_length)
        to->extra = copy_bytes(from->extra, fixed->extra_length, fixed->extra_length);
    if (!to->id || !to->name || (fixed->extra_length && !to->extra))
        return no_memory(image, err);
    return 0;
}

static int
fill_successor(const struct q2_image *image, const struct q2_snapshots *old, unsigned without,
               const struct q2_snapshot_entry *added, struct q2_snapshots *snapshots,
               struct q2_error *err)
{
    int rc = 0;
    for (unsigned i = 0; old && i < old->count && rc == 0; i++)
        if (i != without)
            rc = copy_entry(image, &old->entries[i], &snapshots->entries[snapshots->count++], err);
    if (rc == 0 && added)
        rc = copy_entry(image, added, &snapshots->entries[snapshots->count++], err);
    if (rc < 0)
        return rc;
    snapshots->length = q2_snapshots_length(snapshots);
    if (snapshots->length > Q2_MAX_SNAPSHOT_TABLE_BYTES)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: the snapshot table would have %llu bytes; %d are possible",
                            q2_image_name(image), (unsigned long long)snapshots->length,
                            Q2_MAX_SNAPSHOT_TABLE_BYTES);
    return 0;
}

int
q2_snapshots_successor(const struct q2_image *image, const struct q2_snapshots *old,
                       unsigned without, const struct q2_snapshot_entry *added,
                       struct q2_snapshots **ret_snapshots, struct q2_error *err)
{
    uint64_t capacity = (uint64_t)(old ? old->count : 0) + 1;
    if (added && capacity > Q2_MAX_SNAPSHOTS)
        return q2_error_set(err, Q2_ERR_RANGE, "%s: there are %d snapshots, and no more can be",
                            q2_image_name(image), Q2_MAX_SNAPSHOTS);
    struct q2_snapshots *snapshots = new_snapshots(capacity);
    if (!snapshots)
        return no_memory(image, err);
    int rc = fill_successor(image, old, without, added, snapshots, err);
    if (rc < 0)
        q2_snapshots_free(snapshots);
    else
        *ret_snapshots = snapshots;
    return rc;
}

/* Put the table into clusters of its own; nothing leads there yet. */
static int
write_table(struct q2_image *image, struct q2_snapshots *snapshots, uint64_t *ret_offset,
            struct q2_error *err)
{
    uint64_t offset, clusters = q2_units(snapshots->length, image->geometry.cluster_bits);
    uint64_t padded = clusters << image->geometry.cluster_bits;
    Q2_AUTOFREE uint8_t *bytes = calloc(1, padded);
    if (!bytes)
        return no_memory(image, err);
    q2_snapshots_encode(snapshots, bytes);
    int rc = q2_allocate(image, clusters, Q2_CLAIM_SNAPSHOTS, &offset, err);
    if (rc < 0)
        return rc;
    rc = q2_meta_write(image, Q2_CLAIM_SNAPSHOTS, offset, bytes, padded, err);
    if (rc == 0)
        rc = q2_image_settle(image, err);
    if (rc < 0) {
        q2_free_now(image, offset >> image->geometry.cluster_bits, clusters);
        return rc;
    }
    *ret_offset = offset;
    return 0;
}

static void
place_entries(struct q2_snapshots *snapshots, uint64_t offset)
{
    for (unsigned i = 0; i < snapshots->count; i++) {
        snapshots->entries[i].fixed.at = offset;
        offset += entry_length(&snapshots->entries[i].fixed);
    }
}

/* Write `snapshots` and switch the header over to it. */
static int
switch_table(struct q2_image *image, struct q2_snapshots *snapshots, struct q2_error *err)
{
    uint64_t offset = 0;
    snapshots->length = q2_snapshots_length(snapshots);
    int rc = snapshots->count ? write_table(image, snapshots, &offset, err) : 0;
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    if (rc < 0)
        return rc;
    struct q2_header header = image->header;
    header.nb_snapshots = snapshots->count;
    header.snapshots_offset = offset;
    /* Should this fail, nobody knows which of the two tables the disk has: both stay. */
    rc = q2_header_store(image, &header, err);
    if (rc == 0)
        place_entries(snapshots, offset);
    return rc;
}

int
q2_snapshots_store(struct q2_image *image, struct q2_snapshots *snapshots, struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    uint64_t old_offset = image->header.snapshots_offset;
    uint64_t old_clusters = q2_units(image->snapshots ? image->snapshots->length : 0, bits);
    int rc = switch_table(image, snapshots, err);
    if (rc < 0) {
        q2_snapshots_free(snapshots);
        return rc;
    }
    q2_snapshots_free(image->snapshots);
    image->snapshots = snapshots;
    rc = q2_image_barrier(image, err);
    if (rc < 0)
        return rc;
    if (old_clusters)
        q2_free_later(image, old_offset >> bits, old_clusters);
    return q2_image_settle(image, err);
}

/* ---- what is in it ---- */

unsigned
q2_snapshot_count(const struct q2_image *image)
{
    return image->snapshots ? image->snapshots->count : 0;
}

void
q2_snapshot_info(const struct q2_image *image, unsigned index, struct q2_snapshot_info *ret_info)
{
    const struct q2_snapshot_entry *entry = &image->snapshots->entries[index];
    const struct q2_snapshot *fixed = &entry->fixed;
    bool has_icount = fixed->extra_length >= Q2_SNAPSHOT_NEW_EXTRA;
    uint64_t icount = has_icount ? q2_load_be64(entry->extra + Q2_SNAPSHOT_EXTRA_LENGTH) : 0;
    *ret_info = (struct q2_snapshot_info){
        .id = entry->id,
        .name = entry->name,
        .vm_state_size = fixed->vm_state_size,
        .disk_size = fixed->has_disk_size ? fixed->disk_size : q2_image_size(image),
        .date_seconds = fixed->date_seconds,
        .date_nanoseconds = fixed->date_nanoseconds,
        .vm_clock_nanoseconds = fixed->vm_clock_nanoseconds,
        /* All ones: the machine did not count. */
        .has_icount = has_icount && icount != UINT64_MAX,
        .icount = icount,
    };
}

int
q2_snapshot_find(const struct q2_image *image, const char *id_or_name, unsigned *ret_index,
                 struct q2_error *err)
{
    for (unsigned by_name = 0; by_name < 2; by_name++)
        for (unsigned i = 0; i < q2_snapshot_count(image); i++) {
            const struct q2_snapshot_entry *entry = &image->snapshots->entries[i];
            if (strcmp(by_name ? entry->name : entry->id, id_or_name) == 0) {
                *ret_index = i;
                return 0;
            }
        }
    char text[128];
    return q2_error_set(err, Q2_ERR_NOT_FOUND, "%s: there is no snapshot '%s'",
                        q2_image_name(image),
                        q2_printable(text, sizeof text, id_or_name, strlen(id_or_name)));
}
