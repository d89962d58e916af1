# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What the tests of qcow2-img share: it does the same as qemu-img, side by side. Each runs as
#   bash TEST.sh QCOW2_CHECK Q2_RECIPE QCOW2_IMG
#
# There are two folders, peer and own, which hold the same files to begin with; commands that change
# something run in each with its program.

# shellcheck source=tests/cli/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
img=$3
export img
need qemu-img
need qemu-io
need jq
touch out err
filter=.     # more that same_info leaves out, for jq
text_filter= # and what is left out of text, for sed
mkdir peer own

# What is compared of the output: JSON by its content, text as it is, without times.
normal()
{
    if [[ "$*" == *--output=json* ]]; then
        jq -S 'walk(if type == "object" then del(."date-sec", ."date-nsec") else . end)'
    else
        sed -E "s/[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}/DATE/${text_filter:-}"
    fi
}

# in FOLDER PROGRAM ARGUMENT...: leaves out and err, prints the exit status.
in_folder()
{
    local folder=$1 got=0
    shift
    (cd "$folder" && "$@") > out 2> err || got=$?
    echo "$got"
}

# compared PEER_FOLDER OWN_FOLDER STATUS ARGUMENT...
compared()
{
    local peer=$1 own=$2 want=$3 got
    shift 3
    got=$(in_folder "$peer" qemu-img "$@")
    [[ $got == "$want" ]] || fail "status $got, not $want: qemu-img $*"
    mv out theirs
    got=$(in_folder "$own" "$img" "$@")
    [[ $got == "$want" ]] || fail "status $got, not $want: qcow2-img $*"
    [[ $want == 0 || -s err || $1 == check || $1 == compare ]] || fail "fails silently: $*"
    [[ $(< err) != *Sanitizer* && $(< err) != *"runtime error"* ]] || fail "sanitizer: $*"
    ! cmp -s theirs out || return 0
    normal "$@" < theirs > expected 2> /dev/null || true
    normal "$@" < out > normalized 2> /dev/null || true
    cmp -s expected normalized ||
        fail "$* prints
$(diff expected normalized)"
}

# look STATUS ARGUMENT...: both programs print the same of the same files.
look() { compared peer peer "$@"; }

# both STATUS ARGUMENT...: each changes its own files, and says the same.
both() { compared peer own "$@"; }

# share COMMAND...: run in the folder peer; what is there afterwards is in own as well.
share()
{
    (cd peer && "$@") > out 2> err || fail "does not run: $*"
    rm -rf own
    cp -a peer own
}

# same NAME...: the images have the same content, and ours are sound.
same()
{
    local name
    for name in "$@"; do
        qemu-img compare -q "peer/$name" "own/$name" || fail "$name has another content"
        qemu-img check -q "own/$name" || fail "qemu-img check dislikes $name"
        "$check" -q "own/$name" || fail "qcow2-check dislikes $name"
    done
}

# same_info NAME...: what info says, but for the space that the file takes.
same_info()
{
    local name theirs ours
    for name in "$@"; do
        theirs=$(qemu-img info --output=json "peer/$name")
        ours=$(qemu-img info --output=json "own/$name")
        ours=${ours//own\//peer/}
        [[ $ours != "$theirs" ]] || continue
        jq -S 'del(."actual-size") | '"$filter" <<< "$theirs" > expected
        jq -S 'del(."actual-size") | '"$filter" <<< "$ours" > got
        cmp -s expected got || fail "$name is another image: $(diff expected got)"
    done
}
