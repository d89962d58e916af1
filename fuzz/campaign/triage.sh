# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# From crashes to causes: each is run without the engine; those that fail for the same reason are one;
# that one is made small, and becomes a regression with an open story in fuzz/regressions. The suite
# fails until the cause is mended, and replays the input ever after.

# fails HARNESS INPUT REPORT: whether it fails without an engine; what it says goes to the report, and
# `cause` and `name` are set.
fails()
{
    local status=0 hang=0
    ASAN_OPTIONS=$ASAN_OPTIONS:hard_rss_limit_mb=$memory_limit:malloc_context_size=30 \
        timeout -s ABRT -k 5 "$time_limit" "$(program_of fuzz-replay "$1")" "$2" > "$3" 2>&1 || status=$?
    ((status != 0)) || return 1
    ((status != 124)) || hang=1
    {
        read -r cause
        read -r name
    } < <(awk -v hang="$((hang))" -f "$fuzz/campaign/signature.awk" "$3")
}

# minimise_crash HARNESS INPUT OUTPUT: a smaller input that fails for the same reason, if one is found.
minimise_crash()
{
    local harness=$1 input=$2 output=$3 wanted=$cause called=$name scratch
    scratch=$(mktemp -d)
    cp "$input" "$output"
    if [[ $(engine_preset) == fuzz ]]; then
        # Its limit is for each step.
        timeout $((6 * time_limit)) "$(program_of fuzz "$harness")" -minimize_crash=1 \
            -max_total_time=$((2 * time_limit)) \
            -timeout=$time_limit -rss_limit_mb=$memory_limit \
            -malloc_limit_mb=$allocation_limit -exact_artifact_path="$scratch/small" "$input" \
            > "$scratch/log" 2>&1 || true
    else
        # It fits the length as well, and is at its best with inputs that are small already.
        ASAN_OPTIONS='' UBSAN_OPTIONS='' timeout $((6 * time_limit)) afl-tmin -m none \
            -t "${time_limit}000" -i "$input" -o "$scratch/small" -- \
            "$(program_of fuzz-afl "$harness")" > "$scratch/log" 2>&1 || true
    fi
    if [[ -s $scratch/small ]] && fails "$harness" "$scratch/small" "$scratch/report" &&
        [[ $cause == "$wanted" ]]; then
        cp "$scratch/small" "$output"
    fi
    cause=$wanted
    name=$called
    rm -rf "$scratch"
}

# Whether something that is known fails for this cause: an open regression, or a crash of before.
known()
{
    grep -qxF -- "$1" "$2" 2> /dev/null
}

# Causes of the regressions that still fail, one a line.
open_causes()
{
    local input
    for input in "$fuzz/regressions/$1"/*; do
        [[ ! -f $input ]] || ! fails "$1" "$input" /dev/null || printf '%s\n' "$cause"
    done
}

regression_rows=$fuzz/regressions/README.md

# adopt HARNESS NAME INPUT CAUSE
adopt()
{
    local folder=$fuzz/regressions/$1
    mkdir -p "$folder"
    cp "$3" "$folder/$2"
    printf '| %s/%s | open: %s |\n' "$1" "$2" "${4//|/\\|}" >> "$regression_rows"
}

# triage HARNESS: look at all crashes of a work folder that were not looked at before. Fails if there
# are new causes.
triage()
{
    local harness=$1 folder=$work/$engine/$1 found=$work/found/$1 input new=0 scratch base count
    local looked_at=$folder/looked-at crashes
    mapfile -t crashes < <(engine_crashes "$folder" | sort)
    ((${#crashes[@]})) || return 0
    scratch=$(mktemp -d)
    touch "$looked_at"
    open_causes "$harness" > "$scratch/open"
    for input in "${crashes[@]}"; do
        ! grep -qxF -- "$input" "$looked_at" || continue
        printf '%s\n' "$input" >> "$looked_at"
        if ! fails "$harness" "$input" "$scratch/report"; then
            mkdir -p "$found/not-without-engine"
            cp "$input" "$found/not-without-engine/"
            continue
        fi
        ! known "$cause" "$scratch/open" || continue
        printf '%s\n' "$cause" >> "$scratch/open"
        minimise_crash "$harness" "$input" "$scratch/input"
        base=$name
        for ((count = 2;; count++)); do
            [[ -e $found/$name || -e $fuzz/regressions/$harness/$name ]] || break
            name=$base-$count
        done
        mkdir -p "$found/$name"
        cp "$scratch/input" "$found/$name/input"
        cp "$input" "$found/$name/as-found"
        cp "$scratch/report" "$found/$name/report"
        adopt "$harness" "$name" "$scratch/input" "$cause"
        say "$harness: NEW: $cause"
        say "  fuzz/regressions/$harness/$name, $(stat -c %s "$scratch/input") bytes; see" \
            "$found/$name/report"
        new=$((new + 1))
    done
    rm -rf "$scratch"
    say "$harness: ${#crashes[@]} crashes, $new new causes"
    ((new == 0))
}
