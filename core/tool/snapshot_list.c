/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/tool/snapshot_list.h"

#include "core/format/problem.h"
#include "core/tool/tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static void
print_row(const struct q2_snapshot_info *info)
{
    enum { NAME_SIZE = 4096 };
    char id[NAME_SIZE], name[NAME_SIZE], date[32] = "", clock[32], icount[24] = "";
    time_t seconds = info->date_seconds;
    struct tm local;
    if (localtime_r(&seconds, &local))
        strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &local);
    uint64_t passed = info->vm_clock_nanoseconds / 1000000000;
    snprintf(clock, sizeof clock, "%02" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64,
             passed / 3600, passed / 60 % 60, passed % 60,
             info->vm_clock_nanoseconds / 1000000 % 1000);
    if (info->has_icount)
        snprintf(icount, sizeof icount, "%" PRIu64, info->icount);
    q2_printable(id, sizeof id, info->id, strlen(info->id));
    q2_printable(name, sizeof name, info->name, strlen(info->name));
    printf("%-9s %-16s %8s%20s%13s%11s\n", id, name, tool_size_text(info->vm_state_size).text, date,
           clock, icount);
}

void
snapshot_list_print(const struct q2_image *image)
{
    unsigned count = q2_snapshot_count(image);
    if (count == 0)
        return;
    puts("Snapshot list:");
    printf("%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    for (unsigned i = 0; i < count; i++) {
        struct q2_snapshot_info info;
        q2_snapshot_info(image, i, &info);
        print_row(&info);
    }
}
