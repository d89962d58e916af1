/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Finding free clusters, and giving them back in two steps: what the disk may still refer to waits
 * in `leaving` until it does not, so that nobody is given a cluster that a crash could return to
 * its old owner. */

#include "core/image/refcounts.h"

#include <string.h>

enum {
    /* When so much waits to be freed, the metadata is written so that it can be. */
    MAX_LEAVING_RUNS = 4096,
    MAX_LEAVING_BYTES = 64 << 20,
};

/* ---- taking ---- */

/* Look from `from` on for clusters with refcount 0 that follow each other: `want` of them, or fewer
 * (at least one) unless `all`. Only where there are refcount blocks. *ret_count 0: there are none.
 */
static int
scan(struct q2_image *image, uint64_t from, uint64_t want, bool all, uint64_t *ret_first,
     uint64_t *ret_count, struct q2_error *err)
{
    unsigned order = image->geometry.refcount_order;
    uint64_t end = q2_refcount_end(image), first = from, count = 0;
    for (uint64_t cluster = from; cluster < end && count < want;) {
        struct q2_refcount_slice slice;
        int rc = q2_refcount_slice(image, cluster, &slice, err);
        if (rc < 0)
            return rc;
        if (!slice.bytes) { /* nothing is free where there is no block */
            if (count > 0 && !all)
                break;
            count = 0;
            cluster += slice.count;
            continue;
        }
        for (uint64_t i = 0; i < slice.count && count < want; i++, cluster++) {
            if (q2_refcount_get(slice.bytes, order, slice.index + i) == 0) {
                if (count++ == 0)
                    first = cluster;
                continue;
            }
            if (count > 0 && !all)
                want = count;
            else
                count = 0;
        }
    }
    *ret_first = first;
    *ret_count = all && count < want ? 0 : count;
    return 0;
}

static int
take(struct q2_image *image, uint64_t first, uint64_t count, struct q2_error *err)
{
    if (first + count > q2_cluster_limit(image))
        return q2_error_set(err, Q2_ERR_NOSPACE, "%s: the image is at its maximum of 64 PiB",
                            image->file->name);
    return q2_refcount_raise(image, first, count, err);
}

/* Free clusters at exactly `at`, in a block that exists. */
static int
free_at(struct q2_image *image, uint64_t at, uint64_t want, uint64_t *ret_count,
        struct q2_error *err)
{
    uint64_t first = at, count = 0;
    if (at < q2_refcount_end(image)) {
        int rc = scan(image, at, want, false, &first, &count, err);
        if (rc < 0)
            return rc;
    }
    *ret_count = first == at ? count : 0;
    return 0;
}

static int
find(struct q2_image *image, uint64_t want, bool all, uint64_t *ret_first, uint64_t *ret_count,
     struct q2_error *err)
{
    uint64_t first, count;
    int rc = scan(image, image->free_hint, want, all, &first, &count, err);
    if (rc == 0 && count == 0) {
        count = all ? want : 1;
        rc = q2_refcount_room(image, count, &first, err);
        /* The new block has room for more than was asked of it. */
        if (rc == 0 && !all)
            rc = scan(image, first, want, false, &first, &count, err);
    }
    if (rc < 0)
        return rc;
    *ret_first = first;
    *ret_count = count;
    return 0;
}

int
q2_allocate_run(struct q2_image *image, uint64_t want, uint64_t at, uint64_t *ret_first,
                uint64_t *ret_count, struct q2_error *err)
{
    uint64_t first = at, count;
    int rc =
        at ? free_at(image, at, want, &count, err) : find(image, want, false, &first, &count, err);
    if (rc == 0 && count > 0)
        rc = take(image, first, count, err);
    if (rc < 0)
        return rc;
    if (first == image->free_hint || !at)
        image->free_hint = first + count;
    *ret_first = first;
    *ret_count = count;
    return 0;
}

int
q2_allocate(struct q2_image *image, uint64_t count, enum q2_claim claim, uint64_t *ret_offset,
            struct q2_error *err)
{
    uint64_t first, got;
    int rc = find(image, count, true, &first, &got, err);
    if (rc == 0)
        rc = take(image, first, count, err);
    if (rc < 0)
        return rc;
    if (count == 1)
        image->free_hint = first + 1;
    uint64_t offset = first << image->geometry.cluster_bits;
    rc = q2_check_overlap(image, Q2_CLAIM_NONE, offset, count << image->geometry.cluster_bits, err);
    if (rc == 0 && claim != Q2_CLAIM_NONE)
        rc = q2_claims_add(image->claims, first, count, claim, err);
    if (rc < 0) {
        q2_free_now(image, first, count);
        return rc;
    }
    q2_image_grew(image, first, count);
    *ret_offset = offset;
    return 0;
}

/* ---- giving back ---- */

static bool
remember(struct q2_frees *frees, uint64_t first, uint64_t count)
{
    struct q2_free_run *last = frees->count ? &frees->runs[frees->count - 1] : NULL;
    if (last && last->first + last->count == first) {
        last->count += count;
        return true;
    }
    if (frees->count == frees->capacity) {
        size_t capacity = frees->capacity ? frees->capacity * 2 : 16;
        void *runs = reallocarray(frees->runs, capacity, sizeof *frees->runs);
        if (!runs)
            return false;
        frees->runs = runs;
        frees->capacity = capacity;
    }
    frees->runs[frees->count++] = (struct q2_free_run){.first = first, .count = count};
    return true;
}

void
q2_free_data_later(struct q2_image *image, uint64_t first, uint64_t count)
{
    if (remember(&image->leaving, first, count))
        image->leaving_clusters += count;
}

void
q2_free_later(struct q2_image *image, uint64_t first, uint64_t count)
{
    q2_claims_remove(image->claims, first, count);
    q2_free_data_later(image, first, count);
}

void
q2_free_now(struct q2_image *image, uint64_t first, uint64_t count)
{
    if (count == 0)
        return;
    q2_claims_remove(image->claims, first, count);
    remember(&image->released, first, count);
}

void
q2_release_leaving(struct q2_image *image)
{
    /* The lists change places if that is all it takes. */
    if (image->released.count == 0) {
        struct q2_frees empty = image->released;
        image->released = image->leaving;
        image->leaving = empty;
    }
    for (size_t i = 0; i < image->leaving.count; i++)
        remember(&image->released, image->leaving.runs[i].first, image->leaving.runs[i].count);
    image->leaving.count = 0;
    image->leaving_clusters = 0;
}

int
q2_free_bytes(struct q2_image *image, uint64_t first, uint64_t count, struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    if (!(image->flags & Q2_IMAGE_DISCARD))
        return 0;
    int rc = q2_check_overlap(image, Q2_CLAIM_NONE, first << bits, count << bits, err);
    return rc < 0 ? rc : q2_file_punch(image->file, first << bits, count << bits, err);
}

/* Nobody refers to clusters [first, first + count) any more, unless the image lies. */
static int
forget_clusters(struct q2_image *image, uint64_t first, uint64_t count, struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    int rc = q2_check_overlap(image, Q2_CLAIM_NONE, first << bits, count << bits, err);
    if (rc < 0)
        return rc;
    image->free_hint = q2_min(image->free_hint, first);
    q2_pack_forget(image, first, count);
    q2_cache_forget(image->l2_cache, first << bits, count << bits);
    q2_cache_forget(image->refcount_cache, first << bits, count << bits);
    return q2_free_bytes(image, first, count, err);
}

static int
free_run(struct q2_image *image, const struct q2_free_run *run, struct q2_error *err)
{
    int result = 0;
    uint64_t unused = 0; /* clusters just before `at` that nobody refers to */
    for (uint64_t i = 0; i <= run->count; i++) {
        uint64_t refcount = 1;
        int rc = 0;
        if (i < run->count)
            rc = q2_refcount_lower(image, run->first + i, &refcount, err);
        if (rc < 0 || refcount > 0) {
            if (unused > 0 && rc == 0)
                rc = forget_clusters(image, run->first + i - unused, unused, err);
            unused = 0;
        } else {
            unused++;
        }
        result = result < 0 ? result : rc;
    }
    return result;
}

int
q2_free_released(struct q2_image *image, struct q2_error *err)
{
    int result = 0;
    /* What fails leaks; the rest is freed all the same. */
    for (size_t i = 0; i < image->released.count; i++) {
        int rc = free_run(image, &image->released.runs[i], result < 0 ? NULL : err);
        result = result < 0 ? result : rc;
    }
    image->released.count = 0;
    return result;
}

int
q2_image_tidy(struct q2_image *image, struct q2_error *err)
{
    int rc = 0;
    if (image->leaving.count > MAX_LEAVING_RUNS ||
        image->leaving_clusters << image->geometry.cluster_bits > MAX_LEAVING_BYTES)
        rc = q2_image_write_back(image, err);
    if (rc == 0 && image->released.count > 0)
        rc = q2_free_released(image, err);
    return rc;
}

int
q2_image_cut(struct q2_image *image, struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    uint64_t size;
    int rc = q2_file_size(image->file, &size, err);
    if (rc < 0)
        return rc;
    uint64_t end = q2_units(size, bits);
    for (uint64_t refcount = 0; end > 0; end--) {
        rc = q2_refcount_read(image, end - 1, &refcount, err);
        if (rc < 0)
            return rc;
        if (refcount > 0)
            break;
    }
    if (end << bits >= size)
        return 0;
    /* Metadata there is in use, whatever its refcounts say. */
    rc = q2_check_overlap(image, Q2_CLAIM_NONE, end << bits, size - (end << bits), err);
    if (rc < 0)
        return rc;
    /* known_end first: a reader must not take the cut for somebody else's. */
    image->known_end = q2_min(image->known_end, end << bits);
    rc = q2_file_truncate(image->file, end << bits, err);
    if (rc < 0)
        return rc == Q2_ERR_UNSUPPORTED ? 0 : rc;
    image->virgin = end;
    image->geometry.file_clusters = end;
    image->geometry.file_size = end << bits;
    return 0;
}
