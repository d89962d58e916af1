/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/tool/load.h"

#include "core/image/snapshots.h"

#include <string.h>

static bool
keys_are_known(const struct tool_pairs *pairs, const char *text)
{
    for (size_t i = 0; i < pairs->count; i++) {
        const char *key = pairs->pairs[i].key;
        if (strcmp(key, "snapshot.id") == 0 || strcmp(key, "snapshot.name") == 0)
            continue;
        tool_say("Invalid parameter '%s'", key);
        tool_say("Failed in parsing snapshot param '%s'", text);
        return false;
    }
    return true;
}

/* The first snapshot that has both, where both are given. */
static bool
find_listed(const struct q2_image *image, const struct tool_pairs *pairs, unsigned *ret_index)
{
    const char *id = tool_pairs_get(pairs, "snapshot.id");
    const char *name = tool_pairs_get(pairs, "snapshot.name");
    for (unsigned i = 0; i < q2_snapshot_count(image); i++) {
        struct q2_snapshot_info info;
        q2_snapshot_info(image, i, &info);
        if ((id && strcmp(info.id, id) != 0) || (name && strcmp(info.name, name) != 0))
            continue;
        *ret_index = i;
        return true;
    }
    return false;
}

static bool
find(const struct q2_image *image, const char *text, unsigned *ret_index)
{
    struct tool_pairs pairs = {0};
    bool found, readable = true;
    if (strncmp(text, "snapshot.", strlen("snapshot.")) != 0) {
        found = q2_snapshot_find(image, text, ret_index, NULL) == 0;
    } else {
        readable = tool_pairs_add(&pairs, text, NULL) && keys_are_known(&pairs, text);
        found = readable && find_listed(image, &pairs, ret_index);
        tool_pairs_destroy(&pairs);
    }
    if (readable && !found)
        tool_say("Failed to load snapshot: Can't find snapshot '%s'", text);
    return found;
}

bool
load_snapshot(struct q2_disk *disk, const char *text)
{
    struct q2_image *image = q2_disk_image(disk);
    struct q2_error err = {0};
    unsigned index;
    if (!image) {
        tool_say("Failed to load snapshot: '%s' is a raw image, which has none",
                 q2_disk_name(disk));
        return false;
    }
    if (!find(image, text, &index))
        return false;
    if (q2_snapshot_load(image, index, &err) == 0)
        return true;
    tool_fail("Failed to load snapshot", &err);
    return false;
}
