/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Version 2 cannot say that a cluster reads as zeros. Where nothing is below, an unallocated
 * cluster says as much; elsewhere zeros are written. */

#include "core/image/fill.h"
#include "core/image/refcount_width.h"
#include "core/image/snapshot_table.h"
#include "core/image/tree.h"

/* ---- snapshots ---- */

static int
refuse_table(struct q2_image *image, uint64_t offset, unsigned number, uint8_t *table,
             struct q2_error *err)
{
    const struct q2_geometry *g = &image->geometry;
    int rc = q2_meta_read(image, offset, table, g->cluster_size, err);
    for (uint64_t i = 0; rc == 0 && i < g->l2_entries; i++) {
        struct q2_l2_entry entry = q2_l2_load(g, table, i);
        enum q2_cluster_kind kind = q2_l2_kind(g, entry.raw);
        if (kind == Q2_CLUSTER_ZERO || kind == Q2_CLUSTER_ZERO_ALLOCATED)
            rc = q2_error_set(err, Q2_ERR_UNSUPPORTED,
                              "%s: cannot become version 2, as snapshot %u has clusters that are "
                              "marked to read as zeros",
                              image->file->name, number);
    }
    return rc;
}

int
q2_zero_clusters_refuse(struct q2_image *image, struct q2_error *err)
{
    Q2_AUTOFREE uint8_t *table = malloc(image->geometry.cluster_size);
    if (!table)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for an L2 table", image->file->name);
    for (unsigned n = 0; image->snapshots && n < image->snapshots->count; n++) {
        const struct q2_snapshot *snapshot = &image->snapshots->entries[n].fixed;
        Q2_AUTOFREE uint64_t *l1 = NULL;
        int rc = q2_tree_load(image, snapshot->l1_table_offset, snapshot->l1_size, &l1, err);
        for (uint64_t i = 0; rc == 0 && i < snapshot->l1_size; i++)
            if (q2_entry_offset(l1[i]))
                rc = refuse_table(image, q2_entry_offset(l1[i]), n + 1, table, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- the active state ---- */

/* A run of clusters with the flag. What is below is hidden by zeros that are written; zeros need
 * not be written where the disk of the backing file has ended. */
static int
expand_run(struct q2_image *image, uint64_t guest, uint64_t length, struct q2_error *err)
{
    static const uint8_t zeros[64 * 1024];
    int rc = 0;
    if (!image->area.backing_file)
        return q2_unmap(image, guest, guest + length, true, err);
    pthread_mutex_unlock(&image->lock);
    for (uint64_t done = 0; done < length && rc == 0;) {
        uint64_t now = q2_min(length - done, sizeof zeros);
        struct iovec iov = {.iov_base = (void *)(uintptr_t)zeros, .iov_len = now};
        rc = q2_guest_write(image, guest + done, &iov, 1, err);
        done += now;
    }
    pthread_mutex_lock(&image->lock);
    return rc;
}

int
q2_zero_clusters_expand(struct q2_image *image, const struct q2_amend_options *options,
                        struct q2_error *err)
{
    uint64_t end = image->header.l1_size * q2_l2_reach(&image->geometry);
    for (uint64_t guest = 0; guest < end;) {
        struct q2_run run;
        int rc = q2_image_tidy(image, err);
        if (rc == 0)
            rc = q2_map_run(image, guest, end - guest, &run, err);
        if (rc == 0 && (run.kind == Q2_CLUSTER_ZERO || run.kind == Q2_CLUSTER_ZERO_ALLOCATED))
            rc = expand_run(image, guest, run.length, err);
        if (rc < 0)
            return rc;
        guest += run.length;
        q2_amend_progress(options, guest, end);
    }
    return 0;
}
