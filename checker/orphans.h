/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Clusters with a refcount that nothing refers to. Most are leaks. Some are the tables behind a
 * pointer that was lost, and then they and what they map are data, not leaked space. */

#ifndef Q2_CHECKER_ORPHANS_H
#define Q2_CHECKER_ORPHANS_H

#include "checker/refcounts.h"

struct q2_orphan_run {
    uint64_t first; /* cluster */
    uint64_t count; /* clusters */
};

struct q2_orphans {
    struct q2_check *check;
    struct q2_orphan_run *runs; /* ascending */
    uint64_t count;
    uint64_t capacity;
    uint64_t dropped; /* runs beyond those that are kept */
};

void q2_orphans_init(struct q2_orphans *orphans, struct q2_check *check);
void q2_orphans_destroy(struct q2_orphans *orphans);

/* Note `count` orphaned clusters; ascending. */
void q2_orphans_add(struct q2_orphans *orphans, uint64_t first, uint64_t count);

/* Look into orphaned clusters for tables and report those that are found. Looks at a bounded number
 * of clusters, at all of them with the option `deep`. */
int q2_orphans_examine(struct q2_orphans *orphans, struct q2_error *err);

#endif
