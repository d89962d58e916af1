/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Several things wrong at once: what tells of one damage may itself be damaged by another. */

#include "tests/bench/recovery/damage.h"

static bool
is_single(const struct damage *damage)
{
    return damage->hit != undamaged && damage->hit != two_damages && damage->hit != three_damages;
}

static bool
several(struct hit *hit, unsigned count)
{
    for (unsigned tries = 0; count && tries < 100; tries++) {
        const struct damage *damage = &damages[random_below(&hit->random, damage_count)];
        if (is_single(damage) && damage->hit(hit))
            count--;
    }
    return count == 0;
}

bool
two_damages(struct hit *hit)
{
    return several(hit, 2);
}

bool
three_damages(struct hit *hit)
{
    return several(hit, 3);
}
