/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "corpus/recipe/lex.h"

#include "core/base/checked.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static int
peek(const struct recipe_lexer *lexer, size_t ahead)
{
    return ahead < (size_t)(lexer->end - lexer->next) ? (unsigned char)lexer->next[ahead] : -1;
}

static void
step(struct recipe_lexer *lexer, size_t count)
{
    lexer->next += count;
    lexer->at.column += (unsigned)count;
}

static int
fail(const struct recipe_lexer *lexer, struct q2_error *err, const char *what)
{
    return recipe_error(err, Q2_ERR_FORMAT, lexer->name, lexer->at, "%s", what);
}

static bool
in_word(const struct recipe_lexer *lexer, size_t ahead)
{
    int c = peek(lexer, ahead);
    /* A dash belongs to a word when a letter follows, so that `file.size-512` is a difference. */
    return isalnum(c) || c == '_' || (c == '-' && isalpha(peek(lexer, ahead + 1)));
}

static int
lex_word(struct recipe_lexer *lexer, struct recipe_token *token, struct q2_error *err)
{
    size_t length = 1;
    while (in_word(lexer, length))
        length++;
    if (length >= RECIPE_MAX_WORD)
        return fail(lexer, err, "the word is too long");
    token->kind = TOKEN_WORD;
    memcpy(token->word, lexer->next, length);
    token->word[length] = '\0';
    step(lexer, length);
    return 0;
}

static unsigned
digit(int c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    c = tolower(c);
    return c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : 99;
}

static int
lex_number(struct recipe_lexer *lexer, struct recipe_token *token, struct q2_error *err)
{
    static const char suffixes[] = "KMGTPE";
    unsigned base = 10;
    size_t length = 0;
    uint64_t value = 0;
    if (peek(lexer, 0) == '0' && tolower(peek(lexer, 1)) == 'x') {
        base = 16;
        length = 2;
        if (digit(peek(lexer, 2)) >= base)
            return fail(lexer, err, "a hexadecimal number needs digits");
    }
    for (; digit(peek(lexer, length)) < base; length++)
        if (!q2_mul(value, base, &value) || !q2_add(value, digit(peek(lexer, length)), &value))
            return fail(lexer, err, "the number does not fit 64 bits");
    int c = peek(lexer, length);
    const char *suffix = c > 0 ? strchr(suffixes, c) : NULL;
    if (suffix) {
        unsigned bits = 10 * (unsigned)(suffix - suffixes + 1);
        if (!q2_mul(value, UINT64_C(1) << bits, &value))
            return fail(lexer, err, "the number does not fit 64 bits");
        length++;
    }
    if (isalnum(peek(lexer, length)) || peek(lexer, length) == '_') {
        step(lexer, length);
        return fail(lexer, err, "this does not belong to the number before it");
    }
    token->kind = TOKEN_NUMBER;
    token->number = value;
    step(lexer, length);
    return 0;
}

/* One character of a text, escapes decoded. */
static int
lex_character(struct recipe_lexer *lexer, char *ret_character, struct q2_error *err)
{
    int c = peek(lexer, 0);
    if (c != '\\') {
        step(lexer, 1);
        *ret_character = (char)c;
        return 0;
    }
    static const char plain[] = "\\\"nt0", means[] = "\\\"\n\t";
    c = peek(lexer, 1);
    if (c == 'x' && digit(peek(lexer, 2)) < 16 && digit(peek(lexer, 3)) < 16) {
        *ret_character = (char)(digit(peek(lexer, 2)) * 16 + digit(peek(lexer, 3)));
        step(lexer, 4);
        return 0;
    }
    const char *found = c > 0 ? strchr(plain, c) : NULL;
    if (!found)
        return fail(lexer, err, "unknown escape; there are \\\\ \\\" \\n \\t \\0 and \\xNN");
    *ret_character = means[found - plain];
    step(lexer, 2);
    return 0;
}

static int
lex_text(struct recipe_lexer *lexer, struct recipe_token *token, struct q2_error *err)
{
    const char *stop = memchr(lexer->next, '\n', (size_t)(lexer->end - lexer->next));
    size_t room = (size_t)((stop ? stop : lexer->end) - lexer->next);
    char *text = malloc(room + 1);
    if (!text)
        return q2_error_set(err, Q2_ERR_NOMEM, "out of memory for a text");
    size_t length = 0;
    step(lexer, 1);
    while (peek(lexer, 0) != '"') {
        int rc = peek(lexer, 0) < 0 || peek(lexer, 0) == '\n'
                     ? fail(lexer, err, "the text is not closed by a \" on its line")
                     : lex_character(lexer, &text[length], err);
        if (rc) {
            free(text);
            return rc;
        }
        length++;
    }
    step(lexer, 1);
    text[length] = '\0';
    token->kind = TOKEN_TEXT;
    token->text = text;
    token->text_length = length;
    return 0;
}

static int
lex_sign(struct recipe_lexer *lexer, struct recipe_token *token, struct q2_error *err)
{
    int c = peek(lexer, 0), following = peek(lexer, 1);
    if (c <= 0 || !strchr("=|&^+-*/~<>()[].", c))
        return fail(lexer, err, "unexpected character");
    token->kind = TOKEN_SIGN;
    token->sign = (char)c;
    if (c == '<' || c == '>') {
        if (following != c)
            return fail(lexer, err, "only << and >> are operators");
        step(lexer, 2);
        return 0;
    }
    token->assigns = c == '=' || (following == '=' && strchr("|&^+-", c));
    step(lexer, token->assigns && c != '=' ? 2 : 1);
    return 0;
}

static void
skip_blank(struct recipe_lexer *lexer)
{
    while (peek(lexer, 0) == ' ' || peek(lexer, 0) == '\t' || peek(lexer, 0) == '\r')
        step(lexer, 1);
    if (peek(lexer, 0) == '#')
        while (peek(lexer, 0) >= 0 && peek(lexer, 0) != '\n')
            step(lexer, 1);
}

int
recipe_lex(struct recipe_lexer *lexer, struct recipe_token *ret_token, struct q2_error *err)
{
    const char *before = lexer->next;
    skip_blank(lexer);
    struct recipe_token token = {.at = lexer->at, .glued = before == lexer->next};
    int c = peek(lexer, 0), rc = 0;
    if (c < 0) {
        token.kind = TOKEN_END;
    } else if (c == '\n') {
        token.kind = TOKEN_LINE_END;
        lexer->next++;
        lexer->at = (struct recipe_position){.line = lexer->at.line + 1, .column = 1};
    } else if (isalpha(c) || c == '_') {
        rc = lex_word(lexer, &token, err);
    } else if (isdigit(c)) {
        rc = lex_number(lexer, &token, err);
    } else if (c == '"') {
        rc = lex_text(lexer, &token, err);
    } else {
        rc = lex_sign(lexer, &token, err);
    }
    if (rc == 0)
        *ret_token = token;
    return rc;
}
