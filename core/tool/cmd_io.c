/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* qcow2-img io: do what lines say to an image, as `qemu-io` does. A line that fails does not keep
 * the next ones from being run; the exit status says that one did. */

#include "core/tool/io.h"
#include "core/tool/parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORDS_MAX = 1024 };

struct session {
    struct io io;
    char **lines; /* -c; NULL: none */
    size_t count;
    bool failed;
};

static int run(int argc, char **argv);

const struct tool_command tool_command_io = {
    .name = "io",
    .usage = "[-f FORMAT | --image-opts] [-r] [-U] [-t CACHE] [-c COMMAND]... [IMAGE]",
    .help = "read and write single requests, one for each line",
    .run = run,
};

/* Cut a line at its blanks. Returns the number of words, which end with NULL. */
static int
split(char *line, char **words)
{
    int count = 0;
    char *rest = line;
    for (char *word; count < WORDS_MAX - 1 && (word = strsep(&rest, " \t\r\n"));)
        if (*word)
            words[count++] = word;
    words[count] = NULL;
    return count;
}

static bool
has_right_count(const struct io_command *command, int count)
{
    if (count >= command->least && (command->most < 0 || count <= command->most))
        return true;
    if (command->most < 0)
        tool_say("bad argument count %d to %s, expected at least %d arguments", count,
                 command->name, command->least);
    else if (command->least == command->most)
        tool_say("bad argument count %d to %s, expected %d arguments", count, command->name,
                 command->least);
    else
        tool_say("bad argument count %d to %s, expected between %d and %d arguments", count,
                 command->name, command->least, command->most);
    return false;
}

static bool
run_words(struct io *io, int count, char **words)
{
    const struct io_command *command = io_command_find(words[0]);
    char name[32];
    if (!command) {
        tool_say("command \"%s\" not found", words[0]);
        return false;
    }
    if ((command->flags & IO_NEEDS_DISK) && !io->disk) {
        tool_say("no file open, try 'help open'");
        return false;
    }
    if (!has_right_count(command, count - 1))
        return false;
    if ((command->flags & IO_WRITES) && !(io->flags & Q2_IMAGE_WRITE)) {
        tool_say("the image is open for reading only");
        return false;
    }
    snprintf(name, sizeof name, "%s", command->name);
    words[0] = name; /* which may have been said shorter */
    return command->run(io, count, words);
}

static void
run_line(struct session *session, char *line)
{
    char *words[WORDS_MAX];
    int count = split(line, words);
    if (count > 0 && !run_words(&session->io, count, words))
        session->failed = true;
    fflush(stdout);
}

static void
run_input(struct session *session)
{
    char *line = NULL;
    size_t size = 0;
    bool terminal = isatty(STDIN_FILENO);
    while (!session->io.done) {
        if (terminal) {
            fputs("qcow2-img> ", stdout);
            fflush(stdout);
        }
        if (getline(&line, &size, stdin) < 0)
            break;
        run_line(session, line);
    }
    free(line);
}

static bool
set_option(void *data, int option)
{
    struct session *session = data;
    if (option == 'r') {
        session->io.flags &= ~(unsigned)Q2_IMAGE_WRITE;
        return true;
    }
    char **lines = realloc(session->lines, (session->count + 1) * sizeof *lines);
    if (!lines) {
        tool_say("out of memory");
        return false;
    }
    session->lines = lines;
    lines[session->count++] = optarg;
    return true;
}

static int
run_parsed(struct session *session, int count, char **names)
{
    struct io *io = &session->io;
    if (count > 1)
        return tool_say_usage("Expecting one image file name");
    io->name = names[0];
    io->flags |= tool_cache_flags(io->common.cache);
    if (io->name && !io_open_disk(io))
        return TOOL_FAILED;
    for (size_t i = 0; i < session->count && !io->done; i++)
        run_line(session, session->lines[i]);
    if (!session->lines)
        run_input(session);
    session->failed |= !io_close_disk(io);
    free(io->opened);
    return session->failed ? TOOL_FAILED : TOOL_OK;
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {
        TOOL_LONG_COMMON,
        TOOL_LONG_FORCE_SHARE,
        {"cmd", required_argument, NULL, 'c'},
        {"read-only", no_argument, NULL, 'r'},
        TOOL_LONG_END,
    };
    struct session session = {.io = {.flags = Q2_IMAGE_WRITE}};
    const struct parse parse = {&tool_command_io, "c:f:rt:U", longs, set_option, &session};
    int status;
    if (parse_options(&parse, &session.io.common, argc, argv, &status))
        status = run_parsed(&session, argc - optind, argv + optind);
    free(session.lines);
    tool_common_destroy(&session.io.common);
    return status;
}
