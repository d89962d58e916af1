/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* One image and one thing to do with it. Options that would be ignored are refused: who repairs an
 * image wants to know what he asked for. */

#include "repair/tool/options.h"

#include "checker/console/numbers.h"
#include "checker/console/say.h"
#include "repair/report.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

/* Fits a screen of 24 lines and 80 columns. */
const char repair_options_help[] =
    "Usage: qcow2-repair [OPTION]... IMAGE\n"
    "Repairs a qcow2 image: what is to be done is tried on a copy in memory and\n"
    "proven first, and can be undone. Begin with --dry-run.\n"
    "  --dry-run            say what would be done and why; write nothing\n"
    "  --apply-plan=FILE    do what --dry-run --output=json said, and nothing else\n"
    "  --leaks              only give back space that nothing can refer to\n"
    "  --likely, --guess    also do what is likely, or the best guess\n"
    "  --discard            give the space of freed clusters back to the system\n"
    "  --deep               decode all compressed clusters too\n"
    "  --journal=FILE       where to keep what undoes it (IMAGE.qcow2kit-undo)\n"
    "  --undo=JOURNAL       take a repair back; --force even if the image has changed\n"
    "  --salvage=OUT        copy all that can be read to a new image instead; with\n"
    "                       --format=raw|qcow2, --keep-backing, --backing-file=FILE,\n"
    "                       --data-file=FILE, --chain, --map=FILE, --restart, --force,\n"
    "                       --passphrase-file=FILE\n"
    "  --output=human|json  for people (default), or a JSON object\n"
    "  -p, --progress       show progress even where stderr is no terminal\n"
    "  -q, --quiet          print nothing but errors\n"
    "  --limit=N, --threads=N, --max-memory=SIZE, --explain-actions\n"
    "  -h, --help           this text; -V, --version: the version\n"
    "Exit status: the state after it: 0 clean, 1 could not be completed,\n"
    "2 corruption, 3 leaks only, 63 not a qcow2 image. More: man qcow2-repair\n";

enum long_option {
    OPTION_OUTPUT = 256,
    OPTION_DRY_RUN,
    OPTION_APPLY_PLAN,
    OPTION_LEAKS,
    OPTION_LIKELY,
    OPTION_GUESS,
    OPTION_DISCARD,
    OPTION_DEEP,
    OPTION_JOURNAL,
    OPTION_UNDO,
    OPTION_FORCE,
    OPTION_SALVAGE,
    OPTION_FORMAT,
    OPTION_KEEP_BACKING,
    OPTION_BACKING_FILE,
    OPTION_DATA_FILE,
    OPTION_CHAIN,
    OPTION_LIMIT,
    OPTION_MAP,
    OPTION_PASSPHRASE,
    OPTION_RESTART,
    OPTION_EXPLAIN,
    OPTION_THREADS,
    OPTION_MAX_MEMORY,
};

static const struct option long_options[] = {
    {"output", required_argument, NULL, OPTION_OUTPUT},
    {"dry-run", no_argument, NULL, OPTION_DRY_RUN},
    {"apply-plan", required_argument, NULL, OPTION_APPLY_PLAN},
    {"leaks", no_argument, NULL, OPTION_LEAKS},
    {"likely", no_argument, NULL, OPTION_LIKELY},
    {"guess", no_argument, NULL, OPTION_GUESS},
    {"discard", no_argument, NULL, OPTION_DISCARD},
    {"deep", no_argument, NULL, OPTION_DEEP},
    {"journal", required_argument, NULL, OPTION_JOURNAL},
    {"undo", required_argument, NULL, OPTION_UNDO},
    {"force", no_argument, NULL, OPTION_FORCE},
    {"salvage", required_argument, NULL, OPTION_SALVAGE},
    {"format", required_argument, NULL, OPTION_FORMAT},
    {"keep-backing", no_argument, NULL, OPTION_KEEP_BACKING},
    {"backing-file", required_argument, NULL, OPTION_BACKING_FILE},
    {"data-file", required_argument, NULL, OPTION_DATA_FILE},
    {"chain", no_argument, NULL, OPTION_CHAIN},
    {"limit", required_argument, NULL, OPTION_LIMIT},
    {"map", required_argument, NULL, OPTION_MAP},
    {"passphrase-file", required_argument, NULL, OPTION_PASSPHRASE},
    {"restart", no_argument, NULL, OPTION_RESTART},
    {"explain-actions", no_argument, NULL, OPTION_EXPLAIN},
    {"progress", no_argument, NULL, 'p'},
    {"quiet", no_argument, NULL, 'q'},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"max-memory", required_argument, NULL, OPTION_MAX_MEMORY},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

/* What was given, for options that do not go with everything. */
struct given {
    bool salvage; /* anything that is for that alone */
    bool journal;
    bool output;
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

static bool
parse_format(const char *text, struct options *options)
{
    options->salvage_qcow2 = strcmp(text, "qcow2") == 0;
    if (options->salvage_qcow2 || strcmp(text, "raw") == 0)
        return true;
    say_error(NULL, "--format: '%s' is neither raw nor qcow2", text);
    return false;
}

static bool
set_action(struct options *options, enum action action)
{
    if (options->action != ACTION_REPAIR && options->action != action) {
        say_error(NULL, "--undo, --salvage and --explain-actions do not go together");
        return false;
    }
    options->action = action;
    return true;
}

static bool
set_level(struct options *options, enum q2_repair_level level)
{
    if (options->level_given && options->level != level) {
        say_error(NULL, "--leaks, --likely and --guess do not go together");
        return false;
    }
    options->level = level;
    options->level_given = true;
    return true;
}

static bool
apply_value(int option, struct options *options, struct given *given)
{
    switch (option) {
    case OPTION_OUTPUT:
        given->output = true;
        return parse_output(optarg, options);
    case OPTION_APPLY_PLAN:
        options->plan = optarg;
        return true;
    case OPTION_JOURNAL:
        given->journal = true;
        options->journal = optarg;
        return true;
    case OPTION_UNDO:
        options->journal = optarg;
        return set_action(options, ACTION_UNDO);
    case OPTION_SALVAGE:
        options->salvage = optarg;
        return set_action(options, ACTION_SALVAGE);
    case OPTION_FORMAT:
        given->salvage = true;
        return parse_format(optarg, options);
    case OPTION_BACKING_FILE:
        given->salvage = true;
        options->backing_file = optarg;
        return true;
    case OPTION_DATA_FILE:
        given->salvage = true;
        options->data_file = optarg;
        return true;
    case OPTION_LIMIT:
        return numbers_parse("--limit", optarg, 1, UINT64_MAX, &options->limit);
    case OPTION_MAP:
        given->salvage = true;
        options->map = optarg;
        return true;
    case OPTION_PASSPHRASE:
        given->salvage = true;
        options->passphrase = optarg;
        return true;
    case OPTION_THREADS:
        return numbers_parse_jobs("--threads", optarg, &options->threads);
    case OPTION_MAX_MEMORY:
        return numbers_parse("--max-memory", optarg, 1, UINT64_MAX, &options->max_memory);
    default:
        say_error(NULL, "qcow2-repair --help lists the options");
        return false;
    }
}

static bool
apply(int option, struct options *options, struct given *given)
{
    switch (option) {
    case OPTION_DRY_RUN:
        options->dry_run = true;
        return true;
    case OPTION_LEAKS:
        return set_level(options, Q2_LEVEL_LEAKS);
    case OPTION_LIKELY:
        return set_level(options, Q2_LEVEL_LIKELY);
    case OPTION_GUESS:
        return set_level(options, Q2_LEVEL_GUESS);
    case OPTION_DISCARD:
        options->discard = true;
        return true;
    case OPTION_DEEP:
        options->deep = true;
        return true;
    case OPTION_FORCE:
        options->force = true;
        return true;
    case OPTION_KEEP_BACKING:
        given->salvage = options->keep_backing = true;
        return true;
    case OPTION_CHAIN:
        given->salvage = options->chain = true;
        return true;
    case OPTION_RESTART:
        given->salvage = options->restart = true;
        return true;
    case OPTION_EXPLAIN:
        return set_action(options, ACTION_EXPLAIN);
    case 'p':
        options->progress = true;
        return true;
    case 'q':
        options->quiet = true;
        return true;
    default:
        return apply_value(option, options, given);
    }
}

/* ---- what goes together ---- */

static bool
refuse(bool wrong, const char *message)
{
    if (wrong)
        say_error(NULL, "%s", message);
    return wrong;
}

static bool
options_fit(const struct options *options, const struct given *given)
{
    bool repair = options->action == ACTION_REPAIR;
    bool works = repair || options->action == ACTION_SALVAGE;
    bool plans = options->dry_run || options->plan || options->level_given || options->discard;
    return !(
        refuse(!repair && (plans || options->deep || options->limit || given->journal),
               "--dry-run, --apply-plan, --leaks, --likely, --guess, --discard, --deep, --limit "
               "and --journal are for repairs alone") ||
        refuse(!works && (options->progress || options->threads || options->max_memory),
               "--progress, --threads and --max-memory are for repairs and salvages alone") ||
        refuse(options->plan &&
                   (options->dry_run || options->level_given || options->discard || options->deep),
               "--apply-plan takes the level and all else from the plan") ||
        refuse(options->dry_run && given->journal, "--dry-run writes no journal") ||
        refuse(options->force && options->action != ACTION_UNDO &&
                   options->action != ACTION_SALVAGE,
               "--force is for --undo and --salvage alone") ||
        refuse(given->salvage && options->action != ACTION_SALVAGE,
               "--format, --keep-backing, --backing-file, --data-file, --chain, --map, "
               "--passphrase-file and --restart are for --salvage alone") ||
        refuse(options->keep_backing && !options->salvage_qcow2,
               "--keep-backing takes --format=qcow2") ||
        refuse(options->action == ACTION_EXPLAIN && given->output,
               "--explain-actions has one form only"));
}

static bool
names_fit(struct options *options, char **names, int count)
{
    bool wants = options->action == ACTION_REPAIR || options->action == ACTION_SALVAGE;
    bool may = wants || options->action == ACTION_UNDO;
    if (refuse(wants && count == 0, "no image is named; qcow2-repair --help says more") ||
        refuse(!may && count, "--explain-actions takes no image") ||
        refuse(may && count > 1, "one image at a time"))
        return false;
    options->image = count ? names[0] : NULL;
    return true;
}

bool
repair_options_parse(int argc, char **argv, struct options *ret_options)
{
    struct options options = {.action = ACTION_REPAIR, .level = Q2_LEVEL_CERTAIN};
    struct given given = {false, false, false};
    int option;
    while ((option = getopt_long(argc, argv, "pqhV", long_options, NULL)) != -1) {
        if (option == 'h' || option == 'V') {
            *ret_options = (struct options){.action = option == 'h' ? ACTION_HELP : ACTION_VERSION};
            return true;
        }
        if (!apply(option, &options, &given))
            return false;
    }
    if (!options_fit(&options, &given) || !names_fit(&options, argv + optind, argc - optind))
        return false;
    *ret_options = options;
    return true;
}
