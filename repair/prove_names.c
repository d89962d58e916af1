/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What applied actions name, and whether it is what they call it: what is lost, or recovered, could
 * not be read before; and what is lost reads as zeros, not as what a backing file has there. It is
 * not enough that a reader gets some bytes there. A pointer that leads to a structure, or an L1
 * entry to what is no L2 table, makes software read something that is nobody's data; what is read
 * by way of a table, from a cluster of its own, is data, whatever bits beside the offset are set
 * that should not be. */

#include "core/base/checked.h"
#include "repair/prove_parts.h"

enum {
    FAULTS_PER_ENTRY = 8, /* of a table with garbage in it, beside each entry that is right */
    FAULTS_OF_ANY = 64,   /* and in any case: those of a sector */
    FAULTS_OF_EMPTY = 2,
};

void
q2_proof_names_init(struct q2_proof_names *names, struct q2_proof *proof)
{
    *names = (struct q2_proof_names){.proof = proof, .known.budget = proof->budget};
    for (size_t i = 0; i < Q2_CHANGE_COUNT; i++)
        names->ranges[i].budget = proof->budget;
}

void
q2_proof_names_destroy(struct q2_proof_names *names)
{
    q2_proof_ranges_destroy(&names->known);
    for (size_t i = 0; i < Q2_CHANGE_COUNT; i++)
        q2_proof_ranges_destroy(&names->ranges[i]);
}

void
q2_proof_names_choose(struct q2_proof_names *names, uint32_t map)
{
    names->map = map;
    names->loaded = false;
    for (size_t i = 0; i < Q2_CHANGE_COUNT; i++)
        names->ranges[i].count = 0;
}

static int
load(struct q2_proof_names *names, struct q2_error *err)
{
    const struct q2_plan *plan = names->proof->plan;
    int rc = 0;
    for (uint64_t i = 0; plan && i < plan->count && rc == 0; i++) {
        const struct q2_action *action = &plan->actions[i];
        for (uint64_t j = 0; action->applied && j < action->change_count && rc == 0; j++) {
            const struct q2_change *change = &action->changes[j];
            if (change->map == names->map)
                rc = q2_proof_ranges_add(&names->ranges[change->kind], change->offset,
                                         change->length, err);
        }
    }
    if (rc == 0 && names->known.count == 0)
        rc = q2_proof_structures(names->proof, &names->known, err);
    for (size_t i = 0; i < Q2_CHANGE_COUNT; i++)
        q2_proof_ranges_settle(&names->ranges[i]);
    names->loaded = rc == 0;
    return rc;
}

/* ---- whose it was ---- */

static void
count_fault(void *data, const struct q2_violation *violation)
{
    unsigned *faults = data;
    if (violation->problem != Q2_PROBLEM_L2_COPIED_CLEAR &&
        violation->problem != Q2_PROBLEM_L2_COMPRESSED_ENCRYPTED)
        ++*faults;
}

/* Whether what is at host offset `table` is an L2 table, by its entries. */
static bool
looks_like_table(const struct q2_proof *proof, const uint8_t *bytes)
{
    const struct q2_geometry *geometry = &proof->before->geometry;
    uint64_t mapped = 0, faulty = 0;
    for (uint64_t i = 0; i < geometry->l2_entries; i++) {
        struct q2_l2_entry entry = q2_l2_load(geometry, bytes, i);
        unsigned faults = 0;
        const struct q2_sink sink = {.report = count_fault, .data = &faults, .wordless = true};
        if (!entry.raw && !entry.bitmap)
            continue;
        /* Where the guest cluster is does not matter, except to a data file. */
        uint64_t guest = geometry->data_file ? q2_entry_offset(entry.raw) : 0;
        q2_l2_entry_validate(geometry, &entry, 0, guest, &sink);
        faulty += faults > 0;
        mapped += faults == 0;
    }
    return faulty <= (mapped ? mapped * FAULTS_PER_ENTRY + FAULTS_OF_ANY : FAULTS_OF_EMPTY);
}

static int
judge_table(struct q2_proof_names *names, uint64_t table, struct q2_error *err)
{
    struct q2_proof *proof = names->proof;
    uint64_t size = proof->before->geometry.cluster_size;
    void *bytes;
    names->table = table;
    names->is_table = !q2_proof_ranges_touch(&names->known, table, 1);
    if (!names->is_table || !q2_work_take(&proof->work, size))
        return 0;
    int rc = q2_budget_calloc(proof->budget, size, 1, "the proof of a repair", &bytes, err);
    if (rc < 0)
        return rc;
    /* Of one that cannot be read as a whole, something was read all the same. */
    names->is_table = q2_file_read_padded(proof->base, table, bytes, size, NULL) < 0 ||
                      looks_like_table(proof, bytes);
    q2_budget_free(proof->budget, bytes, size, 1);
    return 0;
}

/* Whether another map has the L1 table of this one: it may be neither's. */
static bool
shares_l1(const struct q2_proof *proof, const struct q2_map *map)
{
    const struct q2_check *check = proof->before;
    for (uint64_t m = 0; m < check->map_count; m++)
        if (&check->maps[m] != map && check->maps[m].l1_size &&
            check->maps[m].l1_offset == map->l1_offset)
            return true;
    return false;
}

/* Whether what could be read is the guest's by all appearances. */
static int
is_own(struct q2_proof_names *names, struct q2_viewer *before, uint64_t guest,
       const struct q2_view *view, bool *ret_own, struct q2_error *err)
{
    const struct q2_geometry *geometry = &names->proof->before->geometry;
    bool has_host = view->kind == Q2_VIEW_DATA || view->kind == Q2_VIEW_COMPRESSED;
    uint64_t table = view->l2_at ? q2_viewer_table(before, guest) : 0;
    /* Of an entry behind the end of the file, or cut in two by it, nobody knows what it was. */
    *ret_own = view->kind != Q2_VIEW_UNREADABLE &&
               !q2_proof_ranges_touch(&names->known, has_host ? view->host : 0, has_host) &&
               view->l2_at + geometry->l2_entry_size <= geometry->file_size &&
               !shares_l1(names->proof, before->map);
    if (!view->l2_at || !*ret_own)
        return 0;
    int rc = table == names->table ? 0 : judge_table(names, table, err);
    *ret_own = names->is_table;
    return rc;
}

/* ---- what the names allow ---- */

/* Where the names of a range next begin or end. */
static uint64_t
next_edge(const struct q2_proof_names *names, uint64_t guest)
{
    uint64_t edge = UINT64_MAX;
    for (size_t i = 0; i < Q2_CHANGE_COUNT; i++) {
        uint64_t end = q2_proof_ranges_until(&names->ranges[i], guest);
        edge = q2_min(edge, end > guest ? end : q2_proof_ranges_next(&names->ranges[i], guest));
    }
    return edge;
}

int
q2_proof_names_allow(struct q2_proof_names *names, struct q2_viewer *before,
                     const struct q2_view *from, uint64_t *guest, uint64_t *end,
                     struct q2_error *err)
{
    const struct q2_proof_ranges *ranges = names->ranges;
    bool hole = from->kind == Q2_VIEW_ZERO || from->kind == Q2_VIEW_BACKING, own;
    int rc = names->loaded ? 0 : load(names, err);
    if (rc == 0)
        rc = is_own(names, before, *guest, from, &own, err);
    if (rc < 0)
        return rc;
    uint64_t until = *guest, last;
    do {
        last = until;
        until = q2_proof_ranges_until(&ranges[Q2_CHANGE_REPLACED], until);
        if (!own || hole)
            until = q2_proof_ranges_until(&ranges[Q2_CHANGE_RECOVERED], until);
        if (!own)
            until = q2_proof_ranges_until(&ranges[Q2_CHANGE_LOST], until);
    } while (until > last && until < *end);
    if (until >= *end)
        return 1;
    *guest = until;
    *end = q2_min(*end, next_edge(names, until));
    return 0;
}

int
q2_proof_names_spare(struct q2_proof_names *names, uint64_t *guest, uint64_t *end,
                     struct q2_error *err)
{
    const struct q2_proof_ranges *lost = &names->ranges[Q2_CHANGE_LOST];
    int rc = names->loaded ? 0 : load(names, err);
    if (rc < 0)
        return rc;
    uint64_t until = q2_proof_ranges_until(lost, *guest);
    if (until == *guest) {
        uint64_t next = q2_proof_ranges_next(lost, *guest);
        if (next >= *end)
            return 1;
        *guest = next;
        until = q2_proof_ranges_until(lost, next);
    }
    *end = q2_min(*end, until);
    return 0;
}
