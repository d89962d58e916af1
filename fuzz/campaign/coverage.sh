#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What the corpora alone reach: seeds, kept inputs and regressions are run once, without an engine, in
# a build that counts; `./kit coverage` is its name. What a campaign has found and not saved counts
# with --work DIR.

# shellcheck source=fuzz/campaign/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage()
{
    cat << 'END'
Usage: ./kit coverage [HARNESS]... [OPTION]...

Show the coverage of core, checker and repair by the fuzz corpora, and write
pages with each line to build/fuzz-coverage/report; of these harnesses, or of all.

  --bars      fail where a room is below its bar
  --work DIR  count the inputs in the work folder of a campaign too
  --files     a line for each file as well
  --no-build  use the harnesses as they were built before
END
}

folder=$build/fuzz-coverage
bars=0
files=0
no_build=0
work=
harnesses=()

while (($#)); do
    case $1 in
    --bars) bars=1 ;;
    --files) files=1 ;;
    --no-build) no_build=1 ;;
    --work)
        work=${2:?--work needs a folder}
        shift
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

# replay HARNESS: what crashes counts for nothing, because it never writes down what it reached.
replay()
{
    local harness=$1 inputs=() source
    for source in "$folder/fuzz/seeds/$harness" "$folder/fuzz/seeds/$harness-slow" \
        "$folder/fuzz/kept/$harness" \
        "$fuzz/regressions/$harness" ${work:+"$work/libfuzzer/$harness/corpus"} \
        ${work:+"$work/afl/$harness/corpus"}; do
        [[ ! -d $source ]] || inputs+=("$source")
    done
    LLVM_PROFILE_FILE=$folder/profiles/$harness.profraw \
        "$(program_of fuzz-coverage "$harness")" "${inputs[@]}" > "$folder/profiles/$harness.log" 2>&1 || {
        say "$harness fails on its corpus, and is not counted:"
        tail -n 3 "$folder/profiles/$harness.log" >&2
        rm -f "$folder/profiles/$harness.profraw"
    }
}

((${#harnesses[@]})) || mapfile -t harnesses < <(all_harnesses)
have_harnesses "${harnesses[@]}"
((no_build)) || build_preset fuzz-coverage "${harnesses[@]/#/fuzz-}" "${harnesses[@]/#/fuzz-inputs-}" \
    fuzz-everything
rm -rf "$folder/profiles" "$folder/report"
mkdir -p "$folder/profiles" "$folder/report"
say "running the corpora of ${harnesses[*]}"
running=0
for harness in "${harnesses[@]}"; do
    if ((running++ >= $(nproc))); then
        wait -n
    fi
    replay "$harness" &
done
wait

llvm-profdata merge -sparse "$folder"/profiles/*.profraw -o "$folder/profiles/all.profdata"
# Not the harnesses themselves: what none of them is linked with has not been reached either.
object=$folder/fuzz/fuzz-everything
shown=(-instr-profile="$folder/profiles/all.profdata" -ignore-filename-regex='/(corpus|fuzz|tests|tool)/')
llvm-cov show "$object" "${shown[@]}" -format=html -output-dir="$folder/report" \
    -show-branches=count -show-line-counts-or-regions=false -Xdemangler=cat
llvm-cov report "$object" "${shown[@]}" > "$folder/profiles/files"
status=0
awk -v bars=$bars -v files=$files -f "$fuzz/campaign/coverage.awk" "$folder/profiles/files" || status=$?
echo "Line by line: ${folder#"$PWD"/}/report/index.html"
exit $status
