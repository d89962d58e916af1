/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* All references that the image has to its host clusters, counted strictly, by who may have them.
 * Private to core/image; the exclusive image, with nothing in memory that the disk does not have,
 * refcounts aside. */

#ifndef Q2_IMAGE_CENSUS_H
#define Q2_IMAGE_CENSUS_H

#include "core/image/internal.h"
#include "core/image/tally.h"

struct q2_census {
    struct q2_budget budget;
    struct q2_tally *fixed;    /* header, tables, bitmaps, LUKS header: each cluster once at most */
    struct q2_tally *tables;   /* L2 tables, of all states */
    struct q2_tally *clusters; /* guest clusters, of all states */
};

/* Q2_ERR_FORMAT where a reference breaks a rule, or leads to a cluster that something else uses in
 * another way. Nothing needs to be destroyed then. */
int q2_census_take(struct q2_image *image, struct q2_census *census, struct q2_error *err);
void q2_census_destroy(struct q2_census *census);

/* One more cluster of the first kind. */
int q2_census_add_fixed(struct q2_census *census, uint64_t first, uint64_t count,
                        struct q2_error *err);

#endif
