/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Slices live in one arena that the system fills with pages as they are used, so that a large limit
 * costs nothing on a small image. A hash table of chains leads to them; a clock hand finds one to
 * drop. All of that is made when the first slice is wanted: many an image is opened for what its
 * header says. */

#include "core/image/cache.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"

#include <stdlib.h>
#include <string.h>

enum {
    MIN_SLICES = 8,
    MAX_IOV = 64,
    NO_SLICE = -1,
};

struct slice {
    uint64_t offset;
    int32_t next; /* in the hash chain, or in the list of free slices */
    bool used, dirty, fresh, recent;
};

struct q2_cache {
    struct q2_cache_config config;
    unsigned slice_bits;
    int32_t most;  /* slices */
    int32_t count; /* of slices: 0 as long as none was wanted, then all of them */
    struct slice *slices;
    int32_t *chains; /* chain_mask + 1 heads */
    uint64_t chain_mask;
    uint8_t *arena;
    int32_t free_slices;
    int32_t hand;
    int32_t latest; /* the slice that was asked for last: often the next one too */
    uint64_t dirty_count;
};

static uint8_t *
bytes_of(const struct q2_cache *cache, int32_t index)
{
    return cache->arena + ((size_t)index << cache->slice_bits);
}

static int32_t *
chain_of(const struct q2_cache *cache, uint64_t offset)
{
    uint64_t hash = (offset >> cache->slice_bits) * UINT64_C(0x9e3779b97f4a7c15);
    return &cache->chains[(hash >> 20) & cache->chain_mask];
}

int
q2_cache_new(const struct q2_cache_config *config, struct q2_cache **ret_cache,
             struct q2_error *err)
{
    struct q2_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the %s cache", config->what);
    cache->config = *config;
    cache->slice_bits = (unsigned)__builtin_ctzll(config->slice_bytes);
    uint64_t most = q2_min(config->max_bytes >> cache->slice_bits, INT32_MAX / 2);
    cache->most = (int32_t)q2_max(most, MIN_SLICES);
    cache->free_slices = cache->latest = NO_SLICE;
    *ret_cache = cache;
    return 0;
}

/* Make room for the slices. What was had before memory ran out is kept for the next attempt. */
static int
prepare(struct q2_cache *cache, struct q2_error *err)
{
    cache->chain_mask = 15;
    while (cache->chain_mask < (uint64_t)cache->most)
        cache->chain_mask = cache->chain_mask * 2 + 1;
    if (!cache->arena)
        cache->arena = malloc((size_t)cache->most << cache->slice_bits);
    if (!cache->slices)
        cache->slices = malloc((size_t)cache->most * sizeof *cache->slices);
    if (!cache->chains)
        cache->chains = malloc((cache->chain_mask + 1) * sizeof *cache->chains);
    if (!cache->arena || !cache->slices || !cache->chains)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the %s cache", cache->config.what);
    cache->count = cache->most;
    q2_cache_forget_all(cache);
    return 0;
}

void
q2_cache_free(struct q2_cache *cache)
{
    if (!cache)
        return;
    free(cache->arena);
    free(cache->slices);
    free(cache->chains);
    free(cache);
}

/* ---- slices ---- */

static int32_t
find(const struct q2_cache *cache, uint64_t offset)
{
    if (cache->count == 0)
        return NO_SLICE;
    int32_t index = *chain_of(cache, offset);
    while (index != NO_SLICE && cache->slices[index].offset != offset)
        index = cache->slices[index].next;
    return index;
}

static void
unlink_slice(struct q2_cache *cache, int32_t index)
{
    struct slice *slice = &cache->slices[index];
    int32_t *at = chain_of(cache, slice->offset);
    while (*at != index)
        at = &cache->slices[*at].next;
    *at = slice->next;
    if (slice->dirty)
        cache->dirty_count--;
    *slice = (struct slice){.next = cache->free_slices};
    cache->free_slices = index;
    if (cache->latest == index)
        cache->latest = NO_SLICE;
}

/* Two rounds of the clock: the first takes away second chances. */
static bool
drop_one(struct q2_cache *cache)
{
    for (int64_t turn = 0; turn < 2 * (int64_t)cache->count; turn++) {
        int32_t index = cache->hand;
        struct slice *slice = &cache->slices[index];
        cache->hand = index + 1 == cache->count ? 0 : index + 1;
        if (slice->dirty)
            continue;
        if (!slice->recent) {
            unlink_slice(cache, index);
            return true;
        }
        slice->recent = false;
    }
    return false;
}

/* An unused slice, linked for `offset`. */
static int
obtain(struct q2_cache *cache, uint64_t offset, int32_t *ret_index, struct q2_error *err)
{
    if (cache->count == 0) {
        int rc = prepare(cache, err);
        if (rc < 0)
            return rc;
    }
    /* With nearly all of it dirty the hand would search long for each one that is clean. */
    if (cache->free_slices == NO_SLICE && cache->dirty_count > (uint64_t)cache->count / 4 * 3) {
        int rc = cache->config.make_clean(cache->config.data, err);
        /* What cannot be written must not keep others from reading as long as there is room. */
        if (rc < 0 && !drop_one(cache))
            return rc;
    }
    if (cache->free_slices == NO_SLICE && !drop_one(cache))
        return q2_error_set(err, Q2_ERR_NOMEM, "no %s slice could be written to make room",
                            cache->config.what);
    int32_t index = cache->free_slices;
    cache->free_slices = cache->slices[index].next;
    int32_t *chain = chain_of(cache, offset);
    cache->slices[index] =
        (struct slice){.offset = offset, .next = *chain, .used = true, .recent = true};
    *chain = index;
    *ret_index = index;
    return 0;
}

int
q2_cache_get(struct q2_cache *cache, uint64_t offset, uint8_t **ret_bytes, struct q2_error *err)
{
    uint64_t inside = offset & (cache->config.slice_bytes - 1), start = offset - inside;
    int32_t index = cache->latest;
    if (index == NO_SLICE || cache->slices[index].offset != start)
        index = find(cache, start);
    if (index == NO_SLICE) {
        int rc = obtain(cache, start, &index, err);
        if (rc < 0)
            return rc;
        rc = cache->config.read(cache->config.data, start, bytes_of(cache, index),
                                cache->config.slice_bytes, err);
        if (rc < 0) {
            unlink_slice(cache, index);
            return rc;
        }
    }
    cache->slices[index].recent = true;
    cache->latest = index;
    *ret_bytes = bytes_of(cache, index) + inside;
    return 0;
}

int
q2_cache_make(struct q2_cache *cache, uint64_t offset, uint8_t **ret_bytes, struct q2_error *err)
{
    int32_t index = find(cache, offset);
    if (index == NO_SLICE) {
        int rc = obtain(cache, offset, &index, err);
        if (rc < 0)
            return rc;
    }
    uint8_t *bytes = bytes_of(cache, index);
    memset(bytes, 0, cache->config.slice_bytes);
    q2_cache_dirty(cache, bytes);
    cache->slices[index].fresh = true;
    *ret_bytes = bytes;
    return 0;
}

void
q2_cache_dirty(struct q2_cache *cache, const uint8_t *bytes)
{
    struct slice *slice = &cache->slices[(size_t)(bytes - cache->arena) >> cache->slice_bits];
    if (!slice->dirty)
        cache->dirty_count++;
    slice->dirty = true;
}

bool
q2_cache_any_dirty(const struct q2_cache *cache)
{
    return cache->dirty_count > 0;
}

/* ---- writing ---- */

static int
by_offset(const void *a, const void *b, void *data)
{
    const struct q2_cache *cache = data;
    uint64_t x = cache->slices[*(const int32_t *)a].offset;
    uint64_t y = cache->slices[*(const int32_t *)b].offset;
    return x < y ? -1 : x > y;
}

/* Write the slices order[0 .. count), which follow each other in the file, and mark them clean. */
static int
write_run(struct q2_cache *cache, const int32_t *order, int count, struct q2_error *err)
{
    struct iovec iov[MAX_IOV];
    for (int i = 0; i < count; i++)
        iov[i] = (struct iovec){.iov_base = bytes_of(cache, order[i]),
                                .iov_len = cache->config.slice_bytes};
    uint64_t offset = cache->slices[order[0]].offset;
    uint64_t length = (uint64_t)count << cache->slice_bits;
    int rc = cache->config.allow_write(cache->config.data, offset, length, err);
    if (rc == 0)
        rc = q2_file_pwritev(cache->config.file, iov, count, offset, err);
    for (int i = 0; rc == 0 && i < count; i++) {
        cache->slices[order[i]].dirty = false;
        cache->dirty_count--;
    }
    return rc;
}

int
q2_cache_write(struct q2_cache *cache, bool only_fresh, struct q2_error *err)
{
    if (cache->dirty_count == 0)
        return 0;
    Q2_AUTOFREE int32_t *order = malloc(cache->dirty_count * sizeof *order);
    if (!order)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory to write the %s cache",
                            cache->config.what);
    size_t count = 0;
    for (int32_t i = 0; i < cache->count; i++)
        if (cache->slices[i].dirty && (cache->slices[i].fresh || !only_fresh))
            order[count++] = i;
    qsort_r(order, count, sizeof *order, by_offset, cache);
    for (size_t i = 0; i < count;) {
        uint64_t start = cache->slices[order[i]].offset;
        int run = 1;
        while (run < MAX_IOV && i + (size_t)run < count &&
               cache->slices[order[i + (size_t)run]].offset ==
                   start + ((uint64_t)run << cache->slice_bits))
            run++;
        int rc = write_run(cache, order + i, run, err);
        if (rc < 0)
            return rc;
        i += (size_t)run;
    }
    return 0;
}

void
q2_cache_settle(struct q2_cache *cache)
{
    for (int32_t i = 0; i < cache->count; i++)
        cache->slices[i].fresh = false;
}

/* ---- forgetting ---- */

void
q2_cache_forget(struct q2_cache *cache, uint64_t offset, uint64_t length)
{
    if (length >> cache->slice_bits > (uint64_t)cache->count) {
        for (int32_t i = 0; i < cache->count; i++)
            if (cache->slices[i].used && cache->slices[i].offset - offset < length)
                unlink_slice(cache, i);
        return;
    }
    for (uint64_t at = 0; at < length; at += cache->config.slice_bytes) {
        int32_t index = find(cache, offset + at);
        if (index != NO_SLICE)
            unlink_slice(cache, index);
    }
}

void
q2_cache_forget_all(struct q2_cache *cache)
{
    if (cache->count == 0)
        return;
    for (uint64_t i = 0; i <= cache->chain_mask; i++)
        cache->chains[i] = NO_SLICE;
    for (int32_t i = 0; i < cache->count; i++)
        cache->slices[i] = (struct slice){.next = i + 1 < cache->count ? i + 1 : NO_SLICE};
    cache->free_slices = 0;
    cache->hand = 0;
    cache->latest = NO_SLICE;
    cache->dirty_count = 0;
}

uint64_t
q2_cache_slice_bytes(const struct q2_cache *cache)
{
    return cache->config.slice_bytes;
}

uint64_t
q2_cache_max_bytes(const struct q2_cache *cache)
{
    return (uint64_t)cache->most << cache->slice_bits;
}
