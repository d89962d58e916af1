/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Owners and maps in words and as JSON. */

#include "checker/format.h"
#include "checker/report_parts.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>

enum { MAPS_NAMED = 4, NAME_COLUMNS = 40 };

static const struct {
    const char *id;
    const char *text;
} kinds[Q2_OWNER_COUNT] = {
    [Q2_OWNER_NONE] = {"none", "nothing"},
    [Q2_OWNER_HEADER] = {"header", "image header"},
    [Q2_OWNER_L1_TABLE] = {"l1-table", "L1 table"},
    [Q2_OWNER_L2_TABLE] = {"l2-table", "L2 table"},
    [Q2_OWNER_DATA] = {"data", "guest data"},
    [Q2_OWNER_COMPRESSED] = {"compressed-data", "compressed guest data"},
    [Q2_OWNER_REFCOUNT_TABLE] = {"refcount-table", "refcount table"},
    [Q2_OWNER_REFCOUNT_BLOCK] = {"refcount-block", "refcount block"},
    [Q2_OWNER_SNAPSHOT_TABLE] = {"snapshot-table", "snapshot table"},
    [Q2_OWNER_BITMAP_DIRECTORY] = {"bitmap-directory", "bitmap directory"},
    [Q2_OWNER_BITMAP_TABLE] = {"bitmap-table", "table of bitmap"},
    [Q2_OWNER_BITMAP_DATA] = {"bitmap-data", "data of bitmap"},
    [Q2_OWNER_LUKS_HEADER] = {"luks-header", "LUKS header"},
};

const char *
q2_owner_kind_id(enum q2_owner_kind kind)
{
    return kinds[kind].id;
}

/* The first columns of a name; cut between characters. */
static int
name_bytes(const char *name)
{
    size_t columns = 0;
    int bytes = 0;
    for (; name[bytes]; bytes++) {
        columns += ((unsigned char)name[bytes] & 0xc0) != 0x80;
        if (columns > NAME_COLUMNS)
            break;
    }
    return bytes;
}

static void
append_map(const struct q2_check *check, uint32_t member, char *buffer, size_t size, size_t *used)
{
    const struct q2_snapshot_name *snapshot = member ? q2_check_snapshot(check, member - 1) : NULL;
    if (member == 0) {
        q2_format_append(buffer, size, used, "active");
    } else if (!snapshot) {
        q2_format_append(buffer, size, used, "snapshot #%" PRIu32, member);
    } else {
        const char *name = *snapshot->name ? snapshot->name : snapshot->id;
        int bytes = name_bytes(name);
        q2_format_append(buffer, size, used, "snapshot '%.*s%s'", bytes, name,
                         name[bytes] ? "..." : "");
    }
}

const char *
q2_report_maps(const struct q2_check *check, q2_map_set maps, char *buffer, size_t size)
{
    const uint32_t *members = NULL;
    size_t count = maps == Q2_MAP_SET_NONE ? 0 : q2_check_maps(check, maps, &members);
    size_t snapshots = q2_check_snapshot_count(check), used = 0;
    buffer[0] = '\0';

    /* Naming twenty snapshots says less than that it is all of them. */
    if (count > MAPS_NAMED && count - (members[0] == 0) == snapshots) {
        q2_format_append(buffer, size, &used, "%sall %zu snapshots",
                         members[0] == 0 ? "active and " : "", snapshots);
        return buffer;
    }
    for (size_t i = 0; i < count && i < MAPS_NAMED; i++) {
        q2_format_append(buffer, size, &used, "%s", i ? ", " : "");
        append_map(check, members[i], buffer, size, &used);
    }
    if (count > MAPS_NAMED)
        q2_format_append(buffer, size, &used, " and %zu more", count - MAPS_NAMED);
    return buffer;
}

static void
append_guest(const struct q2_check *check, const struct q2_owner *owner, char *buffer, size_t size,
             size_t *used)
{
    struct q2_geometry geometry;
    if (owner->guest_length == 0 || !q2_check_geometry(check, &geometry))
        return;
    bool state = owner->guest >= geometry.disk_size;
    q2_format_append(buffer, size, used, "%s %s",
                     state                              ? " in VM state, at guest"
                     : owner->kind == Q2_OWNER_L2_TABLE ? " for guest"
                                                        : ", guest",
                     q2_format_range(owner->guest, owner->guest_length).text);
}

const char *
q2_report_owner(const struct q2_check *check, const struct q2_owner *owner, char *buffer,
                size_t size)
{
    size_t used = 0;
    q2_format_append(buffer, size, &used, "%s", kinds[owner->kind].text);
    switch (owner->kind) {
    case Q2_OWNER_REFCOUNT_BLOCK:
        q2_format_append(buffer, size, &used, " %" PRIu64, owner->index);
        break;
    case Q2_OWNER_BITMAP_TABLE:
    case Q2_OWNER_BITMAP_DATA:
        q2_format_append(buffer, size, &used, " #%" PRIu64, owner->index + 1);
        break;
    default:
        append_guest(check, owner, buffer, size, &used);
    }
    char maps[256];
    if (*q2_report_maps(check, owner->maps, maps, sizeof maps))
        q2_format_append(buffer, size, &used, " (%s)", maps);
    return buffer;
}
