/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* convert --bitmaps: the persistent bitmaps of the source, as they are. They are made once the data
 * has been written, which must not set bits in them. */

#include "core/image/bitmaps.h"
#include "core/tool/convert.h"

/* Inconsistent ones cannot be copied: nobody knows what they should say. */
static bool
none_is_broken(struct convert *convert, struct q2_image *source)
{
    for (unsigned i = 0; i < q2_bitmap_count(source); i++) {
        struct q2_error err = {0};
        struct q2_bitmap_info info;
        if (q2_bitmap_info(source, i, &info, &err) < 0) {
            tool_fail(NULL, &err);
            return false;
        }
        if (!info.in_use || convert->skip_broken_bitmaps)
            continue;
        tool_say("Cannot copy inconsistent bitmap '%s'", info.name);
        tool_say("Try --skip-broken-bitmaps, or delete it: qcow2-img bitmap --remove");
        return false;
    }
    return true;
}

bool
convert_bitmaps_allowed(struct convert *convert)
{
    if (!convert->bitmaps)
        return true;
    if (convert->source_count > 1) {
        tool_say("Copying bitmaps only possible with single source");
        return false;
    }
    struct q2_image *source = q2_disk_image(convert->sources[0]);
    if (!source || q2_image_header(source)->version < 3) {
        tool_say("Source lacks bitmap support");
        return false;
    }
    return none_is_broken(convert, source);
}

static int
copy_bitmap(struct q2_image *target, struct q2_image *source, unsigned index,
            const struct q2_bitmap_info *info, struct q2_error *err)
{
    unsigned made;
    int rc = q2_bitmap_add(target, info->name, info->granularity, info->enabled, err);
    if (rc == 0)
        rc = q2_bitmap_find(target, info->name, &made, err);
    if (rc == 0)
        rc = q2_bitmap_merge(target, made, source, index, err);
    return rc;
}

bool
convert_copy_bitmaps(struct convert *convert)
{
    struct q2_image *target = q2_disk_image(convert->disk);
    struct q2_image *source = q2_disk_image(convert->sources[0]);
    for (unsigned i = 0; i < q2_bitmap_count(source); i++) {
        struct q2_error err = {0};
        struct q2_bitmap_info info;
        int rc = q2_bitmap_info(source, i, &info, &err);
        if (rc == 0 && info.in_use) {
            tool_say("warning: Skipping inconsistent bitmap '%s'", info.name);
            continue;
        }
        if (rc == 0)
            rc = copy_bitmap(target, source, i, &info, &err);
        if (rc < 0) {
            tool_fail("Failed to copy bitmaps", &err);
            return false;
        }
    }
    return true;
}
