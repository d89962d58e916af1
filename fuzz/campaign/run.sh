#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# A fuzzing campaign, from building the harnesses to saving what came of it; `./kit fuzz` is its name.
# It can be stopped at any time and goes on from its work folder.

# shellcheck source=fuzz/campaign/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=fuzz/campaign/corpora.sh
source "$fuzz/campaign/corpora.sh"
# shellcheck source=fuzz/campaign/schedule.sh
source "$fuzz/campaign/schedule.sh"
# shellcheck source=fuzz/campaign/triage.sh
source "$fuzz/campaign/triage.sh"

usage()
{
    cat << 'END'
Usage: ./kit fuzz [HARNESS]... [OPTION]...

Fuzz with these harnesses, or with all.

  --time T        how long each harness is run: 90s, 5m, 2h or 1d (5m; with --save or --triage none)
  --engine E      libfuzzer or afl (libfuzzer)
  --jobs N        processes at a time (one for each core)
  --work DIR      where the work is, for the next time too (build/campaign)
  --name NAME     AFL++: what the instances here are called, to join others that use the same DIR
  --save          then keep what was found worth it, in fuzz/corpora
  --triage        then look at the crashes that are there, without --time at nothing else
  --no-build      use the harnesses as they were built before
  --list          list the harnesses, and stop
END
}

# ---- what is asked for ----

engine=libfuzzer
jobs=$(nproc)
work=$build/campaign
export instance=main # of AFL++
duration=
save=0
no_build=0
harnesses=()

parse()
{
    local triage=0
    while (($#)); do
        case $1 in
        --time | --engine | --jobs | --work | --name)
            (($# > 1)) || complain "$1 needs a value"
            set_option "${1#--}" "$2"
            shift
            ;;
        --time=* | --engine=* | --jobs=* | --work=* | --name=*)
            local option=${1%%=*}
            set_option "${option#--}" "${1#*=}"
            ;;
        --save) save=1 ;;
        --triage) triage=1 ;;
        --no-build) no_build=1 ;;
        --list)
            all_harnesses
            exit 0
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        -*)
            usage >&2
            exit 1
            ;;
        *) harnesses+=("$1") ;;
        esac
        shift
    done
    ((${#harnesses[@]})) || mapfile -t harnesses < <(all_harnesses)
    have_harnesses "${harnesses[@]}"
    if [[ -z $duration ]]; then
        duration=$((save || triage ? 0 : 300))
    fi
}

set_option()
{
    case $1 in
    time) duration=$(seconds "$2") ;;
    engine)
        [[ $2 == libfuzzer || $2 == afl ]] || complain "no engine is called $2: libfuzzer or afl"
        engine=$2
        ;;
    jobs)
        [[ $2 =~ ^[1-9][0-9]*$ ]] || complain "$2 is no number of processes"
        jobs=$2
        ;;
    work)
        mkdir -p "$2"
        work=$(cd "$2" && pwd)
        ;;
    name)
        [[ $2 =~ ^[A-Za-z0-9_]+$ ]] || complain "a name is made of letters, digits and _"
        instance=$2
        ;;
    esac
}

# ---- running it ----

declare -A running=() # process -> HARNESS INDEX
busy_with=            # the same as text

start()
{
    local harness=$1 index=$2
    engine_run "$harness" "$work/$engine/$harness" "$index" "$3" &
    running[$!]="$harness $index"
}

reap()
{
    local process
    busy_with=
    for process in "${!running[@]}"; do
        if kill -0 "$process" 2> /dev/null; then
            busy_with+=" ${running[$process]};"
        else
            wait "$process" || say "${running[$process]}: the engine failed; see its log in" \
                "$work/$engine/${running[$process]% *}/logs"
            unset "running[$process]"
        fi
    done
}

# Each process is a group of its own, with the engine in it.
stop_all()
{
    local process
    for process in "${!running[@]}"; do
        kill -- "-$process" 2> /dev/null || true
    done
    wait
    running=()
}

campaign()
{
    local tasks next=0 task began=$SECONDS tell
    mapfile -t tasks < <(schedule)
    local count=${#harnesses[@]}
    local length=$((duration * (jobs > count ? jobs : count) / jobs))
    [[ -t 1 ]] && tell=2 || tell=60
    set -m
    trap 'stop_all; say "stopped; the same command goes on from here"; exit 130' INT TERM
    trap stop_all EXIT
    while :; do
        reap
        while ((next < ${#tasks[@]} && ${#running[@]} < jobs)); do
            read -ra task <<< "${tasks[next]}"
            # Its turn before this one has to end first.
            [[ $busy_with != *" ${task[0]} ${task[1]};"* ]] || break
            start "${task[@]}"
            busy_with+=" ${task[0]} ${task[1]};"
            next=$((next + 1))
        done
        ((${#running[@]})) || break
        if (((SECONDS - began) % tell == 0)); then
            show_status $((SECONDS - began)) "$length"
        fi
        sleep 1
    done
    show_status $((SECONDS - began)) "$length"
    set +m
    trap - INT TERM EXIT
}

# ---- the status ----

clock()
{
    printf '%d:%02d:%02d' $(($1 / 3600)) $(($1 / 60 % 60)) $(($1 % 60))
}

# One screen that is drawn again and again on a terminal, lines elsewhere.
show_status()
{
    local screen harness
    screen=$(
        printf '%s, %d processes, %s' "$engine" "$jobs" "$(clock "$1")"
        (($2 == 0)) || printf ' of about %s' "$(clock "$2")"
        printf '\n%-12s %10s %14s %8s %8s %8s %12s\n' harness exec/s executions edges inputs \
            crashes 'last new'
        for harness in "${harnesses[@]}"; do
            local mark=' '
            [[ $busy_with != *" $harness "* ]] || mark='*'
            engine_status "$work/$engine/$harness" |
                awk -v name="$harness" -v mark="$mark" -v now="$EPOCHSECONDS" '{
                    age = !$6 ? "-" : (now > $6 ? now - $6 : 0) " s"
                    printf "%s%-11s %10s %14.0f %8d %8d %8d %12s\n", mark, name,
                        mark == "*" ? $1 : "-", $2, $3, $4, $5, age
                }'
        done
    )
    if [[ -t 1 ]]; then
        printf '\033[H\033[J%s\n' "$screen"
    else
        printf '%s\n' "$screen"
    fi
}

# ---- all of it ----

# in_parallel COMMAND: for all harnesses, as many at a time as there are jobs.
in_parallel()
{
    local harness count=0
    for harness in "${harnesses[@]}"; do
        if ((count >= jobs)); then
            wait -n || true
            count=$((count - 1))
        fi
        "$@" "$harness" &
        count=$((count + 1))
    done
    wait
}

begin()
{
    local sources=("$build/fuzz-replay/fuzz/seeds/$1" "$build/fuzz-replay/fuzz/kept/$1"
        "$fuzz/regressions/$1" "$work/libfuzzer/$1/corpus" "$work/afl/$1/corpus") there=() source
    for source in "${sources[@]}"; do
        [[ ! -d $source || $source == "$work/$engine/$1/corpus" ]] || there+=("$source")
    done
    engine_begin "$work/$engine/$1" "${there[@]}"
}

minimise()
{
    engine_minimise "$1" "$work/$engine/$1"
}

build_all()
{
    local targets
    read -ra targets <<< "$(engine_targets)"
    build_preset fuzz-replay "${harnesses[@]/#/fuzz-}" "${harnesses[@]/#/fuzz-inputs-}"
    build_preset "$(engine_preset)" "${harnesses[@]/#/fuzz-}" "${targets[@]}"
    # Whether an input is worth keeping is for libFuzzer to say, whoever found it.
    ((!save)) || [[ $(engine_preset) == fuzz ]] || build_preset fuzz "${harnesses[@]/#/fuzz-}"
}

main()
{
    parse "$@"
    # shellcheck source=/dev/null
    source "$fuzz/campaign/$engine.sh"
    if ((!no_build)); then
        build_all
    fi
    in_parallel begin
    if ((duration > 0)); then
        say "fuzzing; the work is in $work/$engine"
        campaign
    fi
    say "minimising the corpora"
    in_parallel minimise
    local harness failed=0
    for harness in "${harnesses[@]}"; do
        triage "$harness" || failed=1
    done
    if ((save)); then
        in_parallel save_corpus
    fi
    return "$failed"
}

main "$@"
