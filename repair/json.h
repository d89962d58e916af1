/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Writing JSON as one goes, so that memory does not grow with what is written. Objects and arrays
 * spread over lines, but for those that begin flat. Keys are NULL inside arrays. */

#ifndef Q2_REPAIR_JSON_H
#define Q2_REPAIR_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct q2_json {
    FILE *out;
    unsigned depth;
    unsigned flat; /* the depth from which everything is on one line; 0: none */
    bool comma;    /* something was written at this depth */
    bool failed;   /* no memory */
};

void q2_json_begin(struct q2_json *json, const char *key, char bracket, bool flat);
void q2_json_end(struct q2_json *json, char bracket);
void q2_json_number(struct q2_json *json, const char *key, uint64_t value);
void q2_json_bool(struct q2_json *json, const char *key, bool value);

/* Bytes that are neither printable nor UTF-8 come out escaped. */
void q2_json_text(struct q2_json *json, const char *key, const char *text);

#endif
