# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# The patient qemu-img over one that cannot measure the CPU the first two times.

set -euo pipefail

patient=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

cat > qemu-img << 'END'
#!/bin/sh
echo >> tries
echo "Formatting $*"
if [ "$(wc -l < tries)" -le 2 ]; then
    echo "Unable to get accurate CPU usage" >&2
    exit 1
fi
exit 5
END
chmod +x qemu-img
PATH=$patient:$scratch:$PATH

# try STATUS TRIES ARGUMENT...
try()
{
    local want=$1 tries=$2 got=0
    shift 2
    rm -f tries
    qemu-img "$@" > out 2> errors || got=$?
    [[ $got == "$want" && $(wc -l < tries) == "$tries" && $(< out) == "Formatting $*" ]] || {
        echo "qemu-img $*: status $got after $(wc -l < tries) tries: $(cat out errors)" >&2
        exit 1
    }
}

try 5 3 create -o encrypt.format=luks "a name"
[[ ! -s errors ]]
try 1 1 create "a name"
[[ -s errors ]]
