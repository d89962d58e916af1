# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What is kept of a campaign: for each harness a small archive, fuzz/corpora/HARNESS.tar.xz, with the
# fewest inputs that reach all that was reached, so far as there is room. The seeds are not in it: they
# are built from recipes.

corpus_limit=$((100 * 1024)) # bytes of an archive
slowest=100000               # microseconds that an input may take, as the suite runs it

# pack FOLDER ARCHIVE: the same inputs are always the same archive.
pack()
{
    tar -C "$1" --sort=name --format=ustar --mtime=@0 --owner=0 --group=0 --numeric-owner \
        --mode=0644 -cf - . | xz -9e > "$2"
}

# Leave out the largest inputs, a tenth at a time, until the archive is small enough.
fit()
{
    local folder=$1 archive=$2 count
    while :; do
        pack "$folder" "$archive"
        (($(stat -c %s "$archive") > corpus_limit)) || return 0
        count=$(find "$folder" -type f | wc -l)
        find "$folder" -type f -printf '%s %p\n' | sort -rn | sed -n "1,$((count / 10 + 1))p" |
            cut -d' ' -f2- | xargs -d '\n' rm
    done
}

# leave_out_slow HARNESS FOLDER: each run of the suite would pay for them.
leave_out_slow()
{
    "$(program_of fuzz-replay "$1")" --times "$2" | awk -v most="$slowest" '$1 + 0 > most { print $2 }' |
        xargs -rd '\n' rm -f
}

# save_corpus HARNESS: merge what both engines found into what is kept.
save_corpus()
{
    local harness=$1 scratch source sources=()
    local seeds=$build/fuzz-replay/fuzz/seeds/$1
    scratch=$(mktemp -d)
    mkdir "$scratch/base"
    # What these reach needs nothing else.
    for source in "$seeds" "$fuzz/regressions/$harness"; do
        [[ ! -d $source ]] || copy_by_sum "$scratch/base" "$source"
    done
    find "$scratch/base" -type f -printf '%f\n' > "$scratch/there"
    for source in "$build/fuzz-replay/fuzz/kept/$harness" "$work/libfuzzer/$harness/corpus" \
        "$work/afl/$harness/corpus"; do
        [[ ! -d $source ]] || sources+=("$source")
    done
    if ! "$(program_of fuzz "$harness")" -set_cover_merge=1 -timeout=$time_limit \
        -rss_limit_mb=$memory_limit -artifact_prefix="$scratch/" "$scratch/base" "${sources[@]}" \
        > "$scratch/log" 2>&1; then
        tail -n 20 "$scratch/log" >&2
        say "$harness: nothing saved: merging failed"
        rm -rf "$scratch"
        return 0
    fi
    sed "s,^,$scratch/base/," "$scratch/there" | xargs -rd '\n' rm -f
    leave_out_slow "$harness" "$scratch/base"
    if [[ -n $(ls -A "$scratch/base") ]]; then
        mkdir -p "$fuzz/corpora"
        fit "$scratch/base" "$scratch/archive"
        mv "$scratch/archive" "$fuzz/corpora/$harness.tar.xz"
        say "$harness: kept $(find "$scratch/base" -type f | wc -l) inputs in" \
            "$(stat -c %s "$fuzz/corpora/$harness.tar.xz") bytes"
    else
        rm -f "$fuzz/corpora/$harness.tar.xz"
    fi
    rm -rf "$scratch"
}
