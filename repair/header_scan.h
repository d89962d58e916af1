/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* One pass over a file of which nothing is known, not even how large its clusters are. Tables of
 * pointers stand out among guest data: all their words are zero, or lead into the file with no
 * reserved bit set. */

#ifndef Q2_REPAIR_HEADER_SCAN_H
#define Q2_REPAIR_HEADER_SCAN_H

#include "core/format/header.h"
#include "repair/scene.h"

enum {
    Q2_SCAN_SECTOR = 512, /* bytes: the smallest cluster */
    Q2_SCAN_SNAPSHOTS = 64,
    Q2_SCAN_LUKS = 8,
};

enum q2_place_kind {
    Q2_PLACE_TABLE = 1 << 0,    /* of pointers */
    Q2_PLACE_EXTENDED = 1 << 1, /* of extended L2 entries */
};

/* Sectors of a table, one after the other. */
struct q2_place {
    uint64_t offset; /* bytes */
    uint32_t sectors;
    uint32_t kinds; /* what it can be */
    uint64_t low;   /* all low bits that its pointers have set, of the smaller kind */
};

struct q2_sightings {
    struct q2_budget *budget;
    struct q2_place *places; /* ascending */
    uint64_t count, capacity;
    /* How often the next pointer is 2^i bytes further on; in extended entries. */
    uint64_t strides[2][Q2_MAX_CLUSTER_BITS + 1];
    uint64_t snapshots[Q2_SCAN_SNAPSHOTS]; /* where a snapshot table may begin, bytes */
    unsigned snapshot_count;
    uint64_t luks[Q2_SCAN_LUKS]; /* where a LUKS header does, bytes */
    unsigned luks_count;
    uint64_t disk_size; /* by the second header of a GPT, bytes; 0: none; UINT64_MAX: several */
};

int q2_header_scan(struct q2_scene *scene, struct q2_sightings *ret_sightings,
                   struct q2_error *err);
void q2_sightings_destroy(struct q2_sightings *sightings);

/* What the cluster of 2^bits bytes at `offset` can be: enum q2_place_kind bits, 0 for no table. */
unsigned q2_sightings_at(const struct q2_sightings *sightings, uint64_t offset, unsigned bits);

#endif
