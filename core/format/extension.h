/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Header extensions: what follows the header in the first cluster ("Header extensions", "Feature
 * name table", "Bitmaps extension", "Full disk encryption header pointer"). */

#ifndef Q2_FORMAT_EXTENSION_H
#define Q2_FORMAT_EXTENSION_H

#include "core/format/header.h"

enum q2_extension_type {
    Q2_EXTENSION_END = 0x00000000,
    Q2_EXTENSION_BITMAPS = 0x23852875,
    Q2_EXTENSION_CRYPTO = 0x0537be77,
    Q2_EXTENSION_DATA_FILE = 0x44415441,
    Q2_EXTENSION_FEATURES = 0x6803f857,
};
/* Does not fit an int, and so no enum constant of C11. */
#define Q2_EXTENSION_BACKING_FORMAT UINT32_C(0xe2792aca)

enum {
    Q2_EXTENSION_HEADER_LENGTH = 8,
    Q2_EXTENSION_BITMAPS_LENGTH = 24,
    Q2_EXTENSION_CRYPTO_LENGTH = 16,
    Q2_FEATURE_NAME_LENGTH = 46, /* bytes of the name in a feature name table entry */
    Q2_FEATURE_ENTRY_LENGTH = 48,
    Q2_MAX_BACKING_FORMAT = 15,
};

/* One extension as it stands in the header area. */
struct q2_extension {
    uint32_t type;
    uint32_t length;     /* of the data, bytes */
    uint64_t offset;     /* of the extension's own header in the file, bytes */
    const uint8_t *data; /* inside the area */
};

/* Text inside the area, not terminated; NULL where there is none. */
struct q2_text {
    const uint8_t *bytes;
    size_t length;
    uint64_t offset; /* in the file, bytes */
};

/* What the known extensions say. Pointers go into the area that was decoded. */
struct q2_extensions {
    struct q2_text backing_format;
    struct q2_text data_file;
    struct q2_text features; /* the feature name table */
    bool has_crypto;
    uint64_t crypto_at;     /* where the extension's data is in the file, bytes */
    uint64_t crypto_offset; /* of the LUKS header, bytes */
    uint64_t crypto_length; /* bytes */
    bool has_bitmaps;
    uint64_t bitmaps_at;
    uint32_t nb_bitmaps;
    uint64_t bitmap_directory_size;   /* bytes */
    uint64_t bitmap_directory_offset; /* bytes */
    struct q2_text backing_file;      /* the name itself, from the header's fields */
};

/* Step through the area of `length` bytes that starts at file offset 0: *offset is where the next
 * extension's header should be, and moves on. Returns 1 with an extension, 0 at the end marker or
 * where no further header fits (then *ret_extension->type is not END), -1 where an extension claims
 * more than the area has. */
int q2_extension_next(const uint8_t *area, size_t length, uint64_t *offset,
                      struct q2_extension *ret_extension);

/* Where the header area ends: at the backing file name, or the end of the first cluster. `length`
 * is how many bytes of the file were read. */
size_t q2_extension_area(const struct q2_header *header, unsigned usable, size_t length);

/* Decode the extensions of the first `length` bytes of the file and hold them against the rules.
 * `usable` is what q2_header_validate returned; what the extensions need and lack is reported. */
void q2_extensions_decode(const struct q2_header *header, unsigned usable, const uint8_t *bytes,
                          size_t length, const struct q2_sink *sink,
                          struct q2_extensions *ret_extensions);

/* The name of a feature bit from the feature name table of an image, or false. */
bool q2_feature_name(const struct q2_extensions *extensions, unsigned type, unsigned bit,
                     struct q2_text *ret_name);

#endif
