/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The area of VM state. It is mapped by what the L1 table has behind the disk, so that writing
 * there makes that table larger, and a snapshot's copy of the table keeps what was saved. */

#include "core/image/vmstate.h"

#include "core/image/refcount_bulk.h"
#include "core/image/states.h"
#include "core/image/tree.h"

uint64_t
q2_vmstate_start(const struct q2_image *image)
{
    /* No disk that an L1 table of legal size can map comes near 2^64. */
    return q2_l1_entries_for(&image->geometry, q2_image_size(image)) *
           q2_l2_reach(&image->geometry);
}

static int
too_far(const struct q2_image *image, uint64_t offset, size_t length, struct q2_error *err)
{
    return q2_error_set(err, Q2_ERR_RANGE,
                        "%s: VM state of %zu bytes at %llu is beyond what an L1 table can map",
                        q2_image_name(image), length, (unsigned long long)offset);
}

/* L1 entries that it takes to map the area up to guest offset `end`. */
static uint64_t
entries_for(const struct q2_image *image, uint64_t end)
{
    return q2_units(end, image->geometry.cluster_bits + image->geometry.l2_bits);
}

/* Where the bytes are, as guest offsets. The range must be held. */
static int
place(const struct q2_image *image, uint64_t offset, size_t length, uint64_t *ret_guest,
      struct q2_error *err)
{
    uint64_t guest, end;
    if (!q2_add(q2_vmstate_start(image), offset, &guest) || !q2_add(guest, length, &end) ||
        entries_for(image, end) > Q2_MAX_L1_BYTES / 8)
        return too_far(image, offset, length, err);
    *ret_guest = guest;
    return 0;
}

int
q2_vmstate_read(struct q2_image *image, uint64_t offset, void *buffer, size_t length,
                struct q2_error *err)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    struct q2_range range;
    uint64_t guest;
    if (length == 0)
        return 0;
    /* All of the area, whatever the size of the disk. */
    q2_range_hold(&image->ranges, &range, 0, UINT64_MAX, false);
    int rc = place(image, offset, length, &guest, err);
    if (rc == 0)
        rc = q2_guest_read(image, guest, &iov, 1, err);
    q2_range_release(&image->ranges, &range);
    return rc;
}

/* Make the L1 table large enough to map the area up to guest offset `end`. */
static int
make_room(struct q2_image *image, uint64_t end, struct q2_error *err)
{
    uint64_t needed = entries_for(image, end), have = image->header.l1_size;
    if (needed <= have)
        return 0;
    /* What is written bit by bit shall not take a new table each time. */
    uint64_t entries = q2_min(q2_max(needed, have + have / 2), Q2_MAX_L1_BYTES / 8);
    int rc = q2_l1_replace(image, image->l1, have, entries, err);
    return rc < 0 ? rc : q2_image_settle(image, err);
}

int
q2_vmstate_write(struct q2_image *image, uint64_t offset, const void *buffer, size_t length,
                 struct q2_error *err)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = length};
    struct q2_exclusive exclusive;
    uint64_t guest;
    if (length == 0)
        return 0;
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    rc = q2_snapshots_possible(image, err);
    if (rc == 0)
        rc = place(image, offset, length, &guest, err);
    if (rc == 0)
        rc = make_room(image, guest + length, err);
    /* The range stays held, so nobody changes the size meanwhile. */
    pthread_mutex_unlock(&image->lock);
    if (rc == 0)
        rc = q2_guest_write(image, guest, &iov, 1, err);
    q2_range_release(&image->ranges, &exclusive.range);
    return rc;
}

/* Let go of all that the L1 table has behind the disk: first nothing leads there any more, then the
 * refcounts are lowered. */
static int
drop_tree(struct q2_image *image, const struct q2_tree *tree, struct q2_tally *tally,
          struct q2_error *err)
{
    int rc = q2_tree_count(image, tree, tally, tally, err);
    if (rc == 0)
        rc = q2_refcounts_check(image, tally, -1, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = tree->first; i < tree->end; i++) {
        uint64_t table = q2_entry_offset(image->l1[i]);
        if (!image->l1[i])
            continue;
        q2_l1_set(image, i, 0);
        q2_claims_remove(image->claims, table >> image->geometry.cluster_bits, 1);
        q2_cache_forget(image->l2_cache, table, image->geometry.cluster_size);
    }
    q2_pack_forget(image, 0, UINT64_MAX);
    rc = q2_image_settle(image, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    return rc < 0 ? rc : q2_refcounts_apply(image, tally, -1, err);
}

int
q2_vmstate_drop(struct q2_image *image, struct q2_error *err)
{
    struct q2_tree tree = q2_tree_active(image);
    struct q2_state state;
    bool any = false;
    tree.first = q2_min(q2_l1_entries_for(&image->geometry, q2_image_size(image)), tree.end);
    for (uint64_t i = tree.first; i < tree.end; i++)
        any |= image->l1[i] != 0;
    if (!any)
        return 0;
    int rc = q2_state_init(&state, err);
    if (rc < 0)
        return rc;
    rc = drop_tree(image, &tree, state.tally, err);
    q2_state_destroy(&state);
    return rc;
}

int
q2_vmstate_discard(struct q2_image *image, struct q2_error *err)
{
    struct q2_exclusive exclusive;
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    rc = q2_vmstate_drop(image, err);
    q2_exclusive_end(image, &exclusive);
    return rc;
}
