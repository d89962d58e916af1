/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A healthy image that damage is done to, with all that is known about it: its bytes, what each of
 * its maps reads like, which guest clusters are its own, and where all its structures are.
 *
 * Content is known as a number for each guest cluster: 0 stands for zeros, 1 for what cannot be
 * read, the rest are hashes. The guest's data says in every 512 bytes where it belongs, so no two
 * clusters are alike, and a cluster that reads as it should is the right one. */

#ifndef Q2_BENCH_RECOVERY_SUBJECT_H
#define Q2_BENCH_RECOVERY_SUBJECT_H

#include "checker/finding.h"
#include "core/codec/secret.h"
#include "core/format/header.h"
#include "core/io/file.h"

enum { MAX_MAPS = 5, NAME_SIZE = 64 };

enum { CONTENT_ZERO = 0, CONTENT_ERROR = 1 };

/* What a map reads like. */
struct content {
    uint64_t clusters;
    uint64_t *hash; /* of each guest cluster */
};

/* A structure of the metadata. */
struct place {
    enum q2_owner_kind kind;
    uint64_t offset; /* host, bytes */
    uint64_t length; /* bytes */
    unsigned map;    /* the first, of L1 and L2 tables */
    uint64_t index;  /* in the L1 or refcount table, of L2 tables and refcount blocks */
};

/* An L2 entry that has a host cluster. */
struct slot {
    unsigned map;   /* the first that has it */
    uint64_t guest; /* cluster */
    uint64_t at;    /* host, bytes */
    uint64_t raw;
};

struct subject {
    const char *name;
    uint8_t *bytes;
    uint64_t length; /* bytes */
    struct q2_geometry geometry;
    struct q2_header header;
    unsigned maps; /* the active one and the snapshots */
    char names[MAX_MAPS][NAME_SIZE];
    struct content truth[MAX_MAPS];
    uint64_t *entry_at[MAX_MAPS]; /* host offset of a guest cluster's L2 entry; 0: not its own */
    struct place *places;
    unsigned place_count;
    struct slot *slots;
    unsigned slot_count;
    uint8_t *backing; /* content of its backing file, which is raw, or NULL */
    uint64_t backing_length;
    char backing_name[NAME_SIZE];
    struct q2_secret secret;
    bool has_bitmaps;
    bool has_luks;
    bool has_compressed;
};

/* Load what `image_make` has made in `folder`. False, with a message printed, if that fails. */
bool subject_load(const char *folder, const char *name, struct subject *ret_subject);
void subject_destroy(struct subject *subject);

/* Make a file in memory of `bytes`, with holes where 4 KiB of zeros are. */
struct q2_file *file_from(const uint8_t *bytes, uint64_t length);

/* Read the image in `file` (which stays the caller's) strictly, guest cluster by guest cluster, as
 * the maps that `subject` has; snapshots are found by their names, or where those are gone by
 * content. `content` has room for all maps. ret_map[i] is the index of map i of the subject in this
 * image, UINT32_MAX for none. */
void subject_read(const struct subject *subject, struct q2_file *file, struct content *content,
                  uint32_t *ret_map);

/* How `qemu-img -l` is asked for snapshot `index` of the image in `file`, which may have lost its
 * name: by id and name as they are now. */
bool subject_snapshot(const struct subject *subject, struct q2_file *file, unsigned index,
                      char *text, size_t size);

/* The number that stands for a guest cluster of these bytes. */
uint64_t content_hash(const uint8_t *bytes, uint64_t length);

bool content_new(const struct subject *subject, struct content *ret_content);
void content_free(struct content *content);

uint64_t random_next(uint64_t *state);
uint64_t random_below(uint64_t *state, uint64_t limit);

#endif
