#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Builds the harnesses as OSS-Fuzz and ClusterFuzzLite want it: with $CC, $CXX, $CFLAGS, $CXXFLAGS and
# $LIB_FUZZING_ENGINE, the sources in $SRC/qcow2kit, scratch space in $WORK. In $OUT come for each
# harness fuzz-NAME, fuzz-NAME_seed_corpus.zip, fuzz-NAME.options and, if there is one, fuzz-NAME.dict.

set -euo pipefail

source=$SRC/qcow2kit
build=$WORK/qcow2kit

cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=None -DBUILD_TESTING=OFF \
    -DQCOW2KIT_WERROR=OFF -DQCOW2KIT_FUZZ=ON -DQCOW2KIT_FUZZ_ENGINE="$LIB_FUZZING_ENGINE" \
    -DCMAKE_BUILD_RPATH="\$ORIGIN/lib"
targets=(fuzz-seeds)
names=()
for harness in "$source"/fuzz/harness/*.c; do
    name=$(basename "$harness" .c)
    names+=("$name")
    targets+=("fuzz-$name")
done
# What makes the seeds leaks nothing that matters here, and nothing shall stop it.
ASAN_OPTIONS=detect_leaks=0 cmake --build "$build" "${targets[@]/#/--target=}"

# Shared libraries that the machines that fuzz may not have.
libraries()
{
    ldd "$1" | awk '$3 ~ /\/(libz|libzstd|libdeflate|libcrypto|libjson-c|libseccomp)\.so/ { print $3 }'
}

mkdir -p "$OUT/lib"
for name in "${names[@]}"; do
    cp "$build/fuzz/fuzz-$name" "$OUT/"
    libraries "$build/fuzz/fuzz-$name" | xargs -r cp -Lt "$OUT/lib"

    inputs=()
    for folder in "$build/fuzz/seeds/$name" "$build/fuzz/kept/$name" \
        "$source/fuzz/regressions/$name"; do
        [[ ! -d $folder ]] || inputs+=("$folder")
    done
    rm -f "$OUT/fuzz-${name}_seed_corpus.zip"
    # Folders may hold the same name: paths are kept, from where all of them begin.
    rm -rf "$WORK/corpus"
    mkdir "$WORK/corpus"
    for folder in "${inputs[@]}"; do
        cp -r "$folder" "$WORK/corpus/$(basename "$(dirname "$folder")")"
    done
    (cd "$WORK/corpus" && cmake -E tar cf "$OUT/fuzz-${name}_seed_corpus.zip" --format=zip .)

    [[ ! -f $source/fuzz/dictionaries/$name.dict ]] ||
        cp "$source/fuzz/dictionaries/$name.dict" "$OUT/fuzz-$name.dict"
    printf '[libfuzzer]\ntimeout = 25\nrss_limit_mb = 2048\n' > "$OUT/fuzz-$name.options"
done
