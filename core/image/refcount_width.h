/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The longer parts of amending. Private to core/image; the exclusive image, settled. */

#ifndef Q2_IMAGE_REFCOUNT_WIDTH_H
#define Q2_IMAGE_REFCOUNT_WIDTH_H

#include "core/image/amend.h"
#include "core/image/internal.h"

/* Give the image refcounts of 2^order bits. Q2_ERR_UNSUPPORTED where one does not fit; nothing has
 * changed then. */
int q2_refcount_width_change(struct q2_image *image, unsigned order,
                             const struct q2_amend_options *options, struct q2_error *err);

/* Q2_ERR_UNSUPPORTED where a snapshot has clusters that are marked to read as zeros, which version
 * 2 cannot express. */
int q2_zero_clusters_refuse(struct q2_image *image, struct q2_error *err);

/* Replace the zero flags of the active state by what version 2 has: nothing where nothing is below,
 * else zeros as data. Guest content stays. */
int q2_zero_clusters_expand(struct q2_image *image, const struct q2_amend_options *options,
                            struct q2_error *err);

/* Tell whoever wants to know. */
static inline void
q2_amend_progress(const struct q2_amend_options *options, uint64_t done, uint64_t total)
{
    if (options->progress)
        options->progress(options->progress_data, done, total);
}

#endif
