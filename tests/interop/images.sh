# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Images as QEMU makes them: a base (what `qemu-img create` is asked for) and a history (what then
# happens to the image). Every base meets every history that it can have. Sourced behind lib.sh.

# shellcheck disable=SC2154 # the variables of the image are the test's

readonly secret=(--object "secret,id=key,data=open sesame")

# NAME CLUSTER SIZE OPTIONS. Disks reach into a second L2 table where that stays cheap; few sizes are
# a whole number of clusters. Bases named tiny-* are disks of a cluster or so.
bases()
{
    local bits
    cat << 'END'
v2 64K 1100M compat=0.10
v2-512 512 301K compat=0.10
v2-4k 4K 5M compat=0.10
v2-2m 2M 50M compat=0.10
v3 64K 1100M compat=1.1
v3-512 512 200K compat=1.1
v3-1k 1K 333K compat=1.1
v3-4k 4K 5M compat=1.1
v3-16k 16K 70001K compat=1.1
v3-256k 256K 9G compat=1.1
v3-1m 1M 31M compat=1.1
v3-2m 2M 600G compat=1.1
zstd-512 512 100K compression_type=zstd
zstd 64K 30000K compression_type=zstd
zstd-2m 2M 50M compression_type=zstd
extended-16k 16K 10M extended_l2=on
extended 64K 300M extended_l2=on
extended-2m 2M 130M extended_l2=on
extended-zstd 32K 10M extended_l2=on,compression_type=zstd,refcount_bits=8
lazy 64K 10M lazy_refcounts=on
lazy-512 512 100K lazy_refcounts=on
luks 64K 10M encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10
luks-512 512 100K encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10
luks-extended 64K 10M extended_l2=on,encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10
aes 64K 10M encrypt.format=aes,encrypt.key-secret=key
aes-v2 4K 1M compat=0.10,encrypt.format=aes,encrypt.key-secret=key
data 64K 1100M data_file=DATA
data-4k 4K 5M data_file=DATA,refcount_bits=64
data-extended 64K 10M data_file=DATA,extended_l2=on
data-raw 64K 10M data_file=DATA,data_file_raw=on
data-raw-512 512 100K data_file=DATA,data_file_raw=on
metadata 64K 10001K preallocation=metadata
metadata-512 512 100K preallocation=metadata
metadata-v2 4K 1M compat=0.10,preallocation=metadata
metadata-extended 16K 3M preallocation=metadata,extended_l2=on
metadata-luks 64K 4M preallocation=metadata,encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10
metadata-data 64K 10M preallocation=metadata,data_file=DATA
falloc 64K 5M preallocation=falloc
full 64K 5M preallocation=full
full-512 512 100K preallocation=full
everything 16K 10M extended_l2=on,compression_type=zstd,lazy_refcounts=on,refcount_bits=32
tiny-zero 64K 0 compat=1.1
tiny-zero-v2 64K 0 compat=0.10
tiny-zero-data 64K 0 data_file=DATA
tiny-sector 64K 512 compat=1.1
tiny-one 64K 64K compat=1.1
tiny-one-512 512 512 compat=1.1
tiny-one-2m 2M 2M compat=1.1
tiny-one-v2 512 512 compat=0.10
tiny-extended 64K 2048 extended_l2=on
tiny-luks 64K 64K encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10
END
    for bits in 1 2 4 8 32 64; do
        echo "refcounts-$bits 64K 1100M refcount_bits=$bits"
        echo "refcounts-$bits-512 512 200K refcount_bits=$bits"
    done
}

histories="untouched written random random2 zeroed compressed converted resized bitmaps
    snapshots deleted applied vmstate overlay committed rebased amended killed"
tiny_histories="untouched filled killed"

# can FEATURE: whether QEMU lets an image with $options have it.
can()
{
    case $1:$options in
    snapshots:*data_file=* | compressed:*data_file=* | compressed:*encrypt.*) false ;;
    compressed:*preallocation=*) false ;;
    snapshots:*refcount_bits=1) false ;;
    bitmaps:*compat=0.10*) false ;;
    backing:*data_file_raw=on* | backing:*preallocation=* | backing:*format=luks*) false ;;
    esac
}

# fits NAME HISTORY: whether an image with $options can go through that.
fits()
{
    case $1:$2 in
    tiny-*) [[ " $tiny_histories " == *" $2 "* ]] ;;
    *:filled) false ;;
    *:compressed | *:bitmaps) can "$2" ;;
    *:snapshots | *:deleted | *:vmstate) can snapshots ;;
    *:applied) can snapshots && [[ $options != *refcount_bits=2 ]] ;;
    *:overlay | *:committed) can backing ;;
    *:rebased) can backing && [[ $options != *encrypt.* ]] ;;
    esac
}

# Bases that go through every history; the others only through every sixth one, each through others
# than its neighbours, unless QCOW2KIT_TEST_ALL is set.
all_histories="v2 v3-512 extended data refcounts-64-512"

# Each image of the matrix: NAME CLUSTER SIZE OPTIONS HISTORY.
matrix()
{
    local name cluster size options history number=0 every=${QCOW2KIT_TEST_ALL:+1}
    every=${every:-6}
    while read -r name cluster size options; do
        for history in $histories filled; do
            number=$((number + 1))
            fits "$name" "$history" || continue
            [[ $name == tiny-* || " $all_histories " == *" $name "* ]] || ((number % every == 0)) ||
                continue
            echo "$name $(bytes "$cluster") $(bytes "$size") $options $history"
        done
    done < <(bases)
}

bytes()
{
    case $1 in
    *K) echo $((${1%K} << 10)) ;;
    *M) echo $((${1%M} << 20)) ;;
    *G) echo $((${1%G} << 30)) ;;
    *) echo "$1" ;;
    esac
}

# ---- doing things to $image, which is of $size bytes with clusters of $cluster ----

# A step that has to succeed.
must()
{
    "$@" > log 2>&1 || {
        complain "$name-$history: $* fails: $(< log)"
        exit 1
    }
}

# How QEMU opens a file of this image.
spec()
{
    local spec=driver=qcow2,discard=unmap,file.filename=$1
    [[ $options != *encrypt.* ]] || spec+=,encrypt.key-secret=key
    echo "$spec"
}

img()
{
    local command=$1
    shift
    must timeout 120 qemu-img "$command" "${secret[@]}" "$@"
}

# io QEMU_IO_COMMAND...
io()
{
    local command list=()
    for command; do
        list+=(-c "$command")
    done
    must timeout 60 qemu-io "${secret[@]}" --image-opts "${list[@]}" "$(spec "$image")"
}

# create FILE SIZE [qemu-img arguments]
create()
{
    local file=$1 bytes=$2
    shift 2
    img create -q -f qcow2 -o "cluster_size=$cluster,${options//DATA/$file.data}" "$@" \
        "$file" "$bytes"
}

# The same, once only for each base with LUKS: QEMU takes seconds to measure how fast it can hash.
create_once()
{
    if [[ $options == *format=luks* ]]; then
        [[ -e $name.luks ]] || create "$name.luks" "$size"
        cp "$name.luks" "$image"
    else
        create "$image" "$size"
    fi
}

snapshot() { img snapshot "$1" "$2" --image-opts "$(spec "$image")"; }
resize() { img resize "$@"; }
bitmap() { img bitmap --image-opts "$@"; }

# Writes that begin and end anywhere, and at both ends of the disk and of an L2 table.
some_writes()
{
    local table=$((cluster * cluster / 16))
    ((table + 2 * cluster < size)) || table=$((cluster * 4))
    io "write -P 1 0 $((2 * cluster))" "write -P 2 $((cluster * 3 - 512)) 1024" \
        "write -P 3 $((table - cluster)) $((2 * cluster))" \
        "write -P 4 $((size - 512)) 512" "write -P 5 $cluster 512"
}

# ---- histories ----

history_untouched() { :; }

history_written() { some_writes; }

# Sets `at` to a position where something interesting may happen. (No subshell: that would draw other
# random numbers.)
choose_place()
{
    local table=$((cluster * cluster / 8))
    case $((RANDOM % 3)) in
    0) at=0 ;;
    1) at=$((table + 4 * cluster < size ? table - 2 * cluster : 0)) ;;
    *) at=$((size - 5 * cluster)) ;;
    esac
    at=$(((at + (RANDOM << 15 | RANDOM) % (4 * cluster)) / 512 * 512))
}

# Sets `command`. Each cluster is written compressed once at most: QEMU refuses the second time.
choose_command()
{
    local at length pattern=$((RANDOM % 256))
    choose_place
    length=$(((RANDOM % 3 + 1) * (RANDOM % 2 ? cluster : 512)))
    length=$((at + length > size ? size - at : length))
    case $((RANDOM % 8)) in
    0) command="write -z $at $length" ;;
    1) command="write -z -u $at $length" ;;
    2) command="discard $at $length" ;;
    3) command="aio_write -P $pattern $at $length" ;;
    4)
        command="write -P $pattern $((16 * cluster)) 512"
        ! can compressed || command="write -c -P $pattern $((compressed++ * cluster)) $cluster"
        ;;
    *) command="write -P $pattern $at $length" ;;
    esac
}

history_random()
{
    local round i command commands compressed=8
    RANDOM=${1:-1}
    for round in 1 2 3; do
        commands=()
        for ((i = 0; i < 8; i++)); do
            choose_command
            commands+=("$command")
        done
        io "${commands[@]}" aio_flush
        ((round == 3)) || snapshot_if_possible "round-$round"
    done
}

history_random2() { history_random 2; }

history_zeroed()
{
    some_writes
    io "write -z 0 $cluster" "write -z -u $cluster $cluster" "discard $((2 * cluster)) $cluster" \
        "write -z $((size - cluster)) $cluster" "write -P 9 $((4 * cluster)) $((2 * cluster))" \
        "discard $((4 * cluster)) $cluster" "write -z $((7 * cluster + 512)) 512"
}

history_compressed()
{
    local i commands=()
    for i in 0 1 2 3 5 8; do
        commands+=("write -c -P $((i + 1)) $((i * cluster)) $cluster")
    done
    commands+=("write -c -P 99 $((size / cluster * cluster)) $((size % cluster))")
    ((size % cluster)) || unset "commands[-1]"
    io "${commands[@]}" "write -P 50 $((2 * cluster)) 512" "discard $((3 * cluster)) $cluster"
    io "write -c -P 60 $((9 * cluster)) $((3 * cluster))" "discard 0 $cluster" \
        "write -c -P 61 0 $cluster"
    snapshot_if_possible a
    io "write -P 51 $cluster 512" "write -c -P 52 $((15 * cluster)) $cluster"
}

# Refcounts of two bits cannot count snapshots and compressed clusters together.
snapshot_if_possible()
{
    ! can snapshots || [[ $options == *refcount_bits=2 ]] || snapshot -c "$1"
}

history_converted()
{
    local arguments=()
    must qemu-img create -q -f raw "$image.raw" "$size"
    must qemu-io -f raw -c "write -P 1 0 $((5 * cluster))" -c "write -P 0 $cluster $cluster" \
        -c "write -P 3 $((size - 1024)) 512" "$image.raw"
    if can compressed; then
        arguments+=(-c)
    else
        arguments+=(-W -m 4)
    fi
    img convert -n -f raw "${arguments[@]}" --target-image-opts "$image.raw" "$(spec "$image")"
}

history_resized()
{
    local grown=$((size + 9 * cluster + 512))
    some_writes
    resize --image-opts "$(spec "$image")" "$grown"
    io "write -P 7 $((grown - 512)) 512" "write -P 8 $((size)) 512"
    resize --shrink --image-opts "$(spec "$image")" $((6 * cluster + 1024))
    if [[ $options != *data_file_raw* ]]; then
        resize --preallocation=metadata --image-opts "$(spec "$image")" $((20 * cluster))
    fi
    io "write -P 9 $((5 * cluster)) $((cluster + 512))"
}

history_bitmaps()
{
    local target fine=512
    ((size < 1 << 30)) || fine=$cluster
    target=$(spec "$image")
    bitmap --add "$target" one
    bitmap --add -g "$fine" "$target" fine
    bitmap --add --disable -g $((1 << 20)) "$target" coarse
    some_writes
    bitmap --disable "$target" one
    bitmap --add "$target" "$(printf 'n%.0s' {1..900})"
    io "write -P 9 0 512"
    bitmap --enable "$target" one
    bitmap --merge fine "$target" coarse
    bitmap --clear "$target" fine
    bitmap --add "$target" gone
    io "write -P 8 $((2 * cluster)) 512"
    bitmap --remove "$target" gone
}

history_snapshots()
{
    some_writes
    snapshot -c before
    io "write -P 9 0 512" "discard $cluster $cluster" "write -z $((3 * cluster)) $cluster"
    snapshot -c "a longer name with blanks"
    [[ $options == *refcount_bits=2 ]] || snapshot -c "nothing between"
}

history_deleted()
{
    history_snapshots
    snapshot -d before
    io "write -P 10 $((3 * cluster)) 512"
}

history_applied()
{
    history_snapshots
    snapshot -a before
    io "write -P 11 512 512"
    snapshot -d before
}

history_vmstate()
{
    some_writes
    io "write -b -P 12 0 $((2 * cluster))" "write -b -P 13 $((3 * cluster)) 512"
    snapshot -c suspended
    io "write -P 14 0 512" "write -b -P 15 0 $cluster"
    snapshot -c again
    snapshot -d suspended
}

# Small enough to be compared byte by byte.
small_disk()
{
    size=$((16 * cluster + 512))
    rm -f "$image" "$image.data"
}

history_overlay()
{
    small_disk
    must qemu-img create -q -f raw base.raw $((size + 3 * cluster))
    must qemu-io -f raw -c "write -P 77 0 $((3 * cluster))" base.raw
    create "$image" "$size" -b base.raw -F raw
    io "write -P 1 512 512" "write -z $cluster 1024" "discard $((2 * cluster)) $cluster" \
        "write -P 2 $((size - 512)) 512" "write -z -u $((4 * cluster)) $cluster"
    snapshot_if_possible a
    io "write -P 3 0 512"
}

# A chain of two images; the image below is shorter. $image is the upper one afterwards.
make_chain()
{
    small_disk
    create base.qcow2 $((6 * cluster))
    must qemu-io "${secret[@]}" --image-opts -c "write -P 5 0 $((3 * cluster))" "$(spec base.qcow2)"
    create "$image" "$size" -b "$(json_name base.qcow2)" -F qcow2
    io "write -P 1 $((2 * cluster + 512)) $cluster"
}

# A name that a backing file can be opened by: with its key, where it needs one.
json_name()
{
    if [[ $options == *encrypt.* ]]; then
        printf 'json:{"driver":"qcow2","encrypt":{"format":"%s","key-secret":"key"},"file":{"driver":"file","filename":"%s"}}' \
            "$(sed -E 's/.*encrypt.format=([a-z]*).*/\1/' <<< "$options")" "$1"
    else
        echo "$1"
    fi
}

history_committed()
{
    make_chain
    img commit -q --image-opts "$(spec "$image")"
    cp base.qcow2 committed.qcow2
    examine "$name-committed-base" base.qcow2 "${secret[@]}" --image-opts "$(spec base.qcow2)"
}

history_rebased()
{
    make_chain
    must qemu-img create -q -f raw other.raw $((9 * cluster))
    img rebase -q -b other.raw -F raw --image-opts "$(spec "$image")"
    io "write -P 6 0 512"
    img rebase -q -b "" --image-opts "$(spec "$image")"
}

# What cannot be amended of an image is refused and does no harm.
history_amended()
{
    local change
    some_writes
    for change in compat=1.1 lazy_refcounts=on refcount_bits=32 refcount_bits=8 refcount_bits=16 \
        size=$((size + 512)) compat=0.10; do
        # Widths are a matter of minutes for large refcount blocks.
        [[ $change != refcount_bits=* ]] || ((cluster <= 4096)) || continue
        qemu-img amend "${secret[@]}" --image-opts -o "$change" "$(spec "$image")" \
            > log 2>&1 || true
    done
    if [[ $name == luks ]]; then
        img amend -o encrypt.state=active,encrypt.new-secret=key,encrypt.iter-time=10 \
            --image-opts "$(spec "$image")"
    fi
    io "write -P 7 0 512"
}

# The program dies with its caches full: whatever is left, both say the same of it.
history_killed()
{
    local at=0
    ((size < 4 * cluster)) || at=$((size - cluster))
    if ((size)); then
        ! can bitmaps || bitmap --add "$(spec "$image")" interrupted
        {
            qemu-io "${secret[@]}" --image-opts -c "write -P 1 0 512" -c flush \
                -c "write -P 2 $at 512" -c abort "$(spec "$image")" || true
        } > log 2>&1
    fi
}

# All that a disk of a cluster or so can go through.
history_filled()
{
    if ((size)); then
        io "write -P 1 0 $size"
        snapshot_if_possible a
        io "write -z 0 $size" "discard 0 $size" "write -P 2 0 512"
    fi
    ! can bitmaps || bitmap --add "$(spec "$image")" one
    snapshot_if_possible b
    [[ $options == *compat=0.10* ]] ||
        resize --image-opts "$(spec "$image")" $((size + 3 * cluster))
}
