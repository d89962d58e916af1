/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Mapping many guest clusters at once, ahead of any write to them. Private to core/image. */

#ifndef Q2_IMAGE_FILL_H
#define Q2_IMAGE_FILL_H

#include "core/image/create.h"
#include "core/image/internal.h"

struct q2_fill {
    bool map; /* give the clusters a place; else they only get the zero flag */
    enum q2_preallocation preallocation; /* what is done for the places */
    uint64_t zero_until;                 /* guest offset up to which the backing file has data */
};

/* Map guest clusters [start, end), aligned and unmapped so far, so that they read as zeros. The
 * exclusive image. After a failure some are mapped. */
int q2_fill(struct q2_image *image, uint64_t start, uint64_t end, const struct q2_fill *fill,
            struct q2_error *err);

/* Write zeros over guest bytes that do not read as zeros. The same. */
int q2_fill_zeros(struct q2_image *image, uint64_t start, uint64_t end, struct q2_error *err);

#endif
