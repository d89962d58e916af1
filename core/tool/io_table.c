/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The commands of `qcow2-img io`. */

#include "core/tool/io.h"

#include <stdio.h>
#include <string.h>

enum { DISK = IO_NEEDS_DISK, WRITES = IO_NEEDS_DISK | IO_WRITES };

static const struct io_command commands[] = {
    {"aio_flush", NULL, 0, 0, DISK, "", "wait for all requests: they have ended already", io_flush},
    {"aio_read", NULL, 2, -1, DISK, "[-Ciqv] [-P pattern] off len [len..]",
     "read; that data differs from the pattern is no failure", io_aio_read},
    {"aio_write", NULL, 2, -1, WRITES, "[-Cfiquz] [-P pattern] off len [len..]",
     "write; no failure is one", io_aio_write},
    {"alloc", NULL, 1, 2, DISK, "offset [count]", "say how much is allocated in this image",
     io_alloc},
    {"close", "c", 0, 0, DISK, "", "close the image", io_close},
    {"discard", "d", 2, 4, WRITES, "[-Cq] off len", "give back the clusters of a range",
     io_discard},
    {"flush", "f", 0, 0, DISK, "", "make all that was written durable", io_flush},
    {"help", "?", 0, 1, 0, "[command]", "list the commands", io_help},
    {"info", "i", 0, 0, DISK, "", "say what the image is", io_info},
    {"length", "l", 0, 0, DISK, "", "say how large the disk is", io_size},
    {"map", NULL, 0, 0, DISK, "", "list what is allocated in this image", io_map},
    {"open", "o", 0, -1, 0, "[-rU] [-o options] [path]", "open an image", io_open},
    {"quit", "q", 0, 0, 0, "", "end", io_quit},
    {"read", "r", 2, -1, DISK, "[-abCqv] [-P pattern [-s off] [-l len]] off len",
     "read, and say whether it is what it should be", io_read},
    {"readv", "rv", 2, -1, DISK, "[-Cqv] [-P pattern] off len [len..]",
     "read into several buffers at once", io_readv},
    {"reopen", NULL, 0, -1, DISK, "[(-r|-w)] [-c cache] [-o options]",
     "open the image again with other options", io_reopen},
    {"sleep", NULL, 1, 1, 0, "milliseconds", "wait", io_sleep},
    {"truncate", "t", 1, 3, WRITES, "[-m prealloc_mode] off", "set the size of the disk",
     io_truncate},
    {"write", "w", 2, -1, WRITES, "[-bcCfnquz] [-P pattern | -s source_file] off len",
     "write a pattern", io_write},
    {"writev", "wv", 2, -1, WRITES, "[-Cfq] [-P pattern] off len [len..]",
     "write from several buffers at once", io_writev},
};

enum { COUNT = sizeof commands / sizeof *commands };

const struct io_command *
io_command_find(const char *name)
{
    for (size_t i = 0; i < COUNT; i++)
        if (strcmp(commands[i].name, name) == 0 ||
            (commands[i].other && strcmp(commands[i].other, name) == 0))
            return &commands[i];
    return NULL;
}

void
io_command_print(const struct io_command *command)
{
    const char *space = *command->arguments ? " " : "";
    printf("%s%s%s -- %s\n", command->name, space, command->arguments, command->help);
}

bool
io_help(struct io *io, int argc, char **argv)
{
    (void)io;
    const struct io_command *one = argc > 1 ? io_command_find(argv[1]) : NULL;
    if (argc > 1 && !one) {
        printf("command %s not found\n", argv[1]);
        return false;
    }
    for (size_t i = 0; i < COUNT; i++)
        if (!one || one == &commands[i])
            io_command_print(&commands[i]);
    return true;
}
