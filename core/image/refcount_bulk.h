/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Refcounts by the million, past the cache: each refcount block is read and written once. Private
 * to core/image; needs the exclusive image, settled. q2_refcounts_apply itself is declared in
 * internal.h. */

#ifndef Q2_IMAGE_REFCOUNT_BULK_H
#define Q2_IMAGE_REFCOUNT_BULK_H

#include "core/image/internal.h"
#include "core/image/tally.h"

/* Whether q2_refcounts_apply would succeed, as far as refcounts go. Changes nothing. Q2_ERR_RANGE
 * where a refcount would pass the maximum of the refcount width, Q2_ERR_FORMAT where it would fall
 * below 0. */
int q2_refcounts_check(struct q2_image *image, const struct q2_tally *tally, int sign,
                       struct q2_error *err);

/* ---- whose refcount is exactly 1, as the COPIED flag has it ---- */

struct q2_ones;

int q2_ones_new(struct q2_image *image, struct q2_ones **ret_ones, struct q2_error *err);
void q2_ones_free(struct q2_ones *ones);

/* Whether the refcount of `cluster` is 1 on the disk, and for how many clusters from there on the
 * answer is the same, at most `count`. */
int q2_ones_run(struct q2_ones *ones, uint64_t cluster, uint64_t count, bool *ret_one,
                uint64_t *ret_run, struct q2_error *err);

#endif
