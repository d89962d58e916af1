/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Making a snapshot's state the active one, and reading from it without that.
 *
 * Order on the disk, with a barrier between the steps:
 *    a. COPIED flags cleared in the snapshot's L2 tables, as far as any are set
 *    b. refcounts of all below the snapshot's L1 table, raised by one
 *    c. a copy of that L1 table in new clusters
 *    d. the header: place and size of the active L1 table, and the size of the disk, in one write
 *    e. refcounts of the old L1 table and all below it, lowered by one
 *
 * The header's write is the instant of change: before it the old state is active with all that it
 * refers to, after it the snapshot's. A crash leaves clusters that are leaked or counted too often.
 * No COPIED flag can be right at the end, as all that is active now is the snapshot's too.
 *
 * What both states refer to is raised first and lowered later, which takes room in refcounts of few
 * bits; what would not fit is refused before a. */

#include "core/image/bitmap_list.h"
#include "core/image/refcount_bulk.h"
#include "core/image/snapshot_table.h"
#include "core/image/snapshots.h"
#include "core/image/states.h"
#include "core/image/strict.h"
#include "core/image/tree.h"

/* What is needed to change from one state to another. */
struct change {
    const struct q2_snapshot_entry *entry;
    uint64_t *l1;          /* the snapshot's, without COPIED flags */
    uint64_t disk_size;    /* that will be, bytes */
    struct q2_state enter; /* references of the snapshot's state */
    struct q2_state leave; /* of the active one */
};

/* ---- what is refused ---- */

/* A snapshot that does not say how large its disk is, as those of version 2 need not, counts on the
 * size not to change. */
static bool
all_say_size(const struct q2_image *image)
{
    for (unsigned i = 0; i < image->snapshots->count; i++)
        if (!image->snapshots->entries[i].fixed.has_disk_size)
            return false;
    return true;
}

static int
check_change(const struct q2_image *image, const struct change *change, struct q2_error *err)
{
    const char *name = q2_image_name(image);
    unsigned bitmaps = image->bitmaps ? image->bitmaps->count : 0;
    if (bitmaps > 0)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: the image has %u bitmaps, which would not know what changes when "
                            "a snapshot is applied",
                            name, bitmaps);
    if (change->disk_size % 512 != 0)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: the snapshot at offset 0x%llx has a disk of %llu bytes, which is "
                            "not a multiple of 512",
                            name, (unsigned long long)change->entry->fixed.at,
                            (unsigned long long)change->disk_size);
    if (change->disk_size != q2_image_size(image) && !all_say_size(image))
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: the disk cannot get the %llu bytes that it had: there are "
                            "snapshots that do not say how large their disk is",
                            name, (unsigned long long)change->disk_size);
    return 0;
}

/* The strict rules once more: the disk's size may have changed since the table was read. */
static int
check_l1(const struct q2_image *image, const struct q2_snapshot_entry *entry, uint64_t disk_size,
         struct q2_error *err)
{
    if (entry->fixed.l1_size >= q2_l1_entries_for(&image->geometry, disk_size))
        return 0;
    return q2_error_set(err, Q2_ERR_FORMAT,
                        "%s: the L1 table of the snapshot at offset 0x%llx has %u entries, too few "
                        "for a disk of %llu bytes",
                        q2_image_name(image), (unsigned long long)entry->fixed.at,
                        entry->fixed.l1_size, (unsigned long long)disk_size);
}

static uint64_t
size_of(const struct q2_image *image, const struct q2_snapshot_entry *entry)
{
    return entry->fixed.has_disk_size ? entry->fixed.disk_size : q2_image_size(image);
}

/* ---- applying ---- */

static int
count_states(struct q2_image *image, struct change *change, struct q2_error *err)
{
    struct q2_tree active = q2_tree_active(image);
    int rc = q2_snapshot_count_references(image, change->entry, change->l1, false,
                                          change->enter.tally, err);
    if (rc == 0)
        rc = q2_tree_count(image, &active, change->leave.tally, change->leave.tally, err);
    if (rc == 0)
        rc = q2_refcounts_check(image, change->enter.tally, 1, err);
    if (rc == 0)
        rc = q2_refcounts_check(image, change->leave.tally, -1, err);
    return rc;
}

/* Steps a and b. */
static int
share_snapshot(struct q2_image *image, const struct change *change, struct q2_error *err)
{
    const struct q2_snapshot *fixed = &change->entry->fixed;
    struct q2_tree tree = {.l1 = change->l1, .end = fixed->l1_size, .at = fixed->l1_table_offset};
    int rc = q2_tree_clear_copied(image, &tree, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    if (rc == 0)
        rc = q2_refcounts_apply(image, change->enter.tally, 1, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    return rc;
}

/* L2 tables that the active L1 table leads to are claimed, others are not. */
static int
claim_tables(struct q2_image *image, bool claim, struct q2_error *err)
{
    for (uint64_t i = 0; i < image->header.l1_size; i++) {
        uint64_t cluster = q2_entry_offset(image->l1[i]) >> image->geometry.cluster_bits;
        int rc = 0;
        if (cluster && claim)
            rc = q2_claims_add(image->claims, cluster, 1, Q2_CLAIM_L2, err);
        else if (cluster)
            q2_claims_remove(image->claims, cluster, 1);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Steps c and d. The header that q2_l1_replace writes is the image's with another table, so the
 * size goes with it. */
static int
switch_states(struct q2_image *image, const struct change *change, struct q2_error *err)
{
    uint64_t entries = change->entry->fixed.l1_size, size = image->header.size;
    image->header.size = change->disk_size;
    int rc = q2_l1_replace(image, change->l1, entries, q2_max(entries, 1), err);
    if (rc < 0) {
        image->header.size = size;
        return rc;
    }
    image->geometry.disk_size = change->disk_size;
    atomic_store(&image->size, change->disk_size);
    q2_pack_forget(image, 0, UINT64_MAX);
    q2_cache_forget_all(image->l2_cache);
    return 0;
}

static int
apply(struct q2_image *image, struct change *change, struct q2_error *err)
{
    int rc = count_states(image, change, err);
    if (rc == 0)
        rc = share_snapshot(image, change, err);
    if (rc < 0) {
        /* Tables that both states share had their flags cleared. */
        if (!image->broken)
            (void)q2_active_mend_copied(image, NULL);
        return rc;
    }
    (void)claim_tables(image, false, NULL);
    rc = switch_states(image, change, err);
    int claimed = claim_tables(image, true, rc == 0 ? err : NULL);
    rc = rc < 0 ? rc : claimed;
    /* Durable, and with it the old L1 table freed. */
    if (rc == 0)
        rc = q2_image_settle(image, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    if (rc == 0)
        rc = q2_refcounts_apply(image, change->leave.tally, -1, err);
    return rc;
}

static int
change_state(struct q2_image *image, struct change *change, struct q2_error *err)
{
    const struct q2_snapshot *fixed = &change->entry->fixed;
    change->disk_size = size_of(image, change->entry);
    int rc = check_change(image, change, err);
    if (rc == 0)
        rc = check_l1(image, change->entry, change->disk_size, err);
    if (rc == 0)
        rc = q2_tree_load(image, fixed->l1_table_offset, fixed->l1_size, &change->l1, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < fixed->l1_size; i++)
        change->l1[i] &= ~Q2_ENTRY_COPIED;
    rc = q2_state_init(&change->enter, err);
    if (rc == 0)
        rc = q2_state_init(&change->leave, err);
    return rc < 0 ? rc : apply(image, change, err);
}

int
q2_snapshot_goto(struct q2_image *image, unsigned index, struct q2_error *err)
{
    struct q2_exclusive exclusive;
    struct change change = {0};
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    rc = q2_snapshots_possible(image, err);
    if (rc == 0)
        rc = q2_snapshot_need(image, index, &change.entry, err);
    if (rc == 0)
        rc = change_state(image, &change, err);
    q2_state_destroy(&change.enter);
    q2_state_destroy(&change.leave);
    free(change.l1);
    q2_exclusive_end(image, &exclusive);
    return rc;
}

/* ---- reading only ---- */

static int
load(struct q2_image *image, unsigned index, struct q2_error *err)
{
    const struct q2_snapshot_entry *entry;
    int rc = q2_snapshot_need(image, index, &entry, err);
    if (rc < 0)
        return rc;
    uint64_t size = size_of(image, entry);
    rc = check_l1(image, entry, size, err);
    if (rc == 0)
        rc = q2_l1_load(image, entry->fixed.l1_table_offset, entry->fixed.l1_size, err);
    if (rc < 0)
        return rc;
    image->header.l1_table_offset = entry->fixed.l1_table_offset;
    image->header.l1_size = entry->fixed.l1_size;
    image->header.size = size;
    image->geometry.disk_size = size;
    atomic_store(&image->size, size);
    q2_cache_forget_all(image->l2_cache);
    return 0;
}

int
q2_snapshot_load(struct q2_image *image, unsigned index, struct q2_error *err)
{
    struct q2_exclusive exclusive;
    if (image->flags & Q2_IMAGE_WRITE)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: a snapshot can be read from only while the image is open read "
                            "only",
                            q2_image_name(image));
    int rc = q2_exclusive_begin(image, &exclusive, false, err);
    if (rc < 0)
        return rc;
    rc = load(image, index, err);
    q2_exclusive_end(image, &exclusive);
    return rc;
}
