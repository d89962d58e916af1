/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* How a program lies in an input: a head, and steps of one length each, so that mutators can move
 * them. What an input lacks is zero, what follows the last whole step is nothing; any bytes are a
 * program. */

#ifndef Q2_FUZZ_SUPPORT_PROGRAM_LAYOUT_H
#define Q2_FUZZ_SUPPORT_PROGRAM_LAYOUT_H

enum {
    Q2_PROGRAM_HEAD = 16, /* bytes */
    Q2_PROGRAM_STEP = 8,
    Q2_PROGRAM_MAX_STEPS = 16,
    Q2_PROGRAM_MAX = Q2_PROGRAM_HEAD + Q2_PROGRAM_MAX_STEPS * Q2_PROGRAM_STEP,

    /* Offsets in the head. */
    Q2_PROGRAM_FORMAT = 0,     /* bits of enum q2_program_format */
    Q2_PROGRAM_CLUSTERS = 1,   /* low bits: cluster size; high: width of refcounts */
    Q2_PROGRAM_FILES = 2,      /* 2 bits: what is below; 2: data file; 4: encryption */
    Q2_PROGRAM_SPACE = 3,      /* 2 bits: preallocation; 3: caches; 3: large if all are set */
    Q2_PROGRAM_SIZE = 4,       /* of the disk, 2 bytes */
    Q2_PROGRAM_BELOW_SIZE = 6, /* of what is below, 2 bytes */
    Q2_PROGRAM_SEED = 8,       /* of what is below */
    Q2_PROGRAM_FLAGS = 9,      /* by harness */
    Q2_PROGRAM_NUMBER = 10,    /* which change or operation is meant; by harness; 2 bytes */
    Q2_PROGRAM_CHANCE = 12,    /* random bits; 4 bytes */

    /* In a step, which is the operation, three bytes of place, three of extent, and a seed. */
    Q2_PROGRAM_PLACE = 1,
    Q2_PROGRAM_EXTENT = 4,
    Q2_PROGRAM_FILL = 7,

    /* Operations from here on are no steps but damage to the image that is left, for harnesses that
     * repair it. Of the other ones the lower bits count. */
    Q2_PROGRAM_DAMAGE = 0xC0,
    Q2_PROGRAM_OPS = 0x40,
};

enum q2_program_format {
    Q2_PROGRAM_OLD = 1 << 0, /* version 2 */
    Q2_PROGRAM_LAZY = 1 << 1,
    Q2_PROGRAM_ZSTD = 1 << 2,
    Q2_PROGRAM_EXTENDED = 1 << 3,
    Q2_PROGRAM_DISCARD = 1 << 4,
    Q2_PROGRAM_QUIET = 1 << 5, /* do not look at the disk after each step, which fills caches */
};

#endif
