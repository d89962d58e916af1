/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Where everything of a new image goes, in closed form: nothing is allocated one by one. Private to
 * core/image. */

#ifndef Q2_IMAGE_LAYOUT_H
#define Q2_IMAGE_LAYOUT_H

#include "core/format/header.h"
#include "core/image/create.h"

/* Host clusters, in the order that they have in the file; behind the header in cluster 0. */
struct q2_layout {
    struct q2_geometry geometry;
    uint64_t table_first, table_clusters; /* refcount table */
    uint64_t block_first, blocks;         /* refcount blocks */
    uint64_t l1_first, l1_clusters, l1_entries;
    uint64_t crypto_first, crypto_clusters; /* LUKS header and key material */
    uint64_t l2_first, l2_tables;
    uint64_t mapped;                    /* guest clusters that have a place from the start */
    uint64_t data_first, data_clusters; /* of these, in this file */
    uint64_t total;
};

/* The options with values in place of their defaults. */
struct q2_create_options q2_create_resolve(const struct q2_create_options *options);

/* Whether all guest clusters are mapped from the start: preallocation, or a raw data file, which is
 * the guest's disk from its first byte to its last. */
static inline bool
q2_create_maps_all(const struct q2_create_options *options)
{
    return options->preallocation != Q2_PREALLOCATION_OFF ||
           (options->flags & Q2_CREATE_RAW_DATA_FILE);
}

/* Lay out an image for valid, resolved options; `crypto_length` in bytes, of LUKS. Q2_ERR_RANGE:
 * no image can be as large as that. */
int q2_layout_make(const struct q2_create_options *options, uint64_t crypto_length,
                   struct q2_layout *ret_layout, struct q2_error *err);

/* The clusters that a refcount table and refcount blocks take that count `clusters` others and
 * themselves. */
void q2_layout_refcounts(const struct q2_geometry *geometry, uint64_t clusters,
                         uint64_t *ret_table_clusters, uint64_t *ret_blocks);

/* A header for valid, resolved options; places are all 0. */
void q2_create_header(const struct q2_create_options *options, struct q2_header *ret_header);

/* ---- what a LUKS header is made from ---- */

struct q2_luks_options;

enum { Q2_LUKS_MODE_SIZE = 48 };

/* `mode` gets the text of cipher_mode. */
void q2_create_luks(const struct q2_create_options *options, char mode[Q2_LUKS_MODE_SIZE],
                    struct q2_luks_options *ret_luks);

/* Bytes of a LUKS header with its key material, 0 for images that have none. */
uint64_t q2_create_luks_length(const struct q2_create_options *options);

#endif
