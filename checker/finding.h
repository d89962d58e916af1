/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A finding is data: what is wrong, where, whose, what was found and what should be there.
 *
 * Equal faults next to each other are one finding with a count, so that a million leaked clusters
 * in a row are one finding. */

#ifndef Q2_CHECKER_FINDING_H
#define Q2_CHECKER_FINDING_H

#include "checker/catalogue.h"

#include <stddef.h>

/* Who uses a host cluster. */
enum q2_owner_kind {
    Q2_OWNER_NONE,
    Q2_OWNER_HEADER,
    Q2_OWNER_L1_TABLE,   /* `maps` says whose */
    Q2_OWNER_L2_TABLE,   /* `guest`: the first guest byte that it maps */
    Q2_OWNER_DATA,       /* a standard cluster */
    Q2_OWNER_COMPRESSED, /* part of the data of a compressed cluster */
    Q2_OWNER_REFCOUNT_TABLE,
    Q2_OWNER_REFCOUNT_BLOCK, /* `index`: in the refcount table */
    Q2_OWNER_SNAPSHOT_TABLE,
    Q2_OWNER_BITMAP_DIRECTORY,
    Q2_OWNER_BITMAP_TABLE, /* `index`: of the bitmap */
    Q2_OWNER_BITMAP_DATA,  /* `index`: of the bitmap */
    Q2_OWNER_LUKS_HEADER,
    Q2_OWNER_COUNT,
};

/* Which maps a structure is reached from: the active one, snapshots, or several at once. Index 0 is
 * the active map, index i + 1 is snapshot i. An id stands for an interned set; see q2_check_maps.
 */
typedef uint32_t q2_map_set;
#define Q2_MAP_SET_NONE UINT32_C(0)

struct q2_owner {
    enum q2_owner_kind kind;
    q2_map_set maps; /* of L1 and L2 tables and of guest clusters */
    uint64_t guest;  /* bytes; of L2 tables and of guest clusters. Behind the disk: VM state */
    uint64_t guest_length; /* bytes */
    uint64_t index;        /* see above; for guest clusters the L2 index */
    uint64_t at;           /* host offset of the entry that refers to the cluster, bytes */
};

enum q2_finding_has {
    Q2_HAS_HOST = 1 << 0,   /* host_offset, host_length */
    Q2_HAS_TARGET = 1 << 1, /* target_offset, target_length */
    Q2_HAS_GUEST = 1 << 2,  /* guest_offset, guest_length */
    Q2_HAS_L1 = 1 << 3,     /* l1_index, and maps */
    Q2_HAS_L2 = 1 << 4,     /* l2_index */
    Q2_HAS_GOT = 1 << 5,
    Q2_HAS_EXPECTED = 1 << 6,
    Q2_HAS_OWNERS = 1 << 7,
};

struct q2_finding {
    enum q2_problem problem;
    unsigned has;
    uint64_t count;         /* faults that this stands for */
    uint64_t host_offset;   /* of the structure at fault, bytes */
    uint64_t host_length;   /* bytes */
    uint64_t target_offset; /* the host range that it refers to or that is concerned, bytes */
    uint64_t target_length; /* bytes */
    uint64_t guest_offset;  /* the guest range concerned, bytes */
    uint64_t guest_length;  /* bytes */
    uint32_t l1_index;      /* of the first */
    uint32_t l2_index;      /* of the first */
    q2_map_set maps;        /* the active map and snapshots concerned */
    uint64_t got;           /* of the first */
    uint64_t expected;      /* of the first */
    struct q2_owner owners[2];
    char *detail; /* printable, may be NULL; owned by the list it is in */
};

#endif
