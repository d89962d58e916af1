#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Builds the harnesses the way OSS-Fuzz and ClusterFuzzLite do, then moves what was built somewhere
# else, as they do, and runs a seed with each. Skipped (77) without a clang that has libFuzzer, and
# unless QCOW2KIT_TEST_ALL is set: it takes minutes.

set -euo pipefail
source=$1
scratch=$2
[[ -n ${QCOW2KIT_TEST_ALL-} ]] || exit 77

mkdir -p "$scratch/src"
ln -sfn "$source" "$scratch/src/qcow2kit"
echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' > "$scratch/empty.c"
clang -fsanitize=fuzzer,address "$scratch/empty.c" -o "$scratch/empty" 2> /dev/null &&
    command -v clang++ > /dev/null || exit 77

export SRC=$scratch/src OUT=$scratch/out WORK=$scratch/work
export CC=clang CXX=clang++ CFLAGS="-O1 -gline-tables-only -fsanitize=address,fuzzer-no-link"
export CXXFLAGS=$CFLAGS LIB_FUZZING_ENGINE=-fsanitize=fuzzer
rm -rf "$OUT" "$scratch/elsewhere"
mkdir -p "$OUT" "$WORK"
"$source/.clusterfuzzlite/build.sh" > "$scratch/log" 2>&1 || {
    tail -n 50 "$scratch/log"
    exit 1
}

mv "$OUT" "$scratch/elsewhere"
cd "$scratch/elsewhere"
ran=0
for harness in "$source"/fuzz/harness/*.c; do
    name=fuzz-$(basename "$harness" .c)
    [[ -s $name.options ]] || { echo "$name has no options"; exit 1; }
    rm -rf seeds
    mkdir seeds
    (cd seeds && cmake -E tar xf "../${name}_seed_corpus.zip")
    seed=$(find seeds -type f -size -64k | sort | sed -n 1p)
    [[ -n $seed ]] || { echo "$name has no seed"; exit 1; }
    "./$name" -runs=1 "$seed" > log 2>&1 || {
        echo "$name fails on $seed"
        tail -n 30 log
        exit 1
    }
    # It was this input that was run, and an engine that ran it.
    grep -q "Executed $seed" log || { echo "$name did not run $seed"; exit 1; }
    # Libraries come from beside the program.
    if ldd "./$name" | grep -E 'lib(zstd|deflate|crypto)\.so' | grep -v "$scratch/elsewhere"; then
        echo "$name needs libraries of this machine"
        exit 1
    fi
    ran=$((ran + 1))
done
((ran > 0))
