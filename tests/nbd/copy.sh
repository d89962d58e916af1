#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Whole disks go in and out with the clients that people use, and stay what they are.

# shellcheck source=tests/nbd/lib.sh
source "$(dirname "$0")/lib.sh"

make_raw disk.raw 64M
variants=('cluster_size=64k' 'cluster_size=512' 'cluster_size=2M' 'compat=0.10'
    'extended_l2=on' 'refcount_bits=1' 'lazy_refcounts=on' 'compression_type=zstd'
    'data_file=DATA,data_file_raw=on')

for variant in "${variants[@]}"; do
    rm -f ./*.qcow2 data
    created=${variant/DATA/$scratch/data}

    # In: with several connections and requests at once.
    qemu-img create -q -f qcow2 -o "$created" in.qcow2 64M
    serve file=in.qcow2
    nbdcopy --connections=4 --requests=8 disk.raw "$uri" || fail "$variant: nbdcopy in"
    stop
    clean in.qcow2
    same in.qcow2 qcow2 disk.raw

    # Out, and what it says is where.
    serve -r in.qcow2
    nbdcopy --connections=4 "$uri" out.raw || fail "$variant: nbdcopy out"
    cmp out.raw disk.raw || fail "$variant: nbdcopy out differs"
    qemu-img convert -f raw -O raw "$uri" out.raw
    same out.raw raw disk.raw
    same "$uri" raw disk.raw
    stop

    # And in with QEMU, which trims first.
    serve file=in.qcow2
    qemu-img convert -n -f raw -O raw -W -m 4 disk.raw "$uri" || fail "$variant: convert in"
    stop
    clean in.qcow2
    same in.qcow2 qcow2 disk.raw
done

# Compressed, encrypted and with a backing file below.
qemu-img create -q -f qcow2 -o compression_type=zlib base.qcow2 48M
qemu-img convert -c -O qcow2 disk.raw base.qcow2
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 80M
qemu-io -c 'write -P 0x55 3M 100k' top.qcow2 > /dev/null
qemu-img convert -O raw top.qcow2 top.raw
serve -r top.qcow2
nbdcopy "$uri" out.raw
cmp out.raw top.raw || fail "a chain differs"
stop
serve top.qcow2
io 'write -P 0x77 5000k 3M' "$uri"
stop
io 'write -P 0x77 5000k 3M' top.raw
clean top.qcow2
same top.qcow2 qcow2 top.raw

printf 'a secret' > secret
qemu-img create -q -f qcow2 --object secret,id=s,file=secret \
    -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 luks.qcow2 64M
serve luks.qcow2 secret-file=secret
nbdcopy disk.raw "$uri"
stop
luks=(--object 'secret,id=s,file=secret' --image-opts)
luks_image=driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=s
qemu-img check -q "${luks[@]}" "$luks_image" || fail "an encrypted image is not clean"
qemu-img convert "${luks[@]}" -O raw "$luks_image" out.raw
cmp out.raw disk.raw || fail "an encrypted image differs"
