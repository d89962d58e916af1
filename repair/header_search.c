/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/header_search.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/extension.h"

#include <string.h>

enum {
    CLEAR_MARGIN = 4,    /* contradictions by which a candidate is out of the question */
    MAX_EXTENSIONS = 64, /* whose headers are tried */
};

void
q2_search_init(struct q2_search *search, struct q2_trial *trial, const struct q2_candidate *base)
{
    *search = (struct q2_search){.trial = trial, .base = *base};
    q2_trial_glance(trial, &search->base, UINT64_MAX);
}

static bool
same(const struct q2_candidate *a, const struct q2_candidate *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0 && a->flip_mask == b->flip_mask &&
           (!a->flip_mask || a->flip_at == b->flip_at);
}

/* Where it first differs from the image, and by how much from the base. */
static void
find_difference(const struct q2_search *search, struct q2_candidate *candidate)
{
    const struct q2_candidate *base = &search->base;
    bool other_flip =
        candidate->flip_mask != base->flip_mask || candidate->flip_at != base->flip_at;
    unsigned bits = other_flip ? (unsigned)__builtin_popcount(candidate->flip_mask) : 0;
    candidate->at = candidate->flip_at;
    for (size_t i = sizeof candidate->bytes; i-- > 0;) {
        bits += (unsigned)__builtin_popcount(candidate->bytes[i] ^ base->bytes[i]);
        if (candidate->bytes[i] != search->trial->area[i])
            candidate->at = i;
    }
    candidate->one_bit = bits == 1;
}

static bool clears_named_feature(const struct q2_search *search, const struct q2_candidate *found);

void
q2_search_offer(struct q2_search *search, const struct q2_candidate *candidate)
{
    struct q2_candidate found = *candidate;
    if (same(&found, &search->base))
        return;
    found.tried = false;
    if (clears_named_feature(search, &found))
        return;
    q2_trial_glance(search->trial, &found, search->base.bad);
    if (!q2_candidate_better(&found, &search->base))
        return;
    for (unsigned i = 0; i < search->count; i++)
        if (same(&found, &search->kept[i]))
            return;
    find_difference(search, &found);
    unsigned at = search->count;
    while (at > 0 && q2_candidate_better(&found, &search->kept[at - 1]))
        at--;
    if (at == Q2_SEARCH_KEPT)
        return;
    search->count += search->count < Q2_SEARCH_KEPT;
    memmove(search->kept + at + 1, search->kept + at,
            (search->count - at - 1) * sizeof *search->kept);
    search->kept[at] = found;
}

/* ---- single bits, and fields of few values ---- */

static bool
has_usual_length(const struct q2_candidate *base)
{
    uint32_t length = q2_load_be32(base->bytes + 100);
    return length == Q2_HEADER_V3_LENGTH || length == Q2_HEADER_KNOWN_LENGTH;
}

/* Bits of a byte that are not tried: those that tell of the image's life, which any header may
 * have, and those of which another value cannot be better. */
static uint8_t
bits_to_leave(const struct q2_candidate *base, unsigned byte)
{
    if (q2_load_be32(base->bytes + 4) < 3)
        return 0;
    /* Another length would only hide what is wrong with the extensions. */
    if (byte >= 100 && byte < 104 && has_usual_length(base))
        return 0xff;
    /* Fields of the future. */
    if (byte > 104)
        return q2_load_be32(base->bytes + 100) > 105 ? 0xff : 0;
    if (byte == 79)
        return Q2_INCOMPATIBLE_DIRTY | Q2_INCOMPATIBLE_CORRUPT;
    if (byte >= 80 && byte < 88)
        return 0xff;
    if (byte >= 88 && byte < 96)
        return byte == 95 ? 0xff & ~(Q2_AUTOCLEAR_BITMAPS | Q2_AUTOCLEAR_RAW_DATA) : 0xff;
    return 0;
}

static void
offer_bits(struct q2_search *search)
{
    for (unsigned byte = 0; byte < Q2_HEADER_KNOWN_LENGTH; byte++)
        for (unsigned bit = 0; bit < 8; bit++) {
            struct q2_candidate candidate = search->base;
            if (bits_to_leave(&search->base, byte) >> bit & 1)
                continue;
            candidate.bytes[byte] ^= (uint8_t)(1U << bit);
            q2_search_offer(search, &candidate);
        }
}

/* Bits of type and length of the extensions, as far as they can be followed. */
static void
offer_extensions(struct q2_search *search)
{
    const struct q2_trial *trial = search->trial;
    struct q2_header header;
    struct q2_extension extension;
    int more = 1;
    q2_header_decode(search->base.bytes, sizeof search->base.bytes, &header);
    uint64_t offset = header.header_length, end = trial->length;
    if (search->base.flip_mask)
        return;
    if (header.cluster_bits >= Q2_MIN_CLUSTER_BITS && header.cluster_bits <= Q2_MAX_CLUSTER_BITS)
        end = q2_min(end, UINT64_C(1) << header.cluster_bits);
    for (unsigned i = 0; i < MAX_EXTENSIONS && more > 0; i++) {
        more = q2_extension_next(trial->area, (size_t)end, &offset, &extension);
        if (!q2_range_inside(extension.offset, Q2_EXTENSION_HEADER_LENGTH, end))
            return;
        for (unsigned bit = 0; bit < Q2_EXTENSION_HEADER_LENGTH * 8; bit++) {
            struct q2_candidate candidate = search->base;
            uint64_t at = extension.offset + bit / 8;
            if (at < sizeof candidate.bytes)
                continue;
            candidate.flip_at = at;
            candidate.flip_mask = (uint8_t)(1U << bit % 8);
            q2_search_offer(search, &candidate);
        }
    }
}

static void
offer_field(struct q2_search *search, const char *name, uint64_t value)
{
    struct q2_candidate candidate = search->base;
    struct q2_header_field field;
    if (!q2_header_field(name, &field))
        return;
    uint8_t *at = candidate.bytes + field.offset;
    if (field.width == 8)
        q2_store_be64(at, value);
    else if (field.width == 4)
        q2_store_be32(at, (uint32_t)value);
    else
        *at = (uint8_t)value;
    q2_search_offer(search, &candidate);
}

static void
offer_values(struct q2_search *search)
{
    struct q2_header header;
    q2_header_decode(search->base.bytes, sizeof search->base.bytes, &header);
    offer_field(search, "magic", Q2_MAGIC);
    for (unsigned version = 2; version <= 3; version++)
        offer_field(search, "version", version);
    for (unsigned bits = Q2_MIN_CLUSTER_BITS; bits <= Q2_MAX_CLUSTER_BITS; bits++)
        offer_field(search, "cluster_bits", bits);
    for (unsigned method = 0; method <= Q2_CRYPT_LUKS; method++)
        offer_field(search, "crypt_method", method);
    if (header.version != 3)
        return;
    for (unsigned order = 0; order <= Q2_MAX_REFCOUNT_ORDER; order++)
        offer_field(search, "refcount_order", order);
    if (!has_usual_length(&search->base)) {
        offer_field(search, "header_length", Q2_HEADER_V3_LENGTH);
        offer_field(search, "header_length", Q2_HEADER_KNOWN_LENGTH);
    }
    offer_field(search, "compression_type", 0);
    offer_field(search, "compression_type", 1);
    offer_field(search, "incompatible_features",
                header.incompatible_features & Q2_INCOMPATIBLE_KNOWN);
}

/* No snapshots: right where everything that is counted is accounted for without them. And as many
 * as there are in the table. */
static void
offer_snapshots(struct q2_search *search)
{
    struct q2_candidate candidate = search->base;
    memset(candidate.bytes + 60, 0, 12); /* nb_snapshots and snapshots_offset */
    q2_search_offer(search, &candidate);
}

/* The smallest L1 table that maps the disk. */
static void
offer_l1_size(struct q2_search *search)
{
    struct q2_header header;
    struct q2_geometry geometry;
    q2_header_decode(search->base.bytes, sizeof search->base.bytes, &header);
    if (header.cluster_bits < Q2_MIN_CLUSTER_BITS || header.cluster_bits > Q2_MAX_CLUSTER_BITS)
        return;
    q2_geometry_init(&geometry, &header, search->trial->file_size);
    uint64_t needed = q2_l1_entries_for(&geometry, header.size);
    if (needed <= Q2_MAX_L1_BYTES / 8)
        offer_field(search, "l1_size", needed);
    /* And as many clusters of refcount table as the file needs. */
    uint64_t blocks = q2_units(geometry.file_clusters, geometry.refcount_block_bits);
    offer_field(search, "refcount_table_clusters", q2_units(blocks * 8, geometry.cluster_bits));
}

void
q2_search_offer_flips(struct q2_search *search)
{
    offer_bits(search);
    offer_extensions(search);
    offer_values(search);
    offer_l1_size(search);
    offer_snapshots(search);
}

/* ---- the decision ---- */

/* Whether two headers only differ in what makes no difference to this image, because neither the
 * glance nor the check sees it: how clusters are compressed, where none are, and where extensions
 * begin, where there are none. */
static bool
amount_to_the_same(const struct q2_candidate *a, const struct q2_candidate *b)
{
    struct q2_header x, y;
    q2_header_decode(a->bytes, sizeof a->bytes, &x);
    q2_header_decode(b->bytes, sizeof b->bytes, &y);
    y.compression_type = x.compression_type;
    y.header_length = x.header_length;
    y.incompatible_features &= ~(uint64_t)Q2_INCOMPATIBLE_COMPRESSION;
    y.incompatible_features |= x.incompatible_features & Q2_INCOMPATIBLE_COMPRESSION;
    return memcmp(&x, &y, sizeof x) == 0 && a->good == b->good && a->bad == b->bad &&
           a->flip_mask == b->flip_mask && a->flip_at == b->flip_at;
}

static bool
beats(const struct q2_candidate *best, const struct q2_candidate *other)
{
    /* One bit flips by itself; several that happen to make sense do not. */
    if (best->faults == other->faults && best->one_bit && !other->one_bit)
        return true;
    return best->faults < other->faults || best->bad + CLEAR_MARGIN <= other->bad ||
           amount_to_the_same(best, other);
}

/* Whether two headers only differ in how large the disk is, where nothing is stored; the smaller
 * number of odd bits is what people choose. */
static bool
is_rounder(const struct q2_candidate *best, const struct q2_candidate *other)
{
    struct q2_header x, y;
    q2_header_decode(best->bytes, sizeof best->bytes, &x);
    q2_header_decode(other->bytes, sizeof other->bytes, &y);
    bool rounder = __builtin_popcountll(x.size) < __builtin_popcountll(y.size);
    y.size = x.size;
    y.l1_size = x.l1_size;
    return rounder && memcmp(&x, &y, sizeof x) == 0;
}

/* A feature that is unknown here may be one of newer software. It is not where the image has names
 * for its features, and none for this one: q2_search_decide left those with a name alone. */
static bool
clears_unknown_feature(const struct q2_search *search, const struct q2_candidate *found)
{
    enum { FAR_FUTURE = 16 }; /* bits are taken in turn */
    struct q2_header old, new;
    q2_header_decode(search->base.bytes, sizeof search->base.bytes, &old);
    q2_header_decode(found->bytes, sizeof found->bytes, &new);
    uint64_t cleared = old.incompatible_features & ~new.incompatible_features;
    if (found->fresh)
        return false; /* nothing of the old header is left */
    cleared &= ~(uint64_t)Q2_INCOMPATIBLE_KNOWN & ((UINT64_C(1) << FAR_FUTURE) - 1);
    const struct q2_check *check = search->trial->scene->check;
    return cleared && !(check && check->extensions.features.bytes);
}

static bool
clears_named_feature(const struct q2_search *search, const struct q2_candidate *found)
{
    struct q2_header old, new;
    struct q2_text name;
    const struct q2_check *check = search->trial->scene->check;
    if (!check || !check->extensions.features.bytes)
        return false;
    q2_header_decode(search->base.bytes, sizeof search->base.bytes, &old);
    q2_header_decode(found->bytes, sizeof found->bytes, &new);
    uint64_t cleared = old.incompatible_features & ~new.incompatible_features;
    cleared &= ~(uint64_t)Q2_INCOMPATIBLE_KNOWN;
    for (unsigned bit = 0; bit < 64; bit++)
        if ((cleared >> bit & 1) && q2_feature_name(&check->extensions, 0, bit, &name))
            return true;
    return false;
}

static enum q2_confidence
confidence_in(const struct q2_search *search, unsigned best)
{
    const struct q2_candidate *found = &search->kept[best];
    uint64_t next = search->base.faults;
    bool likely = false;
    for (unsigned i = 0; i < search->count; i++) {
        if (i == best)
            continue;
        if (!beats(found, &search->kept[i]) && !is_rounder(found, &search->kept[i]))
            return Q2_GUESS;
        likely |= !beats(found, &search->kept[i]);
        if (search->kept[i].faults > found->faults)
            next = q2_min(next, search->kept[i].faults);
    }
    if (likely || clears_unknown_feature(search, found))
        return Q2_LIKELY;
    if (found->faults == 0)
        return Q2_CERTAIN;
    bool sound = found->header_faults == 0 && found->bad == 0 && found->one_bit;
    return sound && found->faults <= next / 4 ? Q2_CERTAIN : Q2_LIKELY;
}

/* Whether a candidate need not be checked: there is one that explains everything, and this one is
 * far behind it already. */
static bool
is_hopeless(const struct q2_candidate *best, const struct q2_candidate *other)
{
    return best->tried && best->faults == 0 && best->bad + CLEAR_MARGIN <= other->bad;
}

int
q2_search_decide(struct q2_search *search, bool *ret_found, struct q2_candidate *ret_best,
                 enum q2_confidence *ret_confidence, struct q2_error *err)
{
    unsigned best = 0;
    int rc = search->count ? q2_trial_check(search->trial, &search->base, NULL, err) : 0;
    for (unsigned i = 0; i < search->count && rc == 0; i++) {
        if (is_hopeless(&search->kept[best], &search->kept[i]))
            continue;
        rc = q2_trial_check(search->trial, &search->kept[i], NULL, err);
        if (rc == 0 && q2_candidate_better(&search->kept[i], &search->kept[best]))
            best = i;
    }
    if (rc < 0)
        return rc;
    *ret_found = search->count && search->kept[best].faults < search->base.faults;
    if (!*ret_found)
        return 0;
    *ret_confidence = confidence_in(search, best);
    *ret_best = search->kept[best];
    return 0;
}

const char *
q2_header_field_at(uint64_t offset)
{
    static const char *const names[] = {
        "magic",
        "version",
        "backing_file_offset",
        "backing_file_size",
        "cluster_bits",
        "size",
        "crypt_method",
        "l1_size",
        "l1_table_offset",
        "refcount_table_offset",
        "refcount_table_clusters",
        "nb_snapshots",
        "snapshots_offset",
        "incompatible_features",
        "compatible_features",
        "autoclear_features",
        "refcount_order",
        "header_length",
        "compression_type",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct q2_header_field field;
        if (q2_header_field(names[i], &field) && offset >= field.offset &&
            offset - field.offset < field.width)
            return names[i];
    }
    return offset < Q2_HEADER_KNOWN_LENGTH ? "the header" : "a header extension";
}
