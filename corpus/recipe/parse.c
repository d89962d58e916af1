/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Statements: one on each line, parsed by the rows of the grammar table. A line that begins with
 * the name of a field is an assignment. */

#include "corpus/recipe/parse.h"

#include "corpus/recipe/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int
recipe_advance(struct recipe_parser *parser)
{
    free(parser->token.text);
    parser->token.text = NULL;
    return recipe_lex(&parser->lexer, &parser->token, parser->err);
}

int
recipe_parse_fail(struct recipe_parser *parser, const char *format, ...)
{
    char message[Q2_ERROR_MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return recipe_error(parser->err, Q2_ERR_FORMAT, parser->lexer.name, parser->token.at, "%s",
                        message);
}

static bool
at_line_end(const struct recipe_parser *parser)
{
    return parser->token.kind == TOKEN_LINE_END || parser->token.kind == TOKEN_END;
}

/* ---- arguments ---- */

static int
parse_text(struct recipe_parser *parser, struct recipe_argument *argument)
{
    if (parser->token.kind == TOKEN_TEXT) {
        argument->text = parser->token.text;
        argument->text_length = parser->token.text_length;
        parser->token.text = NULL;
        return recipe_advance(parser);
    }
    if (parser->token.kind != TOKEN_WORD)
        return recipe_parse_fail(parser, "expected a name or a text in quotes");
    argument->text = strdup(parser->token.word);
    if (!argument->text)
        return q2_error_set(parser->err, Q2_ERR_NOMEM, "out of memory for a name");
    argument->text_length = strlen(argument->text);
    return recipe_advance(parser);
}

static int
parse_pattern(struct recipe_parser *parser, struct recipe_pattern *pattern)
{
    if (parser->token.kind == TOKEN_NUMBER) {
        if (parser->token.number > 0xff)
            return recipe_parse_fail(parser, "a pattern byte is at most 0xff");
        *pattern = (struct recipe_pattern){.kind = PATTERN_BYTE, .seed = parser->token.number};
        return recipe_advance(parser);
    }
    if (parser->token.kind == TOKEN_TEXT && parser->token.text_length) {
        *pattern = (struct recipe_pattern){.kind = PATTERN_LITERAL,
                                           .literal = parser->token.text,
                                           .literal_length = parser->token.text_length};
        parser->token.text = NULL;
        return recipe_advance(parser);
    }
    bool random = parser->token.kind == TOKEN_WORD && strcmp(parser->token.word, "random") == 0;
    bool lines = parser->token.kind == TOKEN_WORD && strcmp(parser->token.word, "text") == 0;
    if (!random && !lines)
        return recipe_parse_fail(parser, "expected a pattern: a byte, random [SEED], text [SEED] "
                                         "or characters in quotes");
    *pattern = (struct recipe_pattern){.kind = random ? PATTERN_RANDOM : PATTERN_LINES, .seed = 1};
    int rc = recipe_advance(parser);
    if (rc || parser->token.kind != TOKEN_NUMBER)
        return rc;
    pattern->seed = parser->token.number;
    return recipe_advance(parser);
}

static int
parse_arguments(struct recipe_parser *parser, struct recipe_clause *clause)
{
    bool optional = false;
    for (const char *letter = clause->grammar->arguments; *letter; letter++) {
        if (*letter == '?') {
            optional = true;
            continue;
        }
        if (optional &&
            (at_line_end(parser) || (*letter == 'n' && parser->token.kind == TOKEN_WORD)))
            break;
        optional = false;
        struct recipe_argument *argument = &clause->arguments[clause->count];
        int rc = *letter == 'n'   ? recipe_parse_expr(parser, &argument->number)
                 : *letter == 't' ? parse_text(parser, argument)
                                  : parse_pattern(parser, &argument->pattern);
        if (rc)
            return rc;
        clause->count++;
    }
    return 0;
}

/* ---- statements ---- */

static int
add_clause(struct recipe_parser *parser, struct recipe_statement *statement,
           const struct recipe_grammar *grammar, struct recipe_position at,
           struct recipe_clause **ret_clause)
{
    struct recipe_clause *grown =
        reallocarray(statement->clauses, statement->count + 1, sizeof *grown);
    if (!grown)
        return q2_error_set(parser->err, Q2_ERR_NOMEM, "out of memory for a statement");
    statement->clauses = grown;
    *ret_clause = &grown[statement->count++];
    **ret_clause = (struct recipe_clause){.grammar = grammar, .at = at};
    return 0;
}

static int
parse_clauses(struct recipe_parser *parser, struct recipe_statement *statement)
{
    const struct recipe_grammar *head = statement->clauses[0].grammar;
    while (!at_line_end(parser)) {
        const struct recipe_grammar *grammar =
            parser->token.kind == TOKEN_WORD ? recipe_grammar_find(parser->token.word, head->word)
                                             : NULL;
        if (!grammar)
            return recipe_parse_fail(parser, "this does not belong to '%s'", head->spelling);
        struct recipe_clause *clause = NULL;
        int rc = add_clause(parser, statement, grammar, parser->token.at, &clause);
        rc = rc ? rc : recipe_advance(parser);
        /* `id=3` reads as well as `id 3`. */
        if (rc == 0 && parser->token.kind == TOKEN_SIGN && parser->token.sign == '=')
            rc = recipe_advance(parser);
        rc = rc ? rc : parse_arguments(parser, clause);
        if (rc)
            return rc;
    }
    return 0;
}

static int
parse_assignment(struct recipe_parser *parser, const char *first, struct recipe_position at,
                 struct recipe_statement *statement)
{
    struct recipe_clause *clause = NULL;
    int rc = add_clause(parser, statement, recipe_grammar_find("=", WORD_ASSIGNMENT), at, &clause);
    rc = rc ? rc : recipe_parse_field(parser, first, at, &statement->target);
    if (rc)
        return rc;
    if (parser->token.kind != TOKEN_SIGN || !parser->token.assigns)
        return recipe_parse_fail(parser, "expected = |= &= ^= += or -= after the field");
    statement->sign = parser->token.sign;
    rc = recipe_advance(parser);
    if (rc)
        return rc;
    struct recipe_argument *value = &clause->arguments[clause->count++];
    if (parser->token.kind != TOKEN_TEXT)
        rc = recipe_parse_expr(parser, &value->number);
    else if (statement->sign == '=')
        rc = parse_text(parser, value);
    else
        rc = recipe_parse_fail(parser, "a text can only be assigned with =");
    if (rc == 0 && !at_line_end(parser))
        rc = recipe_parse_fail(parser, "expected the end of the line");
    return rc;
}

static int
parse_statement(struct recipe_parser *parser, struct recipe_statement *statement)
{
    if (parser->token.kind != TOKEN_WORD)
        return recipe_parse_fail(parser, "a line begins with a statement or the name of a field");
    char first[RECIPE_MAX_WORD];
    memcpy(first, parser->token.word, sizeof first);
    struct recipe_token head = parser->token;
    int rc = recipe_advance(parser);
    if (rc)
        return rc;
    const struct recipe_token *next = &parser->token;
    if (next->kind == TOKEN_SIGN && (next->assigns || (next->glued && strchr("[.(", next->sign))))
        return parse_assignment(parser, first, head.at, statement);

    const struct recipe_grammar *grammar = recipe_grammar_find(first, WORD_NONE);
    if (!grammar)
        return recipe_error(parser->err, Q2_ERR_FORMAT, parser->lexer.name, head.at,
                            "there is no statement '%s'", first);
    struct recipe_clause *clause = NULL;
    rc = add_clause(parser, statement, grammar, head.at, &clause);
    rc = rc ? rc : parse_arguments(parser, clause);
    return rc ? rc : parse_clauses(parser, statement);
}

static int
parse_lines(struct recipe_parser *parser, struct q2_recipe *recipe)
{
    int rc = recipe_advance(parser);
    while (rc == 0 && parser->token.kind != TOKEN_END) {
        if (parser->token.kind == TOKEN_LINE_END) {
            rc = recipe_advance(parser);
            continue;
        }
        struct recipe_statement *grown =
            reallocarray(recipe->statements, recipe->count + 1, sizeof *grown);
        if (!grown)
            return q2_error_set(parser->err, Q2_ERR_NOMEM, "out of memory for a statement");
        recipe->statements = grown;
        struct recipe_statement *statement = &grown[recipe->count++];
        *statement = (struct recipe_statement){0};
        rc = parse_statement(parser, statement);
    }
    return rc;
}

int
q2_recipe_parse(const char *name, const char *text, size_t length, struct q2_recipe **ret_recipe,
                struct q2_error *err)
{
    struct q2_recipe *recipe = calloc(1, sizeof *recipe);
    if (!recipe || !(recipe->name = strdup(name))) {
        q2_recipe_free(recipe);
        return q2_error_set(err, Q2_ERR_NOMEM, "out of memory for a recipe");
    }
    struct recipe_parser parser = {
        .lexer = {.name = recipe->name,
                  .next = text,
                  .end = text + length,
                  .at = {.line = 1, .column = 1}},
        .err = err,
    };
    int rc = parse_lines(&parser, recipe);
    free(parser.token.text);
    if (rc) {
        q2_recipe_free(recipe);
        return rc;
    }
    *ret_recipe = recipe;
    return 0;
}
