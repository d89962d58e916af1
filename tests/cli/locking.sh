#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# An image that a virtual machine has open is refused, unless the user insists.

# shellcheck source=tests/cli/lib.sh
source "$(dirname "$0")/lib.sh"
need qemu-io
make_images

# qemu-io holds QEMU's locks for as long as its input lasts; its answer says that it has them. Not
# before: a check that runs while it opens the image would keep it out.
mkfifo commands
qemu-io clean.qcow2 < commands > answers 2>&1 &
exec 3> commands
echo length >&3
for _ in $(seq 100); do
    ! grep -q GiB answers || break
    sleep 0.1
done
run 1 clean.qcow2
err_has "another process"
err_has "--force-share"
out_is_empty
run 0 --force-share clean.qcow2
exec 3>&-
wait
run 0 clean.qcow2
