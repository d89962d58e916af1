/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Internal snapshots ("Snapshots" in the specification): states of the disk, and of the VM, that
 * share their clusters with the active state. */

#ifndef Q2_IMAGE_SNAPSHOTS_H
#define Q2_IMAGE_SNAPSHOTS_H

#include "core/image/image.h"

/* What an image knows of a snapshot. Texts belong to the image and live until its snapshots
 * change. */
struct q2_snapshot_info {
    const char *id;
    const char *name;
    uint64_t vm_state_size; /* bytes */
    uint64_t disk_size;     /* bytes */
    uint32_t date_seconds;  /* since the Epoch */
    uint32_t date_nanoseconds;
    uint64_t vm_clock_nanoseconds;
    bool has_icount;
    uint64_t icount; /* instructions executed, from the extra data */
};

unsigned q2_snapshot_count(const struct q2_image *image);
/* The snapshot at `index`, below the count, in the order of the table. */
void q2_snapshot_info(const struct q2_image *image, unsigned index,
                      struct q2_snapshot_info *ret_info);

/* The snapshot with this id or, failing that, the first with this name, as `qemu-img` looks it up.
 * Q2_ERR_NOT_FOUND. */
int q2_snapshot_find(const struct q2_image *image, const char *id_or_name, unsigned *ret_index,
                     struct q2_error *err);

struct q2_snapshot_options {
    const char *name;
    const char *id;         /* NULL, or in use already: one above the highest in use */
    uint64_t vm_state_size; /* bytes of VM state that were written before (vmstate.h) */
    uint32_t date_seconds;  /* since the Epoch; 0: now */
    uint32_t date_nanoseconds;
    uint64_t vm_clock_nanoseconds;
    bool has_icount;
    uint64_t icount; /* instructions executed */
};

/* Take a snapshot of the active state. */
int q2_snapshot_create(struct q2_image *image, const struct q2_snapshot_options *options,
                       struct q2_error *err);

/* Make the active state that of the snapshot; what was active is lost. The disk gets the size that
 * it had. */
int q2_snapshot_goto(struct q2_image *image, unsigned index, struct q2_error *err);

int q2_snapshot_delete(struct q2_image *image, unsigned index, struct q2_error *err);

/* Read from the snapshot instead of the active state from now on; of an image that is open read
 * only. Afterwards q2_image_size is the snapshot's. */
int q2_snapshot_load(struct q2_image *image, unsigned index, struct q2_error *err);

#endif
