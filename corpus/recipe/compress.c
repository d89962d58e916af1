/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Compressed clusters: made as QEMU makes them, and packed one after the other into host clusters,
 * across the border to an adjacent one where that is possible. */

#include "corpus/recipe/build.h"

#include "core/base/checked.h"
#include "core/format/refcount.h"

#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { WINDOW_BITS = 12, MEMORY_LEVEL = 9, ZSTD_LEVEL = 3 };

/* Returns the number of bytes, or 0 where the result would not be smaller than a cluster. */
static size_t
deflate_cluster(const uint8_t *from, uint8_t *to, size_t size)
{
    z_stream stream = {.next_in = (Bytef *)(uintptr_t)from,
                       .avail_in = (uInt)size,
                       .next_out = to,
                       .avail_out = (uInt)size - 1};
    /* Negative window bits: no zlib header. */
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -WINDOW_BITS, MEMORY_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return 0;
    bool fits = deflate(&stream, Z_FINISH) == Z_STREAM_END;
    size_t length = stream.total_out;
    deflateEnd(&stream);
    return fits ? length : 0;
}

static size_t
zstd_cluster(const uint8_t *from, uint8_t *to, size_t size)
{
    size_t length = ZSTD_compress(to, size - 1, from, size, ZSTD_LEVEL);
    return ZSTD_isError(length) ? 0 : length;
}

/* Find room for `length` bytes, less than a cluster, and count one user more for each host cluster
 * that they touch. */
static int
allocate_bytes(struct recipe_build *build, uint64_t length, uint64_t *ret_offset)
{
    const struct q2_geometry *geometry = &build->geometry;
    struct recipe_hosts *hosts = &build->hosts;
    uint64_t at = hosts->packed, size = geometry->cluster_size, extra = 0;
    uint64_t left = at ? size - (at & (size - 1)) : 0;
    bool open = at && left < size &&
                *recipe_refcount(build, at) < q2_refcount_max(geometry->refcount_order);
    bool adjacent = open && (at >> geometry->cluster_bits) + 1 == hosts->next &&
                    hosts->next >> geometry->refcount_block_bits < hosts->block_count;
    int rc;
    if (open && (length <= left || adjacent)) {
        rc = recipe_refer(build, at);
        if (rc == 0 && length > left)
            rc = recipe_allocate(build, 1, &extra);
    } else {
        rc = recipe_allocate(build, 1, &at);
    }
    if (rc)
        return rc;
    hosts->packed = at + length;
    *ret_offset = at;
    return 0;
}

int
recipe_store_packed(struct recipe_build *build, uint64_t guest)
{
    size_t size = (size_t)build->geometry.cluster_size;
    int rc = q2_file_read_padded(build->view, guest, build->cluster, size, build->err);
    if (rc)
        return rc;
    size_t length = build->header.compression_type == Q2_COMPRESSION_ZSTD
                        ? zstd_cluster(build->cluster, build->packed, size)
                        : deflate_cluster(build->cluster, build->packed, size);
    if (length == 0)
        return recipe_store(build, guest, q2_min(size, build->header.size - guest));

    struct q2_l2_entry *entry = NULL;
    uint64_t offset = 0;
    rc = recipe_map_writable(build, guest, &entry);
    rc = rc ? rc : allocate_bytes(build, length, &offset);
    if (rc)
        return rc;
    recipe_release_entry(build, entry->raw);
    *entry = (struct q2_l2_entry){.raw = q2_compressed_encode(&build->geometry, offset, length)};
    return q2_file_write(build->image, offset, build->packed, length, build->err);
}
