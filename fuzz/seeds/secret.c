/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Pass phrases of each kind, and what is wrong with some. */

#include "fuzz/seeds/seed.h"

#include <string.h>

enum { RAW, BASE64 };

static const struct {
    const char *name;
    unsigned format;
    const char *text;
} all[] = {
    {"empty", RAW, ""},
    {"ascii", RAW, "pass phrase"},
    {"line", RAW, "pass phrase\n"},
    {"two-bytes", RAW,
     "stra\xc3\x9f"
     "e"},
    {"three-bytes", RAW, "\xe2\x82\xac \xe0\xa0\x80 \xed\x9f\xbf"},
    {"four-bytes", RAW, "\xf0\x9f\x94\x91 \xf4\x8f\xbf\xbf"},
    {"overlong", RAW, "\xc0\xaf"},
    {"surrogate", RAW, "\xed\xa0\x80"},
    {"too-large", RAW, "\xf4\x90\x80\x80"},
    {"cut", RAW, "abc\xe2\x82"},
    {"base64-empty", BASE64, ""},
    {"base64", BASE64, "cGFzcyBwaHJhc2U="},
    {"base64-lines", BASE64, "cGFzcyBw\r\naHJhc2U=\n"},
    {"base64-two", BASE64, "YQ=="},
    {"base64-three", BASE64, "YWJj"},
    {"base64-signs", BASE64, "fn9+Pz8/"},
    {"base64-odd", BASE64, "YWJ"},
    {"base64-padding", BASE64, "Y==="},
    {"base64-inside", BASE64, "YQ==YQ=="},
    {"base64-nul", BASE64, "YQBi"},
};

void
q2_make_seeds(void)
{
    static struct q2_seed seed;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        q2_seed_number(&seed, 1, all[i].format);
        q2_seed_bytes(&seed, all[i].text, strlen(all[i].text));
        q2_seed_write(&seed, "%s", all[i].name);
    }
}
