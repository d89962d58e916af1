# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Campaigns with AFL++: a main and secondaries that exchange what they find through a folder, `sync`.
# Instances of other machines join in when they share that folder and have other names.

engine_preset()
{
    echo fuzz-afl
}

# What is built besides the harnesses.
engine_targets()
{
    echo q2_afl_mutator
}

# engine_begin FOLDER SOURCE...
engine_begin()
{
    local folder=$1
    shift
    mkdir -p "$folder"/{corpus,crashes,logs,sync}
    copy_by_sum "$folder/corpus" "$@"
    # It wants something to begin with.
    [[ -n $(ls -A "$folder/corpus") ]] || printf 'QFI\373' > "$folder/corpus/nothing"
}

# engine_run HARNESS FOLDER INDEX SECONDS
engine_run()
{
    local harness=$1 folder=$2 index=$3 role=-S name
    name=$instance-$index
    # One main for all machines: that which was not named.
    if [[ $instance == main ]] && ((index == 0)); then
        role=-M
        name=main
    fi
    # Under AFL++ a report is a signal, and leaks are libFuzzer's to find.
    local -x ASAN_OPTIONS=abort_on_error=1:symbolize=0:detect_leaks=0:max_allocation_size_mb=$allocation_limit
    local -x UBSAN_OPTIONS=abort_on_error=1:halt_on_error=1:symbolize=0
    local -x AFL_NO_UI=1 AFL_SKIP_CPUFREQ=1 AFL_NO_AFFINITY=1 AFL_AUTORESUME=1
    local -x AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_IGNORE_SEED_PROBLEMS=1 AFL_FAST_CAL=1
    # Turns are shorter than what it would wait before it looks at what others have (in minutes).
    local -x AFL_SYNC_TIME=1 AFL_FINAL_SYNC=1
    local options=(-t "${time_limit}000" -m none) words mutator
    words=$(dictionary_of "$harness")
    [[ -z $words ]] || options+=(-x "$words")
    mutator=$build/fuzz-afl/fuzz/libq2_afl_mutator.so
    [[ ! -f $mutator ]] || local -x AFL_CUSTOM_MUTATOR_LIBRARY=$mutator
    afl-fuzz -i "$folder/corpus" -o "$folder/sync" "$role" "$name" -V "$4" "${options[@]}" \
        -- "$(program_of fuzz-afl "$harness")" > "$folder/logs/$name" 2>&1
}

# engine_status FOLDER: executions in a second, in all, edges, inputs, crashes, when the last new
# input came (seconds since the epoch; 0: not yet).
engine_status()
{
    local folder=$1
    # There are none at first.
    { cat "$folder"/sync/*/fuzzer_stats 2> /dev/null || true; } | awk -F ' *: *' -v now="$EPOCHSECONDS" '
        # An instance that has not said anything for a while does not run.
        $1 == "last_update" { fresh = now - $2 < 150 }
        $1 == "execs_done" { total += $2 }
        $1 == "run_time" { long = $2 > 5 } # before that the rate is a guess
        $1 == "execs_per_sec" && fresh && long { rate += $2 }
        $1 == "corpus_count" && $2 > inputs { inputs = $2 }
        $1 == "edges_found" && $2 > edges { edges = $2 }
        $1 == "saved_crashes" || $1 == "saved_hangs" { crashes += $2 }
        $1 == "last_find" && $2 > newest { newest = $2 }
        END { print int(rate), total + 0, edges + 0, inputs + 0, crashes + 0, newest + 0 }'
}

engine_corpora()
{
    local folder
    printf '%s\n' "$1/corpus"
    for folder in "$1"/sync/*/queue; do
        [[ ! -d $folder ]] || printf '%s\n' "$folder"
    done
}

engine_crashes()
{
    find "$1"/sync/*/crashes "$1"/sync/*/hangs -type f -name 'id:*' 2> /dev/null || true
}

# engine_minimise HARNESS FOLDER: one input for each way that is taken, of all instances, into the
# corpus; the queues of the instances stay as they are, for the next time.
engine_minimise()
{
    local folder=$2 all sources
    all=$folder/all
    rm -rf "$all" "$folder/less"
    mkdir "$all"
    mapfile -t sources < <(engine_corpora "$folder")
    copy_by_sum "$all" "${sources[@]}"
    ASAN_OPTIONS='' UBSAN_OPTIONS='' AFL_ALLOW_TMP=1 afl-cmin -m none -t "${time_limit}000" -i "$all" \
        -o "$folder/less" -- "$(program_of fuzz-afl "$1")" > "$folder/logs/minimise" 2>&1 || {
        rm -rf "$all"
        return 0
    }
    rm -rf "$all" "$folder/corpus"
    find "$folder/less" -mindepth 1 -maxdepth 1 -name '.*' -exec rm -rf {} +
    mv "$folder/less" "$folder/corpus"
}
