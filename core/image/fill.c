/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Clusters are taken in runs as long as the free space is, and put into the L2 tables run by run. A
 * cluster that was used before is emptied first, for what is mapped here reads as zeros. */

#include "core/image/fill.h"

#include "core/image/refcounts.h"

enum { ZEROS = 64 * 1024, MOST = 1 << 16 /* clusters to take at once */ };

struct run {
    uint64_t guest; /* of the first cluster, bytes */
    uint64_t host;
    uint64_t count; /* clusters */
};

/* The entry for a cluster at `host`; 0: it has none. */
static struct q2_l2_entry
entry_for(const struct q2_image *image, const struct q2_fill *fill, uint64_t guest, uint64_t host)
{
    const struct q2_geometry *g = &image->geometry;
    bool below = guest < fill->zero_until;
    struct q2_l2_entry entry = {.raw = fill->map ? host | Q2_ENTRY_COPIED : 0};
    if (g->extended_l2)
        entry.bitmap = below ? (uint64_t)UINT32_MAX << 32 : 0;
    else if (g->version >= 3 && (below || !fill->map || g->encrypted))
        entry.raw |= Q2_ENTRY_ZERO; /* zeros in the file are none once they are decrypted */
    return entry;
}

static int
store_run(struct q2_image *image, const struct q2_fill *fill, struct run *run, struct q2_error *err)
{
    const struct q2_geometry *g = &image->geometry;
    while (run->count > 0) {
        uint8_t *bytes;
        uint64_t count;
        int rc = q2_l2_open(image, run->guest, &bytes, &count, err);
        if (rc < 0)
            return rc;
        count = q2_min(count, run->count);
        for (uint64_t i = 0; i < count; i++) {
            uint64_t at = i << g->cluster_bits;
            struct q2_l2_entry entry = entry_for(image, fill, run->guest + at, run->host + at);
            q2_l2_store(image, bytes, i, &entry);
        }
        run->guest += count << g->cluster_bits;
        run->host += count << g->cluster_bits;
        run->count -= count;
    }
    return 0;
}

/* Make the run's bytes in the data file zeros, and the file long enough. */
static int
prepare_bytes(struct q2_image *image, const struct q2_fill *fill, const struct run *run,
              bool virgin, struct q2_error *err)
{
    uint64_t length = run->count << image->geometry.cluster_bits, size;
    if (image->geometry.data_file)
        return 0; /* the file as a whole was prepared */
    int rc = q2_file_size(image->data, &size, err);
    if (rc == 0 && !virgin)
        rc = q2_file_punch(image->data, run->host, length, err);
    if (rc == 0 && fill->preallocation == Q2_PREALLOCATION_FALLOC)
        rc = q2_file_reserve(image->data, run->host, length, err);
    else if (rc == 0 && size < run->host + length)
        rc = q2_file_truncate(image->data, run->host + length, err);
    if (rc == 0 && fill->preallocation == Q2_PREALLOCATION_FULL)
        rc = q2_file_write_zeros(image->data, run->host, length, err);
    return rc;
}

/* Find clusters for the run; it may become shorter. */
static int
take_run(struct q2_image *image, const struct q2_fill *fill, struct run *run, struct q2_error *err)
{
    const unsigned bits = image->geometry.cluster_bits;
    uint64_t first, virgin = image->virgin;
    run->host = run->guest;
    if (!fill->map || image->geometry.data_file)
        return 0;
    int rc = q2_allocate_run(image, q2_min(run->count, MOST), 0, &first, &run->count, err);
    if (rc < 0)
        return rc;
    run->host = first << bits;
    rc = q2_check_overlap(image, Q2_CLAIM_NONE, run->host, run->count << bits, err);
    if (rc == 0) {
        q2_image_grew(image, first, run->count);
        rc = prepare_bytes(image, fill, run, first >= virgin, err);
    }
    if (rc < 0)
        q2_free_now(image, first, run->count);
    return rc;
}

int
q2_fill(struct q2_image *image, uint64_t start, uint64_t end, const struct q2_fill *fill,
        struct q2_error *err)
{
    const unsigned bits = image->geometry.cluster_bits;
    while (start < end) {
        struct run run = {.guest = start, .count = (end - start) >> bits};
        int rc = q2_image_tidy(image, err);
        if (rc == 0)
            rc = take_run(image, fill, &run, err);
        if (rc < 0)
            return rc;
        start += run.count << bits;
        rc = store_run(image, fill, &run, err);
        if (rc < 0) {
            if (fill->map && !image->geometry.data_file)
                q2_free_now(image, run.host >> bits, run.count);
            return rc;
        }
    }
    return 0;
}

/* ---- zeros as data ---- */

static bool
is_zero(const struct q2_image *image, const struct q2_run *run)
{
    return run->kind == Q2_CLUSTER_ZERO || run->kind == Q2_CLUSTER_ZERO_ALLOCATED ||
           (run->kind == Q2_CLUSTER_UNALLOCATED && !image->area.backing_file);
}

/* Guest data is written without the lock; as everything is held, nothing changes meanwhile. */
static int
write_zeros(struct q2_image *image, uint64_t start, uint64_t end, struct q2_error *err)
{
    static const uint8_t zeros[ZEROS];
    int rc = 0;
    pthread_mutex_unlock(&image->lock);
    while (start < end && rc == 0) {
        uint64_t now = q2_min(end - start, ZEROS);
        struct iovec iov = {.iov_base = (void *)(uintptr_t)zeros, .iov_len = now};
        rc = q2_guest_write(image, start, &iov, 1, err);
        start += now;
    }
    pthread_mutex_lock(&image->lock);
    return rc;
}

int
q2_fill_zeros(struct q2_image *image, uint64_t start, uint64_t end, struct q2_error *err)
{
    while (start < end) {
        struct q2_run run;
        int rc = q2_map_run(image, start, end - start, &run, err);
        if (rc == 0 && !is_zero(image, &run))
            rc = write_zeros(image, start, start + run.length, err);
        if (rc < 0)
            return rc;
        start += run.length;
    }
    return 0;
}
