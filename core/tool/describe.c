/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Members are those of `qemu-img info --output=json`, in an order that suits the text for people.
 * The image is open without its pass phrase, its data file and what is below it. */

#include "core/tool/describe.h"

#include "core/base/cleanup.h"
#include "core/format/extension.h"
#include "core/format/luks.h"
#include "core/image/bitmaps.h"
#include "core/image/snapshots.h"
#include "core/io/file.h"
#include "core/io/path.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

/* ---- LUKS ---- */

static void
ignore_violation(void *data, const struct q2_violation *violation)
{
    (void)data;
    (void)violation;
}

/* Where the LUKS header is: in the header extension, which strict opening has looked at. */
static int
read_luks(struct q2_image *image, struct q2_luks_header *ret_luks, struct q2_error *err)
{
    const struct q2_header *header = q2_image_header(image);
    const struct q2_sink sink = {.report = ignore_violation};
    size_t length = q2_image_geometry(image)->cluster_size;
    uint8_t bytes[Q2_LUKS_HEADER_LENGTH];
    struct q2_extensions extensions;
    Q2_AUTOFREE uint8_t *head = malloc(length);
    if (!head)
        return q2_error_set(err, Q2_ERR_NOMEM, "%s: out of memory", q2_image_name(image));
    int rc = q2_file_read_padded(q2_image_file(image), 0, head, length, err);
    if (rc < 0)
        return rc;
    q2_extensions_decode(header, Q2_USABLE_ALL, head, length, &sink, &extensions);
    if (!extensions.has_crypto)
        return q2_error_set(err, Q2_ERR_FORMAT, "%s: the header names no LUKS header",
                            q2_image_name(image));
    rc = q2_file_read_padded(q2_image_file(image), extensions.crypto_offset, bytes, sizeof bytes,
                             err);
    return rc < 0 ? rc : q2_luks_decode(bytes, sizeof bytes, ret_luks, err);
}

static struct json_object *
slots_array(const struct q2_luks_header *luks)
{
    struct json_object *array = json_object_new_array();
    for (unsigned i = 0; i < Q2_LUKS_SLOTS; i++) {
        const struct q2_luks_slot *slot = &luks->slots[i];
        bool active = slot->state == Q2_LUKS_SLOT_ENABLED;
        struct json_object *object = json_object_new_object();
        tool_json_bool(&object, "active", active);
        if (active)
            tool_json_number(&object, "iters", slot->iterations);
        tool_json_number(&object, "key-offset", (uint64_t)slot->material << Q2_LUKS_SECTOR_BITS);
        if (active)
            tool_json_number(&object, "stripes", slot->stripes);
        tool_json_append(&array, object);
    }
    return array;
}

/* "xts-plain64" and "cbc-essiv:sha256" are three things in one. */
static void
put_luks(struct json_object **object, const struct q2_luks_header *luks)
{
    char mode[sizeof luks->cipher_mode], cipher[sizeof luks->cipher_name + 16];
    memcpy(mode, luks->cipher_mode, sizeof mode);
    char *ivgen = strchr(mode, '-');
    if (ivgen)
        *ivgen++ = '\0';
    char *hash = ivgen ? strchr(ivgen, ':') : NULL;
    if (hash)
        *hash++ = '\0';
    /* XTS has two keys. */
    unsigned bits = luks->key_bytes * 8 / (strcmp(mode, "xts") == 0 ? 2 : 1);
    snprintf(cipher, sizeof cipher, "%s-%u", luks->cipher_name, bits);
    tool_json_text(object, "ivgen-alg", ivgen ? ivgen : "");
    tool_json_text(object, "hash-alg", luks->hash);
    tool_json_text(object, "cipher-alg", cipher);
    tool_json_text(object, "uuid", luks->uuid);
    if (hash)
        tool_json_text(object, "ivgen-hash-alg", hash);
    tool_json_text(object, "format", "luks");
    tool_json_text(object, "cipher-mode", mode);
    tool_json_put(object, "slots", slots_array(luks));
    tool_json_number(object, "payload-offset", (uint64_t)luks->payload << Q2_LUKS_SECTOR_BITS);
    tool_json_number(object, "master-key-iters", luks->iterations);
}

static int
put_encrypt(struct json_object **data, struct q2_image *image, struct q2_error *err)
{
    struct q2_luks_header luks;
    uint32_t method = q2_image_header(image)->crypt_method;
    if (method == Q2_CRYPT_NONE)
        return 0;
    int rc = method == Q2_CRYPT_LUKS ? read_luks(image, &luks, err) : 0;
    if (rc < 0)
        return rc;
    struct json_object *object = json_object_new_object();
    if (method == Q2_CRYPT_LUKS)
        put_luks(&object, &luks);
    else
        tool_json_text(&object, "format", "aes");
    tool_json_put(data, "encrypt", object);
    return 0;
}

/* ---- lists ---- */

static int
put_bitmaps(struct json_object **data, struct q2_image *image, struct q2_error *err)
{
    unsigned count = q2_bitmap_count(image);
    if (count == 0)
        return 0;
    struct json_object *array = json_object_new_array();
    for (unsigned i = 0; i < count; i++) {
        struct q2_bitmap_info info;
        int rc = q2_bitmap_info(image, i, &info, err);
        if (rc < 0) {
            json_object_put(array);
            return rc;
        }
        struct json_object *flags = json_object_new_array(), *object = json_object_new_object();
        if (info.in_use)
            tool_json_append(&flags, json_object_new_string("in-use"));
        if (info.enabled)
            tool_json_append(&flags, json_object_new_string("auto"));
        tool_json_put(&object, "flags", flags);
        tool_json_text(&object, "name", info.name);
        tool_json_number(&object, "granularity", info.granularity);
        tool_json_append(&array, object);
    }
    tool_json_put(data, "bitmaps", array);
    return 0;
}

static void
put_snapshots(struct json_object **object, const struct q2_image *image)
{
    unsigned count = q2_snapshot_count(image);
    if (count == 0)
        return;
    struct json_object *array = json_object_new_array();
    for (unsigned i = 0; i < count; i++) {
        struct q2_snapshot_info info;
        q2_snapshot_info(image, i, &info);
        struct json_object *one = json_object_new_object();
        if (info.has_icount)
            tool_json_number(&one, "icount", info.icount);
        tool_json_number(&one, "vm-clock-nsec", info.vm_clock_nanoseconds % 1000000000);
        tool_json_text(&one, "name", info.name);
        tool_json_number(&one, "date-sec", info.date_seconds);
        tool_json_number(&one, "date-nsec", info.date_nanoseconds);
        tool_json_number(&one, "vm-clock-sec", info.vm_clock_nanoseconds / 1000000000);
        tool_json_text(&one, "id", info.id);
        tool_json_number(&one, "vm-state-size", info.vm_state_size);
        tool_json_append(&array, one);
    }
    tool_json_put(object, "snapshots", array);
}

/* ---- the format's own ---- */

static int
put_format_specific(struct json_object **object, struct q2_image *image, struct q2_error *err)
{
    const struct q2_header *header = q2_image_header(image);
    const char *data_name = q2_image_data_name(image);
    bool modern = header->version >= 3;
    bool zstd = header->compression_type == Q2_COMPRESSION_ZSTD;
    struct json_object *data = json_object_new_object();
    tool_json_text(&data, "compat", modern ? "1.1" : "0.10");
    tool_json_text(&data, "compression-type", zstd ? "zstd" : "zlib");
    if (modern)
        tool_json_bool(&data, "lazy-refcounts",
                       header->compatible_features & Q2_COMPATIBLE_LAZY_REFCOUNTS);
    int rc = put_bitmaps(&data, image, err);
    tool_json_number(&data, "refcount-bits", UINT64_C(1) << header->refcount_order);
    rc = rc < 0 ? rc : put_encrypt(&data, image, err);
    if (data_name)
        tool_json_text(&data, "data-file", data_name);
    if (header->incompatible_features & Q2_INCOMPATIBLE_DATA_FILE)
        tool_json_bool(&data, "data-file-raw", header->autoclear_features & Q2_AUTOCLEAR_RAW_DATA);
    if (modern) {
        tool_json_bool(&data, "corrupt", header->incompatible_features & Q2_INCOMPATIBLE_CORRUPT);
        tool_json_bool(&data, "extended-l2",
                       header->incompatible_features & Q2_INCOMPATIBLE_EXTENDED_L2);
    }
    if (rc < 0) {
        json_object_put(data);
        return rc;
    }
    struct json_object *specific = json_object_new_object();
    tool_json_text(&specific, "type", "qcow2");
    tool_json_put(&specific, "data", data);
    tool_json_put(object, "format-specific", specific);
    return 0;
}

/* ---- the whole ---- */

static void
put_backing(struct json_object **object, struct q2_image *image)
{
    const char *name = q2_image_backing_name(image);
    if (!name)
        return;
    tool_json_text(object, "backing-filename", name);
    Q2_AUTOFREE char *path =
        q2_path_has_protocol(name) ? strdup(name) : q2_path_beside(q2_image_name(image), name);
    if (path)
        tool_json_text(object, "full-backing-filename", path);
    if (q2_image_backing_format(image))
        tool_json_text(object, "backing-filename-format", q2_image_backing_format(image));
}

int
describe_disk(struct q2_disk *disk, struct json_object **ret_object, struct q2_error *err)
{
    struct q2_image *image = q2_disk_image(disk);
    uint64_t allocated, incompatible = 0;
    int rc = q2_file_allocated(q2_disk_file(disk), &allocated, err);
    if (rc < 0)
        return rc;
    struct json_object *object = json_object_new_object();
    tool_json_text(&object, "filename", q2_disk_name(disk));
    tool_json_text(&object, "format", q2_disk_format_name(q2_disk_format(disk)));
    tool_json_number(&object, "virtual-size", q2_disk_size(disk));
    tool_json_number(&object, "actual-size", allocated);
    if (image) {
        incompatible = q2_image_header(image)->incompatible_features;
        if (q2_image_header(image)->crypt_method)
            tool_json_bool(&object, "encrypted", true);
        tool_json_number(&object, "cluster-size", q2_image_geometry(image)->cluster_size);
        put_backing(&object, image);
        put_snapshots(&object, image);
        rc = put_format_specific(&object, image, err);
    }
    tool_json_bool(&object, "dirty-flag", incompatible & Q2_INCOMPATIBLE_DIRTY);
    if (rc < 0) {
        json_object_put(object);
        return rc;
    }
    *ret_object = object;
    return 0;
}
