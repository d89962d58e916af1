/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the header says of the image, changed in one write each. What stands in the way is looked
 * for before anything changes. */

#include "core/image/amend.h"

#include "core/image/bitmap_list.h"
#include "core/image/refcount_width.h"
#include "core/image/snapshot_table.h"

#include <inttypes.h>
#include <string.h>

/* ---- the backing file ---- */

static int
check_backing(const struct q2_image *image, const char *name, const char *format,
              struct q2_error *err)
{
    const char *file = image->file->name;
    if (format && !name)
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: a backing format cannot be stored without a backing file", file);
    if (name && (image->header.autoclear_features & Q2_AUTOCLEAR_RAW_DATA))
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: an image with a raw data file cannot have a backing file", file);
    if (name && (*name == 0 || strlen(name) > Q2_MAX_NAME))
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: a backing file name of %zu bytes; it can have 1 to %u", file,
                            strlen(name), (unsigned)Q2_MAX_NAME);
    if (format && (*format == 0 || strlen(format) > Q2_MAX_BACKING_FORMAT))
        return q2_error_set(err, Q2_ERR_RANGE,
                            "%s: a backing format of %zu bytes; it can have 1 to %u", file,
                            strlen(format), (unsigned)Q2_MAX_BACKING_FORMAT);
    return 0;
}

/* Another text in place of *text. */
static int
set_text(char **text, const char *value, struct q2_error *err)
{
    char *copy = value ? strdup(value) : NULL;
    if (value && !copy)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a name");
    free(*text);
    *text = copy;
    return 0;
}

static int
store_backing(struct q2_image *image, const char *name, const char *format, struct q2_error *err)
{
    struct q2_area area;
    int rc = q2_area_copy(&image->area, &area, err);
    if (rc < 0)
        return rc;
    rc = set_text(&area.backing_file, name, err);
    if (rc == 0)
        rc = set_text(&area.backing_format, format, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    if (rc == 0)
        rc = q2_area_store(image, &image->header, &area, err);
    if (rc == 0)
        rc = q2_image_barrier(image, err);
    q2_area_destroy(&area);
    return rc;
}

int
q2_image_change_backing(struct q2_image *image, const char *name, const char *format,
                        struct q2_error *err)
{
    struct q2_exclusive exclusive;
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    rc = check_backing(image, name, format, err);
    if (rc == 0)
        rc = store_backing(image, name, format, err);
    q2_exclusive_end(image, &exclusive);
    return rc;
}

/* ---- what version 2 cannot hold ---- */

/* What the image has that version 2 has not; NULL: nothing. */
static const char *
newer_feature(const struct q2_image *image, unsigned refcount_bits)
{
    uint64_t incompatible = image->header.incompatible_features;
    if (refcount_bits != 16)
        return "refcounts that do not have 16 bits";
    if (incompatible & Q2_INCOMPATIBLE_DATA_FILE)
        return "an external data file";
    if (incompatible & Q2_INCOMPATIBLE_COMPRESSION)
        return "a compression type that is not zlib";
    if (incompatible & Q2_INCOMPATIBLE_EXTENDED_L2)
        return "extended L2 entries";
    if (incompatible & Q2_INCOMPATIBLE_CORRUPT)
        return "the corrupt bit";
    if (image->bitmaps && image->bitmaps->count > 0)
        return "bitmaps";
    if (image->header.compatible_features & ~(uint64_t)Q2_COMPATIBLE_KNOWN)
        return "compatible features that are unknown";
    if (image->area.tail)
        return "header fields that are unknown";
    return NULL;
}

/* Version 2 takes the size of a snapshot's disk to be the image's, and has 32 bits for that of the
 * VM state. */
static int
check_snapshots(struct q2_image *image, struct q2_error *err)
{
    for (unsigned i = 0; image->snapshots && i < image->snapshots->count; i++) {
        const struct q2_snapshot *snapshot = &image->snapshots->entries[i].fixed;
        bool other_size = snapshot->has_disk_size && snapshot->disk_size != image->size;
        if (other_size || snapshot->vm_state_size > UINT32_MAX)
            return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                                "%s: cannot become version 2: snapshot %u has %s",
                                image->file->name, i + 1,
                                other_size ? "a disk of another size"
                                           : "VM state of 4 GiB or more");
    }
    return q2_zero_clusters_refuse(image, err);
}

static int
check_version(struct q2_image *image, const struct q2_amend_options *options, unsigned version,
              unsigned bits, struct q2_error *err)
{
    bool lazy = (options->fields & Q2_AMEND_LAZY_REFCOUNTS) && options->lazy_refcounts;
    if (version != 2 && version != 3)
        return q2_error_set(err, Q2_ERR_RANGE, "%s: version %u is neither 2 nor 3",
                            image->file->name, version);
    if (version == 2 && lazy)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "%s: version 2 has no lazy refcounts",
                            image->file->name);
    if (version == 2 && bits != 16)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: version 2 has refcounts of 16 bits, not of %u", image->file->name,
                            bits);
    if (version == image->header.version || version == 3)
        return 0;
    const char *feature = newer_feature(image, bits);
    if (feature)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: cannot become version 2, which has no place for %s",
                            image->file->name, feature);
    return check_snapshots(image, err);
}

/* ---- the changes ---- */

static int
store_version(struct q2_image *image, unsigned version, struct q2_error *err)
{
    struct q2_area area;
    struct q2_header header = image->header;
    int rc = q2_area_copy(&image->area, &area, err);
    if (rc < 0)
        return rc;
    header.version = version;
    if (version == 2) {
        header.incompatible_features = header.compatible_features = header.autoclear_features = 0;
        free(area.features);
        area.features = NULL;
        area.features_length = 0;
    }
    area.has_features = version >= 3;
    rc = q2_image_barrier(image, err);
    if (rc == 0)
        rc = q2_area_store(image, &header, &area, err);
    q2_area_destroy(&area);
    if (rc < 0)
        return rc;
    image->geometry.version = version;
    if (version == 2)
        image->marked_dirty = false;
    return q2_image_barrier(image, err);
}

/* Without lazy refcounts the image is not dirty either; its refcounts have just been written. */
static int
store_lazy(struct q2_image *image, bool lazy, struct q2_error *err)
{
    struct q2_header header = image->header;
    header.compatible_features &= ~(uint64_t)Q2_COMPATIBLE_LAZY_REFCOUNTS;
    if (lazy)
        header.compatible_features |= Q2_COMPATIBLE_LAZY_REFCOUNTS;
    else
        header.incompatible_features &= ~(uint64_t)Q2_INCOMPATIBLE_DIRTY;
    if (header.compatible_features == image->header.compatible_features &&
        header.incompatible_features == image->header.incompatible_features)
        return 0;
    int rc = q2_image_barrier(image, err);
    if (rc == 0)
        rc = q2_header_store(image, &header, err);
    if (rc == 0 && !lazy)
        image->marked_dirty = false;
    return rc < 0 ? rc : q2_image_barrier(image, err);
}

static int
downgrade(struct q2_image *image, const struct q2_amend_options *options, struct q2_error *err)
{
    int rc = q2_zero_clusters_expand(image, options, err);
    if (rc == 0)
        rc = q2_image_settle(image, err);
    return rc < 0 ? rc : store_version(image, 2, err);
}

static int
apply(struct q2_image *image, const struct q2_amend_options *options, unsigned version,
      unsigned bits, struct q2_error *err)
{
    const unsigned old_version = image->header.version;
    int rc = 0;
    if (version > old_version)
        rc = store_version(image, version, err);
    if (rc == 0 && bits != 1U << image->header.refcount_order)
        rc = q2_refcount_width_change(image, (unsigned)__builtin_ctz(bits), options, err);
    if (rc == 0 && (options->fields & Q2_AMEND_LAZY_REFCOUNTS) && version >= 3)
        rc = store_lazy(image, options->lazy_refcounts, err);
    if (rc == 0 && version < old_version)
        rc = downgrade(image, options, err);
    return rc;
}

int
q2_image_amend(struct q2_image *image, const struct q2_amend_options *options, struct q2_error *err)
{
    struct q2_exclusive exclusive;
    int rc = q2_exclusive_begin(image, &exclusive, true, err);
    if (rc < 0)
        return rc;
    unsigned version =
        options->fields & Q2_AMEND_VERSION ? options->version : image->header.version;
    unsigned bits = options->fields & Q2_AMEND_REFCOUNT_BITS ? options->refcount_bits
                                                             : 1U << image->header.refcount_order;
    if (bits == 0 || bits > 64 || (bits & (bits - 1)))
        rc = q2_error_set(err, Q2_ERR_RANGE,
                          "%s: refcounts cannot have %u bits, but a power of two from 1 to 64",
                          image->file->name, bits);
    if (rc == 0)
        rc = check_version(image, options, version, bits, err);
    if (rc == 0)
        rc = apply(image, options, version, bits, err);
    q2_exclusive_end(image, &exclusive);
    return rc;
}
