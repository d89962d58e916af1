#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Several clients at once work on one image: what each writes is there, for the others too.

# shellcheck source=tests/nbd/lib.sh
source "$(dirname "$0")/lib.sh"

readonly clients=6
for variant in cluster_size=64k cluster_size=512 extended_l2=on; do
    qemu-img create -q -f qcow2 -o "$variant" disk.qcow2 64M
    serve disk.qcow2
    pids=()
    for ((client = 0; client < clients; client++)); do
        # Interleaved sectors, so that they share clusters, and a part of each one's own.
        for ((i = client; i < 600; i += clients)); do
            echo "write -P $((client + 1)) $((i * 1536))  1536"
            ((i % 50)) || echo "flush"
        done > "commands.$client"
        echo "write -P $((client + 101)) $((16 + client * 4))M 4M" >> "commands.$client"
        echo "discard $((17 + client * 4))M 1M" >> "commands.$client"
        qemu-io -f raw "$uri" < "commands.$client" > "log.$client" 2>&1 &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || fail "$variant: a client failed: $(cat log.*)"
    done
    ! grep -qiE 'fail|error' log.* || fail "$variant: $(grep -iE 'fail|error' log.*)"

    rm -f disk.raw
    truncate -s 64M disk.raw
    for ((client = 0; client < clients; client++)); do
        sed 's/discard/write -z/' "commands.$client" | qemu-io -f raw disk.raw > /dev/null
    done
    same "$uri" raw disk.raw
    stop
    clean disk.qcow2
    same disk.qcow2 qcow2 disk.raw
done

# A server that a sanitizer was loaded into does not come to its end after the following, with any
# plugin.
[[ -z $preload ]] || exit 0

# A client that is killed half way leaves the image to the others, whole.
qemu-img create -q -f qcow2 disk.qcow2 1G
serve disk.qcow2
head -c 1G < <(yes) > endless
nbdcopy endless "$uri" &
victim=$!
sleep 0.3
kill -KILL "$victim" 2> /dev/null || true
wait "$victim" 2> /dev/null || true
io 'write -P 9 1000M 1M' 'read -P 9 1000M 1M' "$uri"
end
clean disk.qcow2
