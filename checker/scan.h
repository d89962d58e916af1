/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the passes of one check share. Private to the checker, and to repair, which goes on from
 * what the check decoded.
 *
 * The passes run in two phases. The first proves an image clean at the speed of memory: it reads
 * every table once, in parallel, and only notes where something does not add up. The second runs on
 * one thread, re-walks the tables, and says exactly what is wrong; its order is fixed, so that the
 * same image always gives the same report. */

#ifndef Q2_CHECKER_SCAN_H
#define Q2_CHECKER_SCAN_H

#include "checker/check.h"
#include "checker/findings.h"
#include "checker/mapset.h"
#include "core/format/extension.h"
#include "core/image/tally.h"

#include <stdatomic.h>

/* One mapping of a virtual disk: the active one, or that of a snapshot. */
struct q2_map {
    uint64_t l1_offset; /* bytes */
    uint32_t l1_size;   /* entries; 0 where the table cannot be used */
    uint64_t limit;     /* guest offset behind the disk and its VM state, bytes */
    uint64_t entry_at;  /* of the snapshot's entry in the snapshot table, bytes */
};

/* A metadata structure of known place. */
struct q2_region {
    struct q2_owner owner;
    uint64_t offset; /* bytes */
    uint64_t length; /* bytes */
};

/* A bound on how much may be read, so that tables which overlap cannot multiply the work. */
struct q2_work {
    uint64_t limit; /* bytes */
    _Atomic uint64_t used;
    _Atomic uint64_t holes; /* looked for since the limit was reached */
    _Atomic bool exceeded;  /* in this walk */
    _Atomic bool limited;   /* in any */
};

/* A bitmap table whose entries refer to clusters. */
struct q2_bitmap_table {
    uint64_t offset; /* bytes */
    uint32_t entries;
    uint32_t index; /* of the bitmap */
};

struct q2_check {
    struct q2_file *file;
    struct q2_check_options options;
    unsigned threads;
    struct q2_budget budget;

    struct q2_header header;
    unsigned usable; /* enum q2_usable */
    struct q2_geometry geometry;
    struct q2_extensions extensions;
    uint8_t *area; /* the first bytes of the file, which the extensions point into */
    uint64_t area_length;

    struct q2_map *maps; /* maps[0] is the active one */
    uint64_t map_count, map_capacity;
    struct q2_snapshot_name *snapshots;
    uint64_t snapshot_count, snapshot_capacity;

    struct q2_region *regions;
    uint64_t region_count, region_capacity;
    struct q2_bitmap_table *bitmap_tables;
    uint64_t bitmap_table_count, bitmap_table_capacity;

    uint64_t *refcount_table; /* in native byte order */
    uint64_t refcount_entries;

    struct q2_tally *tally;
    struct q2_work work;
    _Atomic bool unread; /* a table could not be read, so references are missing */
    _Atomic bool packed; /* some map, not only the active one, has compressed clusters */
    bool unlocated;      /* nor could one be found: what says where it is is damaged */
    uint64_t lost_at;    /* of an entry behind the counted snapshots, bytes; 0: none */
    uint64_t lost_length;
    uint64_t lost_l1; /* and its L1 table, bytes */
    struct q2_mapset *sets;
    struct q2_findings findings;
    struct q2_check_counts counts;
    const char *phase;
    uint64_t phase_turns;
    uint64_t phase_turn_bytes;
};

/* Make room for one more object in a growing array of the check. */
int q2_check_grow(struct q2_check *check, void *array, uint64_t count, uint64_t *capacity,
                  size_t size, struct q2_error *err);

/* Add a structure of known place to the list of regions and to the tally. */
int q2_check_add_region(struct q2_check *check, const struct q2_owner *owner, uint64_t offset,
                        uint64_t length, struct q2_error *err);

/* Begin another walk, with the same bound. */
void q2_work_reset(struct q2_work *work);

/* Whether `bytes` more may be read. */
bool q2_work_take(struct q2_work *work, uint64_t bytes);

/* Note that something was left out for that. */
void q2_work_exceed(struct q2_work *work);

/* Begin a phase for the progress report: `turns` of a loop, each worth about `bytes`. */
void q2_check_phase(struct q2_check *check, const char *phase, uint64_t turns, uint64_t bytes);
void q2_check_progress(struct q2_check *check, uint64_t turns_done);

static inline uint64_t
q2_cluster_of(const struct q2_check *check, uint64_t offset)
{
    return offset >> check->geometry.cluster_bits;
}

/* Whether all references were counted. Where not, a cluster with a refcount that looks too high may
 * well be in use. */
static inline bool
q2_references_complete(const struct q2_check *check)
{
    return (check->usable & Q2_USABLE_L1) && !check->unlocated && !check->unread &&
           !check->work.limited;
}

/* ---- the passes, in the order in which they run ---- */

int q2_pass_header(struct q2_check *check, struct q2_error *err);
int q2_pass_snapshots(struct q2_check *check, struct q2_error *err);
int q2_pass_encryption(struct q2_check *check, struct q2_error *err);
int q2_pass_bitmaps(struct q2_check *check, struct q2_error *err);
int q2_pass_refcount_table(struct q2_check *check, struct q2_error *err);
/* From here on, where the L1 or refcount tables are usable. */
int q2_pass_map(struct q2_check *check, uint64_t **ret_odd_units, struct q2_error *err);
int q2_pass_references(struct q2_check *check, const uint64_t *odd_units, struct q2_error *err);
int q2_pass_payload(struct q2_check *check, struct q2_error *err);
int q2_pass_chain(struct q2_check *check, struct q2_error *err);

#endif
