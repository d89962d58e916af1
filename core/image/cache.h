/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Metadata in memory, in slices: aligned parts of L2 tables or of refcount blocks.
 *
 * The cache knows nothing of order: it never writes on its own. Room is made by dropping slices
 * that are clean, and where all are dirty, by asking its owner to write them (`make_clean`), who
 * knows what has to be on the disk before what. Not thread-safe: the image's lock is held around
 * it. */

#ifndef Q2_IMAGE_CACHE_H
#define Q2_IMAGE_CACHE_H

#include "core/base/error.h"
#include "core/io/file.h"

struct q2_cache;

struct q2_cache_config {
    struct q2_file *file; /* written to */
    const char *what;     /* for messages: "L2 table" */
    uint64_t slice_bytes; /* a power of two */
    uint64_t max_bytes;   /* of slices; at least 8 of them are kept */
    /* Write the dirty slices, whatever else must be written first. */
    int (*make_clean)(void *data, struct q2_error *err);
    /* Read a slice; what the file does not have reads as zeros. */
    int (*read)(void *data, uint64_t offset, void *buffer, size_t length, struct q2_error *err);
    /* May [offset, offset + length) be written? */
    int (*allow_write)(void *data, uint64_t offset, uint64_t length, struct q2_error *err);
    void *data;
};

int q2_cache_new(const struct q2_cache_config *config, struct q2_cache **ret_cache,
                 struct q2_error *err);
void q2_cache_free(struct q2_cache *cache);

/* The bytes at host `offset` up to the end of the slice that they are in, read if need be.
 * *ret_bytes lives until the next call of get or make. */
int q2_cache_get(struct q2_cache *cache, uint64_t offset, uint8_t **ret_bytes,
                 struct q2_error *err);

/* The slice at `offset` without reading it: zeros, dirty, and fresh: nothing on the disk leads to
 * it yet. */
int q2_cache_make(struct q2_cache *cache, uint64_t offset, uint8_t **ret_bytes,
                  struct q2_error *err);

/* The slice that `bytes`, from one of the above, lies in was changed. */
void q2_cache_dirty(struct q2_cache *cache, const uint8_t *bytes);

bool q2_cache_any_dirty(const struct q2_cache *cache);

/* Write dirty slices, all or only fresh ones, in the order of their offsets. Slices that could not
 * be written stay dirty. */
int q2_cache_write(struct q2_cache *cache, bool only_fresh, struct q2_error *err);

/* All that was written is on the disk and led to: nothing is fresh any more. */
void q2_cache_settle(struct q2_cache *cache);

/* Forget slices that begin in [offset, offset + length), dirty or not. */
void q2_cache_forget(struct q2_cache *cache, uint64_t offset, uint64_t length);
void q2_cache_forget_all(struct q2_cache *cache);

uint64_t q2_cache_slice_bytes(const struct q2_cache *cache);
uint64_t q2_cache_max_bytes(const struct q2_cache *cache);

#endif
