/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Options are spelled as those of `qemu-img check` where that has them, so that one can stand in
 * for the other in a script. */

#include "checker/tool/options.h"

#include "checker/console/numbers.h"
#include "checker/console/say.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fits a screen of 24 lines and 80 columns. */
const char options_help[] =
    "Usage: qcow2-check [OPTION]... IMAGE...\n"
    "Says what is wrong with qcow2 images and what it means; never writes to them.\n"
    "A folder stands for all qcow2 images below it.\n"
    "\n"
    "  --output=human|json  for people (default), or a JSON object for each image\n"
    "  --deep               read and decode all guest data too\n"
    "  --chain              look at backing files and the external data file too\n"
    "  --limit=N            findings listed for each problem (default 10; JSON: 1000)\n"
    "  --owner=HOST_OFFSET  say what uses the cluster at this offset of the file\n"
    "  --explain=ID         say more about a problem; --list-problems lists the ids\n"
    "  -p, --progress       show progress even where stderr is no terminal\n"
    "  -q, --quiet          print nothing but errors\n"
    "  -U, --force-share    check even if the image is in use, such as by a running VM\n"
    "  --jobs=N             images checked at a time (default 1)\n"
    "  --threads=N          threads for each image\n"
    "  --max-memory=SIZE    give up rather than use more memory than this\n"
    "  -f qcow2             the only format; accepted as qemu-img has it\n"
    "  -h, --help           this text; -V, --version: the version\n"
    "\n"
    "Exit status: 0 no errors, 1 could not be checked completely, 2 corruption,\n"
    "3 leaks only, 63 not a qcow2 image. More: man qcow2-check\n";

enum long_option {
    OPTION_OUTPUT = 256,
    OPTION_DEEP,
    OPTION_CHAIN,
    OPTION_LIMIT,
    OPTION_OWNER,
    OPTION_EXPLAIN,
    OPTION_LIST,
    OPTION_JOBS,
    OPTION_THREADS,
    OPTION_MAX_MEMORY,
};

static const struct option long_options[] = {
    {"output", required_argument, NULL, OPTION_OUTPUT},
    {"deep", no_argument, NULL, OPTION_DEEP},
    {"chain", no_argument, NULL, OPTION_CHAIN},
    {"limit", required_argument, NULL, OPTION_LIMIT},
    {"owner", required_argument, NULL, OPTION_OWNER},
    {"explain", required_argument, NULL, OPTION_EXPLAIN},
    {"list-problems", no_argument, NULL, OPTION_LIST},
    {"progress", no_argument, NULL, 'p'},
    {"quiet", no_argument, NULL, 'q'},
    {"force-share", no_argument, NULL, 'U'},
    {"jobs", required_argument, NULL, OPTION_JOBS},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"max-memory", required_argument, NULL, OPTION_MAX_MEMORY},
    {"format", required_argument, NULL, 'f'},
    {"repair", required_argument, NULL, 'r'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

static bool
parse_output(const char *text, struct options *options)
{
    options->json = strcmp(text, "json") == 0;
    if (options->json || strcmp(text, "human") == 0)
        return true;
    say_error(NULL, "--output: '%s' is neither human nor json", text);
    return false;
}

/* Name ids that have the same beginning, or contain what was given. */
static void
suggest(const char *text)
{
    char list[256] = "";
    size_t used = 0, length = strcspn(text, "-");
    for (int i = 0; i < Q2_PROBLEM_COUNT && used + 40 < sizeof list; i++) {
        const char *id = q2_problem_id((enum q2_problem)i);
        if (length && strncmp(id, text, length) == 0)
            used += (size_t)snprintf(list + used, sizeof list - used, " %s", id);
    }
    if (used)
        say_error(NULL, "there are:%s", list);
    say_error(NULL, "--list-problems lists all ids");
}

static bool
parse_problem(const char *text, struct options *options)
{
    if (q2_problem_find(text, &options->problem))
        return true;
    say_error(NULL, "--explain: there is no problem '%s'", text);
    suggest(text);
    return false;
}

static bool
parse_format(const char *text)
{
    if (strcmp(text, "qcow2") == 0)
        return true;
    say_error(NULL, "-f: the format '%s' is not supported, only qcow2", text);
    return false;
}

/* An option that asks for something else than a check; two of them contradict each other. */
static bool
set_action(struct options *options, enum action action)
{
    if (options->action != ACTION_CHECK && options->action != action) {
        say_error(NULL, "--owner, --explain and --list-problems do not go together");
        return false;
    }
    options->action = action;
    return true;
}

static bool
apply_value(int option, struct options *options)
{
    switch (option) {
    case OPTION_OUTPUT:
        return parse_output(optarg, options);
    case OPTION_LIMIT:
        return numbers_parse("--limit", optarg, 1, UINT64_MAX, &options->limit);
    case OPTION_OWNER:
        return set_action(options, ACTION_OWNER) &&
               numbers_parse("--owner", optarg, 0, INT64_MAX, &options->owner_offset);
    case OPTION_EXPLAIN:
        return set_action(options, ACTION_EXPLAIN) && parse_problem(optarg, options);
    case OPTION_JOBS:
        return numbers_parse_jobs("--jobs", optarg, &options->jobs);
    case OPTION_THREADS:
        return numbers_parse_jobs("--threads", optarg, &options->threads);
    case OPTION_MAX_MEMORY:
        return numbers_parse("--max-memory", optarg, 1, UINT64_MAX, &options->max_memory);
    case 'f':
        return parse_format(optarg);
    case 'r':
        say_error(NULL, "qcow2-check never writes to an image, and so repairs none");
        return false;
    default:
        say_error(NULL, "qcow2-check --help lists the options");
        return false;
    }
}

static bool
apply(int option, struct options *options)
{
    switch (option) {
    case OPTION_DEEP:
        options->deep = true;
        return true;
    case OPTION_CHAIN:
        options->chain = true;
        return true;
    case OPTION_LIST:
        return set_action(options, ACTION_LIST);
    case 'p':
        options->progress = true;
        return true;
    case 'q':
        options->quiet = true;
        return true;
    case 'U':
        options->force_share = true;
        return true;
    default:
        return apply_value(option, options);
    }
}

static bool
names_fit(const struct options *options)
{
    bool wants = options->action == ACTION_CHECK || options->action == ACTION_OWNER;
    if (wants && options->name_count == 0)
        say_error(NULL, "no image is named; qcow2-check --help says more");
    else if (!wants && options->name_count)
        say_error(NULL, "--explain and --list-problems take no image");
    else if (options->action == ACTION_OWNER && options->name_count > 1)
        say_error(NULL, "--owner takes one image");
    else
        return true;
    return false;
}

bool
options_parse(int argc, char **argv, struct options *ret_options)
{
    struct options options = {.action = ACTION_CHECK};
    int option;
    while ((option = getopt_long(argc, argv, "pqUf:r:hV", long_options, NULL)) != -1) {
        if (option == 'h' || option == 'V') {
            *ret_options = (struct options){.action = option == 'h' ? ACTION_HELP : ACTION_VERSION};
            return true;
        }
        if (!apply(option, &options))
            return false;
    }
    options.names = argv + optind;
    options.name_count = argc - optind;
    if (!names_fit(&options))
        return false;
    *ret_options = options;
    return true;
}
