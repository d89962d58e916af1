/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What a salvage writes to: a raw file, whose holes are zeros; or an image, in which what is left
 * out is unallocated. The image is never ahead of itself: what was flushed is there after a crash,
 * and clusters that were taken since then are leaked at worst, so that whoever goes on has the
 * refcounts made anew. */

#include "core/base/endian.h"
#include "core/image/vmstate.h"
#include "core/io/posix.h"
#include "repair/salvage_parts.h"

#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RAW_GRAIN = 4096, SUBCLUSTER_BITS = 5 };

/* ---- raw files ---- */

/* A block device is as large as it is, and holds anything. */
static int
shape_raw(struct salvage_target *target, uint64_t size, bool resume, struct q2_error *err)
{
    struct stat st;
    uint64_t has;
    bool device = stat(target->file->name, &st) == 0 && S_ISBLK(st.st_mode);
    target->blank = !device;
    int rc = q2_file_size(target->file, &has, err);
    if (rc == 0 && (device || resume) && has < size)
        return q2_error_set(err, Q2_ERR_RANGE, "%s: has %" PRIu64 " bytes, not %" PRIu64,
                            target->file->name, has, size);
    if (rc == 0 && !device && !resume)
        rc = q2_file_truncate(target->file, 0, err);
    if (rc == 0 && !device)
        rc = q2_file_truncate(target->file, size, err);
    return rc;
}

int
q2_salvage_target_open_raw(struct salvage_target *target, const char *path, uint64_t size,
                           bool resume, struct q2_error *err)
{
    unsigned flags = Q2_OPEN_WRITE | (access(path, F_OK) == 0 ? 0 : Q2_OPEN_CREATE);
    *target = (struct salvage_target){.grain = RAW_GRAIN};
    int rc = q2_file_open(path, flags, &target->file, err);
    return rc < 0 ? rc : shape_raw(target, size, resume, err);
}

/* ---- images ---- */

/* Opening a dirty image counts its references anew. */
static int
mark_dirty(const char *path, struct q2_error *err)
{
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    uint8_t bytes[Q2_HEADER_KNOWN_LENGTH];
    struct q2_header header;
    struct q2_header_field field;
    int rc = q2_file_open(path, Q2_OPEN_WRITE, &file, err);
    if (rc == 0)
        rc = q2_file_read(file, 0, bytes, sizeof bytes, err);
    if (rc < 0)
        return rc;
    q2_header_decode(bytes, sizeof bytes, &header);
    if (header.magic != Q2_MAGIC || header.version < 3 ||
        !q2_header_field("incompatible_features", &field))
        return q2_error_set(err, Q2_ERR_FORMAT, "%s: is no image that a salvage began", path);
    q2_store_be64(bytes, header.incompatible_features | Q2_INCOMPATIBLE_DIRTY);
    return q2_file_write(file, field.offset, bytes, 8, err);
}

int
q2_salvage_target_open_image(struct salvage_target *target, const char *path,
                             const struct q2_create_options *create, bool resume,
                             struct q2_error *err)
{
    const struct q2_image_options options = {
        .flags = Q2_IMAGE_WRITE | Q2_IMAGE_NO_BACKING,
        .format = Q2_DISK_QCOW2,
        .secret = create->secret,
    };
    bool extended = create->flags & Q2_CREATE_EXTENDED_L2;
    *target =
        (struct salvage_target){.blank = true,
                                .keep = create->backing_file,
                                .grain = create->cluster_size >> (extended ? SUBCLUSTER_BITS : 0)};
    int rc = resume ? mark_dirty(path, err) : q2_image_create(path, create, err);
    return rc < 0 ? rc : q2_image_open(path, &options, &target->image, err);
}

/* ---- both ---- */

int
q2_salvage_target_write(struct salvage_target *target, uint64_t offset, const void *bytes,
                        size_t length, struct q2_error *err)
{
    if (target->file)
        return q2_file_write(target->file, offset, bytes, length, err);
    if (target->vm_state)
        return q2_vmstate_write(target->image, offset, bytes, length, err);
    return q2_image_write(target->image, offset, bytes, length, err);
}

int
q2_salvage_target_zero(struct salvage_target *target, uint64_t offset, uint64_t length,
                       struct q2_error *err)
{
    if (target->file)
        return target->blank ? 0 : q2_file_punch(target->file, offset, length, err);
    if (!target->vm_state)
        return target->keep ? q2_image_zero(target->image, offset, length, Q2_ZERO_UNMAP, err) : 0;
    /* The end of the VM state is there, or nobody would know how long it is. */
    if (offset + length < target->vm_length)
        return 0;
    return q2_vmstate_write(target->image, target->vm_length - 1, "", 1, err);
}

int
q2_salvage_target_uncover(struct salvage_target *target, uint64_t offset, uint64_t length,
                          struct q2_error *err)
{
    /* The disk may end inside a sector, where the image's does not. */
    uint64_t end = salvage_image_size(offset + length);
    return q2_image_uncover(target->image, offset, end - offset, err);
}

int
q2_salvage_target_flush(struct salvage_target *target, struct q2_error *err)
{
    return target->file ? q2_file_flush(target->file, err) : q2_image_flush(target->image, err);
}

int
q2_salvage_target_close(struct salvage_target *target, struct q2_error *err)
{
    int rc = q2_image_close(target->image, err);
    q2_file_close(target->file);
    target->image = NULL;
    target->file = NULL;
    return rc;
}
