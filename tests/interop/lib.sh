# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What the tests against QEMU share: both programs look at an image, what they answer is put down
# side by side, and only the places where they differ are looked at.
#
# A test runs in a scratch folder of its own as `bash TEST.sh QCOW2_CHECK [more]`. Its workers call
# `examine`; `differences_in` then gives a line for each difference:
#
#   NAME FIELD OURS QEMU PROBLEMS
#
# FIELD is a counter, named as in the JSON (a value that is left out is "absent"), or "exit"; or
# "report" where one program has no report to compare: its value is then cannot-check, not-supported,
# hangs or crashes, and that of the other the exit status. PROBLEMS are those that we found, in
# commas.

set -euo pipefail

check=$(realpath "$1")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

ulimit -c 0

readonly here scratch check
qemu_seconds=10
readonly our_seconds=60 qemu_memory_kib=2097152
jobs=$(nproc)
jobs=$((jobs > 4 ? 4 : jobs))

# Whatever a sanitizer has to say must not look like an exit status of a check.
readonly crash_status=99
export ASAN_OPTIONS="exitcode=$crash_status:${ASAN_OPTIONS:-}"
export LSAN_OPTIONS="exitcode=$crash_status:${LSAN_OPTIONS:-}"
export UBSAN_OPTIONS="exitcode=$crash_status:${UBSAN_OPTIONS:-}"

need()
{
    local program
    for program in "$@"; do
        command -v "$program" > /dev/null || {
            echo "skipped: no $program"
            exit 77
        }
    done
}

# The reviewed differences are those of one version of QEMU.
need_version()
{
    local version
    version=$(qemu-img --version | head -n 1)
    [[ $version == *"version $1"* ]] || {
        echo "skipped: $version, not $1"
        exit 77
    }
}

# Failures of workers are lines in a file, because a worker is another process.
complain()
{
    printf '%.1500s\n' "$*" >> "$scratch/failures"
}

# Ends the test with the number of failures.
finish()
{
    [[ -s failures ]] || exit 0
    head -n 500 failures
    exit 1
}

# in_parallel COMMAND: run COMMAND for each line on stdin, in $jobs processes with a folder each.
in_parallel()
{
    local lines line i worker
    mapfile -t lines
    for ((worker = 0; worker < jobs; worker++)); do
        (
            trap - EXIT
            mkdir "$scratch/$worker"
            cd "$scratch/$worker"
            for ((i = worker; i < ${#lines[@]}; i += jobs)); do
                line=${lines[i]}
                # shellcheck disable=SC2086
                "$1" $line || complain "$line: not finished"
            done
        ) &
    done
    wait
}

# ---- one image ----

# qcow2-check may refuse, but neither crash nor hang.
our_report()
{
    local name=$1 image=$2 status=0
    timeout "$our_seconds" "$check" --output=json --limit=1 "$image" \
        > ours 2> errors || status=$?
    case $status in
    0 | 1 | 2 | 3 | 63) ;;
    *) complain "$name: qcow2-check ended with $status: $(tail -c 3000 errors)" ;;
    esac
    our_status=$status
}

# QEMU gets limits, for there are images that it never comes back from.
qemu_report()
{
    local status=0
    shift
    {
        (
            ulimit -v "$qemu_memory_kib"
            exec timeout -k 1 "$qemu_seconds" qemu-img check --output=json "$@"
        ) > qemu || status=$?
    } 2> errors
    qemu_status=$status
}

# examine NAME IMAGE [QEMU_ARGUMENT...]: what both programs say of an image, as a line of JSON; the
# arguments stand for the image where QEMU needs more than its name.
examine()
{
    local name=$1 image=$2
    shift 2
    our_report "$name" "$image"
    qemu_report "$name" "${@:-$image}"
    [[ -s ours ]] || echo null > ours
    [[ -s qemu ]] || echo null > qemu
    printf '{"name":"%s","our_status":%d,"qemu_status":%d,"ours":%s,"qemu":%s}\n' "$name" \
        "$our_status" "$qemu_status" "$(< ours)" "$(< qemu)" \
        >> reports
}

# ---- all of them ----

# The differences in the reports of all workers.
differences_in()
{
    cat -- */reports | jq -r -f "$here/differences.jq" | sort
}

count_reports()
{
    cat -- */reports | grep -c '^{"name"'
}

# rows FILE: without comments and empty lines.
rows()
{
    grep -v -e '^#' -e '^[[:space:]]*$' -- "$1" || true
}

# explain FILE MATCHES all|some: every line of the file `found` must match a row of FILE, and all or
# some of the rows must be of use. MATCHES is a function of a row that looks at name, field, ours, qemu and problems. Every
# reason that a row gives, in its last column, must be explained at the top of FILE or of
# `differences`, as in "# a-reason: ...".
explain()
{
    local file=$1 matches=$2 needed=$3 rows row used=() i name field ours qemu problems explained
    set -f
    mapfile -t rows < <(rows "$file")
    for row in "${rows[@]}"; do
        grep -q "^# ${row##* }:" "$file" "$here/differences" ||
            complain "$file: no reason '${row##* }' is explained"
    done
    while read -r name field ours qemu problems; do
        explained=0
        for i in "${!rows[@]}"; do
            # shellcheck disable=SC2086
            if "$matches" ${rows[i]}; then
                used[i]=1 explained=1
                break
            fi
        done
        ((explained)) || complain "$name: $field: ours $ours, QEMU's $qemu ($problems)"
    done < found
    for i in "${!rows[@]}"; do
        [[ $needed == some || -n ${used[i]-} ]] || complain "$file: of no use: ${rows[i]}"
    done
    set +f
}
