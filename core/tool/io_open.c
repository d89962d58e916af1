/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* open, reopen, close, truncate: what ends with another open disk. */

#include "core/image/resize.h"
#include "core/io/file.h"
#include "core/tool/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool
io_open_disk(struct io *io)
{
    struct tool_open how = {
        .image_opts = io->opened ? io->opened_opts : io->common.image_opts,
        .format = io->common.format,
        .flags = io->flags,
    };
    return tool_open(&io->common, io->opened ? io->opened : io->name, &how, &io->disk);
}

bool
io_close_disk(struct io *io)
{
    struct q2_disk *disk = io->disk;
    io->disk = NULL;
    return tool_close(disk, TOOL_OK) == TOOL_OK;
}

static void
set_cache(struct io *io, const char *mode)
{
    io->flags = (io->flags & ~(unsigned)Q2_IMAGE_UNSAFE) | tool_cache_flags(mode);
}

/* Remember what to open: a path, or a list of options with the path in it. */
static bool
set_opened(struct io *io, const char *path, const char *list)
{
    char *opened = NULL;
    int length = list && path ? asprintf(&opened, "%s,file.filename=%s", list, path)
                              : asprintf(&opened, "%s", list ? list : path);
    if (length < 0) {
        tool_say("out of memory");
        return false;
    }
    free(io->opened);
    io->opened = opened;
    io->opened_opts = list != NULL;
    return true;
}

bool
io_open(struct io *io, int argc, char **argv)
{
    const char *list = NULL;
    int option;
    unsigned flags = Q2_IMAGE_WRITE;
    io_options_begin();
    while ((option = io_option_next(argc, argv, "rUsCnkt:d:o:")) != -1) {
        if (option == '?')
            return false;
        if (option == 'r')
            flags = 0;
        else if (option == 'U')
            io->common.force_share = true;
        else if (option == 'o')
            list = optarg;
        else if (option == 't' && !tool_cache_check("-t", optarg))
            return false;
        if (option == 't')
            set_cache(io, optarg);
    }
    if (argc - optind > 1 || (argc == optind && !list))
        return io_usage(argv);
    if (io->disk) {
        tool_say("file open already, try 'help close'");
        return false;
    }
    io->flags = flags | (io->flags & Q2_IMAGE_UNSAFE);
    return set_opened(io, argv[optind], list) && io_open_disk(io);
}

bool
io_reopen(struct io *io, int argc, char **argv)
{
    int option, ways = 0;
    unsigned flags = io->flags;
    const char *cache = NULL;
    io_options_begin();
    while ((option = io_option_next(argc, argv, "rwc:o:")) != -1) {
        if (option == '?')
            return false;
        if (option == 'c')
            cache = optarg;
        if (option == 'r')
            flags &= ~(unsigned)Q2_IMAGE_WRITE;
        if (option == 'w')
            flags |= Q2_IMAGE_WRITE;
        ways += option == 'r' || option == 'w';
    }
    if (argc > optind)
        return io_usage(argv);
    if (ways > 1) {
        tool_say("Only one -r/-w option may be given");
        return false;
    }
    if (!tool_cache_check("-c", cache))
        return false;
    io->flags = flags;
    if (cache)
        set_cache(io, cache);
    return io_close_disk(io) && io_open_disk(io);
}

bool
io_close(struct io *io, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return io_close_disk(io);
}

bool
io_quit(struct io *io, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    io->done = true;
    return true;
}

/* A raw disk knows the size that its file had when it was opened. */
static bool
truncate_raw(struct io *io, uint64_t size, struct q2_error *err)
{
    if (q2_file_truncate(q2_disk_file(io->disk), size, err) < 0) {
        tool_fail(NULL, err);
        return false;
    }
    return io_close_disk(io) && io_open_disk(io);
}

bool
io_truncate(struct io *io, int argc, char **argv)
{
    struct q2_error err = {0};
    enum q2_preallocation preallocation = Q2_PREALLOCATION_OFF;
    uint64_t size;
    int option;
    io_options_begin();
    while ((option = io_option_next(argc, argv, "m:")) != -1) {
        if (option == '?')
            return false;
        if (q2_preallocation_find(optarg, &preallocation))
            continue;
        tool_say("there is no preallocation mode '%s'", optarg);
        return false;
    }
    if (argc - optind != 1)
        return io_usage(argv);
    if (!io_number(argv[optind], &size))
        return false;
    struct q2_image *image = q2_disk_image(io->disk);
    if (!image)
        return truncate_raw(io, size, &err);
    if (q2_image_resize(image, size, preallocation, &err) == 0)
        return true;
    tool_fail(NULL, &err);
    return false;
}
