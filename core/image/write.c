/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Writing guest data.
 *
 * What can be written in place goes first, beside other requests. The rest holds its clusters
 * exclusively and goes piece by piece: find clusters (lock), write data and what has to be copied
 * around it in one go (no lock), then lead the L2 entries there (lock). Whatever fails before the
 * last step leaves the mapping as it was. */

#include "core/codec/cipher.h"
#include "core/image/codecs.h"
#include "core/image/data.h"
#include "core/image/refcounts.h"
#include "core/io/iov.h"

#include <string.h>

enum {
    PIECE = 2 << 20,           /* bytes, about, that get clusters together */
    ENCRYPTED_PIECE = 1 << 18, /* the same where they go through a buffer */
    STACK_PARTS = 16,
};

enum mode {
    IN_PLACE, /* the mapping stays */
    REUSE,    /* the clusters stay, but read as something else so far */
    NEW,      /* other clusters */
};

/* Clusters that are written together. */
struct piece {
    enum mode mode;
    uint64_t guest, length; /* what the request writes */
    uint64_t start, end; /* with what is copied around it: start <= guest, guest + length <= end */
    uint64_t first;      /* guest offset of the first cluster */
    uint64_t clusters;
    uint64_t host; /* of the first cluster */
    bool virgin;   /* the clusters read as zeros already */
};

static uint64_t
round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) & ~(unit - 1);
}

/* ---- planning, under the lock ---- */

static bool
stays(const struct q2_image *image, const struct q2_l2_entry *entry)
{
    enum q2_cluster_kind kind = q2_l2_kind(&image->geometry, entry->raw);
    bool host = kind == Q2_CLUSTER_STANDARD || kind == Q2_CLUSTER_ZERO_ALLOCATED;
    return host && (entry->raw & Q2_ENTRY_COPIED);
}

/* How many of the `count` entries from `bytes` on are written as the first one is. */
static int
count_alike(struct q2_image *image, const uint8_t *bytes, uint64_t count, uint64_t guest,
            const struct q2_l2_entry *first, uint64_t *ret_count, struct q2_error *err)
{
    bool keep = stays(image, first);
    uint64_t alike = 1, cluster_size = image->geometry.cluster_size;
    for (; alike < count && !(keep && image->geometry.extended_l2); alike++) {
        struct q2_l2_entry entry;
        int rc = q2_l2_entry_at(image, bytes, alike, guest + alike * cluster_size, &entry, err);
        if (rc < 0)
            return rc;
        if (stays(image, &entry) != keep)
            break;
        if (keep &&
            (q2_entry_offset(entry.raw) != q2_entry_offset(first->raw) + alike * cluster_size ||
             q2_l2_kind(&image->geometry, entry.raw) != Q2_CLUSTER_ZERO_ALLOCATED))
            break;
    }
    *ret_count = alike;
    return 0;
}

/* Bytes of a cluster before `inside` that must come along to a new cluster: from the first
 * subcluster that has data, or the start of the one that is written into. */
static uint64_t
head_start(const struct q2_image *image, const struct q2_l2_entry *old, enum mode mode,
           uint64_t inside)
{
    unsigned bits = image->sub_bits;
    uint64_t sub = inside >> bits;
    if (!image->geometry.extended_l2)
        return 0;
    if (mode == REUSE)
        return old->bitmap >> sub & 1 ? inside : sub << bits;
    if (q2_l2_kind(&image->geometry, old->raw) == Q2_CLUSTER_COMPRESSED)
        return 0;
    uint32_t allocated = (uint32_t)old->bitmap;
    uint64_t lowest = allocated ? (uint64_t)__builtin_ctz(allocated) : sub;
    return q2_min(lowest, sub) << bits;
}

/* The same behind: up to which byte of the cluster, when the write ends at `inside` (1 or more). */
static uint64_t
tail_end(const struct q2_image *image, const struct q2_l2_entry *old, enum mode mode,
         uint64_t inside)
{
    unsigned bits = image->sub_bits;
    uint64_t sub = (inside - 1) >> bits;
    if (!image->geometry.extended_l2)
        return image->geometry.cluster_size;
    if (mode == REUSE)
        return old->bitmap >> sub & 1 ? inside : (sub + 1) << bits;
    if (q2_l2_kind(&image->geometry, old->raw) == Q2_CLUSTER_COMPRESSED)
        return image->geometry.cluster_size;
    uint32_t allocated = (uint32_t)old->bitmap;
    uint64_t highest = allocated ? 31 - (uint64_t)__builtin_clz(allocated) : sub;
    return (q2_max(highest, sub) + 1) << bits;
}

/* Find clusters for the piece; it may become shorter. */
static int
find_place(struct q2_image *image, struct piece *piece, struct q2_error *err)
{
    unsigned bits = image->geometry.cluster_bits;
    if (image->geometry.data_file) {
        piece->host = piece->first;
        return 0;
    }
    uint64_t first, virgin = image->virgin;
    int rc = q2_allocate_run(image, piece->clusters, 0, &first, &piece->clusters, err);
    if (rc < 0)
        return rc;
    rc = q2_check_overlap(image, Q2_CLAIM_NONE, first << bits, piece->clusters << bits, err);
    if (rc < 0)
        return rc;
    q2_image_grew(image, first, piece->clusters);
    piece->host = first << bits;
    piece->virgin = first >= virgin;
    return 0;
}

/* The clusters that were found for a piece are not needed after all. */
static void
give_back(struct q2_image *image, const struct piece *piece)
{
    if (piece->mode == NEW && !image->geometry.data_file)
        q2_free_now(image, piece->host >> image->geometry.cluster_bits, piece->clusters);
}

/* Plan the first piece of [guest, guest + length), which cannot be written in place. */
static int
plan(struct q2_image *image, uint64_t guest, uint64_t length, struct piece *ret_piece,
     struct q2_error *err)
{
    uint64_t cluster_size = image->geometry.cluster_size, inside = guest & (cluster_size - 1);
    uint64_t most = q2_max(image->geometry.encrypted ? ENCRYPTED_PIECE : PIECE, cluster_size);
    uint8_t *bytes;
    uint64_t count;
    struct q2_l2_entry first, last;
    struct piece piece = {.guest = guest, .first = guest - inside};
    int rc = q2_l2_open(image, piece.first, &bytes, &count, err);
    if (rc == 0)
        rc = q2_l2_entry_at(image, bytes, 0, piece.first, &first, err);
    if (rc < 0)
        return rc;
    count = q2_min(count, q2_units(q2_min(inside + length, most), image->geometry.cluster_bits));
    rc = count_alike(image, bytes, count, piece.first, &first, &piece.clusters, err);
    if (rc < 0)
        return rc;
    piece.mode = stays(image, &first) ? REUSE : NEW;
    uint8_t *entries = bytes;
    if (piece.mode == REUSE) {
        piece.host = q2_entry_offset(first.raw);
        if (!image->geometry.data_file)
            rc = q2_check_overlap(image, Q2_CLAIM_NONE, piece.host, piece.clusters * cluster_size,
                                  err);
    } else {
        rc = find_place(image, &piece, err);
        /* Refcounts have a cache of their own: `bytes` may only have moved if it was written back.
         */
        if (rc == 0) {
            rc = q2_l2_open(image, piece.first, &entries, &count, err);
            if (rc < 0)
                give_back(image, &piece);
        }
    }
    if (rc < 0)
        return rc;
    piece.length = q2_min(length, piece.clusters * cluster_size - inside);
    uint64_t final = piece.first + (piece.clusters - 1) * cluster_size;
    last = q2_l2_load(&image->geometry, entries, piece.clusters - 1);
    piece.start = piece.first + head_start(image, &first, piece.mode, inside);
    piece.end = final + tail_end(image, &last, piece.mode, guest + piece.length - final);
    *ret_piece = piece;
    return 0;
}

/* Widen to whole sectors, as encryption needs. */
static void
widen(const struct q2_image *image, struct piece *piece)
{
    if (!image->geometry.encrypted)
        return;
    piece->start &= ~(uint64_t)(Q2_CIPHER_SECTOR - 1);
    piece->end = round_up(piece->end, Q2_CIPHER_SECTOR);
}

/* ---- data, without the lock ---- */

/* Whether [start, end) reads as zeros for a reason that can be seen in the mapping. */
static bool
reads_zero(struct q2_image *image, uint64_t start, uint64_t end)
{
    bool zero = true;
    pthread_mutex_lock(&image->lock);
    while (zero && start < end) {
        struct q2_run run;
        zero = q2_map_run(image, start, end - start, &run, NULL) == 0;
        if (zero && run.kind != Q2_CLUSTER_ZERO && run.kind != Q2_CLUSTER_ZERO_ALLOCATED)
            zero = run.kind == Q2_CLUSTER_UNALLOCATED && q2_nothing_below(image, start);
        start += zero ? run.length : 0;
    }
    pthread_mutex_unlock(&image->lock);
    return zero;
}

/* The bytes of [start, end) as they are so far, malloc'ed; NULL where there is nothing to write
 * because the new cluster reads as zeros, and these do too. */
static int
edge(struct q2_image *image, const struct piece *piece, uint64_t start, uint64_t end,
     uint8_t **ret_bytes, struct q2_error *err)
{
    *ret_bytes = NULL;
    bool zero = start < end && reads_zero(image, start, end);
    if (start == end || (zero && piece->virgin && !image->geometry.encrypted))
        return 0;
    uint8_t *bytes = calloc(1, end - start);
    if (!bytes)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory to copy a part of a cluster");
    struct iovec iov = {.iov_base = bytes, .iov_len = end - start};
    int rc = zero ? 0 : q2_guest_read(image, start, &iov, 1, err);
    if (rc < 0) {
        free(bytes);
        return rc;
    }
    *ret_bytes = bytes;
    return 0;
}

/* Gather what is written into one buffer and encrypt it. */
static int
write_encrypted(struct q2_image *image, const struct piece *piece, const uint8_t *head,
                const uint8_t *tail, const struct iovec *iov, int iov_count, size_t skip,
                struct q2_error *err)
{
    size_t before = piece->guest - piece->start, length = piece->end - piece->start;
    size_t behind = length - before - piece->length;
    int rc = q2_data_need_cipher(image, err);
    if (rc < 0)
        return rc;
    Q2_AUTOFREE uint8_t *bytes = malloc(length);
    if (!bytes)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory to encrypt");
    if (before)
        memcpy(bytes, head, before);
    q2_iov_to(iov, iov_count, skip, bytes + before, piece->length);
    if (behind)
        memcpy(bytes + before + piece->length, tail, behind);
    uint64_t host = piece->host + (piece->start - piece->first);
    rc = q2_cipher_encrypt(image->cipher, q2_data_sector(image, piece->start, host), bytes, length,
                           err);
    if (rc == 0)
        rc = q2_file_write(image->data, host, bytes, length, err);
    return rc;
}

static int
write_plain(struct q2_image *image, const struct piece *piece, uint8_t *head, uint8_t *tail,
            const struct iovec *iov, int iov_count, size_t skip, struct q2_error *err)
{
    struct iovec few[STACK_PARTS], *parts = few;
    Q2_AUTOFREE struct iovec *many = NULL;
    if (iov_count + 2 > STACK_PARTS)
        parts = many = calloc((size_t)iov_count + 2, sizeof *many);
    if (!parts)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory to write");
    int count = 0;
    uint64_t start = head ? piece->start : piece->guest;
    if (head)
        parts[count++] = (struct iovec){.iov_base = head, .iov_len = piece->guest - piece->start};
    size_t gathered;
    count += q2_iov_part(iov, iov_count, skip, piece->length, parts + count, iov_count, &gathered);
    if (tail)
        parts[count++] =
            (struct iovec){.iov_base = tail, .iov_len = piece->end - piece->guest - piece->length};
    return q2_file_pwritev(image->data, parts, count, piece->host + (start - piece->first), err);
}

/* Write the piece's data, with what is copied around it. */
static int
write_data(struct q2_image *image, const struct piece *piece, const struct iovec *iov,
           int iov_count, size_t skip, struct q2_error *err)
{
    Q2_AUTOFREE uint8_t *head = NULL, *tail = NULL;
    if (!image->data)
        return q2_error_set(err, Q2_ERR_UNSUPPORTED, "%s: its data file has not been opened",
                            image->file->name);
    int rc = edge(image, piece, piece->start, piece->guest, &head, err);
    if (rc == 0)
        rc = edge(image, piece, piece->guest + piece->length, piece->end, &tail, err);
    if (rc == 0 && image->geometry.encrypted)
        rc = write_encrypted(image, piece, head, tail, iov, iov_count, skip, err);
    else if (rc == 0)
        rc = write_plain(image, piece, head, tail, iov, iov_count, skip, err);
    if (rc == 0 && image->data == image->file)
        q2_image_reached(image, piece->host + (piece->guest - piece->first) + piece->length);
    return rc;
}

/* ---- mapping, under the lock ---- */

static uint32_t
sub_mask(const struct q2_image *image, uint64_t from, uint64_t to)
{
    uint64_t first = from >> image->sub_bits, end = q2_units(to, image->sub_bits);
    return (uint32_t)(((UINT64_C(1) << (end - first)) - 1) << first);
}

/* What becomes of the subclusters of an entry of which bytes [from, to) are written. */
static uint64_t
new_bitmap(const struct q2_image *image, const struct q2_l2_entry *old, uint64_t from, uint64_t to)
{
    if (q2_l2_kind(&image->geometry, old->raw) == Q2_CLUSTER_COMPRESSED)
        return UINT32_MAX;
    uint32_t written = sub_mask(image, from, to);
    uint32_t zero = (uint32_t)(old->bitmap >> 32) & ~written;
    return (uint64_t)zero << 32 | (uint32_t)old->bitmap | written;
}

static int
store(struct q2_image *image, const struct piece *piece, struct q2_error *err)
{
    const struct q2_geometry *geometry = &image->geometry;
    uint8_t *bytes;
    uint64_t count;
    int rc = q2_l2_open(image, piece->first, &bytes, &count, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < piece->clusters; i++) {
        uint64_t guest = piece->first + i * geometry->cluster_size;
        struct q2_l2_entry old = q2_l2_load(geometry, bytes, i);
        struct q2_l2_entry entry = {.raw = (piece->host + i * geometry->cluster_size) |
                                           Q2_ENTRY_COPIED};
        if (geometry->extended_l2)
            entry.bitmap =
                new_bitmap(image, &old, q2_max(piece->guest, guest) - guest,
                           q2_min(piece->guest + piece->length, guest + geometry->cluster_size) -
                               guest);
        q2_l2_store(image, bytes, i, &entry);
        if (piece->mode == NEW)
            q2_l2_release(image, &old);
    }
    return 0;
}

static int
finish(struct q2_image *image, const struct piece *piece, int rc, struct q2_error *err)
{
    if (piece->mode == IN_PLACE)
        return rc;
    pthread_mutex_lock(&image->lock);
    if (rc == 0)
        rc = store(image, piece, err);
    if (rc < 0)
        give_back(image, piece);
    pthread_mutex_unlock(&image->lock);
    return rc;
}

/* ---- requests ---- */

/* The piece that can be written in place at `guest`; false: there is none. */
static int
plan_in_place(struct q2_image *image, uint64_t guest, uint64_t length, struct piece *ret_piece,
              bool *ret_found, struct q2_error *err)
{
    struct q2_run run;
    if (image->geometry.encrypted)
        length = q2_min(length, ENCRYPTED_PIECE);
    int rc = q2_map_run(image, guest, length, &run, err);
    if (rc < 0)
        return rc;
    *ret_found = run.kind == Q2_CLUSTER_STANDARD && run.copied;
    if (!*ret_found)
        return 0;
    *ret_piece = (struct piece){.mode = IN_PLACE,
                                .guest = guest,
                                .length = run.length,
                                .start = guest,
                                .end = guest + run.length,
                                .first = guest,
                                .host = run.host};
    return image->geometry.data_file
               ? 0
               : q2_check_overlap(image, Q2_CLAIM_NONE, run.host, run.length, err);
}

int
q2_guest_write(struct q2_image *image, uint64_t guest, const struct iovec *iov, int iov_count,
               struct q2_error *err)
{
    size_t length = q2_iov_total(iov, iov_count);
    for (size_t done = 0; done < length;) {
        struct piece piece;
        bool in_place = false;
        pthread_mutex_lock(&image->lock);
        int rc = q2_image_prepare_write(image, err);
        if (rc == 0)
            rc = q2_image_tidy(image, err);
        if (rc == 0)
            rc = plan_in_place(image, guest + done, length - done, &piece, &in_place, err);
        if (rc == 0 && !in_place)
            rc = plan(image, guest + done, length - done, &piece, err);
        pthread_mutex_unlock(&image->lock);
        if (rc < 0)
            return rc;
        widen(image, &piece);
        rc = write_data(image, &piece, iov, iov_count, done, err);
        rc = finish(image, &piece, rc, err);
        if (rc < 0)
            return rc;
        done += piece.length;
    }
    return 0;
}

/* Write what can be written in place from the start on; *ret_done is how much that was. Others may
 * be at work on the same clusters, so no sector may be half theirs. */
static int
write_in_place(struct q2_image *image, uint64_t guest, const struct iovec *iov, int iov_count,
               size_t length, size_t *ret_done, struct q2_error *err)
{
    bool aligned = !image->geometry.encrypted || (guest | length) % Q2_CIPHER_SECTOR == 0;
    while (aligned && *ret_done < length) {
        struct piece piece;
        bool in_place = false;
        pthread_mutex_lock(&image->lock);
        int rc = q2_image_prepare_write(image, err);
        if (rc == 0)
            rc =
                plan_in_place(image, guest + *ret_done, length - *ret_done, &piece, &in_place, err);
        pthread_mutex_unlock(&image->lock);
        if (rc == 0 && in_place)
            rc = write_data(image, &piece, iov, iov_count, *ret_done, err);
        if (rc < 0 || !in_place)
            return rc;
        *ret_done += piece.length;
    }
    return 0;
}

int
q2_image_writev(struct q2_image *image, uint64_t offset, const struct iovec *iov, int iov_count,
                struct q2_error *err)
{
    size_t length = q2_iov_total(iov, iov_count), done = 0;
    struct q2_range range;
    q2_range_hold(&image->ranges, &range, offset, q2_end(offset, length), false);
    int rc = q2_image_check_range(image, "write", offset, length, err);
    if (rc == 0)
        rc = write_in_place(image, offset, iov, iov_count, length, &done, err);
    q2_bitmaps_mark(image, offset, rc < 0 ? length : done);
    q2_range_release(&image->ranges, &range);
    if (rc < 0 || done == length)
        return rc;

    uint64_t unit = image->geometry.cluster_size, guest = offset + done;
    Q2_AUTOFREE struct iovec *rest = calloc((size_t)iov_count, sizeof *rest);
    if (!rest)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory to write");
    size_t left;
    int count = q2_iov_part(iov, iov_count, done, length - done, rest, iov_count, &left);
    q2_range_hold(&image->ranges, &range, guest & ~(unit - 1), round_up(guest + left, unit), true);
    rc = q2_image_check_range(image, "write", guest, left, err);
    if (rc == 0)
        rc = q2_guest_write(image, guest, rest, count, err);
    q2_bitmaps_mark(image, guest, left);
    q2_range_release(&image->ranges, &range);
    return rc;
}

int
q2_image_write(struct q2_image *image, uint64_t offset, const void *buffer, size_t length,
               struct q2_error *err)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = length};
    return q2_image_writev(image, offset, &iov, 1, err);
}
