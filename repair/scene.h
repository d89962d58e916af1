/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The scene of a repair: the image as it is, an overlay on which it is being mended, and the newest
 * check of that. What the check decoded (header, geometry, maps, regions, tally: checker/scan.h) is
 * where fixes read the state of the image from; nothing is decoded twice. */

#ifndef Q2_REPAIR_SCENE_H
#define Q2_REPAIR_SCENE_H

#include "checker/scan.h"
#include "core/io/overlay.h"
#include "repair/plan.h"

struct q2_scene_options {
    unsigned threads; /* 0: as many as are useful */
    uint64_t now;     /* seconds since the Epoch, to judge dates by; 0: do not */
    bool deep;        /* decode compressed clusters too, in every check */
    bool fixed_size;  /* the file cannot grow: a block device */
    void (*progress)(void *data, const struct q2_progress *progress); /* may be NULL */
    void *progress_data;
};

struct q2_scene {
    const struct q2_scene_options *options;
    struct q2_budget budget; /* for the overlay, the plan and what fixes keep */
    struct q2_file *base;    /* the image; never written */
    struct q2_file *file;    /* the overlay */
    struct q2_plan plan;
    struct q2_check *before; /* of `base` */
    struct q2_check *check;  /* of `file`, as it was at the last q2_scene_recheck */
    bool edited;             /* since then */
    bool deep;               /* checks decode compressed clusters, asked for or not */
    /* Clusters that are counted, though nothing refers to them, and must stay so: what a damaged
     * pointer may have meant. A bit each, or NULL. See q2_scene_keep. */
    uint64_t *keep;
    uint64_t keep_clusters;
    bool keep_all;
    bool keep_high; /* refcounts above the number of references stay as they are, as evidence */
    /* What the image is is not known well enough for anything else to be mended: the header says
     * something wrong, and what is right is beyond the level. No later stage runs. */
    bool stop;
    bool counts_doubtful; /* refcounts are left as they are, and say nothing of COPIED flags */
    bool header_believed; /* in this attempt a pass has gone on with it as it is */
    /* Clusters taken by q2_scene_allocate since the last check. */
    struct {
        uint64_t first, count;
    } * taken;
    uint64_t taken_count, taken_capacity;
    uint64_t dangling; /* the first cluster behind the file that anything leads to; 0: not known */
    uint64_t inside;   /* cluster from which on the next free one is looked for */
    /* Steps that looking for evidence has taken, besides reads of the overlay, and how many it may
     * take with them. A step is about what reading a byte takes. See q2_scene_exhausted. */
    uint64_t work, work_limit;
    /* No evidence is looked for any more: that would pass a limit. What is counted stays so. */
    bool blind;
    const char *unsearched;   /* why not, a sentence without full stop; NULL: it is looked for */
    struct q2_ground *ground; /* of a second round, or a later one; NULL in the first */
};

/* `base` must outlive the scene and not change. Fails as q2_check_run does, but for a header that
 * is damaged beyond recognition: the scene then has no checks (NULL) until the header is mended. */
int q2_scene_open(struct q2_file *base, const struct q2_scene_options *options,
                  enum q2_repair_level level, uint64_t max_memory, struct q2_scene **ret_scene,
                  struct q2_error *err);
void q2_scene_close(struct q2_scene *scene);

/* Let checks decode compressed clusters from here on, if there are any: nothing has been edited. */
int q2_scene_look_deeper(struct q2_scene *scene, struct q2_error *err);

/* Throw away all edits and the plan (not its bans), and begin anew. */
int q2_scene_restart(struct q2_scene *scene, struct q2_error *err);

/* Check the overlay, if it was edited since the last check. */
int q2_scene_recheck(struct q2_scene *scene, struct q2_error *err);

/* Begin another round, on what the one at hand has made of the image, all of which is checked and
 * proven, and is something: until q2_scene_settle, base, before and plan are the new round's. */
int q2_scene_advance(struct q2_scene *scene, struct q2_error *err);

/* The check of the image as it was before all rounds; NULL: it has no header. */
const struct q2_check *q2_scene_origin(const struct q2_scene *scene);

/* Forget the round at hand, if there was one before; the image as it was, and what all other rounds
 * have done to it, are the scene's again. What it could not look for stays noted. */
void q2_scene_settle(struct q2_scene *scene);

/* Faults of a problem in the newest check. */
uint64_t q2_scene_count(const struct q2_scene *scene, enum q2_problem problem);

/* Take `steps` of the work that looking for evidence may take. */
void q2_scene_work(struct q2_scene *scene, uint64_t steps);

/* Whether that is used up. Whoever searches then may stop at once: the engine throws away what a
 * stage has done by then, since what seems to be the only match may have others. */
bool q2_scene_exhausted(const struct q2_scene *scene);

/* Whether evidence is to be looked for: not once that is given up, and not where the check itself
 * could not see all. Where not, the scene notes why, and that all that is counted stays so. */
bool q2_scene_searches(struct q2_scene *scene);

/* ---- for fixes: all within an action that has begun and is to be carried out ---- */

/* Write bytes of a structure to the overlay and note them in the action. */
int q2_scene_write(struct q2_scene *scene, enum q2_owner_kind kind, uint64_t offset,
                   const void *bytes, size_t length, struct q2_error *err);

/* The same for one big-endian word: L1 and L2 entries, words of tables. */
int q2_scene_write64(struct q2_scene *scene, enum q2_owner_kind kind, uint64_t offset,
                     uint64_t value, struct q2_error *err);

/* Find `count` clusters, one after the other, that nothing refers to and no refcount counts: behind
 * the end of the file, or inside it where it cannot grow or something leads past its end. They hold
 * anything. Q2_ERR_NOSPACE where there are none. The refcounts follow at the end (fix_refcounts.c
 * counts references anew). */
int q2_scene_allocate(struct q2_scene *scene, uint64_t count, uint64_t *ret_offset,
                      struct q2_error *err);

/* Keep these clusters counted, though nothing refers to them. */
int q2_scene_keep(struct q2_scene *scene, uint64_t first, uint64_t count, struct q2_error *err);
void q2_scene_forget_kept(struct q2_scene *scene);
bool q2_scene_kept(const struct q2_scene *scene, uint64_t cluster);

/* The refcount of a cluster as the overlay records it: readers are checker/refcounts.h's, on
 * scene->check, whose file is the overlay. The number of references, from the tally: */
uint64_t q2_scene_references(const struct q2_scene *scene, uint64_t cluster);

#endif
