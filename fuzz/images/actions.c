/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Which actions of a repair the seeds lead to. */

#include "fuzz/fuzz.h"
#include "fuzz/images/seeds.h"
#include "fuzz/support/image.h"

#include <stdio.h>

static bool seen[Q2_ACTION_COUNT];

bool
seed_actions_note(struct q2_file *file, const struct q2_fuzz_options *options)
{
    const struct q2_repair_options how = q2_fuzz_repair_options(options);
    struct q2_repair *repair = NULL;
    bool all = true, more = false;
    for (size_t i = 0; i < Q2_ACTION_COUNT; i++)
        all &= seen[i];
    if (all || q2_repair_plan(file, &how, &repair, NULL) < 0)
        return false;
    const struct q2_plan *plan = q2_repair_actions(repair);
    for (uint64_t i = 0; i < plan->count; i++) {
        bool *known = &seen[plan->actions[i].kind];
        more |= plan->actions[i].applied && !*known;
        *known |= plan->actions[i].applied;
    }
    q2_repair_free(repair);
    return more;
}

unsigned
seed_actions_missing(void)
{
    unsigned missing = 0;
    for (size_t i = 0; i < Q2_ACTION_COUNT; i++) {
        if (seen[i])
            continue;
        printf("no seed leads to %s\n", q2_action_id((enum q2_action_kind)i));
        missing++;
    }
    return missing;
}
