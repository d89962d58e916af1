#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# --owner: what uses a cluster of the file.

# shellcheck source=tests/cli/lib.sh
source "$(dirname "$0")/lib.sh"
need jq

cat > recipe << 'END'
version 3
cluster-size 64K
size 1G
write 0 64K 0x11
snapshot "before"
write 64K 64K 0x22
leak 1
END
"$recipe" recipe image.qcow2
"$recipe" --list-fields recipe > fields

# The host offset that a field of the image holds.
field()
{
    sed -n "s/^[^ ]* *$1 = //p" fields
}

run 0 --owner="$(field 'header\.l1_table_offset')" image.qcow2
out_has "L1 table (active)"
out_has "Its refcount is 1."
run 0 --owner=0 image.qcow2
out_has "image header"
run 0 --owner="$(field 'l2\[0\]\[1\]\.offset')" image.qcow2
out_has "guest data, guest 64K-128K (active)"
run 0 --owner="$(field 'l2\[0\]\[0\]\.offset')" --output=json image.qcow2
jq_is .refcount 2
jq_is '[.owners[].maps[]] | length' 2
jq_is '.owners[0]."guest-offset"' 0

# Any offset in a cluster stands for it.
run 0 --owner=65537 image.qcow2
out_has "cluster at host 0x10000-0x20000"
out_has "refcount table"

# Nobody's clusters: leaked, and past the end.
size=$(stat -c %s image.qcow2)
leaked=
for ((offset = 0; offset < size; offset += 65536)); do
    run 0 --owner=$offset image.qcow2
    ! grep -q "  nothing" out || leaked=$offset
done
[[ $leaked ]] || fail "no cluster is leaked"
run 0 --owner="$leaked" image.qcow2
out_has "it is leaked"
run 0 --owner="$leaked" --output=json image.qcow2
jq_is '.owners | length' 0
run 1 --owner=1T image.qcow2
err_has "the file ends at"

# Where the header does not say how large clusters are, none has an owner.
echo 'header.cluster_bits = 40' >> recipe
"$recipe" recipe broken.qcow2
run 1 --owner=0 broken.qcow2
err_has "does not say how large clusters are"

# A cluster in use that nothing protects.
sed -i '$d' recipe
echo 'refcount[1] = 0' >> recipe
"$recipe" recipe broken.qcow2
run 0 --owner=64K broken.qcow2
out_has "the next allocation may overwrite it"
