# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# From the reports of both programs on an image to the fields in which they differ; lib.sh says how
# a line looks.

def counters: ["check-errors", "corruptions", "leaks", "image-end-offset", "total-clusters",
    "allocated-clusters", "fragmented-clusters", "compressed-clusters"];

# Objects without the counter that is never left out say only why there is no report.
def is_report: type == "object" and has("check-errors");

def outcome(status; report):
    if report | is_report then "exit-\(status)"
    elif status == 124 or status == 137 then "hangs"
    elif status > 124 then "crashes"
    elif status == 63 then "not-supported"
    else "cannot-check" end;

def fields(status; report):
    {exit: status} + ([counters[] as $field | {($field): (report[$field] // "absent")}] | add);

. as $it
| ([.ours.problems? // [] | .[].id] | if . == [] then "-" else join(",") end) as $problems
| if (.ours | is_report) and (.qemu | is_report) then
    fields(.our_status; .ours) as $ours
    | fields(.qemu_status; .qemu) as $qemu
    | $ours | keys_unsorted[] | select($ours[.] != $qemu[.])
    | [$it.name, ., $ours[.], $qemu[.], $problems]
  else
    [outcome(.our_status; .ours), outcome(.qemu_status; .qemu)]
    | select(.[0] != .[1]) | [$it.name, "report", .[0], .[1], $problems]
  end
| map(tostring) | join(" ")
