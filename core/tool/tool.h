/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the commands of qcow2-img share.
 *
 * A command is a file cmd_NAME.c that defines `const struct tool_command tool_command_NAME`; the
 * build finds it and puts it into the table. Functions here that return `bool` have told stderr why
 * when they return false; those that fill a struct q2_error leave that to the caller, who ends with
 * `return tool_fail(...)`. */

#ifndef Q2_TOOL_TOOL_H
#define Q2_TOOL_TOOL_H

#include "core/image/create.h"
#include "core/image/disk.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

struct json_object;

/* ---- commands ---- */

struct tool_command {
    const char *name;
    const char *usage; /* its options and arguments, without its name; may have several lines */
    const char *help;  /* one line, without a full stop */
    /* argv[0] is the command's name. Returns the exit status. */
    int (*run)(int argc, char **argv);
};

/* All of them, in alphabetical order; ends with NULL. */
extern const struct tool_command *const tool_commands[];

enum { TOOL_OK = 0, TOOL_FAILED = 1 };

/* ---- messages (say.c) ---- */

/* "qcow2-img: message" on stderr, as one line without control characters. */
void tool_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for a wrong command line, with a hint at --help. Returns TOOL_FAILED. */
int tool_say_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Say what `err` says, behind "WHAT: " where `what` is not NULL. Returns TOOL_FAILED. */
int tool_fail(const char *what, const struct q2_error *err);
/* The same behind "NAME: WHAT 'OBJECT': ", where NAME is the image's. */
int tool_fail_doing(const char *name, const char *what, const char *object,
                    const struct q2_error *err);

/* ---- lists of options: key=value,key=value (pairs.c) ---- */

struct tool_pair {
    char *key;
    char *value;
};

/* Embed it with `= {0}`. */
struct tool_pairs {
    struct tool_pair *pairs;
    size_t count;
};

/* Append a list; ",," in a value is a comma. A first item without "=" is the value of `first_key`
 * where that is not NULL; any other one is "on", or "off" for what begins with "no" as QEMU has it,
 * except that "help" and "?" stay keys with the value "". */
bool tool_pairs_add(struct tool_pairs *pairs, const char *text, const char *first_key);
/* The value that was given last; NULL: none. */
/* The same from a JSON object: members of members have keys with dots (json_name.c). */
bool tool_pairs_add_json(struct tool_pairs *pairs, const char *text);
const char *tool_pairs_get(const struct tool_pairs *pairs, const char *key);
bool tool_pairs_set(struct tool_pairs *pairs, const char *key, const char *value);
/* The value as a number up to `max`; *ret_number stays as it is where there is none. Says what is
 * wrong. */
bool tool_pairs_number(const struct tool_pairs *pairs, const char *key, uint64_t max,
                       unsigned *ret_number);
/* Whether help was asked for. */
bool tool_pairs_help(const struct tool_pairs *pairs);
void tool_pairs_destroy(struct tool_pairs *pairs);

/* ---- secrets (secrets.c) ---- */

struct tool_secrets; /* pass phrases by id */

/* The secret with this id; says so and returns NULL where there is none. */
const struct q2_secret *tool_secret_find(const struct tool_secrets *secrets, const char *id);

/* ---- options that many commands have (options.c) ---- */

struct tool_common {
    const char *format;       /* -f; NULL: not given */
    bool image_opts;          /* --image-opts */
    bool force_share;         /* -U */
    bool quiet;               /* -q */
    bool progress;            /* -p */
    bool json;                /* --output=json */
    const char *cache;        /* -t, checked; NULL: not given */
    const char *source_cache; /* -T */
    struct tool_secrets *secrets;
};

/* Values of the long options below; a command's own ones start at TOOL_OPTION_OWN. */
enum tool_option {
    TOOL_OPTION_OBJECT = 256,
    TOOL_OPTION_SECRET_FD,
    TOOL_OPTION_IMAGE_OPTS,
    TOOL_OPTION_OUTPUT,
    TOOL_OPTION_OWN,
};

/* Entries for a command's table of long options. */
/* clang-format off */
#define TOOL_LONG_COMMON \
    {"help", no_argument, NULL, 'h'}, \
    {"object", required_argument, NULL, TOOL_OPTION_OBJECT}, \
    {"secret-fd", required_argument, NULL, TOOL_OPTION_SECRET_FD}, \
    {"image-opts", no_argument, NULL, TOOL_OPTION_IMAGE_OPTS}
#define TOOL_LONG_OUTPUT {"output", required_argument, NULL, TOOL_OPTION_OUTPUT}
#define TOOL_LONG_FORCE_SHARE {"force-share", no_argument, NULL, 'U'}
#define TOOL_LONG_END {NULL, 0, NULL, 0}
/* clang-format on */

enum { TOOL_OPTION_END = -1, TOOL_OPTION_BAD = -2, TOOL_OPTION_HELP = -3 };

/* The next option of the command (a letter, or a value from TOOL_OPTION_OWN on; its argument is in
 * `optarg`), TOOL_OPTION_END, or TOOL_OPTION_BAD after a message, or TOOL_OPTION_HELP after the
 * command's help. f, U, q, p, t, T, h and the long options above are taken care of: they go into
 * `common` (zeroed before the first call), as far as `letters`, in the form of getopt, and `longs`
 * have them. After the end, optind is where the arguments begin. */
int tool_option_next(struct tool_common *common, const struct tool_command *command, int argc,
                     char **argv, const char *letters, const struct option *longs);
/* The exit status for TOOL_OPTION_BAD and TOOL_OPTION_HELP. */
int tool_option_status(int option);
void tool_common_destroy(struct tool_common *common);

/* "qcow2", "raw"; says that others are unknown. */
bool tool_format_find(const char *name, enum q2_disk_format *ret_format);
/* Whether a word is a cache mode; otherwise says so. NULL is allowed. */
bool tool_cache_check(const char *option, const char *mode);
/* The enum q2_image_flags that a cache mode stands for. NULL is allowed. */
unsigned tool_cache_flags(const char *mode);

/* ---- opening a disk (open.c) ---- */

struct tool_open {
    bool image_opts;    /* `name` is a list of options rather than a file name */
    const char *format; /* NULL: probe */
    unsigned flags;     /* enum q2_image_flags; Q2_IMAGE_FORCE_SHARE is added where -U was given */
};

/* Open what the command line calls `name`. Says what is wrong. */
bool tool_open(const struct tool_common *common, const char *name, const struct tool_open *how,
               struct q2_disk **ret_disk);
/* The same for the only image of a command: as -f and --image-opts say, with `flags`. */
bool tool_open_one(const struct tool_common *common, const char *name, unsigned flags,
                   struct q2_disk **ret_disk);
/* Close; an error is said. Returns `status`, or TOOL_FAILED after an error. */
int tool_close(struct q2_disk *disk, int status);
/* The image of a disk that a command needs to be qcow2; otherwise says that `command` is not
 * supported for its format and returns NULL. */
struct q2_image *tool_need_image(struct q2_disk *disk, const char *name, const char *command);

/* ---- making an image (target.c) ---- */

/* What an image to be made shall be. */
struct tool_target {
    enum q2_disk_format format;
    struct q2_create_options options; /* of a raw one: size and preallocation */
    bool has_size;                    /* options.size is set */
};

/* From the format (NULL: raw, as `qemu-img` has it) and the -o options in `pairs`, which must live
 * as long as the target. `name` is for messages, `secrets` may be NULL. A backing file's size is
 * not looked up. */
bool tool_target_init(struct tool_target *target, const char *name, const char *format,
                      const struct tool_pairs *pairs, const struct tool_secrets *secrets);
/* Make the image at `name`. */
int tool_target_make(const struct tool_target *target, const char *name, struct q2_error *err);
/* Print the -o options of a format, for `-o help`. */
void tool_target_help(enum q2_disk_format format);

/* ---- numbers (size.c) ---- */

enum tool_size_result { TOOL_SIZE_OK, TOOL_SIZE_BAD, TOOL_SIZE_TOO_BIG };

/* A number of bytes as QEMU reads it: decimal with an optional fraction, or 0x hexadecimal, with an
 * optional suffix b, k, M, G, T, P or E. `plain` is the suffix for numbers without one. */
enum tool_size_result tool_size_parse(const char *text, char plain, uint64_t *ret_size);
/* The same for the value of an option, in [min, max]; says what is wrong. */
bool tool_size_option(const char *what, const char *text, uint64_t min, uint64_t max,
                      uint64_t *ret_size);
/* A decimal or 0x hexadecimal number without a suffix, in [min, max]; says what is wrong. */
bool tool_number_option(const char *what, const char *text, uint64_t min, uint64_t max,
                        uint64_t *ret_number);
/* on, yes, true, y; off, no, false, n. */
bool tool_bool_option(const char *what, const char *text, bool *ret_value);

struct tool_text {
    char text[64];
};
/* "1 GiB", "196 KiB", "512 B": three significant digits, as `qemu-img info` prints sizes. */
struct tool_text tool_size_text(uint64_t bytes);

/* ---- progress (progress.c) ---- */

/* "    (12.34/100%)" on stdout with -p; also on SIGUSR1 (and SIGINFO where there is one). */
struct tool_progress {
    bool enabled;
    double shown;   /* per cent that was printed last */
    double current; /* per cent */
    double base;    /* per cent at which the present part begins */
    double span;    /* per cent that the present part is */
};

void tool_progress_init(struct tool_progress *progress, bool enabled);
/* From now on, updates are about a part of the whole work, of this many per cent. */
void tool_progress_part(struct tool_progress *progress, double per_cent);
/* `data` is a struct tool_progress: fits q2_amend_options. */
void tool_progress_update(void *data, uint64_t done, uint64_t total);
/* Print what is left to 100 % and a newline if `complete`, otherwise only the newline. */
void tool_progress_end(struct tool_progress *progress, bool complete);

/* ---- JSON (json.c) ---- */

/* Members; NULL anywhere means "no memory" and is passed on. */
void tool_json_put(struct json_object **object, const char *key, struct json_object *value);
void tool_json_number(struct json_object **object, const char *key, uint64_t value);
/* Text from the image or the command line: what is no UTF-8 is escaped. */
void tool_json_text(struct json_object **object, const char *key, const char *text);
void tool_json_bool(struct json_object **object, const char *key, bool value);
void tool_json_append(struct json_object **array, struct json_object *value);
/* Print with an indent of four spaces and free it. Returns the exit status. */
int tool_json_print(struct json_object *object);

#endif
