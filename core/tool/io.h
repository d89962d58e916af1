/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the files of `qcow2-img io` share: the requests of `qemu-io`, one line for each. There is
 * one table of commands (io_table.c); each is a function of its own. Reports, and complaints
 * about most arguments, go to stdout, as they do there. */

#ifndef Q2_TOOL_IO_H
#define Q2_TOOL_IO_H

#include "core/tool/tool.h"

struct io {
    struct tool_common common;
    const char *name;     /* of the image on the command line */
    unsigned flags;       /* enum q2_image_flags: how it is open */
    char *opened;         /* what `open` was last given; NULL: `name` */
    bool opened_opts;     /* it is a list of options */
    struct q2_disk *disk; /* NULL: closed */
    bool done;            /* no more lines */
};

enum io_command_flags {
    IO_NEEDS_DISK = 1 << 0,
    IO_WRITES = 1 << 1,
};

struct io_command {
    const char *name;
    const char *other; /* another name; NULL: none */
    int least, most;   /* arguments; most -1: any number */
    unsigned flags;    /* enum io_command_flags */
    const char *arguments;
    const char *help; /* one line */
    /* argv[0] is the name. Returns whether it went well. */
    bool (*run)(struct io *io, int argc, char **argv);
};

/* ---- io_table.c ---- */

const struct io_command *io_command_find(const char *name);
/* "name ARGUMENTS -- help". */
void io_command_print(const struct io_command *command);
bool io_help(struct io *io, int argc, char **argv);

/* ---- io_args.c ---- */

/* The next option of a line's command, -1 at the end, or '?' after a message and its usage. Begin
 * with io_options_begin. */
void io_options_begin(void);
int io_option_next(int argc, char **argv, const char *letters);
/* Print how the command at argv[0] is used. Always false. */
bool io_usage(char **argv);

/* Numbers and patterns; false after a message. */
bool io_number(const char *text, uint64_t *ret_value);
bool io_length(const char *text, uint64_t *ret_length);
bool io_sector_aligned(uint64_t offset, uint64_t length);
bool io_pattern(const char *text, uint8_t *ret_pattern);

/* ---- io_report.c ---- */

/* "1.500 KiB", "512 bytes". */
struct tool_text io_size_text(double bytes);

struct io_report {
    const char *verb; /* "read", "wrote", "discard" */
    uint64_t offset;
    uint64_t length; /* bytes */
    double begun;    /* seconds, of rate_now() */
    bool quiet;
    bool terse; /* -C: for programs */
};

void io_report_print(const struct io_report *report);
void io_dump(const uint8_t *buffer, uint64_t offset, size_t length);
/* "WHAT failed: why". Always false. */
bool io_failed(const char *what, const struct q2_error *err);

/* ---- io_open.c ---- */

/* Open what the session is about; says what is wrong on stderr. */
bool io_open_disk(struct io *io);
bool io_close_disk(struct io *io);

/* ---- commands ---- */

bool io_read(struct io *io, int argc, char **argv);
bool io_readv(struct io *io, int argc, char **argv);
bool io_aio_read(struct io *io, int argc, char **argv);
bool io_write(struct io *io, int argc, char **argv);
bool io_writev(struct io *io, int argc, char **argv);
bool io_aio_write(struct io *io, int argc, char **argv);
bool io_discard(struct io *io, int argc, char **argv);
bool io_flush(struct io *io, int argc, char **argv);
bool io_alloc(struct io *io, int argc, char **argv);
bool io_map(struct io *io, int argc, char **argv);
bool io_info(struct io *io, int argc, char **argv);
bool io_size(struct io *io, int argc, char **argv);
bool io_truncate(struct io *io, int argc, char **argv);
bool io_open(struct io *io, int argc, char **argv);
bool io_reopen(struct io *io, int argc, char **argv);
bool io_close(struct io *io, int argc, char **argv);
bool io_quit(struct io *io, int argc, char **argv);
bool io_sleep(struct io *io, int argc, char **argv);

#endif
