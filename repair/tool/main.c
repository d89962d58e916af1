/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* qcow2-repair: repairs qcow2 images so that it can be undone, and salvages what cannot be
 * repaired. */

#include "checker/console/say.h"
#include "core/io/standard.h"
#include "repair/tool/commands.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Memory of at least so many bytes goes back to the system when it is freed: an image is checked
 * several times, and each check has large lists. Left alone, the allocator soon keeps them. */
enum { MAPPED_BYTES = 128 << 10 };

static int
act(const struct options *options)
{
    switch (options->action) {
    case ACTION_HELP:
        fputs(repair_options_help, stdout);
        return Q2_EXIT_CLEAN;
    case ACTION_VERSION:
        puts("qcow2-repair (qcow2kit) " QCOW2KIT_VERSION);
        return Q2_EXIT_CLEAN;
    case ACTION_EXPLAIN:
        return command_explain(options);
    case ACTION_UNDO:
        return command_undo(options);
    case ACTION_SALVAGE:
        return command_salvage(options);
    default:
        return command_repair(options);
    }
}

int
main(int argc, char **argv)
{
    struct options options;
    say_program = "qcow2-repair";
    q2_standard_guard();
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
    signal(SIGPIPE, SIG_IGN); /* a reader that has gone is an error like a full disk */
    if (!repair_options_parse(argc, argv, &options))
        return Q2_EXIT_INCOMPLETE;
    int status = act(&options);

    bool failed = ferror(stdout) != 0;
    errno = 0;
    if (fclose(stdout) != 0 || failed) {
        say_error(NULL, "the report could not be written%s%s", errno ? ": " : "",
                  errno ? strerror(errno) : "");
        status = Q2_EXIT_INCOMPLETE;
    }
    return status;
}
