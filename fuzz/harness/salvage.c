/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Whole images through the salvage. The image is not written to; and what strict reading reads of
 * the disk, the salvaged image has too, unless its map is not certain, or a repair would name the
 * range: strict reading does not notice that a cluster is somebody else's, and salvage does. One
 * that was stopped and goes on comes to the same.
 *
 * Salvage makes files of the system, so this harness does: in a folder of its own, in memory where
 * there is such a place. */

#include "repair/salvage.h"
#include "core/base/cleanup.h"
#include "core/codec/secret.h"
#include "core/io/posix.h"
#include "fuzz/fuzz.h"
#include "fuzz/support/guest.h"
#include "fuzz/support/image.h"
#include "fuzz/support/medium.h"
#include "fuzz/support/scratch.h"
#include "repair/repair.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the flags: to a qcow2 image; stopped at some time, and taken up again; what is left to the
 * backing file stays there; the other files are there; somebody has the pass phrase. */
enum { NATIVE = 1 << 0, STOPPED = 1 << 1, KEEP_BACKING = 1 << 2, OTHERS = 1 << 3, SECRET = 1 << 4 };
enum { MOST_GUESSES = 4096 };

/* Larger disks take too long to copy, even if they are empty. */
static const uint64_t most_bytes = UINT64_C(64) << 20;

/* What the map says of the disk. */
struct guesses {
    size_t count;
    struct q2_salvage_range ranges[MOST_GUESSES];
};

struct sides {
    struct q2_file *file;
    const struct guesses *guesses;
    struct q2_image *image; /* one of them */
    struct q2_file *raw;
};

/* Where it goes. Snapshots become files next to it, with names that the image chooses. */
static const char *
output(void)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/out", q2_fuzz_scratch());
    return path;
}

/* Ranges come in order; what is over the limit counts as one. */
static void
note(void *data, const struct q2_salvage_range *range)
{
    struct guesses *guesses = data;
    if (range->map != 0 || range->vm_state || range->state == Q2_SALVAGE_CERTAIN)
        return;
    if (guesses->count < MOST_GUESSES)
        guesses->ranges[guesses->count++] = *range;
    else
        guesses->ranges[MOST_GUESSES - 1].length = UINT64_MAX / 2;
}

/* Whether the map is not certain of any byte of the range. */
static bool
is_guess(const struct guesses *guesses, uint64_t offset, uint64_t length)
{
    for (size_t i = 0; i < guesses->count; i++) {
        const struct q2_salvage_range *range = &guesses->ranges[i];
        if (range->offset < offset + length && offset < range->offset + range->length)
            return true;
    }
    return false;
}

/* Whether the repair that salvage makes, on its overlay, says that the range changes. */
static bool
is_repaired(struct q2_file *file, uint64_t offset, uint64_t length)
{
    const struct q2_repair_options options = {.level = Q2_LEVEL_GUESS,
                                              .threads = 1,
                                              .max_memory = Q2_FUZZ_MEMORY};
    struct q2_repair *repair = NULL;
    if (q2_repair_plan(file, &options, &repair, NULL) < 0)
        return false;
    bool named = q2_plan_names(q2_repair_actions(repair), 0, offset, length);
    q2_repair_free(repair);
    return named;
}

static void
compare(void *data, uint64_t offset, const uint8_t *bytes, size_t length)
{
    const struct sides *sides = data;
    uint8_t now[Q2_FUZZ_PIECE];
    int rc = sides->image ? q2_image_read(sides->image, offset, now, length, NULL)
                          : q2_file_read_padded(sides->raw, offset, now, length, NULL);
    if (rc == 0 && memcmp(bytes, now, length) == 0)
        return;
    Q2_REQUIRE(is_guess(sides->guesses, offset, length) || is_repaired(sides->file, offset, length),
               "guest offset %" PRIu64 " was salvaged otherwise than it reads", offset);
}

static void
require_content(struct q2_file *file, bool native, const struct guesses *guesses)
{
    struct sides sides = {.file = file, .guesses = guesses};
    struct q2_image *old = q2_fuzz_open(file, 0);
    struct q2_error err = {0};
    if (!old)
        return;
    const struct q2_image_options options = {.flags = Q2_IMAGE_NO_BACKING, .format = Q2_DISK_QCOW2};
    int rc = native ? q2_image_open(output(), &options, &sides.image, &err)
                    : q2_file_open(output(), 0, &sides.raw, &err);
    Q2_REQUIRE(rc == 0, "what was salvaged cannot be opened: %s", err.message);
    q2_fuzz_guest(old, compare, &sides);
    q2_image_close(sides.image, NULL);
    q2_file_close(sides.raw);
    q2_image_close(old, NULL);
}

/* Whether the header claims no more than can be copied at once. */
static bool
is_small(const uint8_t *input, size_t length)
{
    struct q2_header header;
    q2_header_decode(input, length, &header);
    return header.size <= most_bytes;
}

static bool
is_aes(const uint8_t *input, size_t length)
{
    struct q2_header header;
    q2_header_decode(input, length, &header);
    return header.crypt_method == Q2_CRYPT_AES;
}

/* ---- the salvage ---- */

/* How often it is still asked before it has to stop. */
static bool
stop(void *data)
{
    unsigned *left = data;
    return (*left)-- == 0;
}

/* A file that is nothing but text, for whatever the image takes it for. */
static char *
make_other(const char *name)
{
    static const char line[] = "what is in another file\n";
    char *path = NULL;
    Q2_REQUIRE(asprintf(&path, "%s/%s", q2_fuzz_scratch(), name) > 0, "no memory");
    FILE *file = fopen(path, "wb");
    for (unsigned i = 0; file && i < 1000; i++)
        fputs(line, file);
    Q2_REQUIRE(file && fclose(file) == 0, "%s cannot be written", path);
    return path;
}

/* Salvage it; stopped, and again until it is done, if that is wanted. */
static int
salvage(struct q2_file *file, struct q2_salvage_options how, const struct q2_fuzz_options *options,
        struct q2_salvage_result *ret_result)
{
    struct q2_error err = {0};
    unsigned left = (options->chance >> 8 & 0xff) % 32;
    struct q2_salvage_result straight;
    int rc = q2_salvage_run(file, output(), &how, ret_result, &err);
    Q2_REQUIRE(rc == 0 || err.message[0] != '\0', "failed with %d and no word", rc);
    if (rc < 0 || !(options->flags & STOPPED))
        return rc;
    straight = *ret_result;
    how.checkpoint_bytes = 4096;
    how.stop = stop;
    how.stop_data = &left;
    rc = q2_salvage_run(file, output(), &how, ret_result, &err);
    Q2_REQUIRE(rc == 0 || rc == Q2_ERR_STOPPED, "%s", err.message);
    how.restart = how.overwrite = false;
    how.stop = NULL;
    if (rc == Q2_ERR_STOPPED)
        rc = q2_salvage_run(file, output(), &how, ret_result, &err);
    Q2_REQUIRE(rc == 0, "it does not go on: %s", err.message);
    Q2_REQUIRE(ret_result->maps == straight.maps && ret_result->maps_lost == straight.maps_lost &&
                   memcmp(ret_result->bytes, straight.bytes, sizeof straight.bytes) == 0,
               "stopped, it came to something else");
    return 0;
}

static void
run(const uint8_t *input, size_t length)
{
    static struct guesses guesses;
    static uint8_t phrase[] = "secret";
    const struct q2_secret secret = {phrase, sizeof phrase - 1};
    struct q2_fuzz_options options;
    length = q2_fuzz_split(input, length, &options);
    if (!is_small(input, length))
        return;
    if (options.flags & STOPPED)
        options.chance &= ~(uint32_t)Q2_FUZZ_HEALS; /* the second time, there is more to read */
    struct q2_file *whole = q2_fuzz_input(input, length, &options),
                   *file = q2_fuzz_medium(whole, &options);
    struct q2_file *untouched = q2_fuzz_input(input, length, &options);
    bool native = options.flags & NATIVE, others = options.flags & OTHERS;
    /* To make a key of a pass phrase takes LUKS as long as the image says. */
    bool has_key = options.flags & SECRET && is_aes(input, length);
    Q2_AUTOFREE char *data_file = others ? make_other("data") : NULL;
    Q2_AUTOFREE char *backing_file = others ? make_other("backing") : NULL;
    const struct q2_salvage_options how = {
        .format = native ? Q2_DISK_QCOW2 : Q2_DISK_RAW,
        .keep_backing = options.flags & KEEP_BACKING,
        .overwrite = true,
        .restart = true,
        /* Whatever the image says, no other file of the system is to be read. */
        .data_file = others ? data_file : "/dev/null/none",
        .backing_file = others ? backing_file : "/dev/null/none",
        .secret = has_key ? &secret : NULL,
        .max_memory = Q2_FUZZ_MEMORY,
        .threads = 1,
        .checkpoint_bytes = UINT64_MAX,
    };
    struct q2_salvage_result result;
    struct q2_error err = {0};
    int rc = salvage(file, how, &options, &result);
    Q2_REQUIRE(q2_fuzz_equal(whole, untouched), "the image was written to");
    if (rc == 0) {
        Q2_AUTOFREE char *map = NULL;
        guesses.count = 0;
        rc = asprintf(&map, "%s.map.json", output()) < 0
                 ? -1
                 : q2_salvage_read_map(map, NULL, note, &guesses, &err);
        Q2_REQUIRE(rc == 0, "its map cannot be read: %s", err.message);
    }
    /* Strict reading, as it is done here, knows neither other files nor keys. */
    if (rc == 0 && !others && !has_key)
        require_content(file, native, &guesses);
    q2_fuzz_scratch_remove();
    q2_file_close(file);
    q2_file_close(whole);
    q2_file_close(untouched);
}

const struct q2_harness q2_harness = {"salvage", Q2_FUZZ_IMAGE, 1 << 18, run};
