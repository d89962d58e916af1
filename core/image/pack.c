/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Writing compressed clusters ("Compressed Clusters Descriptor" in the specification): streams are
 * packed one behind the other, and a host cluster is counted once for each that touches it. */

#include "core/image/codecs.h"
#include "core/image/data.h"
#include "core/image/refcounts.h"

#include <inttypes.h>
#include <string.h>

/* Whether compressed clusters can be written at all. */
static int
check_possible(struct q2_image *image, uint64_t offset, uint64_t length, struct q2_error *err)
{
    const struct q2_geometry *geometry = &image->geometry;
    const char *obstacle = geometry->data_file   ? "a data file"
                           : geometry->encrypted ? "encryption"
                                                 : NULL;
    if (obstacle)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "%s: no compressed clusters with %s",
                            image->file->name, obstacle);
    int rc = q2_image_check_range(image, "write", offset, length, err);
    if (rc < 0)
        return rc;
    bool last = offset + length == image->size;
    if (offset & (geometry->cluster_size - 1) || length > geometry->cluster_size || length == 0 ||
        (length < geometry->cluster_size && !last))
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: %" PRIu64 " bytes at %" PRIu64 " are not one cluster of %" PRIu64,
                            image->file->name, length, offset, geometry->cluster_size);
    return 0;
}

/* ---- finding bytes, under the lock ---- */

static int
new_cluster(struct q2_image *image, uint64_t at, uint64_t *ret_cluster, uint64_t *ret_count,
            struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    int rc = q2_allocate_run(image, 1, at, ret_cluster, ret_count, err);
    if (rc < 0 || *ret_count == 0)
        return rc;
    rc = q2_check_overlap(image, Q2_CLAIM_NONE, *ret_cluster << bits, UINT64_C(1) << bits, err);
    if (rc == 0)
        q2_image_grew(image, *ret_cluster, 1);
    return rc;
}

/* Count one more stream in the cluster at *offset. Where its refcount does not allow that, nothing
 * can be packed there: *offset becomes 0. */
static int
join(struct q2_image *image, uint64_t *offset, struct q2_error *err)
{
    uint64_t cluster = *offset >> image->geometry.cluster_bits, refcount;
    int rc = q2_refcount_read(image, cluster, &refcount, err);
    if (rc < 0)
        return rc;
    if (refcount < q2_refcount_max(image->geometry.refcount_order))
        return q2_refcount_raise(image, cluster, 1, err);
    *offset = 0;
    return 0;
}

/* Where a stream fits into what is left of a cluster: the place with the least to spare. */
static uint64_t *
best_place(struct q2_image *image, uint64_t length)
{
    uint64_t cluster_size = image->geometry.cluster_size, least = UINT64_MAX;
    uint64_t *best = NULL;
    for (unsigned i = 0; i < Q2_PACK_OFFSETS; i++) {
        uint64_t *place = &image->pack_offsets[i];
        uint64_t room = *place ? cluster_size - (*place & (cluster_size - 1)) : 0;
        if (room >= length && room < least) {
            least = room;
            best = place;
        }
    }
    return best;
}

/* Behind what was packed last and on into the next cluster; *ret_offset 0: that is in use. */
static int
extend(struct q2_image *image, uint64_t *ret_offset, struct q2_error *err)
{
    uint64_t offset = image->pack_offsets[0], next = 0, got = 0;
    *ret_offset = 0;
    if (!offset)
        return 0;
    int rc = new_cluster(image, (offset >> image->geometry.cluster_bits) + 1, &next, &got, err);
    if (rc < 0 || got == 0)
        return rc;
    rc = join(image, &offset, err);
    if (rc < 0 || !offset)
        q2_free_now(image, next, got);
    else
        *ret_offset = offset;
    return rc;
}

/* Remember the place behind what was packed last among the others, instead of the smallest. */
static void
keep_rest(struct q2_image *image)
{
    uint64_t mask = image->geometry.cluster_size - 1;
    uint64_t *smallest = &image->pack_offsets[1];
    for (unsigned i = 1; i < Q2_PACK_OFFSETS; i++) {
        uint64_t *place = &image->pack_offsets[i];
        if (!*place || (*smallest && (*place & mask) > (*smallest & mask)))
            smallest = place;
    }
    if (!*smallest ||
        (image->pack_offsets[0] && (image->pack_offsets[0] & mask) < (*smallest & mask)))
        *smallest = image->pack_offsets[0];
}

static int
find_bytes(struct q2_image *image, uint64_t length, uint64_t *ret_offset, struct q2_error *err)
{
    const struct q2_geometry *geometry = &image->geometry;
    uint64_t *place, offset = 0, cluster, count;
    int rc = 0;
    while (rc == 0 && !offset && (place = best_place(image, length)) != NULL) {
        offset = *place;
        rc = join(image, &offset, err);
        if (!offset)
            *place = 0;
    }
    if (rc == 0 && !offset) {
        place = &image->pack_offsets[0]; /* too little room is left there: a cluster more */
        rc = extend(image, &offset, err);
    }
    if (rc == 0 && !offset) {
        rc = new_cluster(image, 0, &cluster, &count, err);
        keep_rest(image);
        offset = rc == 0 ? cluster << geometry->cluster_bits : 0;
    }
    if (rc < 0)
        return rc;
    uint64_t end = offset + length;
    *place = end & (geometry->cluster_size - 1) ? end : 0;
    *ret_offset = offset;
    return 0;
}

/* The host clusters of bytes that were found are not needed after all. */
static void
give_back(struct q2_image *image, uint64_t offset, uint64_t length)
{
    unsigned bits = image->geometry.cluster_bits;
    uint64_t first = offset >> bits, count = ((offset + length - 1) >> bits) - first + 1;
    q2_free_now(image, first, count);
    q2_pack_forget(image, first, count);
}

/* ---- requests ---- */

static int
place(struct q2_image *image, uint64_t length, uint64_t *ret_raw, struct q2_error *err)
{
    /* How many bits a descriptor has for the offset. */
    unsigned offset_bits = 62 - (image->geometry.cluster_bits - 8);
    uint64_t offset = 0;
    int rc = q2_image_prepare_write(image, err);
    if (rc == 0)
        rc = q2_image_tidy(image, err);
    if (rc == 0)
        rc = find_bytes(image, length, &offset, err);
    if (rc < 0)
        return rc;
    if ((offset + length) >> offset_bits) {
        give_back(image, offset, length);
        return q2_error_set(err, Q2_ERR_NOSPACE,
                            "%s: no compressed cluster can be at 0x%" PRIx64 " or beyond",
                            image->file->name, UINT64_C(1) << offset_bits);
    }
    *ret_raw = q2_compressed_encode(&image->geometry, offset, length);
    return 0;
}

static int
map_stream(struct q2_image *image, uint64_t guest, uint64_t raw, struct q2_error *err)
{
    uint8_t *bytes;
    uint64_t count;
    struct q2_l2_entry old, entry = {.raw = raw};
    int rc = q2_l2_open(image, guest, &bytes, &count, err);
    if (rc == 0)
        rc = q2_l2_entry_at(image, bytes, 0, guest, &old, err);
    if (rc < 0)
        return rc;
    q2_l2_store(image, bytes, 0, &entry);
    q2_l2_release(image, &old);
    return 0;
}

/* With the cluster held exclusively. */
static int
write_stream(struct q2_image *image, uint64_t offset, const uint8_t *stream, size_t length,
             struct q2_error *err)
{
    uint64_t raw = 0;
    pthread_mutex_lock(&image->lock);
    int rc = place(image, length, &raw, err);
    pthread_mutex_unlock(&image->lock);
    if (rc < 0)
        return rc;
    uint64_t host = q2_compressed_decode(&image->geometry, raw).offset;
    rc = q2_file_write(image->file, host, stream, length, err);
    if (rc == 0)
        q2_image_reached(image, host + length);
    q2_codecs_forget(image->codecs);
    pthread_mutex_lock(&image->lock);
    if (rc == 0)
        rc = map_stream(image, offset, raw, err);
    if (rc < 0)
        give_back(image, host, length);
    pthread_mutex_unlock(&image->lock);
    return rc;
}

int
q2_image_write_stream(struct q2_image *image, uint64_t offset, const uint8_t *stream,
                      size_t stream_length, struct q2_error *err)
{
    uint64_t cluster_size = image->geometry.cluster_size;
    struct q2_range range;
    q2_range_hold(&image->ranges, &range, offset, q2_end(offset, cluster_size), true);
    uint64_t left = offset < image->size ? image->size - offset : 0;
    int rc = check_possible(image, offset, q2_min(cluster_size, left), err);
    if (rc == 0 && (stream_length == 0 || stream_length >= cluster_size))
        rc = q2_error_set(err, Q2_ERR_RANGE, "%s: a stream of %zu bytes is no compressed cluster",
                          image->file->name, stream_length);
    if (rc == 0)
        rc = write_stream(image, offset, stream, stream_length, err);
    q2_bitmaps_mark(image, offset, q2_min(cluster_size, left));
    q2_range_release(&image->ranges, &range);
    return rc;
}

static int
compress(struct q2_image *image, const void *buffer, size_t length, uint8_t **ret_stream,
         size_t *ret_length, struct q2_error *err)
{
    size_t cluster_size = image->geometry.cluster_size;
    if (!image->codecs)
        return q2_error_set(err, Q2_ERR_IO, "%s: the image could not be read anew",
                            image->file->name);
    if (length >= cluster_size)
        return q2_codecs_compress(image->codecs, buffer, ret_stream, ret_length, err);
    /* The last cluster of the disk is compressed as a whole all the same. */
    Q2_AUTOFREE uint8_t *cluster = calloc(1, cluster_size);
    if (!cluster)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory to compress");
    memcpy(cluster, buffer, length);
    return q2_codecs_compress(image->codecs, cluster, ret_stream, ret_length, err);
}

int
q2_image_compress(struct q2_image *image, const void *buffer, size_t length, uint8_t **ret_stream,
                  size_t *ret_length, struct q2_error *err)
{
    /* No guest cluster, but in the way of whoever takes the image apart. */
    struct q2_range range;
    q2_range_hold(&image->ranges, &range, UINT64_MAX - 1, UINT64_MAX, false);
    int rc = compress(image, buffer, length, ret_stream, ret_length, err);
    q2_range_release(&image->ranges, &range);
    return rc;
}

int
q2_image_write_compressed(struct q2_image *image, uint64_t offset, const void *buffer,
                          size_t length, struct q2_error *err)
{
    Q2_AUTOFREE uint8_t *stream = NULL;
    size_t stream_length;
    int rc = check_possible(image, offset, length, err);
    if (rc == 0)
        rc = q2_image_compress(image, buffer, length, &stream, &stream_length, err);
    if (rc < 0)
        return rc;
    return stream ? q2_image_write_stream(image, offset, stream, stream_length, err)
                  : q2_image_write(image, offset, buffer, length, err);
}
