/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Descriptors of compressed clusters that lead to nothing that decodes. */

#include "repair/fix.h"
#include "tests/unit/repair_disks.h"

#define PACKED                                                  \
    "cluster-size 4K\nsize 1M\nwrite-compressed 0 64K text 3\n" \
    "write 512K 8K random\n"
#define ONE "cluster-size 4K\nsize 1M\nwrite-compressed 0 4K text 3\n"

struct descriptor {
    const char *name, *image, *damage;
    uint64_t mended; /* actions that are certain and applied */
};

static const struct descriptor descriptors[] = {
    {"an offset past the end", PACKED, "l2[5].offset = 1G\n", 1},
    {"an offset inside a stream", PACKED, "l2[5].offset += 7\n", 1},
    {"an offset one bit away", PACKED, "l2[5].offset ^= 1 << 13\n", 1},
    {"a length past the end of the last cluster", ONE, "l2[0].sectors = 15\n", 0},
    {"too short a length", PACKED, "l2[5].sectors = 0\nl2[5].offset += 1\n", 1},
    {"a run of garbage", PACKED, "fill offset(l2[4]) 24 0xff\n", 3},
    {"a stream that is damaged itself", PACKED, "fill l2[5].offset + 2 16 0xff\n", 0},
    {"a stream that another has", PACKED, "l2[5] = l2[9]\n", 0},
    {"a run whose streams another has", PACKED, "l2[40] = l2[5]\nfill offset(l2[4]) 24 0xff\n", 0},
    {"no damage", PACKED, "", 0},
};

Test(repair_compressed, descriptors)
{
    for (size_t i = 0; i < sizeof descriptors / sizeof descriptors[0]; i++) {
        const struct descriptor *wanted = &descriptors[i];
        struct mending mending =
            mend_with(q2_fix_compressed, Q2_LEVEL_CERTAIN, wanted->image, wanted->damage);
        const struct q2_plan *plan = &mending.scene->plan;
        uint64_t count = 0;
        for (uint64_t k = 0; k < plan->count; k++)
            count += plan->actions[k].applied;
        cr_expect_eq(count, wanted->mended, "%s: %d", wanted->name, (int)count);
        if (wanted->mended)
            cr_expect(same_content(mending.scene->file, mending.healthy), "%s", wanted->name);
        else
            cr_expect(same_content(mending.scene->file, mending.damaged), "%s", wanted->name);
        mending_free(&mending);
    }
}
