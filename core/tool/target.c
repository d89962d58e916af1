/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What an image to be made shall be: from a list of options to what the core takes. Which options
 * there are is in target_options.c. */

#include "core/base/checked.h"
#include "core/io/posix.h"
#include "core/tool/raw.h"
#include "core/tool/target_options.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the steps of reading have in common. */
struct reader {
    const char *name; /* of the image, for messages */
    const struct tool_pairs *pairs;
    const struct tool_secrets *secrets;
    struct tool_target target;
};

static const char *
get(const struct reader *reader, const char *key)
{
    return tool_pairs_get(reader->pairs, key);
}

/* ---- values ---- */

static bool
read_flag(const struct reader *reader, const char *key, bool *ret_value)
{
    const char *text = get(reader, key);
    return !text || tool_bool_option(key, text, ret_value);
}

static bool
read_flags(struct reader *reader)
{
    static const struct {
        const char *key;
        unsigned flag;
    } flags[] = {
        {"lazy_refcounts", Q2_CREATE_LAZY_REFCOUNTS},
        {"extended_l2", Q2_CREATE_EXTENDED_L2},
        {"data_file_raw", Q2_CREATE_RAW_DATA_FILE},
    };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool on = false;
        if (!read_flag(reader, flags[i].key, &on))
            return false;
        if (on)
            reader->target.options.flags |= flags[i].flag;
    }
    return true;
}

static bool
read_sizes(struct reader *reader)
{
    struct q2_create_options *options = &reader->target.options;
    const char *size = get(reader, "size");
    const char *cluster = get(reader, "cluster_size");
    if (size && !tool_size_option("size", size, 0, INT64_MAX, &options->size))
        return false;
    reader->target.has_size = size;
    /* QEMU rounds up, too. */
    if (!q2_add(options->size, 511, &options->size))
        return false;
    options->size &= ~UINT64_C(511);
    if (cluster && !tool_size_option("cluster_size", cluster, 512, 2 << 20, &options->cluster_size))
        return false;
    if (!tool_pairs_number(reader->pairs, "refcount_bits", UINT32_MAX, &options->refcount_bits))
        return false;
    /* 0 is how those who say nothing are told from others. */
    if (get(reader, "refcount_bits") && options->refcount_bits == 0) {
        tool_say("refcount_bits=0: the width is a power of two from 1 to 64");
        return false;
    }
    return true;
}

bool
tool_version_find(const char *text, unsigned *ret_version)
{
    bool two = strcmp(text, "0.10") == 0 || strcmp(text, "v2") == 0;
    if (!two && strcmp(text, "1.1") != 0 && strcmp(text, "v3") != 0) {
        tool_say("compat: '%s' is none of 0.10, 1.1, v2 and v3", text);
        return false;
    }
    *ret_version = two ? 2 : 3;
    return true;
}

static bool
read_words(struct reader *reader)
{
    struct q2_create_options *options = &reader->target.options;
    const char *compat = get(reader, "compat");
    const char *compression = get(reader, "compression_type");
    const char *preallocation = get(reader, "preallocation");
    options->version = 3;
    if (compat && !tool_version_find(compat, &options->version))
        return false;
    if (compression && strcmp(compression, "zstd") == 0) {
        options->compression = Q2_COMPRESSION_ZSTD;
    } else if (compression && strcmp(compression, "zlib") != 0) {
        tool_say("compression_type: '%s' is neither zlib nor zstd", compression);
        return false;
    }
    if (preallocation && !q2_preallocation_find(preallocation, &options->preallocation)) {
        tool_say("preallocation: '%s' is none of off, metadata, falloc and full", preallocation);
        return false;
    }
    options->backing_file = get(reader, "backing_file");
    options->backing_format = get(reader, "backing_fmt");
    options->data_file = get(reader, "data_file");
    return true;
}

/* ---- encryption ---- */

static bool
read_method(struct reader *reader)
{
    struct q2_create_options *options = &reader->target.options;
    const char *format = get(reader, "encrypt.format");
    bool legacy = false;
    if (!read_flag(reader, "encryption", &legacy))
        return false;
    if (legacy && format) {
        tool_say("encryption and encrypt.format do not go together");
        return false;
    }
    if (legacy || (format && strcmp(format, "aes") == 0)) {
        options->crypt = Q2_CRYPT_AES;
    } else if (format && strcmp(format, "luks") == 0) {
        options->crypt = Q2_CRYPT_LUKS;
    } else if (format) {
        tool_say("encrypt.format: '%s' is neither luks nor aes", format);
        return false;
    }
    return true;
}

static bool
read_encryption(struct reader *reader)
{
    struct q2_create_options *options = &reader->target.options;
    const char *id = get(reader, "encrypt.key-secret");
    if (!read_method(reader))
        return false;
    if (!options->crypt)
        return true;
    if (!id) {
        tool_say("%s: encryption needs encrypt.key-secret=ID", reader->name);
        return false;
    }
    options->secret = tool_secret_find(reader->secrets, id);
    options->cipher_name = get(reader, "encrypt.cipher-alg");
    options->cipher_mode = get(reader, "encrypt.cipher-mode");
    options->ivgen_name = get(reader, "encrypt.ivgen-alg");
    options->ivgen_hash = get(reader, "encrypt.ivgen-hash-alg");
    options->hash = get(reader, "encrypt.hash-alg");
    return options->secret && tool_pairs_number(reader->pairs, "encrypt.iter-time", UINT32_MAX,
                                                &options->iteration_ms);
}

/* ---- the whole ---- */

bool
tool_target_init(struct tool_target *target, const char *name, const char *format,
                 const struct tool_pairs *pairs, const struct tool_secrets *secrets)
{
    struct q2_error err = {0};
    struct reader reader = {name, pairs, secrets, {.format = Q2_DISK_RAW}};
    if (format && !tool_format_find(format, &reader.target.format))
        return false;
    if (!tool_create_keys_check(name, reader.target.format, pairs) || !read_sizes(&reader) ||
        !read_words(&reader))
        return false;
    struct q2_create_options *options = &reader.target.options;
    if (reader.target.format == Q2_DISK_RAW) {
        if (options->preallocation == Q2_PREALLOCATION_METADATA) {
            tool_say("%s: a raw image has no metadata to preallocate", name);
            return false;
        }
    } else if (!read_flags(&reader) || !read_encryption(&reader)) {
        return false;
    } else if (q2_create_validate(options, &err) < 0) {
        tool_fail(name, &err);
        return false;
    }
    *target = reader.target;
    return true;
}

/* ---- raw files ---- */

/* What was there before goes; that of a block device stays. */
static int
shape_raw(struct q2_file *file, const struct q2_create_options *options, struct q2_error *err)
{
    struct stat st;
    bool device = stat(file->name, &st) == 0 && S_ISBLK(st.st_mode);
    int rc = device ? 0 : q2_file_truncate(file, 0, err);
    return rc < 0 ? rc : raw_resize(file, 0, options->size, options->preallocation, err);
}

static int
make_raw(const char *name, const struct q2_create_options *options, struct q2_error *err)
{
    struct q2_file *file;
    bool is_new = access(name, F_OK) != 0;
    int rc = q2_file_open(name, Q2_OPEN_WRITE | (is_new ? Q2_OPEN_CREATE : 0), &file, err);
    if (rc < 0)
        return rc;
    rc = shape_raw(file, options, err);
    q2_file_close(file);
    if (rc < 0 && is_new)
        unlink(name);
    return rc;
}

int
tool_target_make(const struct tool_target *target, const char *name, struct q2_error *err)
{
    if (target->format == Q2_DISK_RAW)
        return make_raw(name, &target->options, err);
    return q2_image_create(name, &target->options, err);
}
