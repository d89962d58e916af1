/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Content in blocks of 4 KiB that come into being when written. Bytes past the end are kept zero
 * in the last block, so that growing never shows what was there once. */

#include "core/io/memory.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/io/sparse.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BITS = 12, BLOCK_SIZE = 1 << BLOCK_BITS };

struct memory_file {
    struct q2_file file;
    pthread_rwlock_t lock; /* over all below */
    uint64_t size;
    struct q2_sparse blocks;
};

static struct memory_file *
memory_of(struct q2_file *file)
{
    return (struct memory_file *)file;
}

/* How many of `length` bytes at `offset` lie in the block of the first. */
static size_t
piece_at(uint64_t offset, uint64_t length)
{
    return (size_t)q2_min(length, BLOCK_SIZE - offset % BLOCK_SIZE);
}

static void
load(const struct memory_file *memory, uint64_t offset, uint8_t *to, size_t length)
{
    while (length) {
        size_t piece = piece_at(offset, length);
        void *block;
        if (q2_sparse_find(&memory->blocks, offset >> BLOCK_BITS, &block) == Q2_SPARSE_BACKED)
            memcpy(to, (uint8_t *)block + offset % BLOCK_SIZE, piece);
        else
            memset(to, 0, piece);
        offset += piece;
        to += piece;
        length -= piece;
    }
}

/* The size follows each block, so that a write that runs out of memory is a short one. */
static int
store(struct memory_file *memory, uint64_t offset, const uint8_t *from, size_t length,
      struct q2_error *err)
{
    while (length) {
        size_t piece = piece_at(offset, length);
        enum q2_sparse_state was;
        void *block;
        int rc = q2_sparse_make(&memory->blocks, offset >> BLOCK_BITS, &block, &was, err);
        if (rc < 0)
            return rc;
        memcpy((uint8_t *)block + offset % BLOCK_SIZE, from, piece);
        offset += piece;
        from += piece;
        length -= piece;
        memory->size = q2_max(memory->size, offset);
    }
    return 0;
}

/* Zero [offset, end): whole blocks go, the parts of blocks at the edges are cleared. */
static int
zero(struct memory_file *memory, uint64_t offset, uint64_t end, struct q2_error *err)
{
    uint64_t first = q2_units(offset, BLOCK_BITS), last = end >> BLOCK_BITS;
    int rc = q2_sparse_fill(&memory->blocks, first, last, Q2_SPARSE_ABSENT, err);
    while (rc == 0 && offset < end) {
        void *block;
        size_t piece = piece_at(offset, end - offset);
        if (q2_sparse_find(&memory->blocks, offset >> BLOCK_BITS, &block) == Q2_SPARSE_BACKED)
            memset((uint8_t *)block + offset % BLOCK_SIZE, 0, piece);
        /* From the first edge, if any, on to the last. */
        offset = q2_max(offset + piece, last << BLOCK_BITS);
    }
    return rc;
}

static int
memory_preadv(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
              size_t *ret_done, struct q2_error *err)
{
    (void)err;
    struct memory_file *memory = memory_of(file);
    size_t done = 0;
    pthread_rwlock_rdlock(&memory->lock);
    for (int i = 0; i < iov_count && offset < memory->size; i++) {
        size_t length = (size_t)q2_min(iov[i].iov_len, memory->size - offset);
        load(memory, offset, iov[i].iov_base, length);
        offset += length;
        done += length;
    }
    pthread_rwlock_unlock(&memory->lock);
    *ret_done = done;
    return 0;
}

static int
memory_pwritev(struct q2_file *file, const struct iovec *iov, int iov_count, uint64_t offset,
               struct q2_error *err)
{
    struct memory_file *memory = memory_of(file);
    int rc = 0;
    pthread_rwlock_wrlock(&memory->lock);
    for (int i = 0; i < iov_count && rc == 0; i++) {
        rc = store(memory, offset, iov[i].iov_base, iov[i].iov_len, err);
        offset += iov[i].iov_len;
    }
    pthread_rwlock_unlock(&memory->lock);
    return rc;
}

static int
memory_flush(struct q2_file *file, struct q2_error *err)
{
    (void)file;
    (void)err;
    return 0;
}

static int
memory_truncate(struct q2_file *file, uint64_t size, struct q2_error *err)
{
    struct memory_file *memory = memory_of(file);
    int rc = 0;
    pthread_rwlock_wrlock(&memory->lock);
    if (size < memory->size)
        rc = zero(memory, size, (q2_units(memory->size, BLOCK_BITS)) << BLOCK_BITS, err);
    if (rc == 0)
        memory->size = size;
    pthread_rwlock_unlock(&memory->lock);
    return rc;
}

static int
memory_size(struct q2_file *file, uint64_t *ret_size, struct q2_error *err)
{
    (void)err;
    struct memory_file *memory = memory_of(file);
    pthread_rwlock_rdlock(&memory->lock);
    *ret_size = memory->size;
    pthread_rwlock_unlock(&memory->lock);
    return 0;
}

/* The first block at or after `block` that is absent. */
static uint64_t
backed_until(const struct memory_file *memory, uint64_t block)
{
    struct q2_sparse_run run;
    while (q2_sparse_next(&memory->blocks, block, &run) && run.first == block)
        block = run.end;
    return block;
}

static int
memory_extent(struct q2_file *file, uint64_t offset, bool *ret_data, uint64_t *ret_end,
              struct q2_error *err)
{
    (void)err;
    struct memory_file *memory = memory_of(file);
    uint64_t block = offset >> BLOCK_BITS, end;
    struct q2_sparse_run run;
    pthread_rwlock_rdlock(&memory->lock);
    bool any = q2_sparse_next(&memory->blocks, block, &run), data = any && run.first == block;
    if (data)
        end = backed_until(memory, block) << BLOCK_BITS;
    else
        end = any ? run.first << BLOCK_BITS : memory->size;
    end = q2_min(end, memory->size);
    pthread_rwlock_unlock(&memory->lock);
    *ret_data = data;
    *ret_end = end;
    return 0;
}

static int
memory_punch(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err)
{
    struct memory_file *memory = memory_of(file);
    int rc = 0;
    pthread_rwlock_wrlock(&memory->lock);
    if (offset < memory->size) {
        uint64_t end = offset + q2_min(length, memory->size - offset);
        if (end == memory->size) /* the rest of the last block is zero anyway: let all of it go */
            end = q2_units(end, BLOCK_BITS) << BLOCK_BITS;
        rc = zero(memory, offset, end, err);
    }
    pthread_rwlock_unlock(&memory->lock);
    return rc;
}

static int
memory_allocated(struct q2_file *file, uint64_t *ret_bytes, struct q2_error *err)
{
    (void)err;
    struct memory_file *memory = memory_of(file);
    pthread_rwlock_rdlock(&memory->lock);
    *ret_bytes = memory->blocks.blocks << BLOCK_BITS;
    pthread_rwlock_unlock(&memory->lock);
    return 0;
}

static void
memory_close(struct q2_file *file)
{
    struct memory_file *memory = memory_of(file);
    q2_sparse_clear(&memory->blocks);
    pthread_rwlock_destroy(&memory->lock);
    q2_file_fini(file);
    free(memory);
}

static const struct q2_file_ops memory_ops = {
    .preadv = memory_preadv,
    .pwritev = memory_pwritev,
    .flush = memory_flush,
    .truncate = memory_truncate,
    .size = memory_size,
    .extent = memory_extent,
    .punch = memory_punch,
    .allocated = memory_allocated,
    .close = memory_close,
};

int
q2_file_new_memory(const char *name, struct q2_file **ret_file, struct q2_error *err)
{
    Q2_AUTOFREE struct memory_file *memory = calloc(1, sizeof *memory);
    if (!memory)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: no memory for a file in memory", name);
    int rc = q2_file_init(&memory->file, &memory_ops, name, true, err);
    if (rc < 0)
        return rc;
    pthread_rwlock_init(&memory->lock, NULL);
    q2_sparse_init(&memory->blocks, BLOCK_SIZE, NULL, memory->file.name);
    *ret_file = &Q2_STEAL(memory)->file;
    return 0;
}

int
q2_file_new_memory_from(const char *name, const void *bytes, size_t length,
                        struct q2_file **ret_file, struct q2_error *err)
{
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    int rc = q2_file_new_memory(name, &file, err);
    if (rc == 0)
        rc = q2_file_write(file, 0, bytes, length, err);
    if (rc == 0)
        *ret_file = Q2_STEAL(file);
    return rc;
}
