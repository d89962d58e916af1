/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Files in memory that live longer than the images that open them. What an image gets is a handle
 * that passes everything on to the top of its slot, so that a test can put a failing or recording
 * file there while the image is open. */

#include "core/io/memory.h"
#include "core/io/posix.h"
#include "tests/stress/stress.h"

#include <stdlib.h>
#include <string.h>

struct handle {
    struct q2_file file;
    struct slot *slot;
};

static struct q2_file *
top(struct q2_file *file)
{
    return ((struct handle *)file)->slot->top;
}

static int
handle_preadv(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
              size_t *ret_done, struct q2_error *err)
{
    return q2_file_preadv(top(file), iov, iov_count, offset, ret_done, err);
}

static int
handle_pwritev(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
               struct q2_error *err)
{
    return q2_file_pwritev(top(file), iov, iov_count, offset, err);
}

static int
handle_flush(struct q2_file *file, struct q2_error *err)
{
    return q2_file_flush(top(file), err);
}

static int
handle_truncate(struct q2_file *file, uint64_t size, struct q2_error *err)
{
    return q2_file_truncate(top(file), size, err);
}

static int
handle_size(struct q2_file *file, uint64_t *ret_size, struct q2_error *err)
{
    return q2_file_size(top(file), ret_size, err);
}

static int
handle_extent(struct q2_file *file, uint64_t offset, bool *ret_data, uint64_t *ret_end,
              struct q2_error *err)
{
    return q2_file_extent(top(file), offset, ret_data, ret_end, err);
}

static int
handle_punch(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err)
{
    return q2_file_punch(top(file), offset, length, err);
}

static void
handle_close(struct q2_file *file)
{
    q2_file_fini(file);
    free(file);
}

static const struct q2_file_ops handle_ops = {
    .preadv = handle_preadv,
    .pwritev = handle_pwritev,
    .flush = handle_flush,
    .truncate = handle_truncate,
    .size = handle_size,
    .extent = handle_extent,
    .punch = handle_punch,
    .close = handle_close,
};

/* ---- names ---- */

struct slot *
world_find(struct world *world, const char *name)
{
    for (unsigned i = 0; i < world->count; i++)
        if (strcmp(world->slots[i].name, name) == 0)
            return &world->slots[i];
    return NULL;
}

struct slot *
world_add(struct world *world, const char *name)
{
    struct slot *slot = world_find(world, name);
    if (slot)
        return slot;
    if (world->count == MAX_SLOTS)
        return NULL;
    slot = &world->slots[world->count];
    if (q2_file_new_memory(name, &slot->base, NULL) < 0)
        return NULL;
    snprintf(slot->name, sizeof slot->name, "%s", name);
    slot->top = slot->base;
    world->count++;
    return slot;
}

int
world_open(void *data, const char *name, unsigned flags, struct q2_file **ret_file,
           struct q2_error *err)
{
    struct slot *slot = world_find(data, name);
    bool write = flags & Q2_OPEN_WRITE;
    if (!slot)
        return q2_error_set(err, Q2_ERR_OPEN, "%s: there is no such file", name);
    struct handle *handle = calloc(1, sizeof *handle);
    if (!handle)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a file");
    int rc = q2_file_init(&handle->file, &handle_ops, name, write, err);
    if (rc < 0) {
        free(handle);
        return rc;
    }
    handle->slot = slot;
    *ret_file = &handle->file;
    return 0;
}

void
world_destroy(struct world *world)
{
    for (unsigned i = 0; i < world->count; i++)
        q2_file_close(world->slots[i].base);
    world->count = 0;
}

/* ---- content ---- */

static uint8_t *
content(struct q2_file *file, uint64_t *ret_size)
{
    uint64_t size = 0;
    if (q2_file_size(file, &size, NULL) < 0)
        return NULL;
    uint8_t *bytes = malloc(size + 1);
    if (bytes && q2_file_read(file, 0, bytes, size, NULL) < 0) {
        free(bytes);
        return NULL;
    }
    *ret_size = size;
    return bytes;
}

bool
file_copy(struct q2_file *from, struct q2_file *to)
{
    uint64_t size = 0;
    uint8_t *bytes = content(from, &size);
    bool fine = bytes && q2_file_truncate(to, 0, NULL) == 0 &&
                q2_file_truncate(to, size, NULL) == 0 &&
                q2_file_write(to, 0, bytes, size, NULL) == 0;
    free(bytes);
    return fine;
}

static bool
dump(struct q2_file *file, const char *path)
{
    uint64_t size = 0;
    uint8_t *bytes = content(file, &size);
    FILE *out = fopen(path, "wb");
    bool fine = bytes && out && fwrite(bytes, 1, size, out) == size;
    if (out)
        fine = fclose(out) == 0 && fine;
    free(bytes);
    return fine;
}

bool
world_dump(const struct world *world, const char *folder)
{
    bool fine = true;
    for (unsigned i = 0; i < world->count; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, world->slots[i].name);
        fine = dump(world->slots[i].base, path) && fine;
    }
    return fine;
}
