/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Phase two of the map: walk the tables again, in order, and say which entry breaks which rule and
 * who uses the clusters that do not add up.
 *
 * The map is cut into as many parts as there are threads. Each is explained as if it were the
 * whole, with lists of its own, and then the lists are put together in the order of the parts: the
 * result is the same as that of one thread. */

#include "checker/guest.h"
#include "checker/uses.h"
#include "core/base/checked.h"
#include "core/base/parallel.h"
#include "core/format/references.h"

#include <stdatomic.h>

enum {
    SLICE_BYTES = 64 << 10,
    RUN = 64, /* entries that are looked at as one at most */
};

/* Where the walk is: what a violation reported now is about. */
struct place {
    struct q2_findings *findings;
    q2_map_set maps;
    unsigned has;
    uint64_t l1_index;
    uint64_t l2_index;
    uint64_t guest;  /* bytes */
    uint64_t length; /* bytes */
};

/* One part of the map. */
struct remap {
    struct q2_check *check;
    struct q2_uses uses;
    struct q2_findings findings;
    struct q2_mapset *sets;
    bool report;
    struct q2_window window;
    uint32_t *members; /* room for all maps */
    uint8_t *buffer;   /* slice_bytes() */
    struct place place;
    struct q2_sink sink;
};

struct explanation {
    struct q2_check *check;
    const uint64_t *odd_units;
    bool all; /* not only the odd ones */
    struct remap *parts;
    unsigned count;
    _Atomic uint64_t done; /* units */
};

/* Of an L2 table that are read at once. */
static uint64_t
slice_bytes(const struct q2_check *check)
{
    return q2_min(SLICE_BYTES, check->geometry.cluster_size);
}

static void
add_finding(const struct place *place, struct q2_finding *finding)
{
    finding->has |= place->has;
    finding->maps = place->maps;
    finding->l1_index = (uint32_t)place->l1_index;
    finding->l2_index = (uint32_t)place->l2_index;
    finding->guest_offset = place->guest;
    finding->guest_length = place->length;
    q2_findings_add(place->findings, finding);
}

static void
report(void *data, const struct q2_violation *violation)
{
    struct q2_finding finding = q2_finding_of(violation);
    add_finding(data, &finding);
}

static void
nothing(void *data, const struct q2_violation *violation)
{
    (void)data;
    (void)violation;
}

/* ---- L1 entries ---- */

static int
explain_l1_entry(struct remap *remap, uint64_t map, uint64_t slot, struct q2_error *err)
{
    struct q2_check *check = remap->check;
    uint64_t raw = q2_window_entry(&remap->window, map, slot);
    uint64_t reach = q2_l2_reach(&check->geometry);
    uint32_t member = (uint32_t)map;
    if (raw == 0)
        return 0;
    remap->place = (struct place){.findings = &remap->findings,
                                  .has = Q2_HAS_L1 | Q2_HAS_GUEST,
                                  .l1_index = slot,
                                  .guest = slot * reach,
                                  .length = reach};
    int rc = q2_mapset_intern(remap->sets, &member, 1, &remap->place.maps, err);
    if (rc == 0)
        q2_l1_entry_validate(&check->geometry, raw, check->maps[map].l1_offset + slot * 8,
                             &remap->sink);
    return rc;
}

/* Report which parts of which L1 tables the window could not read. */
static int
explain_unreadable(struct remap *remap, struct q2_error *err)
{
    struct q2_check *check = remap->check;
    const struct q2_window *window = &remap->window;
    uint64_t reach = q2_l2_reach(&check->geometry);
    for (uint64_t m = 0; m < check->map_count; m++) {
        if (window->first >= check->maps[m].l1_size)
            continue;
        uint64_t slots = q2_min(window->count, check->maps[m].l1_size - window->first);
        uint64_t at = check->maps[m].l1_offset + window->first * 8;
        uint32_t member = (uint32_t)m;
        if (q2_file_read_padded(check->file, at, window->entries, slots * 8, NULL) == 0)
            continue;
        remap->place = (struct place){.findings = &remap->findings,
                                      .has = Q2_HAS_L1 | Q2_HAS_GUEST,
                                      .l1_index = window->first,
                                      .guest = window->first * reach,
                                      .length = slots * reach};
        int rc = q2_mapset_intern(remap->sets, &member, 1, &remap->place.maps, err);
        if (rc < 0)
            return rc;
        add_finding(&remap->place, &(struct q2_finding){.problem = Q2_PROBLEM_L1_TABLE_UNREADABLE,
                                                        .has = Q2_HAS_HOST,
                                                        .host_offset = at,
                                                        .host_length = slots * 8});
    }
    q2_window_load(&remap->window, window->first / window->capacity);
    return 0;
}

/* ---- L2 tables ---- */

static int
intern_maps(struct remap *remap, const struct q2_slot_table *table, q2_map_set *ret_maps,
            struct q2_error *err)
{
    for (uint64_t i = 0; i < table->references; i++)
        remap->members[i] = remap->window.items[table->first + i].map;
    return q2_mapset_intern(remap->sets, remap->members, table->references, ret_maps, err);
}

/* The guest offset from which on nothing should be mapped by any of the maps of a table. */
static uint64_t
limit_of(const struct remap *remap, const struct q2_slot_table *table)
{
    uint64_t limit = 0;
    for (uint64_t i = 0; i < table->references; i++)
        limit = q2_max(limit, remap->check->maps[remap->window.items[table->first + i].map].limit);
    return limit;
}

static void
use_entry(struct remap *remap, const struct q2_slot_table *table, const struct q2_l2_entry *entry,
          uint64_t at)
{
    const struct q2_geometry *geometry = &remap->check->geometry;
    bool compressed = entry->raw & Q2_ENTRY_COMPRESSED;
    uint64_t first, count;
    if (!q2_entry_clusters(geometry, entry->raw, &first, &count) ||
        !q2_uses_wanted(&remap->uses, first, count))
        return;
    q2_uses_add(&remap->uses, first, count,
                &(struct q2_use){.references = table->references,
                                 .owner = {.kind = compressed ? Q2_OWNER_COMPRESSED : Q2_OWNER_DATA,
                                           .maps = remap->place.maps,
                                           .guest = remap->place.guest,
                                           .guest_length = remap->place.length,
                                           .index = remap->place.l2_index,
                                           .at = at},
                                 .active = table->active && !compressed,
                                 .copied = entry->raw & Q2_ENTRY_COPIED});
}

/* Entry `index` of the slice in the buffer. */
static void
explain_entry(struct remap *remap, const struct q2_slot_table *table, uint64_t index, uint64_t at,
              uint64_t limit)
{
    const struct q2_geometry *geometry = &remap->check->geometry;
    const struct q2_l2_entry entry = q2_l2_load(geometry, remap->buffer, index);
    if (entry.raw == 0 && entry.bitmap == 0)
        return;
    if (remap->report) {
        q2_l2_entry_validate(geometry, &entry, at, remap->place.guest, &remap->sink);
        if (remap->place.guest >= limit &&
            q2_l2_kind(geometry, entry.raw) != Q2_CLUSTER_UNALLOCATED)
            add_finding(&remap->place, &(struct q2_finding){.problem = Q2_PROBLEM_MAP_BEYOND_DISK,
                                                            .has = Q2_HAS_HOST | Q2_HAS_GOT,
                                                            .host_offset = at,
                                                            .host_length = 8,
                                                            .got = entry.raw});
    }
    use_entry(remap, table, &entry, at);
}

/* How many entries of the slice from `index` on, below `end`, are of one kind; *ret_quiet: there is
 * nothing to say about any of them nor about what they refer to. */
static uint64_t
find_run(struct remap *remap, uint64_t index, uint64_t end, bool *ret_quiet)
{
    const struct q2_geometry *geometry = &remap->check->geometry;
    uint64_t run = q2_empty_run(geometry, remap->buffer, index, end);
    *ret_quiet = run > 0;
    if (run)
        return run;
    uint64_t raw = q2_l2_load(geometry, remap->buffer, index).raw;
    run = q2_plain_run(geometry, remap->buffer, index, end);
    *ret_quiet =
        run && !q2_uses_wanted(&remap->uses, q2_entry_offset(raw) >> geometry->cluster_bits, run);
    return q2_max(run, 1);
}

static void
explain_slice(struct remap *remap, const struct q2_slot_table *table, uint64_t part,
              uint64_t length, uint64_t limit)
{
    const struct q2_geometry *geometry = &remap->check->geometry;
    uint64_t base = remap->place.l1_index * q2_l2_reach(geometry), size = geometry->l2_entry_size;
    uint64_t first = part / size, entries = length / size;
    for (uint64_t i = 0, end; i < entries; i = end) {
        bool quiet;
        end = i + find_run(remap, i, q2_min(i + RUN, entries), &quiet);
        bool past_end = remap->report && base + ((first + end) << geometry->cluster_bits) > limit;
        for (; (!quiet || past_end) && i < end; i++) {
            remap->place.l2_index = first + i;
            remap->place.guest = base + ((first + i) << geometry->cluster_bits);
            explain_entry(remap, table, i, table->offset + part + i * size, limit);
        }
    }
}

static void
explain_table(struct remap *remap, uint64_t slot, const struct q2_slot_table *table)
{
    struct q2_check *check = remap->check;
    const struct q2_geometry *geometry = &check->geometry;
    q2_map_set maps = remap->place.maps;
    uint64_t reach = q2_l2_reach(geometry), limit = limit_of(remap, table);
    for (uint64_t part = 0; part < geometry->cluster_size; part += SLICE_BYTES) {
        uint64_t length = q2_min(SLICE_BYTES, geometry->cluster_size - part);
        remap->place = (struct place){.findings = &remap->findings,
                                      .maps = maps,
                                      .has = Q2_HAS_L1 | Q2_HAS_GUEST,
                                      .l1_index = slot,
                                      .guest = slot * reach,
                                      .length = reach};
        int rc = q2_read_table(check, table->offset, part, remap->buffer, length);
        if (rc == Q2_ERR_IO && remap->report)
            add_finding(&remap->place,
                        &(struct q2_finding){.problem = Q2_PROBLEM_L2_TABLE_UNREADABLE,
                                             .has = Q2_HAS_HOST,
                                             .host_offset = table->offset + part,
                                             .host_length = length});
        if (rc < 0)
            return;
        remap->place.has |= Q2_HAS_L2;
        remap->place.length = geometry->cluster_size;
        explain_slice(remap, table, part, length, limit);
    }
}

static int
explain_slot(struct remap *remap, uint64_t slot, struct q2_error *err)
{
    struct q2_check *check = remap->check;
    struct q2_window *window = &remap->window;
    int rc = 0;
    q2_window_group(window, slot);
    for (uint64_t m = 0; window->odd && remap->report && m < check->map_count && rc == 0; m++)
        rc = explain_l1_entry(remap, m, slot, err);
    for (uint64_t t = 0; t < window->table_count && rc == 0; t++) {
        const struct q2_slot_table *table = &window->tables[t];
        struct q2_owner owner = {.kind = Q2_OWNER_L2_TABLE,
                                 .guest = slot * q2_l2_reach(&check->geometry),
                                 .guest_length = q2_l2_reach(&check->geometry),
                                 .index = slot};
        uint32_t map = window->items[table->first].map;
        rc = intern_maps(remap, table, &owner.maps, err);
        if (rc < 0)
            return rc;
        owner.at = check->maps[map].l1_offset + slot * 8;
        q2_uses_add(&remap->uses, q2_cluster_of(check, table->offset), 1,
                    &(struct q2_use){.references = table->references,
                                     .owner = owner,
                                     .active = table->active,
                                     .copied = table->copied});
        remap->place.maps = owner.maps;
        explain_table(remap, slot, table);
    }
    return rc;
}

/* ---- parts ---- */

static int
explain_unit(struct remap *remap, uint64_t unit, struct q2_error *err)
{
    q2_window_load(&remap->window, unit);
    int rc = remap->window.unreadable && remap->report ? explain_unreadable(remap, err) : 0;
    for (uint64_t s = 0; s < remap->window.count && rc == 0; s++)
        rc = explain_slot(remap, remap->window.first + s, err);
    if (rc == 0 && remap->findings.failed) {
        *err = remap->findings.error;
        rc = remap->findings.failed;
    }
    return rc;
}

static int
turn(void *data, unsigned worker, uint64_t part, struct q2_error *err)
{
    struct explanation *whole = data;
    uint64_t units = q2_unit_count(whole->check), end = units * (part + 1) / whole->count;
    for (uint64_t unit = units * part / whole->count; unit < end; unit++) {
        bool wanted = whole->all || q2_bit_test(whole->odd_units, unit);
        int rc = wanted ? explain_unit(&whole->parts[part], unit, err) : 0;
        if (rc < 0)
            return rc;
        uint64_t done = atomic_fetch_add(&whole->done, 1) + 1;
        if (worker == 0) /* the thread that may */
            q2_check_progress(whole->check, done);
    }
    return 0;
}

static int
part_init(struct remap *remap, struct q2_check *check, bool report_rules, struct q2_error *err)
{
    static const char purpose[] = "explaining the map";
    void *members = NULL, *buffer = NULL;
    remap->check = check;
    remap->report = report_rules;
    remap->sink = (struct q2_sink){.report = report_rules ? report : nothing,
                                   .data = &remap->place,
                                   .wordless = !report_rules};
    q2_uses_init(&remap->uses, check);
    q2_findings_init(&remap->findings, &check->budget, check->findings.max_details);
    int rc = q2_mapset_new(&check->budget, &remap->sets, err);
    if (rc == 0)
        rc = q2_window_init(&remap->window, check, err);
    if (rc == 0)
        rc = q2_budget_calloc(&check->budget, check->map_count, sizeof *remap->members, purpose,
                              &members, err);
    if (rc == 0)
        rc = q2_budget_calloc(&check->budget, slice_bytes(check), 1, purpose, &buffer, err);
    remap->members = members;
    remap->buffer = buffer;
    return rc;
}

static void
part_destroy(struct remap *remap)
{
    struct q2_check *check = remap->check;
    if (!check)
        return;
    q2_budget_free(&check->budget, remap->buffer, slice_bytes(check), 1);
    q2_budget_free(&check->budget, remap->members, check->map_count, sizeof *remap->members);
    q2_window_destroy(&remap->window);
    q2_mapset_free(remap->sets);
    q2_findings_destroy(&remap->findings);
    q2_uses_destroy(&remap->uses);
    *remap = (struct remap){0};
}

static int
absorb(struct q2_uses *uses, const struct remap *part, struct q2_error *err)
{
    struct q2_check *check = part->check;
    q2_map_set *ids;
    uint64_t count;
    int rc = q2_mapset_absorb(check->sets, part->sets, &ids, &count, err);
    if (rc < 0)
        return rc;
    q2_uses_absorb(uses, &part->uses, ids);
    q2_findings_absorb(&check->findings, &part->findings, ids);
    q2_budget_free(&check->budget, ids, count, sizeof *ids);
    return 0;
}

static int
run(struct explanation *whole, struct q2_uses *uses, bool report_rules, struct q2_error *err)
{
    struct q2_check *check = whole->check;
    int rc = 0;
    for (unsigned i = 0; i < whole->count && rc == 0; i++)
        rc = part_init(&whole->parts[i], check, report_rules, err);
    if (rc < 0)
        return rc;
    struct q2_loop loop = {.threads = whole->count,
                           .turns = whole->count,
                           .turn = turn,
                           .data = whole};
    q2_check_phase(check, "explaining", q2_unit_count(check),
                   q2_unit_slots(check) << check->geometry.cluster_bits);
    rc = q2_loop_run(&loop, err);
    for (unsigned i = 0; i < whole->count && rc == 0; i++) {
        rc = absorb(uses, &whole->parts[i], err);
        part_destroy(&whole->parts[i]);
    }
    return rc;
}

int
q2_uses_add_maps(struct q2_uses *uses, const uint64_t *odd_units, bool all, bool report_rules,
                 struct q2_error *err)
{
    struct q2_check *check = uses->check;
    struct explanation whole = {.check = check,
                                .odd_units = odd_units,
                                .all = all,
                                .count = (unsigned)q2_min(check->threads, q2_unit_count(check))};
    void *parts;
    int rc = q2_budget_calloc(&check->budget, whole.count, sizeof *whole.parts,
                              "explaining the map", &parts, err);
    if (rc < 0)
        return rc;
    whole.parts = parts;
    rc = run(&whole, uses, report_rules, err);
    for (unsigned i = 0; i < whole.count; i++)
        part_destroy(&whole.parts[i]);
    q2_budget_free(&check->budget, parts, whole.count, sizeof *whole.parts);
    return rc;
}
