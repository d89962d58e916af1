/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The whole grammar of the recipe language but for expressions: one row for each word. */

#include "corpus/recipe/syntax.h"

#include <string.h>

#define IMAGE(spelling, word, arguments)                 \
    {                                                    \
        spelling, word, PART_IMAGE, WORD_NONE, arguments \
    }
#define CONTENT(spelling, word, arguments)                 \
    {                                                      \
        spelling, word, PART_CONTENT, WORD_NONE, arguments \
    }
#define DAMAGE(spelling, word, arguments)                 \
    {                                                     \
        spelling, word, PART_DAMAGE, WORD_NONE, arguments \
    }
#define CLAUSE(owner, spelling, word, arguments)      \
    {                                                 \
        spelling, word, PART_CLAUSE, owner, arguments \
    }

static const struct recipe_grammar rows[] = {
    IMAGE("version", WORD_VERSION, "n"),
    IMAGE("cluster-size", WORD_CLUSTER_SIZE, "n"),
    IMAGE("size", WORD_SIZE, "n"),
    IMAGE("refcount-bits", WORD_REFCOUNT_BITS, "n"),
    IMAGE("compression", WORD_COMPRESSION, "t"),
    IMAGE("extended-l2", WORD_EXTENDED_L2, ""),
    IMAGE("lazy-refcounts", WORD_LAZY_REFCOUNTS, ""),
    IMAGE("encryption", WORD_ENCRYPTION, "t"),
    IMAGE("data-file", WORD_DATA_FILE, "t"),
    CLAUSE(WORD_DATA_FILE, "raw", WORD_RAW, ""),
    IMAGE("backing", WORD_BACKING, "t"),
    CLAUSE(WORD_BACKING, "format", WORD_FORMAT, "t"),
    IMAGE("feature-table", WORD_FEATURE_TABLE, ""),
    IMAGE("extension", WORD_EXTENSION, "nt"),
    IMAGE("l1-entries", WORD_L1_ENTRIES, "n"),
    IMAGE("header-length", WORD_HEADER_LENGTH, "n"),
    IMAGE("file", WORD_FILE, "tnp"),

    CONTENT("write", WORD_WRITE, "nnp"),
    CONTENT("write-compressed", WORD_WRITE_COMPRESSED, "nnp"),
    CONTENT("zero", WORD_ZERO, "nn"),
    CLAUSE(WORD_ZERO, "allocated", WORD_ALLOCATED, ""),
    CONTENT("discard", WORD_DISCARD, "nn"),
    CONTENT("preallocate", WORD_PREALLOCATE, "?nn"),
    CONTENT("subclusters", WORD_SUBCLUSTERS, "n"),
    CLAUSE(WORD_SUBCLUSTERS, "alloc", WORD_ALLOC, "n"),
    CLAUSE(WORD_SUBCLUSTERS, "zero", WORD_ZEROS, "n"),
    CLAUSE(WORD_SUBCLUSTERS, "pattern", WORD_PATTERN, "p"),
    CLAUSE(WORD_SUBCLUSTERS, "allocated", WORD_ALLOCATED, ""),
    CONTENT("resize", WORD_RESIZE, "n"),
    CONTENT("leak", WORD_LEAK, "n?p"),
    CONTENT("snapshot", WORD_SNAPSHOT, "t"),
    CLAUSE(WORD_SNAPSHOT, "id", WORD_ID, "t"),
    CLAUSE(WORD_SNAPSHOT, "vm-state", WORD_VM_STATE, "np"),
    CLAUSE(WORD_SNAPSHOT, "vm-clock", WORD_VM_CLOCK, "n"),
    CLAUSE(WORD_SNAPSHOT, "date", WORD_DATE, "n?n"),
    CLAUSE(WORD_SNAPSHOT, "extra", WORD_EXTRA, "t"),
    CONTENT("bitmap", WORD_BITMAP, "t"),
    CLAUSE(WORD_BITMAP, "granularity", WORD_GRANULARITY, "n"),
    CLAUSE(WORD_BITMAP, "auto", WORD_AUTO, ""),
    CLAUSE(WORD_BITMAP, "in-use", WORD_IN_USE, ""),
    CLAUSE(WORD_BITMAP, "dirty", WORD_DIRTY, "nn"),
    CLAUSE(WORD_BITMAP, "ones", WORD_ONES, ""),
    CLAUSE(WORD_BITMAP, "extra", WORD_EXTRA, "t"),

    {"=", WORD_ASSIGNMENT, PART_DAMAGE, WORD_ASSIGNMENT, ""},
    DAMAGE("truncate", WORD_TRUNCATE, "n"),
    DAMAGE("append", WORD_APPEND, "np"),
    DAMAGE("fill", WORD_FILL, "nnp"),
    DAMAGE("zero-fill", WORD_ZERO_FILL, "nn"),
    DAMAGE("copy", WORD_COPY, "nnn"),
};

const struct recipe_grammar *
recipe_grammar_find(const char *spelling, enum recipe_word owner)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].owner == owner && strcmp(rows[i].spelling, spelling) == 0)
            return &rows[i];
    return NULL;
}
