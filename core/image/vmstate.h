/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The area of VM state: guest clusters behind the disk, where a running machine is saved with a
 * snapshot. Offsets are bytes from the start of the area. */

#ifndef Q2_IMAGE_VMSTATE_H
#define Q2_IMAGE_VMSTATE_H

#include "core/image/image.h"

/* Where the area begins, in guest bytes: the first L2 table's reach behind the disk. */
uint64_t q2_vmstate_start(const struct q2_image *image);

int q2_vmstate_read(struct q2_image *image, uint64_t offset, void *buffer, size_t length,
                    struct q2_error *err);
/* The L1 table grows as needed. */
int q2_vmstate_write(struct q2_image *image, uint64_t offset, const void *buffer, size_t length,
                     struct q2_error *err);
/* Forget all of it. */
int q2_vmstate_discard(struct q2_image *image, struct q2_error *err);

#endif
