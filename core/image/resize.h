/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Changing the size of the guest's disk. */

#ifndef Q2_IMAGE_RESIZE_H
#define Q2_IMAGE_RESIZE_H

#include "core/image/create.h"

/* Set the disk's size to `size` bytes, a multiple of 512. What is added reads as zeros, whatever a
 * backing file has there; `preallocation` is for what is added and must be OFF when shrinking. What
 * is cut off is lost and its clusters become free; the file is cut where its end becomes free.
 * Q2_ERR_UNSUPPORTED: shrinking an image with snapshots, resizing version 2 with snapshots, or one
 * whose bitmaps cannot follow. */
int q2_image_resize(struct q2_image *image, uint64_t size, enum q2_preallocation preallocation,
                    struct q2_error *err);

#endif
