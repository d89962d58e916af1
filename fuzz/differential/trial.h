/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* One image, looked at by both.
 *
 * A fact is something that both programs can be asked of an image: one file fact_NAME.c and one row
 * in facts.def. It calls trial_differ for each answer that is not the same. */

#ifndef Q2_FUZZ_DIFFERENTIAL_TRIAL_H
#define Q2_FUZZ_DIFFERENTIAL_TRIAL_H

#include "fuzz/differential/run.h"
#include "fuzz/mutate/mutate.h"

enum { MAX_SNAPSHOTS_ASKED = 3 };

/* What our checker says of an image: it is what rules go by. */
struct report {
    bool made; /* there is one */
    struct outcome run;
    char *traits;       /* ",id,id,...," of problems, and of what the image is; owned */
    uint64_t disk_size; /* bytes */
    unsigned snapshots; /* with an id that can be asked for */
    char snapshot_ids[MAX_SNAPSHOTS_ASKED][64];
};

struct difference {
    const char *fact, *field;
    const char *ours, *theirs;
    const char *traits;
    const char *our_words, *their_words; /* what was said; may be empty */
};

struct trial {
    const char *image;    /* in the current folder; not to be changed */
    struct report report; /* of that image */
    struct q2_fuzz_random random;
    void (*differ)(void *data, const struct difference *difference);
    void *data;
};

struct fact {
    const char *name;
    unsigned percent; /* of the images that are asked for it */
    void (*compare)(struct trial *trial);
};
extern const struct fact facts[];
extern const unsigned fact_count;

/* Look at `image`, asking `only` that fact, or those that chance chooses where it is NULL. */
void trial_run(const char *image, const char *only, uint64_t seed,
               void (*differ)(void *data, const struct difference *difference), void *data);

/* For facts: what was asked, and what was answered, if that is not the same. */
void trial_differ(struct trial *trial, const char *fact, const char *field, const char *ours,
                  const char *theirs);
void trial_differ_numbers(struct trial *trial, const char *fact, const char *field, uint64_t ours,
                          uint64_t theirs);
/* The same for how two runs ended. Returns whether both exited with 0. */
bool trial_differ_ends(struct trial *trial, const char *fact, const char *field,
                       const struct outcome *ours, const struct outcome *theirs);

bool trial_has(const struct trial *trial, const char *trait);

/* Copy a file in the current folder, holes kept. */
void trial_copy(const char *from, const char *to);

/* Check `image` with ours. */
void report_make(const char *image, struct report *ret_report);
void report_destroy(struct report *report);
/* Compare the verdicts and the counts of both on `image`, whose report is at hand. */
void compare_checks(struct trial *trial, const char *fact, const char *image,
                    const struct report *report);
/* The same for an image that was made of that of the trial. */
void compare_changed(struct trial *trial, const char *fact, const char *image);
/* Compare what both read of `image`, of the snapshot with this id if that is not NULL. */
void compare_content(struct trial *trial, const char *fact, const char *image,
                     const char *snapshot);
/* Whether two files hold the same, as far as both go. */
bool same_bytes(const char *a, const char *b, uint64_t *ret_offset);

#endif
