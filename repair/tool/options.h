/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The command line of qcow2-repair. */

#ifndef Q2_REPAIR_TOOL_OPTIONS_H
#define Q2_REPAIR_TOOL_OPTIONS_H

#include "repair/plan.h"

enum action {
    ACTION_REPAIR,
    ACTION_UNDO,
    ACTION_SALVAGE,
    ACTION_EXPLAIN, /* all that a repair may do */
    ACTION_HELP,
    ACTION_VERSION,
};

struct options {
    enum action action;
    enum q2_repair_level level;
    bool level_given;
    bool dry_run;
    bool discard;
    bool deep;
    bool json;
    bool progress; /* asked for, terminal or not */
    bool quiet;
    bool force;
    bool salvage_qcow2;
    const char *plan;    /* the file of --apply-plan; NULL: not given */
    const char *journal; /* of --journal or --undo; NULL: not given */
    const char *salvage; /* the new image */
    bool keep_backing;
    bool chain;               /* open the files that the image names */
    const char *data_file;    /* instead of the one that it names; NULL: not given */
    const char *backing_file; /* the same */
    uint64_t limit;           /* actions listed of each kind; 0: not given */
    bool restart;
    const char *map;        /* of a salvage; NULL: not given */
    const char *passphrase; /* the file it is in; NULL: not given */
    const char *image;      /* NULL with --undo: what the journal's name says */
    uint64_t max_memory;    /* bytes; 0: not given */
    unsigned threads;       /* 0: not given */
};

/* Parse the command line. On an error says on stderr what is wrong and returns false. */
bool repair_options_parse(int argc, char **argv, struct options *ret_options);

extern const char repair_options_help[];

#endif
