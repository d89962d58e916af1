/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The third rule of the proof: what could be read reads the same; and what could not, because the
 * file ends before it, does not come to read as whatever a longer file has there.
 *
 * Each map is gone through on both sides at once, in runs as long as both allow. Bytes are read
 * only where a run is elsewhere than before or lies under an edit. Where no edit touches an L2
 * table or data of the guest, tables that both sides lead to need no look at all: a repair of
 * refcounts costs next to nothing, however large the image is. */

#include "core/base/checked.h"
#include "repair/prove_parts.h"

#include <stdio.h>
#include <string.h>

enum { SECTOR = 512 };

struct walk {
    struct q2_proof *proof;
    struct q2_viewer before, after;
    bool same_rules; /* both headers read entries and data alike */
    bool same_cipher;
    bool same_codec;
    bool matter; /* edits touch tables or data */
    bool grown;  /* the file has become longer, and there were pointers past its end */
    uint64_t map;
    uint32_t target; /* the same map of the repaired image */
    struct q2_proof_names names;
};

/* ---- rules of reading ---- */

static bool
same_text(const struct q2_text *a, const struct q2_text *b)
{
    return a->length == b->length && (a->length == 0 || memcmp(a->bytes, b->bytes, a->length) == 0);
}

static void
compare_rules(struct walk *walk)
{
    const struct q2_check *a = walk->proof->before, *b = walk->proof->after;
    const struct q2_geometry *from = &a->geometry, *to = &b->geometry;
    bool same_holes = walk->before.hole == walk->after.hole &&
                      (walk->before.hole != Q2_VIEW_BACKING ||
                       same_text(&a->extensions.backing_file, &b->extensions.backing_file));
    /* Nothing could be read with a cipher that nobody knows, so any other will do. */
    walk->same_cipher =
        a->header.crypt_method == b->header.crypt_method || a->header.crypt_method > Q2_CRYPT_LUKS;
    walk->same_codec = a->header.compression_type == b->header.compression_type &&
                       from->cluster_bits == to->cluster_bits;
    walk->same_rules = same_holes && walk->same_cipher && walk->same_codec &&
                       from->version == to->version && from->extended_l2 == to->extended_l2 &&
                       from->data_file == to->data_file;
    /* Another backing file is other data, though both sides say "the backing file". */
    if (!same_holes && walk->before.hole == Q2_VIEW_BACKING && walk->after.hole == Q2_VIEW_BACKING)
        walk->after.hole = Q2_VIEW_UNREADABLE;
}

static bool
has_grown(const struct q2_proof *proof)
{
    struct q2_check *before = proof->before;
    return proof->after->geometry.file_size > before->geometry.file_size &&
           (q2_check_problem_count(before, Q2_PROBLEM_L1_ENTRY_PAST_END).count ||
            q2_check_problem_count(before, Q2_PROBLEM_L2_ENTRY_PAST_END).count ||
            q2_check_problem_count(before, Q2_PROBLEM_L2_COMPRESSED_PAST_END).count);
}

/* ---- objecting ---- */

static const char *
map_text(const struct walk *walk, char *buffer, size_t size)
{
    if (walk->map == 0)
        return "the active disk";
    snprintf(buffer, size, "snapshot \"%.40s\"", walk->proof->before->snapshots[walk->map - 1].id);
    return buffer;
}

static const char *const kind_words[] = {
    [Q2_VIEW_UNREADABLE] = "nothing readable",
    [Q2_VIEW_BACKING] = "the backing file",
    [Q2_VIEW_ZERO] = "zeros",
    [Q2_VIEW_DATA] = "data",
    [Q2_VIEW_EXTERNAL] = "the data file",
    [Q2_VIEW_COMPRESSED] = "compressed data",
};

static int
object(struct walk *walk, uint64_t guest, uint64_t length, const struct q2_view *from,
       const struct q2_view *to)
{
    struct q2_proof *proof = walk->proof;
    char name[64];
    struct q2_objection objection = {.kind = Q2_OBJECTION_DATA_CHANGED,
                                     .map = (uint32_t)walk->map,
                                     .offset = guest,
                                     .length = length};
    uint64_t blame = q2_proof_blame(proof, 0, 0, walk->target, guest, length);
    if (to->l1_at)
        blame =
            q2_proof_worse(proof, blame, q2_proof_blame(proof, to->l1_at, 8, walk->target, 0, 0));
    if (to->l2_at)
        blame =
            q2_proof_worse(proof, blame,
                           q2_proof_blame(proof, to->l2_at, proof->after->geometry.l2_entry_size,
                                          walk->target, 0, 0));
    if (to->kind == Q2_VIEW_DATA || to->kind == Q2_VIEW_COMPRESSED)
        blame = q2_proof_worse(proof, blame,
                               q2_proof_blame(proof, to->host, q2_min(length, to->length),
                                              walk->target, 0, 0));
    if (from->past_end && blame == UINT64_MAX) { /* by what made the file longer */
        uint64_t end = proof->before->geometry.file_size;
        blame = q2_proof_blame(proof, end, proof->after->geometry.file_size - end, 0, 0, 0);
    }
    if (blame == UINT64_MAX) /* then by the header, or by what led to the L1 table */
        blame = q2_proof_blame(proof, 0, 1, walk->target, 0, 0);
    objection.action = blame;
    return q2_proof_object(proof, &objection,
                           "%llu bytes at guest offset 0x%llx of %s were %s and would be %s%s",
                           (unsigned long long)length, (unsigned long long)guest,
                           map_text(walk, name, sizeof name), kind_words[from->kind],
                           from->kind == to->kind ? "other " : "", kind_words[to->kind]);
}

/* A range that differs must be named, and be what it is called. */
static int
judge(struct walk *walk, uint64_t guest, uint64_t length, const struct q2_view *from,
      const struct q2_view *to, struct q2_error *err)
{
    uint64_t end = guest + length;
    int rc = q2_proof_names_allow(&walk->names, &walk->before, from, &guest, &end, err);
    return rc ? rc : object(walk, guest, end - guest, from, to);
}

/* ---- comparing ---- */

/* Whether the same host bytes are the same data there. */
static bool
bytes_tell(const struct walk *walk, const struct q2_view *from, const struct q2_view *to)
{
    uint32_t cipher = walk->proof->after->header.crypt_method;
    if (from->kind == Q2_VIEW_EXTERNAL || from->kind == Q2_VIEW_BACKING ||
        to->kind == Q2_VIEW_EXTERNAL || to->kind == Q2_VIEW_BACKING ||
        to->kind == Q2_VIEW_UNREADABLE || !walk->same_cipher)
        return false;
    if (cipher == Q2_CRYPT_NONE)
        return true;
    /* Of what is encrypted only what is encrypted can be the same. Where a cluster is in the file
     * goes into the cipher with LUKS, where it is on the disk with the older method. */
    return from->kind == to->kind &&
           (from->kind != Q2_VIEW_DATA || cipher != Q2_CRYPT_LUKS || from->host == to->host);
}

/* Sector by sector; what is next to each other is judged at once. */
static int
judge_bytes(struct walk *walk, uint64_t guest, uint64_t length, const struct q2_view *from,
            const struct q2_view *to, struct q2_error *err)
{
    uint64_t first = 0, differing = 0;
    if (memcmp(walk->before.bytes, walk->after.bytes, length) == 0)
        return 1;
    for (uint64_t at = 0, step; at < length; at += step) {
        step = q2_min(SECTOR, length - at);
        if (memcmp(walk->before.bytes + at, walk->after.bytes + at, step) != 0) {
            first = differing ? first : at;
            differing += step;
            continue;
        }
        int rc = differing ? judge(walk, guest + first, differing, from, to, err) : 1;
        if (rc <= 0)
            return rc;
        differing = 0;
    }
    return differing ? judge(walk, guest + first, differing, from, to, err) : 1;
}

/* Whether both sides obviously read the same; *length may become shorter for that. */
static bool
evidently_same(const struct walk *walk, const struct q2_view *from, const struct q2_view *to,
               uint64_t *length)
{
    const struct q2_proof_ranges *edits = &walk->proof->edits;
    if (from->kind != to->kind)
        return false;
    if (from->kind == Q2_VIEW_ZERO || from->kind == Q2_VIEW_BACKING)
        return true;
    if (!walk->same_cipher || from->host != to->host)
        return false;
    if (from->kind == Q2_VIEW_EXTERNAL)
        return true;
    if (from->kind == Q2_VIEW_DATA) {
        uint64_t edited = q2_proof_ranges_until(edits, from->host);
        if (edited != from->host) {
            *length = q2_min(*length, edited - from->host);
            return false;
        }
        *length = q2_min(*length, q2_proof_ranges_next(edits, from->host) - from->host);
        return true;
    }
    struct q2_compressed_range range =
        q2_compressed_decode(&walk->proof->before->geometry, from->raw);
    return walk->same_codec && from->raw == to->raw && from->skip == to->skip &&
           !q2_proof_ranges_touch(edits, range.offset, range.length);
}

/* Whether what led past the end leads into the file now, and is what it was. */
static bool
is_overtaken(struct walk *walk, uint64_t guest, const struct q2_view *from,
             const struct q2_view *to)
{
    if (!from->past_end || to->kind == Q2_VIEW_UNREADABLE)
        return false;
    if (!from->l2_at)
        return q2_viewer_table(&walk->after, guest) == from->host;
    return (to->kind == Q2_VIEW_DATA || to->kind == Q2_VIEW_COMPRESSED) && to->host == from->host;
}

/* What could not be read may come to read as anything but what it cannot be. */
static int
judge_unreadable(struct walk *walk, uint64_t guest, uint64_t length, const struct q2_view *from,
                 const struct q2_view *to, struct q2_error *err)
{
    if (is_overtaken(walk, guest, from, to))
        return judge(walk, guest, length, from, to, err);
    uint64_t end = guest + length;
    int rc =
        to->kind == Q2_VIEW_BACKING ? q2_proof_names_spare(&walk->names, &guest, &end, err) : 1;
    return rc ? rc : object(walk, guest, end - guest, from, to);
}

static int
compare(struct walk *walk, uint64_t guest, const struct q2_view *from, const struct q2_view *to,
        uint64_t *length, struct q2_error *err)
{
    if (from->kind == Q2_VIEW_UNREADABLE)
        return judge_unreadable(walk, guest, *length, from, to, err);
    if (evidently_same(walk, from, to, length))
        return 1;
    bool has_bytes = from->kind == Q2_VIEW_DATA || from->kind == Q2_VIEW_COMPRESSED;
    bool tell = bytes_tell(walk, from, to);
    /* What has no bytes on either side may be of any length. */
    if (!has_bytes && !tell)
        return judge(walk, guest, *length, from, to, err);
    *length = q2_min(*length, q2_min(q2_viewer_most(&walk->before), q2_viewer_most(&walk->after)));
    if (!q2_viewer_fetch(&walk->before, from, *length))
        return 1; /* it could not be read */
    if (!tell || !q2_viewer_fetch(&walk->after, to, *length))
        return judge(walk, guest, *length, from, to, err);
    return judge_bytes(walk, guest, *length, from, to, err);
}

/* ---- walking ---- */

/* Whether L1 tables that are one and the same need no look. */
static bool
is_untouched(const struct walk *walk, const struct q2_map *from, const struct q2_map *to)
{
    return walk->same_rules && !walk->matter && !walk->grown && from->l1_offset == to->l1_offset &&
           from->l1_size == to->l1_size && from->limit <= to->limit &&
           !q2_proof_ranges_touch(&walk->proof->edits, from->l1_offset,
                                  (uint64_t)from->l1_size * 8);
}

static int
object_to_work(struct walk *walk, uint64_t guest, uint64_t limit)
{
    char name[64];
    return q2_proof_object(walk->proof,
                           &(struct q2_objection){.kind = Q2_OBJECTION_DATA_CHANGED,
                                                  .map = (uint32_t)walk->map,
                                                  .offset = guest,
                                                  .length = limit - guest,
                                                  .action = UINT64_MAX},
                           "tables overlap so much that %s cannot be compared from guest offset "
                           "0x%llx on",
                           map_text(walk, name, sizeof name), (unsigned long long)guest);
}

/* Whether both sides have one and the same table at `guest`, and so the same all along it. */
static bool
is_same_table(struct walk *walk, uint64_t guest, uint64_t reach)
{
    if (!walk->same_rules || walk->matter || walk->grown || guest % reach != 0 ||
        guest >= walk->after.map->limit || walk->after.map->limit - guest < reach)
        return false;
    uint64_t table = q2_viewer_table(&walk->before, guest);
    return table && table == q2_viewer_table(&walk->after, guest);
}

/* Compare up to `limit`, behind which nothing could be read. */
static int
walk_map(struct walk *walk, uint64_t limit, struct q2_error *err)
{
    uint64_t reach = q2_l2_reach(&walk->proof->before->geometry);
    for (uint64_t guest = 0, step; guest < limit; guest += step) {
        step = q2_min(reach, limit - guest);
        if (is_same_table(walk, guest, reach))
            continue;
        struct q2_view from = q2_viewer_look(&walk->before, guest);
        step = q2_min(from.length, limit - guest);
        if (from.kind == Q2_VIEW_UNREADABLE && !from.past_end && !walk->before.limited &&
            walk->after.hole != Q2_VIEW_BACKING)
            continue;
        struct q2_view to = q2_viewer_look(&walk->after, guest);
        step = q2_min(step, to.length);
        int rc = walk->before.limited || walk->after.limited
                     ? 1
                     : compare(walk, guest, &from, &to, &step, err);
        if (walk->before.limited || walk->after.limited)
            return object_to_work(walk, guest, limit);
        if (rc <= 0)
            return rc;
    }
    return 1;
}

/* Whether anything can be read through a map: data, or nothing but holes. Holes between entries
 * that lead nowhere are not worth keeping. */
static bool
is_readable(struct walk *walk, const struct q2_map *map)
{
    uint64_t end;
    bool broken = map->l1_size == 0;
    q2_viewer_choose(&walk->before, map);
    if (!q2_mul(map->l1_size, q2_l2_reach(&walk->proof->before->geometry), &end))
        end = UINT64_MAX;
    end = q2_min(end, map->limit);
    for (uint64_t guest = 0; guest < end;) {
        struct q2_view view = q2_viewer_look(&walk->before, guest);
        bool hole = view.kind == walk->before.hole && !view.l2_at;
        if (walk->before.limited || (view.kind != Q2_VIEW_UNREADABLE && !hole))
            return true;
        broken |= view.kind == Q2_VIEW_UNREADABLE;
        guest += view.length;
    }
    return !broken;
}

static int
object_to_loss(struct walk *walk)
{
    const struct q2_map *map = &walk->proof->before->maps[walk->map];
    char name[64];
    uint64_t blame = q2_proof_blame(walk->proof, map->entry_at, 8, 0, 0, 0);
    if (blame == UINT64_MAX)
        blame = q2_proof_blame(walk->proof, 0, 1, 0, 0, 0);
    return q2_proof_object(walk->proof,
                           &(struct q2_objection){.kind = Q2_OBJECTION_SNAPSHOT_GONE,
                                                  .map = (uint32_t)walk->map,
                                                  .action = blame},
                           "%s would be gone", map_text(walk, name, sizeof name));
}

static int
compare_map(struct walk *walk, int64_t target, struct q2_error *err)
{
    const struct q2_map *from = &walk->proof->before->maps[walk->map];
    uint64_t limit;
    if (target == Q2_PROOF_NO_MAP)
        return is_readable(walk, from) ? object_to_loss(walk) : 1;
    const struct q2_map *to = &walk->proof->after->maps[target];
    if (is_untouched(walk, from, to))
        return 1;
    walk->target = (uint32_t)target;
    q2_proof_names_choose(&walk->names, walk->target);
    q2_viewer_choose(&walk->before, from);
    q2_viewer_choose(&walk->after, to);
    if (!q2_mul(from->l1_size, q2_l2_reach(&walk->proof->before->geometry), &limit))
        limit = UINT64_MAX;
    return walk_map(walk, q2_min(limit, from->limit), err);
}

static int
compare_maps(struct walk *walk, struct q2_error *err)
{
    struct q2_proof *proof = walk->proof;
    int64_t *matches;
    int rc = q2_proof_match_maps(proof, &matches, err);
    if (rc < 0)
        return rc;
    rc = 1;
    for (uint64_t m = 0; m < proof->before->map_count && rc > 0; m++) {
        walk->map = m;
        rc = compare_map(walk, matches[m], err);
    }
    q2_proof_free_maps(proof, matches);
    return rc;
}

int
q2_proof_content(struct q2_proof *proof, struct q2_error *err)
{
    struct walk walk = {.proof = proof};
    if (!proof->before || !(proof->before->usable & Q2_USABLE_GEOMETRY))
        return 1; /* nothing could be read */
    if (!proof->after || !(proof->after->usable & Q2_USABLE_GEOMETRY))
        return q2_proof_object(proof,
                               &(struct q2_objection){.kind = Q2_OBJECTION_DATA_CHANGED,
                                                      .length = proof->before->geometry.disk_size,
                                                      .action =
                                                          q2_proof_blame(proof, 0, 1, 0, 0, 0)},
                               "the header would no longer say how to read the image");
    q2_proof_names_init(&walk.names, proof);
    int rc = q2_viewer_init(&walk.before, proof, proof->base, proof->before, err);
    if (rc == 0)
        rc = q2_viewer_init(&walk.after, proof, proof->file, proof->after, err);
    if (rc == 0)
        rc = q2_proof_edits_matter(proof, &walk.matter, err);
    if (rc == 0) {
        compare_rules(&walk);
        walk.grown = has_grown(proof);
        rc = compare_maps(&walk, err);
    }
    q2_proof_names_destroy(&walk.names);
    q2_viewer_destroy(&walk.before);
    q2_viewer_destroy(&walk.after);
    return rc;
}
