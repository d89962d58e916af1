# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Sums up what `llvm-cov report` says of files, room by room, next to the bars: how much of the lines
# of a room the corpora have to reach.

BEGIN {
    count = split("core/base core/io core/format core/codec core/image checker repair", rooms, " ")
    bar["core/format"] = bar["core/codec"] = bar["checker"] = 95
    bar["core/image"] = bar["repair"] = 90
}

function room_of(path,    parts) {
    split(path, parts, "/")
    return parts[1] == "core" ? parts[1] "/" parts[2] : parts[1]
}

function percent(missed, all) {
    return all ? 100 * (all - missed) / all : 100
}

# The columns are: name, then all, missed and percent of regions, functions, lines and branches.
$1 ~ /\.[ch]$/ && NF >= 13 {
    path = $1
    # Names are as short as their common beginning allows.
    sub(/^.*\/(core|checker|repair)\//, "&", path)
    if (match(path, /(core\/(base|io|format|codec|image)|checker|repair)\/[^ ]*$/))
        path = substr(path, RSTART)
    else if (path ~ /^(base|io|format|codec|image)\//)
        path = "core/" path
    room = room_of(path)
    lines[room] += $8
    missed_lines[room] += $9
    branches[room] += $11
    missed_branches[room] += $12
    if (files)
        printf "%6.2f %% lines, %6.2f %% branches  %s\n", percent($9, $8), percent($12, $11), path
}

END {
    printf "%-12s %8s %8s %10s %8s  %s\n", "room", "lines", "reached", "branches", "reached", "bar"
    for (i = 1; i <= count; i++) {
        room = rooms[i]
        reached = percent(missed_lines[room], lines[room])
        verdict = "-"
        if (room in bar) {
            verdict = bar[room] " %"
            if (reached < bar[room]) {
                verdict = verdict ", below"
                below = 1
            }
        }
        printf "%-12s %8d %6.2f %% %10d %6.2f %%  %s\n", room, lines[room], reached,
            branches[room], percent(missed_branches[room], branches[room]), verdict
    }
    exit bars && below
}
