/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Metadata that is written to the file directly, and what protects metadata from being written
 * over. */

#include "core/image/internal.h"

#include <inttypes.h>
#include <string.h>

enum { SECTOR = 512 };

/* Set the corrupt bit, as far as the image can still be written at all. */
static void
mark_corrupt(struct q2_image *image)
{
    image->broken = true;
    if (image->header.version < 3)
        return;
    struct q2_header header = image->header;
    header.incompatible_features |= Q2_INCOMPATIBLE_CORRUPT;
    uint8_t bytes[8];
    struct q2_header_field field = {0};
    q2_header_field("incompatible_features", &field);
    q2_store_be64(bytes, header.incompatible_features);
    if (q2_file_write(image->file, field.offset, bytes, sizeof bytes, NULL) == 0) {
        image->header = header;
        q2_file_flush(image->file, NULL);
    }
}

int
q2_check_broken(const struct q2_image *image, struct q2_error *err)
{
    if (!image->broken)
        return 0;
    return q2_error_set(err, Q2_ERR_CORRUPT, "%s: the image is corrupt and no longer written",
                        image->file->name);
}

int
q2_check_overlap(struct q2_image *image, enum q2_claim allowed, uint64_t offset, uint64_t length,
                 struct q2_error *err)
{
    int rc = q2_check_broken(image, err);
    if (rc < 0)
        return rc;
    unsigned bits = image->geometry.cluster_bits;
    uint64_t first = offset >> bits, count = q2_units(offset + length, bits) - first, cluster = 0;
    enum q2_claim claim = q2_claims_clash(image->claims, first, count, allowed, &cluster);
    if (claim == Q2_CLAIM_NONE)
        return 0;
    mark_corrupt(image);
    return q2_error_set(err, Q2_ERR_CORRUPT,
                        "%s: a write of %s at 0x%" PRIx64 " would hit %s; the image is corrupt "
                        "and no longer written",
                        image->file->name, q2_claim_name(allowed), cluster << bits,
                        q2_claim_name(claim));
}

int
q2_meta_read(struct q2_image *image, uint64_t offset, void *buffer, size_t length,
             struct q2_error *err)
{
    /* The last cluster of a file may be cut short, but bytes that were there do not vanish: zeros
     * in their place would be tables and refcounts that say nothing is in use. */
    uint64_t known = image->known_end;
    size_t sure = offset < known ? (size_t)q2_min(length, known - offset) : 0;
    int rc = sure ? q2_file_read(image->file, offset, buffer, sure, err) : 0;
    if (rc == 0 && sure < length)
        rc = q2_file_read_padded(image->file, offset + sure, (uint8_t *)buffer + sure,
                                 length - sure, err);
    return rc;
}

int
q2_meta_write(struct q2_image *image, enum q2_claim claim, uint64_t offset, const void *buffer,
              size_t length, struct q2_error *err)
{
    int rc = q2_check_overlap(image, claim, offset, length, err);
    if (rc == 0)
        rc = q2_file_write(image->file, offset, buffer, length, err);
    if (rc == 0)
        q2_image_reached(image, offset + length);
    return rc;
}

int
q2_header_store(struct q2_image *image, const struct q2_header *header, struct q2_error *err)
{
    uint8_t bytes[Q2_HEADER_KNOWN_LENGTH];
    size_t length = q2_header_encode(header, bytes);
    int rc = q2_meta_write(image, Q2_CLAIM_HEADER, 0, bytes, length, err);
    if (rc == 0)
        image->header = *header;
    return rc;
}

/* Write the sectors of the first cluster that differ from what is there, all at once. */
static int
write_first_cluster(struct q2_image *image, const uint8_t *bytes, size_t length,
                    struct q2_error *err)
{
    Q2_AUTOFREE uint8_t *old = malloc(length);
    if (!old)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the first cluster");
    int rc = q2_meta_read(image, 0, old, length, err);
    if (rc < 0)
        return rc;
    size_t start = 0, end = length;
    while (start < end && memcmp(old + start, bytes + start, SECTOR) == 0)
        start += SECTOR;
    while (end > start && memcmp(old + end - SECTOR, bytes + end - SECTOR, SECTOR) == 0)
        end -= SECTOR;
    if (start == end)
        return 0;
    return q2_meta_write(image, Q2_CLAIM_HEADER, start, bytes + start, end - start, err);
}

int
q2_area_store(struct q2_image *image, const struct q2_header *header, struct q2_area *area,
              struct q2_error *err)
{
    size_t cluster_size = image->geometry.cluster_size;
    struct q2_header stored = *header;
    Q2_AUTOFREE uint8_t *bytes = calloc(1, cluster_size);
    if (!bytes)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the first cluster");
    int rc = q2_area_encode(&stored, area, bytes, cluster_size, err);
    if (rc == 0)
        rc = write_first_cluster(image, bytes, cluster_size, err);
    if (rc < 0)
        return rc;
    image->header = stored;
    if (area != &image->area) {
        q2_area_destroy(&image->area);
        image->area = *area;
        *area = (struct q2_area){0};
    }
    return 0;
}
