/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Changing what an image is while its content stays. Everything on the command line is understood
 * before anything is changed. */

#include "core/image/amend.h"
#include "core/image/resize.h"
#include "core/tool/parse.h"
#include "core/tool/target_options.h"

#include <stdio.h>
#include <string.h>

static int run(int argc, char **argv);

const struct tool_command tool_command_amend = {
    .name = "amend",
    .usage = "[-f FORMAT | --image-opts] [-q] [-p] [-t CACHE] [--force] -o OPTIONS FILE",
    .help = "change what an image is: version, refcounts, key slots",
    .run = run,
};

enum { OPTION_FORCE = TOOL_OPTION_OWN };

/* What to do with the key slots. */
enum key_action { KEY_NOTHING, KEY_ADD, KEY_ERASE };

struct amend {
    struct tool_common common;
    struct tool_pairs pairs; /* -o */
    bool force;
    bool has_size;
    uint64_t size;
    struct q2_amend_options options;
    enum key_action key;
    int slot; /* -1: not said */
    unsigned iteration_ms;
    const struct q2_secret *secret; /* to add, or whose slots to erase */
};

static const char *
get(const struct amend *amend, const char *key)
{
    return tool_pairs_get(&amend->pairs, key);
}

/* ---- understanding ---- */

static bool
keys_are_known(const struct amend *amend)
{
    for (size_t i = 0; i < amend->pairs.count; i++) {
        const char *key = amend->pairs.pairs[i].key;
        const struct tool_create_option *option = tool_create_option_find(key);
        if (option && option->where & TOOL_OPTION_OF_AMEND)
            continue;
        if (option)
            tool_say("'%s' can only be chosen when an image is made", key);
        else
            tool_say("there is no option '%s'; amend -o help lists them", key);
        return false;
    }
    return true;
}

static bool
read_fields(struct amend *amend)
{
    struct q2_amend_options *options = &amend->options;
    const char *compat = get(amend, "compat");
    const char *lazy = get(amend, "lazy_refcounts");
    const char *size = get(amend, "size");
    if ((compat && !tool_version_find(compat, &options->version)) ||
        (lazy && !tool_bool_option("lazy_refcounts", lazy, &options->lazy_refcounts)) ||
        (size && !tool_size_option("size", size, 0, INT64_MAX, &amend->size)) ||
        !tool_pairs_number(&amend->pairs, "refcount_bits", 64, &options->refcount_bits))
        return false;
    options->fields = (compat ? Q2_AMEND_VERSION : 0u) | (lazy ? Q2_AMEND_LAZY_REFCOUNTS : 0u) |
                      (get(amend, "refcount_bits") ? Q2_AMEND_REFCOUNT_BITS : 0u);
    amend->has_size = size;
    return true;
}

static bool
read_key_action(struct amend *amend)
{
    const char *state = get(amend, "encrypt.state");
    bool other = get(amend, "encrypt.new-secret") || get(amend, "encrypt.old-secret") ||
                 get(amend, "encrypt.keyslot") || get(amend, "encrypt.iter-time");
    if (state && strcmp(state, "active") == 0) {
        amend->key = KEY_ADD;
    } else if (state && strcmp(state, "inactive") == 0) {
        amend->key = KEY_ERASE;
    } else if (state) {
        tool_say("encrypt.state: '%s' is neither active nor inactive", state);
        return false;
    } else if (other) {
        tool_say("encrypt.state=active or encrypt.state=inactive is missing");
        return false;
    }
    return true;
}

/* Which options go together is what QEMU says. */
static bool
read_keys(struct amend *amend)
{
    unsigned slot = 0;
    const char *new_id = get(amend, "encrypt.new-secret");
    const char *old_id = get(amend, "encrypt.old-secret");
    if (!read_key_action(amend) || !tool_pairs_number(&amend->pairs, "encrypt.keyslot", 7, &slot) ||
        !tool_pairs_number(&amend->pairs, "encrypt.iter-time", UINT32_MAX, &amend->iteration_ms))
        return false;
    amend->slot = get(amend, "encrypt.keyslot") ? (int)slot : -1;
    const char *wrong = NULL;
    if (amend->key == KEY_ADD && !new_id)
        wrong = "adding a pass phrase needs encrypt.new-secret=ID";
    else if (amend->key == KEY_ADD && old_id)
        wrong = "encrypt.old-secret goes with encrypt.state=inactive only";
    else if (amend->key == KEY_ERASE && (new_id || get(amend, "encrypt.iter-time")))
        wrong = "encrypt.new-secret and encrypt.iter-time go with encrypt.state=active only";
    else if (amend->key == KEY_ERASE && !old_id == (amend->slot < 0))
        wrong = "erasing takes either encrypt.old-secret=ID or encrypt.keyslot=NUMBER";
    if (wrong) {
        tool_say("%s", wrong);
        return false;
    }
    const char *id = new_id ? new_id : old_id;
    if (id)
        amend->secret = tool_secret_find(amend->common.secrets, id);
    return !id || amend->secret;
}

static bool
is_same(const char *given, const char *present)
{
    return !given || strcmp(given, present ? present : "") == 0;
}

/* What has a command of its own, or none. To name what is there already changes nothing. */
static bool
refuse_others(const struct amend *amend, const struct q2_image *image)
{
    if (!is_same(get(amend, "backing_file"), q2_image_backing_name(image)) ||
        !is_same(get(amend, "backing_fmt"), q2_image_backing_format(image))) {
        tool_say("the backing file is not changed by amend, but by rebase");
        return false;
    }
    const char *raw_text = get(amend, "data_file_raw");
    bool is_raw = q2_image_header(image)->autoclear_features & Q2_AUTOCLEAR_RAW_DATA;
    bool raw = is_raw;
    if (raw_text && !tool_bool_option("data_file_raw", raw_text, &raw))
        return false;
    if (!is_same(get(amend, "data_file"), q2_image_data_name(image)) || raw != is_raw) {
        tool_say("the data file of an image is not changed afterwards");
        return false;
    }
    if (amend->key && q2_image_header(image)->crypt_method != Q2_CRYPT_LUKS) {
        tool_say("the image is not encrypted with LUKS, so that there are no key slots");
        return false;
    }
    return true;
}

/* ---- changing ---- */

static int
change_keys(const struct amend *amend, struct q2_image *image, struct q2_error *err)
{
    switch (amend->key) {
    case KEY_ADD:
        return q2_image_add_key(image, amend->secret, amend->slot, 0, amend->iteration_ms, err);
    case KEY_ERASE:
        return q2_image_remove_key(image, amend->secret, amend->slot, amend->force, err);
    default:
        return 0;
    }
}

static int
change(struct amend *amend, struct q2_image *image)
{
    struct q2_error err = {0};
    struct tool_progress progress;
    if (!refuse_others(amend, image))
        return TOOL_FAILED;
    tool_progress_init(&progress, amend->common.progress && !amend->common.quiet);
    amend->options.progress = tool_progress_update;
    amend->options.progress_data = &progress;
    int rc = change_keys(amend, image, &err);
    if (rc == 0 && amend->options.fields)
        rc = q2_image_amend(image, &amend->options, &err);
    if (rc == 0 && amend->has_size)
        rc = q2_image_resize(image, amend->size, Q2_PREALLOCATION_OFF, &err);
    tool_progress_end(&progress, rc == 0);
    return rc < 0 ? tool_fail(NULL, &err) : TOOL_OK;
}

static bool
set_option(void *data, int option)
{
    struct amend *amend = data;
    if (option == 'o')
        return tool_pairs_add(&amend->pairs, optarg, NULL);
    amend->force = true;
    return true;
}

static int
run_parsed(struct amend *amend, int argc, char **argv)
{
    struct q2_disk *disk;
    unsigned flags = Q2_IMAGE_WRITE | tool_cache_flags(amend->common.cache);
    int status = TOOL_FAILED;
    if (tool_pairs_help(&amend->pairs)) {
        puts("Amend options for 'qcow2':");
        tool_create_option_list(TOOL_OPTION_OF_AMEND);
        return TOOL_OK;
    }
    if (amend->pairs.count == 0)
        return tool_say_usage("no options are given: -o OPTIONS");
    if (argc - optind != 1)
        return tool_say_usage("one file name is wanted");
    if (!keys_are_known(amend) || !read_fields(amend) || !read_keys(amend))
        return TOOL_FAILED;
    /* Only what writes to the disk, or changes its keys, needs the pass phrase. */
    if (!amend->common.image_opts && amend->key == KEY_NOTHING)
        flags |= Q2_IMAGE_NO_CRYPTO;
    if (!tool_open_one(&amend->common, argv[optind], flags, &disk))
        return TOOL_FAILED;
    struct q2_image *image = tool_need_image(disk, argv[optind], "amend");
    if (image)
        status = change(amend, image);
    return tool_close(disk, status);
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {TOOL_LONG_COMMON,
                                          {"force", no_argument, NULL, OPTION_FORCE},
                                          TOOL_LONG_END};
    struct amend amend = {.slot = -1};
    const struct parse parse = {&tool_command_amend, "f:o:pqt:", longs, set_option, &amend};
    int status;
    if (parse_options(&parse, &amend.common, argc, argv, &status))
        status = run_parsed(&amend, argc, argv);
    tool_pairs_destroy(&amend.pairs);
    tool_common_destroy(&amend.common);
    return status;
}
