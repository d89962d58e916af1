/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Makes the seeds: small images, few, that between them have all features and all problems, as far
 * as these are a matter of one file, and make a repair do all that it can do; or fails.
 *
 *     seeds-images FOLDER RECIPE...
 *
 * Each recipe is built as it is and checked; then the smallest clusters are looked for with which
 * it is no longer than a seed may be and has the same problems, or, failing that, any. Of images
 * that are alike in what they have and in what is wrong with them, only the first becomes a seed;
 * but those that are written for this, in this folder, all do, and those of which something cannot
 * be read, or which are looked at in some other way (options.c).
 * FOLDER gets a folder for each harness that takes them. */

#include "checker/catalogue.h"
#include "checker/check.h"
#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/io/memory.h"
#include "core/io/posix.h"
#include "corpus/recipe/recipe.h"
#include "fuzz/fuzz.h"
#include "fuzz/images/seeds.h"
#include "fuzz/support/image.h"
#include "fuzz/support/medium.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MOST_BYTES = 64 << 10,
    MOST_LARGE_BYTES = 128 << 10, /* in clusters as large as subclusters need */
    MOST_BUILT_BYTES = 16 << 20,
    MOST_CLUSTER_BITS = 16,
    MOST_SEEDS = 2000,
    PROBLEM_BYTES = (Q2_PROBLEM_COUNT + 7) / 8,
    SALVAGES = 32, /* choices of the harness salvage: its flags, all of them */
    REPORTS = 16,  /* choices of the harness report: its flags, all of them */
    LEVELS = 4,    /* of the harness repair */
    GUESS = 2,     /* that of them which does most */
};

/* Flags of the harness check. */
enum { DEEP = 1 << 0, THREADS = 1 << 1, TIGHT = 1 << 2, OWNERS = 1 << 3 };

/* What an image is like; `cluster_bits` makes no difference. */
struct kind {
    uint8_t problems[PROBLEM_BYTES];
    uint8_t version, cluster_bits, crypt_method, refcount_order, compression;
    uint8_t features; /* incompatible ones */
    bool broken;      /* cannot even be checked */
    bool damaged;
    bool snapshots, bitmaps, backing;
};

struct seed {
    struct q2_file *file; /* NULL: none */
    uint64_t size;        /* of what becomes the input, bytes */
    struct kind kind;
    struct seed_options options;
};

/* Who says what fails. */
const struct q2_harness q2_harness = {.name = "seeds-images"};

static const char *const harnesses[] = {"check",  "check-slow", "repair",
                                        "report", "salvage",    "writes"};

static struct {
    const char *folder;
    struct kind kinds[MOST_SEEDS];
    size_t count;
    uint8_t problems[PROBLEM_BYTES]; /* of all seeds */
} made;

static void
die(const char *what, const char *why)
{
    fprintf(stderr, "seeds-images: %s: %s\n", what, why);
    exit(1);
}

/* ---- one image ---- */

static void
describe(struct seed *seed)
{
    struct q2_check_options how = {.threads = 1, .deep = seed->size <= MOST_LARGE_BYTES};
    struct q2_check *check = NULL;
    struct kind *kind = &seed->kind;
    const struct q2_fuzz_options options = seed_options_fuzz(&seed->options);
    if (seed->options.grown &&
        q2_file_truncate(seed->file, seed->size + (seed->options.grown << 20), NULL) < 0)
        die("memory", "a file cannot grow");
    q2_fuzz_limits(&options, &how);
    Q2_AUTOCLOSE struct q2_file *file = q2_fuzz_medium(seed->file, &options);
    if (seed->size > MOST_BUILT_BYTES || q2_check_run(file, &how, &check, NULL) < 0) {
        kind->broken = kind->damaged = true;
        return;
    }
    const struct q2_header *header = q2_check_header(check);
    kind->version = (uint8_t)header->version;
    kind->cluster_bits = (uint8_t)header->cluster_bits;
    kind->crypt_method = (uint8_t)header->crypt_method;
    kind->refcount_order = (uint8_t)header->refcount_order;
    kind->compression = header->compression_type;
    kind->features = (uint8_t)header->incompatible_features;
    kind->snapshots = header->nb_snapshots > 0;
    kind->bitmaps = header->autoclear_features & Q2_AUTOCLEAR_BITMAPS;
    kind->backing = header->backing_file_offset > 0;
    for (size_t i = 0; i < q2_check_finding_count(check); i++) {
        enum q2_problem problem = q2_check_finding(check, i)->problem;
        kind->problems[problem / 8] |= (uint8_t)(1 << problem % 8);
    }
    kind->damaged = q2_check_exit(check) != Q2_EXIT_CLEAN;
    q2_check_free(check);
}

static void
drop(struct seed *seed)
{
    q2_file_close(seed->file);
    *seed = (struct seed){0};
}

/* Build the image of a recipe; without a file where that is not possible. */
static struct seed
build(const char *name, const char *text, const struct seed_options *options)
{
    struct seed seed = {.options = *options};
    struct q2_recipe *recipe = NULL;
    if (q2_file_new_memory("seed", &seed.file, NULL) < 0)
        die(name, "no memory");
    const struct q2_recipe_target target = {.image = seed.file};
    if (q2_recipe_parse(name, text, strlen(text), &recipe, NULL) < 0 ||
        q2_recipe_build(recipe, &target, NULL) < 0 ||
        q2_file_size(seed.file, &seed.size, NULL) < 0) {
        drop(&seed);
    } else {
        describe(&seed);
    }
    q2_recipe_free(recipe);
    return seed;
}

static bool
is_small(const struct seed *seed)
{
    unsigned bits = seed->kind.cluster_bits;
    bool large = bits >= Q2_MIN_EXTENDED_CLUSTER_BITS;
    if (bits > MOST_CLUSTER_BITS && bits <= Q2_MAX_CLUSTER_BITS)
        return false; /* a repair copies them whole */
    return seed->file && seed->size <= (large ? MOST_LARGE_BYTES : MOST_BYTES);
}

/* Whether all problems that are wanted are there. */
static bool
is_enough(const struct kind *kind, const struct kind *wanted)
{
    for (size_t i = 0; i < PROBLEM_BYTES; i++)
        if (wanted->problems[i] & ~kind->problems[i])
            return false;
    return true;
}

/* The recipe in smaller clusters, and cut off if that is wanted. */
static struct seed
build_scaled(const char *name, const char *text, const struct seed_options *options,
             const struct seed_scale *scale, bool cut)
{
    Q2_AUTOFREE char *scaled = seed_scale(text, scale), *whole = NULL;
    struct seed_options scaled_options = *options;
    seed_options_scale(scale, &scaled_options);
    if (!scaled || asprintf(&whole, "%s\n%s", scaled, cut ? "truncate 60K\n" : "") < 0)
        return (struct seed){0};
    return build(name, whole, &scaled_options);
}

/* The smallest image of a recipe that is what the recipe means; or, failing that, something. */
static struct seed
shrink(const char *name, const char *text, const struct seed_options *options)
{
    static const struct seed_scale scales[] = {{9, false},  {9, true},  {12, false}, {12, true},
                                               {14, false}, {14, true}, {0, false}};
    enum { SCALES = sizeof scales / sizeof *scales };
    struct seed wanted = build(name, text, options), next_best = {0};
    if (is_small(&wanted))
        return wanted;
    /* Of clusters that are a sector large nothing is left if that cannot be read. */
    size_t first = options->bad_length ? 2 : 0;
    for (size_t i = first; i < 2 * SCALES && wanted.file; i++) {
        struct seed seed = build_scaled(name, text, options, &scales[i % SCALES], i >= SCALES);
        if (is_small(&seed) && is_enough(&seed.kind, &wanted.kind)) {
            drop(&wanted);
            drop(&next_best);
            return seed;
        }
        if (is_small(&seed) && !next_best.file && seed.kind.damaged)
            next_best = seed;
        else
            drop(&seed);
    }
    drop(&wanted);
    return next_best;
}

/* ---- the folders ---- */

static void
put(const char *harness, const char *name, const struct seed *seed,
    const struct q2_fuzz_options *options)
{
    static uint8_t bytes[MOST_LARGE_BYTES + Q2_FUZZ_OPTIONS_LENGTH];
    Q2_AUTOFREE char *path = NULL;
    size_t length = (size_t)seed->size;
    if (q2_file_read(seed->file, 0, bytes, length, NULL) < 0)
        die(name, "cannot be read back");
    if (options) {
        uint8_t *at = bytes + length;
        q2_store_be64(at, Q2_FUZZ_OPTIONS_MAGIC);
        at[8] = options->level;
        at[9] = options->flags;
        q2_store_be16(at + 10, options->number);
        q2_store_be32(at + 12, options->chance);
        length += Q2_FUZZ_OPTIONS_LENGTH;
    }
    if (asprintf(&path, "%s/%s/%s", made.folder, harness, name) < 0)
        die(name, "no memory");
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, length, file) != length || fclose(file) != 0)
        die(path, strerror(errno));
}

static bool
is_known(const struct kind *kind)
{
    for (size_t i = 0; i < made.count; i++) {
        struct kind other = made.kinds[i];
        other.cluster_bits = kind->cluster_bits;
        if (memcmp(&other, kind, sizeof other) == 0)
            return true;
    }
    return false;
}

/* Whether it was written for this. */
static bool
is_own(const char *name)
{
    return strncmp(name, "images-", 7) == 0;
}

/* A repair at some level, if it is `wanted`, or does what none does yet. */
static void
put_repair(const char *name, const struct seed *seed, const struct q2_fuzz_options *options,
           bool wanted)
{
    Q2_AUTOCLOSE struct q2_file *file = q2_fuzz_medium(seed->file, options);
    Q2_AUTOFREE char *whole = NULL;
    if (asprintf(&whole, "%s-%u", name, options->level) < 0)
        die(name, "no memory");
    bool more = seed_actions_note(file, options);
    if (wanted || more)
        put("repair", whole, seed, options);
}

static void
put_repairs(const char *name, const struct seed *seed, uint32_t turn)
{
    static const uint8_t flags[] = {0, 0, Q2_FUZZ_DEEP, Q2_FUZZ_FIXED_SIZE, 0, Q2_FUZZ_DISCARD, 0};
    /* Of limits a repair knows nothing. */
    bool other = seed->options.bad_length || seed->options.grown;
    bool all = (other || is_own(name)) && seed->kind.damaged;
    struct q2_fuzz_options repair = seed_options_fuzz(&seed->options);
    repair.flags |= seed->options.deep ? Q2_FUZZ_DEEP : 0;
    repair.flags |= flags[turn % sizeof flags];
    repair.level = turn % LEVELS;
    if (seed->kind.damaged || turn % LEVELS == 0)
        put_repair(name, seed, &repair, true);
    for (uint8_t level = 0; seed->kind.damaged && level < LEVELS; level++) {
        repair.level = level;
        if (level != turn % LEVELS && (all || level == GUESS))
            put_repair(name, seed, &repair, all);
    }
}

/* A choice for an image that stays its own, whatever others there are. */
static uint32_t
turn_of(const char *name)
{
    uint32_t turn = 1;
    for (; *name; name++)
        turn = (turn ^ (unsigned char)*name) * UINT32_C(0x01000193);
    return turn >> 8;
}

/* Some steps, and a snapshot that is taken, left behind, gone back to and deleted. */
static void
put_writes(const char *name, const struct seed *seed, uint32_t turn)
{
    enum { SNAPSHOT = 7, WRITE = 0, GO_BACK = 9, DELETE = 8 };
    struct q2_fuzz_options options = seed_options_fuzz(&seed->options);
    Q2_AUTOFREE char *other = NULL;
    if (asprintf(&other, "%s-snapshot", name) < 0)
        die(name, "no memory");
    options.level = 7;
    options.flags |= turn & 1;
    options.chance |= UINT32_C(0x9e3779b1) * turn >> 7;
    options.number = (uint16_t)(UINT32_C(0x9e37) * turn);
    put("writes", name, seed, &options);
    options.number = SNAPSHOT | WRITE << 4 | GO_BACK << 8 | DELETE << 12;
    put("writes", other, seed, &options);
}

/* For the harnesses, each image in another way. */
static void
put_all(const char *name, const struct seed *seed)
{
    static const uint8_t checks[] = {DEEP, THREADS, OWNERS, DEEP | THREADS};
    const struct q2_fuzz_options asked = seed_options_fuzz(&seed->options);
    uint32_t turn = turn_of(name);
    uint8_t deep = seed->options.deep ? DEEP : 0;
    bool special = seed_options_any(&seed->options);
    struct q2_fuzz_options check = asked, report = asked, salvage = asked;
    check.flags |= special ? deep | TIGHT | THREADS : deep | checks[turn % sizeof checks];
    check.chance |= special ? 0 : UINT32_C(0x9e3779b1) * turn;
    put(seed->options.slow ? "check-slow" : "check", name, seed, &check);
    if (seed->options.slow)
        return;
    salvage.flags |= turn % SALVAGES;
    salvage.chance |= special ? 0 : UINT32_C(0x9e3779b1) * turn;
    put("salvage", name, seed, &salvage);
    put_repairs(name, seed, turn);
    report.flags |= turn % REPORTS;
    report.level = turn / REPORTS % LEVELS;
    report.number |= (uint16_t)(special ? 0 : turn / REPORTS);
    report.chance |= special ? 0 : UINT32_C(0x9e3779b1) * turn;
    put("report", name, seed, &report);
    put_writes(name, seed, turn);
}

static void
add(const char *name, const char *text, const struct seed_options *options)
{
    struct seed seed = shrink(name, text, options);
    bool own = is_own(name) || seed_options_any(options);
    if (seed.file && (own || !is_known(&seed.kind)) && made.count < MOST_SEEDS) {
        put_all(name, &seed);
        made.kinds[made.count++] = seed.kind;
        for (size_t i = 0; i < PROBLEM_BYTES; i++)
            made.problems[i] |= seed.kind.problems[i];
    }
    drop(&seed);
}

/* ---- recipes ---- */

/* healthy/bitmaps.recipe is healthy-bitmaps, cases/l1-lost/recipe is l1-lost. */
static char *
name_of(const char *path)
{
    char *copy = strdup(path), *name = NULL;
    char *last = copy ? strrchr(copy, '/') : NULL;
    if (!last)
        die(path, "is in no folder");
    *last++ = '\0';
    const char *folder = strrchr(copy, '/');
    folder = folder ? folder + 1 : copy;
    last[strcspn(last, ".")] = '\0';
    bool is_case = strcmp(last, "recipe") == 0;
    if (asprintf(&name, "%s%s%s", folder, is_case ? "" : "-", is_case ? "" : last) < 0)
        die(path, "no memory");
    free(copy);
    return name;
}

/* NULL: there is no such file, which is an error if it is `needed`. */
static char *
read_text(const char *path, bool needed)
{
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    struct q2_error err = {0};
    uint64_t size = 0;
    if (!needed && access(path, F_OK) < 0)
        return NULL;
    int rc = q2_file_open(path, 0, &file, &err);
    rc = rc ? rc : q2_file_size(file, &size, &err);
    char *text = rc ? NULL : calloc(1, size + 1);
    if (text && q2_file_read(file, 0, text, size, &err) < 0)
        rc = -1;
    if (rc || !text)
        die(path, err.message);
    return text;
}

/* What stands beside cases/l1-lost/recipe is in cases/l1-lost/options; beside images/v2.recipe, in
 * images/v2.options. */
static struct seed_options
options_of(const char *path)
{
    struct seed_options options;
    Q2_AUTOFREE char *beside = NULL;
    size_t length = strlen(path) - strlen("recipe");
    if (asprintf(&beside, "%.*soptions", (int)length, path) < 0)
        die(path, "no memory");
    Q2_AUTOFREE char *text = read_text(beside, false);
    seed_options_read(text, &options);
    return options;
}

static void
make_folder(const char *harness)
{
    Q2_AUTOFREE char *path = NULL;
    if (asprintf(&path, "%s/%s", made.folder, harness) < 0)
        die(harness, "no memory");
    if (mkdir(path, 0777) < 0 && errno != EEXIST)
        die(path, strerror(errno));
}

int
main(int argc, char **argv)
{
    if (argc < 3)
        die("usage", "seeds-images FOLDER RECIPE...");
    made.folder = argv[1];
    for (size_t i = 0; i < sizeof harnesses / sizeof *harnesses; i++)
        make_folder(harnesses[i]);
    for (int i = 2; i < argc; i++) {
        Q2_AUTOFREE char *name = name_of(argv[i]), *text = read_text(argv[i], true);
        const struct seed_options options = options_of(argv[i]);
        add(name, text, &options);
    }
    printf("%zu seeds of %d recipes\n", made.count, argc - 2);
    unsigned missing = seed_actions_missing();
    /* Those of other files are in seeds/chain.c. */
    for (int i = 0; i < Q2_PROBLEM_COUNT; i++)
        if (q2_catalogue((enum q2_problem)i)->pass != Q2_PASS_CHAIN &&
            !(made.problems[i / 8] >> i % 8 & 1)) {
            printf("no seed has %s\n", q2_problem_id((enum q2_problem)i));
            missing++;
        }
    if (missing)
        printf("which takes a small image: write a recipe in fuzz/images\n");
    return missing ? 1 : 0;
}
