/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Random sequences of operations on an image, held against a model in plain memory.
 *
 * A sequence is a list of steps: an operation and four numbers. The numbers are random and mean
 * what the operation makes of them in the state that the image is in (an offset is taken modulo the
 * size of the disk), so that any subset of a sequence is a sequence too: that is what lets a
 * failing one shrink. */

#ifndef Q2_TESTS_STRESS_H
#define Q2_TESTS_STRESS_H

#include "core/codec/secret.h"
#include "core/image/image.h"
#include "core/io/file.h"

#include <stdio.h>

/* ---- random numbers: the same seed gives the same sequence on any machine ---- */

uint64_t next_random(uint64_t *state);
/* Below `limit`, which is not 0. */
uint64_t random_below(uint64_t *state, uint64_t limit);

/* Fill with what `seed` says: zeros, one byte repeated, text that compresses, or noise. */
void fill(uint8_t *bytes, size_t length, uint64_t seed);

/* ---- what an image is like ---- */

enum below { BELOW_NONE, BELOW_RAW, BELOW_QCOW2, BELOW_CHAIN };
enum { DATA_FILE_NONE, DATA_FILE, DATA_FILE_RAW };

struct params {
    unsigned version, cluster_bits, refcount_bits;
    unsigned lazy, zstd, extended, data_file, below, crypt, preallocation;
    unsigned caches;                 /* log2 of the bytes of both; 0: as large as they like */
    unsigned discard;                /* Q2_IMAGE_DISCARD */
    uint64_t size, below_size, most; /* bytes; the disk never gets larger than `most` */
    uint64_t vm_most;                /* bytes of VM state */
    uint64_t seed;                   /* of what is below */
    unsigned below_writes;           /* how many writes that content comes from */
};

void params_choose(struct params *params, uint64_t *random);
/* Smaller images of the same kind, for what looks at each of them very often. */
void params_shrink(struct params *params);
void params_print(const struct params *params, FILE *out);
/* "key=value ..."; false: not understood. */
bool params_parse(struct params *params, const char *text);

/* ---- the files ---- */

enum { MAX_SLOTS = 6 };

/* A file by its name. The images open `top`, which is `base` or what a test has laid over it. */
struct slot {
    char name[24];
    struct q2_file *base, *top;
};

struct world {
    struct slot slots[MAX_SLOTS];
    unsigned count;
};

struct slot *world_find(struct world *world, const char *name);
struct slot *world_add(struct world *world, const char *name);
/* The callback of struct q2_image_options; `data` is the world. */
int world_open(void *data, const char *name, unsigned flags, struct q2_file **ret_file,
               struct q2_error *err);
/* Make the content of one file that of the other. */
bool file_copy(struct q2_file *from, struct q2_file *to);
void world_destroy(struct world *world);
/* Write all files into a folder of the system. */
bool world_dump(const struct world *world, const char *folder);

/* ---- the model ---- */

enum {
    VM_USUAL = 96 * 1024,
    BELOW_WRITES = 12,
    MAX_SNAPSHOTS = 6,
    MAX_BITMAPS = 3,
    NAME_SIZE = 16
};

struct state {
    uint8_t *disk; /* params.most bytes, zeros from `size` on */
    uint64_t size;
    uint8_t *vm; /* `vm_most` bytes */
    uint64_t vm_most;
};

struct kept {
    char name[NAME_SIZE];
    struct state state;
    uint64_t vm_size;
};

/* A bitmap: what must be dirty, and what may be. A byte for each 512 bytes of the disk. */
struct dirt {
    char name[NAME_SIZE];
    uint64_t granularity;
    bool enabled;
    uint8_t *must, *may;
};

struct model {
    struct state active;
    struct kept snapshots[MAX_SNAPSHOTS]; /* in the order of the table */
    unsigned snapshot_count;
    struct dirt bitmaps[MAX_BITMAPS];
    unsigned bitmap_count;
    uint8_t *below; /* params.most bytes */
};

/* ---- a run ---- */

struct run {
    struct params params;
    struct world world;
    struct model model;
    struct q2_image *image;  /* NULL: closed */
    struct q2_secret secret; /* that opens it */
    unsigned flushes;        /* flushes and closes that succeeded */
    unsigned keys;           /* bit n: pass phrase n opens it too */
    uint8_t *scratch;        /* params.most bytes */
    bool verbose, failed;
    bool interrupted; /* bitmaps may have stayed in use */
    char message[1024];
};

struct op {
    const char *name;
    unsigned weight;
    /* Make the call and the same change to the model. */
    bool (*act)(struct run *run, const uint64_t *arg);
};

struct step {
    const struct op *op;
    uint64_t arg[4];
};

extern const struct op ops[];
extern const unsigned op_count;
const struct op *op_find(const char *name);
void step_choose(struct step *step, uint64_t *random);

/* Note what went wrong, once; false. */
bool fail(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same where `rc` is an error; true otherwise. */
bool succeeded(struct run *run, int rc, const struct q2_error *err, const char *what);
void say(const struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

bool run_begin(struct run *run, const struct params *params);
void run_end(struct run *run);
bool run_step(struct run *run, const struct step *step);
enum { SECRETS = 3 };
/* Pass phrase `number`; the bytes are static. */
struct q2_secret run_secret(unsigned number);
/* Options to open the image with, as the parameters have it. */
struct q2_image_options run_options(struct run *run, unsigned flags);
bool run_open(struct run *run, unsigned flags);
bool run_close(struct run *run);

/* ---- what must hold ---- */

/* The image's content is the state's, read in pieces. */
bool verify_content(struct run *run, struct q2_image *image, const struct state *state);
/* The map agrees with the content. */
bool verify_map(struct run *run, uint64_t from);
/* The checker finds nothing in the file, which is flushed or closed. */
bool verify_clean(struct run *run, const char *when);
/* The file is what a power cut or an error may leave: nothing that checks find is worse than leaked
 * clusters or COPIED flags that are clear without need, unless the image is dirty. */
bool verify_survived(struct run *run, bool *ret_dirty);
/* All that can be compared, on an image that is open. */
bool verify_open(struct run *run);
/* What QEMU thinks of the closed image; true as well where there is no QEMU. */
bool verify_peer(struct run *run, const char *folder);

#endif
