/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Text to tokens. */

#ifndef Q2_CORPUS_LEX_H
#define Q2_CORPUS_LEX_H

#include "corpus/recipe/syntax.h"

enum recipe_token_kind {
    TOKEN_NUMBER,
    TOKEN_WORD,
    TOKEN_TEXT,
    TOKEN_SIGN, /* an operator or bracket; `sign` is it, `assigns` says that a '=' ended it */
    TOKEN_LINE_END,
    TOKEN_END,
};

enum { RECIPE_MAX_WORD = 48 };

struct recipe_token {
    enum recipe_token_kind kind;
    struct recipe_position at;
    bool glued; /* nothing between it and the token before */
    uint64_t number;
    char word[RECIPE_MAX_WORD];
    char sign;
    bool assigns;
    char *text; /* decoded; the caller frees it */
    size_t text_length;
};

struct recipe_lexer {
    const char *name; /* of the file */
    const char *next;
    const char *end;
    struct recipe_position at;
};

/* Read the next token. Comments and spaces are skipped. */
int recipe_lex(struct recipe_lexer *lexer, struct recipe_token *ret_token, struct q2_error *err);

#endif
