/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Making a new qcow2 image. */

#ifndef Q2_IMAGE_CREATE_H
#define Q2_IMAGE_CREATE_H

#include "core/codec/codec.h"
#include "core/image/image.h"

enum q2_preallocation {
    Q2_PREALLOCATION_OFF,
    Q2_PREALLOCATION_METADATA, /* all clusters mapped, the file a hole */
    Q2_PREALLOCATION_FALLOC,   /* and their space reserved */
    Q2_PREALLOCATION_FULL,     /* and written with zeros */
};

enum q2_create_flags {
    Q2_CREATE_LAZY_REFCOUNTS = 1 << 0,
    Q2_CREATE_EXTENDED_L2 = 1 << 1,
    Q2_CREATE_RAW_DATA_FILE = 1 << 2, /* the data file is the guest's disk, readable as raw */
};

struct q2_create_options {
    uint64_t size;          /* of the disk, bytes; a multiple of 512 */
    unsigned version;       /* 2 or 3; 0: 3 */
    uint64_t cluster_size;  /* bytes; 0: 64 KiB */
    unsigned refcount_bits; /* 0: 16 */
    enum q2_compression compression;
    unsigned flags; /* enum q2_create_flags */
    enum q2_preallocation preallocation;
    const char *backing_file;   /* NULL: none. Stored as it is */
    const char *backing_format; /* NULL: not said */
    const char *data_file;      /* NULL: none. Stored as it is, and made beside the image */
    enum q2_crypt_method crypt;
    const struct q2_secret *secret;
    /* Of LUKS; NULL or 0: aes-256, xts, plain64, sha256, sha256, 2000 ms. */
    const char *cipher_name; /* "aes-128", "aes-192", "aes-256" */
    const char *cipher_mode; /* "xts", "cbc", "ecb", "ctr" */
    const char *ivgen_name;  /* "plain64", "plain", "essiv" */
    const char *ivgen_hash;  /* of essiv: "sha256" */
    const char *hash;        /* "sha1", "sha256", "sha512" */
    unsigned iteration_ms;   /* time that unlocking should take */
    uint32_t iterations;     /* instead of a time; 0: by time */
};

/* Hold the options against what the format can do. Q2_ERR_RANGE or Q2_ERR_UNSUPPORTED with a
 * sentence that names the option, its value and what is allowed. */
int q2_create_validate(const struct q2_create_options *options, struct q2_error *err);

/* Make an image at `path` (an existing regular file is replaced, a block device written to). On
 * failure a file that was made is removed again. */
int q2_image_create(const char *path, const struct q2_create_options *options,
                    struct q2_error *err);

/* Write an empty image into `file`, which is truncated first and stays the caller's.
 * `data_file` is the open data file, which stays the caller's too, or NULL where there is none. */
int q2_image_format(struct q2_file *file, struct q2_file *data_file,
                    const struct q2_create_options *options, struct q2_error *err);

/* Bytes that an image with these options and `allocated` bytes of guest data (in whole clusters)
 * needs, and needs when all is allocated: what `qemu-img measure` says. */
int q2_create_measure(const struct q2_create_options *options, uint64_t allocated,
                      uint64_t *ret_required, uint64_t *ret_fully_allocated, struct q2_error *err);

const char *q2_preallocation_name(enum q2_preallocation preallocation);
bool q2_preallocation_find(const char *name, enum q2_preallocation *ret_preallocation);

#endif
