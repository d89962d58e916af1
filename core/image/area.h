/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The first cluster as a whole: header, extensions, backing file name. What is not known is kept
 * byte for byte. */

#ifndef Q2_IMAGE_AREA_H
#define Q2_IMAGE_AREA_H

#include "core/base/error.h"
#include "core/format/extension.h"

/* What the first cluster holds besides the fields of the header. Texts are NULL where absent. */
struct q2_area {
    char *backing_file;
    char *backing_format;
    char *data_file;
    bool has_crypto;
    uint64_t crypto_offset; /* of the LUKS header, bytes */
    uint64_t crypto_length; /* bytes */
    bool has_bitmaps;
    uint32_t nb_bitmaps;
    uint64_t bitmap_directory_size;   /* bytes */
    uint64_t bitmap_directory_offset; /* bytes */
    bool has_features;                /* a feature name table is there, or to be written */
    uint8_t *features;                /* the table as it stands; NULL: ours is to be written */
    size_t features_length;
    uint8_t *tail; /* the header's bytes beyond compression_type; NULL where all are zero */
    size_t tail_length;
    uint8_t *unknown; /* extensions of unknown type as they stand, padding included */
    size_t unknown_length;
};

/* Decode from the first `length` bytes of the file. Q2_ERR_FORMAT where a rule is broken. `usable`
 * is what q2_header_validate returned. */
int q2_area_decode(const struct q2_header *header, unsigned usable, const uint8_t *bytes,
                   size_t length, const char *file_name, struct q2_area *ret_area,
                   struct q2_error *err);

/* Encode header and area into `bytes` (one cluster, zeroed where unused). Sets the header's
 * backing_file_offset, backing_file_size and header_length to what is encoded. Version 2 has no
 * feature name table and no tail. A feature name table for which there is no room is left out.
 * Q2_ERR_NOSPACE where the rest does not fit; nothing has changed then. */
int q2_area_encode(struct q2_header *header, const struct q2_area *area, uint8_t *bytes,
                   size_t cluster_size, struct q2_error *err);

/* A copy that shares nothing with the original. */
int q2_area_copy(const struct q2_area *area, struct q2_area *ret_copy, struct q2_error *err);

/* Zeroes it, too. NULL is allowed. */
void q2_area_destroy(struct q2_area *area);

#endif
