/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Lists of options as QEMU writes them: key=value,key=value, with ",," for a comma in a value. */

#include "core/tool/tool.h"

#include <stdlib.h>
#include <string.h>

static bool
add(struct tool_pairs *pairs, char *key, char *value)
{
    struct tool_pair *grown = NULL;
    if (key && value)
        grown = reallocarray(pairs->pairs, pairs->count + 1, sizeof *grown);
    if (!grown) {
        free(key);
        free(value);
        tool_say("out of memory");
        return false;
    }
    pairs->pairs = grown;
    pairs->pairs[pairs->count++] = (struct tool_pair){key, value};
    return true;
}

/* Copy a value up to a single comma, of which *text is left at. */
static char *
take_value(const char **text)
{
    const char *from = *text;
    char *value = malloc(strlen(from) + 1), *to = value;
    if (!value)
        return NULL;
    for (; *from && (*from != ',' || from[1] == ','); from++) {
        from += *from == ',';
        *to++ = *from;
    }
    *to = '\0';
    *text = from;
    return value;
}

/* An item without a value is a switch. */
static bool
add_switch(struct tool_pairs *pairs, const char *item, size_t length)
{
    bool help = (length == 1 && *item == '?') || (length == 4 && memcmp(item, "help", 4) == 0);
    bool off = length > 2 && strncmp(item, "no", 2) == 0;
    size_t skip = off ? 2 : 0;
    return add(pairs, strndup(item + skip, length - skip), strdup(help ? "" : off ? "off" : "on"));
}

bool
tool_pairs_add(struct tool_pairs *pairs, const char *text, const char *first_key)
{
    for (bool first = true; *text; first = false) {
        size_t length = strcspn(text, "=,");
        const char *item = text;
        bool good;
        if (text[length] == '=') {
            text += length + 1;
            good = add(pairs, strndup(item, length), take_value(&text));
        } else if (first && first_key) {
            good = add(pairs, strdup(first_key), take_value(&text));
        } else {
            text += length;
            good = add_switch(pairs, item, length);
        }
        if (!good)
            return false;
        text += *text == ',';
    }
    return true;
}

const char *
tool_pairs_get(const struct tool_pairs *pairs, const char *key)
{
    for (size_t i = pairs->count; i-- > 0;)
        if (strcmp(pairs->pairs[i].key, key) == 0)
            return pairs->pairs[i].value;
    return NULL;
}

bool
tool_pairs_set(struct tool_pairs *pairs, const char *key, const char *value)
{
    return add(pairs, strdup(key), strdup(value));
}

bool
tool_pairs_number(const struct tool_pairs *pairs, const char *key, uint64_t max,
                  unsigned *ret_number)
{
    uint64_t number;
    const char *text = tool_pairs_get(pairs, key);
    if (!text)
        return true;
    if (!tool_number_option(key, text, 0, max, &number))
        return false;
    *ret_number = (unsigned)number;
    return true;
}

bool
tool_pairs_help(const struct tool_pairs *pairs)
{
    return tool_pairs_get(pairs, "help") || tool_pairs_get(pairs, "?");
}

void
tool_pairs_destroy(struct tool_pairs *pairs)
{
    for (size_t i = 0; i < pairs->count; i++) {
        free(pairs->pairs[i].key);
        free(pairs->pairs[i].value);
    }
    free(pairs->pairs);
    *pairs = (struct tool_pairs){NULL, 0};
}
