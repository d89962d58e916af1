#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# The plugin's parameters, and what it says when something is wrong.

# shellcheck source=tests/nbd/lib.sh
source "$(dirname "$0")/lib.sh"

# refuse WORDS ARGUMENT...: the server does not start, and says why.
refuse()
{
    local words=$1
    shift
    ! ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD=$preload timeout 10 \
        nbdkit -f -U "$scratch/never" "$plugin" "$@" > refused.log 2>&1 || fail "not refused: $*"
    grep -q -- "$words" refused.log || fail "$*: $(cat refused.log)"
}

# no_client WORDS: the image cannot be opened, which the server says.
no_client()
{
    ! nbdinfo "$uri" > client.log 2>&1 || fail "a client got in"
    grep -q -- "$1" server.log || fail "expected '$1'"
    : > server.log
}

qemu-img create -q -f qcow2 disk.qcow2 8M
qemu-io -c 'write -P 1 0 1M' disk.qcow2 > /dev/null
qemu-img snapshot -c before disk.qcow2
qemu-io -c 'write -P 2 0 1M' disk.qcow2 > /dev/null

refuse 'file=IMAGE is missing'
refuse 'missing.qcow2' missing.qcow2
refuse 'qcow2 or raw' disk.qcow2 format=vmdk
refuse "unknown parameter 'colour'" disk.qcow2 colour=red
refuse 'discard\|bool' disk.qcow2 discard=perhaps
refuse 'l2-cache\|size' disk.qcow2 l2-cache=much

# A snapshot is read only.
serve disk.qcow2 snapshot=before
nbdinfo --json "$uri" | jq -e '.exports[0].is_read_only' > /dev/null || fail "not read only"
qemu-io -r -f raw -c 'read -P 1 0 1M' "$uri" > io.log
! grep -q 'verification failed' io.log || fail "the snapshot differs"
stop
serve disk.qcow2 snapshot=never
no_client never
stop

# Raw: the file as it is.
serve -r disk.qcow2 format=raw
nbdcopy "$uri" copy.qcow2
stop
cmp copy.qcow2 disk.qcow2 || fail "format=raw differs"
truncate -s 1M small.raw
serve small.raw
io 'write -P 3 512k 512k' 'discard 0 64k' 'read -P 0 0 64k' "$uri"
stop
io 'read -P 3 512k 512k' small.raw
serve small.raw format=qcow2
no_client small.raw
stop

# A broken image, a missing pass phrase, somebody else's lock.
printf 'QFI\xfb\0\0\0\3garbage' > broken.qcow2
truncate -s 64k broken.qcow2
serve broken.qcow2
no_client broken.qcow2
stop
printf 'one' > one
printf 'two' > two
qemu-img create -q -f qcow2 --object secret,id=s,file=one \
    -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 luks.qcow2 8M
serve luks.qcow2 secret-file=two
no_client luks.qcow2
stop
serve luks.qcow2
no_client luks.qcow2
stop
serve luks.qcow2 secret-file=one
io 'write -P 1 0 1M' 'read -P 1 0 1M' "$uri"
stop

(sleep 3 | qemu-io disk.qcow2 > /dev/null) &
holder=$!
sleep 1
serve disk.qcow2
no_client disk.qcow2
stop
serve -r disk.qcow2 share=on
qemu-io -r -f raw -c 'read -P 2 0 1M' "$uri" > io.log
! grep -q 'verification failed' io.log || fail "share=on reads something else"
stop
wait "$holder"

# Small caches are slower, not wrong.
qemu-img create -q -f qcow2 -o cluster_size=512 small.qcow2 64M
serve small.qcow2 l2-cache=4k
io 'write -P 7 0 64M' 'read -P 7 0 64M' "$uri"
stop
clean small.qcow2

# The one name that is visible is the one that the server looks for.
[[ -n $preload ]] || ! nm -D --defined-only "$plugin" | grep -v ' plugin_init$' > names ||
    fail "visible names: $(cat names)"
