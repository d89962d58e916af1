/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Opening and closing: an image is its header, and what is loaded by its numbers. */

#include "core/codec/cipher.h"
#include "core/codec/keys.h"
#include "core/image/codecs.h"
#include "core/image/disk.h"
#include "core/image/internal.h"
#include "core/image/refcounts.h"
#include "core/image/strict.h"

#include <string.h>

enum {
    FIRST_READ = 4096, /* bytes, which say how long the first cluster is: the rest follows */
    SLICE_BYTES = 4096,
    DEFAULT_L2_CACHE = 32 << 20,
    MIN_L2_CACHE = 128 << 10,
    MIN_REFCOUNT_CACHE = 32 << 10,
};

/* ---- the first cluster ---- */

static int
refuse_flags(const struct q2_image *image, struct q2_error *err)
{
    bool corrupt = image->header.incompatible_features & Q2_INCOMPATIBLE_CORRUPT;
    if (corrupt && (image->flags & Q2_IMAGE_WRITE) && !(image->flags & Q2_IMAGE_ALLOW_CORRUPT))
        return q2_error_set(err, Q2_ERR_CORRUPT,
                            "%s: the image is marked corrupt (incompatible_features 0x%llx at "
                            "offset 72) and cannot be opened for writing; qcow2-check says what is "
                            "wrong with it",
                            image->file->name,
                            (unsigned long long)image->header.incompatible_features);
    return 0;
}

static int
decode_first_cluster(struct q2_image *image, const uint8_t *bytes, size_t length,
                     uint64_t file_size, struct q2_error *err)
{
    const char *name = image->file->name;
    struct q2_strict strict;
    q2_header_decode(bytes, length, &image->header);
    if (length < 4 || image->header.magic != Q2_MAGIC)
        return q2_error_set(err, Q2_ERR_NOT_QCOW2, "%s: not a qcow2 image", name);
    if (length < Q2_HEADER_V2_LENGTH ||
        (image->header.version >= 3 && length < Q2_HEADER_V3_LENGTH))
        return q2_error_set(err, Q2_ERR_FORMAT, "%s: the file of %zu bytes ends inside its header",
                            name, length);
    q2_strict_init(&strict, name);
    unsigned usable = q2_header_validate(&image->header, file_size, &strict.sink);
    int rc = q2_strict_result(&strict, err);
    if (rc == 0)
        rc = refuse_flags(image, err);
    if (rc < 0)
        return rc;
    q2_geometry_init(&image->geometry, &image->header, file_size);
    image->sub_bits = image->geometry.cluster_bits - (image->geometry.extended_l2 ? 5 : 0);
    image->size = image->header.size;
    image->virgin = q2_units(file_size, image->geometry.cluster_bits);
    image->known_end = file_size;
    return q2_area_decode(&image->header, usable, bytes, length, name, &image->area, err);
}

/* How much of the file is its first cluster, by the bytes that were read already: nobody looks at
 * what lies behind them in a cluster of a size that there is not. */
static size_t
first_cluster_length(const uint8_t *bytes, size_t length, uint64_t file_size)
{
    struct q2_header header;
    q2_header_decode(bytes, length, &header);
    if (header.magic != Q2_MAGIC || header.cluster_bits < Q2_MIN_CLUSTER_BITS ||
        header.cluster_bits > Q2_MAX_CLUSTER_BITS)
        return length;
    return (size_t)q2_max(length, q2_min(file_size, UINT64_C(1) << header.cluster_bits));
}

static int
load_first_cluster(struct q2_image *image, struct q2_error *err)
{
    uint64_t size;
    int rc = q2_file_size(image->file, &size, err);
    if (rc < 0)
        return rc;
    size_t length = 0, wanted = (size_t)q2_min(size, FIRST_READ);
    Q2_AUTOFREE uint8_t *bytes = NULL;
    while (rc == 0 && length < wanted) {
        uint8_t *larger = realloc(bytes, wanted);
        if (!larger)
            return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the first cluster");
        bytes = larger;
        rc = q2_file_read(image->file, length, bytes + length, wanted - length, err);
        length = wanted;
        if (rc == 0)
            wanted = first_cluster_length(bytes, length, size);
    }
    return rc < 0 ? rc : decode_first_cluster(image, bytes, length, size, err);
}

/* ---- caches and tables ---- */

static int
read_slice(void *data, uint64_t offset, void *buffer, size_t length, struct q2_error *err)
{
    return q2_meta_read(data, offset, buffer, length, err);
}

static int
clean_mapping(void *data, struct q2_error *err)
{
    return q2_image_write_back(data, err);
}

static int
allow_mapping(void *data, uint64_t offset, uint64_t length, struct q2_error *err)
{
    return q2_check_overlap(data, Q2_CLAIM_L2, offset, length, err);
}

/* Refcounts may reach the disk at any time: early they leak, and those that shrink have waited. */
static int
clean_refcounts(void *data, struct q2_error *err)
{
    struct q2_image *image = data;
    return q2_cache_write(image->refcount_cache, false, err);
}

static int
allow_refcounts(void *data, uint64_t offset, uint64_t length, struct q2_error *err)
{
    return q2_check_overlap(data, Q2_CLAIM_REFCOUNT_BLOCK, offset, length, err);
}

static int
make_caches(struct q2_image *image, const struct q2_image_options *options, struct q2_error *err)
{
    const struct q2_geometry *geometry = &image->geometry;
    uint64_t slice = q2_min(SLICE_BYTES, geometry->cluster_size);
    uint64_t whole =
        q2_units(geometry->disk_size, geometry->cluster_bits) * geometry->l2_entry_size;
    uint64_t l2 = options->l2_cache_bytes
                      ? options->l2_cache_bytes
                      : q2_min(q2_max(whole + whole / 8, MIN_L2_CACHE), DEFAULT_L2_CACHE);
    uint64_t refcounts = options->refcount_cache_bytes ? options->refcount_cache_bytes
                                                       : q2_max(l2 / 4, MIN_REFCOUNT_CACHE);
    struct q2_cache_config config = {.file = image->file,
                                     .slice_bytes = slice,
                                     .data = image,
                                     .read = read_slice,
                                     .max_bytes = l2};
    config.what = "L2 table";
    config.make_clean = clean_mapping;
    config.allow_write = allow_mapping;
    int rc = q2_cache_new(&config, &image->l2_cache, err);
    if (rc < 0 || !(image->flags & Q2_IMAGE_WRITE))
        return rc;
    config.what = "refcount";
    config.max_bytes = refcounts;
    config.make_clean = clean_refcounts;
    config.allow_write = allow_refcounts;
    return q2_cache_new(&config, &image->refcount_cache, err);
}

static int
load_refcount_table(struct q2_image *image, struct q2_error *err)
{
    const struct q2_header *header = &image->header;
    uint64_t bytes = (uint64_t)header->refcount_table_clusters << header->cluster_bits;
    uint64_t entries = bytes / 8, words = q2_units(q2_units(entries, 6), 6);
    struct q2_strict strict;
    image->refcount_table = malloc(bytes);
    image->refcount_table_dirty = calloc(words, sizeof *image->refcount_table_dirty);
    if (!image->refcount_table || !image->refcount_table_dirty)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the refcount table");
    int rc = q2_meta_read(image, header->refcount_table_offset, image->refcount_table, bytes, err);
    if (rc < 0)
        return rc;
    image->refcount_table_entries = entries;
    q2_strict_init(&strict, image->file->name);
    for (uint64_t i = 0; i < entries; i++) {
        image->refcount_table[i] = be64toh(image->refcount_table[i]);
        if (image->refcount_table[i])
            q2_refcount_entry_validate(&image->geometry, image->refcount_table[i],
                                       header->refcount_table_offset + i * 8, &strict.sink);
    }
    q2_refcount_find_end(image);
    /* What a dirty image's refcount structures say is made anew in a moment. */
    return header->incompatible_features & Q2_INCOMPATIBLE_DIRTY ? 0
                                                                 : q2_strict_result(&strict, err);
}

/* ---- claims ---- */

static int
claim(struct q2_image *image, uint64_t offset, uint64_t length, enum q2_claim kind,
      struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    return q2_claims_add(image->claims, offset >> bits, q2_units(length, bits), kind, err);
}

/* What changes in a block that counts two ranges of clusters changes in both. */
static int
claim_block(struct q2_image *image, uint64_t offset, struct q2_error *err)
{
    uint64_t cluster = offset >> image->geometry.cluster_bits, at;
    if (q2_claims_clash(image->claims, cluster, 1, Q2_CLAIM_NONE, &at) == Q2_CLAIM_REFCOUNT_BLOCK)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: two entries of the refcount table lead to the block at 0x%llx",
                            image->file->name, (unsigned long long)offset);
    return claim(image, offset, image->geometry.cluster_size, Q2_CLAIM_REFCOUNT_BLOCK, err);
}

int
q2_image_claim_all(struct q2_image *image, struct q2_error *err)
{
    const struct q2_header *header = &image->header;
    uint64_t cluster_size = image->geometry.cluster_size;
    q2_claims_clear(image->claims);
    int rc = claim(image, 0, cluster_size, Q2_CLAIM_HEADER, err);
    if (rc == 0)
        rc = claim(image, header->refcount_table_offset, image->refcount_table_entries * 8,
                   Q2_CLAIM_REFCOUNT_TABLE, err);
    if (rc == 0)
        rc = claim(image, header->l1_table_offset, (uint64_t)header->l1_size * 8, Q2_CLAIM_L1, err);
    if (rc == 0 && image->area.has_crypto)
        rc = claim(image, image->area.crypto_offset, image->area.crypto_length, Q2_CLAIM_CRYPTO,
                   err);
    for (uint64_t i = 0; rc == 0 && i < image->refcount_table_entries; i++)
        if (image->refcount_table[i] & ~Q2_REFCOUNT_TABLE_RESERVED)
            rc = claim_block(image, image->refcount_table[i] & ~Q2_REFCOUNT_TABLE_RESERVED, err);
    for (uint64_t i = 0; rc == 0 && i < header->l1_size; i++)
        if (q2_entry_offset(image->l1[i]))
            rc = claim(image, q2_entry_offset(image->l1[i]), cluster_size, Q2_CLAIM_L2, err);
    if (rc == 0)
        rc = q2_snapshots_claim(image, err);
    if (rc == 0)
        rc = q2_bitmaps_claim(image, err);
    return rc;
}

/* ---- opening ---- */

static int
load_for_writing(struct q2_image *image, struct q2_error *err)
{
    int rc = load_refcount_table(image, err);
    if (rc == 0 && !image->claims)
        rc = q2_claims_new(&image->claims, err);
    if (rc == 0)
        rc = q2_image_claim_all(image, err);
    if (rc == 0 && (image->header.incompatible_features & Q2_INCOMPATIBLE_DIRTY))
        rc = q2_refcounts_rebuild(image, err);
    return rc;
}

static int
load(struct q2_image *image, const struct q2_image_options *options, struct q2_error *err)
{
    int rc = load_first_cluster(image, err);
    if (rc == 0)
        rc = q2_image_check_crypto(image, err);
    if (rc == 0)
        rc = make_caches(image, options, err);
    if (rc == 0)
        rc = q2_l1_load(image, image->header.l1_table_offset, image->header.l1_size, err);
    if (rc == 0)
        rc = q2_codecs_new(image->header.compression_type, image->geometry.cluster_size,
                           &image->codecs, err);
    if (rc == 0)
        rc = q2_snapshots_load(image, &image->snapshots, err);
    if (rc == 0)
        rc = q2_bitmaps_load(image, &image->bitmaps, err);
    if (rc == 0)
        rc = q2_image_open_data_file(image, options, err);
    if (rc == 0 && !(image->flags & Q2_IMAGE_NO_CRYPTO) && !image->cipher)
        rc = q2_image_open_cipher(image, options->secret, err);
    if (rc == 0 && !(image->flags & Q2_IMAGE_NO_BACKING) && !image->backing)
        rc = q2_image_open_backing(image, options, err);
    /* Last, as this may write: whatever else could fail has not. */
    if (rc == 0 && (image->flags & Q2_IMAGE_WRITE))
        rc = load_for_writing(image, err);
    return rc;
}

/* Release what load made, but for the other files, the cipher and the claims. */
static void
unload(struct q2_image *image)
{
    q2_area_destroy(&image->area);
    free(image->l1);
    free(image->l1_dirty);
    free(image->refcount_table);
    free(image->refcount_table_dirty);
    q2_cache_free(image->l2_cache);
    q2_cache_free(image->refcount_cache);
    q2_snapshots_free(image->snapshots);
    q2_bitmaps_free(image->bitmaps);
    q2_codecs_free(image->codecs);
    image->area = (struct q2_area){0};
    image->l1 = image->l1_dirty = image->refcount_table = image->refcount_table_dirty = NULL;
    image->l2_cache = image->refcount_cache = NULL;
    image->snapshots = NULL;
    image->bitmaps = NULL;
    image->codecs = NULL;
    image->leaving.count = image->released.count = 0;
    image->free_hint = image->leaving_clusters = 0;
    q2_pack_forget(image, 0, UINT64_MAX);
    image->refcount_table_any_dirty = image->l1_any_dirty = image->mapping_unsettled = false;
    image->refcount_table_entries = 0;
    image->header.l1_size = 0;
}

static void
destroy(struct q2_image *image)
{
    unload(image);
    q2_disk_close(image->backing, NULL);
    if (image->data != image->file)
        q2_file_close(image->data);
    q2_file_close(image->file);
    q2_claims_free(image->claims);
    free(image->leaving.runs);
    free(image->released.runs);
    q2_cipher_free(image->cipher);
    q2_luks_key_wipe(image->luks_key);
    free(image->luks_key);
    q2_ranges_destroy(&image->ranges);
    pthread_mutex_destroy(&image->lock);
    free(image);
}

int
q2_image_open_at(struct q2_file *file, const struct q2_image_options *options, unsigned depth,
                 struct q2_image **ret_image, struct q2_error *err)
{
    static const struct q2_image_options read_only;
    struct q2_image *image = calloc(1, sizeof *image);
    if (!image) {
        q2_file_close(file);
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for an image");
    }
    options = options ? options : &read_only;
    image->file = file;
    image->flags = options->flags;
    image->depth = depth;
    image->options.open_file = options->open_file;
    image->options.open_file_data = options->open_file_data;
    q2_ranges_init(&image->ranges);
    pthread_mutex_init(&image->lock, NULL);
    pthread_mutex_lock(&image->lock);
    int rc = load(image, options, err);
    pthread_mutex_unlock(&image->lock);
    if (rc < 0) {
        destroy(image);
        return rc;
    }
    *ret_image = image;
    return 0;
}

int
q2_image_open_file(struct q2_file *file, const struct q2_image_options *options,
                   struct q2_image **ret_image, struct q2_error *err)
{
    return q2_image_open_at(file, options, 0, ret_image, err);
}

int
q2_image_open(const char *path, const struct q2_image_options *options, struct q2_image **ret_image,
              struct q2_error *err)
{
    struct q2_file *file;
    int rc = q2_open_by_options(path, options, &file, err);
    return rc < 0 ? rc : q2_image_open_at(file, options, 0, ret_image, err);
}

/* ---- closing ---- */

/* All refcounts are on the disk: the image is no longer dirty. */
static int
clear_dirty(struct q2_image *image, struct q2_error *err)
{
    struct q2_header header = image->header;
    header.incompatible_features &= ~(uint64_t)Q2_INCOMPATIBLE_DIRTY;
    int rc = q2_image_barrier(image, err);
    if (rc == 0)
        rc = q2_header_store(image, &header, err);
    if (rc == 0)
        image->marked_dirty = false;
    return rc;
}

/* Under the lock. */
static int
put_down(struct q2_image *image, struct q2_error *err)
{
    if (!image->modified)
        return 0;
    if (image->broken)
        return q2_check_broken(image, err);
    struct q2_error other;
    int rc = q2_bitmaps_store(image, err);
    int settled = q2_image_settle(image, rc < 0 ? &other : err);
    rc = rc < 0 ? rc : settled;
    if (rc == 0 && image->marked_dirty)
        rc = clear_dirty(image, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    if (rc == 0)
        image->modified = false;
    return rc;
}

int
q2_image_close(struct q2_image *image, struct q2_error *err)
{
    if (!image)
        return 0;
    pthread_mutex_lock(&image->lock);
    int rc = put_down(image, err);
    pthread_mutex_unlock(&image->lock);
    destroy(image);
    return rc;
}

int
q2_image_invalidate(struct q2_image *image, struct q2_error *err)
{
    struct q2_exclusive exclusive;
    int rc = q2_exclusive_begin(image, &exclusive, false, err);
    if (rc < 0)
        return rc;
    rc = put_down(image, err);
    if (rc == 0) {
        struct q2_image_options options = {.flags = image->flags,
                                           .l2_cache_bytes = q2_cache_max_bytes(image->l2_cache)};
        unload(image);
        rc = load(image, &options, err);
        image->broken |= rc < 0;
    }
    q2_exclusive_end(image, &exclusive);
    return rc;
}
