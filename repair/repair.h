/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Repairing one image: the front of the repair library.
 *
 * q2_repair_plan checks the image, decides what to do, does it on an overlay, and proves the
 * outcome; the image itself is only read. q2_repair_apply then writes it, through a journal that
 * can undo it byte for byte (apply.h, journal.h). */

#ifndef Q2_REPAIR_REPAIR_H
#define Q2_REPAIR_REPAIR_H

#include "checker/check.h"
#include "repair/plan.h"

struct q2_repair_options {
    enum q2_repair_level level;
    bool discard;        /* give the space of freed clusters back to the file system */
    bool deep;           /* decode compressed clusters too */
    bool fixed_size;     /* the file cannot grow: a block device */
    uint64_t max_memory; /* bytes; 0: derived from the size of the file */
    unsigned threads;    /* 0: as many as are useful */
    uint64_t now;        /* seconds since the Epoch; 0: unknown */
    void (*progress)(void *data, const struct q2_progress *progress); /* may be NULL */
    void *progress_data;
};

struct q2_repair;

/* Make a plan for the image in `file`, which must not change as long as the plan lives, and prove
 * it. A plan whose proof fails is tried again without the actions to blame; in the end it may do
 * less than one would like, but never what is not proven. Fails as q2_check_run does. */
int q2_repair_plan(struct q2_file *file, const struct q2_repair_options *options,
                   struct q2_repair **ret_repair, struct q2_error *err);
void q2_repair_free(struct q2_repair *repair);

const struct q2_plan *q2_repair_actions(const struct q2_repair *repair);

/* The image as it is, and as it will be: the latter with all edits, to be read but not written. */
struct q2_check *q2_repair_before(const struct q2_repair *repair);
struct q2_check *q2_repair_after(const struct q2_repair *repair);
struct q2_file *q2_repair_file(const struct q2_repair *repair);

/* Whether there is anything to write. */
bool q2_repair_needed(const struct q2_repair *repair);

/* Objections that made earlier attempts fail, as sentences; NULL past the last one. */
const char *q2_repair_objection(const struct q2_repair *repair, size_t index);

/* Why what is lost was not looked for, a sentence without full stop; NULL: it was, as far as there
 * was anything to look for. */
const char *q2_repair_unsearched(const struct q2_repair *repair);

/* Whether its checks decode compressed clusters, asked for or not. Whoever holds the repaired image
 * against q2_repair_after has to look as deep. */
bool q2_repair_is_deep(const struct q2_repair *repair);

/* A digest over all edits, the bytes before and after, and the sizes: what tells one plan, and the
 * image that it is for, from another. SHA-256, as 64 lower-case hexadecimal digits and a NUL. */
int q2_repair_digest(const struct q2_repair *repair, char ret_digest[65], struct q2_error *err);

/* Write the repair to `image`: the same image, open for writing. `journal` is an empty file.
 * *ret_needed: see apply.h. */
int q2_repair_apply(const struct q2_repair *repair, struct q2_file *image, struct q2_file *journal,
                    bool *ret_needed, struct q2_error *err);

#endif
