#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What every file has to obey: the two SPDX lines, a length that one can read, and no trace of the
# machine that it was written on.

set -euo pipefail
cd "${1:?usage: files.sh SOURCE_FOLDER}"

readonly max_lines=500 max_test_lines=600
broken=0

complain()
{
    printf '%s: %s\n' "$1" "$2"
    broken=1
}

sources()
{
    find CMakeLists.txt kit .ci core checker repair fuzz corpus tests -type f \
        \( -name '*.[ch]' -o -name '*.def' -o -name '*.sh' -o -name '*.py' -o -name '*.1' \
        -o -name CMakeLists.txt -o -name '*.cmake' -o -name '*.recipe' -o -name '*.bash' \
        -o -name run -o -name kit \) "$@"
}

while IFS= read -r -d '' file; do
    begin=$(head -n 6 -- "$file")
    [[ $begin == *"SPDX-License-Identifier: MIT"* ]] || complain "$file" "no SPDX-License-Identifier"
    [[ $begin == *"SPDX-FileCopyrightText: "* ]] || complain "$file" "no SPDX-FileCopyrightText"
    limit=$max_lines
    [[ $file != tests/* ]] || limit=$max_test_lines
    if [[ $file != *.def ]] && (($(wc -l < "$file") > limit)); then
        complain "$file" "longer than $limit lines: it has two subjects"
    fi
done < <(sources -print0)

# Assembled so that this file does not find itself.
top=/
if grep -rnIE --exclude-dir=.git --exclude-dir=build "(^|[^[:alnum:]_.\$}>)])${top}(root|work|home)/" \
    CMakeLists.txt CMakePresets.json kit .ci ./*.md core checker repair fuzz corpus tests; then
    complain "the lines above" "name a path of somebody's machine"
fi
exit "$broken"
