/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The parts of a new image follow each other without gaps. Only the refcount structures depend on
 * themselves, for they count their own clusters: their size is the smallest that is enough. */

#include "core/image/layout.h"

#include "core/base/checked.h"
#include "core/format/entry.h"

#include <inttypes.h>

struct q2_create_options
q2_create_resolve(const struct q2_create_options *options)
{
    struct q2_create_options resolved = *options;
    if (resolved.version == 0)
        resolved.version = 3;
    if (resolved.cluster_size == 0)
        resolved.cluster_size = 64 << 10;
    if (resolved.refcount_bits == 0)
        resolved.refcount_bits = 16;
    if (resolved.crypt != Q2_CRYPT_LUKS)
        return resolved;
    if (!resolved.cipher_name)
        resolved.cipher_name = "aes-256";
    if (!resolved.cipher_mode)
        resolved.cipher_mode = "xts";
    if (!resolved.ivgen_name)
        resolved.ivgen_name = "plain64";
    if (!resolved.ivgen_hash)
        resolved.ivgen_hash = "sha256";
    if (!resolved.hash)
        resolved.hash = "sha256";
    return resolved;
}

void
q2_create_header(const struct q2_create_options *options, struct q2_header *ret_header)
{
    const unsigned flags = options->flags;
    uint64_t incompatible = 0;
    if (options->data_file)
        incompatible |= Q2_INCOMPATIBLE_DATA_FILE;
    if (options->compression != Q2_COMPRESSION_ZLIB)
        incompatible |= Q2_INCOMPATIBLE_COMPRESSION;
    if (flags & Q2_CREATE_EXTENDED_L2)
        incompatible |= Q2_INCOMPATIBLE_EXTENDED_L2;
    *ret_header = (struct q2_header){
        .magic = Q2_MAGIC,
        .version = options->version,
        .cluster_bits = (uint32_t)__builtin_ctzll(options->cluster_size),
        .size = options->size,
        .crypt_method = options->crypt,
        .incompatible_features = incompatible,
        .compatible_features = flags & Q2_CREATE_LAZY_REFCOUNTS ? Q2_COMPATIBLE_LAZY_REFCOUNTS : 0,
        .autoclear_features = flags & Q2_CREATE_RAW_DATA_FILE ? Q2_AUTOCLEAR_RAW_DATA : 0,
        .refcount_order = (uint32_t)__builtin_ctz(options->refcount_bits),
        .compression_type = (uint8_t)options->compression,
    };
}

void
q2_layout_refcounts(const struct q2_geometry *geometry, uint64_t clusters,
                    uint64_t *ret_table_clusters, uint64_t *ret_blocks)
{
    uint64_t table = 0, blocks = 0, last;
    do { /* grows, by less and less, until it counts itself */
        last = table + blocks;
        blocks = q2_units(clusters + table + blocks, geometry->refcount_block_bits);
        table = q2_units(blocks, geometry->cluster_bits - 3);
    } while (table + blocks != last);
    *ret_table_clusters = table;
    *ret_blocks = blocks;
}

int
q2_layout_make(const struct q2_create_options *options, uint64_t crypto_length,
               struct q2_layout *ret_layout, struct q2_error *err)
{
    struct q2_header header;
    q2_create_header(options, &header);
    struct q2_layout layout = {0};
    q2_geometry_init(&layout.geometry, &header, 0);
    const unsigned bits = layout.geometry.cluster_bits;

    layout.l1_entries = q2_l1_entries_for(&layout.geometry, options->size);
    layout.l1_clusters = q2_units(layout.l1_entries, bits - 3);
    layout.crypto_clusters = q2_units(crypto_length, bits);
    if (q2_create_maps_all(options)) {
        layout.mapped = q2_units(options->size, bits);
        layout.l2_tables = layout.l1_entries;
        layout.data_clusters = options->data_file ? 0 : layout.mapped;
    }
    uint64_t counted =
        1 + layout.l1_clusters + layout.crypto_clusters + layout.l2_tables + layout.data_clusters;
    q2_layout_refcounts(&layout.geometry, counted, &layout.table_clusters, &layout.blocks);
    layout.total = counted + layout.table_clusters + layout.blocks;

    if (layout.table_clusters << bits > Q2_MAX_REFCOUNT_TABLE_BYTES ||
        layout.total > Q2_ENTRY_OFFSET >> bits || layout.mapped > Q2_ENTRY_OFFSET >> bits)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "size %" PRIu64 " is too large to be preallocated with cluster_size "
                            "%" PRIu64 " and refcount_bits %u",
                            options->size, options->cluster_size, options->refcount_bits);
    layout.table_first = 1;
    layout.block_first = layout.table_first + layout.table_clusters;
    layout.l1_first = layout.block_first + layout.blocks;
    layout.crypto_first = layout.l1_first + layout.l1_clusters;
    layout.l2_first = layout.crypto_first + layout.crypto_clusters;
    layout.data_first = options->data_file ? 0 : layout.l2_first + layout.l2_tables;
    *ret_layout = layout;
    return 0;
}
