/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What hides a backing file where the image's own data is gone: an empty L2 entry would show what
 * the backing file has there, which is older than what is lost. */

#ifndef Q2_REPAIR_ZERO_ENTRIES_H
#define Q2_REPAIR_ZERO_ENTRIES_H

#include "checker/scan.h"
#include "core/format/entry.h"

/* Whether empty entries show something, and whether entries can say zeros instead. */
static inline bool
q2_empty_entries_show(const struct q2_check *check)
{
    return check->header.backing_file_offset != 0;
}

static inline bool
q2_zero_entries_exist(const struct q2_check *check)
{
    return check->geometry.version >= 3;
}

/* Make `count` entries, in file byte order, read as zeros: empty ones where that is enough. */
static inline void
q2_zero_entries(const struct q2_check *check, uint8_t *entries, uint64_t count)
{
    const struct q2_geometry *geometry = &check->geometry;
    bool hide = q2_empty_entries_show(check) && q2_zero_entries_exist(check);
    for (uint64_t i = 0; i < count; i++, entries += geometry->l2_entry_size) {
        q2_store_be64(entries, hide && !geometry->extended_l2 ? Q2_ENTRY_ZERO : 0);
        if (geometry->extended_l2)
            q2_store_be64(entries + 8, hide ? UINT64_C(0xffffffff) << Q2_SUBCLUSTERS : 0);
    }
}

#endif
