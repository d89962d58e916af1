/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Single fields of snapshot table entries: what is wrong by a bit, or is written elsewhere too. */

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "repair/l1_find.h"
#include "repair/snapshot_rebuild.h"

enum {
    AT_L1_OFFSET = 0, /* of fields in an entry, bytes */
    AT_L1_SIZE = 8,
    AT_VM_STATE_32 = 32,
    AT_VM_STATE_64 = 40,
    AT_DISK_SIZE = 48,
};

/* Answer the findings of a problem within `length` bytes at `at`. */
static void
answer(struct q2_scene *scene, enum q2_problem problem, uint64_t at, uint64_t length)
{
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (finding->problem == problem && finding->host_offset - at < length)
            q2_plan_answer(&scene->plan, problem, finding->host_offset, finding->count);
    }
}

static int
mend_entry(struct q2_tables *tables, uint32_t map, uint64_t at, const void *bytes, size_t length,
           enum q2_confidence confidence, const char *why, struct q2_error *err)
{
    static const enum q2_problem problems[] = {Q2_PROBLEM_SNAPSHOT_L1_UNALIGNED,
                                               Q2_PROBLEM_SNAPSHOT_L1_TOO_BIG,
                                               Q2_PROBLEM_SNAPSHOT_L1_TOO_SMALL,
                                               Q2_PROBLEM_SNAPSHOT_L1_PAST_END,
                                               Q2_PROBLEM_SNAPSHOT_VM_STATE};
    struct q2_scene *scene = tables->scene;
    const struct q2_map *entry = &scene->check->maps[map];
    int rc = 0;
    bool doing = q2_plan_begin(&scene->plan, Q2_ACTION_MEND_SNAPSHOT, confidence, at, "%s", why);
    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++)
        answer(scene, problems[i], entry->entry_at, Q2_SNAPSHOT_FIXED_LENGTH + 16);
    q2_plan_change(&scene->plan, Q2_CHANGE_RECOVERED, map, 0,
                   q2_max(entry->limit, scene->check->header.size));
    /* What is read behind the end of the VM state is no part of it. */
    bool vm_state =
        at - entry->entry_at == AT_VM_STATE_32 || at - entry->entry_at == AT_VM_STATE_64;
    if (vm_state && entry->limit > scene->check->header.size)
        q2_plan_change(&scene->plan, Q2_CHANGE_REPLACED, map, scene->check->header.size,
                       entry->limit - scene->check->header.size);
    if (doing)
        rc = q2_scene_write(scene, Q2_OWNER_SNAPSHOT_TABLE, at, bytes, length, err);
    else
        scene->keep_all = true;
    q2_plan_end(&scene->plan);
    return rc;
}

static bool
differs_by_a_bit(uint64_t a, uint64_t b)
{
    return __builtin_popcountll(a ^ b) == 1;
}

/* The L1 entries that the disk and the VM state of a snapshot need. */
static uint64_t
entries_needed(const struct q2_geometry *geometry, const struct q2_snapshot *snapshot)
{
    uint64_t reach = q2_l2_reach(geometry), size = snapshot->vm_state_size;
    return q2_l1_entries_for(geometry, snapshot->disk_size) + size / reach + (size % reach != 0);
}

/* Whether an L1 table is longer than its disk and VM state need, and reaches into what is something
 * else's. */
static bool
reaches_too_far(const struct q2_tables *tables, const struct q2_snapshot *snapshot)
{
    const struct q2_geometry *geometry = &tables->scene->check->geometry;
    uint64_t needed = entries_needed(geometry, snapshot);
    uint64_t first = snapshot->l1_table_offset >> geometry->cluster_bits;
    uint64_t end = first + q2_units((uint64_t)snapshot->l1_size * 8, geometry->cluster_bits);
    if (snapshot->l1_size <= needed || (uint64_t)snapshot->l1_size * 8 > Q2_MAX_L1_BYTES)
        return false;
    for (uint64_t cluster = first + q2_units(needed * 8, geometry->cluster_bits);
         cluster < q2_min(end, geometry->file_clusters); cluster++)
        if (q2_scene_references(tables->scene, cluster) > 1)
            return true;
    return false;
}

/* Whether a snapshot's L1 table goes on behind its end: what is there leads to tables, if anywhere.
 */
static bool
goes_on(struct q2_tables *tables, const struct q2_snapshot *snapshot, uint64_t needed)
{
    struct q2_l1_look now, longer;
    if (snapshot->l1_size >= needed || needed > Q2_MAX_L1_BYTES / 8)
        return false;
    q2_l1_look(tables->carving, snapshot->l1_table_offset, snapshot->l1_size, &now);
    q2_l1_look(tables->carving, snapshot->l1_table_offset, needed, &longer);
    return longer.astray == 0 && longer.leads > now.leads;
}

/* The size of an L1 table, or of the disk, is wrong by more than that, and what is in place
 * decides: the table goes on, or the disk is the one that it maps. */
static int
mend_mismatch(struct q2_tables *tables, uint32_t map, const struct q2_snapshot *snapshot,
              struct q2_error *err)
{
    const struct q2_check *check = tables->scene->check;
    uint64_t needed = q2_l1_entries_for(&check->geometry, snapshot->disk_size);
    uint64_t disk = check->header.size, usual = q2_l1_entries_for(&check->geometry, disk);
    uint8_t bytes[8];
    if (goes_on(tables, snapshot, needed)) {
        q2_store_be32(bytes, (uint32_t)needed);
        return mend_entry(tables, map, snapshot->at + AT_L1_SIZE, bytes, 4,
                          snapshot->disk_size == disk ? Q2_CERTAIN : Q2_LIKELY,
                          "the entries that the disk of the snapshot needs are there, behind the "
                          "end of its L1 table",
                          err);
    }
    if (reaches_too_far(tables, snapshot)) {
        q2_store_be32(bytes, (uint32_t)entries_needed(&check->geometry, snapshot));
        return mend_entry(tables, map, snapshot->at + AT_L1_SIZE, bytes, 4,
                          snapshot->disk_size == disk ? Q2_CERTAIN : Q2_LIKELY,
                          "the L1 table of the snapshot reaches over something else, and is longer "
                          "than its disk and VM state need",
                          err);
    }
    if (!snapshot->has_disk_size || snapshot->l1_size < usual || snapshot->l1_size >= needed)
        return 0;
    q2_store_be64(bytes, disk);
    return mend_entry(tables, map, snapshot->at + AT_DISK_SIZE, bytes, 8, Q2_LIKELY,
                      "the L1 table of the snapshot is too small for such a disk, and large enough "
                      "for that of the image",
                      err);
}

/* The size of an L1 table, or of the disk, is wrong by a bit. */
static int
mend_sizes(struct q2_tables *tables, uint32_t map, const struct q2_snapshot *snapshot,
           struct q2_error *err)
{
    const struct q2_check *check = tables->scene->check;
    uint64_t needed = q2_l1_entries_for(&check->geometry, snapshot->disk_size);
    uint64_t disk = check->header.size, usual = q2_l1_entries_for(&check->geometry, disk);
    bool size = needed <= Q2_MAX_L1_BYTES / 8 && differs_by_a_bit(snapshot->l1_size, needed);
    bool other_disk = snapshot->has_disk_size && differs_by_a_bit(snapshot->disk_size, disk) &&
                      usual <= snapshot->l1_size;
    uint8_t bytes[8];
    if (size && !other_disk && (snapshot->disk_size == disk || needed == usual)) {
        q2_store_be32(bytes, (uint32_t)needed);
        return mend_entry(tables, map, snapshot->at + AT_L1_SIZE, bytes, 4, Q2_CERTAIN,
                          "one bit of l1_size differs from what the disk of the snapshot needs",
                          err);
    }
    if (!other_disk)
        return mend_mismatch(tables, map, snapshot, err);
    q2_store_be64(bytes, disk);
    return mend_entry(tables, map, snapshot->at + AT_DISK_SIZE, bytes, 8,
                      size ? Q2_LIKELY : Q2_CERTAIN,
                      "one bit of the snapshot's disk size differs from that of the disk", err);
}

/* Nothing says how large the VM state is: it ends where what is mapped behind the disk does, but
 * for a part of a cluster. Those who read it know its end by what is in it. */
static int
mend_vm_end(struct q2_tables *tables, uint32_t map, const struct q2_snapshot *snapshot,
            uint64_t needed, struct q2_error *err)
{
    const struct q2_geometry *geometry = &tables->scene->check->geometry;
    const struct q2_slot_map *slots = &tables->slots->maps[map];
    bool wide = snapshot->extra_length >= 8;
    uint64_t last = slots->size - 1;
    struct q2_table_look look;
    uint8_t bytes[8];
    while (last > needed && !slots->raw[last])
        last--;
    if (q2_survey_look(tables->survey, q2_entry_offset(slots->raw[last]), &look, NULL) < 0 ||
        !look.mapped)
        return 0;
    uint64_t size =
        (last - needed) * q2_l2_reach(geometry) + ((look.last + 1) << geometry->cluster_bits);
    if (!wide && size > UINT32_MAX)
        return 0;
    if (wide)
        q2_store_be64(bytes, size);
    else
        q2_store_be32(bytes, (uint32_t)size);
    return mend_entry(tables, map, snapshot->at + (wide ? AT_VM_STATE_64 : AT_VM_STATE_32), bytes,
                      wide ? 8 : 4, Q2_LIKELY,
                      "the VM state cannot be larger than what is mapped behind the disk", err);
}

/* The size of the VM state is written twice; in the end there must be room for it. */
static int
mend_vm_state(struct q2_tables *tables, uint32_t map, const struct q2_snapshot *snapshot,
              const uint8_t *entry, struct q2_error *err)
{
    const struct q2_geometry *geometry = &tables->scene->check->geometry;
    const struct q2_slot_map *slots = &tables->slots->maps[map];
    uint64_t needed = q2_l1_entries_for(geometry, snapshot->disk_size), behind = 0;
    bool wide = snapshot->extra_length >= 8;
    uint64_t size = wide ? q2_load_be32(entry + AT_VM_STATE_32) : 0;
    uint8_t bytes[8];
    if (!slots->raw || snapshot->l1_size < needed)
        return 0;
    for (uint64_t i = needed; i < slots->size; i++)
        behind += slots->raw[i] != 0;
    if (behind && (!wide || size > (snapshot->l1_size - needed) * q2_l2_reach(geometry)))
        return mend_vm_end(tables, map, snapshot, needed, err);
    if (size > (snapshot->l1_size - needed) * q2_l2_reach(geometry) || (size == 0 && behind))
        return 0;
    if (wide)
        q2_store_be64(bytes, size);
    else
        q2_store_be32(bytes, (uint32_t)size);
    return mend_entry(tables, map, snapshot->at + (wide ? AT_VM_STATE_64 : AT_VM_STATE_32), bytes,
                      wide ? 8 : 4,
                      behind == 0 || differs_by_a_bit(size, snapshot->vm_state_size) ? Q2_CERTAIN
                                                                                     : Q2_LIKELY,
                      behind ? "the other field for the size of the VM state says so"
                             : "nothing is mapped behind the disk, so there is no VM state",
                      err);
}

static bool
has_finding(const struct q2_scene *scene, enum q2_problem problem, uint64_t at)
{
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (finding->problem == problem &&
            finding->host_offset - at < Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH)
            return true;
    }
    return false;
}

/* Whether what an entry leads to is no L1 table. */
static bool
leads_astray(const struct q2_tables *tables, uint32_t map)
{
    const struct q2_slot_map *slots = &tables->slots->maps[map];
    return slots->raw == NULL || slots->sound == 0;
}

int
q2_snapshot_mend(struct q2_tables *tables, uint32_t map, struct q2_error *err)
{
    struct q2_check *check = tables->scene->check;
    uint64_t at = check->maps[map].entry_at, near;
    uint8_t bytes[Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH];
    struct q2_snapshot snapshot;
    if (q2_file_read_padded(check->file, at, bytes, sizeof bytes, NULL) < 0)
        return 0;
    q2_snapshot_decode(&check->geometry, bytes, at, &snapshot);
    if (has_finding(tables->scene, Q2_PROBLEM_SNAPSHOT_L1_TOO_SMALL, at) ||
        has_finding(tables->scene, Q2_PROBLEM_SNAPSHOT_L1_TOO_BIG, at) ||
        has_finding(tables->scene, Q2_PROBLEM_SNAPSHOT_L1_PAST_END, at) ||
        reaches_too_far(tables, &snapshot)) {
        uint64_t edits = tables->scene->plan.count;
        int rc = mend_sizes(tables, map, &snapshot, err);
        if (rc < 0 || tables->scene->plan.count != edits)
            return rc;
    }
    if (has_finding(tables->scene, Q2_PROBLEM_SNAPSHOT_VM_STATE, at))
        return mend_vm_state(tables, map, &snapshot, bytes, err);
    if (!leads_astray(tables, map) || snapshot.l1_size == 0 ||
        (uint64_t)snapshot.l1_size * 8 > Q2_MAX_L1_BYTES)
        return 0;
    q2_l1_near(tables->carving, snapshot.l1_table_offset, snapshot.l1_size, &near);
    if (!near)
        return 0;
    q2_store_be64(bytes, near);
    return mend_entry(tables, map, at + AT_L1_OFFSET, bytes, 8, Q2_CERTAIN,
                      "a lost L1 table is one flipped bit away from what the entry leads to", err);
}
