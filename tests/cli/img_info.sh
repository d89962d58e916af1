#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# info, map, snapshot -l, check: what is printed equals what qemu-img prints.

# shellcheck source=tests/cli/img_lib.sh
source "$(dirname "$0")/img_lib.sh"

make()
{
    local name=$1
    shift
    (cd peer && qemu-img create -q -f qcow2 "$@" "$name" 20M)
}

write() { (cd peer && qemu-io "$@" > /dev/null); }

printf 'secret' > peer/key
secret=(--object "secret,id=s,file=key")

make plain.qcow2
write -c "write 0 128k" -c "write 1M 64k" -c "write -z 2M 1M" -c "write -z -u 4M 64k" plain.qcow2
make old.qcow2 -o compat=0.10,cluster_size=512
write -c "write 2k 2k" -c "write 1M 512" old.qcow2
make wide.qcow2 -o refcount_bits=64,lazy_refcounts=on,compression_type=zstd,cluster_size=2M
make extended.qcow2 -o extended_l2=on
write -c "write 0 64k" -c "write -c 2M 64k" extended.qcow2
make data.qcow2 -o data_file=data.raw,data_file_raw=on
write -c "write 1M 64k" -c "write -z 3M 1M" data.qcow2
make reserved.qcow2 -o preallocation=metadata
write -c "write 2k 2k" reserved.qcow2
make aes.qcow2 "${secret[@]}" -o encrypt.format=aes,encrypt.key-secret=s
make luks.qcow2 "${secret[@]}" -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10
make essiv.qcow2 "${secret[@]}" -o "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,\
encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,\
encrypt.ivgen-hash-alg=sha256,encrypt.hash-alg=sha1"
truncate -s 20M peer/raw
write -f raw -c "write 1M 64k" -c "write 10M 1M" raw
make over.qcow2 -b plain.qcow2 -F qcow2
write -c "write 64k 64k" -c "write -c 5M 64k" over.qcow2
make top.qcow2 -b over.qcow2 -F qcow2
write -c "write 10M 10k" top.qcow2
make over-raw.qcow2 -b raw -F raw
(
    cd peer || exit
    mkdir folder
    qemu-img create -q -f qcow2 -b "../plain.qcow2" -F qcow2 folder/below.qcow2
    qemu-img create -q -f qcow2 -b "$PWD/plain.qcow2" -F qcow2 folder/absolute.qcow2
    qemu-img snapshot -c first over.qcow2
    qemu-img snapshot -c "a longer name than the column" over.qcow2
    qemu-img bitmap --add over.qcow2 everything
    qemu-img bitmap --add --disable -g 4k over.qcow2 "two words"
    qemu-img create -q -f qcow2 empty.qcow2 0
    qemu-img create -q -f qcow2 -u -b missing.qcow2 -F qcow2 lonely.qcow2 1M
)

for name in plain old wide extended data reserved over top over-raw empty folder/below \
    folder/absolute; do
    for form in human json; do
        look 0 info --output=$form $name.qcow2
        look 0 info --output=$form --backing-chain $name.qcow2
        look 0 map --output=json $name.qcow2
        look 0 map --output=json -s 64k -l 5M $name.qcow2
    done
    look 0 check $name.qcow2
    look 0 snapshot -l $name.qcow2
done
for name in plain old reserved; do
    look 0 map $name.qcow2
    look 0 map --start-offset=1M --max-length=64k $name.qcow2
done
look 1 map top.qcow2
for name in aes luks essiv; do
    look 0 info $name.qcow2
    look 0 info --output=json $name.qcow2
done
look 0 info raw
look 0 info --output=json -f raw raw
look 0 map --output=json raw
look 0 map raw
look 0 info lonely.qcow2
look 1 info --backing-chain lonely.qcow2
look 0 info -U plain.qcow2
look 0 map -U --output=json plain.qcow2
look 63 check raw
look 63 check -f raw plain.qcow2
look 0 check -q plain.qcow2
look 1 check missing.qcow2
look 1 info -f qcow2 raw
look 1 info -f nonsense plain.qcow2
look 1 info --output=xml plain.qcow2
look 1 info
look 1 info plain.qcow2 old.qcow2
look 1 map --start-offset=x plain.qcow2
look 0 map --start-offset=21M --output=json plain.qcow2
look 0 snapshot -l raw
TZ=Asia/Tokyo look 0 snapshot -l over.qcow2

# By options, and through their secrets.
look 0 map --output=json "${secret[@]}" --image-opts \
    driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=s
look 1 map --image-opts driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=t
look 0 map --output=json --image-opts \
    driver=qcow2,file.filename=over.qcow2,backing.driver=qcow2,backing.file.filename=old.qcow2
look 0 map --output=json --image-opts driver=raw,file.filename=over.qcow2
look 1 info --image-opts driver=qcow2,file.filename=missing.qcow2
look 0 map --output=json \
    'json:{"driver":"qcow2","file":{"driver":"file","filename":"over.qcow2"}}'
look 0 map 'json:{"driver":"raw","file.filename":"over.qcow2"}'
look 1 map 'json:{"driver":"qcow2"'
[[ $(in_folder peer "$img" info --object secret,id=s,data=hidden plain.qcow2) == 1 ]] ||
    fail "takes a pass phrase from the command line"
err_has "all users of this machine can read"
[[ $(in_folder peer "$img" map --secret-fd id=s,fd=5 --image-opts \
    driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=s 5< peer/key) == 0 ]] ||
    fail "does not take a pass phrase from a descriptor"

# The sums of damaged images.
make_images
cp damaged.qcow2 leaky.qcow2 peer
[[ $(in_folder peer "$img" check leaky.qcow2) == 3 ]] || fail "no leaks"
out_has "3 leaked clusters were found on the image."
[[ $(in_folder peer "$img" check damaged.qcow2) == 2 ]] || fail "no corruption"
out_has "1 errors were found on the image."
out_has "l2-entry-past-end"
[[ $(in_folder peer "$img" check --output=json damaged.qcow2) == 2 ]] || fail "no corruption"
jq_is .corruptions 1
[[ $(in_folder peer "$img" check -r all leaky.qcow2) == 1 ]] || fail "repairs"
err_has "qcow2-repair"
