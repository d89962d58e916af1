/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* qcow2-img: makes, shows, changes and copies disk images; spelled as `qemu-img` is. */

#include "core/io/standard.h"
#include "core/tool/tool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static void
print_help(void)
{
    puts("Usage: qcow2-img COMMAND [OPTION]... ARGUMENT...\n"
         "Makes, shows, changes and copies disk images of the formats qcow2 and raw. Commands and\n"
         "options are those of qemu-img.\n");
    for (const struct tool_command *const *command = tool_commands; *command; command++)
        printf("  %-9s %s\n", (*command)->name, (*command)->help);
    puts("\nqcow2-img COMMAND --help lists the command's options; -V, --version: the version.\n"
         "More: man qcow2-img");
}

static int
run_command(int argc, char **argv)
{
    for (const struct tool_command *const *command = tool_commands; *command; command++)
        if (strcmp((*command)->name, argv[0]) == 0)
            return (*command)->run(argc, argv);
    return tool_say_usage("there is no command '%s'", argv[0]);
}

static int
run(int argc, char **argv)
{
    if (argc < 2)
        return tool_say_usage("no command is named");
    const char *first = argv[1];
    if (strcmp(first, "-h") == 0 || strcmp(first, "--help") == 0) {
        print_help();
        return TOOL_OK;
    }
    if (strcmp(first, "-V") == 0 || strcmp(first, "--version") == 0) {
        puts("qcow2-img (qcow2kit) " QCOW2KIT_VERSION);
        return TOOL_OK;
    }
    if (first[0] == '-')
        return tool_say_usage("a command comes first, not the option '%s'", first);
    return run_command(argc - 1, argv + 1);
}

int
main(int argc, char **argv)
{
    q2_standard_guard();
    signal(SIGPIPE, SIG_IGN); /* a reader that has gone is an error like a full disk */
    int status = run(argc, argv);

    bool failed = ferror(stdout) != 0;
    errno = 0;
    if (fclose(stdout) != 0 || failed) {
        tool_say("the output could not be written%s%s", errno ? ": " : "",
                 errno ? strerror(errno) : "");
        status = status ? status : TOOL_FAILED;
    }
    return status;
}
