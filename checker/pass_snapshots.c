/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The snapshot table, and with it the list of all maps: the active one and one per snapshot. */

#include "checker/scan.h"
#include "core/base/checked.h"
#include "core/format/snapshot.h"

#include <stdlib.h>
#include <string.h>

enum { PROBE_BYTES = 4096 };

/* ---- maps ---- */

/* The guest offset behind a disk and the VM state that follows it in the next free L1 entry. */
static uint64_t
limit_of(const struct q2_geometry *geometry, uint64_t disk_size, uint64_t vm_state_size)
{
    uint64_t end = disk_size, start;
    if (vm_state_size == 0)
        return end;
    if (!q2_mul(q2_l1_entries_for(geometry, disk_size), q2_l2_reach(geometry), &start) ||
        !q2_add(start, vm_state_size, &end))
        return UINT64_MAX;
    return end;
}

static int
add_map(struct q2_check *check, const struct q2_map *map, struct q2_error *err)
{
    uint32_t index = (uint32_t)check->map_count;
    check->maps[check->map_count++] = *map;
    if (map->l1_size == 0)
        return 0;
    struct q2_owner owner = {.kind = Q2_OWNER_L1_TABLE, .index = index};
    int rc = q2_mapset_intern(check->sets, &index, 1, &owner.maps, err);
    if (rc == 0)
        rc = q2_check_add_region(check, &owner, map->l1_offset, (uint64_t)map->l1_size * 8, err);
    return rc;
}

static int
add_active(struct q2_check *check, struct q2_error *err)
{
    bool usable = check->usable & Q2_USABLE_L1;
    return add_map(check,
                   &(struct q2_map){.l1_offset = check->header.l1_table_offset,
                                    .l1_size = usable ? check->header.l1_size : 0,
                                    .limit = check->header.size},
                   err);
}

/* ---- names ---- */

static int
copy_text(struct q2_check *check, const uint8_t *bytes, size_t length, const char **ret_text,
          struct q2_error *err)
{
    /* Each byte may become an escape of four. */
    size_t size = length * 4 + 4;
    void *memory;
    int rc = q2_budget_calloc(&check->budget, size, 1, "snapshot names", &memory, err);
    if (rc < 0)
        return rc;
    size_t used = strlen(q2_printable(memory, size, bytes, length)) + 1;
    void *text;
    rc = q2_budget_calloc(&check->budget, used, 1, "snapshot names", &text, err);
    if (rc == 0)
        *ret_text = memcpy(text, memory, used);
    q2_budget_free(&check->budget, memory, size, 1);
    return rc;
}

static int
add_name(struct q2_check *check, const struct q2_snapshot *snapshot, const uint8_t *text,
         struct q2_error *err)
{
    int rc = q2_check_grow(check, &check->snapshots, check->snapshot_count,
                           &check->snapshot_capacity, sizeof *check->snapshots, err);
    if (rc < 0)
        return rc;
    struct q2_snapshot_name *name = &check->snapshots[check->snapshot_count++];
    name->disk_size = snapshot->disk_size;
    rc = copy_text(check, text, snapshot->id_length, &name->id, err);
    if (rc == 0)
        rc = copy_text(check, text + snapshot->id_length, snapshot->name_length, &name->name, err);
    return rc;
}

static void
check_text(const struct q2_snapshot *snapshot, const uint8_t *text, const struct q2_sink *sink)
{
    size_t length = (size_t)snapshot->id_length + snapshot->name_length;
    for (size_t i = 0; i < length; i++) {
        if (text[i] >= 0x20 && text[i] != 0x7f)
            continue;
        bool id = i < snapshot->id_length;
        q2_violate(sink, Q2_PROBLEM_SNAPSHOT_NAME_CONTROL,
                   snapshot->at + Q2_SNAPSHOT_FIXED_LENGTH + snapshot->extra_length + i, 1, text[i],
                   "byte %zu of the %s", id ? i : i - snapshot->id_length, id ? "id" : "name");
        return;
    }
}

/* ---- the table ---- */

struct reading {
    struct q2_check *check;
    uint64_t at;     /* of the next entry, bytes */
    uint64_t end;    /* of what the table may occupy, bytes */
    bool cut;        /* the file ends inside the last cluster of the table */
    q2_map_set maps; /* of the entry at hand, once it has a name */
    struct q2_sink sink;
};

static void
report(void *data, const struct q2_violation *violation)
{
    struct reading *reading = data;
    q2_findings_add(&reading->check->findings,
                    &(struct q2_finding){.problem = violation->problem,
                                         .has = Q2_HAS_HOST |
                                                (violation->has_got ? Q2_HAS_GOT : 0U) |
                                                (violation->has_expected ? Q2_HAS_EXPECTED : 0U),
                                         .host_offset = violation->offset,
                                         .host_length = violation->length,
                                         .got = violation->got,
                                         .expected = violation->expected,
                                         .maps = reading->maps,
                                         .detail = (char *)(uintptr_t)violation->detail});
}

static void
report_end(struct reading *reading, enum q2_problem problem, uint64_t end)
{
    q2_violate(&reading->sink, problem, reading->at, end - reading->at, end, "end of entry %llu",
               (unsigned long long)reading->check->snapshot_count);
}

static void
report_unreadable(struct reading *reading, uint64_t at, uint64_t length)
{
    q2_violate_text(&reading->sink, Q2_PROBLEM_SNAPSHOT_TABLE_UNREADABLE, at, length, "entry %llu",
                    (unsigned long long)reading->check->snapshot_count);
    atomic_store(&reading->check->unread, true);
}

/* Read `length` bytes at the current entry; false with a finding where that is not possible. */
static bool
read_piece(struct reading *reading, uint64_t offset, uint64_t length, void *buffer)
{
    struct q2_check *check = reading->check;
    uint64_t at = reading->at + offset, file_size = check->geometry.file_size;
    bool whole = q2_range_inside(at, length, file_size);
    if (!q2_range_inside(at, length, reading->end) || (offset == 0 && !whole)) {
        bool file_ends =
            reading->end < check->header.snapshots_offset + Q2_MAX_SNAPSHOT_TABLE_BYTES;
        report_end(reading,
                   file_ends ? Q2_PROBLEM_SNAPSHOT_TABLE_PAST_END
                             : Q2_PROBLEM_SNAPSHOT_TABLE_TOO_BIG,
                   at + length);
        check->unlocated = true;
        return false;
    }
    /* An entry whose fixed part is there is of use without its name. */
    if (!whole && !reading->cut)
        report_end(reading, Q2_PROBLEM_SNAPSHOT_TABLE_PAST_END, at + length);
    reading->cut |= !whole;
    if (q2_file_read_padded(check->file, at, buffer, length, NULL) == 0)
        return true;
    report_unreadable(reading, at, length);
    return false;
}

/* Take an entry that has been read as a snapshot and a map. */
static int
add_snapshot(struct reading *reading, const struct q2_snapshot *snapshot, const uint8_t *text,
             struct q2_error *err)
{
    struct q2_check *check = reading->check;
    uint32_t index = (uint32_t)check->map_count;
    int rc = add_name(check, snapshot, text, err);
    if (rc == 0)
        rc = q2_mapset_intern(check->sets, &index, 1, &reading->maps, err);
    if (rc < 0)
        return rc;
    if (!reading->cut)
        check_text(snapshot, text, &reading->sink);
    bool usable =
        q2_snapshot_validate(&check->geometry, snapshot, check->options.now, &reading->sink);
    reading->maps = Q2_MAP_SET_NONE;
    return add_map(check,
                   &(struct q2_map){.l1_offset = snapshot->l1_table_offset,
                                    .l1_size = usable ? snapshot->l1_size : 0,
                                    .limit = limit_of(&check->geometry, snapshot->disk_size,
                                                      snapshot->vm_state_size),
                                    .entry_at = snapshot->at},
                   err);
}

static bool
is_zero(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bytes[i])
            return false;
    return true;
}

/* One entry. *ret_more says whether the next one can be found. */
static int
read_entry(struct reading *reading, bool *ret_more, struct q2_error *err)
{
    struct q2_check *check = reading->check;
    uint8_t fixed[Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH] = {0};
    struct q2_snapshot snapshot;
    *ret_more = false;
    if (!read_piece(reading, 0, Q2_SNAPSHOT_FIXED_LENGTH, fixed))
        return 0;
    if (is_zero(fixed, Q2_SNAPSHOT_FIXED_LENGTH)) {
        q2_violate_expected(&reading->sink, Q2_PROBLEM_SNAPSHOT_TABLE_SHORT, reading->at, 0,
                            check->header.nb_snapshots, check->snapshot_count, "nb_snapshots");
        return 0;
    }
    q2_snapshot_decode(&check->geometry, fixed, reading->at, &snapshot);
    uint64_t extra = q2_min(snapshot.extra_length, Q2_SNAPSHOT_EXTRA_LENGTH);
    if (!read_piece(reading, Q2_SNAPSHOT_FIXED_LENGTH, extra, fixed + Q2_SNAPSHOT_FIXED_LENGTH))
        return 0;
    q2_snapshot_decode(&check->geometry, fixed, reading->at, &snapshot);

    static uint8_t empty[1];
    uint64_t text_length = (uint64_t)snapshot.id_length + snapshot.name_length;
    uint8_t *text = text_length ? malloc(text_length) : empty;
    if (!text)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for snapshot names");
    int rc = 0;
    if (read_piece(reading, (uint64_t)Q2_SNAPSHOT_FIXED_LENGTH + snapshot.extra_length, text_length,
                   text)) {
        *ret_more = true;
        rc = add_snapshot(reading, &snapshot, text, err);
    }
    if (text != empty)
        free(text);
    reading->at += *ret_more ? q2_snapshot_length(fixed) : 0;
    return rc;
}

static int
read_table(struct q2_check *check, uint64_t *ret_end, struct q2_error *err)
{
    struct reading reading = {.check = check, .at = check->header.snapshots_offset};
    uint64_t start = reading.at;
    reading.sink = (struct q2_sink){.report = report, .data = &reading};
    reading.end = q2_min(check->geometry.file_clusters << check->geometry.cluster_bits,
                         start + Q2_MAX_SNAPSHOT_TABLE_BYTES);
    bool more = true;
    int rc = 0;
    for (uint32_t i = 0; i < check->header.nb_snapshots && more && rc == 0; i++)
        rc = read_entry(&reading, &more, err);
    *ret_end = reading.at;
    if (rc < 0 || reading.at == start)
        return rc;
    struct q2_owner owner = {.kind = Q2_OWNER_SNAPSHOT_TABLE};
    return q2_check_add_region(check, &owner, start, reading.at - start, err);
}

/* ---- snapshots that the header does not count ---- */

/* Evidence only: a table written where an older one was leaves the end of that behind it. The
 * references tell whether such a snapshot still owns anything. */
static void
look_for_more(struct q2_check *check, uint64_t at)
{
    uint8_t bytes[PROBE_BYTES];
    if (at == 0 || at >= check->geometry.file_size ||
        q2_file_read_padded(check->file, at, bytes, sizeof bytes, NULL) < 0 ||
        !q2_snapshot_plausible(&check->geometry, bytes, sizeof bytes, at))
        return;
    struct q2_snapshot snapshot;
    q2_snapshot_decode(&check->geometry, bytes, at, &snapshot);
    check->lost_at = at;
    check->lost_length = q2_snapshot_length(bytes);
    check->lost_l1 = snapshot.l1_table_offset;
}

/* ---- duplicates ---- */

struct named {
    const char *text;
    uint64_t index;
};

static int
compare_named(const void *left, const void *right)
{
    const struct named *a = left, *b = right;
    int order = strcmp(a->text, b->text);
    return order ? order : (a->index > b->index) - (a->index < b->index);
}

static void
report_duplicate(struct q2_check *check, bool ids, const struct named *first,
                 const struct named *second)
{
    struct q2_sink sink = q2_findings_sink(&check->findings);
    q2_violate_text(&sink,
                    ids ? Q2_PROBLEM_SNAPSHOT_ID_DUPLICATE : Q2_PROBLEM_SNAPSHOT_NAME_DUPLICATE,
                    check->maps[second->index + 1].entry_at, 0,
                    "\"%.60s\" is the %s of entries %llu and %llu", second->text,
                    ids ? "id" : "name", (unsigned long long)first->index,
                    (unsigned long long)second->index);
}

static int
find_duplicates(struct q2_check *check, bool ids, struct q2_error *err)
{
    void *memory;
    uint64_t count = check->snapshot_count;
    int rc = q2_budget_calloc(&check->budget, count, sizeof(struct named), "snapshot names",
                              &memory, err);
    if (rc < 0)
        return rc;
    struct named *named = memory;
    for (uint64_t i = 0; i < count; i++)
        named[i] = (struct named){.text = ids ? check->snapshots[i].id : check->snapshots[i].name,
                                  .index = i};
    qsort(named, count, sizeof *named, compare_named);

    for (uint64_t i = 1; i < count; i++)
        /* Two empty ids or names say nothing of each other. */
        if (named[i].text[0] && strcmp(named[i].text, named[i - 1].text) == 0)
            report_duplicate(check, ids, &named[i - 1], &named[i]);
    q2_budget_free(&check->budget, memory, count, sizeof(struct named));
    return 0;
}

int
q2_pass_snapshots(struct q2_check *check, struct q2_error *err)
{
    bool usable = check->usable & Q2_USABLE_SNAPSHOTS;
    uint64_t expected = usable ? check->header.nb_snapshots : 0;
    uint64_t end = check->header.snapshots_offset;
    void *maps;
    int rc = q2_budget_calloc(&check->budget, expected + 1, sizeof *check->maps,
                              "list of snapshots", &maps, err);
    if (rc < 0)
        return rc;
    check->maps = maps;
    check->map_capacity = expected + 1;
    rc = add_active(check, err);
    if (rc == 0 && expected)
        rc = read_table(check, &end, err);
    if (rc == 0 && usable)
        look_for_more(check, end);
    if (rc == 0 && check->snapshot_count > 1)
        rc = find_duplicates(check, true, err);
    if (rc == 0 && check->snapshot_count > 1)
        rc = find_duplicates(check, false, err);
    return rc;
}
