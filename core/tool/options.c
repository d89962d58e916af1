/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What most commands take is parsed here, once; a command sees only what is its own. */

#include "core/tool/secrets.h"
#include "core/tool/tool.h"

#include <stdio.h>
#include <string.h>

static bool
set_output(struct tool_common *common, const char *text)
{
    common->json = strcmp(text, "json") == 0;
    if (common->json || strcmp(text, "human") == 0)
        return true;
    tool_say("--output must be human or json, not '%s'", text);
    return false;
}

bool
tool_format_find(const char *name, enum q2_disk_format *ret_format)
{
    if (q2_disk_format_find(name, ret_format))
        return true;
    tool_say("the format '%s' is not supported, only qcow2 and raw", name);
    return false;
}

bool
tool_cache_check(const char *option, const char *mode)
{
    static const char *const modes[] = {"none",         "off",        "writeback",
                                        "writethrough", "directsync", "unsafe"};
    for (size_t i = 0; mode && i < sizeof modes / sizeof *modes; i++)
        if (strcmp(mode, modes[i]) == 0)
            return true;
    if (mode)
        tool_say("%s: '%s' is no cache mode; there are none, writeback, writethrough, directsync "
                 "and unsafe",
                 option, mode);
    return !mode;
}

unsigned
tool_cache_flags(const char *mode)
{
    return mode && strcmp(mode, "unsafe") == 0 ? Q2_IMAGE_UNSAFE : 0;
}

static bool
apply_format(struct tool_common *common, const char *text)
{
    enum q2_disk_format format;
    common->format = text;
    return tool_format_find(text, &format);
}

static bool
apply_cache(const char *option, const char *mode, const char **ret_mode)
{
    *ret_mode = mode;
    return tool_cache_check(option, mode);
}

static void
print_help(const struct tool_command *command)
{
    printf("Usage: qcow2-img %s ", command->name);
    for (const char *c = command->usage; *c; c++)
        fputs(*c == '\n' ? "\n    " : (const char[]){*c, '\0'}, stdout);
    printf("\n%c%s.\n\n", command->help[0] - 'a' + 'A', command->help + 1);
    puts("Pass phrases are given with --object secret,id=NAME,file=PATH or with\n"
         "--secret-fd id=NAME,fd=NUMBER, and used by NAME. More: man qcow2-img");
}

/* Returns 0 where the option was a common one, `option` where it is the command's. */
static int
apply(struct tool_common *common, const struct tool_command *command, int option)
{
    bool good = true;
    switch (option) {
    case 'h':
        print_help(command);
        return TOOL_OPTION_HELP;
    case 'U':
        common->force_share = true;
        break;
    case 'q':
        common->quiet = true;
        break;
    case 'p':
        common->progress = true;
        break;
    case 'f':
        good = apply_format(common, optarg);
        break;
    case 't':
        good = apply_cache("-t", optarg, &common->cache);
        break;
    case 'T':
        good = apply_cache("-T", optarg, &common->source_cache);
        break;
    case TOOL_OPTION_IMAGE_OPTS:
        common->image_opts = true;
        break;
    case TOOL_OPTION_OBJECT:
        good = tool_secrets_add_object(&common->secrets, optarg);
        break;
    case TOOL_OPTION_SECRET_FD:
        good = tool_secrets_add_fd(&common->secrets, optarg);
        break;
    case TOOL_OPTION_OUTPUT:
        good = set_output(common, optarg);
        break;
    default:
        return option;
    }
    return good ? 0 : TOOL_OPTION_BAD;
}

int
tool_option_next(struct tool_common *common, const struct tool_command *command, int argc,
                 char **argv, const char *letters, const struct option *longs)
{
    char with_colon[64];
    snprintf(with_colon, sizeof with_colon, ":h%s", letters);
    opterr = 0;
    for (;;) {
        int option = getopt_long(argc, argv, with_colon, longs, NULL);
        if (option == -1)
            break;
        if (option == ':')
            tool_say_usage("the option '%s' needs an argument", argv[optind - 1]);
        else if (option == '?' && optopt && optopt < 256)
            tool_say_usage("%s has no option '-%c'", command->name, optopt);
        else if (option == '?')
            tool_say_usage("%s has no option '%s'", command->name, argv[optind - 1]);
        if (option == ':' || option == '?')
            return TOOL_OPTION_BAD;
        int own = apply(common, command, option);
        if (own)
            return own;
    }
    if (common->image_opts && common->format) {
        tool_say("--image-opts and -f do not go together: driver= says the format");
        return TOOL_OPTION_BAD;
    }
    return TOOL_OPTION_END;
}

int
tool_option_status(int option)
{
    return option == TOOL_OPTION_HELP ? TOOL_OK : TOOL_FAILED;
}

void
tool_common_destroy(struct tool_common *common)
{
    tool_secrets_free(common->secrets);
    common->secrets = NULL;
}
