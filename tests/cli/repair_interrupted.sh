#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What an interrupted repair leaves is put back by the next one; what fails leaves the image as it
# was; an image in use is left alone. tests/repair interrupts at every write.

# shellcheck source=tests/cli/repair_lib.sh
source "$(dirname "$0")/repair_lib.sh"
make_images
cp leaky.qcow2 unrepaired.qcow2
journal=leaky.qcow2.qcow2kit-undo
before=$(digest leaky.qcow2)

# set_state WORD: as the header of the journal spells it.
set_state() { printf %s "$1" | dd of="$journal" bs=1 seek=16 conv=notrunc status=none; }

mend 0 -q leaky.qcow2
after=$(digest leaky.qcow2)
cp "$journal" kept

# ---- killed after the last write, and half way ----

for half in 0 1; do
    set_state applying
    if ((half)); then
        # The refcount block as it was, the rest as it has become
        dd if=unrepaired.qcow2 of=leaky.qcow2 bs=64K skip=2 seek=2 count=1 conv=notrunc status=none
    fi
    there=$(digest leaky.qcow2)
    mend 1 --dry-run leaky.qcow2
    err_has "interrupted"
    out_is_empty
    same leaky.qcow2 "$there"
    mend 0 leaky.qcow2
    err_has "put back to what it was before"
    out_has "sound, but wastes space: 3 leaks"
    same leaky.qcow2 "$after"
    lists leaky.qcow2 leaky.qcow2.qcow2kit-undo
done
set_state applying
mend 0 -q --undo "$journal"
same leaky.qcow2 "$before"

# An image from elsewhere in its place is left alone, and the way out is named.
set_state applying
cp clean.qcow2 leaky.qcow2
for words in "" "--undo=$journal"; do
    # shellcheck disable=SC2086
    mend 1 $words leaky.qcow2
    err_has "put back from a copy"
    err_has "remove "
    cmp clean.qcow2 leaky.qcow2 || fail "the copy was written to"
done
rm "$journal"
mend 0 leaky.qcow2
cp unrepaired.qcow2 leaky.qcow2
mend 0 -q leaky.qcow2
same leaky.qcow2 "$after"
rm leaky.qcow2.*

# Somewhere else, it has to be named again.
cp kept elsewhere
printf applying | dd of=elsewhere bs=1 seek=16 conv=notrunc status=none
cp unrepaired.qcow2 clone.qcow2
mend 1 --journal=elsewhere clone.qcow2 # is not what it is for
err_has "remove it"
cmp unrepaired.qcow2 clone.qcow2 || fail "the clone was written to"
mend 0 --journal=elsewhere leaky.qcow2
err_has "put back to what it was before"
same leaky.qcow2 "$after"
mend 0 -q --undo=elsewhere leaky.qcow2
same leaky.qcow2 "$before"

# ---- killed while the journal was made ----

cp kept "$journal"
set_state "prepare "
mend 1 --undo "$journal"
err_has "nothing has been written"
same leaky.qcow2 "$before"
: > leaky.qcow2.qcow2kit-undo.3
mend 0 leaky.qcow2
err_is_empty
same leaky.qcow2 "$after"
lists leaky.qcow2 leaky.qcow2.qcow2kit-undo

# One that was named, by the same command
cp unrepaired.qcow2 leaky.qcow2
rm leaky.qcow2.*
head -c 5000 kept > incomplete
printf 'prepare ' | dd of=incomplete bs=1 seek=16 conv=notrunc status=none
: > empty
for name in incomplete empty; do
    mend 0 -q --journal="$name" leaky.qcow2
    same leaky.qcow2 "$after"
    mend 0 -q --undo="$name" leaky.qcow2
    same leaky.qcow2 "$before"
done
mend 0 -q leaky.qcow2

# ---- journals that are none ----

printf 'x' | dd of="$journal" bs=1 seek=4200 conv=notrunc status=none
mend 1 --undo "$journal"
same leaky.qcow2 "$after"
set_state applying
mend 0 leaky.qcow2
err_has "left alone"
same leaky.qcow2 "$after"
echo "a letter" > "$journal"
mend 0 leaky.qcow2
err_has "left alone"
[[ $(< "$journal") == "a letter" ]] || fail "the file is gone"
rm "$journal"

# ---- undone too late ----

cp kept "$journal"
"$img" io -c "write -P 0x77 0 64k" leaky.qcow2 > out 2> err
there=$(digest leaky.qcow2)
mend 1 --undo "$journal"
err_has "--force"
same leaky.qcow2 "$there"
mend 0 --force --undo "$journal"
rm "$journal"

# ---- no room for the journal, no room for the image ----

cp unrepaired.qcow2 leaky.qcow2
limited() # KiB: through a pipe, which has no limit
{
    local message
    message=$(
        trap '' XFSZ
        ulimit -f "$1"
        "$repair" leaky.qcow2 2>&1 > /dev/null
    ) && fail "it was written past the limit"
    echo "$message" > err
    err_has "qcow2-repair: leaky.qcow2"
    same leaky.qcow2 "$before"
}

for limit in 0 3 4; do
    limited "$limit"
    lists leaky.qcow2
done
# There is room for the journal, but the image can be written neither to nor rolled back.
limited 100
err_has "run qcow2-repair again"
lists leaky.qcow2 leaky.qcow2.qcow2kit-undo
mend 0 leaky.qcow2
err_has "put back to what it was before"
same leaky.qcow2 "$after"
lists leaky.qcow2 leaky.qcow2.qcow2kit-undo
mend 0 -q --undo "$journal"
rm "$journal"
mend 1 --journal=absent/undo leaky.qcow2
err_has "absent/undo"
err_has "nothing was written"
same leaky.qcow2 "$before"
mend 0 --journal=absent/undo clean.qcow2

# ---- in use ----

need qemu-io
mkfifo commands
qemu-io -f qcow2 leaky.qcow2 < commands > answers 2>&1 &
exec 3> commands
echo length >&3
for _ in $(seq 100); do
    ! grep -q GiB answers || break
    sleep 0.1
done
mend 1 leaky.qcow2
err_has "another process"
mend 1 --dry-run leaky.qcow2
err_has "another process"
out_is_empty
lists leaky.qcow2
exec 3>&-
wait
mend 0 -q leaky.qcow2
