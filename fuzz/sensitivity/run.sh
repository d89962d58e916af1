#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Whether the harnesses can fail: each patch here plants one bug, and the harness that it names has to
# find it. `./kit fuzz --sensitivity` is its name.

# shellcheck source=fuzz/campaign/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../campaign/lib.sh"

usage()
{
    cat << 'END'
Usage: ./kit fuzz --sensitivity [NAME]... [OPTION]...

Plant the bugs of fuzz/sensitivity, or only those whose name has NAME in it, and have the harnesses
look for them.

  --time T     how long a harness may take, of one core's time (60s)
  --seed N     where libFuzzer's randomness begins (1)
  --control    plant nothing, and require that no harness (NAME: of these) fails
  --work DIR   where the work is (build/sensitivity)
  --check      only see whether each patch applies, and stop
END
}

patches=$fuzz/sensitivity
work=$build/sensitivity
limit=60
seed=1
control=0
check=0
names=()

parse()
{
    while (($#)); do
        case $1 in
        --time | --seed | --work)
            (($# > 1)) || complain "$1 needs a value"
            set_option "${1#--}" "$2"
            shift
            ;;
        --time=* | --seed=* | --work=*)
            local option=${1%%=*}
            set_option "${option#--}" "${1#*=}"
            ;;
        --control) control=1 ;;
        --check) check=1 ;;
        -h | --help)
            usage
            exit 0
            ;;
        -*)
            usage >&2
            exit 1
            ;;
        *) names+=("$1") ;;
        esac
        shift
    done
}

set_option()
{
    case $1 in
    time) limit=$(seconds "$2") ;;
    seed)
        [[ $2 =~ ^[1-9][0-9]*$ ]] || complain "$2 is no seed"
        seed=$2
        ;;
    work)
        mkdir -p "$2"
        work=$(cd "$2" && pwd)
        ;;
    esac
}

# ---- patches ----

# field PATCH KEY: what the lines before the diff say.
field()
{
    sed -n "/^--- /q; s/^$2: //p" "$1"
}

# apply FOLDER ARGUMENT...: git apply that takes FOLDER for no part of a repository around it.
apply()
{
    GIT_CEILING_DIRECTORIES=$(dirname "$1") git -C "$1" apply "${@:2}"
}

# Those that were asked for.
chosen()
{
    local patch name
    for patch in "$patches"/*.patch; do
        ((${#names[@]})) || printf '%s\n' "$patch"
        for name in "${names[@]}"; do
            if [[ $(basename "$patch" .patch) == *"$name"* ]]; then
                printf '%s\n' "$patch"
                break
            fi
        done
    done
}

check_patches()
{
    local patch failed=0
    while read -r patch; do
        local harness
        harness=$(field "$patch" Harness)
        [[ -n $harness && -f $fuzz/harness/$harness.c ]] ||
            { say "${patch##*/}: no harness is called '$harness'" && failed=1; }
        [[ -n $(field "$patch" Bug) ]] || { say "${patch##*/} does not say what the bug is" && failed=1; }
        [[ $(grep -c '^@@' "$patch") -ge 1 ]] || { say "${patch##*/} changes nothing" && failed=1; }
        apply "$top" --check "$patch" || { say "${patch##*/} does not apply" && failed=1; }
    done < <(chosen)
    return "$failed"
}

# ---- a build of its own ----

sources=$work/source

# The sources as they are now; files that stay the same keep their times, so that little is built anew.
copy_sources()
{
    local file
    mkdir -p "$sources"
    (cd "$top" && find CMakeLists.txt core checker repair fuzz corpus tests -type f) |
        sort > "$work/files"
    (cd "$sources" && find . -type f -printf '%P\n') | sort | comm -23 - "$work/files" |
        while read -r file; do
            rm -f "$sources/$file"
        done
    while read -r file; do
        cmp -s "$top/$file" "$sources/$file" && continue
        mkdir -p "$(dirname "$sources/$file")"
        cp "$top/$file" "$sources/$file"
    done < "$work/files"
}

configure()
{
    local launcher=()
    command -v ccache > /dev/null && launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
    cmake -S "$sources" -B "$work/build" -G Ninja -DCMAKE_C_COMPILER=clang \
        -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O2 -g1" \
        -DBUILD_TESTING=OFF -DQCOW2KIT_FUZZ=ON -DQCOW2KIT_WERROR=OFF \
        -DQCOW2KIT_FUZZ_ENGINE=libfuzzer -DQCOW2KIT_SANITIZE=address,undefined "${launcher[@]}"
}

build_targets()
{
    CCACHE_NOHASHDIR=1 CCACHE_BASEDIR=$work cmake --build "$work/build" "${@/#/--target=}"
}

# ---- one bug ----

# A harness that fails, a report of a sanitizer, or a leak, hang or flood of memory.
failures='the harness failed|^SUMMARY: |ERROR: (libFuzzer|AddressSanitizer|LeakSanitizer)'

# hunt HARNESS LOG: let it run; prints what became of it, and how many seconds and executions that took.
hunt()
{
    local harness=$1 log=$2 status=0 folder=$work/build/fuzz inputs=() words took verdict
    rm -rf "$work/found" "$work/crashes"
    mkdir -p "$work/found" "$work/crashes"
    for words in "$folder/seeds/$harness" "$folder/kept/$harness"; do
        [[ ! -d $words ]] || inputs+=("$words")
    done
    local options=("${hunting[@]}" -seed="$seed" -artifact_prefix="$work/crashes/" -timeout=30)
    words=$(dictionary_of "$harness")
    [[ -z $words ]] || options+=(-dict="$words")
    local TIMEFORMAT='%U %S'
    # libFuzzer counts the time that passes, the system that of the core.
    {
        time (
            ulimit -c 0
            ulimit -t "$limit"
            "$folder/fuzz-$harness" "${options[@]}" "$work/found" "${inputs[@]}" > "$log" 2>&1
        ) || status=$?
    } 2> "$work/took"
    took=$(tail -n 1 "$work/took")
    verdict='not found'
    # What the limit ends, SIGXCPU or SIGKILL do.
    if ((status != 152 && status != 137 && status != 0)) && grep -qaE "$failures" "$log"; then
        verdict=found
    elif ((status != 152 && status != 137)); then
        verdict="ended with $status"
    fi
    awk -v verdict="$verdict" -v took="$took" '
        /^#[0-9]+/ { last = substr($1, 2) }
        /^stat::number_of_executed_units:/ { runs = $2 }
        END {
            split(took, cpu, " ")
            printf "%s;%.1f;%d\n", verdict, cpu[1] + cpu[2], runs ? runs : last
        }' "$log"
}

# Whatever is planted is taken out again.
planted=
pull_out()
{
    [[ -n $planted ]] || return 0
    apply "$sources" -R "$planted"
    planted=
}

# try PATCH: sets `result` to VERDICT;SECONDS;EXECUTIONS.
try()
{
    local patch=$1 harness log
    harness=$(field "$patch" Harness)
    log=$work/logs/$(basename "$patch" .patch)
    apply "$sources" "$patch"
    planted=$patch
    if build_targets "fuzz-$harness" > "$log" 2>&1; then
        result=$(hunt "$harness" "$log")
    else
        result='does not build;0;0'
    fi
    pull_out
}

# ---- all of them ----

row()
{
    printf '%-34s %-11s %-15s %8s %12s\n' "$@"
}

run_patches()
{
    local patch result count=0 found=0 verdict cpu runs
    row patch harness '' seconds executions
    while read -r patch; do
        try "$patch"
        IFS=';' read -r verdict cpu runs <<< "$result"
        row "$(basename "$patch" .patch)" "$(field "$patch" Harness)" "$verdict" "$cpu" "$runs"
        count=$((count + 1))
        [[ $verdict != found ]] || found=$((found + 1))
    done < <(chosen)
    ((count)) || complain "no patch is called ${names[*]}"
    printf '%d of %d found within %d seconds\n' "$found" "$count" "$limit"
    ((found * 100 >= count * 95))
}

# The harnesses as they are fail on nothing.
run_control()
{
    local harness verdict cpu runs failed=0
    row harness '' '' seconds executions
    for harness in "${names[@]}"; do
        IFS=';' read -r verdict cpu runs <<< "$(hunt "$harness" "$work/logs/control-$harness")"
        [[ $verdict == 'not found' ]] && verdict='nothing' || failed=1
        row "$harness" '' "$verdict" "$cpu" "$runs"
    done
    return "$failed"
}

main()
{
    parse "$@"
    if ((check)); then
        check_patches
        return
    fi
    sources=$work/source
    local harnesses=()
    if ((control)); then
        ((${#names[@]})) || mapfile -t names < <(all_harnesses)
        have_harnesses "${names[@]}"
        harnesses=("${names[@]}")
    else
        check_patches || complain "the patches above have to be mended first"
        mapfile -t harnesses < <(while read -r patch; do field "$patch" Harness; done < <(chosen) | sort -u)
    fi
    mkdir -p "$work/logs"
    trap pull_out EXIT
    step "copying the sources" copy_sources
    step "configuring" configure
    step "building ${#harnesses[@]} harnesses without a bug, and their seeds" build_targets \
        "${harnesses[@]/#/fuzz-}" "${harnesses[@]/#/fuzz-inputs-}"
    if ((control)); then
        run_control
    else
        run_patches
    fi
}

main "$@"
