/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The active L1 table as a whole. */

#include "core/image/internal.h"

#include <string.h>

/* Write a table of `entries` entries, the first `count` from `l1`, at host `offset`. */
static int
write_table(struct q2_image *image, const uint64_t *l1, uint64_t count, uint64_t entries,
            uint64_t offset, struct q2_error *err)
{
    uint64_t clusters = q2_units(entries * 8, image->geometry.cluster_bits);
    uint64_t length = clusters << image->geometry.cluster_bits;
    Q2_AUTOFREE uint8_t *bytes = calloc(1, length);
    if (!bytes)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for an L1 table");
    for (uint64_t i = 0; i < count; i++)
        q2_store_be64(bytes + i * 8, l1[i]);
    return q2_meta_write(image, Q2_CLAIM_L1, offset, bytes, length, err);
}

/* Memory for a table: entries and the marks of those that are dirty. */
static int
table_memory(uint64_t entries, uint64_t **ret_l1, uint64_t **ret_dirty, struct q2_error *err)
{
    uint64_t *l1 = calloc(entries + 1, sizeof *l1);
    uint64_t *dirty = calloc(q2_units(q2_units(entries, 6), 6) + 1, sizeof *dirty);
    if (!l1 || !dirty) {
        free(l1);
        free(dirty);
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for an L1 table");
    }
    *ret_l1 = l1;
    *ret_dirty = dirty;
    return 0;
}

int
q2_l1_load(struct q2_image *image, uint64_t offset, uint64_t entries, struct q2_error *err)
{
    uint64_t *l1, *dirty;
    int rc = table_memory(entries, &l1, &dirty, err);
    if (rc < 0)
        return rc;
    if (entries > 0)
        rc = q2_meta_read(image, offset, l1, entries * 8, err);
    if (rc < 0) {
        free(l1);
        free(dirty);
        return rc;
    }
    for (uint64_t i = 0; i < entries; i++)
        l1[i] = be64toh(l1[i]);
    free(image->l1);
    free(image->l1_dirty);
    image->l1 = l1;
    image->l1_dirty = dirty;
    image->l1_any_dirty = false;
    return 0;
}

int
q2_l1_replace(struct q2_image *image, const uint64_t *l1, uint64_t count, uint64_t entries,
              struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    if (entries > Q2_MAX_L1_BYTES / 8)
        return q2_error_set(
            err, Q2_ERR_RANGE,
            "%s: an L1 table of %llu entries is larger than the maximum of %u bytes",
            image->file->name, (unsigned long long)entries, (unsigned)Q2_MAX_L1_BYTES);
    uint64_t *memory, *dirty, offset = 0, clusters = q2_units(entries * 8, bits);
    int rc = table_memory(entries, &memory, &dirty, err);
    if (rc < 0)
        return rc;
    memcpy(memory, l1, count * sizeof *l1);
    struct q2_header header = image->header;
    rc = q2_allocate(image, clusters, Q2_CLAIM_L1, &offset, err);
    bool allocated = rc == 0, led_to = false;
    if (rc == 0)
        rc = write_table(image, memory, count, entries, offset, err);
    /* The table's clusters must be counted before anything leads to it. */
    if (rc == 0)
        rc = q2_image_write_back(image, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    header.l1_table_offset = offset;
    header.l1_size = (uint32_t)entries;
    uint64_t old_offset = image->header.l1_table_offset, old_size = image->header.l1_size;
    if (rc == 0) {
        led_to = true; /* even if that fails: nobody knows what became of the write */
        rc = q2_header_store(image, &header, err);
    }
    if (rc < 0) {
        if (allocated && !led_to)
            q2_free_now(image, offset >> bits, clusters);
        free(memory);
        free(dirty);
        return rc;
    }
    free(image->l1);
    free(image->l1_dirty);
    image->l1 = memory;
    image->l1_dirty = dirty;
    image->l1_any_dirty = false;
    /* The header is not known to be durable: until the next barrier the disk may lead to either. */
    image->mapping_unsettled = true;
    q2_free_later(image, old_offset >> bits, q2_units(old_size * 8, bits));
    return 0;
}
