/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "tests/cases/folder.h"

#include "core/base/cleanup.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

_Noreturn void
folder_die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

char *
folder_read(const char *folder, const char *name, size_t *ret_length)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    if (!file)
        return NULL;
    char *text = NULL;
    size_t room = 0;
    ssize_t length = getdelim(&text, &room, '\0', file);
    fclose(file);
    if (ret_length)
        *ret_length = length > 0 ? (size_t)length : 0;
    return length > 0 ? text : (free(text), strdup(""));
}

void
folder_options(const char *folder, struct folder_options *setup)
{
    Q2_AUTOFREE char *text = folder_read(folder, "options", NULL);
    char *rest = text;
    for (char *line; rest && (line = strsep(&rest, "\n")) != NULL;) {
        char word[32] = "";
        uint64_t a = 0, b = 0;
        if (sscanf(line, "%31s %" SCNi64 " %" SCNi64, word, (int64_t *)&a, (int64_t *)&b) < 1)
            continue;
        if (strcmp(word, "deep") == 0)
            setup->check.deep = true;
        else if (strcmp(word, "chain") == 0)
            setup->chain = true;
        else if (strcmp(word, "max-memory") == 0)
            setup->check.max_memory = a;
        else if (strcmp(word, "max-work") == 0)
            setup->check.max_work = a;
        else if (strcmp(word, "max-details") == 0)
            setup->check.max_details = a;
        else if (strcmp(word, "threads") == 0)
            setup->check.threads = (unsigned)a;
        else if (strcmp(word, "now") == 0)
            setup->check.now = a;
        else if (strcmp(word, "fault") == 0 || strcmp(word, "fault-once") == 0)
            setup->fault = (struct q2_fault_plan){.kind = Q2_FAULT_EIO,
                                                  .ops = Q2_FAULT_READ,
                                                  .nth = strcmp(word, "fault") != 0,
                                                  .permanent = strcmp(word, "fault") == 0,
                                                  .offset = a,
                                                  .length = b};
        else
            folder_die(folder, line);
    }
}
