/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The command line of qcow2-check. */

#ifndef Q2_CHECKER_TOOL_OPTIONS_H
#define Q2_CHECKER_TOOL_OPTIONS_H

#include "core/format/problem.h"

enum action {
    ACTION_CHECK,
    ACTION_OWNER,   /* who owns the cluster at owner_offset */
    ACTION_EXPLAIN, /* one page of the catalogue */
    ACTION_LIST,    /* the ids of the catalogue */
    ACTION_HELP,
    ACTION_VERSION,
};

struct options {
    enum action action;
    bool json;
    bool deep;
    bool chain;
    bool progress; /* asked for, terminal or not */
    bool quiet;
    bool force_share;
    uint64_t owner_offset; /* bytes */
    uint64_t max_memory;   /* bytes; 0: not given */
    uint64_t limit;        /* findings listed for each problem; 0: not given */
    unsigned threads;      /* 0: not given */
    unsigned jobs;         /* 0: not given */
    enum q2_problem problem;
    char **names; /* of images and folders; a part of argv */
    int name_count;
};

/* Parse the command line. On an error says on stderr what is wrong and returns false. */
bool options_parse(int argc, char **argv, struct options *ret_options);

extern const char options_help[];

#endif
