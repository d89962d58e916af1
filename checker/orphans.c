/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/orphans.h"

#include "checker/guest.h"
#include "core/base/checked.h"
#include "core/format/snapshot.h"

#include <stdlib.h>

enum {
    MAX_RUNS = 65536,
    MAX_PROBES = 16384, /* clusters that are looked into, unless the check is deep */
    PROBE_BYTES = 4096, /* of a cluster that are looked at first */
};

void
q2_orphans_init(struct q2_orphans *orphans, struct q2_check *check)
{
    *orphans = (struct q2_orphans){.check = check};
}

void
q2_orphans_destroy(struct q2_orphans *orphans)
{
    q2_budget_free(&orphans->check->budget, orphans->runs, orphans->capacity,
                   sizeof *orphans->runs);
}

void
q2_orphans_add(struct q2_orphans *orphans, uint64_t first, uint64_t count)
{
    struct q2_orphan_run *last = orphans->count ? &orphans->runs[orphans->count - 1] : NULL;
    if (last && last->first + last->count == first) {
        last->count += count;
        return;
    }
    bool room = orphans->count < MAX_RUNS &&
                q2_check_grow(orphans->check, &orphans->runs, orphans->count, &orphans->capacity,
                              sizeof *orphans->runs, NULL) == 0;
    if (room)
        orphans->runs[orphans->count++] = (struct q2_orphan_run){.first = first, .count = count};
    else
        orphans->dropped++;
}

static int
compare_run(const void *key, const void *element)
{
    const uint64_t *cluster = key;
    const struct q2_orphan_run *run = element;
    if (*cluster < run->first)
        return -1;
    return *cluster >= run->first + run->count;
}

static bool
is_orphan(const struct q2_orphans *orphans, uint64_t cluster)
{
    return bsearch(&cluster, orphans->runs, orphans->count, sizeof *orphans->runs, compare_run);
}

/* ---- what a cluster looks like ---- */

struct look {
    const struct q2_orphans *orphans;
    uint8_t *buffer; /* one cluster */
    uint64_t faults;
    struct q2_sink sink;
    /* The extent of the file looked up last. */
    uint64_t extent_first; /* cluster */
    uint64_t extent_end;   /* cluster */
    bool extent_data;
};

struct likeness {
    uint64_t mapped;  /* entries that refer to something */
    uint64_t orphans; /* of these, those that refer to orphans */
    uint64_t first;   /* cluster that the first of these refers to */
    bool copied;      /* an entry has the COPIED flag */
};

static void
count_fault(void *data, const struct q2_violation *violation)
{
    (void)violation;
    ++*(uint64_t *)data;
}

/* Whether the first `length` bytes of a cluster could all be entries of an L2 table, and how many
 * of them lead to orphans. A guest's own data practically never passes. */
static bool
like_l2(struct look *look, uint64_t length, struct likeness *ret_likeness)
{
    const struct q2_geometry *geometry = &look->orphans->check->geometry;
    struct likeness found = {0};
    look->faults = 0;
    for (uint64_t i = 0; i < length / geometry->l2_entry_size; i++) {
        struct q2_l2_entry entry = q2_l2_load(geometry, look->buffer, i);
        uint64_t first, count;
        if (entry.raw == 0 && entry.bitmap == 0)
            continue;
        q2_l2_entry_validate(geometry, &entry, 0, 0, &look->sink);
        if (look->faults)
            return false;
        if (!q2_entry_clusters(geometry, entry.raw, &first, &count))
            continue;
        found.mapped++;
        found.copied |= (entry.raw & Q2_ENTRY_COPIED) != 0;
        if (!is_orphan(look->orphans, first))
            continue;
        found.first = found.orphans ? found.first : first;
        found.orphans++;
    }
    *ret_likeness = found;
    return true;
}

static int
read_cluster(struct look *look, uint64_t cluster, uint64_t length)
{
    struct q2_check *check = look->orphans->check;
    if (!q2_work_take(&check->work, length))
        return Q2_ERR_RANGE;
    return q2_file_read_padded(check->file, cluster << check->geometry.cluster_bits, look->buffer,
                               length, NULL);
}

static void
report(struct q2_check *check, enum q2_problem problem, uint64_t cluster, uint64_t mapped)
{
    struct q2_finding finding = {
        .problem = problem,
        .has = Q2_HAS_TARGET | (mapped ? Q2_HAS_GOT : 0U),
        .target_offset = cluster << check->geometry.cluster_bits,
        .target_length = check->geometry.cluster_size,
        .got = mapped,
    };
    q2_findings_add(&check->findings, &finding);
}

/* An L1 table has the form of an L2 table; it is one if what it leads to is an L2 table again. */
static bool
leads_to_table(struct look *look, uint64_t cluster)
{
    struct likeness likeness;
    uint64_t length = look->orphans->check->geometry.cluster_size;
    return read_cluster(look, cluster, length) == 0 && like_l2(look, length, &likeness) &&
           likeness.orphans > 0;
}

/* With extended L2 entries an L1 table has another form than an L2 table. */
static bool
like_l1(struct look *look, uint64_t length, struct likeness *ret_likeness)
{
    const struct q2_geometry *geometry = &look->orphans->check->geometry;
    struct likeness found = {0};
    look->faults = 0;
    for (uint64_t i = 0; i < length / 8; i++) {
        uint64_t raw = q2_load_be64(look->buffer + i * 8);
        if (raw == 0)
            continue;
        q2_l1_entry_validate(geometry, raw, 0, &look->sink);
        if (look->faults)
            return false;
        uint64_t table = q2_entry_offset(raw) >> geometry->cluster_bits;
        found.mapped++;
        found.first = found.orphans ? found.first : table;
        found.orphans += is_orphan(look->orphans, table);
    }
    *ret_likeness = found;
    return true;
}

/* Whether a cluster that begins like an L1 table is one. Changes the buffer. */
static bool
is_l1(struct look *look, uint64_t cluster, struct likeness *ret_likeness)
{
    uint64_t size = look->orphans->check->geometry.cluster_size;
    return read_cluster(look, cluster, size) == 0 && like_l1(look, size, ret_likeness) &&
           ret_likeness->orphans > 0 && leads_to_table(look, ret_likeness->first);
}

static bool
has_bitmaps(const struct q2_check *check)
{
    return check->extensions.has_bitmaps || check->header.autoclear_features & Q2_AUTOCLEAR_BITMAPS;
}

/* Whether the buffer begins with a snapshot table whose first snapshot is lost with it: a crash
 * leaves copies of the table behind, but what they list is in use. */
static bool
is_lost_table(const struct look *look, uint64_t cluster, uint64_t length)
{
    const struct q2_geometry *geometry = &look->orphans->check->geometry;
    uint64_t at = cluster << geometry->cluster_bits;
    struct q2_snapshot snapshot;
    if (!q2_snapshot_plausible(geometry, look->buffer, length, at))
        return false;
    q2_snapshot_decode(geometry, look->buffer, at, &snapshot);
    return is_orphan(look->orphans, snapshot.l1_table_offset >> geometry->cluster_bits);
}

static void
examine(struct look *look, uint64_t cluster)
{
    struct q2_check *check = look->orphans->check;
    uint64_t size = check->geometry.cluster_size, length = q2_min(PROBE_BYTES, size);
    struct likeness likeness;
    if (read_cluster(look, cluster, length) < 0)
        return;
    if (is_lost_table(look, cluster, length)) {
        if (!check->lost_at || q2_cluster_of(check, check->lost_at) != cluster)
            report(check, Q2_PROBLEM_SNAPSHOT_TABLE_LOST, cluster, 0);
        return;
    }
    if (check->geometry.extended_l2 && like_l1(look, length, &likeness)) {
        if (is_l1(look, cluster, &likeness)) {
            report(check, Q2_PROBLEM_ORPHAN_L1_TABLE, cluster, likeness.orphans);
            return;
        }
        if (read_cluster(look, cluster, length) < 0)
            return;
    }
    /* A table may begin with unused entries, but not with entries that lead nowhere lost. */
    if (!like_l2(look, length, &likeness) ||
        (likeness.orphans == 0 && likeness.mapped > 0 && !check->options.deep))
        return;
    if (length < size && (read_cluster(look, cluster, size) < 0 || !like_l2(look, size, &likeness)))
        return;
    /* The copy of a table that a crash left behind maps clusters that are in use. */
    if (likeness.orphans == 0 || likeness.orphans * 2 < likeness.mapped)
        return;
    /* A bitmap table has the form of an L2 table, but no flags. */
    if (has_bitmaps(check) && !likeness.copied)
        return;
    bool l1 = !check->geometry.extended_l2 && leads_to_table(look, likeness.first);
    report(check, l1 ? Q2_PROBLEM_ORPHAN_L1_TABLE : Q2_PROBLEM_ORPHAN_L2_TABLE, cluster,
           likeness.orphans);
}

/* Whether `cluster` has data, some of it at least, and from which cluster on that may change. Runs
 * are many and mostly short, so what the file says about one extent serves all that lie in it. */
static bool
has_data(struct look *look, uint64_t cluster, uint64_t *ret_end)
{
    struct q2_check *check = look->orphans->check;
    unsigned bits = check->geometry.cluster_bits;
    if (cluster < look->extent_first || cluster >= look->extent_end) {
        bool data = true;
        uint64_t end = 0;
        if (q2_file_extent(check->file, cluster << bits, &data, &end, NULL) < 0)
            data = true;
        /* A cluster that is partly a hole has data. */
        look->extent_first = cluster;
        look->extent_data = data || end >> bits <= cluster;
        look->extent_end = q2_max(data ? q2_units(end, bits) : end >> bits, cluster + 1);
    }
    *ret_end = look->extent_end;
    return look->extent_data;
}

/* Look into the clusters of a run that are not holes. */
static void
examine_run(struct look *look, const struct q2_orphan_run *run, uint64_t *probes)
{
    bool deep = look->orphans->check->options.deep;
    uint64_t end = run->first + run->count, stop;
    for (uint64_t cluster = run->first; cluster < end; cluster = stop) {
        bool data = has_data(look, cluster, &stop);
        stop = q2_min(stop, end);
        for (; data && cluster < stop; cluster++) {
            if (*probes == 0 && !deep)
                return;
            *probes -= *probes > 0;
            examine(look, cluster);
        }
    }
}

int
q2_orphans_examine(struct q2_orphans *orphans, struct q2_error *err)
{
    struct q2_check *check = orphans->check;
    struct look look = {.orphans = orphans};
    /* The bit is damaged, so the tables are not of the form that it says. */
    if (check->geometry.extended_l2 && check->geometry.cluster_bits < Q2_MIN_EXTENDED_CLUSTER_BITS)
        return 0;
    look.sink = (struct q2_sink){.report = count_fault, .data = &look.faults, .wordless = true};
    void *buffer;
    int rc = q2_budget_calloc(&check->budget, check->geometry.cluster_size, 1,
                              "examining orphaned clusters", &buffer, err);
    if (rc < 0)
        return rc;
    look.buffer = buffer;
    uint64_t probes = MAX_PROBES;
    for (uint64_t i = 0; i < orphans->count; i++)
        examine_run(&look, &orphans->runs[i], &probes);
    q2_budget_free(&check->budget, buffer, check->geometry.cluster_size, 1);
    return 0;
}
