/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A header from nothing but what else is in the file. Tables of pointers are easy to tell from
 * guest data, and the distance from one pointer to the next says how large clusters are; the rest
 * follows from what leads to what. */

#ifndef Q2_REPAIR_HEADER_CARVE_H
#define Q2_REPAIR_HEADER_CARVE_H

#include "repair/header_scan.h"
#include "repair/header_search.h"

/* How the size of the disk is known. */
enum q2_size_source {
    Q2_SIZE_HEADER,    /* it was never lost */
    Q2_SIZE_PARTITION, /* from the guest's partition table */
    Q2_SIZE_SNAPSHOT,  /* the newest snapshot's */
    Q2_SIZE_MAPPED,    /* from what is mapped: no less than that */
};

struct q2_carving {
    struct q2_trial *trial;
    struct q2_sightings sightings;
    struct q2_header known; /* what is still known, if `has_known` */
    bool has_known;
    bool lost_snapshots; /* of what is known, but where they are is not */
    struct q2_search search;
    /* For the cluster size that is being tried. */
    struct q2_geometry geometry;
    struct {
        uint64_t offset;
        uint64_t entries; /* up to the last that is not 0 */
    } l1[16];
    unsigned l1_count;
    struct {
        uint64_t offset;
        uint32_t clusters;
        unsigned order;
    } refcounts[8];
    unsigned refcount_count;
};

/* Offer all headers that the sightings suggest. */
int q2_carve_headers(struct q2_carving *carving, struct q2_error *err);

/* Where the size in `header`, under which `check` was made, comes from. */
enum q2_size_source q2_carve_size_source(const struct q2_carving *carving,
                                         const struct q2_header *header,
                                         const struct q2_check *check);

/* Look for what the header should lead to, and write one that does: an action of its own. */
struct q2_rebuild {
    const struct q2_candidate *known; /* NULL, or of this only the place of a table is lost */
    bool readable;                    /* by that all the same: another has to be much better */
    const struct q2_candidate *rival; /* NULL, or nothing is done unless it is better than this */
};

/* *ret_done: there is an action, or nothing else can be done either. */
int q2_header_rebuild(struct q2_scene *scene, struct q2_trial *trial,
                      const struct q2_rebuild *rebuild, bool *ret_done, struct q2_error *err);

#endif
