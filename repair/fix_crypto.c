/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The LUKS header, without which no guest data can be decrypted. Where it is lost, it is found by
 * its magic: nothing that the guest can write is in a cluster that nothing refers to. Where its
 * fields are damaged, its layout is so regular that all but keys, salts and digests can be known.
 */

#include "core/format/luks.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "repair/fix.h"
#include "repair/header_area.h"

#include <string.h>

enum {
    RULE = 64,             /* what a broken rule weighs against an odd layout */
    MAX_ROUNDS = 3,        /* fields that are damaged at once */
    MAX_LENGTH = 16 << 20, /* of header and key material, bytes */
    SECTOR = 1 << Q2_LUKS_SECTOR_BITS,
};

static void
count_fault(void *data, const struct q2_violation *violation)
{
    (void)violation;
    ++*(uint64_t *)data;
}

/* ---- how good a header is ---- */

/* Sectors from one slot's key material to the next, as the first implementation laid them out and
 * all have since. */
static uint64_t
slot_stride(const struct q2_luks_header *header)
{
    uint64_t bytes = (uint64_t)header->key_bytes * Q2_LUKS_STRIPES;
    return (bytes + Q2_LUKS_MATERIAL_START - 1) / Q2_LUKS_MATERIAL_START *
           (Q2_LUKS_MATERIAL_START / SECTOR);
}

static uint32_t
slot_material(const struct q2_luks_header *header, unsigned slot)
{
    return (uint32_t)(Q2_LUKS_MATERIAL_START / SECTOR + slot * slot_stride(header));
}

/* Rules that are broken, and what is not as software lays it out. `length`: as the extension has
 * it, 0 for unknown. */
static uint64_t
luks_faults(const uint8_t *bytes, uint64_t length)
{
    struct q2_luks_header header;
    uint64_t faults = 0;
    struct q2_error ignored;
    const struct q2_sink sink = {.report = count_fault, .data = &faults, .wordless = true};
    if (q2_luks_decode(bytes, Q2_LUKS_HEADER_LENGTH, &header, &ignored) < 0)
        return UINT64_MAX;
    uint64_t payload = (uint64_t)header.payload << Q2_LUKS_SECTOR_BITS;
    q2_luks_validate(&header, 0, length ? length : payload, &sink);
    faults *= RULE;
    if (memcmp(header.magic, q2_luks_magic, sizeof header.magic) != 0 ||
        header.version != Q2_LUKS_VERSION)
        faults += (uint64_t)RULE * RULE; /* nothing else was looked at */
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++)
        faults += header.slots[i].material != slot_material(&header, i);
    return faults + (header.payload != slot_material(&header, Q2_LUKS_SLOTS));
}

/* ---- fields ---- */

struct repairing {
    uint8_t bytes[Q2_LUKS_HEADER_LENGTH]; /* as it is now */
    uint8_t best[Q2_LUKS_HEADER_LENGTH];
    uint64_t length;
    uint64_t faults; /* of `best` */
    bool unique;
};

static void
consider(struct repairing *r, const uint8_t *bytes)
{
    uint64_t faults = luks_faults(bytes, r->length);
    if (faults == r->faults && memcmp(bytes, r->best, sizeof r->best) != 0)
        r->unique = false;
    if (faults >= r->faults)
        return;
    r->faults = faults;
    r->unique = true;
    memcpy(r->best, bytes, sizeof r->best);
}

static void
consider_field(struct repairing *r, size_t at, uint32_t value)
{
    uint8_t bytes[Q2_LUKS_HEADER_LENGTH];
    memcpy(bytes, r->bytes, sizeof bytes);
    q2_store_be32(bytes + at, value);
    consider(r, bytes);
}

/* Whether nothing in the file can tell what a byte should be: keys follow from them. */
static bool
is_secret(size_t at)
{
    if (at < Q2_LUKS_AT_SLOTS)
        return at >= Q2_LUKS_AT_DIGEST;
    size_t field = (at - Q2_LUKS_AT_SLOTS) % Q2_LUKS_SLOT_LENGTH;
    return field >= Q2_LUKS_SLOT_AT_ITERATIONS && field < Q2_LUKS_SLOT_AT_MATERIAL;
}

/* Everything that follows from the length of the keys, at once. */
static void
consider_layout(struct repairing *r, const struct q2_luks_header *header)
{
    uint8_t bytes[Q2_LUKS_HEADER_LENGTH];
    memcpy(bytes, r->bytes, sizeof bytes);
    q2_store_be32(bytes + Q2_LUKS_AT_PAYLOAD, slot_material(header, Q2_LUKS_SLOTS));
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++) {
        uint8_t *slot = bytes + Q2_LUKS_AT_SLOTS + i * Q2_LUKS_SLOT_LENGTH;
        q2_store_be32(slot + Q2_LUKS_SLOT_AT_STRIPES, Q2_LUKS_STRIPES);
        q2_store_be32(slot + Q2_LUKS_SLOT_AT_MATERIAL, slot_material(header, i));
    }
    consider(r, bytes);
}

/* The names that software chooses, where at most a character is wrong. */
static void
consider_names(struct repairing *r)
{
    static const struct {
        size_t at;
        const char *name;
    } names[] = {
        {Q2_LUKS_AT_CIPHER_NAME, "aes"},
        {Q2_LUKS_AT_CIPHER_NAME, "serpent"},
        {Q2_LUKS_AT_CIPHER_NAME, "twofish"},
        {Q2_LUKS_AT_CIPHER_MODE, "xts-plain64"},
        {Q2_LUKS_AT_CIPHER_MODE, "cbc-plain64"},
        {Q2_LUKS_AT_CIPHER_MODE, "cbc-essiv:sha256"},
        {Q2_LUKS_AT_HASH, "sha256"},
        {Q2_LUKS_AT_HASH, "sha1"},
        {Q2_LUKS_AT_HASH, "sha512"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char field[Q2_LUKS_NAME_LENGTH] = {0};
        uint8_t bytes[Q2_LUKS_HEADER_LENGTH];
        unsigned wrong = 0;
        memcpy(field, names[i].name, strlen(names[i].name));
        memcpy(bytes, r->bytes, sizeof bytes);
        for (size_t at = 0; at < sizeof field; at++)
            wrong += bytes[names[i].at + at] != (uint8_t)field[at];
        memcpy(bytes + names[i].at, field, sizeof field);
        if (wrong == 1)
            consider(r, bytes);
    }
}

static void
consider_all(struct repairing *r)
{
    uint8_t bytes[Q2_LUKS_HEADER_LENGTH];
    struct q2_luks_header header;
    struct q2_error ignored;
    memcpy(bytes, r->bytes, sizeof bytes);
    for (size_t bit = 0; bit < sizeof bytes * 8; bit++) {
        if (is_secret(bit / 8))
            continue;
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        consider(r, bytes);
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    memcpy(bytes, q2_luks_magic, sizeof q2_luks_magic);
    bytes[Q2_LUKS_AT_VERSION] = 0;
    bytes[Q2_LUKS_AT_VERSION + 1] = Q2_LUKS_VERSION;
    consider(r, bytes);
    if (q2_luks_decode(r->bytes, sizeof r->bytes, &header, &ignored) < 0)
        return;
    static const uint8_t key_bytes[] = {16, 24, 32, 48, 64};
    for (size_t i = 0; i < sizeof key_bytes; i++)
        consider_field(r, Q2_LUKS_AT_KEY_BYTES, key_bytes[i]);
    consider_names(r);
    consider_layout(r, &header);
    consider_field(r, Q2_LUKS_AT_PAYLOAD, slot_material(&header, Q2_LUKS_SLOTS));
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++) {
        size_t at = Q2_LUKS_AT_SLOTS + i * Q2_LUKS_SLOT_LENGTH;
        consider_field(r, at + Q2_LUKS_SLOT_AT_STRIPES, Q2_LUKS_STRIPES);
        consider_field(r, at + Q2_LUKS_SLOT_AT_MATERIAL, slot_material(&header, i));
        /* A slot that is not used has no iterations. */
        if (header.slots[i].state != Q2_LUKS_SLOT_ENABLED &&
            header.slots[i].state != Q2_LUKS_SLOT_DISABLED)
            consider_field(r, at,
                           header.slots[i].iterations ? Q2_LUKS_SLOT_ENABLED
                                                      : Q2_LUKS_SLOT_DISABLED);
    }
}

static unsigned
differing_bits(const uint8_t *a, const uint8_t *b, size_t length)
{
    unsigned bits = 0;
    for (size_t i = 0; i < length; i++)
        bits += (unsigned)__builtin_popcount(a[i] ^ b[i]);
    return bits;
}

static bool
is_luks_problem(enum q2_problem problem)
{
    return problem >= Q2_PROBLEM_LUKS_MAGIC && problem <= Q2_PROBLEM_LUKS_NO_ACTIVE_SLOT;
}

static void
answer(struct q2_scene *scene, bool luks)
{
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (luks ? is_luks_problem(finding->problem)
                 : finding->problem == Q2_PROBLEM_EXTENSION_CRYPTO_LENGTH ||
                       finding->problem == Q2_PROBLEM_EXTENSION_CRYPTO_MISSING ||
                       finding->problem == Q2_PROBLEM_CRYPTO_HEADER_UNALIGNED ||
                       finding->problem == Q2_PROBLEM_CRYPTO_HEADER_PAST_END ||
                       finding->problem == Q2_PROBLEM_CRYPTO_HEADER_LENGTH)
            q2_plan_answer(&scene->plan, finding->problem, finding->host_offset, finding->count);
    }
}

static int
write_fields(struct q2_scene *scene, const struct repairing *r, const uint8_t *old, uint64_t offset,
             struct q2_error *err)
{
    size_t first = 0, end = sizeof r->best;
    while (old[first] == r->best[first])
        first++;
    while (old[end - 1] == r->best[end - 1])
        end--;
    return q2_scene_write(scene, Q2_OWNER_LUKS_HEADER, offset + first, r->best + first, end - first,
                          err);
}

static int
fix_fields(struct q2_scene *scene, struct q2_error *err)
{
    uint64_t offset = scene->check->extensions.crypto_offset;
    uint8_t old[Q2_LUKS_HEADER_LENGTH];
    struct q2_error ignored;
    struct repairing r = {.length = scene->check->extensions.crypto_length, .unique = true};
    if (q2_file_read_padded(scene->file, offset, old, sizeof old, &ignored) < 0)
        return 0;
    memcpy(r.best, old, sizeof old);
    r.faults = luks_faults(old, r.length);
    bool unique = true;
    for (unsigned round = 0; round < MAX_ROUNDS && r.faults; round++) {
        uint64_t before = r.faults;
        memcpy(r.bytes, r.best, sizeof r.bytes);
        r.unique = true;
        consider_all(&r);
        if (r.faults == before)
            break;
        unique &= r.unique;
    }
    unsigned bits = differing_bits(old, r.best, sizeof old);
    /* What is left may be as unknown software laid it out, but no rule may be broken. */
    if (r.faults >= RULE || bits == 0)
        return 0;
    bool sure = unique && (r.faults == 0 || bits == 1);
    bool permitted =
        q2_plan_begin(&scene->plan, Q2_ACTION_MEND_CRYPTO,
                      sure     ? Q2_CERTAIN
                      : unique ? Q2_LIKELY
                               : Q2_GUESS,
                      offset,
                      "with %u bits of the LUKS header changed it obeys all rules%s, and %s", bits,
                      r.faults ? "" : " and is laid out as software does",
                      unique ? "with no other change as small it does"
                             : "other changes as small do as well");
    answer(scene, true);
    int rc = permitted ? write_fields(scene, &r, old, offset, err) : 0;
    q2_plan_end(&scene->plan);
    return rc;
}

/* ---- finding it ---- */

struct finding_luks {
    uint64_t offset; /* bytes */
    uint64_t length;
    uint64_t faults;
    unsigned count;
};

/* Whether a LUKS header is at `offset`, in clusters that are its own. */
static bool
is_luks_at(struct q2_scene *scene, uint64_t offset, uint64_t *ret_length, uint64_t *ret_faults)
{
    uint8_t bytes[Q2_LUKS_HEADER_LENGTH];
    struct q2_luks_header header;
    const struct q2_geometry *geometry = &scene->check->geometry;
    struct q2_error ignored;
    if (q2_file_read_padded(scene->file, offset, bytes, sizeof bytes, &ignored) < 0 ||
        memcmp(bytes, q2_luks_magic, sizeof q2_luks_magic) != 0 ||
        q2_luks_decode(bytes, sizeof bytes, &header, &ignored) < 0)
        return false;
    uint64_t length = (uint64_t)header.payload << Q2_LUKS_SECTOR_BITS;
    uint64_t faults = luks_faults(bytes, length);
    if (faults >= (uint64_t)RULE * RULE)
        return false;
    if (length < Q2_LUKS_HEADER_LENGTH || length > MAX_LENGTH ||
        header.payload != slot_material(&header, Q2_LUKS_SLOTS))
        length = (uint64_t)slot_material(&header, Q2_LUKS_SLOTS) << Q2_LUKS_SECTOR_BITS;
    uint64_t end = geometry->file_clusters << geometry->cluster_bits;
    if (length < Q2_LUKS_HEADER_LENGTH || length > MAX_LENGTH ||
        !q2_range_inside(offset, length, end))
        return false;
    *ret_length = length;
    *ret_faults = faults;
    return true;
}

/* Whether nothing but the LUKS header itself refers to the cluster. */
static bool
is_free_for_it(const struct q2_scene *scene, uint64_t cluster)
{
    const struct q2_check *check = scene->check;
    uint64_t own = 0;
    for (uint64_t i = 0; i < check->region_count; i++)
        if (check->regions[i].owner.kind == Q2_OWNER_LUKS_HEADER &&
            q2_cluster_of(check, check->regions[i].offset) <= cluster &&
            q2_cluster_of(check, check->regions[i].offset + check->regions[i].length - 1) >=
                cluster)
            own++;
    return q2_scene_references(scene, cluster) <= own;
}

/* Look at the beginning of every cluster that is stored and that nothing refers to. */
static void
look_everywhere(struct q2_scene *scene, struct finding_luks *found)
{
    const struct q2_geometry *geometry = &scene->check->geometry;
    uint64_t data_end = 0;
    for (uint64_t cluster = 1; cluster < geometry->file_clusters; cluster++) {
        uint64_t offset = cluster << geometry->cluster_bits, length, faults, end;
        bool data = true;
        struct q2_error ignored;
        if (offset >= data_end && q2_file_extent(scene->file, offset, &data, &end, &ignored) == 0 &&
            end > offset) {
            data_end = end;
            if (!data) {
                /* Go on with the cluster in which the hole ends. */
                uint64_t last = end >> geometry->cluster_bits;
                cluster = last > cluster ? last - 1 : cluster;
                continue;
            }
        }
        if (!is_free_for_it(scene, cluster) || !is_luks_at(scene, offset, &length, &faults))
            continue;
        found->count++;
        if (found->count > 1 && faults >= found->faults)
            continue;
        found->offset = offset;
        found->length = length;
        found->faults = faults;
    }
}

static int
fix_extension(struct q2_scene *scene, struct q2_error *err)
{
    struct finding_luks found = {.count = 0};
    struct q2_header_area area;
    uint8_t data[Q2_EXTENSION_CRYPTO_LENGTH];
    look_everywhere(scene, &found);
    if (found.count == 0)
        return 0;
    int rc = q2_header_area_read(scene, &area, err);
    if (rc < 0)
        return rc;
    q2_store_be64(data, found.offset);
    q2_store_be64(data + 8, found.length);
    struct q2_header_part *part = q2_header_area_find(&area, Q2_EXTENSION_CRYPTO);
    if (part)
        *part = (struct q2_header_part){Q2_EXTENSION_CRYPTO, sizeof data, data};
    else
        rc = q2_header_area_add(&area, Q2_EXTENSION_CRYPTO, data, sizeof data, err);
    if (rc == 0) {
        bool sure = found.count == 1 && found.faults == 0;
        bool permitted =
            q2_plan_begin(&scene->plan, Q2_ACTION_MEND_CRYPTO, sure ? Q2_CERTAIN : Q2_LIKELY,
                          found.offset,
                          "the image is encrypted, and of all clusters that nothing refers to %u "
                          "begin with a LUKS header: that at 0x%llx, with its key material of %llu "
                          "bytes",
                          found.count, (unsigned long long)found.offset,
                          (unsigned long long)found.length);
        answer(scene, false);
        if (permitted)
            rc = q2_header_area_write(scene, &area, err);
        q2_plan_end(&scene->plan);
    }
    q2_header_area_destroy(&area);
    return rc == Q2_ERR_NOSPACE ? 0 : rc;
}

static bool
is_lost(const struct q2_scene *scene)
{
    return scene->check->header.crypt_method == Q2_CRYPT_LUKS &&
           (q2_scene_count(scene, Q2_PROBLEM_EXTENSION_CRYPTO_LENGTH) ||
            q2_scene_count(scene, Q2_PROBLEM_EXTENSION_CRYPTO_MISSING) ||
            q2_scene_count(scene, Q2_PROBLEM_CRYPTO_HEADER_UNALIGNED) ||
            q2_scene_count(scene, Q2_PROBLEM_CRYPTO_HEADER_PAST_END) ||
            q2_scene_count(scene, Q2_PROBLEM_CRYPTO_HEADER_LENGTH) ||
            q2_scene_count(scene, Q2_PROBLEM_LUKS_MAGIC));
}

static bool
has_bad_fields(const struct q2_scene *scene)
{
    for (int p = Q2_PROBLEM_LUKS_MAGIC; p <= Q2_PROBLEM_LUKS_NO_ACTIVE_SLOT; p++)
        if (q2_scene_count(scene, (enum q2_problem)p))
            return true;
    return false;
}

int
q2_fix_crypto(struct q2_scene *scene, struct q2_error *err)
{
    int rc = 0;
    if (!scene->check || !(scene->check->usable & Q2_USABLE_EXTENSIONS))
        return 0;
    if (is_lost(scene)) {
        rc = fix_extension(scene, err);
        if (rc == 0)
            rc = q2_scene_recheck(scene, err);
    }
    return rc == 0 && has_bad_fields(scene) ? fix_fields(scene, err) : rc;
}
