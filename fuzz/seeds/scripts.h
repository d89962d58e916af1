/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Programs that chance hardly makes: for each, a kind of image and steps that lead, with the last
 * one, to code which only such images need. */

#ifndef Q2_FUZZ_SEEDS_SCRIPTS_H
#define Q2_FUZZ_SEEDS_SCRIPTS_H

#include "fuzz/seeds/seed.h"
#include "fuzz/support/program.h"

enum { Q2_SCRIPT_STEPS = 8 };

struct q2_script {
    const char *name;
    struct params params;
    struct {
        const char *op;
        uint32_t place, extent;
        uint8_t fill;
    } steps[Q2_SCRIPT_STEPS];
};

/* The numbers of steps, as tests/stress reads them. */
#define Q2_WRITE(offset, length)                      \
    {                                                 \
        "write", (offset) << 4, (length) << 8 | 7, 77 \
    }
#define Q2_RESIZE(size, how)                     \
    {                                            \
        "resize", (size) / 512 - 1, 1, 8 * (how) \
    }
#define Q2_STEP(op) \
    {               \
        op, 0, 0, 1 \
    }

/* Images with clusters of 512 bytes and refcounts of 1 << order bits. */
#define Q2_KIND(order, most_, size_, ...)                                                 \
    {                                                                                     \
        .version = 3, .cluster_bits = 9, .refcount_bits = 1U << (order), .size = (size_), \
        .most = (most_), .seed = 7, __VA_ARGS__                                           \
    }
#define Q2_SMALL(order, ...)       Q2_KIND(order, 64 << 10, 32 << 10, __VA_ARGS__)
#define Q2_LARGE(order, size, ...) Q2_KIND(order, Q2_PROGRAM_LARGE, size, __VA_ARGS__)

static const struct q2_script q2_scripts[] = {
    /* Refcount blocks, and then a table of more than one cluster. */
    {"blocks", Q2_SMALL(6), {Q2_WRITE(0, 20000), Q2_STEP("snapshot"), Q2_WRITE(0, 30000)}},
    {"table",
     Q2_LARGE(6, 32 << 10),
     {Q2_WRITE(0, 4000), Q2_RESIZE(9 << 18, 1), Q2_WRITE(1 << 19, 4000), Q2_STEP("flush")}},
    {"table-lazy",
     Q2_LARGE(6, 32 << 10, .lazy = 1),
     {Q2_WRITE(0, 4000), Q2_STEP("flush"), Q2_RESIZE(9 << 18, 2)}},
    {"table-snapshot",
     Q2_LARGE(6, 15 << 17, .preallocation = 1),
     {{"vm-write", 0, 8000, 3}, {"snapshot", 1, 1, 0}, Q2_WRITE(1 << 19, 60000)}},
    {"width-large",
     Q2_LARGE(4, 9 << 18, .preallocation = 2),
     {Q2_STEP("snapshot"), Q2_WRITE(4096, 9000), {"width", 6, 0, 0}}},
    {"empty-large", Q2_LARGE(6, 9 << 18, .preallocation = 1), {Q2_STEP("empty")}},
    /* Whole words of refcounts at once. */
    {"words",
     Q2_LARGE(4, 1 << 18, .preallocation = 2),
     {Q2_STEP("snapshot"), Q2_WRITE(1 << 17, 60000), Q2_STEP("goto"), Q2_STEP("flush"),
      Q2_STEP("delete")}},
    {"words-full",
     Q2_LARGE(1, 1 << 17),
     {Q2_RESIZE(1 << 18, 3), Q2_STEP("snapshot"), Q2_STEP("snapshot"), Q2_STEP("snapshot")}},
    {"shrink", Q2_LARGE(5, 1 << 18, .preallocation = 2), {Q2_RESIZE(4096, 0)}},
    /* Key slots. */
    {"key-add", Q2_SMALL(4, .crypt = Q2_CRYPT_LUKS), {Q2_WRITE(0, 4000), {"key-add", 1, 0, 0}}},
    {"key-remove",
     Q2_SMALL(4, .crypt = Q2_CRYPT_LUKS),
     {{"key-add", 2, 0, 0}, {"key-remove", 1, 0, 0}, {"key-remove", 0, 0, 0}}},
    {"key-reopen",
     Q2_SMALL(4, .crypt = Q2_CRYPT_LUKS),
     {{"key-remove", 0, 0, 0}, Q2_STEP("snapshot"), Q2_WRITE(99, 9000), Q2_STEP("reopen")}},
    {"keyless", Q2_SMALL(4, .crypt = Q2_CRYPT_AES), {Q2_WRITE(99, 9000), Q2_STEP("reopen")}},
    /* Bitmaps that are stored, shrink and grow. */
    {"bitmaps",
     Q2_SMALL(4),
     {{"bitmap-add", 1, 0, 1},
      {"bitmap-add", 2, 3, 1},
      Q2_WRITE(0, 9000),
      Q2_STEP("reopen"),
      {"bitmap-merge", 0, 1, 0},
      Q2_RESIZE(64 << 10, 0),
      Q2_STEP("reopen"),
      Q2_STEP("bitmap-look")}},
    {"bitmaps-shrink",
     Q2_LARGE(4, 2 << 20),
     {{"bitmap-add", 1, 0, 1},
      Q2_WRITE(1 << 19, 60000),
      Q2_STEP("reopen"),
      {"bitmap-enable", 0, 0, 0},
      Q2_RESIZE(600 << 10, 0),
      {"bitmap-clear", 0, 0, 0},
      Q2_STEP("reopen")}},
    {"bitmaps-remove",
     Q2_SMALL(4, .discard = 1),
     {{"bitmap-add", 1, 0, 1}, Q2_WRITE(0, 9000), Q2_STEP("reopen"), {"bitmap-remove", 0, 0, 0}}},
    {"bitmaps-snapshot",
     Q2_SMALL(4),
     {{"bitmap-add", 1, 0, 1}, Q2_STEP("snapshot"), Q2_STEP("goto"), Q2_STEP("empty")}},
    /* What another version cannot have, in it and below it. */
    {"version-zeros",
     Q2_SMALL(4, .below = BELOW_RAW, .below_size = 16 << 10),
     {Q2_WRITE(0, 4000), {"zero", 0, 9000 << 8 | 7, 0}, {"version", 0, 0, 0}}},
    {"version-snapshot",
     Q2_SMALL(4),
     {Q2_WRITE(0, 4000), {"zero", 0, 9000 << 8 | 7, 0}, Q2_STEP("snapshot"), {"version", 0, 0, 0}}},
    {"version-width", Q2_SMALL(3), {Q2_WRITE(0, 4000), {"version", 0, 0, 0}}},
    {"version-data",
     Q2_SMALL(4, .data_file = DATA_FILE),
     {Q2_WRITE(0, 4000), {"version", 0, 0, 0}}},
    {"rebase-chain",
     Q2_SMALL(4, .below = BELOW_CHAIN, .below_size = 16 << 10),
     {Q2_WRITE(100, 4000), {"rebase", 1, 0, 0}, Q2_STEP("reopen")}},
};
enum { Q2_SCRIPTS = sizeof q2_scripts / sizeof *q2_scripts };

/* Write script `number` as a seed. */
static inline void
q2_seed_script(unsigned number, uint8_t flags, uint16_t which, uint32_t chance)
{
    static struct q2_seed out;
    const struct q2_script *script = &q2_scripts[number];
    struct q2_program program = {.params = script->params,
                                 .flags = flags,
                                 .number = which,
                                 .chance = chance};
    for (unsigned i = 0; i < Q2_SCRIPT_STEPS && script->steps[i].op; i++)
        program.steps[program.step_count++] = (struct step){
            .op = op_find(script->steps[i].op),
            .arg = {script->steps[i].place, script->steps[i].extent, script->steps[i].fill},
        };
    uint8_t bytes[Q2_PROGRAM_MAX];
    q2_seed_bytes(&out, bytes, q2_program_encode(&program, bytes));
    q2_seed_write(&out, "%s-%u-%u", script->name, flags, which);
}

#endif
