/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The one list of things that can be wrong with an image, as an enum and its stable ids. The texts
 * of the same table (problems.def) are the checker's: checker/catalogue.h. */

#ifndef Q2_FORMAT_PROBLEM_H
#define Q2_FORMAT_PROBLEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum q2_problem {
#define Q2_PROBLEM(name, id, pass, severity, impact, repair, sentence) Q2_PROBLEM_##name,
#include "core/format/problems.def"
#undef Q2_PROBLEM
    Q2_PROBLEM_COUNT,
};

/* The stable id, such as "l2-entry-past-end". */
const char *q2_problem_id(enum q2_problem problem);

/* The problem with this id; false if there is none. */
bool q2_problem_find(const char *id, enum q2_problem *ret_problem);

/* ---- how a rule of the format reports that it is broken ----
 *
 * Each rule is written once, in core/format, and reports to a sink. Strict open refuses at the
 * first report; the checker records them all. */

enum { Q2_DETAIL_SIZE = 160 };

struct q2_violation {
    enum q2_problem problem;
    uint64_t offset; /* in the file, bytes: of the field or structure at fault */
    uint64_t length; /* bytes, of the same */
    uint64_t got;    /* the value found */
    uint64_t expected;
    bool has_expected; /* whether `expected` says anything */
    bool has_got;      /* whether `got` does */
    /* What the numbers cannot say: a field's name, a feature's name. Printable; may be empty. */
    char detail[Q2_DETAIL_SIZE];
};

struct q2_sink {
    void (*report)(void *data, const struct q2_violation *violation);
    void *data;
    bool wordless; /* `report` does not look at the detail, which is left empty then */
};

/* Report; `format` makes the detail, NULL for none. Bytes of the file that are not printable ASCII
 * must have gone through q2_printable first. */
void q2_violate(const struct q2_sink *sink, enum q2_problem problem, uint64_t offset,
                uint64_t length, uint64_t got, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

/* The same where no number says what is wrong. */
void q2_violate_text(const struct q2_sink *sink, enum q2_problem problem, uint64_t offset,
                     uint64_t length, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* The same where the right value is known. */
void q2_violate_expected(const struct q2_sink *sink, enum q2_problem problem, uint64_t offset,
                         uint64_t length, uint64_t got, uint64_t expected, const char *format, ...)
    __attribute__((format(printf, 7, 8)));

/* Copy up to `length` bytes of untrusted text to `buffer` (of `size` bytes, always terminated) with
 * everything but valid, printable UTF-8 escaped as \xNN; "..." marks a cut. Returns `buffer`. */
const char *q2_printable(char *buffer, size_t size, const void *text, size_t length);

#endif
