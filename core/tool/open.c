/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* From what the command line calls a disk to an open one. With --image-opts a list of options
 * describes a chain: what is about the backing file has "backing." before it, and so on. */

#include "core/tool/open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One disk of the chain that a list describes. */
struct node {
    struct q2_image_options options;
    struct node *backing;
};

static void
node_free(struct node *node)
{
    while (node) {
        struct node *backing = node->backing;
        free(node);
        node = backing;
    }
}

/* What a list says of the disk whose keys begin with `prefix`. */
struct reader {
    const struct tool_common *common;
    const struct tool_pairs *pairs;
    const char *prefix;
};

static const char *
get(const struct reader *reader, const char *key)
{
    char whole[1024];
    int length = snprintf(whole, sizeof whole, "%s%s", reader->prefix, key);
    return (size_t)length < sizeof whole ? tool_pairs_get(reader->pairs, whole) : NULL;
}

static const char *
get_first(const struct reader *reader, const char *const *keys)
{
    const char *value = NULL;
    for (; !value && *keys; keys++)
        value = get(reader, *keys);
    return value;
}

/* ---- which keys there are ---- */

/* Those that say nothing that matters here are taken so that lines made for QEMU work. */
static const char *const known_keys[] = {
    "driver",
    "filename",
    "file",
    "file.driver",
    "file.filename",
    "file.file.driver",
    "file.file.filename",
    "file.locking",
    "node-name",
    "read-only",
    "encrypt.format",
    "encrypt.key-secret",
    "backing",
    "data-file",
    "data-file.driver",
    "data-file.filename",
    "data-file.file.driver",
    "data-file.file.filename",
    "l2-cache-size",
    "refcount-cache-size",
    NULL,
};

static bool
keys_are_known(const struct tool_pairs *pairs)
{
    for (size_t i = 0; i < pairs->count; i++) {
        const char *key = pairs->pairs[i].key;
        while (strncmp(key, "backing.", 8) == 0)
            key += 8;
        size_t known = 0;
        while (known_keys[known] && strcmp(known_keys[known], key) != 0)
            known++;
        if (known_keys[known])
            continue;
        tool_say("--image-opts: there is no option '%s'", pairs->pairs[i].key);
        return false;
    }
    return true;
}

/* ---- reading one disk's options ---- */

static bool
read_driver(const struct reader *reader, struct q2_image_options *options)
{
    const char *driver = get(reader, "driver");
    if (driver && strcmp(driver, "file") == 0)
        options->format = Q2_DISK_RAW;
    else if (driver)
        return tool_format_find(driver, &options->format);
    const char *below = get(reader, "file.driver");
    if (!below || strcmp(below, "file") == 0 || strcmp(below, "raw") == 0 ||
        strcmp(below, "host_device") == 0)
        return true;
    tool_say("--image-opts: the driver '%s' is not supported", below);
    return false;
}

static bool
read_secret(const struct reader *reader, struct q2_image_options *options)
{
    const char *id = get(reader, "encrypt.key-secret");
    if (id)
        options->secret = tool_secret_find(reader->common->secrets, id);
    return !id || options->secret;
}

static bool
read_cache_sizes(const struct reader *reader, struct q2_image_options *options)
{
    const char *l2 = get(reader, "l2-cache-size");
    const char *refcount = get(reader, "refcount-cache-size");
    uint64_t max = UINT64_C(1) << 40;
    return (!l2 || tool_size_option("l2-cache-size", l2, 0, max, &options->l2_cache_bytes)) &&
           (!refcount || tool_size_option("refcount-cache-size", refcount, 0, max,
                                          &options->refcount_cache_bytes));
}

static const char *
read_name(const struct reader *reader)
{
    static const char *const keys[] = {"file.filename", "file.file.filename", "filename", NULL};
    return get_first(reader, keys);
}

static struct node *read_node(const struct reader *reader, unsigned flags);

/* The disk below, where the list says something of it. */
static bool
read_backing(const struct reader *reader, struct node *node)
{
    char prefix[1024];
    const char *none = get(reader, "backing");
    if (none && !*none)
        node->options.flags |= Q2_IMAGE_NO_BACKING;
    int length = snprintf(prefix, sizeof prefix, "%sbacking.", reader->prefix);
    if ((size_t)length >= sizeof prefix)
        return true;
    bool said = false;
    for (size_t i = 0; i < reader->pairs->count; i++)
        said |= strncmp(reader->pairs->pairs[i].key, prefix, (size_t)length) == 0;
    if (!said)
        return true;
    struct reader below = {reader->common, reader->pairs, prefix};
    node->backing = read_node(&below, node->options.flags & ~(unsigned)Q2_IMAGE_WRITE);
    if (!node->backing)
        return false;
    node->options.backing = &node->backing->options;
    node->options.backing_file = read_name(&below);
    return true;
}

/* NULL after a message. */
static struct node *
read_node(const struct reader *reader, unsigned flags)
{
    static const char *const data_keys[] = {"data-file.filename", "data-file.file.filename", NULL};
    struct node *node = calloc(1, sizeof *node);
    if (!node) {
        tool_say("out of memory");
        return NULL;
    }
    node->options.flags = flags;
    node->options.data_file = get_first(reader, data_keys);
    if (read_driver(reader, &node->options) && read_secret(reader, &node->options) &&
        read_cache_sizes(reader, &node->options) && read_backing(reader, node))
        return node;
    node_free(node);
    return NULL;
}

/* ---- opening ---- */

static bool
open_path(const char *path, const struct q2_image_options *options, struct q2_disk **ret_disk)
{
    struct q2_error err = {0};
    if (!*path) {
        tool_say("the file name is empty");
        return false;
    }
    if (q2_disk_open(path, options, ret_disk, &err) == 0)
        return true;
    tool_fail(path, &err);
    return false;
}

static bool
open_listed(const struct tool_common *common, const struct tool_pairs *pairs, unsigned flags,
            struct q2_disk **ret_disk)
{
    struct reader reader = {common, pairs, ""};
    const char *path = read_name(&reader);
    if (!keys_are_known(pairs))
        return false;
    if (!path) {
        tool_say("--image-opts: file.filename= is missing");
        return false;
    }
    struct node *node = read_node(&reader, flags);
    bool good = node && open_path(path, &node->options, ret_disk);
    node_free(node);
    return good;
}

/* Whether a name is a list of options, either because all names are or as it says so itself. */
static bool
is_list(bool image_opts, const char *name)
{
    return image_opts || strncmp(name, "json:", 5) == 0;
}

static bool
read_list(bool image_opts, const char *name, struct tool_pairs *pairs)
{
    return image_opts ? tool_pairs_add(pairs, name, NULL) : tool_pairs_add_json(pairs, name + 5);
}

/* "file:NAME" is how QEMU writes names that contain colons. */
static const char *
without_protocol(const char *name)
{
    return strncmp(name, "file:", 5) == 0 ? name + 5 : name;
}

bool
tool_open(const struct tool_common *common, const char *name, const struct tool_open *how,
          struct q2_disk **ret_disk)
{
    struct q2_image_options options = {.flags = how->flags};
    if (common->force_share)
        options.flags |= Q2_IMAGE_FORCE_SHARE;
    if (is_list(how->image_opts, name)) {
        struct tool_pairs pairs = {0};
        bool good = read_list(how->image_opts, name, &pairs) &&
                    open_listed(common, &pairs, options.flags, ret_disk);
        tool_pairs_destroy(&pairs);
        return good;
    }
    if (how->format && !tool_format_find(how->format, &options.format))
        return false;
    return open_path(without_protocol(name), &options, ret_disk);
}

bool
tool_open_one(const struct tool_common *common, const char *name, unsigned flags,
              struct q2_disk **ret_disk)
{
    struct tool_open how = {common->image_opts, common->format, flags};
    return tool_open(common, name, &how, ret_disk);
}

bool
tool_open_path(const struct tool_common *common, const char *name, char **ret_path,
               enum q2_disk_format *ret_format)
{
    struct tool_pairs pairs = {0};
    struct reader reader = {common, &pairs, ""};
    struct q2_image_options options = {0};
    const char *path = without_protocol(name);
    bool good = true;
    if (is_list(common->image_opts, name)) {
        good = read_list(common->image_opts, name, &pairs) && keys_are_known(&pairs) &&
               read_driver(&reader, &options);
        path = read_name(&reader);
    } else if (common->format) {
        good = tool_format_find(common->format, &options.format);
    }
    if (good && !path)
        tool_say("--image-opts: file.filename= is missing");
    char *copy = good && path ? strdup(path) : NULL;
    tool_pairs_destroy(&pairs);
    if (!copy)
        return false;
    *ret_path = copy;
    *ret_format = options.format;
    return true;
}

int
tool_close(struct q2_disk *disk, int status)
{
    struct q2_error err = {0};
    if (q2_disk_close(disk, &err) == 0)
        return status;
    tool_fail(NULL, &err);
    return TOOL_FAILED;
}

struct q2_image *
tool_need_image(struct q2_disk *disk, const char *name, const char *command)
{
    struct q2_image *image = q2_disk_image(disk);
    if (!image)
        tool_say("'%s' is a %s image, which %s does not work with", name,
                 q2_disk_format_name(q2_disk_format(disk)), command);
    return image;
}
