/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What an image needs besides its own file: a data file and a key, without which nothing can be
 * read of it; a backing file, without which something is missing. */

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/codec/keys.h"
#include "core/codec/secret.h"
#include "core/io/path.h"
#include "core/io/posix.h"
#include "repair/salvage_parts.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CRYPTO_BYTES = 64 << 20 };

static char *
text_of(const struct q2_text *text)
{
    return text->bytes ? strndup((const char *)text->bytes, text->length) : NULL;
}

/* The path of the file that an image calls `name`; NULL where it is none. */
static char *
path_of(const struct salvage_source *source, const char *name)
{
    const char *plain = strncmp(name, "file:", 5) == 0 ? name + 5 : name;
    return q2_path_has_protocol(plain) ? NULL : q2_path_beside(source->image->name, plain);
}

/* ---- the data file ---- */

static int
open_data_file(struct salvage_source *source, const struct q2_salvage_options *options,
               struct q2_error *err)
{
    source->data = source->file;
    if (!source->geometry.data_file)
        return q2_file_size(source->data, &source->data_size, err);
    Q2_AUTOFREE char *name = text_of(&source->check->extensions.data_file);
    Q2_AUTOFREE char *path = options->data_file                   ? strdup(options->data_file)
                             : name && !options->given_names_only ? path_of(source, name)
                                                                  : NULL;
    if (!path && name)
        return q2_error_set(err, Q2_ERR_NOT_FOUND,
                            "%s: its data is in another file, of which only the image says where",
                            source->image->name);
    if (!path)
        return q2_error_set(err, Q2_ERR_NOT_FOUND,
                            "%s: its data is in another file, which it does not name",
                            source->image->name);
    unsigned flags = options->force_share ? Q2_OPEN_FORCE_SHARE : 0;
    int rc = q2_file_open(path, flags, &source->opened, err);
    source->data = source->opened;
    return rc < 0 ? rc : q2_file_size(source->data, &source->data_size, err);
}

/* ---- the key ---- */

static int
unlock_luks(struct salvage_source *source, const struct q2_secret *secret, struct q2_error *err)
{
    const struct q2_extensions *extensions = &source->check->extensions;
    uint64_t offset = extensions->crypto_offset, length = extensions->crypto_length;
    struct q2_luks_key key = {0};
    struct q2_error cause = {0};
    unsigned slot;
    if (!extensions->has_crypto || length == 0 || offset >= source->geometry.file_size)
        return q2_error_set(err, Q2_ERR_FORMAT,
                            "%s: its encryption header, without which nothing can be read, has "
                            "not been found",
                            source->image->name);
    length = q2_min(length, MAX_CRYPTO_BYTES);
    Q2_AUTOFREE uint8_t *area = malloc(length);
    if (!area)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the encryption header");
    int rc = q2_file_read_padded(source->file, offset, area, length, &cause);
    if (rc == 0)
        rc = q2_luks_unlock(area, length, secret->bytes, secret->length, 0, &key, &slot, &cause);
    if (rc == 0)
        rc = q2_luks_cipher(area, length, &key, &source->cipher, &cause);
    q2_luks_key_wipe(&key);
    return rc < 0 ? q2_error_set(err, rc, "%s: %.400s", source->image->name, cause.message) : 0;
}

static int
open_cipher(struct salvage_source *source, const struct q2_secret *secret, struct q2_error *err)
{
    if (!source->geometry.encrypted)
        return 0;
    if (!secret)
        return q2_error_set(err, Q2_ERR_PASSPHRASE,
                            "%s: the image is encrypted and needs a pass phrase",
                            source->image->name);
    if (source->check->header.crypt_method == Q2_CRYPT_LUKS)
        return unlock_luks(source, secret, err);
    return q2_cipher_new_aes(secret->bytes, secret->length, &source->cipher, err);
}

/* ---- the backing file ---- */

static int
open_backing(struct salvage_source *source, const struct q2_salvage_options *options,
             struct q2_error *err)
{
    const struct q2_extensions *extensions = &source->check->extensions;
    struct q2_image_options below = {
        .flags = options->force_share ? Q2_IMAGE_FORCE_SHARE : 0,
        .secret = options->secret,
    };
    if (!(source->check->usable & Q2_USABLE_BACKING_NAME) || !extensions->backing_file.bytes) {
        if (!options->backing_file)
            return 0;
        source->backing_name = strdup(options->backing_file);
    } else {
        source->backing_name = text_of(&extensions->backing_file);
        source->backing_format = text_of(&extensions->backing_format);
    }
    if (!source->backing_name)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a file name");
    source->backing_path = options->backing_file ? strdup(options->backing_file)
                                                 : path_of(source, source->backing_name);
    if (options->given_names_only && !options->backing_file) {
        source->backing_missing = !(options->keep_backing && options->format == Q2_DISK_QCOW2);
        return 0;
    }
    if (source->backing_format)
        (void)q2_disk_format_find(source->backing_format, &below.format);
    source->backing_missing = !source->backing_path || q2_disk_open(source->backing_path, &below,
                                                                    &source->backing, NULL) < 0;
    return 0;
}

int
q2_salvage_open_others(struct salvage_source *source, const struct q2_salvage_options *options,
                       struct q2_error *err)
{
    int rc = open_data_file(source, options, err);
    if (rc == 0)
        rc = open_cipher(source, options->secret, err);
    return rc < 0 ? rc : open_backing(source, options, err);
}
