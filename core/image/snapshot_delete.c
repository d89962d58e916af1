/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Deleting a snapshot: everything that it referred to loses one reference.
 *
 * Order on the disk, with a barrier between the steps:
 *    a. a snapshot table without it in new clusters, then the header, then the old table freed
 *    b. refcounts of its L1 table and all below it, lowered by one
 *    c. COPIED flags set in the active tables where that made a refcount 1
 * A crash after a leaves leaked clusters, after b COPIED flags that are clear without need. All
 * that can be refused is refused before a. */

#include "core/image/refcount_bulk.h"
#include "core/image/snapshot_table.h"
#include "core/image/snapshots.h"
#include "core/image/states.h"
#include "core/image/tree.h"

#include <limits.h>

int
q2_state_init(struct q2_state *state, struct q2_error *err)
{
    q2_budget_init(&state->budget, Q2_TREE_BUDGET);
    return q2_tally_new(&state->budget, &state->tally, err);
}

void
q2_state_destroy(struct q2_state *state)
{
    q2_tally_free(state->tally);
}

int
q2_snapshot_need(const struct q2_image *image, unsigned index,
                 const struct q2_snapshot_entry **ret_entry, struct q2_error *err)
{
    if (index >= q2_snapshot_count(image))
        return q2_error_set(err, Q2_ERR_NOT_FOUND, "%s: there is no snapshot at index %u of %u",
                            q2_image_name(image), index, q2_snapshot_count(image));
    *ret_entry = &image->snapshots->entries[index];
    return 0;
}

int
q2_snapshot_count_references(struct q2_image *image, const struct q2_snapshot_entry *entry,
                             const uint64_t *l1, bool with_l1, struct q2_tally *tally,
                             struct q2_error *err)
{
    const struct q2_snapshot *fixed = &entry->fixed;
    unsigned bits = image->geometry.cluster_bits;
    struct q2_tree tree = {.l1 = l1, .end = fixed->l1_size, .at = fixed->l1_table_offset};
    struct q2_tally_cursor cursor;
    int rc = 0;
    q2_tally_cursor_init(&cursor, tally);
    if (with_l1)
        rc = q2_tally_add(&cursor, fixed->l1_table_offset >> bits,
                          q2_units((uint64_t)fixed->l1_size * 8, bits), 1, 0, err);
    q2_tally_release(&cursor);
    return rc < 0 ? rc : q2_tree_count(image, &tree, tally, tally, err);
}

static int
remove_entry(struct q2_image *image, unsigned index, const struct q2_tally *tally,
             struct q2_error *err)
{
    const struct q2_snapshot fixed = image->snapshots->entries[index].fixed;
    unsigned bits = image->geometry.cluster_bits;
    struct q2_snapshots *snapshots;
    int rc = q2_snapshots_successor(image, image->snapshots, index, NULL, &snapshots, err);
    if (rc == 0)
        rc = q2_snapshots_store(image, snapshots, err);
    if (rc < 0)
        return rc;
    q2_claims_remove(image->claims, fixed.l1_table_offset >> bits,
                     q2_units((uint64_t)fixed.l1_size * 8, bits));
    q2_pack_forget(image, 0, UINT64_MAX); /* their clusters may become free */
    rc = q2_refcounts_apply(image, tally, -1, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    if (rc == 0)
        rc = q2_active_mend_copied(image, err);
    return rc;
}

static int
delete_at(struct q2_image *image, unsigned index, struct q2_error *err)
{
    const struct q2_snapshot_entry *entry;
    struct q2_state state;
    int rc = q2_snapshots_possible(image, err);
    if (rc == 0)
        rc = q2_snapshot_need(image, index, &entry, err);
    if (rc < 0)
        return rc;
    Q2_AUTOFREE uint64_t *l1 = NULL;
    rc = q2_tree_load(image, entry->fixed.l1_table_offset, entry->fixed.l1_size, &l1, err);
    if (rc == 0)
        rc = q2_state_init(&state, err);
    if (rc < 0)
        return rc;
    rc = q2_snapshot_count_references(image, entry, l1, true, state.tally, err);
    if (rc == 0)
        rc = q2_refcounts_check(image, state.tally, -1, err);
    if (rc == 0)
        rc = remove_entry(image, index, state.tally, err);
    q2_state_destroy(&state);
    return rc;
}

int
q2_snapshot_delete(struct q2_image *image, unsigned index, struct q2_error *err)
{
    struct q2_exclusive exclusive;
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    rc = delete_at(image, index, err);
    q2_exclusive_end(image, &exclusive);
    return rc;
}
