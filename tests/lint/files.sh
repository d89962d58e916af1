#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What every file has to obey: the two SPDX lines, a length that one can read, and no trace of the
# machine that it was written on.

# shellcheck source=tests/lint/rooms.sh
source "$(dirname "$0")/rooms.sh"

broken=0

find CMakeLists.txt kit .ci .clusterfuzzlite .github ./*.md "${rooms[@]}" -type f \
    \( -name '*.[ch]' -o -name '*.def' -o -name '*.sh' -o -name '*.py' -o -name '*.1' \
    -o -name CMakeLists.txt -o -name '*.cmake' -o -name '*.recipe' -o -name '*.bash' \
    -o -name '*.md' -o -name '*.jq' -o -name '*.in' -o -name '*.awk' \
    -o -name '*.yml' -o -name '*.yaml' -o -name Dockerfile -o -name run -o -name kit \) -print0 | xargs -0 awk '
function complain(what) {
    printf "%s: %s\n", file, what
    broken = 1
}

function judge() {
    if (!licence)
        complain("no SPDX-License-Identifier")
    if (!copyright)
        complain("no SPDX-FileCopyrightText")
    limit = file ~ /^tests\// ? 600 : 500
    if (lines > limit && file !~ /\.def$/)
        complain("longer than " limit " lines: it has two subjects")
}

FNR == 1 {
    if (file)
        judge()
    file = FILENAME
    licence = copyright = 0
}
FNR <= 6 && /SPDX-License-Identifier: MIT/ { licence = 1 }
FNR <= 6 && /SPDX-FileCopyrightText: / { copyright = 1 }
{ lines = FNR }

END {
    judge()
    exit broken
}' || broken=1

# Assembled so that this file does not find itself.
top=/
if grep -rnIE --exclude-dir=.git --exclude-dir=build "(^|[^[:alnum:]_.\$}>)])${top}(root|work|home)/" \
    CMakeLists.txt CMakePresets.json kit .ci .clusterfuzzlite .github ./*.md "${rooms[@]}"; then
    echo "the lines above name a path of somebody's machine"
    broken=1
fi
exit "$broken"
