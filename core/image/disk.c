/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Raw disks are done here; qcow2 ones are passed on. */

#include "core/image/disk.h"

#include "core/image/internal.h"
#include "core/io/iov.h"

#include <inttypes.h>
#include <string.h>

enum {
    SECTOR = 512,
    PARTS = 64,
};

struct q2_disk {
    struct q2_image *image; /* NULL where it is raw */
    struct q2_file *file;   /* owned where it is raw */
    uint64_t raw_size;      /* bytes */
};

/* ---- formats ---- */

static const struct {
    const char *name;
    enum q2_disk_format format;
} formats[] = {
    {"raw", Q2_DISK_RAW},
    {"file", Q2_DISK_RAW}, /* what old images call it */
    {"host_device", Q2_DISK_RAW},
    {"qcow2", Q2_DISK_QCOW2},
};

bool
q2_disk_format_find(const char *name, enum q2_disk_format *ret_format)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(formats[i].name, name) == 0) {
            *ret_format = formats[i].format;
            return true;
        }
    return false;
}

const char *
q2_disk_format_name(enum q2_disk_format format)
{
    return format == Q2_DISK_QCOW2 ? "qcow2" : format == Q2_DISK_RAW ? "raw" : "unknown";
}

int
q2_disk_probe(struct q2_file *file, enum q2_disk_format *ret_format, struct q2_error *err)
{
    uint8_t magic[8] = {0};
    int rc = q2_file_read_padded(file, 0, magic, sizeof magic, err);
    if (rc < 0)
        return rc;
    /* Version 1 is another format altogether, though the magic is the same. */
    bool qcow2 = q2_load_be32(magic) == Q2_MAGIC && q2_load_be32(magic + 4) >= 2;
    *ret_format = qcow2 ? Q2_DISK_QCOW2 : Q2_DISK_RAW;
    return 0;
}

/* ---- opening ---- */

static int
open_raw(struct q2_disk *disk, struct q2_file *file, struct q2_error *err)
{
    uint64_t size;
    int rc = q2_file_size(file, &size, err);
    if (rc < 0) {
        q2_file_close(file);
        return rc;
    }
    disk->file = file;
    disk->raw_size = q2_units(size, 9) << 9;
    return 0;
}

int
q2_disk_open_at(struct q2_file *file, const struct q2_image_options *options, unsigned depth,
                struct q2_disk **ret_disk, struct q2_error *err)
{
    enum q2_disk_format format = options ? options->format : Q2_DISK_PROBE;
    struct q2_disk *disk = calloc(1, sizeof *disk);
    int rc = disk ? 0 : q2_error_set(err, Q2_ERR_NOMEM, "no memory for a disk");
    if (rc == 0 && format == Q2_DISK_PROBE)
        rc = q2_disk_probe(file, &format, err);
    if (rc < 0) {
        q2_file_close(file);
    } else if (format == Q2_DISK_QCOW2) {
        rc = q2_image_open_at(file, options, depth, &disk->image, err);
        disk->file = file;
    } else {
        rc = open_raw(disk, file, err);
    }
    if (rc < 0) {
        free(disk);
        return rc;
    }
    *ret_disk = disk;
    return 0;
}

int
q2_disk_open_file(struct q2_file *file, const struct q2_image_options *options,
                  struct q2_disk **ret_disk, struct q2_error *err)
{
    return q2_disk_open_at(file, options, 0, ret_disk, err);
}

int
q2_disk_open(const char *path, const struct q2_image_options *options, struct q2_disk **ret_disk,
             struct q2_error *err)
{
    struct q2_file *file;
    int rc = q2_open_by_options(path, options, &file, err);
    return rc < 0 ? rc : q2_disk_open_at(file, options, 0, ret_disk, err);
}

int
q2_disk_close(struct q2_disk *disk, struct q2_error *err)
{
    int rc = 0;
    if (!disk)
        return 0;
    if (disk->image) {
        rc = q2_image_close(disk->image, err);
    } else {
        if (disk->file->writable)
            rc = q2_file_flush(disk->file, err);
        q2_file_close(disk->file);
    }
    free(disk);
    return rc;
}

/* ---- what it is ---- */

enum q2_disk_format
q2_disk_format(const struct q2_disk *disk)
{
    return disk->image ? Q2_DISK_QCOW2 : Q2_DISK_RAW;
}

struct q2_image *
q2_disk_image(struct q2_disk *disk)
{
    return disk->image;
}

struct q2_file *
q2_disk_file(struct q2_disk *disk)
{
    return disk->file;
}

const char *
q2_disk_name(const struct q2_disk *disk)
{
    return disk->file->name;
}

struct q2_disk *
q2_disk_backing(struct q2_disk *disk)
{
    return disk->image ? q2_image_backing(disk->image) : NULL;
}

uint64_t
q2_disk_size(const struct q2_disk *disk)
{
    return disk->image ? q2_image_size(disk->image) : disk->raw_size;
}

/* ---- raw content ---- */

static int
check_raw(const struct q2_disk *disk, const char *what, uint64_t offset, uint64_t length,
          struct q2_error *err)
{
    if (q2_range_inside(offset, length, disk->raw_size))
        return 0;
    return q2_error_set(err, Q2_ERR_RANGE,
                        "%s: cannot %s %" PRIu64 " bytes at %" PRIu64 ": the disk has %" PRIu64,
                        disk->file->name, what, length, offset, disk->raw_size);
}

static int
read_raw(struct q2_disk *disk, uint64_t offset, const struct iovec *iov, int iov_count,
         struct q2_error *err)
{
    size_t length = q2_iov_total(iov, iov_count), done = 0;
    int rc = check_raw(disk, "read", offset, length, err);
    while (rc == 0 && done < length) {
        struct iovec part[PARTS];
        size_t now, got = 0;
        int count = q2_iov_part(iov, iov_count, done, length - done, part, PARTS, &now);
        rc = q2_file_preadv(disk->file, part, count, offset + done, &got, err);
        done += got;
        if (rc == 0 && got < now) {
            /* Only the last sector may be cut short. */
            if (offset + done + SECTOR <= disk->raw_size)
                return q2_error_set(err, Q2_ERR_EOF,
                                    "%s: the file ends at %" PRIu64 ", though it had %" PRIu64
                                    " bytes: something else has cut it",
                                    disk->file->name, offset + done, disk->raw_size);
            q2_iov_zero(iov, iov_count, done, length - done);
            done = length;
        }
    }
    return rc;
}

static int
zero_raw(struct q2_disk *disk, uint64_t offset, uint64_t length, bool punch, struct q2_error *err)
{
    int rc = check_raw(disk, "zero", offset, length, err);
    if (rc < 0 || length == 0)
        return rc;
    return punch ? q2_file_punch(disk->file, offset, length, err)
                 : q2_file_write_zeros(disk->file, offset, length, err);
}

static int
map_raw(struct q2_disk *disk, uint64_t offset, uint64_t length, struct q2_extent *ret_extent,
        struct q2_error *err)
{
    uint64_t size, end = 0;
    bool data = false;
    int rc = check_raw(disk, "map", offset, length, err);
    if (rc == 0)
        rc = q2_file_size(disk->file, &size, err);
    if (rc == 0 && offset < size)
        rc = q2_file_extent(disk->file, offset, &data, &end, err);
    if (rc < 0)
        return rc;
    /* The last sector is filled up with zeros, and counts as what its beginning is. */
    if (end >= size || offset >= size)
        end = disk->raw_size;
    *ret_extent = (struct q2_extent){.offset = offset,
                                     .length = q2_min(length, end - offset),
                                     .present = true,
                                     .zero = !data,
                                     .data = data,
                                     .has_host = true,
                                     .host = offset,
                                     .file = disk->file};
    return 0;
}

/* ---- content ---- */

int
q2_disk_readv(struct q2_disk *disk, uint64_t offset, const struct iovec *iov, int iov_count,
              struct q2_error *err)
{
    return disk->image ? q2_image_readv(disk->image, offset, iov, iov_count, err)
                       : read_raw(disk, offset, iov, iov_count, err);
}

int
q2_disk_writev(struct q2_disk *disk, uint64_t offset, const struct iovec *iov, int iov_count,
               struct q2_error *err)
{
    if (disk->image)
        return q2_image_writev(disk->image, offset, iov, iov_count, err);
    int rc = check_raw(disk, "write", offset, q2_iov_total(iov, iov_count), err);
    return rc < 0 ? rc : q2_file_pwritev(disk->file, iov, iov_count, offset, err);
}

int
q2_disk_read(struct q2_disk *disk, uint64_t offset, void *buffer, size_t length,
             struct q2_error *err)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = length};
    return q2_disk_readv(disk, offset, &iov, 1, err);
}

int
q2_disk_write(struct q2_disk *disk, uint64_t offset, const void *buffer, size_t length,
              struct q2_error *err)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = length};
    return q2_disk_writev(disk, offset, &iov, 1, err);
}

int
q2_disk_zero(struct q2_disk *disk, uint64_t offset, uint64_t length, unsigned flags,
             struct q2_error *err)
{
    return disk->image ? q2_image_zero(disk->image, offset, length, flags, err)
                       : zero_raw(disk, offset, length, flags & Q2_ZERO_UNMAP, err);
}

int
q2_disk_discard(struct q2_disk *disk, uint64_t offset, uint64_t length, struct q2_error *err)
{
    return disk->image ? q2_image_discard(disk->image, offset, length, err)
                       : zero_raw(disk, offset, length, true, err);
}

int
q2_disk_flush(struct q2_disk *disk, struct q2_error *err)
{
    return disk->image            ? q2_image_flush(disk->image, err)
           : disk->file->writable ? q2_file_flush(disk->file, err)
                                  : 0;
}

int
q2_disk_map(struct q2_disk *disk, uint64_t offset, uint64_t length, struct q2_extent *ret_extent,
            struct q2_error *err)
{
    return disk->image ? q2_image_map(disk->image, offset, length, ret_extent, err)
                       : map_raw(disk, offset, length, ret_extent, err);
}
