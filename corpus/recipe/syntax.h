/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A recipe after parsing: a list of statements, each a head clause and the clauses that modify it.
 * The grammar is one table (grammar.c); what the words mean is the builder's business. */

#ifndef Q2_CORPUS_SYNTAX_H
#define Q2_CORPUS_SYNTAX_H

#include "core/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct recipe_position {
    unsigned line;
    unsigned column;
};

/* Fill `err` with "name:line:column: " and the message. */
int recipe_error(struct q2_error *err, enum q2_error_code code, const char *name,
                 struct recipe_position at, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* ---- bytes made up from little ---- */

enum recipe_pattern_kind {
    PATTERN_BYTE,
    PATTERN_RANDOM, /* does not compress */
    PATTERN_LINES,  /* numbered lines of text; compresses */
    PATTERN_LITERAL,
};

struct recipe_pattern {
    enum recipe_pattern_kind kind;
    uint64_t seed; /* or the byte */
    char *literal; /* repeated; owned by the clause */
    size_t literal_length;
};

/* Bytes [position, position + length) of the endless pattern. */
void recipe_pattern_fill(const struct recipe_pattern *pattern, uint64_t position, void *buffer,
                         size_t length);

/* ---- expressions ---- */

enum { RECIPE_MAX_INDEXES = 3, RECIPE_MAX_FIELD_NAME = 64 };

struct recipe_expr;

/* The name of a field: the spelling without its indexes ("l2[][].offset") and the indexes. */
struct recipe_field_name {
    struct recipe_position at;
    char key[RECIPE_MAX_FIELD_NAME];
    unsigned count;
    struct recipe_expr *indexes[RECIPE_MAX_INDEXES];
};

enum recipe_expr_kind {
    EXPR_NUMBER,
    EXPR_FIELD,     /* the value of a field, or one of the named numbers */
    EXPR_OFFSET_OF, /* where a field or structure is in the file */
    EXPR_UNARY,     /* on the right side */
    EXPR_BINARY,
};

struct recipe_expr {
    enum recipe_expr_kind kind;
    struct recipe_position at;
    uint64_t number;
    char sign; /* of the operator; '<' and '>' are the shifts */
    struct recipe_expr *left;
    struct recipe_expr *right;
    struct recipe_field_name field;
};

void recipe_expr_free(struct recipe_expr *expr);

/* ---- statements ---- */

enum recipe_word {
    WORD_NONE,
    /* the image */
    WORD_VERSION,
    WORD_CLUSTER_SIZE,
    WORD_SIZE,
    WORD_REFCOUNT_BITS,
    WORD_COMPRESSION,
    WORD_EXTENDED_L2,
    WORD_LAZY_REFCOUNTS,
    WORD_ENCRYPTION,
    WORD_DATA_FILE,
    WORD_RAW,
    WORD_BACKING,
    WORD_FORMAT,
    WORD_FEATURE_TABLE,
    WORD_EXTENSION,
    WORD_L1_ENTRIES,
    WORD_HEADER_LENGTH,
    WORD_FILE,
    /* its content */
    WORD_WRITE,
    WORD_WRITE_COMPRESSED,
    WORD_ZERO,
    WORD_ALLOCATED,
    WORD_DISCARD,
    WORD_PREALLOCATE,
    WORD_SUBCLUSTERS,
    WORD_ALLOC,
    WORD_ZEROS,
    WORD_PATTERN,
    WORD_RESIZE,
    WORD_LEAK,
    WORD_SNAPSHOT,
    WORD_ID,
    WORD_VM_STATE,
    WORD_VM_CLOCK,
    WORD_DATE,
    WORD_EXTRA,
    WORD_BITMAP,
    WORD_GRANULARITY,
    WORD_AUTO,
    WORD_IN_USE,
    WORD_DIRTY,
    WORD_ONES,
    /* its damage */
    WORD_ASSIGNMENT,
    WORD_TRUNCATE,
    WORD_APPEND,
    WORD_FILL,
    WORD_ZERO_FILL,
    WORD_COPY,
    WORD_COUNT,
};

/* The order in which the parts of a recipe must come. */
enum recipe_part {
    PART_IMAGE,
    PART_CONTENT,
    PART_DAMAGE,
    PART_CLAUSE, /* belongs to a statement */
};

struct recipe_grammar {
    const char *spelling;
    enum recipe_word word;
    enum recipe_part part;
    enum recipe_word owner; /* of a clause */
    /* One letter for each argument: n(umber), t(ext), p(attern); what follows a '?' may be left
     * out. */
    const char *arguments;
};

/* The row for a statement (`owner` WORD_NONE) or for a clause of one; NULL if there is none. */
const struct recipe_grammar *recipe_grammar_find(const char *spelling, enum recipe_word owner);

struct recipe_argument {
    struct recipe_expr *number;
    char *text; /* terminated, but may hold zero bytes */
    size_t text_length;
    struct recipe_pattern pattern;
};

enum { RECIPE_MAX_ARGUMENTS = 3 };

struct recipe_clause {
    const struct recipe_grammar *grammar;
    struct recipe_position at;
    unsigned count;
    struct recipe_argument arguments[RECIPE_MAX_ARGUMENTS];
};

struct recipe_statement {
    struct recipe_clause *clauses; /* the first is the head */
    size_t count;
    /* of an assignment */
    struct recipe_field_name target;
    char sign; /* '=' for plain ones, else the operator of |= &= ^= += -= */
};

static inline enum recipe_word
recipe_statement_word(const struct recipe_statement *statement)
{
    return statement->clauses[0].grammar->word;
}

/* The first clause with this word; NULL if there is none. */
const struct recipe_clause *recipe_statement_clause(const struct recipe_statement *statement,
                                                    enum recipe_word word);

struct q2_recipe {
    char *name;
    struct recipe_statement *statements;
    size_t count;
};

#endif
