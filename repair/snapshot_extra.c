/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Extra data of snapshot table entries that has the wrong length. Version 3 wants the size of the
 * disk there; without it, that of the image counts, and so writing that down changes nothing. More
 * than software reads means nothing to it. Either way the table has to be laid out anew. */

#include "repair/snapshot_rebuild.h"

#include "core/base/checked.h"
#include "core/base/endian.h"

#include <inttypes.h>
#include <string.h>

enum {
    AT_VM_STATE_32 = 32, /* of fields in an entry, bytes */
    AT_EXTRA_LENGTH = 36,
    AT_VM_STATE_64 = 40,
    AT_DISK_SIZE = 48,
    MAX_TABLE = 16 << 20, /* bytes; tables hardly ever have a hundredth of that */
};

struct layout {
    struct q2_scene *scene;
    uint64_t start, length; /* of the table as it is, bytes */
    uint8_t *old, *new;
    uint64_t room;   /* of the new one, bytes */
    uint64_t used;   /* bytes */
    uint64_t longer; /* entries that get what they lack */
    uint64_t cut;    /* entries that lose what nothing reads */
};

/* Whether all entries that the header counts are where they seem to be. */
static bool
is_whole(const struct q2_scene *scene)
{
    const struct q2_check *check = scene->check;
    if (check->map_count == 0 || check->map_count - 1 != check->header.nb_snapshots)
        return false;
    for (uint32_t m = 1; m < check->map_count; m++)
        if (!q2_snapshot_in_step(scene, m))
            return false;
    return check->map_count > 1;
}

static int
add_entry(struct layout *layout, const uint8_t *entry)
{
    const struct q2_check *check = layout->scene->check;
    uint64_t extra = q2_load_be32(entry + AT_EXTRA_LENGTH), wanted = extra;
    uint64_t texts = (uint64_t)q2_load_be16(entry + 12) + q2_load_be16(entry + 14);
    if (check->geometry.version >= 3)
        wanted = q2_max(wanted, Q2_SNAPSHOT_EXTRA_LENGTH);
    wanted = q2_min(wanted, Q2_SNAPSHOT_MAX_EXTRA);
    uint64_t length = (Q2_SNAPSHOT_FIXED_LENGTH + wanted + texts + 7) & ~UINT64_C(7);
    uint8_t *to = layout->new + layout->used;
    if (length > layout->room - layout->used)
        return -1;
    memcpy(to, entry, (size_t)(Q2_SNAPSHOT_FIXED_LENGTH + q2_min(extra, wanted)));
    q2_store_be32(to + AT_EXTRA_LENGTH, (uint32_t)wanted);
    if (extra < 8 && wanted >= 8)
        q2_store_be64(to + AT_VM_STATE_64, q2_load_be32(entry + AT_VM_STATE_32));
    if (extra < 16 && wanted >= 16)
        q2_store_be64(to + AT_DISK_SIZE, check->header.size);
    memcpy(to + Q2_SNAPSHOT_FIXED_LENGTH + wanted, entry + Q2_SNAPSHOT_FIXED_LENGTH + extra,
           (size_t)texts);
    layout->used += length;
    layout->longer += wanted > extra;
    layout->cut += wanted < extra;
    return 0;
}

/* Lay the entries out anew. False where they do not follow one another in the table. */
static bool
lay_out(struct layout *layout)
{
    const struct q2_check *check = layout->scene->check;
    uint64_t at = 0;
    for (uint32_t m = 1; m < check->map_count; m++) {
        if (check->maps[m].entry_at != layout->start + at ||
            layout->length - at < Q2_SNAPSHOT_FIXED_LENGTH)
            return false;
        uint64_t length = q2_snapshot_length(layout->old + at);
        if (length > layout->length - at || add_entry(layout, layout->old + at) < 0)
            return false;
        at += length;
    }
    return true;
}

static int
write_table(struct q2_tables *tables, struct layout *layout, struct q2_error *err)
{
    struct q2_scene *scene = layout->scene;
    uint64_t offset = layout->start;
    struct q2_header_field field;
    int rc = 0;
    if (!q2_header_field("snapshots_offset", &field))
        return 0;
    if (layout->used > q2_max(layout->length, q2_snapshot_table_room(tables)))
        rc = q2_scene_allocate(scene, q2_units(layout->used, scene->check->geometry.cluster_bits),
                               &offset, err);
    if (rc == 0)
        rc = q2_scene_write(scene, Q2_OWNER_SNAPSHOT_TABLE, offset, layout->new, layout->used, err);
    if (rc == 0 && offset != layout->start)
        rc = q2_scene_write64(scene, Q2_OWNER_HEADER, field.offset, offset, err);
    return rc == Q2_ERR_NOSPACE ? 0 : rc;
}

static int
carry_out(struct q2_tables *tables, struct layout *layout, struct q2_error *err)
{
    struct q2_scene *scene = layout->scene;
    int rc = 0;
    if (q2_plan_begin(&scene->plan, Q2_ACTION_MEND_SNAPSHOT, layout->cut ? Q2_LIKELY : Q2_CERTAIN,
                      layout->start,
                      "%" PRIu64
                      " entries lack extra data, and get what its absence means; %" PRIu64
                      " have more of it than any software reads, and keep the first %d bytes",
                      layout->longer, layout->cut, Q2_SNAPSHOT_MAX_EXTRA))
        rc = write_table(tables, layout, err);
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (finding->problem == Q2_PROBLEM_SNAPSHOT_EXTRA_SHORT ||
            finding->problem == Q2_PROBLEM_SNAPSHOT_EXTRA_BIG)
            q2_plan_answer(&scene->plan, finding->problem, finding->host_offset, finding->count);
    }
    q2_plan_end(&scene->plan);
    return rc;
}

int
q2_snapshot_fix_extra(struct q2_tables *tables, struct q2_error *err)
{
    struct q2_scene *scene = tables->scene;
    const struct q2_check *check = scene->check;
    struct layout layout = {.scene = scene, .start = check->header.snapshots_offset};
    uint8_t last[Q2_SNAPSHOT_FIXED_LENGTH];
    void *memory;
    if (!(q2_scene_count(scene, Q2_PROBLEM_SNAPSHOT_EXTRA_SHORT) ||
          q2_scene_count(scene, Q2_PROBLEM_SNAPSHOT_EXTRA_BIG)) ||
        !is_whole(scene))
        return 0;
    uint64_t at = check->maps[check->map_count - 1].entry_at;
    if (at < layout.start || q2_file_read_padded(scene->file, at, last, sizeof last, NULL) < 0)
        return 0;
    layout.length = at - layout.start + q2_snapshot_length(last);
    layout.room = layout.length + check->map_count * Q2_SNAPSHOT_EXTRA_LENGTH;
    if (layout.length > MAX_TABLE)
        return 0;
    int rc = q2_budget_calloc(&scene->budget, layout.length + layout.room, 1, "a snapshot table",
                              &memory, err);
    if (rc < 0)
        return rc;
    layout.old = memory;
    layout.new = layout.old + layout.length;
    if (q2_file_read_padded(scene->file, layout.start, layout.old, layout.length, NULL) == 0 &&
        lay_out(&layout) && layout.longer + layout.cut)
        rc = carry_out(tables, &layout, err);
    q2_budget_free(&scene->budget, memory, layout.length + layout.room, 1);
    return rc;
}
