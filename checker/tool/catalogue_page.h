/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The catalogue of problems as a list, and as JSON. */

#ifndef Q2_CHECKER_TOOL_CATALOGUE_PAGE_H
#define Q2_CHECKER_TOOL_CATALOGUE_PAGE_H

#include "core/format/problem.h"

#include <stdio.h>

/* A line for each problem: its severity, its id, its sentence; or an array of JSON objects. */
void catalogue_print_list(bool json, FILE *out);

/* One problem as a JSON object on one line. */
void catalogue_print_json(enum q2_problem problem, FILE *out);

#endif
