/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The other files of an image: data file, backing file; and the key to what is in them. */

#include "core/codec/cipher.h"
#include "core/codec/keys.h"
#include "core/codec/secret.h"
#include "core/image/disk.h"
#include "core/image/internal.h"
#include "core/io/path.h"
#include "core/io/posix.h"

#include <string.h>

enum {
    MAX_DEPTH = 200, /* files of a chain: a loop ends here */
    MAX_CRYPTO_BYTES = 64 << 20,
};

int
q2_open_by_options(const char *path, const struct q2_image_options *options,
                   struct q2_file **ret_file, struct q2_error *err)
{
    unsigned flags = options ? options->flags : 0;
    unsigned open_flags = (flags & Q2_IMAGE_WRITE ? Q2_OPEN_WRITE : 0) |
                          (flags & Q2_IMAGE_FORCE_SHARE ? Q2_OPEN_FORCE_SHARE : 0);
    if (options && options->open_file)
        return options->open_file(options->open_file_data, path, open_flags, ret_file, err);
    return q2_file_open(path, open_flags, ret_file, err);
}

int
q2_image_open_other(struct q2_image *image, const char *name, unsigned flags,
                    struct q2_file **ret_file, struct q2_error *err)
{
    if (image->options.open_file)
        return image->options.open_file(image->options.open_file_data, name, flags, ret_file, err);
    const char *plain = strncmp(name, "file:", 5) == 0 ? name + 5 : name;
    if (q2_path_has_protocol(plain)) {
        char printable[256];
        return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                            "%s: names a file by a protocol, which is not followed: %s",
                            image->file->name,
                            q2_printable(printable, sizeof printable, name, strlen(name)));
    }
    Q2_AUTOFREE char *path = q2_path_beside(image->file->name, plain);
    if (!path)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a file name");
    return q2_file_open(path, flags, ret_file, err);
}

int
q2_image_open_data_file(struct q2_image *image, const struct q2_image_options *options,
                        struct q2_error *err)
{
    if (!image->geometry.data_file) {
        image->data = image->file;
        return 0;
    }
    if (image->data || (image->flags & Q2_IMAGE_NO_DATA_FILE))
        return 0;
    const char *name = options->data_file ? options->data_file : image->area.data_file;
    unsigned flags = (image->flags & Q2_IMAGE_WRITE ? Q2_OPEN_WRITE : 0) |
                     (image->flags & Q2_IMAGE_FORCE_SHARE ? Q2_OPEN_FORCE_SHARE : 0);
    if (!name)
        return q2_error_set(err, Q2_ERR_FORMAT, "%s: the image does not name its data file",
                            image->file->name);
    /* What the user names is relative to where the user is. */
    if (options->data_file && !options->open_file)
        return q2_file_open(name, flags, &image->data, err);
    return q2_image_open_other(image, name, flags, &image->data, err);
}

static int
backing_format(const struct q2_image *image, enum q2_disk_format *ret_format, struct q2_error *err)
{
    const char *name = image->area.backing_format;
    char printable[64];
    *ret_format = Q2_DISK_PROBE;
    if (!name || q2_disk_format_find(name, ret_format))
        return 0;
    return q2_error_set(err, Q2_ERR_UNSUPPORTED,
                        "%s: the format of its backing file is neither qcow2 nor raw: %s",
                        image->file->name,
                        q2_printable(printable, sizeof printable, name, strlen(name)));
}

int
q2_image_open_backing(struct q2_image *image, const struct q2_image_options *options,
                      struct q2_error *err)
{
    const char *name = options->backing_file ? options->backing_file : image->area.backing_file;
    if (!name)
        return 0;
    if (image->depth >= MAX_DEPTH)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: the backing chain is longer than %d files, or a loop",
                            image->file->name, MAX_DEPTH);
    struct q2_image_options below = {
        .flags = image->flags & (Q2_IMAGE_FORCE_SHARE | Q2_IMAGE_NO_CRYPTO),
        .secret = options->secret,
        .open_file = options->open_file,
        .open_file_data = options->open_file_data,
    };
    int rc = 0;
    if (options->backing)
        below = *options->backing;
    if (!options->backing || (below.format == Q2_DISK_PROBE && !options->backing_file))
        rc = backing_format(image, &below.format, err);
    if (rc < 0)
        return rc;
    unsigned flags = (below.flags & Q2_IMAGE_WRITE ? Q2_OPEN_WRITE : 0) |
                     (below.flags & Q2_IMAGE_FORCE_SHARE ? Q2_OPEN_FORCE_SHARE : 0);
    struct q2_file *file;
    struct q2_error cause = {0};
    rc = options->backing_file && !options->open_file
             ? q2_file_open(name, flags, &file, &cause)
             : q2_image_open_other(image, name, flags, &file, &cause);
    if (rc == 0)
        rc = q2_disk_open_at(file, &below, image->depth + 1, &image->backing, &cause);
    if (rc < 0)
        return q2_error_set(err, rc, "%s: cannot open its backing file: %.400s", image->file->name,
                            cause.message);
    return 0;
}

/* ---- encryption ---- */

int
q2_image_check_crypto(const struct q2_image *image, struct q2_error *err)
{
    const struct q2_geometry *geometry = &image->geometry;
    uint64_t offset = image->area.crypto_offset, length = image->area.crypto_length;
    bool luks = image->header.crypt_method == Q2_CRYPT_LUKS;
    if (luks && !image->area.has_crypto)
        return q2_error_set(err, Q2_ERR_FORMAT, "%s: the image has no encryption header",
                            image->file->name);
    if (!image->area.has_crypto ||
        (length <= MAX_CRYPTO_BYTES && (offset & (geometry->cluster_size - 1)) == 0 &&
         q2_range_inside(offset, length, geometry->file_clusters << geometry->cluster_bits)))
        return 0;
    return q2_error_set(err, Q2_ERR_FORMAT,
                        "%s: there can be no encryption header of %llu bytes at 0x%llx",
                        image->file->name, (unsigned long long)length, (unsigned long long)offset);
}

static int
open_luks(struct q2_image *image, const struct q2_secret *secret, struct q2_error *err)
{
    uint64_t length = image->area.crypto_length;
    struct q2_error cause = {0};
    Q2_AUTOFREE uint8_t *bytes = malloc(length + 1);
    image->luks_key = calloc(1, sizeof *image->luks_key);
    if (!bytes || !image->luks_key)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the encryption header");
    int rc = q2_meta_read(image, image->area.crypto_offset, bytes, length, &cause);
    unsigned slot;
    if (rc == 0)
        rc = q2_luks_unlock(bytes, length, secret->bytes, secret->length, 0, image->luks_key, &slot,
                            &cause);
    if (rc == 0)
        rc = q2_luks_cipher(bytes, length, image->luks_key, &image->cipher, &cause);
    if (rc < 0)
        return q2_error_set(err, rc, "%s: %.400s", image->file->name, cause.message);
    return 0;
}

int
q2_image_open_cipher(struct q2_image *image, const struct q2_secret *secret, struct q2_error *err)
{
    if (!image->geometry.encrypted)
        return 0;
    if (!secret)
        return q2_error_set(err, Q2_ERR_PASSPHRASE,
                            "%s: the image is encrypted and needs a pass phrase",
                            image->file->name);
    if (image->header.crypt_method == Q2_CRYPT_LUKS)
        return open_luks(image, secret, err);
    return q2_cipher_new_aes(secret->bytes, secret->length, &image->cipher, err);
}
