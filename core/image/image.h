/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A qcow2 image, open for reading or for reading and writing.
 *
 * The image is strict: what breaks a rule of the format is refused with an error that names it,
 * never guessed at. All functions may be called from several threads at once; requests that touch
 * the same guest clusters in conflicting ways wait for each other in the order they came.
 *
 * What is written is durable after q2_image_flush; a crash at any earlier instant leaves an image
 * whose flushed content is intact and which has leaked clusters at worst.
 *
 * Guest offsets and lengths are bytes and need no alignment. The area of internal VM state lies
 * behind the disk and has functions of its own (vmstate.h). */

#ifndef Q2_IMAGE_IMAGE_H
#define Q2_IMAGE_IMAGE_H

#include "core/base/error.h"
#include "core/format/header.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct q2_file;
struct q2_disk;
struct q2_image;
struct q2_secret;

enum q2_image_flags {
    Q2_IMAGE_WRITE = 1 << 0,
    Q2_IMAGE_NO_BACKING = 1 << 1,  /* do not open the backing file: what it holds reads as zeros */
    Q2_IMAGE_FORCE_SHARE = 1 << 2, /* ignore other processes' locks and take none */
    /* Do not ask for the pass phrase of an encrypted image: metadata only, reads of data fail. */
    Q2_IMAGE_NO_CRYPTO = 1 << 3,
    /* Flushes and barriers do nothing: for an image that is thrown away if the program dies. */
    Q2_IMAGE_UNSAFE = 1 << 4,
    /* Give the space of clusters that become free back to the file system. */
    Q2_IMAGE_DISCARD = 1 << 5,
    /* Leave the data file of an image that has one alone: metadata only. */
    Q2_IMAGE_NO_DATA_FILE = 1 << 6,
    /* Open an image whose corrupt bit is set for writing all the same: for those who repair it. */
    Q2_IMAGE_ALLOW_CORRUPT = 1 << 7,
};

enum q2_disk_format {
    Q2_DISK_PROBE, /* qcow2 by its magic, else raw */
    Q2_DISK_RAW,
    Q2_DISK_QCOW2,
};

/* How to open a disk image and what is below it. All zero: read only, with its backing chain. The
 * strings and objects pointed at are only used during the call, unless said otherwise. */
struct q2_image_options {
    unsigned flags; /* enum q2_image_flags */
    enum q2_disk_format format;
    const char *data_file;          /* instead of the name in the image */
    const char *backing_file;       /* instead of the name in the image */
    const struct q2_secret *secret; /* pass phrase, where the image is encrypted */
    /* For the backing file; NULL: read only, the same secret, format as the image names it. */
    const struct q2_image_options *backing;
    uint64_t l2_cache_bytes;       /* 0: what covers the whole image, at most 32 MiB */
    uint64_t refcount_cache_bytes; /* 0: a quarter of the L2 cache's, at least 256 KiB */
    /* How names become files, for tests and for those who keep images elsewhere; NULL: files of the
     * system. `flags` are those of q2_file_open. Used as long as the image is open. */
    int (*open_file)(void *data, const char *name, unsigned flags, struct q2_file **ret_file,
                     struct q2_error *err);
    void *open_file_data;
};

/* Open the image at `path`. NULL options: read only.
 *
 * A dirty image that is opened for writing has its refcounts rebuilt first. Q2_ERR_NOT_QCOW2: no
 * qcow2 image. Q2_ERR_FORMAT: a rule is broken. Q2_ERR_UNSUPPORTED: an unknown incompatible
 * feature. Q2_ERR_CORRUPT: the corrupt bit is set and writing was asked for. Q2_ERR_PASSPHRASE: it
 * is missing or wrong. A failed open has changed nothing. */
int q2_image_open(const char *path, const struct q2_image_options *options,
                  struct q2_image **ret_image, struct q2_error *err);

/* The same for a file that is open already. The image owns `file` from then on, also on failure.
 * `file->name` is what names of other files are relative to. */
int q2_image_open_file(struct q2_file *file, const struct q2_image_options *options,
                       struct q2_image **ret_image, struct q2_error *err);

/* Write what is pending, mark the image clean, close and free. The first error, if any; everything
 * is released all the same. NULL is allowed. */
int q2_image_close(struct q2_image *image, struct q2_error *err);

/* Forget everything that was read from the file and read it anew: for those who know that somebody
 * else has changed it. What is pending is written first. On failure the image can only be closed.
 */
int q2_image_invalidate(struct q2_image *image, struct q2_error *err);

/* ---- content ---- */

uint64_t q2_image_size(const struct q2_image *image); /* of the disk, bytes */

/* Q2_ERR_RANGE where the range does not lie inside the disk; nothing has been read or written then.
 * After other failures of a write, each byte of the range has its old or its new value. */
int q2_image_readv(struct q2_image *image, uint64_t offset, const struct iovec *iov, int iov_count,
                   struct q2_error *err);
int q2_image_writev(struct q2_image *image, uint64_t offset, const struct iovec *iov, int iov_count,
                    struct q2_error *err);
int q2_image_read(struct q2_image *image, uint64_t offset, void *buffer, size_t length,
                  struct q2_error *err);
int q2_image_write(struct q2_image *image, uint64_t offset, const void *buffer, size_t length,
                   struct q2_error *err);

enum q2_zero_flags {
    Q2_ZERO_UNMAP = 1 << 0, /* clusters may be given back rather than kept for later writes */
};

/* Make [offset, offset + length) read as zeros. */
int q2_image_zero(struct q2_image *image, uint64_t offset, uint64_t length, unsigned flags,
                  struct q2_error *err);

/* Give back the clusters that lie wholly inside the range; they read as zeros from then on. Does
 * nothing to partial clusters, and nothing at all where a version 2 image has a backing file. */
int q2_image_discard(struct q2_image *image, uint64_t offset, uint64_t length,
                     struct q2_error *err);

/* Make all clusters unallocated, so that the backing file shows through, and give back their space;
 * snapshots stay. */
int q2_image_make_empty(struct q2_image *image, struct q2_error *err);

/* Make [offset, offset + length), whole clusters, unallocated, so that the backing file shows
 * through there. The last cluster may be what the disk has of it. Q2_ERR_RANGE for others. */
int q2_image_uncover(struct q2_image *image, uint64_t offset, uint64_t length,
                     struct q2_error *err);

/* Compress and write. `offset` is a multiple of the cluster size and `length` is one cluster, or
 * less where the disk ends. What does not become smaller is written plain. Q2_ERR_UNSUPPORTED for
 * images that are encrypted or have a data file. */
int q2_image_write_compressed(struct q2_image *image, uint64_t offset, const void *buffer,
                              size_t length, struct q2_error *err);

/* The same in two steps, so that the first can be done on many threads while the clusters are put
 * down in order. *ret_stream (malloc'ed) is NULL where the data does not become smaller: then write
 * it plain. `length` as above. */
int q2_image_compress(struct q2_image *image, const void *buffer, size_t length,
                      uint8_t **ret_stream, size_t *ret_length, struct q2_error *err);
int q2_image_write_stream(struct q2_image *image, uint64_t offset, const uint8_t *stream,
                          size_t stream_length, struct q2_error *err);

/* Make everything that was written durable. */
int q2_image_flush(struct q2_image *image, struct q2_error *err);

/* ---- what is where ---- */

/* A stretch of the guest's disk whose clusters are alike. */
struct q2_extent {
    uint64_t offset; /* guest, bytes */
    uint64_t length; /* bytes */
    bool present;    /* this image, or one below, says what is here */
    bool zero;       /* reads as zeros without a look at any data */
    bool data;       /* some file has bytes for it */
    bool compressed;
    bool has_host;              /* whether `host` says anything */
    uint64_t host;              /* where the bytes are in `file`, bytes */
    const struct q2_file *file; /* the file that has the bytes; NULL without `has_host` */
    unsigned depth;             /* 0: this image, 1: its backing file, ... */
};

/* The extent at `offset`, cut to end by offset + length; both inside the disk. Looks through the
 * backing chain; what no file of the chain has is neither present nor data, and zero. */
int q2_image_map(struct q2_image *image, uint64_t offset, uint64_t length,
                 struct q2_extent *ret_extent, struct q2_error *err);

/* The same for this image alone: what it leaves to its backing file is not present. */
int q2_image_map_own(struct q2_image *image, uint64_t offset, uint64_t length,
                     struct q2_extent *ret_extent, struct q2_error *err);

/* ---- what the image is ---- */

const struct q2_header *q2_image_header(const struct q2_image *image);
const struct q2_geometry *q2_image_geometry(const struct q2_image *image);
const char *q2_image_name(const struct q2_image *image);
const char *q2_image_backing_name(const struct q2_image *image);   /* NULL: none */
const char *q2_image_backing_format(const struct q2_image *image); /* NULL: not said */
const char *q2_image_data_name(const struct q2_image *image);      /* NULL: none */
struct q2_disk *q2_image_backing(struct q2_image *image);          /* NULL: none, or not opened */
struct q2_file *q2_image_file(struct q2_image *image);             /* of the metadata */
struct q2_file *q2_image_data(struct q2_image *image);             /* of the guest's clusters */

/* Memory that the metadata caches hold at most, bytes. */
uint64_t q2_image_cache_bytes(const struct q2_image *image);

#endif
