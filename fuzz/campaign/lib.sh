# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What the scripts of campaigns share: where things are, and what each engine is asked for.
#
# A work folder holds ENGINE/HARNESS/: `corpus` (the inputs that an engine found worth keeping),
# `crashes`, `logs` (one for each process), `totals` (of runs that have ended), for AFL++ `sync`;
# and found/HARNESS/CAUSE/ with what came of the crashes.

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
fuzz=$top/fuzz
build=$top/build

# What takes longer, in seconds, or more memory, in MiB, has failed.
export time_limit=10 memory_limit=2048 allocation_limit=512

# How libFuzzer hunts. To choose inputs by how rare is what they reach takes it a quarter of the time
# here, as one execution reaches thousands of places, and finds less in the end.
# shellcheck disable=SC2034
hunting=(-entropic=0 -rss_limit_mb="$memory_limit" -malloc_limit_mb="$allocation_limit"
    -print_final_stats=1)

export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export ASAN_OPTIONS=detect_stack_use_after_return=0:handle_abort=1:max_allocation_size_mb=$allocation_limit

complain()
{
    printf 'fuzz: %s\n' "$*" >&2
    exit 1
}

say()
{
    printf '>> %s\n' "$*" >&2
}

# step WORDS COMMAND...: say what is being done in one line; show the output only if it fails.
step()
{
    local words=$1 log
    shift
    say "$words"
    log=$(mktemp)
    if ! "$@" > "$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        complain "failed: $words"
    fi
    rm -f "$log"
}

all_harnesses()
{
    local source
    for source in "$fuzz"/harness/*.c; do
        basename "$source" .c
    done
}

# have_harnesses NAME...: complain about those that there are not.
have_harnesses()
{
    local name
    for name in "$@"; do
        [[ -f $fuzz/harness/$name.c ]] || complain "no harness is called $name; there are" \
            "$(all_harnesses | tr '\n' ' ')"
    done
}

# build_preset PRESET TARGET...
build_preset()
{
    local preset=$1
    shift
    step "configuring $preset" cmake -S "$top" --preset "$preset"
    step "building $preset" cmake --build "$build/$preset" "${@/#/--target=}"
}

# The program of a harness in one of the builds.
program_of()
{
    printf '%s/%s/fuzz/fuzz-%s' "$build" "$1" "$2"
}

# copy_by_sum TO FROM...: all inputs that are in FROM, named by what is in them, as libFuzzer names its
# own; not those that were put aside for failing.
copy_by_sum()
{
    local to=$1 sum file
    shift
    (($#)) || return 0 # find without a folder takes the one that this runs in
    find "$@" -type f -size -1024k -exec sha1sum {} + |
        while read -r sum file; do
            file=${file#\\}
            # An engine that runs elsewhere may have removed it meanwhile.
            [[ -e $to/$sum || -e ${to%/*}/put-aside/$sum || ! -e $file ]] ||
                cp -- "$file" "$to/$sum" || [[ ! -e $file ]]
        done
}

# The file with words for a harness, if there is one.
dictionary_of()
{
    local file=$fuzz/dictionaries/$1.dict
    [[ ! -f $file ]] || printf '%s' "$file"
}

# seconds 90|90s|5m|2h|1d
seconds()
{
    [[ $1 =~ ^([0-9]+)([smhd]?)$ ]] || complain "$1 is no time: 90s, 5m, 2h or 1d"
    local unit=1
    case ${BASH_REMATCH[2]} in
    m) unit=60 ;;
    h) unit=3600 ;;
    d) unit=86400 ;;
    esac
    printf '%d' $((10#${BASH_REMATCH[1]} * unit))
}
