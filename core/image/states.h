/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What taking, applying and deleting snapshots share. Private to core/image. */

#ifndef Q2_IMAGE_STATES_H
#define Q2_IMAGE_STATES_H

#include "core/image/internal.h"
#include "core/image/tally.h"

struct q2_snapshot_entry;

/* A tally with the budget that it draws from; stays where it is. */
struct q2_state {
    struct q2_budget budget;
    struct q2_tally *tally;
};

int q2_state_init(struct q2_state *state, struct q2_error *err);
void q2_state_destroy(struct q2_state *state);

/* Count all that a snapshot refers to into `tally`: its L1 table too, if `with_l1`. */
int q2_snapshot_count_references(struct q2_image *image, const struct q2_snapshot_entry *entry,
                                 const uint64_t *l1, bool with_l1, struct q2_tally *tally,
                                 struct q2_error *err);

/* Q2_ERR_UNSUPPORTED where the image cannot have snapshots. */
int q2_snapshots_possible(const struct q2_image *image, struct q2_error *err);

/* Q2_ERR_NOT_FOUND where there is no snapshot at `index`. */
int q2_snapshot_need(const struct q2_image *image, unsigned index,
                     const struct q2_snapshot_entry **ret_entry, struct q2_error *err);

/* Make the area of VM state empty. The exclusive image, settled; stays so. */
int q2_vmstate_drop(struct q2_image *image, struct q2_error *err);

#endif
