/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A guest's disk, whatever its format: a qcow2 image or a raw file. A backing chain is made of
 * these, and programs that copy, compare or serve disks work on them. Thread-safe as images are. */

#ifndef Q2_IMAGE_DISK_H
#define Q2_IMAGE_DISK_H

#include "core/image/image.h"

/* Open `path`; options as for an image. A raw disk's size is the file's, rounded up to 512 bytes as
 * QEMU does; what the file lacks reads as zeros. */
int q2_disk_open(const char *path, const struct q2_image_options *options,
                 struct q2_disk **ret_disk, struct q2_error *err);

/* Take over an open file (also on failure). */
int q2_disk_open_file(struct q2_file *file, const struct q2_image_options *options,
                      struct q2_disk **ret_disk, struct q2_error *err);

/* Flush, close and free; the first error. NULL is allowed. */
int q2_disk_close(struct q2_disk *disk, struct q2_error *err);

/* What the file's first bytes say it is: Q2_DISK_QCOW2 or Q2_DISK_RAW. */
int q2_disk_probe(struct q2_file *file, enum q2_disk_format *ret_format, struct q2_error *err);

/* "qcow2", "raw"; false for others. */
bool q2_disk_format_find(const char *name, enum q2_disk_format *ret_format);
const char *q2_disk_format_name(enum q2_disk_format format);

enum q2_disk_format q2_disk_format(const struct q2_disk *disk);
struct q2_image *q2_disk_image(struct q2_disk *disk); /* NULL where it is raw */
struct q2_file *q2_disk_file(struct q2_disk *disk);
const char *q2_disk_name(const struct q2_disk *disk);
struct q2_disk *q2_disk_backing(struct q2_disk *disk); /* NULL: none */
uint64_t q2_disk_size(const struct q2_disk *disk);     /* bytes */

/* As the q2_image_* functions of the same name. */
int q2_disk_readv(struct q2_disk *disk, uint64_t offset, const struct iovec *iov, int iov_count,
                  struct q2_error *err);
int q2_disk_writev(struct q2_disk *disk, uint64_t offset, const struct iovec *iov, int iov_count,
                   struct q2_error *err);
int q2_disk_read(struct q2_disk *disk, uint64_t offset, void *buffer, size_t length,
                 struct q2_error *err);
int q2_disk_write(struct q2_disk *disk, uint64_t offset, const void *buffer, size_t length,
                  struct q2_error *err);
int q2_disk_zero(struct q2_disk *disk, uint64_t offset, uint64_t length, unsigned flags,
                 struct q2_error *err);
int q2_disk_discard(struct q2_disk *disk, uint64_t offset, uint64_t length, struct q2_error *err);
int q2_disk_flush(struct q2_disk *disk, struct q2_error *err);
int q2_disk_map(struct q2_disk *disk, uint64_t offset, uint64_t length,
                struct q2_extent *ret_extent, struct q2_error *err);

static inline void
q2_cleanup_disk(struct q2_disk **disk)
{
    q2_disk_close(*disk, NULL);
}
#define Q2_AUTODISK __attribute__((cleanup(q2_cleanup_disk)))

#endif
