# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Who runs when: `harnesses` for `duration` seconds each, with `jobs` processes.

# Harnesses take turns, so that a campaign that is stopped early has been everywhere. A turn is not so
# short that reading the corpus counts.
turn=600

# Lines `HARNESS INDEX SECONDS`, in the order of their start.
schedule()
{
    local count=${#harnesses[@]} turns round slot
    turns=$(((duration + turn - 1) / turn))
    for ((round = 0; round < turns; round++)); do
        local begin=$((duration * round / turns)) end=$((duration * (round + 1) / turns))
        # With more processes than harnesses, some harnesses have one more than others, in turn.
        for ((slot = 0; slot < (jobs > count ? jobs : count); slot++)); do
            echo "${harnesses[(slot + (slot >= count ? round : 0)) % count]} $((slot / count))" \
                $((end - begin))
        done
    done
}
