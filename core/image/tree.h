/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A state of the disk as the tree that it is in the file: L1 table, L2 tables, clusters. For what
 * concerns all of it, such as taking a snapshot: in large reads and writes, past the caches, and
 * without a look at each entry where runs of them are alike. Private to core/image.
 *
 * All of this needs the exclusive image, settled. */

#ifndef Q2_IMAGE_TREE_H
#define Q2_IMAGE_TREE_H

#include "core/image/internal.h"
#include "core/image/tally.h"

/* Entries [first, end) of an L1 table. */
struct q2_tree {
    const uint64_t *l1; /* native byte order */
    uint64_t first;
    uint64_t end;
    uint64_t at; /* where the table is in the file, bytes: for messages */
};

/* The whole active state. */
struct q2_tree q2_tree_active(const struct q2_image *image);

/* Memory that counting references may take, bytes. */
#define Q2_TREE_BUDGET (UINT64_C(2) << 30)

/* Read an L1 table of `entries` entries; *ret_l1 is malloc'ed, also if there are none. */
int q2_tree_load(struct q2_image *image, uint64_t offset, uint64_t entries, uint64_t **ret_l1,
                 struct q2_error *err);

/* Count a reference to each L2 table into `tables`, and to each cluster that these lead to into
 * `clusters`, which may be the same. Strict: what breaks a rule is Q2_ERR_FORMAT. */
int q2_tree_count(struct q2_image *image, const struct q2_tree *tree, struct q2_tally *tables,
                  struct q2_tally *clusters, struct q2_error *err);

/* Clear the COPIED flags of all L2 entries. Not durable. Those of the L1 table are the caller's. */
int q2_tree_clear_copied(struct q2_image *image, const struct q2_tree *tree, struct q2_error *err);

/* Set the COPIED flags of the active L1 table and all its L2 tables where the refcount on the disk
 * is 1, and clear them elsewhere. Written, not durable. */
int q2_active_mend_copied(struct q2_image *image, struct q2_error *err);

/* Clear them all. Written, not durable. */
int q2_active_clear_copied(struct q2_image *image, struct q2_error *err);

#endif
