/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The image from inside. Private to core/image.
 *
 * Two locks, always taken in this order:
 *  - `ranges`: requests hold the guest clusters that they work on, shared by those that read or
 *    write in place, exclusive for those that change the mapping; what concerns the whole image
 *    holds everything.
 *  - `lock`: a mutex around all metadata in memory. No guest data is read or written under it.
 *
 * Order on the disk, which makes a crash harmless at any instant (flush.c has the steps):
 *    1. refcounts that grew, new L2 tables nobody leads to yet, guest data
 *    2. barrier
 *    3. L2 entries and L1 entries
 *    4. barrier
 *    5. refcounts that shrink: clusters become free, and can be used anew, only now
 * So metadata never leads to a cluster that is not counted or not yet written, and never to one
 * that somebody else has been given; what a crash leaves behind is leaked clusters. */

#ifndef Q2_IMAGE_INTERNAL_H
#define Q2_IMAGE_INTERNAL_H

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/codec/codec.h"
#include "core/format/entry.h"
#include "core/format/refcount.h"
#include "core/image/area.h"
#include "core/image/cache.h"
#include "core/image/claims.h"
#include "core/image/image.h"
#include "core/image/ranges.h"
#include "core/io/file.h"

#include <pthread.h>
#include <stdatomic.h>

struct q2_cipher;
struct q2_luks_key;
struct q2_snapshots;
struct q2_bitmaps;
struct q2_codecs;
struct q2_tally;

enum { Q2_PACK_OFFSETS = 8 };

/* Clusters on their way to becoming free: runs, merged where they touch. */
struct q2_frees {
    struct q2_free_run {
        uint64_t first; /* host cluster */
        uint64_t count;
    } * runs;
    size_t count, capacity;
};

struct q2_image {
    struct q2_file *file; /* owned */
    struct q2_file
        *data; /* of guest clusters: `file`, or the data file (owned); NULL: not opened */
    struct q2_disk *backing;
    unsigned flags;                  /* enum q2_image_flags */
    unsigned depth;                  /* in the chain: 0 is the top */
    struct q2_image_options options; /* open_file and its data only */

    struct q2_ranges ranges;
    pthread_mutex_t lock;

    /* ---- under `lock` ---- */
    struct q2_header header;
    struct q2_geometry geometry; /* file_size grows with the file */
    struct q2_area area;
    unsigned sub_bits;     /* log2 of the bytes of a subcluster; without those, of a cluster */
    _Atomic uint64_t size; /* of the disk; changes only while everything is held */

    uint64_t *l1;       /* header.l1_size entries */
    uint64_t *l1_dirty; /* a bit for each 64 entries, that is, each sector of 512 bytes */
    bool l1_any_dirty;
    bool mapping_unsettled; /* written, but a barrier has failed since */
    struct q2_cache *l2_cache;

    /* Of images that are open for writing; NULL otherwise. */
    uint64_t *refcount_table;       /* refcount_table_entries entries, as they are in the file */
    uint64_t *refcount_table_dirty; /* as l1_dirty */
    bool refcount_table_any_dirty;
    uint64_t refcount_table_entries;
    uint64_t refcount_blocks_end; /* the last entry that is not 0, and one more */
    struct q2_cache *refcount_cache;
    uint64_t free_hint; /* no cluster below it is free */
    uint64_t virgin;    /* clusters from this one on have never been written: they read as zeros */
    _Atomic uint64_t known_end; /* the file has at least this many bytes, or was cut by others */
    /* Where compressed clusters may go, bytes; 0: nowhere. The first is behind the one that was
     * packed last, the others behind such as had something else follow. */
    uint64_t pack_offsets[Q2_PACK_OFFSETS];
    struct q2_frees leaving; /* not referred to in memory, perhaps still on the disk */
    uint64_t leaving_clusters;
    struct q2_frees released; /* nor on the disk */

    struct q2_claims *claims;
    struct q2_snapshots *snapshots;
    struct q2_bitmaps *bitmaps; /* NULL: there are none */
    bool modified;              /* what must be done before the first change has been done */
    bool marked_dirty;          /* the dirty bit is set, as lazy refcounts need */
    bool broken;                /* an overlap was found: nothing is written any more */

    struct q2_cipher *cipher;     /* NULL: not encrypted, or no pass phrase */
    struct q2_luks_key *luks_key; /* the master key of a LUKS image; NULL otherwise */
    struct q2_codecs *codecs;
};

/* ---- the whole image at once (exclusive.c) ---- */

/* Wait for all requests and keep others out, take `lock`, and bring the disk up to date with the
 * memory: from then on metadata may be read from the file directly. For writers: also refuses with
 * Q2_ERR_READ_ONLY or Q2_ERR_CORRUPT where it cannot be written, and prepares the first change. */
struct q2_exclusive {
    struct q2_range range;
};
int q2_exclusive_begin(struct q2_image *image, struct q2_exclusive *exclusive, bool to_write,
                       struct q2_error *err);
void q2_exclusive_end(struct q2_image *image, struct q2_exclusive *exclusive);

/* Whether writing is possible, and the marks that the first write makes: dirty bit, autoclear bits,
 * bitmaps in use. Under `lock`. */
int q2_image_prepare_write(struct q2_image *image, struct q2_error *err);

/* ---- order (flush.c), under `lock` ---- */

/* Make what was written so far durable: metadata file and data file. */
int q2_image_barrier(struct q2_image *image, struct q2_error *err);

/* Steps 1 to 4: all metadata in memory onto the disk, in order. */
int q2_image_write_back(struct q2_image *image, struct q2_error *err);

/* The same, then free what has left, and write the refcounts of that too: afterwards nothing in
 * memory is newer than the disk. */
int q2_image_settle(struct q2_image *image, struct q2_error *err);

/* ---- metadata on the disk ---- */

/* Read or write metadata bytes of the image file. What lies past its end reads as zeros, unless the
 * file was longer: Q2_ERR_EOF. Writing checks that nothing but `claim` is live
 * there. Callers keep caches coherent themselves. */
int q2_meta_read(struct q2_image *image, uint64_t offset, void *buffer, size_t length,
                 struct q2_error *err);
int q2_meta_write(struct q2_image *image, enum q2_claim claim, uint64_t offset, const void *buffer,
                  size_t length, struct q2_error *err);

/* The image file has been written up to byte `end`: known_end follows. Needs no lock. */
static inline void
q2_image_reached(struct q2_image *image, uint64_t end)
{
    uint64_t known = image->known_end;
    while (known < end && !atomic_compare_exchange_weak(&image->known_end, &known, end))
        ;
}

/* Q2_ERR_CORRUPT once an overlap has been found. */
int q2_check_broken(const struct q2_image *image, struct q2_error *err);

/* Refuse a write of [offset, offset + length) of the image file that would hit metadata other than
 * `allowed`: marks the image corrupt, and no more writes are possible. Q2_ERR_CORRUPT. */
int q2_check_overlap(struct q2_image *image, enum q2_claim allowed, uint64_t offset,
                     uint64_t length, struct q2_error *err);

/* Write the fixed fields of `header` with one write; not durable before a barrier. On failure the
 * image's header is what it was. */
int q2_header_store(struct q2_image *image, const struct q2_header *header, struct q2_error *err);

/* Write the whole first cluster: header, and the area with its extensions. The area becomes the
 * image's, also its memory, if it succeeds. `area` may be the image's own. */
int q2_area_store(struct q2_image *image, const struct q2_header *header, struct q2_area *area,
                  struct q2_error *err);

/* ---- refcounts (refcounts.c) and free clusters (allocate.c), under `lock` ---- */

int q2_refcount_read(struct q2_image *image, uint64_t cluster, uint64_t *ret_refcount,
                     struct q2_error *err);

/* Add one to each refcount of [first, first + count); Q2_ERR_RANGE where one would pass the maximum
 * of the refcount width: none has changed then. */
int q2_refcount_raise(struct q2_image *image, uint64_t first, uint64_t count, struct q2_error *err);

/* Add (`sign` 1) or take away (-1) what the tally counts, in bulk: each refcount block is read and
 * written once. Needs the exclusive image, settled; leaves it settled. Raising checks for overflow
 * before anything is written. */
int q2_refcounts_apply(struct q2_image *image, const struct q2_tally *tally, int sign,
                       struct q2_error *err);

/* Make sure that a refcount block for `cluster` exists. */
int q2_refcount_block_need(struct q2_image *image, uint64_t cluster, struct q2_error *err);

/* Count all references strictly and write the refcounts anew (rebuild.c). The exclusive image; for
 * dirty images, whose refcounts mean nothing. */
int q2_refcounts_rebuild(struct q2_image *image, struct q2_error *err);

/* Take free clusters, contiguous ones: between 1 and `want`, refcount 1. If `at` is not 0, only
 * those that begin there; then *ret_count may be 0. */
int q2_allocate_run(struct q2_image *image, uint64_t want, uint64_t at, uint64_t *ret_first,
                    uint64_t *ret_count, struct q2_error *err);

/* Take `count` contiguous clusters for metadata of the kind `claim`, which is recorded
 * (Q2_CLAIM_NONE: nothing is). *ret_offset in bytes. */
int q2_allocate(struct q2_image *image, uint64_t count, enum q2_claim claim, uint64_t *ret_offset,
                struct q2_error *err);

/* Clusters [first, first + count) lose one reference each, which the disk still has: they are freed
 * at step 5. Never fails: what cannot be remembered leaks. Nothing is claimed there any more. */
void q2_free_later(struct q2_image *image, uint64_t first, uint64_t count);

/* The same for what entries in the image led to, guest data or bits of a bitmap. Claims stay: an
 * entry that leads to metadata gives nobody the right to write there. */
void q2_free_data_later(struct q2_image *image, uint64_t first, uint64_t count);

/* The same for clusters that the disk does not refer to: they are free at once. */
void q2_free_now(struct q2_image *image, uint64_t first, uint64_t count);

/* Called before a request changes the mapping: frees what can be, and writes back if what waits to
 * become free is getting much. */
int q2_image_tidy(struct q2_image *image, struct q2_error *err);

/* With Q2_IMAGE_DISCARD, give the bytes of clusters that have become free back to the system. */
int q2_free_bytes(struct q2_image *image, uint64_t first, uint64_t count, struct q2_error *err);

/* Cut the file behind the last cluster that is in use; a block device keeps its size. The exclusive
 * image, settled. */
int q2_image_cut(struct q2_image *image, struct q2_error *err);

/* The disk refers to nothing of what is leaving any more. */
void q2_release_leaving(struct q2_image *image);

/* Free what has been released (nothing on the disk refers to it). */
int q2_free_released(struct q2_image *image, struct q2_error *err);

/* ---- mapping (map.c), under `lock` ---- */

/* The L2 entry that maps guest offset `guest` and, beginning with it, how many entries are in the
 * same slice of its table. *ret_bytes (file byte order) is NULL where there is no L2 table. Guest
 * offsets of the VM state area are fine. */
int q2_l2_look(struct q2_image *image, uint64_t guest, uint8_t **ret_bytes, uint64_t *ret_count,
               struct q2_error *err);

/* The same for changing: makes or copies the L2 table if need be. */
int q2_l2_open(struct q2_image *image, uint64_t guest, uint8_t **ret_bytes, uint64_t *ret_count,
               struct q2_error *err);

/* Entry `index` from bytes that the above gave, held against the rules. `guest` is that of the
 * entry. */
int q2_l2_entry_at(struct q2_image *image, const uint8_t *bytes, uint64_t index, uint64_t guest,
                   struct q2_l2_entry *ret_entry, struct q2_error *err);
/* Store an entry into bytes that q2_l2_open gave. */
void q2_l2_store(struct q2_image *image, uint8_t *bytes, uint64_t index,
                 const struct q2_l2_entry *entry);

/* Queue the reference that an entry no longer holds for freeing. */
void q2_l2_release(struct q2_image *image, const struct q2_l2_entry *entry);

/* Nothing is packed into clusters [first, first + count) any more: they may become free. */
static inline void
q2_pack_forget(struct q2_image *image, uint64_t first, uint64_t count)
{
    for (unsigned i = 0; i < Q2_PACK_OFFSETS; i++)
        if ((image->pack_offsets[i] >> image->geometry.cluster_bits) - first < count)
            image->pack_offsets[i] = 0;
}

static inline void
q2_l1_set(struct q2_image *image, uint64_t index, uint64_t raw)
{
    image->l1[index] = raw;
    image->l1_dirty[index / 64 / 64] |= UINT64_C(1) << (index / 64 % 64);
    image->l1_any_dirty = true;
}

/* Read the L1 table at host `offset` into memory, in place of what is there. */
int q2_l1_load(struct q2_image *image, uint64_t offset, uint64_t entries, struct q2_error *err);

/* Replace the active L1 table by one of `entries` entries at a new place, whose first ones are
 * those of `l1` (native order; `count` of them, the rest 0): written, durable, then the header
 * leads to it, then the old clusters are freed later. The image must have been written back. */
int q2_l1_replace(struct q2_image *image, const uint64_t *l1, uint64_t count, uint64_t entries,
                  struct q2_error *err);

/* ---- snapshots (snapshot_table.c), bitmaps (bitmap_list.c) ---- */

/* Read the tables; part of opening. `*ret` NULL where there is nothing. */
int q2_snapshots_load(struct q2_image *image, struct q2_snapshots **ret_snapshots,
                      struct q2_error *err);
void q2_snapshots_free(struct q2_snapshots *snapshots);
/* Claims on the snapshot table and the snapshots' L1 tables. */
int q2_snapshots_claim(struct q2_image *image, struct q2_error *err);

int q2_bitmaps_load(struct q2_image *image, struct q2_bitmaps **ret_bitmaps, struct q2_error *err);
void q2_bitmaps_free(struct q2_bitmaps *bitmaps);
int q2_bitmaps_claim(struct q2_image *image, struct q2_error *err);
/* Before the first write: mark enabled bitmaps in use on the disk, load their bits. Or, where the
 * image's bitmaps cannot be kept, clear the autoclear bit as the specification demands. */
int q2_bitmaps_prepare(struct q2_image *image, struct q2_error *err);
/* Guest range [offset, offset + length) changes: set the bits of enabled bitmaps. Cheap where there
 * are none. Never fails: a bitmap that cannot follow stays marked in use. */
void q2_bitmaps_mark(struct q2_image *image, uint64_t offset, uint64_t length);
/* Store all changed bitmaps and mark them consistent; part of closing. */
int q2_bitmaps_store(struct q2_image *image, struct q2_error *err);
/* The disk gets `size` bytes. */
int q2_bitmaps_resize(struct q2_image *image, uint64_t size, struct q2_error *err);

/* ---- data (read.c, write.c), without `lock`, the range being held ---- */

/* Read guest bytes, which may lie in the VM state area. Those who have the exclusive image let go
 * of `lock` around these. */
int q2_guest_read(struct q2_image *image, uint64_t guest, const struct iovec *iov, int iov_count,
                  struct q2_error *err);
int q2_guest_write(struct q2_image *image, uint64_t guest, const struct iovec *iov, int iov_count,
                   struct q2_error *err);

/* Unmap guest clusters [start, end), aligned: they read as zeros afterwards or, if `full`, as the
 * backing file. Under `lock`, for those who hold the range exclusively. */
int q2_unmap(struct q2_image *image, uint64_t start, uint64_t end, bool full, struct q2_error *err);

/* Let go of L1 entry `index`, its L2 table and all that this leads to. Under `lock`; the exclusive
 * image. */
int q2_l1_drop(struct q2_image *image, uint64_t index, struct q2_error *err);

/* A stretch of guest bytes that are mapped alike and contiguously. Subclusters count as clusters of
 * their own. */
struct q2_run {
    enum q2_cluster_kind kind;
    uint64_t length; /* bytes */
    uint64_t host;   /* of STANDARD and ZERO_ALLOCATED, bytes in the data file */
    bool copied;     /* of the same: may be written in place */
    /* `host` says something: also of subclusters that are not allocated in a cluster that is. */
    bool has_host;
    struct q2_compressed_range packed; /* of COMPRESSED: of the one cluster that it is */
    uint64_t packed_guest;             /* where that cluster begins */
};

/* The run at `guest`, at most `length` bytes. Under `lock`. */
int q2_map_run(struct q2_image *image, uint64_t guest, uint64_t length, struct q2_run *ret_run,
               struct q2_error *err);

/* ---- opening (open.c, others.c) ---- */

/* As q2_image_open_file, `depth` files below the top of the chain. */
int q2_image_open_at(struct q2_file *file, const struct q2_image_options *options, unsigned depth,
                     struct q2_image **ret_image, struct q2_error *err);
int q2_disk_open_at(struct q2_file *file, const struct q2_image_options *options, unsigned depth,
                    struct q2_disk **ret_disk, struct q2_error *err);

/* Open a file by name the way the options say. */
int q2_open_by_options(const char *path, const struct q2_image_options *options,
                       struct q2_file **ret_file, struct q2_error *err);

/* Record all metadata that is in use, anew. */
int q2_image_claim_all(struct q2_image *image, struct q2_error *err);

/* Open the data file and the backing file, as far as the image has them and the flags want them. */
int q2_image_open_data_file(struct q2_image *image, const struct q2_image_options *options,
                            struct q2_error *err);
int q2_image_open_backing(struct q2_image *image, const struct q2_image_options *options,
                          struct q2_error *err);

/* Whether the encryption header can be where the image says. */
int q2_image_check_crypto(const struct q2_image *image, struct q2_error *err);

/* Make the cipher of an encrypted image from the pass phrase. */
int q2_image_open_cipher(struct q2_image *image, const struct q2_secret *secret,
                         struct q2_error *err);

/* Open another file that the image names; relative names are relative to the image. */
int q2_image_open_other(struct q2_image *image, const char *name, unsigned flags,
                        struct q2_file **ret_file, struct q2_error *err);

#endif
