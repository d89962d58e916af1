/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The ways in which an image gets damaged. */

#ifndef Q2_BENCH_RECOVERY_DAMAGE_H
#define Q2_BENCH_RECOVERY_DAMAGE_H

#include "tests/bench/recovery/subject.h"

/* One image being damaged. */
struct hit {
    const struct subject *subject;
    uint8_t *bytes;  /* a copy of the subject's, with SPARE_BYTES more behind it */
    uint64_t length; /* may become smaller */
    uint64_t random;
    char what[512]; /* what was done, for people */
};

/* How much of what is needed to undo the damage is still in the file. */
enum left {
    LEFT_ALL,  /* all of it, or a copy: what exists can be recovered */
    LEFT_SOME, /* depends on where it hit */
};

struct damage {
    const char *name;
    enum left left;
    bool (*hit)(
        struct hit *hit); /* false: this image has nothing that could be damaged like that */
};

extern const struct damage damages[];
extern const unsigned damage_count;

/* ---- for those who damage ---- */

void hit_say(struct hit *hit, const char *format, ...) __attribute__((format(printf, 2, 3)));

uint64_t hit_get64(const struct hit *hit, uint64_t at);
void hit_put64(struct hit *hit, uint64_t at, uint64_t value);
void hit_put32(struct hit *hit, uint64_t at, uint32_t value);
void hit_zero(struct hit *hit, uint64_t at, uint64_t length);
void hit_garbage(struct hit *hit, uint64_t at, uint64_t length);
/* What a guest might write: text, numbers and random bytes. */
void hit_guest_data(struct hit *hit, uint64_t at, uint64_t length);
void hit_flip(struct hit *hit, uint64_t at, unsigned bit); /* of the big-endian word at `at` */

/* A place of this kind, any map; NULL: there is none. */
const struct place *hit_place(struct hit *hit, enum q2_owner_kind kind);
/* An L2 entry that has a host cluster; `compressed`: of that kind, else a standard cluster. */
const struct slot *hit_slot(struct hit *hit, bool compressed);
/* An L1 entry in use: its host offset, or 0. `active`: of the active map. */
uint64_t hit_l1_entry(struct hit *hit, bool active);

#define DAMAGE(function) bool function(struct hit *hit);
#include "tests/bench/recovery/damages.def"
#undef DAMAGE

#endif
