/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A new image is written straight down, in large pieces and in the order of the file, by a layout
 * that was computed before. The header comes last, behind a barrier: until then the file is no
 * image at all, rather than a broken one. */

#include "core/image/create.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/codec/keys.h"
#include "core/codec/secret.h"
#include "core/format/entry.h"
#include "core/format/refcount.h"
#include "core/image/area.h"
#include "core/image/layout.h"
#include "core/io/file.h"

#include <inttypes.h>
#include <string.h>

enum {
    PIECE = 1 << 20, /* bytes to write at once, or one cluster */
    REPEAT = 64,     /* refcount blocks to write at once */
};

struct creation {
    const struct q2_create_options *options; /* resolved */
    struct q2_layout layout;
    struct q2_file *file, *data_file;
    uint8_t *crypto; /* LUKS header and key material */
    size_t crypto_length;
    bool fresh; /* the file reads as zeros where nothing was written */
};

static uint64_t
bytes_of(const struct creation *c, uint64_t clusters)
{
    return clusters << c->layout.geometry.cluster_bits;
}

static int
no_memory(struct q2_error *err)
{
    return q2_error_set(err, Q2_ERR_NOMEM, "no memory to make an image");
}

/* ---- room ---- */

/* Empty a file. A block device keeps its size and its bytes: then *ret_fresh is false. */
static int
empty(struct q2_file *file, uint64_t needed, bool *ret_fresh, struct q2_error *err)
{
    uint64_t size;
    int rc = q2_file_truncate(file, 0, err);
    if (rc == 0) {
        *ret_fresh = true;
        return 0;
    }
    if (rc != Q2_ERR_UNSUPPORTED)
        return rc;
    rc = q2_file_size(file, &size, err);
    if (rc < 0)
        return rc;
    if (size < needed)
        return q2_error_set(err, Q2_ERR_NOSPACE,
                            "%s: has %" PRIu64 " bytes, where the image needs %" PRIu64, file->name,
                            size, needed);
    *ret_fresh = false;
    return 0;
}

/* Make [offset, offset + length), the end of an emptied file, zeros that take as much space as the
 * preallocation says. */
static int
make_room(struct q2_file *file, bool fresh, uint64_t offset, uint64_t length,
          enum q2_preallocation preallocation, struct q2_error *err)
{
    int rc = 0;
    if (length == 0)
        return 0;
    if (!fresh) /* zeros, and whatever the device makes of the rest */
        return preallocation == Q2_PREALLOCATION_FULL
                   ? q2_file_write_zeros(file, offset, length, err)
                   : q2_file_punch(file, offset, length, err);
    if (preallocation == Q2_PREALLOCATION_FALLOC)
        return q2_file_reserve(file, offset, length, err);
    rc = q2_file_truncate(file, offset + length, err);
    if (rc == 0 && preallocation == Q2_PREALLOCATION_FULL)
        rc = q2_file_write_zeros(file, offset, length, err);
    return rc;
}

static int
make_rooms(struct creation *c, struct q2_error *err)
{
    const struct q2_layout *layout = &c->layout;
    enum q2_preallocation preallocation = c->options->preallocation;
    uint64_t data = bytes_of(c, layout->data_clusters), total = bytes_of(c, layout->total);
    int rc = empty(c->file, total, &c->fresh, err);
    if (rc == 0)
        rc = make_room(c->file, c->fresh, 0, total - data, Q2_PREALLOCATION_OFF, err);
    if (rc == 0)
        rc = make_room(c->file, c->fresh, total - data, data, preallocation, err);
    if (rc < 0 || !c->data_file)
        return rc;

    bool fresh = true;
    rc = empty(c->data_file, c->options->size, &fresh, err);
    return rc < 0 ? rc : make_room(c->data_file, fresh, 0, c->options->size, preallocation, err);
}

/* ---- metadata ---- */

static int
write_refcount_table(struct creation *c, struct q2_error *err)
{
    const struct q2_layout *layout = &c->layout;
    Q2_AUTOFREE uint8_t *table = calloc(layout->blocks, 8);
    if (!table)
        return no_memory(err);
    for (uint64_t i = 0; i < layout->blocks; i++)
        q2_store_be64(table + i * 8, bytes_of(c, layout->block_first + i));
    return q2_file_write(c->file, bytes_of(c, layout->table_first), table, layout->blocks * 8, err);
}

/* Every cluster of the file has refcount 1, so all blocks but the last one are the same. */
static int
write_refcount_blocks(struct creation *c, struct q2_error *err)
{
    const struct q2_geometry *g = &c->layout.geometry;
    uint64_t entries = UINT64_C(1) << g->refcount_block_bits;
    uint64_t full = c->layout.total >> g->refcount_block_bits, offset;
    Q2_AUTOFREE uint8_t *block = calloc(1, g->cluster_size);
    struct iovec iov[REPEAT];
    int rc = 0;
    if (!block)
        return no_memory(err);

    offset = bytes_of(c, c->layout.block_first);
    for (uint64_t i = 0; full && i < entries; i++)
        q2_refcount_set(block, g->refcount_order, i, 1);
    for (unsigned i = 0; i < REPEAT; i++)
        iov[i] = (struct iovec){.iov_base = block, .iov_len = g->cluster_size};
    for (uint64_t done = 0; done < full && rc == 0;) {
        uint64_t count = q2_min(full - done, REPEAT);
        rc = q2_file_pwritev(c->file, iov, (int)count, offset, err);
        offset += bytes_of(c, count);
        done += count;
    }
    if (rc < 0 || full == c->layout.blocks)
        return rc;
    memset(block, 0, g->cluster_size);
    for (uint64_t i = 0; i < c->layout.total - full * entries; i++)
        q2_refcount_set(block, g->refcount_order, i, 1);
    return q2_file_write(c->file, offset, block, g->cluster_size, err);
}

static int
write_l1(struct creation *c, struct q2_error *err)
{
    const struct q2_layout *layout = &c->layout;
    if (layout->l2_tables == 0)
        return 0; /* zeros, as they are there */
    Q2_AUTOFREE uint8_t *table = calloc(layout->l1_entries, 8);
    if (!table)
        return no_memory(err);
    for (uint64_t i = 0; i < layout->l2_tables; i++)
        q2_store_be64(table + i * 8, bytes_of(c, layout->l2_first + i) | Q2_ENTRY_COPIED);
    return q2_file_write(c->file, bytes_of(c, layout->l1_first), table, layout->l1_entries * 8,
                         err);
}

/* What all entries have in common. Zeros in the file are no zeros once they are decrypted, so the
 * clusters of encrypted images are marked to read as zeros where the version has a way to say so.
 * Subclusters are all unallocated: they read as zeros or show the backing file. */
static uint64_t
l2_flags(const struct creation *c)
{
    const struct q2_geometry *g = &c->layout.geometry;
    bool zero = g->encrypted && g->version >= 3 && !g->extended_l2;
    return Q2_ENTRY_COPIED | (zero ? Q2_ENTRY_ZERO : 0);
}

static int
write_l2(struct creation *c, struct q2_error *err)
{
    const struct q2_layout *layout = &c->layout;
    const struct q2_geometry *g = &layout->geometry;
    const uint64_t piece = q2_max(PIECE, g->cluster_size), flags = l2_flags(c);
    const uint64_t bytes = bytes_of(c, layout->l2_tables);
    if (bytes == 0)
        return 0;
    Q2_AUTOFREE uint8_t *tables = calloc(1, q2_min(piece, bytes));
    uint64_t next = 0;
    int rc = 0;
    if (!tables)
        return no_memory(err);
    for (uint64_t done = 0; done < bytes && rc == 0; done += piece) {
        uint64_t length = q2_min(piece, bytes - done);
        uint8_t *at = tables, *end = tables + length;
        for (; at < end && next < layout->mapped; at += g->l2_entry_size, next++)
            q2_store_be64(at, bytes_of(c, layout->data_first + next) | flags);
        memset(at, 0, (size_t)(end - at));
        rc = q2_file_write(c->file, bytes_of(c, layout->l2_first) + done, tables, length, err);
    }
    return rc;
}

static int
write_header(struct creation *c, struct q2_error *err)
{
    const struct q2_create_options *options = c->options;
    const struct q2_layout *layout = &c->layout;
    struct q2_header header;
    q2_create_header(options, &header);
    header.l1_size = (uint32_t)layout->l1_entries;
    header.l1_table_offset = layout->l1_entries ? bytes_of(c, layout->l1_first) : 0;
    header.refcount_table_offset = bytes_of(c, layout->table_first);
    header.refcount_table_clusters = (uint32_t)layout->table_clusters;
    /* The area only lends the names. */
    const struct q2_area area = {
        .backing_file = (char *)(uintptr_t)options->backing_file,
        .backing_format = (char *)(uintptr_t)options->backing_format,
        .data_file = (char *)(uintptr_t)options->data_file,
        .has_crypto = options->crypt == Q2_CRYPT_LUKS,
        .crypto_offset = bytes_of(c, layout->crypto_first),
        .crypto_length = c->crypto_length,
        .has_features = true,
    };
    Q2_AUTOFREE uint8_t *cluster = malloc(options->cluster_size);
    if (!cluster)
        return no_memory(err);
    int rc = q2_area_encode(&header, &area, cluster, options->cluster_size, err);
    return rc < 0 ? rc : q2_file_write(c->file, 0, cluster, options->cluster_size, err);
}

static int
make_crypto(struct creation *c, struct q2_error *err)
{
    char mode[Q2_LUKS_MODE_SIZE];
    struct q2_luks_options luks;
    struct q2_luks_key key = {0};
    if (c->options->crypt != Q2_CRYPT_LUKS)
        return 0;
    q2_create_luks(c->options, mode, &luks);
    int rc = q2_luks_format(&luks, c->options->secret->bytes, c->options->secret->length,
                            &c->crypto, &c->crypto_length, &key, err);
    q2_luks_key_wipe(&key);
    return rc;
}

static int
write_image(struct creation *c, struct q2_error *err)
{
    int rc = make_rooms(c, err);
    if (rc == 0)
        rc = write_refcount_table(c, err);
    if (rc == 0)
        rc = write_refcount_blocks(c, err);
    if (rc == 0)
        rc = write_l1(c, err);
    if (rc == 0 && c->crypto)
        rc = q2_file_write(c->file, bytes_of(c, c->layout.crypto_first), c->crypto,
                           c->crypto_length, err);
    if (rc == 0)
        rc = write_l2(c, err);
    if (rc == 0 && c->data_file)
        rc = q2_file_flush(c->data_file, err);
    if (rc == 0)
        rc = q2_file_flush(c->file, err);
    if (rc == 0)
        rc = write_header(c, err);
    if (rc == 0)
        rc = q2_file_flush(c->file, err);
    if (rc < 0) /* leave nothing that could be taken for an image; it has failed already */
        q2_file_truncate(c->file, 0, NULL);
    return rc;
}

int
q2_image_format(struct q2_file *file, struct q2_file *data_file,
                const struct q2_create_options *options, struct q2_error *err)
{
    struct q2_create_options resolved = q2_create_resolve(options);
    struct creation c = {.options = &resolved, .file = file, .data_file = data_file};
    int rc = q2_create_validate(options, err);
    if (rc < 0)
        return rc;
    if (!data_file != !options->data_file)
        return q2_error_set(err, Q2_ERR_RANGE, "%s: %s", file->name,
                            data_file ? "a data file is given, but no name for it"
                                      : "the data file is named, but not given");
    rc = make_crypto(&c, err);
    if (rc == 0)
        rc = q2_layout_make(&resolved, c.crypto_length, &c.layout, err);
    if (rc == 0)
        rc = write_image(&c, err);
    free(c.crypto);
    return rc;
}
