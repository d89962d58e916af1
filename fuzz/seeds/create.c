/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Each option by itself, right and wrong, some together, and a fault at each of some places. */

#include "fuzz/seeds/seed.h"

enum { LAZY = 1, EXTENDED = 2, RAW_DATA = 4, DATA = 8, BACKING = 16, FORMAT = 32, NO_SECRET = 64 };
enum { V3 = 1, V2 = 4, C512 = 2, C4K = 5, C16K = 7, SECTORS = 0, PAGES = 3, NO_CRYPT = 0 };
enum { AES = 12, LUKS = 14, WHAT = 15 };

/* As harness/create.c reads them. */
struct choice {
    const char *name;
    uint8_t flags, version, cluster, width, compression, preallocation, unit;
    uint16_t size;
    uint8_t crypt;
    uint8_t rest[12]; /* encryption, names, and the fault */
};

static const struct choice all[] = {
    {"plain", 0, V3, C512, 0, 0, 0, SECTORS, 100, 0, {0}},
    {"defaults", 0, 0, 0, 0, 0, 0, SECTORS, 100, 0, {0}},
    {"empty", 0, V3, C512, 0, 0, 3, SECTORS, 0, 0, {0}},
    {"old", 0, V2, C512, 0, 0, 0, SECTORS, 100, 0, {0}},
    {"version", 0, 6, C512, 0, 0, 0, SECTORS, 100, 0, {0}},
    {"cluster", 0, V3, 1, 0, 0, 0, SECTORS, 100, 0, {0}},
    {"cluster-odd", 0, V3, 245, 0, 0, 0, SECTORS, 100, 0, {0}},
    {"width", 0, V3, C512, 8, 0, 0, SECTORS, 100, 0, {0}},
    {"width-1", 0, V3, C512, 1, 0, 2, SECTORS, 300, 0, {0}},
    {"width-64", 0, V3, C512, 7, 0, 3, SECTORS, 4500, 0, {0}},
    {"compression", 0, V3, C512, 0, 2, 0, SECTORS, 100, 0, {0}},
    {"zstd", 0, V3, C512, 0, 1, 0, SECTORS, 100, 0, {0}},
    {"preallocation", 0, V3, C512, 0, 0, 4, SECTORS, 100, 0, {0}},
    {"metadata", 0, V3, C4K, 0, 0, 1, PAGES, 300, 0, {0}},
    {"falloc", 0, V3, C512, 0, 0, 2, SECTORS, 999, 0, {0}},
    {"full", 0, V2, C512, 0, 0, 3, SECTORS, 999, 0, {0}},
    {"too-much", 0, V3, C512, 0, 0, 1, 7, 3, 0, {0}},
    {"too-large", 0, V3, C512, 0, 0, 0, 7, 999, 0, {0}},
    {"odd-size", 0, V3, C512, 0, 0, 0, 5, 999, 0, {0}},
    {"lazy", LAZY, V3, C512, 0, 0, 0, SECTORS, 100, 0, {0}},
    {"old-lazy", LAZY, V2, C512, 0, 0, 0, SECTORS, 100, 0, {0}},
    {"old-width", 0, V2, C512, 4, 0, 0, SECTORS, 100, 0, {0}},
    {"old-zstd", 0, V2, C512, 0, 1, 0, SECTORS, 100, 0, {0}},
    {"old-extended", EXTENDED, V2, C16K, 0, 0, 0, SECTORS, 100, 0, {0}},
    {"old-data", DATA, V2, C512, 0, 0, 0, SECTORS, 100, 0, {3, 'a'}},
    {"extended", EXTENDED, V3, C16K, 0, 0, 1, SECTORS, 100, 0, {0}},
    {"extended-small", EXTENDED, V3, C512, 0, 0, 0, SECTORS, 100, 0, {0}},
    {"backing", BACKING | FORMAT, V3, C512, 0, 0, 0, SECTORS, 100, 0, {3, 'a', 1, 'b'}},
    {"backing-long", BACKING, V3, C4K, 0, 0, 0, SECTORS, 100, 0, {215, 'a'}},
    {"backing-full", BACKING, V3, C512, 0, 0, 0, SECTORS, 100, 0, {90, 'a'}},
    {"backing-control", BACKING, V3, C512, 0, 0, 0, SECTORS, 100, 0, {3, '\n'}},
    {"backing-none", BACKING, V3, C512, 0, 0, 0, SECTORS, 100, 0, {0}},
    {"format-alone", FORMAT, V3, C512, 0, 0, 0, SECTORS, 100, 0, {1, 'b'}},
    {"format-long", BACKING | FORMAT, V3, C512, 0, 0, 0, SECTORS, 100, 0, {3, 'a', 12, 'b'}},
    {"backing-hidden", BACKING, V3, C512, 0, 0, 1, SECTORS, 100, 0, {3, 'a'}},
    {"data", DATA, V3, C512, 0, 0, 0, SECTORS, 100, 0, {3, 'a'}},
    {"data-full", DATA, V3, C512, 0, 0, 3, SECTORS, 100, 0, {3, 'a'}},
    {"data-raw", DATA | RAW_DATA, V3, C512, 0, 0, 1, SECTORS, 100, 0, {3, 'a'}},
    {"raw-alone", RAW_DATA, V3, C512, 0, 0, 0, SECTORS, 100, 0, {0}},
    {"raw-backing", DATA | RAW_DATA | BACKING, V3, C512, 0, 0, 0, SECTORS, 1, 0, {1, 'a', 1, 'b'}},
    {"aes", 0, V3, C512, 0, 0, 1, SECTORS, 100, AES, {0}},
    {"aes-old", 0, V2, C512, 0, 0, 0, SECTORS, 100, AES, {0}},
    {"no-secret", NO_SECRET, V3, C512, 0, 0, 0, SECTORS, 100, AES, {0}},
    {"encryption", 0, V3, C512, 0, 0, 0, SECTORS, 100, WHAT, {0}},
    {"luks", 0, V3, C512, 0, 0, 3, SECTORS, 100, LUKS, {0}},
    {"luks-essiv", 0, V3, C4K, 0, 0, 0, SECTORS, 100, LUKS, {1, 2, 3, 1, 1}},
    {"luks-ecb", 0, V3, C4K, 0, 0, 0, SECTORS, 100, LUKS, {3, 3, 2, 0, 6}},
    {"luks-ctr", 0, V3, C4K, 0, 0, 0, SECTORS, 100, LUKS, {1, 4, 1, 0, 5}},
    {"luks-192", 0, V3, C4K, 0, 0, 0, SECTORS, 100, LUKS, {2, 1, 1, 0, 7}},
    {"luks-192-cbc", 0, V3, C4K, 0, 0, 0, SECTORS, 100, LUKS, {2, 2, 1, 0, 1}},
    {"luks-cipher", 0, V3, C4K, 0, 0, 0, SECTORS, 100, LUKS, {4, 0, 0, 0, 0}},
    {"luks-mode", 0, V3, C4K, 0, 0, 0, SECTORS, 100, LUKS, {0, 5, 0, 0, 0}},
    {"luks-ivgen", 0, V3, C4K, 0, 0, 0, SECTORS, 100, LUKS, {0, 0, 4, 0, 0}},
    {"luks-ivgen-hash", 0, V3, C4K, 0, 0, 0, SECTORS, 100, LUKS, {0, 2, 3, 3, 0}},
    {"luks-hash", 0, V3, C4K, 0, 0, 0, SECTORS, 100, LUKS, {0, 0, 0, 0, 8}},
};

static void
put(struct q2_seed *seed, const struct choice *choice, const uint8_t *rest, size_t length)
{
    q2_seed_number(seed, 1, choice->flags);
    q2_seed_number(seed, 1, choice->version);
    q2_seed_number(seed, 1, choice->cluster);
    q2_seed_number(seed, 1, choice->width);
    q2_seed_number(seed, 1, choice->compression);
    q2_seed_number(seed, 1, choice->preallocation);
    q2_seed_number(seed, 1, choice->unit);
    q2_seed_number(seed, 2, choice->size);
    q2_seed_number(seed, 1, choice->crypt);
    q2_seed_bytes(seed, rest, length);
}

void
q2_make_seeds(void)
{
    static struct q2_seed seed;
    static const struct choice faulty = {.version = V3,
                                         .cluster = C512,
                                         .preallocation = 3,
                                         .size = 100};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        put(&seed, &all[i], all[i].rest, sizeof all[i].rest);
        q2_seed_write(&seed, "%s", all[i].name);
    }
    for (uint8_t nth = 0; nth < 14; nth++) {
        const uint8_t fault[] = {1 + nth % 4, nth & 1, nth};
        put(&seed, &faulty, fault, sizeof fault);
        q2_seed_write(&seed, "fault-%u", nth);
    }
}
