/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What is left of an image's content after somebody tried to repair it.
 *
 * Each guest cluster of each map (active disk and snapshots) is judged by what it reads before the
 * repair and after it, through the strict reader of the core, and by what it could read at best:
 * through the metadata of the healthy image, from the data of the damaged one.
 *
 *   exists     it is allocated in this image, and at best it reads its own bytes: they are there
 *   known      and so is an undamaged L2 entry, of whichever map, that leads to them
 *   recovered  it exists, and reads its own bytes after the repair
 *   harm       it read what it should before (its own bytes, or the backing file's, or zeros where
 *              nothing is) and does not after
 *   wrong      after the repair it reads neither what it should nor what it could at best; before,
 *              it read something else, or nothing; no applied action says that the data is lost,
 *              and none that is offered that it would bring it back. An action that says it was
 *              recovered makes it no better. A cluster that the end of the file cuts is not meant
 *   destroyed  it exists and is not recovered, its bytes are no longer in the file (or its cluster
 *              is free to be taken by the next write), and the result is said to be clean
 */

#ifndef Q2_BENCH_RECOVERY_MEASURE_H
#define Q2_BENCH_RECOVERY_MEASURE_H

#include "tests/bench/recovery/damage.h"

enum way {
    WAY_NOTHING,
    WAY_CERTAIN, /* qcow2-repair as it comes */
    WAY_LIKELY,
    WAY_GUESS,
    WAY_SALVAGE, /* qcow2-repair --salvage: what its map calls certain must be right */
    WAY_PEER,    /* qemu-img check -r all, read by qemu-img convert --salvage or by us */
    WAY_COUNT,
};

extern const char *const way_names[WAY_COUNT];

struct score {
    bool ran;
    bool failed;    /* the repair ended with an error */
    bool refused;   /* nothing was planned, but there is advice: no header, and none is certain */
    bool again;     /* a second repair would find something to do */
    bool disagrees; /* QEMU finds it not clean, or reads something else of it */
    int status;     /* as qemu-img check has it */
    uint64_t recovered;
    uint64_t recovered_known;
    uint64_t harm, wrong, destroyed;
    uint64_t bytes; /* that the file grew by */
    double seconds;
    char note[240]; /* the first thing that is not as it should be */
};

struct result {
    bool begun;
    bool applies;
    bool done;
    uint64_t own, exists, known;
    char what[200];
    struct score scores[WAY_COUNT];
};

struct case_options {
    const char *folder; /* for files of the peer */
    const char *keep;   /* where to leave files, or NULL */
    bool peer;
    bool cross;    /* let QEMU check and read what we repaired */
    bool loud;     /* print actions and what is amiss */
    unsigned ways; /* bits of those to run */
};

/* Damage `subject` and measure what all ways make of it. */
void measure(const struct subject *subject, const struct damage *damage, uint64_t seed,
             const struct case_options *options, struct result *result);

/* ---- its parts ---- */

struct judgement {
    const struct subject *subject;
    const struct hit *hit;
    struct content best[MAX_MAPS], before[MAX_MAPS], after[MAX_MAPS];
    uint32_t before_map[MAX_MAPS], after_map[MAX_MAPS];
    bool *known[MAX_MAPS];
};

/* Whether something says of any of a guest range of a map of the repaired image that it is
 * not what it was. */
typedef bool excuse(void *data, uint32_t map, uint64_t offset, uint64_t length);

/* Read the image in `file`, the result of a repair. */
void judge_read(struct judgement *judgement, struct q2_file *file);

/* Judge what was read. `excused` may be NULL. */
void judge(struct judgement *judgement, struct q2_file *file, excuse *excused, void *data,
           bool loud, struct score *score);

/* The excuse of a repair, whose data is a struct q2_plan: an action says that it is lost, or one
 * that is only offered would bring it back. */
bool judge_plan_admits(void *plan, uint32_t map, uint64_t offset, uint64_t length);

/* Write `file` to a new file. */
bool file_keep(const char *path, struct q2_file *file);

/* Salvage to a new image, and judge that. */
void salvage(struct judgement *judgement, const struct case_options *options, struct score *score);

/* Whether QEMU finds the image in `file` clean and reads what judgement->after has. */
bool peer_agrees(struct judgement *judgement, const struct case_options *options,
                 struct q2_file *file);

/* Let QEMU repair a copy. */
void peer_repair(struct judgement *judgement, const struct case_options *options,
                 struct score *score);

#endif
