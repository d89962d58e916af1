# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Campaigns with libFuzzer. It ends with the first crash, so a process is started anew until its time
# is over; the processes of a harness share its corpus folder and see what the others find there.

engine_preset()
{
    echo fuzz
}

engine_targets()
{
    :
}

# After so many crashes in a turn there is more to mend than to find.
crashes_in_a_turn=20

# engine_begin FOLDER SOURCE...
engine_begin()
{
    local folder=$1
    shift
    mkdir -p "$folder"/{corpus,crashes,logs}
    # Edges are another number after each change of the sources.
    rm -f "$folder/edges"
    copy_by_sum "$folder/corpus" "$@"
}

# Add what a log says to the totals: executions; and note the edges.
count_run()
{
    awk -v edges_file="$2/edges" '
        /^stat::number_of_executed_units:/ { runs = $2 }
        /^#[0-9]+/ {
            last = substr($1, 2)
            for (i = 2; i < NF; i++)
                if ($i == "cov:")
                    edges = $(i + 1)
        }
        END {
            print (runs ? runs : last + 0)
            if ((getline old < edges_file) < 1 || old < edges)
                print edges + 0 > edges_file
        }' "$1" >> "$2/totals"
}

# Crashing inputs that are in the corpus itself end each run before it begins.
put_aside()
{
    local folder=$1 file name
    mkdir -p "$folder/put-aside"
    for file in "$folder"/crashes/*-*; do
        name=${file##*-}
        [[ ! -f $folder/corpus/$name ]] || mv "$folder/corpus/$name" "$folder/put-aside/$name"
    done
}

# engine_run HARNESS FOLDER INDEX SECONDS
engine_run()
{
    local harness=$1 folder=$2 index=$3 end=$((SECONDS + $4)) log=$2/logs/$3 crashes=0
    local options=("${hunting[@]}" -artifact_prefix="$folder/crashes/" -timeout="$time_limit"
        -report_slow_units="$time_limit" -reload=1)
    local words
    words=$(dictionary_of "$harness")
    [[ -z $words ]] || options+=(-dict="$words")
    while ((SECONDS < end && crashes < crashes_in_a_turn)); do
        local status=0
        "$(program_of fuzz "$harness")" "${options[@]}" -max_total_time=$((end - SECONDS)) \
            "$folder/corpus" > "$log" 2>&1 || status=$?
        count_run "$log" "$folder"
        ((status != 0)) || break
        crashes=$((crashes + 1))
        cp "$log" "$folder/logs/crash-$index-$crashes"
        put_aside "$folder"
    done
    rm -f "$log" "$folder"/crashes/slow-unit-*
}

# engine_status FOLDER: executions in a second, in all, edges, inputs, crashes, when the last new
# input came (seconds since the epoch; 0: not yet).
engine_status()
{
    local folder=$1 log
    {
        # What runs now, then what has run.
        for log in "$folder"/logs/[0-9]*; do
            # It may have said nothing yet, or be gone.
            tail -c 8192 "$log" 2> /dev/null | grep -a '^#[0-9]' | tail -n 1 || true
        done
        [[ ! -f $folder/totals ]] || cat "$folder/totals"
        [[ ! -f $folder/edges ]] || echo "edges $(cat "$folder/edges")"
    } | awk -v inputs="$(find "$folder/corpus" -type f | wc -l)" \
        -v crashes="$(find "$folder/crashes" -type f | wc -l)" \
        -v newest="$(stat -c %Y "$folder/corpus")" '
        /^#/ {
            total += substr($1, 2)
            for (i = 2; i < NF; i++) {
                if ($i == "cov:" && $(i + 1) > edges)
                    edges = $(i + 1)
                if ($i == "exec/s:")
                    rate += $(i + 1)
            }
            next
        }
        /^edges/ { if ($2 > edges) edges = $2; next }
        { total += $1 }
        END {
            print rate + 0, total + 0, edges + 0, inputs, crashes, newest
        }'
}

# engine_corpora FOLDER: where its inputs are.
engine_corpora()
{
    printf '%s\n' "$1/corpus"
}

engine_crashes()
{
    find "$1/crashes" -type f
}

# engine_minimise HARNESS FOLDER: keep only inputs that reach what no smaller one does.
engine_minimise()
{
    local folder=$2
    rm -rf "$folder/less"
    mkdir "$folder/less"
    "$(program_of fuzz "$1")" -merge=1 -timeout=$time_limit -rss_limit_mb=$memory_limit \
        -artifact_prefix="$folder/crashes/" "$folder/less" "$folder/corpus" \
        > "$folder/logs/minimise" 2>&1 || return 0
    mv "$folder/corpus" "$folder/more"
    mv "$folder/less" "$folder/corpus"
    rm -rf "$folder/more"
}
