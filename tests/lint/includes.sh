#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# The include law: a file may include what lies below it and its own room, nothing above.
#
#   base <- io <- format <- codec <- image <- checker <- repair <- programs
#
# The bundled recipes stand on the core alone; fuzz/ and tests/ may include anything, and nothing
# includes them; what belongs to a program, or to a plugin of one, is that program's.

# shellcheck source=tests/lint/rooms.sh
source "$(dirname "$0")/rooms.sh"

find "${rooms[@]}" -name '*.[ch]' -print0 |
    xargs -0 --no-run-if-empty grep -nH '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' |
    awk -F: '
function rank(room) {
    return room in ranks ? ranks[room] : -1
}

# The room of a path: its first folder, or the first two inside the core and for programs.
function room_of(path,    parts, count) {
    count = split(path, parts, "/")
    if (count > 2 && (parts[1] == "core" || parts[2] == "tool"))
        return parts[1] "/" parts[2]
    return parts[1]
}

function may_include(from, to) {
    if (from == "tests" || from == "fuzz")
        return 1
    if (to == from)
        return 1
    if (from ~ /^corpus/)
        return to ~ /^(core|corpus)\// && to !~ /\/(tool|nbdkit)$/ || to == "corpus"
    if (rank(to) < 0)
        return 0
    return from ~ /\/(tool|nbdkit)$/ || rank(to) < rank(from)
}

BEGIN {
    count = split("core/base core/io core/format core/codec core/image checker repair", order, " ")
    for (i = 1; i <= count; i++)
        ranks[order[i]] = i
}

{
    match($0, /"[^"]*"/)
    target = substr($0, RSTART + 1, RLENGTH - 2)
    from = room_of($1)
    to = room_of(target)
    if (target !~ /\//) {
        printf "%s:%s: \"%s\" is not named from the top of the sources\n", $1, $2, target
        broken = 1
    } else if (!may_include(from, to)) {
        printf "%s:%s: %s must not include %s\n", $1, $2, from, target
        broken = 1
    }
}

END { exit broken }
'
