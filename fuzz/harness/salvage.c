/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Whole images through the salvage. The image is not written to; and what strict reading reads of
 * the disk, the salvaged image has too, unless its map is not certain, or a repair would name the
 * range: strict reading does not notice that a cluster is somebody else's, and salvage does.
 *
 * Salvage makes files of the system, so this harness does: in a folder of its own, in memory where
 * there is such a place. */

#include "repair/salvage.h"
#include "core/base/cleanup.h"
#include "core/io/posix.h"
#include "fuzz/fuzz.h"
#include "fuzz/support/guest.h"
#include "fuzz/support/image.h"
#include "repair/repair.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NATIVE = 1 << 0 }; /* of the flags: to a qcow2 image */
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

static char folder[64];

/* Snapshots become files with names that the image chooses. */
static void
empty_folder(void)
{
    DIR *list = opendir(folder);
    Q2_REQUIRE(list, "%s cannot be read", folder);
    for (struct dirent *entry; (entry = readdir(list));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int rc = unlinkat(dirfd(list), entry->d_name, 0);
        Q2_REQUIRE(rc == 0, "%s cannot be removed", entry->d_name);
    }
    closedir(list);
}

/* After each input, as engines end without a word. */
static void
remove_folder(void)
{
    if (!folder[0])
        return;
    empty_folder();
    rmdir(folder);
    folder[0] = '\0';
}

static const char *
output(void)
{
    static char path[128];
    if (!folder[0]) {
        const char *place = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
        snprintf(folder, sizeof folder, "%s/fuzz-salvage-XXXXXX", place);
        Q2_REQUIRE(mkdtemp(folder), "%s cannot be made", folder);
        snprintf(path, sizeof path, "%s/out", folder);
    }
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

static void
run(const uint8_t *input, size_t length)
{
    static struct guesses guesses;
    struct q2_fuzz_options options;
    length = q2_fuzz_split(input, length, &options);
    if (!is_small(input, length))
        return;
    struct q2_file *file = q2_fuzz_file(input, length), *untouched = q2_fuzz_file(input, length);
    bool native = options.flags & NATIVE;
    const struct q2_salvage_options how = {
        .format = native ? Q2_DISK_QCOW2 : Q2_DISK_RAW,
        .overwrite = true,
        .restart = true,
        /* Whatever the image says, no file of the system is to be read. */
        .data_file = "/dev/null/none",
        .backing_file = "/dev/null/none",
        .max_memory = Q2_FUZZ_MEMORY,
        .threads = 1,
        .checkpoint_bytes = UINT64_MAX,
    };
    struct q2_salvage_result result;
    struct q2_error err = {0};
    int rc = q2_salvage_run(file, output(), &how, &result, &err);
    Q2_REQUIRE(rc == 0 || err.message[0] != '\0', "failed with %d and no word", rc);
    Q2_REQUIRE(q2_fuzz_equal(file, untouched), "the image was written to");
    if (rc == 0) {
        Q2_AUTOFREE char *map = NULL;
        guesses.count = 0;
        rc = asprintf(&map, "%s.map.json", output()) < 0
                 ? -1
                 : q2_salvage_read_map(map, NULL, note, &guesses, &err);
        Q2_REQUIRE(rc == 0, "its map cannot be read: %s", err.message);
        require_content(file, native, &guesses);
    }
    remove_folder();
    q2_file_close(file);
    q2_file_close(untouched);
}

const struct q2_harness q2_harness = {"salvage", Q2_FUZZ_IMAGE, 1 << 18, run};
