/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the parser of statements (parse.c) and that of expressions (expr.c) share. */

#ifndef Q2_CORPUS_PARSE_H
#define Q2_CORPUS_PARSE_H

#include "corpus/recipe/lex.h"

struct recipe_parser {
    struct recipe_lexer lexer;
    struct recipe_token token; /* the next one */
    unsigned depth;            /* of nested expressions */
    struct q2_error *err;
};

/* Drop the next token and read the one after it. */
int recipe_advance(struct recipe_parser *parser);

/* Fail at the next token. */
int recipe_parse_fail(struct recipe_parser *parser, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static inline bool
recipe_at_sign(const struct recipe_parser *parser, char sign)
{
    return parser->token.kind == TOKEN_SIGN && parser->token.sign == sign && !parser->token.assigns;
}

int recipe_parse_expr(struct recipe_parser *parser, struct recipe_expr **ret_expr);

/* Parse the rest of a field's name, whose first word was read already. `field` is zeroed; on
 * failure it still owns what was parsed. */
int recipe_parse_field(struct recipe_parser *parser, const char *first, struct recipe_position at,
                       struct recipe_field_name *field);

#endif
