/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Taking a snapshot: the state's L1 table is copied, and everything below it gets one reference
 * more.
 *
 * Order on the disk, with a barrier between the steps, c and d aside:
 *    a. a copy of the L1 table in new clusters
 *    b. COPIED flags cleared in the active tables: nothing may be written in place any more
 *    c. refcounts of all that the state refers to, raised by one
 *    d. the new snapshot table in new clusters
 *    e. the header: number of snapshots and place of the table, in one write
 *    f. refcounts of the old snapshot table, lowered
 * A crash after a, c or d leaves clusters that are leaked or counted too often, after b COPIED
 * flags that are clear without need; what refers to a cluster is counted at any instant. All that
 * can be refused is refused before a.
 *
 * Where the VM's state was saved with it, the active state lets go of that afterwards: it is the
 * snapshot's. */

#include "core/base/endian.h"
#include "core/image/refcount_bulk.h"
#include "core/image/snapshot_table.h"
#include "core/image/snapshots.h"
#include "core/image/states.h"
#include "core/image/tree.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

int
q2_snapshots_possible(const struct q2_image *image, struct q2_error *err)
{
    if (!image->geometry.data_file)
        return 0;
    return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                        "%s: an image with a data file cannot have snapshots",
                        q2_image_name(image));
}

/* ---- the new entry ---- */

static bool
id_in_use(const struct q2_snapshots *snapshots, const char *id)
{
    for (unsigned i = 0; snapshots && i < snapshots->count; i++)
        if (strcmp(snapshots->entries[i].id, id) == 0)
            return true;
    return false;
}

/* One above the highest number that is an id; where that is the highest there is, the lowest one
 * that is free. */
static void
choose_id(const struct q2_snapshots *snapshots, char *id, size_t size)
{
    unsigned long long highest = 0, next;
    for (unsigned i = 0; snapshots && i < snapshots->count; i++) {
        unsigned long long number = strtoull(snapshots->entries[i].id, NULL, 10);
        highest = number > highest ? number : highest;
    }
    next = highest == ULLONG_MAX ? 1 : highest + 1;
    do
        snprintf(id, size, "%llu", next++);
    while (id_in_use(snapshots, id));
}

static int
check_options(const struct q2_image *image, const struct q2_snapshot_options *options,
              struct q2_error *err)
{
    uint64_t disk = q2_l1_entries_for(&image->geometry, q2_image_size(image));
    uint64_t left = image->header.l1_size > disk ? image->header.l1_size - disk : 0;
    uint64_t reach = left * q2_l2_reach(&image->geometry);
    size_t length = options->name ? strlen(options->name) : 0;
    if (length > UINT16_MAX)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: a snapshot's name of %zu bytes is longer than %d",
                            q2_image_name(image), length, UINT16_MAX);
    if (options->vm_state_size > reach)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: a VM state of %llu bytes has not been written: %llu are mapped",
                            q2_image_name(image), (unsigned long long)options->vm_state_size,
                            (unsigned long long)reach);
    if (options->id && strlen(options->id) > UINT16_MAX)
        return q2_error_set(err, Q2_ERR_RANGE, "%s: a snapshot's id is longer than %d bytes",
                            q2_image_name(image), UINT16_MAX);
    if (options->date_nanoseconds >= 1000000000)
        return q2_error_set(err, Q2_ERR_RANGE, "a second does not have %u nanoseconds",
                            options->date_nanoseconds);
    return 0;
}

/* The table that will be, with the new entry at its end; where its L1 table is comes later. */
static int
add_entry(const struct q2_image *image, const struct q2_snapshot_options *options,
          struct q2_snapshots **ret_snapshots, struct q2_error *err)
{
    char chosen[32], *name = (char *)(uintptr_t)(options->name ? options->name : "");
    char *id = (char *)(uintptr_t)options->id;
    uint8_t extra[Q2_SNAPSHOT_NEW_EXTRA];
    struct timespec now = {.tv_sec = options->date_seconds, .tv_nsec = options->date_nanoseconds};
    if (options->date_seconds == 0)
        clock_gettime(CLOCK_REALTIME, &now);
    if (!id || !*id || id_in_use(image->snapshots, id)) {
        choose_id(image->snapshots, chosen, sizeof chosen);
        id = chosen;
    }
    q2_store_be64(extra, options->vm_state_size);
    q2_store_be64(extra + 8, q2_image_size(image));
    /* All ones: instructions have not been counted. */
    q2_store_be64(extra + 16, options->has_icount ? options->icount : UINT64_MAX);
    struct q2_snapshot_entry entry = {
        .fixed = {.l1_size = image->header.l1_size,
                  .id_length = (uint16_t)strlen(id),
                  .name_length = (uint16_t)strlen(name),
                  .date_seconds = (uint32_t)now.tv_sec,
                  .date_nanoseconds = (uint32_t)now.tv_nsec,
                  .vm_clock_nanoseconds = options->vm_clock_nanoseconds,
                  .extra_length = sizeof extra,
                  .vm_state_size = options->vm_state_size,
                  .disk_size = q2_image_size(image),
                  .has_disk_size = true},
        .id = id,
        .name = name,
        .extra = extra,
    };
    return q2_snapshots_successor(image, image->snapshots, UINT_MAX, &entry, ret_snapshots, err);
}

/* ---- the steps ---- */

/* Step a. *ret_offset is 0 where the table is empty. */
static int
copy_l1(struct q2_image *image, uint64_t *ret_offset, struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    uint64_t clusters = q2_units((uint64_t)image->header.l1_size * 8, bits), offset;
    if (clusters == 0) {
        *ret_offset = 0;
        return 0;
    }
    Q2_AUTOFREE uint8_t *bytes = calloc(clusters, image->geometry.cluster_size);
    if (!bytes)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for an L1 table",
                            q2_image_name(image));
    for (uint64_t i = 0; i < image->header.l1_size; i++)
        q2_store_be64(bytes + i * 8, image->l1[i] & ~Q2_ENTRY_COPIED);
    int rc = q2_allocate(image, clusters, Q2_CLAIM_SNAPSHOT_L1, &offset, err);
    if (rc < 0)
        return rc;
    rc = q2_meta_write(image, Q2_CLAIM_SNAPSHOT_L1, offset, bytes, clusters << bits, err);
    if (rc == 0)
        rc = q2_image_settle(image, err);
    if (rc < 0)
        q2_free_now(image, offset >> bits, clusters);
    else
        *ret_offset = offset;
    return rc;
}

/* Steps b and c. */
static int
share_state(struct q2_image *image, const struct q2_tally *tally, struct q2_error *err)
{
    int rc = q2_active_clear_copied(image, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    if (rc == 0)
        rc = q2_refcounts_apply(image, tally, 1, err);
    /* What is shared with nobody may be written in place again. */
    if (rc < 0 && !image->broken)
        (void)q2_active_mend_copied(image, NULL);
    return rc;
}

static int
take(struct q2_image *image, const struct q2_snapshot_options *options,
     const struct q2_tally *tally, struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    struct q2_snapshots *snapshots;
    uint64_t l1_offset;
    int rc = add_entry(image, options, &snapshots, err);
    if (rc < 0)
        return rc;
    rc = copy_l1(image, &l1_offset, err);
    if (rc < 0) {
        q2_snapshots_free(snapshots);
        return rc;
    }
    rc = share_state(image, tally, err);
    if (rc < 0) {
        q2_free_now(image, l1_offset >> bits, q2_units((uint64_t)image->header.l1_size * 8, bits));
        q2_snapshots_free(snapshots);
        return rc;
    }
    snapshots->entries[snapshots->count - 1].fixed.l1_table_offset = l1_offset;
    return q2_snapshots_store(image, snapshots, err);
}

static int
create(struct q2_image *image, const struct q2_snapshot_options *options, struct q2_error *err)
{
    struct q2_tree tree = q2_tree_active(image);
    struct q2_state state;
    int rc = q2_snapshots_possible(image, err);
    if (rc == 0)
        rc = check_options(image, options, err);
    if (rc == 0)
        rc = q2_state_init(&state, err);
    if (rc < 0)
        return rc;
    rc = q2_tree_count(image, &tree, state.tally, state.tally, err);
    if (rc == 0)
        rc = q2_refcounts_check(image, state.tally, 1, err);
    if (rc == 0)
        rc = take(image, options, state.tally, err);
    q2_state_destroy(&state);
    if (rc == 0 && options->vm_state_size > 0)
        rc = q2_vmstate_drop(image, err);
    return rc;
}

int
q2_snapshot_create(struct q2_image *image, const struct q2_snapshot_options *options,
                   struct q2_error *err)
{
    struct q2_exclusive exclusive;
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    rc = create(image, options, err);
    q2_exclusive_end(image, &exclusive);
    return rc;
}
