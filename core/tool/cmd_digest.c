/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* qcow2-img digest: the SHA-256 of what a guest sees, as `sha256sum` would print it of a raw copy.
 * Data is read ahead on other threads than the one that hashes; holes are never read. */

#include "core/base/checked.h"
#include "core/base/flow.h"
#include "core/tool/load.h"
#include "core/tool/parse.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 20, DIGEST_BYTES = 32, DIGEST_TEXT = 2 * DIGEST_BYTES + 1 };

struct options {
    struct tool_common common;
    const char *snapshot; /* -l */
    struct json_object *array;
};

struct state {
    struct q2_disk *disk;
    uint64_t size;
    uint64_t next;
    uint8_t **buffers; /* one for each thread */
    const uint8_t *zeros;
    EVP_MD_CTX *hash;
    struct tool_progress *progress;
};

static int run(int argc, char **argv);

const struct tool_command tool_command_digest = {
    .name = "digest",
    .usage = "[-f FORMAT | --image-opts] [-l SNAPSHOT] [--output=human|json] [-T CACHE] [-U]\n"
             "[-p] IMAGE...",
    .help = "print the SHA-256 of a disk's content",
    .run = run,
};

static int
next_piece(void *data, struct q2_piece *ret_piece, struct q2_error *err)
{
    struct state *state = data;
    struct q2_extent extent;
    tool_progress_update(state->progress, state->next, state->size);
    if (state->next == state->size)
        return 0;
    uint64_t left = state->size - state->next;
    int rc = q2_disk_map(state->disk, state->next, left, &extent, err);
    if (rc < 0)
        return rc;
    uint64_t length = q2_min(left, PIECE);
    bool plain = extent.zero && extent.length >= length;
    ret_piece->offset = state->next;
    ret_piece->length = plain ? extent.length : length;
    ret_piece->plain = plain;
    state->next += ret_piece->length;
    return 1;
}

static int
prepare_piece(void *data, unsigned worker, const struct q2_piece *piece, struct q2_error *err)
{
    struct state *state = data;
    return piece->plain ? 0
                        : q2_disk_read(state->disk, piece->offset, state->buffers[worker],
                                       (size_t)piece->length, err);
}

static int
finish_piece(void *data, unsigned worker, const struct q2_piece *piece, struct q2_error *err)
{
    struct state *state = data;
    const uint8_t *bytes = piece->plain ? state->zeros : state->buffers[worker];
    for (uint64_t left = piece->length, part; left > 0; left -= part) {
        part = q2_min(left, PIECE);
        if (EVP_DigestUpdate(state->hash, bytes, (size_t)part) != 1)
            return q2_error_set(err, Q2_ERR_NOMEM, "libcrypto failed to hash");
    }
    return 0;
}

static int
hash_all(struct state *state, unsigned threads, struct q2_error *err)
{
    const struct q2_flow flow = {
        .threads = threads,
        .ordered = true,
        .next = next_piece,
        .prepare = prepare_piece,
        .finish = finish_piece,
        .data = state,
    };
    if (!state->hash || EVP_DigestInit_ex(state->hash, EVP_sha256(), NULL) != 1)
        return q2_error_set(err, Q2_ERR_NOMEM, "libcrypto has no SHA-256");
    return q2_flow_run(&flow, err);
}

static int
hash_disk(struct q2_disk *disk, struct tool_progress *progress, char *text, struct q2_error *err)
{
    unsigned threads = q2_flow_threads();
    struct state state = {
        .disk = disk,
        .size = q2_disk_size(disk),
        .buffers = calloc(threads, sizeof(uint8_t *)),
        .hash = EVP_MD_CTX_new(),
        .progress = progress,
    };
    /* The last one holds the zeros. */
    uint8_t *memory = calloc(threads + 1, PIECE);
    for (unsigned i = 0; memory && state.buffers && i < threads; i++)
        state.buffers[i] = memory + (size_t)i * PIECE;
    state.zeros = memory ? memory + (size_t)threads * PIECE : NULL;
    int rc = memory && state.buffers ? hash_all(&state, threads, err)
                                     : q2_error_set(err, Q2_ERR_NOMEM, "no memory for buffers");
    uint8_t digest[DIGEST_BYTES];
    if (rc == 0 && EVP_DigestFinal_ex(state.hash, digest, NULL) != 1)
        rc = q2_error_set(err, Q2_ERR_NOMEM, "libcrypto failed to hash");
    for (unsigned i = 0; rc == 0 && i < DIGEST_BYTES; i++)
        snprintf(text + (size_t)2 * i, 3, "%02x", digest[i]);
    EVP_MD_CTX_free(state.hash);
    free(memory);
    free(state.buffers);
    return rc;
}

static void
print_digest(struct options *options, const char *name, uint64_t size, const char *text)
{
    if (!options->common.json) {
        printf("%s  %s\n", text, name);
        return;
    }
    struct json_object *object = json_object_new_object();
    tool_json_text(&object, "filename", name);
    tool_json_number(&object, "virtual-size", size);
    tool_json_text(&object, "sha256", text);
    tool_json_append(&options->array, object);
}

static int
digest_one(struct options *options, const char *name)
{
    struct q2_error err = {0};
    struct tool_progress progress;
    struct q2_disk *disk = NULL;
    char text[DIGEST_TEXT];
    unsigned flags = tool_cache_flags(options->common.source_cache);
    if (!tool_open_one(&options->common, name, flags, &disk))
        return TOOL_FAILED;
    if (options->snapshot && !load_snapshot(disk, options->snapshot))
        return tool_close(disk, TOOL_FAILED);
    tool_progress_init(&progress, options->common.progress);
    int rc = hash_disk(disk, &progress, text, &err);
    tool_progress_end(&progress, rc == 0);
    if (rc == 0)
        print_digest(options, name, q2_disk_size(disk), text);
    else
        tool_fail(name, &err);
    return tool_close(disk, rc == 0 ? TOOL_OK : TOOL_FAILED);
}

static bool
set_option(void *data, int option)
{
    struct options *options = data;
    (void)option; /* -l is the only one */
    options->snapshot = optarg;
    return true;
}

static int
run_parsed(struct options *options, char **names)
{
    int status = TOOL_OK;
    if (!*names)
        return tool_say_usage("no image is named");
    if (options->common.json)
        options->array = json_object_new_array();
    for (; *names; names++)
        if (digest_one(options, *names) != TOOL_OK)
            status = TOOL_FAILED;
    if (options->common.json && tool_json_print(options->array) != TOOL_OK)
        status = TOOL_FAILED;
    return status;
}

static int
run(int argc, char **argv)
{
    static const struct option longs[] = {TOOL_LONG_COMMON, TOOL_LONG_FORCE_SHARE, TOOL_LONG_OUTPUT,
                                          TOOL_LONG_END};
    struct options options = {0};
    const struct parse parse = {&tool_command_digest, "f:l:T:Up", longs, set_option, &options};
    int status;
    if (parse_options(&parse, &options.common, argc, argv, &status))
        status = run_parsed(&options, argv + optind);
    tool_common_destroy(&options.common);
    return status;
}
