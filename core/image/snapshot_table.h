/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The snapshot table in memory. Private to core/image.
 *
 * Entries keep what they were read with, byte for byte: ids and names with their exact lengths, and
 * all extra data, also what nobody here understands. A table is never changed in place: its
 * successor is written elsewhere, the header is switched over, and only then is the old one freed.
 */

#ifndef Q2_IMAGE_SNAPSHOT_TABLE_H
#define Q2_IMAGE_SNAPSHOT_TABLE_H

#include "core/format/snapshot.h"
#include "core/image/internal.h"

struct q2_snapshot_entry {
    struct q2_snapshot fixed; /* .at says where the entry was read, 0 for a new one */
    char *id;                 /* fixed.id_length bytes and a NUL; they may contain others */
    char *name;               /* the same with fixed.name_length */
    uint8_t *extra;           /* fixed.extra_length bytes; NULL if that is 0 */
};

struct q2_snapshots {
    struct q2_snapshot_entry *entries;
    unsigned count;
    uint64_t length; /* of the table on the disk, bytes */
};

/* Bytes of extra data that new entries have: VM state size, disk size, instruction count. */
enum { Q2_SNAPSHOT_NEW_EXTRA = 24 };

void q2_snapshot_entry_destroy(struct q2_snapshot_entry *entry);

/* A new table with the entries of `old` (which may be NULL), without the one at `without`
 * (UINT_MAX: none is left out), and with a copy of `added` at the end (NULL: none). Q2_ERR_RANGE
 * where it would pass Q2_MAX_SNAPSHOTS or Q2_MAX_SNAPSHOT_TABLE_BYTES. */
int q2_snapshots_successor(const struct q2_image *image, const struct q2_snapshots *old,
                           unsigned without, const struct q2_snapshot_entry *added,
                           struct q2_snapshots **ret_snapshots, struct q2_error *err);

/* Encode all entries into `bytes`, of q2_snapshots_length bytes. */
void q2_snapshots_encode(const struct q2_snapshots *snapshots, uint8_t *bytes);
uint64_t q2_snapshots_length(const struct q2_snapshots *snapshots);

/* Make `snapshots` the image's: written to new clusters, durable, then the header leads to it,
 * durable, then the old table is freed. The image owns `snapshots` from then on, also on failure.
 * Needs the exclusive image, settled; leaves it settled. */
int q2_snapshots_store(struct q2_image *image, struct q2_snapshots *snapshots,
                       struct q2_error *err);

#endif
