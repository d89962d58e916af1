/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Zeroing and discarding: what changes in the mapping alone. Whole subclusters get a flag or lose
 * their cluster; the edges of a request that covers less are written. */

#include "core/image/data.h"

#include <inttypes.h>
#include <string.h>

enum { ZEROS = 64 * 1024 };

enum purpose {
    ZERO_KEEP,  /* zeros; the cluster may stay for later writes */
    ZERO_UNMAP, /* zeros; the cluster is given back */
    DISCARD,    /* unallocated where that reads as zeros, else zeros */
    FORGET,     /* unallocated, whatever lies below */
};

/* ---- entries ---- */

/* An entry of a cluster that has no data of its own and reads as zeros. */
static struct q2_l2_entry
zero_entry(const struct q2_image *image, uint64_t host)
{
    if (image->geometry.extended_l2)
        return (struct q2_l2_entry){.raw = host, .bitmap = (uint64_t)UINT32_MAX << 32};
    return (struct q2_l2_entry){.raw = host | Q2_ENTRY_ZERO};
}

/* What becomes of a whole cluster. */
static struct q2_l2_entry
emptied(const struct q2_image *image, const struct q2_l2_entry *old, uint64_t guest,
        enum purpose purpose)
{
    enum q2_cluster_kind kind = q2_l2_kind(&image->geometry, old->raw);
    bool below = !q2_nothing_below(image, guest);
    bool host = kind == Q2_CLUSTER_STANDARD || kind == Q2_CLUSTER_ZERO_ALLOCATED;
    if (purpose == FORGET || image->header.version < 3)
        return (struct q2_l2_entry){0};
    if (purpose == DISCARD && !below && kind == Q2_CLUSTER_UNALLOCATED)
        return *old;
    if (purpose == ZERO_KEEP && host && (old->raw & Q2_ENTRY_COPIED))
        return zero_entry(image, q2_entry_offset(old->raw) | Q2_ENTRY_COPIED);
    return zero_entry(image, 0);
}

static bool
same_host(const struct q2_image *image, const struct q2_l2_entry *a, const struct q2_l2_entry *b)
{
    return q2_l2_kind(&image->geometry, b->raw) != Q2_CLUSTER_COMPRESSED &&
           !(a->raw & Q2_ENTRY_COMPRESSED) && q2_entry_offset(a->raw) == q2_entry_offset(b->raw);
}

/* Replace an entry, and release the reference that is gone with it. */
static void
replace(struct q2_image *image, uint8_t *bytes, uint64_t index, const struct q2_l2_entry *old,
        const struct q2_l2_entry *entry)
{
    if (old->raw == entry->raw && old->bitmap == entry->bitmap)
        return;
    q2_l2_store(image, bytes, index, entry);
    if (!same_host(image, entry, old))
        q2_l2_release(image, old);
}

/* Whether the L2 table at `guest` could stay missing. */
static bool
nothing_to_do(struct q2_image *image, uint64_t guest, enum purpose purpose)
{
    return purpose == FORGET || image->header.version < 3 ||
           (purpose == DISCARD && q2_nothing_below(image, guest));
}

/* Whole clusters [start, end), under the lock. */
static int
empty_clusters(struct q2_image *image, uint64_t start, uint64_t end, enum purpose purpose,
               struct q2_error *err)
{
    uint64_t cluster_size = image->geometry.cluster_size;
    for (uint64_t guest = start; guest < end;) {
        uint8_t *bytes;
        uint64_t count;
        int rc = q2_image_tidy(image, err);
        if (rc == 0)
            rc = q2_l2_look(image, guest, &bytes, &count, err);
        if (rc == 0 && !(bytes == NULL && nothing_to_do(image, guest, purpose)))
            rc = q2_l2_open(image, guest, &bytes, &count, err);
        if (rc < 0)
            return rc;
        count = q2_min(count, (end - guest) >> image->geometry.cluster_bits);
        for (uint64_t i = 0; bytes && i < count; i++) {
            struct q2_l2_entry old, entry;
            rc = q2_l2_entry_at(image, bytes, i, guest + i * cluster_size, &old, err);
            if (rc < 0)
                return rc;
            entry = emptied(image, &old, guest + i * cluster_size, purpose);
            replace(image, bytes, i, &old, &entry);
        }
        guest += count * cluster_size;
    }
    return 0;
}

int
q2_unmap(struct q2_image *image, uint64_t start, uint64_t end, bool full, struct q2_error *err)
{
    return empty_clusters(image, start, end, full ? FORGET : DISCARD, err);
}

/* Subclusters [start, end) of one cluster, not all of it. Q2_ERR_UNSUPPORTED: it is compressed, so
 * they have to be written. */
static int
zero_subclusters(struct q2_image *image, uint64_t start, uint64_t end, struct q2_error *err)
{
    uint64_t first = start & ~(image->geometry.cluster_size - 1);
    uint64_t from = (start - first) >> image->sub_bits, to = (end - first) >> image->sub_bits;
    uint32_t mask = (uint32_t)(((UINT64_C(1) << (to - from)) - 1) << from);
    uint8_t *bytes;
    uint64_t count;
    struct q2_l2_entry entry;
    int rc = q2_l2_open(image, first, &bytes, &count, err);
    if (rc == 0)
        rc = q2_l2_entry_at(image, bytes, 0, first, &entry, err);
    if (rc < 0)
        return rc;
    if (q2_l2_kind(&image->geometry, entry.raw) == Q2_CLUSTER_COMPRESSED)
        return Q2_ERR_UNSUPPORTED;
    entry.bitmap = (entry.bitmap & ~(uint64_t)mask) | (uint64_t)mask << 32;
    q2_l2_store(image, bytes, 0, &entry);
    return 0;
}

/* ---- data ---- */

static int
write_zeros(struct q2_image *image, uint64_t guest, uint64_t length, struct q2_error *err)
{
    Q2_AUTOFREE uint8_t *zeros = calloc(1, q2_min(length, ZEROS));
    if (length > 0 && !zeros)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for zeros");
    for (uint64_t done = 0; done < length;) {
        uint64_t now = q2_min(length - done, ZEROS);
        struct iovec iov = {.iov_base = zeros, .iov_len = now};
        int rc = q2_guest_write(image, guest + done, &iov, 1, err);
        if (rc < 0)
            return rc;
        done += now;
    }
    return 0;
}

/* Write zeros over what does not read as zeros already. */
static int
zero_by_writing(struct q2_image *image, uint64_t guest, uint64_t length, struct q2_error *err)
{
    for (uint64_t done = 0; done < length;) {
        struct q2_run run;
        pthread_mutex_lock(&image->lock);
        int rc = q2_map_run(image, guest + done, length - done, &run, err);
        pthread_mutex_unlock(&image->lock);
        if (rc < 0)
            return rc;
        bool zero = run.kind == Q2_CLUSTER_ZERO || run.kind == Q2_CLUSTER_ZERO_ALLOCATED ||
                    (run.kind == Q2_CLUSTER_UNALLOCATED && q2_nothing_below(image, guest + done));
        if (!zero)
            rc = write_zeros(image, guest + done, run.length, err);
        if (rc < 0)
            return rc;
        done += run.length;
    }
    return 0;
}

/* A raw data file has the guest's disk at its place, so it changes along. */
static int
zero_raw_data(struct q2_image *image, uint64_t start, uint64_t end, struct q2_error *err)
{
    if (!(image->header.autoclear_features & Q2_AUTOCLEAR_RAW_DATA) || !image->data || start >= end)
        return 0;
    return q2_file_punch(image->data, start, end - start, err);
}

/* Subclusters [start, end), aligned (or ending with the disk): flags where the format has them. */
static int
zero_aligned(struct q2_image *image, uint64_t start, uint64_t end, enum purpose purpose,
             struct q2_error *err)
{
    uint64_t cluster_size = image->geometry.cluster_size;
    while (start < end) {
        uint64_t boundary = (start & ~(cluster_size - 1)) + cluster_size, next;
        pthread_mutex_lock(&image->lock);
        int rc;
        if (start % cluster_size == 0 && end >= boundary) {
            /* Up to the end of an L2 table at once, so that others get the lock in between. */
            uint64_t reach = q2_l2_reach(&image->geometry);
            next = q2_min(end & ~(cluster_size - 1), (start / reach + 1) * reach);
            rc = empty_clusters(image, start, next, purpose, err);
        } else {
            next = q2_min(boundary, end);
            rc = zero_subclusters(image, start, next, err);
        }
        pthread_mutex_unlock(&image->lock);
        if (rc == Q2_ERR_UNSUPPORTED)
            rc = write_zeros(image, start, next - start, err);
        if (rc < 0)
            return rc;
        start = next;
    }
    return 0;
}

static uint64_t
align_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) & ~(unit - 1);
}

/* [start, end) with the range held. */
static int
zero_range(struct q2_image *image, uint64_t start, uint64_t end, unsigned flags,
           struct q2_error *err)
{
    uint64_t unit = UINT64_C(1) << image->sub_bits;
    uint64_t first = align_up(start, unit);
    /* The last cluster may be larger than what the disk has of it. */
    uint64_t last = end == image->size ? align_up(end, unit) : end & ~(unit - 1);
    bool flag = image->header.version >= 3;
    if (!flag && q2_nothing_below(image, start) && (flags & Q2_ZERO_UNMAP))
        flag = true; /* unallocated is as good */
    if (!flag || first >= last)
        return zero_by_writing(image, start, end - start, err);
    int rc = zero_by_writing(image, start, first - start, err);
    if (rc == 0)
        rc = zero_raw_data(image, first, q2_min(last, image->size), err);
    if (rc == 0)
        rc = zero_aligned(image, first, last, flags & Q2_ZERO_UNMAP ? ZERO_UNMAP : ZERO_KEEP, err);
    if (rc == 0 && last < end)
        rc = zero_by_writing(image, last, end - last, err);
    return rc;
}

/* ---- requests ---- */

/* Hold the clusters of a request exclusively and get ready to change them. */
static int
begin(struct q2_image *image, struct q2_range *range, const char *what, uint64_t offset,
      uint64_t length, struct q2_error *err)
{
    uint64_t unit = image->geometry.cluster_size, end = q2_end(offset, length);
    q2_range_hold(&image->ranges, range, offset & ~(unit - 1),
                  end > UINT64_MAX - unit ? UINT64_MAX : align_up(end, unit), true);
    int rc = q2_image_check_range(image, what, offset, length, err);
    if (rc == 0) {
        pthread_mutex_lock(&image->lock);
        rc = q2_image_prepare_write(image, err);
        pthread_mutex_unlock(&image->lock);
    }
    return rc;
}

static void
end_request(struct q2_image *image, struct q2_range *range, uint64_t offset, uint64_t length)
{
    q2_bitmaps_mark(image, offset, length);
    q2_range_release(&image->ranges, range);
}

int
q2_image_zero(struct q2_image *image, uint64_t offset, uint64_t length, unsigned flags,
              struct q2_error *err)
{
    struct q2_range range;
    int rc = begin(image, &range, "zero", offset, length, err);
    if (rc == 0 && length > 0)
        rc = zero_range(image, offset, offset + length, flags, err);
    end_request(image, &range, offset, rc == Q2_ERR_RANGE ? 0 : length);
    return rc;
}

int
q2_image_discard(struct q2_image *image, uint64_t offset, uint64_t length, struct q2_error *err)
{
    uint64_t unit = image->geometry.cluster_size;
    struct q2_range range;
    int rc = begin(image, &range, "discard", offset, length, err);
    uint64_t start = align_up(offset, unit), end = offset + length;
    end = end == image->size ? align_up(end, unit) : end & ~(unit - 1);
    /* Version 2 has no way to say "zeros", and what lies below must not show through. */
    bool possible = image->header.version >= 3 || !image->backing;
    if (rc == 0 && possible && start < end) {
        rc = zero_raw_data(image, start, q2_min(end, image->size), err);
        if (rc == 0)
            rc = zero_aligned(image, start, end, DISCARD, err);
    }
    end_request(image, &range, offset, rc == Q2_ERR_RANGE ? 0 : length);
    return rc;
}

int
q2_image_uncover(struct q2_image *image, uint64_t offset, uint64_t length, struct q2_error *err)
{
    uint64_t unit = image->geometry.cluster_size, end = q2_end(offset, length);
    struct q2_range range;
    int rc = begin(image, &range, "uncover", offset, length, err);
    if (rc == 0 && (offset % unit || (end % unit && end != image->size)))
        rc =
            q2_error_set(err, Q2_ERR_RANGE, "%s: no whole clusters are at 0x%" PRIx64 "-0x%" PRIx64,
                         image->file->name, offset, end);
    if (rc == 0 && length > 0) {
        pthread_mutex_lock(&image->lock);
        rc = q2_unmap(image, offset, align_up(end, unit), true, err);
        pthread_mutex_unlock(&image->lock);
    }
    end_request(image, &range, offset, rc < 0 ? 0 : length);
    return rc;
}

/* A copy of the L2 table of an L1 entry, malloc'ed, all of whose entries keep the rules. */
static int
copy_entries(struct q2_image *image, uint64_t guest, uint8_t **ret_table, struct q2_error *err)
{
    const struct q2_geometry *geometry = &image->geometry;
    Q2_AUTOFREE uint8_t *table = malloc(geometry->cluster_size);
    if (!table)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for an L2 table");
    for (uint64_t done = 0; done < geometry->l2_entries;) {
        uint8_t *bytes;
        uint64_t count, at = guest + (done << geometry->cluster_bits);
        int rc = q2_l2_look(image, at, &bytes, &count, err);
        for (uint64_t i = 0; rc == 0 && i < count; i++) {
            struct q2_l2_entry entry;
            rc = q2_l2_entry_at(image, bytes, i, at + (i << geometry->cluster_bits), &entry, err);
        }
        if (rc < 0)
            return rc;
        memcpy(table + done * geometry->l2_entry_size, bytes, count * geometry->l2_entry_size);
        done += count;
    }
    *ret_table = Q2_STEAL(table);
    return 0;
}

int
q2_l1_drop(struct q2_image *image, uint64_t index, struct q2_error *err)
{
    const struct q2_geometry *geometry = &image->geometry;
    uint64_t raw = image->l1[index];
    Q2_AUTOFREE uint8_t *table = NULL;
    if (!q2_entry_offset(raw))
        return 0;
    /* Nothing is let go of before all that could fail has not: the table still leads there. */
    int rc = copy_entries(image, index * q2_l2_reach(geometry), &table, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < geometry->l2_entries; i++) {
        struct q2_l2_entry old = q2_l2_load(geometry, table, i);
        q2_l2_release(image, &old);
    }
    q2_l1_set(image, index, 0);
    q2_free_later(image, q2_entry_offset(raw) >> geometry->cluster_bits, 1);
    return 0;
}

int
q2_image_make_empty(struct q2_image *image, struct q2_error *err)
{
    struct q2_exclusive exclusive;
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    uint64_t tables = q2_l1_entries_for(&image->geometry, image->size);
    for (uint64_t i = 0; rc == 0 && i < tables && i < image->header.l1_size; i++)
        rc = q2_l1_drop(image, i, err);
    q2_bitmaps_mark(image, 0, image->size);
    if (rc == 0)
        rc = q2_image_settle(image, err);
    if (rc == 0)
        rc = q2_image_cut(image, err);
    q2_exclusive_end(image, &exclusive);
    return rc;
}
