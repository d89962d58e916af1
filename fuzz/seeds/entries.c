/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Entries of every kind, sound and broken, with measures of every kind of image. */

#include "fuzz/seeds/seed.h"

static const struct {
    const char *name;
    uint64_t raw, bitmap;
} entries[] = {
    {"empty", 0, 0},
    {"standard", UINT64_C(0x8000000000010000), UINT64_C(0x00000000ffffffff)},
    {"shared", UINT64_C(0x0000000000010000), UINT64_C(0x0000ffff00000000)},
    {"zero", 1, 0},
    {"zero-kept", UINT64_C(0x8000000000010001), 0},
    {"compressed", UINT64_C(0x4000000000010200), 0},
    {"compressed-long", UINT64_C(0x7c00000000010200), 0},
    {"compressed-past-end", UINT64_C(0x40ffffffffffffff), 0},
    {"unaligned", UINT64_C(0x8000000000010200), 0},
    {"past-end", UINT64_C(0x00fffffffffffe00), 0},
    {"copied-empty", UINT64_C(0x8000000000000000), 0},
    {"reserved", UINT64_C(0x3f000000000101fe), 0},
    {"subclusters", UINT64_C(0x8000000000010000), UINT64_C(0xffff0000ffffffff)},
    {"subclusters-alone", 0, UINT64_C(0x00000000000000ff)},
};
static const unsigned kinds[][2] = {{0x40, 9},  {0x41, 9},  {0x40, 16}, {0x41, 16}, {0x42, 14},
                                    {0x44, 12}, {0x46, 16}, {0x48, 16}, {0x40, 21}};

/* What strict reading is asked: of each kind of image, as each kind of entry. */
enum { STRICT = 1, AS_L1 = 2, V2 = 4, EXTENDED = 8 };
static const unsigned questions[] = {0, AS_L1, V2, V2 | AS_L1, EXTENDED, EXTENDED | AS_L1};

static void
begin(struct q2_seed *seed, size_t kind, unsigned flags)
{
    q2_seed_measures(seed, kinds[kind][0], kinds[kind][1], 1 << 20, 1 << 21);
    q2_seed_number(seed, 1, flags);
    q2_seed_number(seed, 8, 0);
}

static void
make_one(struct q2_seed *seed, size_t i)
{
    q2_seed_number(seed, 8, entries[i].raw);
    q2_seed_number(seed, 8, entries[i].bitmap);
}

void
q2_make_seeds(void)
{
    static struct q2_seed seed;
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
            begin(&seed, k, 0);
            make_one(&seed, i);
            q2_seed_write(&seed, "%s-%zu", entries[i].name, k);
        }
        for (size_t k = 0; k < sizeof questions / sizeof questions[0]; k++) {
            begin(&seed, 0, STRICT | questions[k]);
            make_one(&seed, i);
            q2_seed_write(&seed, "strict-%s-%zu", entries[i].name, k);
        }
    }
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        begin(&seed, k, 0);
        for (size_t i = 0; i < 32; i++)
            q2_seed_number(&seed, 8, i < 8 ? 0 : i < 16 ? (i << kinds[k][1]) : 1);
        q2_seed_write(&seed, "runs-%zu", k);
    }
}
