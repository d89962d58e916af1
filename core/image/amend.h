/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Changing what an image is while its content stays: backing file, version, refcount width, lazy
 * refcounts, LUKS key slots. */

#ifndef Q2_IMAGE_AMEND_H
#define Q2_IMAGE_AMEND_H

#include "core/image/image.h"

/* Store another backing file name and format (NULL: none) in the header; the file that is open
 * stays in use until the image is opened again. Unknown header extensions are kept byte for byte.
 * Q2_ERR_NOSPACE where they and the name do not fit the first cluster; nothing is written then. */
int q2_image_change_backing(struct q2_image *image, const char *name, const char *format,
                            struct q2_error *err);

enum q2_amend_fields {
    Q2_AMEND_VERSION = 1 << 0,
    Q2_AMEND_REFCOUNT_BITS = 1 << 1,
    Q2_AMEND_LAZY_REFCOUNTS = 1 << 2,
};

struct q2_amend_options {
    unsigned fields;  /* enum q2_amend_fields: which of the following to change */
    unsigned version; /* 2 or 3 */
    unsigned refcount_bits;
    bool lazy_refcounts;
    /* Called now and then with what is done of how much; NULL: nobody wants to know. */
    void (*progress)(void *data, uint64_t done, uint64_t total);
    void *progress_data;
};

/* Q2_ERR_UNSUPPORTED names what stands in the way: a feature that version 2 lacks, a refcount that
 * does not fit. The image is as it was then. */
int q2_image_amend(struct q2_image *image, const struct q2_amend_options *options,
                   struct q2_error *err);

/* ---- LUKS key slots; the image must have been opened with a pass phrase ---- */

/* Put another pass phrase into `slot` (-1: the first free one). `iterations` 0: by time,
 * `iteration_ms` (0: 2000). */
int q2_image_add_key(struct q2_image *image, const struct q2_secret *secret, int slot,
                     uint32_t iterations, unsigned iteration_ms, struct q2_error *err);
/* Erase a slot, or each that `secret` opens where `slot` is -1. The last one only if `force`. */
int q2_image_remove_key(struct q2_image *image, const struct q2_secret *secret, int slot,
                        bool force, struct q2_error *err);

#endif
