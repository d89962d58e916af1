/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* nbdkit-qcow2kit-plugin: a disk image over NBD.
 *
 * The image is opened with the first connection and closed after the last one; all connections in
 * between are the same image, which orders requests that are in conflict and lets all others run at
 * once. So a flush of one connection covers what the others wrote, and clients may use several.
 *
 * nbdkit.h is under a BSD licence and the server loads this file as a library: nothing here is
 * bound by any other licence than our own. The only name that the server sees is plugin_init. */

#include "core/base/checked.h"
#include "core/codec/secret.h"
#include "core/image/disk.h"
#include "core/image/snapshots.h"

#define NBDKIT_API_VERSION 2
#include <errno.h>
#include <nbdkit-plugin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

enum {
    MAX_EXTENTS = 4096, /* that one answer looks for */
    MAX_REQUEST = 32 << 20,
    RAW_BLOCK = 4096,
};

/* ---- parameters ---- */

static struct {
    char *file;
    const char *snapshot;
    char *secret_file;
    enum q2_disk_format format;
    uint64_t l2_cache_bytes;
    bool keep; /* discard=off */
    bool share;
} config;

static int
config_flag(const char *value, bool *ret_flag)
{
    int flag = nbdkit_parse_bool(value);
    if (flag >= 0)
        *ret_flag = flag;
    return flag < 0 ? -1 : 0;
}

static int
config_path(const char *value, char **path)
{
    free(*path);
    *path = nbdkit_realpath(value);
    return *path ? 0 : -1;
}

static int
config_format(const char *value)
{
    if (q2_disk_format_find(value, &config.format))
        return 0;
    nbdkit_error("format=%s: it is qcow2 or raw", value);
    return -1;
}

static int
config_size(const char *value, uint64_t *ret_bytes)
{
    int64_t bytes = nbdkit_parse_size(value);
    if (bytes >= 0)
        *ret_bytes = (uint64_t)bytes;
    return bytes < 0 ? -1 : 0;
}

static int
plugin_config(const char *key, const char *value)
{
    bool discard = true;
    if (strcmp(key, "file") == 0)
        return config_path(value, &config.file);
    if (strcmp(key, "format") == 0)
        return config_format(value);
    if (strcmp(key, "secret-file") == 0)
        return config_path(value, &config.secret_file);
    if (strcmp(key, "l2-cache") == 0)
        return config_size(value, &config.l2_cache_bytes);
    if (strcmp(key, "share") == 0)
        return config_flag(value, &config.share);
    if (strcmp(key, "snapshot") == 0) {
        config.snapshot = value;
        return 0;
    }
    if (strcmp(key, "discard") == 0) {
        int rc = config_flag(value, &discard);
        config.keep = !discard;
        return rc;
    }
    nbdkit_error("unknown parameter '%s'", key);
    return -1;
}

static int
plugin_config_complete(void)
{
    if (config.file)
        return 0;
    nbdkit_error("the parameter file=IMAGE is missing");
    return -1;
}

static void
plugin_unload(void)
{
    free(config.file);
    free(config.secret_file);
}

/* ---- the image that all connections share ---- */

static struct {
    pthread_mutex_t lock;
    struct q2_disk *disk; /* NULL: no connection */
    unsigned users;
    bool writable;
    bool fast_zero;
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int
errno_of(int rc)
{
    switch ((enum q2_error_code)rc) {
    case Q2_ERR_NOMEM:
    case Q2_ERR_BUDGET:
        return ENOMEM;
    case Q2_ERR_NOSPACE:
        return ENOSPC;
    case Q2_ERR_RANGE:
        return EINVAL;
    case Q2_ERR_READ_ONLY:
    case Q2_ERR_CORRUPT:
        return EROFS;
    case Q2_ERR_LOCKED:
        return EBUSY;
    case Q2_ERR_UNSUPPORTED:
        return EOPNOTSUPP;
    default:
        return EIO;
    }
}

/* What a callback returns for the result of a library function. */
static int
answer(int rc, const struct q2_error *err)
{
    if (rc >= 0)
        return 0;
    nbdkit_error("%s", err->message);
    nbdkit_set_error(errno_of(rc));
    return -1;
}

static int
load_snapshot(struct q2_disk *disk, struct q2_error *err)
{
    unsigned index = 0;
    struct q2_image *image = q2_disk_image(disk);
    if (!config.snapshot)
        return 0;
    if (!image)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "%s: a raw disk has no snapshots",
                            q2_disk_name(disk));
    int rc = q2_snapshot_find(image, config.snapshot, &index, err);
    return rc < 0 ? rc : q2_snapshot_load(image, index, err);
}

/* Whether making zeros is a matter of metadata: whole clusters become zero clusters. */
static bool
zeros_are_cheap(struct q2_disk *disk)
{
    const struct q2_image *image = q2_disk_image(disk);
    return image && q2_image_header(image)->version >= 3 &&
           !(q2_image_header(image)->autoclear_features & Q2_AUTOCLEAR_RAW_DATA);
}

static int
open_disk(bool writable, struct q2_disk **ret_disk, struct q2_error *err)
{
    struct q2_secret secret = {0};
    struct q2_image_options options = {
        .flags = (writable ? (unsigned)Q2_IMAGE_WRITE : 0) |
                 (config.share ? (unsigned)Q2_IMAGE_FORCE_SHARE : 0) |
                 (config.keep ? 0 : (unsigned)Q2_IMAGE_DISCARD),
        .format = config.format,
        .l2_cache_bytes = config.l2_cache_bytes,
    };
    if (config.secret_file) {
        int rc = q2_secret_read(config.secret_file, Q2_SECRET_RAW, &secret, err);
        if (rc < 0)
            return rc;
        options.secret = &secret;
    }
    struct q2_disk *disk = NULL;
    int rc = q2_disk_open(config.file, &options, &disk, err);
    q2_secret_destroy(&secret);
    if (rc == 0)
        rc = load_snapshot(disk, err);
    if (rc < 0)
        q2_disk_close(disk, NULL);
    else
        *ret_disk = disk;
    return rc;
}

static int
shared_open(bool writable, struct q2_error *err)
{
    struct q2_disk *disk = NULL;
    if (shared.disk && writable && !shared.writable)
        return q2_error_set(err, Q2_ERR_READ_ONLY, "%s: it is open for reading only", config.file);
    if (!shared.disk) {
        int rc = open_disk(writable, &disk, err);
        if (rc < 0)
            return rc;
        shared.disk = disk;
        shared.writable = writable;
        shared.fast_zero = writable && zeros_are_cheap(disk);
    }
    shared.users++;
    return 0;
}

struct connection {
    bool writable;
};

static void *
plugin_open(int readonly)
{
    struct q2_error err = {0};
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection) {
        nbdkit_error("no memory for a connection");
        return NULL;
    }
    connection->writable = !readonly && !config.snapshot;
    pthread_mutex_lock(&shared.lock);
    int rc = shared_open(connection->writable, &err);
    pthread_mutex_unlock(&shared.lock);
    if (answer(rc, &err) == 0)
        return connection;
    free(connection);
    return NULL;
}

/* Under the lock. */
static void
shared_close(void)
{
    struct q2_error err = {0};
    int rc = q2_disk_close(shared.disk, &err);
    shared.disk = NULL;
    answer(rc, &err);
}

static void
plugin_close(void *handle)
{
    pthread_mutex_lock(&shared.lock);
    if (--shared.users == 0)
        shared_close();
    pthread_mutex_unlock(&shared.lock);
    free(handle);
}

/* A server that is told to end waits for its threads, but does not call close for connections that
 * are open then, or about to be closed. */
static void
plugin_cleanup(void)
{
    pthread_mutex_lock(&shared.lock);
    shared_close();
    pthread_mutex_unlock(&shared.lock);
}

/* ---- what the disk is ---- */

static int64_t
plugin_get_size(void *handle)
{
    (void)handle;
    return (int64_t)q2_disk_size(shared.disk);
}

static int
plugin_block_size(void *handle, uint32_t *ret_minimum, uint32_t *ret_preferred,
                  uint32_t *ret_maximum)
{
    (void)handle;
    struct q2_image *image = q2_disk_image(shared.disk);
    uint64_t cluster = image ? q2_image_geometry(image)->cluster_size : RAW_BLOCK;
    *ret_minimum = 1;
    *ret_preferred = (uint32_t)q2_max(cluster, RAW_BLOCK);
    *ret_maximum = MAX_REQUEST;
    return 0;
}

static int
plugin_can_write(void *handle)
{
    const struct connection *connection = handle;
    return connection->writable;
}

static int
plugin_can_trim(void *handle)
{
    (void)handle;
    return !config.keep;
}

static int
plugin_can_fast_zero(void *handle)
{
    (void)handle;
    return 1; /* where it is not, it fails fast */
}

static int
plugin_can_multi_conn(void *handle)
{
    (void)handle;
    return 1;
}

static int
plugin_can_cache(void *handle)
{
    (void)handle;
    return NBDKIT_CACHE_EMULATE;
}

/* Asked for with FUA, nbdkit calls flush after the request: the same that we would do. */
static int
plugin_can_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_EMULATE;
}

/* ---- requests ---- */

static int
plugin_pread(void *handle, void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)flags;
    struct q2_error err; /* filled on failure alone: half a KiB that is not cleared each time */
    return answer(q2_disk_read(shared.disk, offset, buffer, count, &err), &err);
}

static int
plugin_pwrite(void *handle, const void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)flags;
    struct q2_error err;
    return answer(q2_disk_write(shared.disk, offset, buffer, count, &err), &err);
}

static int
plugin_flush(void *handle, uint32_t flags)
{
    (void)handle;
    (void)flags;
    struct q2_error err;
    return answer(q2_disk_flush(shared.disk, &err), &err);
}

static int
plugin_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)flags;
    struct q2_error err;
    return answer(q2_disk_discard(shared.disk, offset, count, &err), &err);
}

static int
plugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    struct q2_error err;
    unsigned how = (flags & NBDKIT_FLAG_MAY_TRIM) && !config.keep ? (unsigned)Q2_ZERO_UNMAP : 0;
    if ((flags & NBDKIT_FLAG_FAST_ZERO) && !shared.fast_zero) {
        nbdkit_set_error(EOPNOTSUPP);
        return -1;
    }
    return answer(q2_disk_zero(shared.disk, offset, count, how, &err), &err);
}

/* As qemu-nbd does: a hole is what has no bytes of its own in any file of the chain. */
static uint32_t
extent_type(const struct q2_extent *extent)
{
    return (extent->data ? 0 : (uint32_t)NBDKIT_EXTENT_HOLE) |
           (extent->zero ? (uint32_t)NBDKIT_EXTENT_ZERO : 0);
}

static int
plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
               struct nbdkit_extents *extents)
{
    (void)handle;
    struct q2_error err;
    uint64_t end = offset + count;
    uint32_t type = 0;
    for (unsigned found = 0; offset < end && found < MAX_EXTENTS;) {
        struct q2_extent extent;
        int rc = q2_disk_map(shared.disk, offset, end - offset, &extent, &err);
        if (rc < 0)
            return answer(rc, &err);
        bool first = found == 0, other = first || extent_type(&extent) != type;
        if ((flags & NBDKIT_FLAG_REQ_ONE) && !first && other)
            break;
        type = extent_type(&extent);
        found += other; /* those that are alike become one */
        if (nbdkit_add_extent(extents, offset, extent.length, type) < 0)
            return -1;
        offset += extent.length;
    }
    return 0;
}

/* ---- the plugin ---- */

static void
plugin_dump(void)
{
    puts("qcow2kit_version=" QCOW2KIT_VERSION);
}

static struct nbdkit_plugin plugin = {
    .name = "qcow2kit",
    .longname = "qcow2kit disk images",
    .version = QCOW2KIT_VERSION,
    .description = "Serve qcow2 and raw images",
    .magic_config_key = "file",
    .config = plugin_config,
    .config_complete = plugin_config_complete,
    .config_help = "file=<IMAGE>             (required) The disk image.\n"
                   "format=qcow2|raw         Its format; without, what its first bytes say.\n"
                   "snapshot=<ID>            Serve this internal snapshot, read-only.\n"
                   "secret-file=<FILE>       The pass phrase of an encrypted image.\n"
                   "l2-cache=<SIZE>          Memory for mapping tables.\n"
                   "discard=on|off           Give back the space of what is trimmed (on).\n"
                   "share=on|off             Ignore the locks of other programs (off).",
    .cleanup = plugin_cleanup,
    .unload = plugin_unload,
    .dump_plugin = plugin_dump,
    .open = plugin_open,
    .close = plugin_close,
    .get_size = plugin_get_size,
    .block_size = plugin_block_size,
    .can_write = plugin_can_write,
    .can_trim = plugin_can_trim,
    .can_fast_zero = plugin_can_fast_zero,
    .can_multi_conn = plugin_can_multi_conn,
    .can_cache = plugin_can_cache,
    .can_fua = plugin_can_fua,
    .pread = plugin_pread,
    .pwrite = plugin_pwrite,
    .flush = plugin_flush,
    .trim = plugin_trim,
    .zero = plugin_zero,
    .extents = plugin_extents,
    .errno_is_preserved = 0,
};

struct nbdkit_plugin *plugin_init(void);
NBDKIT_REGISTER_PLUGIN(plugin)
